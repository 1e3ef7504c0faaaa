"""Which changes a watch is to tell of.

What the kinds hear of a change at ``/p/n``::

                    data      exist     children    persistent     children or        persistent_
                    on /p/n   on /p/n   on /p/n     on /p/n        persistent on /p   recursive
    created         -         created   -           created        children_changed   created
    data_changed    the same  the same  -           the same       -                  the same
    deleted         deleted   deleted   deleted     deleted        children_changed   deleted
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from coordsvc.paths import ROOT
from coordsvc.testing.history import Event, WatchSet
from coordsvc.testing.truth import Effect, Truth

ONE_SHOT = frozenset({"data", "exist", "children"})

_OWN = {
    "data": frozenset({"data_changed", "deleted"}),
    "exist": frozenset({"created", "data_changed", "deleted"}),
    "children": frozenset({"deleted"}),
    "persistent": frozenset({"created", "data_changed", "deleted"}),
    "persistent_recursive": frozenset({"created", "data_changed", "deleted"}),
}
"""What a kind hears of the znode itself."""

_OF_CHILDREN = frozenset({"children", "persistent"})


class Expected(NamedTuple):
    zxid: int
    event: str
    path: str


def is_watched(watch: WatchSet, event: Event) -> bool:
    """Whether a watch of this kind, there, can have such an event at all."""
    kind = watch.kind
    if event.event == "children_changed":
        return kind in _OF_CHILDREN and event.path == watch.path
    if event.event not in _OWN[kind]:
        return False
    if kind == "persistent_recursive":
        return _is_at_or_below(event.path, watch.path)
    return event.path == watch.path


class Expectations:
    """`after(watch)`: all it would tell of if it were never used up, in order."""

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._by_watch: dict[tuple[str, str], list[Expected]] = {}

    def after(self, watch: WatchSet) -> list[Expected]:
        key = (watch.kind, watch.path)
        found = self._by_watch.get(key)
        if found is None:
            found = self._by_watch[key] = self._all(*key)
        return found[bisect_right(found, watch.zxid, key=lambda each: each.zxid) :]

    def _all(self, kind: str, path: str) -> list[Expected]:
        truth = self._truth
        if kind == "persistent_recursive":
            below = [each for each in truth.effects if _is_at_or_below(each.path, path)]
            return [Expected(each.zxid, each.change, each.path) for each in below]
        own = _OWN[kind]
        found = [
            (each.place, Expected(each.zxid, each.change, path))
            for each in truth.own.get(path, ())
            if each.change in own
        ]
        if kind in _OF_CHILDREN:
            found += [
                (each.place, Expected(each.zxid, "children_changed", path))
                for each in truth.children.get(path, ())
            ]
        return [expected for _, expected in sorted(found)]

    def may_resume_with(self, watch: WatchSet, event: Event) -> bool:
        """Whether this can be what a one-shot watch missed while its session had no replica.

        A znode that was deleted and made again has changed. A replica that has forgotten what
        happened tells by what it has: the latest change, or that the znode is gone by then.
        """
        truth, zxid, path = self._truth, event.zxid, watch.path
        own = {each.change for each in _at(truth.own.get(path, []), zxid)}
        if event.event == "deleted":
            if watch.kind == "exist":
                return zxid > watch.zxid and "deleted" in own
            return not truth.is_there(path, zxid) and zxid >= watch.zxid
        if zxid <= watch.zxid:
            return False
        if event.event == "created":
            point = truth.at(path, zxid)
            is_new = point is not None and point.exists and point.czxid > watch.zxid
            return "created" in own or ("data_changed" in own and is_new)
        if event.event == "children_changed":
            return "created" in own or bool(_at(truth.children.get(path, []), zxid))
        return "data_changed" in own or (watch.kind == "data" and "created" in own)


def _at(effects: list[Effect], zxid: int) -> list[Effect]:
    end = bisect_right(effects, zxid, key=lambda each: each.zxid)
    begin = bisect_right(effects, zxid - 1, key=lambda each: each.zxid)
    return effects[begin:end]


def _is_at_or_below(path: str, top: str) -> bool:
    return top in (ROOT, path) or path.startswith(f"{top}/")
