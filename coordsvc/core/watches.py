"""Watches: who wants to hear of which change. Per replica, never replicated.

A *watcher* is one connection or stream, whatever stands for it. Each of its watches has a
`watch_id` of the watcher's own choosing. A change gives at most one event per watcher and path,
with all watches that match. What the kinds see of a change at ``/p/n``::

                DATA, EXISTS    CHILDREN    PERSISTENT     CHILDREN or        PERSISTENT_RECURSIVE
                on /p/n         on /p/n     on /p/n        PERSISTENT on /p   on /p/n or above
    created     CREATED         -           CREATED        CHILDREN_CHANGED   CREATED
    data set    DATA_CHANGED    -           DATA_CHANGED   -                  DATA_CHANGED
    deleted     DELETED         DELETED     DELETED        CHILDREN_CHANGED   DELETED

DATA, EXISTS and CHILDREN are used up by their first event, also when the watcher may not READ the
znode and so is not told. Ref: ZooKeeper WatchManager, DataTree; Programmer's Guide, "Watches".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from coordsvc.core.auth import check
from coordsvc.core.commands import (
    CREATED,
    DATA_CHANGED,
    DELETED,
    OPEN_ACL,
    READ,
    Acl,
    AuthId,
    Change,
)
from coordsvc.core.state import State
from coordsvc.paths import ROOT, parent_of

DATA, EXISTS, CHILDREN, PERSISTENT, PERSISTENT_RECURSIVE = 1, 2, 3, 4, 5
"""Kinds of watches."""

CHILDREN_CHANGED: Final = 4
"""An event's type, beside those of changes. Ref: ZooKeeper Watcher.Event.EventType."""

ONE_SHOT: Final = (DATA, EXISTS, CHILDREN)
NEEDS_ZNODE: Final = (DATA, CHILDREN)
"""Kinds that are set on a znode that exists, as the reads are that set them in ZooKeeper."""

IdsOf = Callable[[Any], tuple[AuthId, ...]]
"""A watcher's identities at this moment."""


class Watch(msgspec.Struct, frozen=True, gc=False):
    """One watch. `watcher` is anything that can be a key; `include_data` is for whoever makes
    events of it."""

    watcher: Any
    watch_id: int
    path: str
    kind: int
    include_data: bool = False


Found = dict[Any, list[Watch]]
"""Watches that match, by their watcher."""

Match = tuple[int, str, tuple[Acl, ...], Found]
"""(type of the event, its path, the ACL of the znode there at that time, who watches it)."""


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One event for one watcher. `path` is the parent's for CHILDREN_CHANGED. `is_last_of_zxid`:
    the watcher gets nothing more of this zxid."""

    watcher_id: Any
    type: int
    path: str
    zxid: int
    watch_ids: tuple[int, ...]
    change: Change
    is_last_of_zxid: bool


_Index = dict[str, dict[Watch, None]]


class WatchTable:
    """Watches by what they hear of: changes of a znode itself, of its children, of everything
    below. A PERSISTENT watch is in the first two."""

    def __init__(self) -> None:
        self._own: _Index = {}
        self._children: _Index = {}
        self._recursive: _Index = {}
        self._count = 0
        self._recursive_length_max = 0
        """No path under a recursive watch is longer; it falls when the last of them goes."""

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Watch]:
        """All watches, in no order that means anything."""
        for index in (self._own, self._children, self._recursive):
            for watches in index.values():
                for watch in watches:
                    if index is not self._children or watch.kind != PERSISTENT:
                        yield watch

    @property
    def has_recursive(self) -> bool:
        return bool(self._recursive)

    def chains(self) -> Iterator[tuple[str, bool]]:
        """Which changes matter, but for recursive watches: (path, False) for those of the znode
        itself, (path, True) for its children coming and going."""
        for path in self._own:
            yield path, False
        for path in self._children:
            yield path, True
            if path not in self._own:
                yield path, False

    def has_chain(self, path: str, of_children: bool) -> bool:
        return path in self._children or (not of_children and path in self._own)

    def put(self, watch: Watch) -> None:
        """Watch, whether or not anything is there. The same watch twice is one."""
        kind, path = watch.kind, watch.path
        if kind == PERSISTENT_RECURSIVE:
            is_new = _put(self._recursive, watch)
            self._recursive_length_max = max(self._recursive_length_max, len(path))
        elif kind == CHILDREN:
            is_new = _put(self._children, watch)
        else:
            is_new = _put(self._own, watch)
            if kind == PERSISTENT:
                _put(self._children, watch)
        self._count += is_new

    def drop(self, watch: Watch) -> bool:
        """Stop watching. False: there was no such watch."""
        kind = watch.kind
        if kind == PERSISTENT_RECURSIVE:
            was_there = _drop(self._recursive, watch)
            if not self._recursive:
                self._recursive_length_max = 0
        elif kind == CHILDREN:
            was_there = _drop(self._children, watch)
        else:
            was_there = _drop(self._own, watch)
            if kind == PERSISTENT:
                _drop(self._children, watch)
        self._count -= was_there
        return was_there

    def take_children_watches(self, path: str) -> Found:
        """Use up the CHILDREN watches on `path`; whose they were."""
        found: Found = {}
        watches = self._children.get(path, ())
        self._find([watch for watch in watches if watch.kind == CHILDREN], found)
        return found

    # ------------------------------------------------------------------------------- changes

    def match(self, change: Change) -> list[Match]:
        """Who hears of the change: first at its own path, then at its parent's. One-shot watches
        are used up."""
        if not self._count:
            return []
        path, change_type = change.path, change.type
        matches: list[Match] = []
        own: Found = {}
        if path in self._own:
            self._find(self._own[path], own)
        if change_type == DELETED and path in self._children:
            self._find([watch for watch in self._children[path] if watch.kind == CHILDREN], own)
        if self._recursive:
            self._find_recursive(path, own)
        if own:
            matches.append((change_type, path, change.acl, own))
        if change_type != DATA_CHANGED:
            parent_path = parent_of(path)
            if parent_path in self._children:
                found: Found = {}
                self._find(self._children[parent_path], found)
                matches.append((CHILDREN_CHANGED, parent_path, change.parent_acl, found))
        return matches

    def _find(self, watches: Iterable[Watch], found: Found) -> None:
        used_up = []
        for watch in watches:
            of_watcher = found.get(watch.watcher)
            if of_watcher is None:
                found[watch.watcher] = [watch]
            else:
                of_watcher.append(watch)
            if watch.kind in ONE_SHOT:
                used_up.append(watch)
        for watch in used_up:
            self.drop(watch)

    def _find_recursive(self, path: str, found: Found) -> None:
        """At the path and above it, from the root down, as far as there can be watches."""
        recursive = self._recursive
        if ROOT in recursive:
            self._find(recursive[ROOT], found)
        end = path.find("/", 1)
        while 0 < end <= self._recursive_length_max:
            if (ancestor := path[:end]) in recursive:
                self._find(recursive[ancestor], found)
            end = path.find("/", end + 1)
        if path != ROOT and path in recursive:
            self._find(recursive[path], found)

    # ------------------------------------------------------- for watchers that are told by a number

    def add(self, watcher_id: int, path: str, kind: int, watch_id: int = 0) -> None:
        self.put(Watch(watcher_id, watch_id, path, kind))

    def remove(self, watcher_id: int, path: str, kind: int, watch_id: int = 0) -> bool:
        """False: there was no such watch (NO_WATCHER)."""
        return self.drop(Watch(watcher_id, watch_id, path, kind))

    def remove_watcher(self, watcher_id: int) -> None:
        """The watcher is gone, and all its watches with it. Looks at every watch there is."""
        for watch in [watch for watch in self if watch.watcher == watcher_id]:
            self.drop(watch)

    def trigger(self, changes: Iterable[Change], ids_of: IdsOf) -> list[Delivery]:
        """The deliveries of these changes, in their order; uses up one-shot watches. Whole
        groups only: all changes of a zxid must come in one call."""
        deliveries: list[Delivery] = []
        last_of_watcher: dict[int, int] = {}
        for change in changes:
            for match in self.match(change):
                for delivery in _readable(match, change, ids_of):
                    last_of_watcher[delivery.watcher_id] = len(deliveries)
                    deliveries.append(delivery)
            if change.last_of_zxid:
                for index in last_of_watcher.values():
                    deliveries[index] = msgspec.structs.replace(
                        deliveries[index], is_last_of_zxid=True
                    )
                last_of_watcher.clear()
        return deliveries


def _put(index: _Index, watch: Watch) -> bool:
    watches = index.get(watch.path)
    if watches is None:
        index[watch.path] = {watch: None}
        return True
    if watch in watches:
        return False
    watches[watch] = None
    return True


def _drop(index: _Index, watch: Watch) -> bool:
    watches = index.get(watch.path)
    if watches is None or watch not in watches:
        return False
    del watches[watch]
    if not watches:
        del index[watch.path]
    return True


def may_read(acl: tuple[Acl, ...], ids: Callable[[], tuple[AuthId, ...]]) -> bool:
    """Whether an event about a znode with this ACL may be told. Asks for the identities only
    when they matter."""
    return acl is OPEN_ACL or check(acl, READ, ids())


def _readable(match: Match, change: Change, ids_of: IdsOf) -> list[Delivery]:
    """Deliveries to those who may READ the znode the event is about, as its ACL was then."""
    event_type, path, acl, found = match
    deliveries = []
    for watcher_id, watches in found.items():
        if acl is OPEN_ACL or check(acl, READ, ids_of(watcher_id)):
            watch_ids = tuple(sorted({watch.watch_id for watch in watches}))
            deliveries.append(
                Delivery(watcher_id, event_type, path, change.zxid, watch_ids, change, False)
            )
    return deliveries


# --------------------------------------------------------------------------- catching up


def missed_event(state: State, path: str, kind: int, after_zxid: int) -> int | None:
    """What a watch set at `after_zxid` must be told by now, as far as the stat shows it; None:
    nothing, arm it. Only for one-shot kinds: what a persistent one missed, no stat shows.

    A znode deleted and made again shows as DATA_CHANGED. An EXISTS watch on nothing that came
    and went again cannot be told at all. Ref: ZooKeeper DataTree.setWatches.
    """
    assert kind in ONE_SHOT
    znode = state.znodes.get(path)
    if znode is None:
        return None if kind == EXISTS else DELETED
    if kind == CHILDREN:
        return CHILDREN_CHANGED if znode.stat.pzxid > after_zxid else None
    if kind == EXISTS and znode.stat.czxid > after_zxid:
        return CREATED
    return DATA_CHANGED if znode.stat.mzxid > after_zxid else None
