"""What became of the znodes, zxid by zxid: from the `Applied` records of a history, or, where there
are none, as much of it as the acknowledged writes tell.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from coordsvc.paths import parent_of
from coordsvc.testing.history import Applied, Change, Invoke
from coordsvc.testing.indexed_history import IndexedHistory, Operation

CHILDREN_AT_FIRST: dict[str, tuple[str, ...]] = {
    "/": ("zookeeper",),
    "/zookeeper": ("config", "quota"),
    "/zookeeper/config": (),
    "/zookeeper/quota": (),
}
"""What every tree has from the beginning."""

NEVER = 1 << 63
"""Above every zxid."""


class Effect(NamedTuple):
    """One change, with its zxid. `place`: among all effects."""

    place: int
    zxid: int
    change: str
    path: str
    data: str | None
    owner: str


class Point(NamedTuple):
    """What a znode is from `zxid` on. `version` and `czxid` are right only in a complete truth."""

    zxid: int
    exists: bool
    data: str | None
    version: int
    czxid: int
    owner: str


class Truth:
    """`is_complete`: it has every change of the run."""

    def __init__(self, applied: Iterable[Applied], *, is_complete: bool) -> None:
        self.is_complete = is_complete
        self.applied: dict[int, Applied] = {}
        self.effects: list[Effect] = []
        self.own: dict[str, list[Effect]] = {}
        """By path."""
        self.children: dict[str, list[Effect]] = {}
        """By their parent's path: children that came and went."""
        self.closed: dict[str, Applied] = {}
        self._points: dict[str, list[Point]] = {}
        for each in applied:
            self.applied[each.zxid] = each
            for change in each.changes:
                self._add(each.zxid, change)
            for session in each.closed:
                self.closed.setdefault(session, each)

    def _add(self, zxid: int, change: Change) -> None:
        path = change.path
        effect = Effect(len(self.effects), zxid, change.change, path, change.data, change.owner)
        self.effects.append(effect)
        self.own.setdefault(path, []).append(effect)
        if change.change != "data_changed":
            self.children.setdefault(parent_of(path), []).append(effect)
        points = self._points.setdefault(path, [])
        points.append(_point_after(points[-1] if points else None, effect))

    def at(self, path: str, zxid: int) -> Point | None:
        """The znode when everything up to `zxid` has happened; None: nothing is known of it."""
        points = self._points.get(path, ())
        place = bisect_right(points, zxid, key=_zxid_of)
        return points[place - 1] if place else None

    def is_there(self, path: str, zxid: int) -> bool:
        point = self.at(path, zxid)
        return path in CHILDREN_AT_FIRST if point is None else point.exists

    def next_after(self, path: str, zxid: int) -> int:
        """The zxid of the first change of the znode after `zxid`; NEVER if there is none."""
        points = self._points.get(path, ())
        place = bisect_right(points, zxid, key=_zxid_of)
        return points[place].zxid if place < len(points) else NEVER

    def points(self, path: str) -> list[Point]:
        return self._points.get(path, [])


def _zxid_of(point: Point) -> int:
    return point.zxid


def _point_after(before: Point | None, effect: Effect) -> Point:
    zxid = effect.zxid
    if effect.change == "deleted":
        return Point(zxid, False, None, 0, 0, "")
    if effect.change == "created" or before is None:
        return Point(zxid, True, effect.data, 0, zxid, effect.owner)
    return Point(zxid, True, effect.data, before.version + 1, before.czxid, before.owner)


def truth_of(history: IndexedHistory) -> Truth:
    """The complete one if the history has it."""
    if history.applied:
        return Truth(history.applied, is_complete=True)
    return Truth(_acknowledged(history.operations.values()), is_complete=False)


def _acknowledged(operations: Iterable[Operation]) -> list[Applied]:
    by_zxid: dict[int, Applied] = {}
    for operation in operations:
        answer = operation.answer
        if answer is not None and operation.is_write and operation.is_ok and answer.zxid:
            changes = changes_of(operation.invoke, answer.result)
            by_zxid.setdefault(answer.zxid, Applied(answer.time, answer.zxid, changes))
    return [by_zxid[zxid] for zxid in sorted(by_zxid)]


def changes_of(invoke: Invoke, result: Mapping[str, Any]) -> list[Change]:
    """What a write that was answered with `result` has changed, in order."""
    if invoke.name != "multi":
        return _changes(invoke.name, invoke.args, result, invoke.session)
    changes: list[Change] = []
    ops, results = invoke.args["ops"], result.get("results", ())
    for number, op in enumerate(ops):
        own = results[number] if number < len(results) else {}
        changes += _changes(op["name"], op, own or {}, invoke.session)
    return changes


def _changes(
    name: str, args: Mapping[str, Any], result: Mapping[str, Any], session: str
) -> list[Change]:
    if name == "create":
        is_ephemeral = args.get("mode", "").startswith("ephemeral")
        path = result.get("path", args["path"])
        return [Change("created", path, args.get("data"), session if is_ephemeral else "")]
    if name == "set_data":
        return [Change("data_changed", args["path"], args.get("data"))]
    if name == "delete":
        return [Change("deleted", args["path"])]
    return []


def parts_of(invoke: Invoke) -> list[tuple[str, Mapping[str, Any]]]:
    """(name, args) of an operation, or of each one in a multi."""
    if invoke.name != "multi":
        return [(invoke.name, invoke.args)]
    return [(op["name"], op) for op in invoke.args["ops"]]
