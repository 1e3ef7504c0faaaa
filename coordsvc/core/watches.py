"""Watches: who wants to hear of which change. Per replica, never replicated.

A *watcher* is one connection or stream, told by a number. Each of its watches has a `watch_id`
of the watcher's own choosing. A change gives at most one delivery per watcher, path and type,
with all watch ids that match. What the kinds see of a change at ``/p/n``::

                DATA, EXISTS    CHILDREN    PERSISTENT     CHILDREN or        PERSISTENT_RECURSIVE
                on /p/n         on /p/n     on /p/n        PERSISTENT on /p   on /p/n or above
    created     CREATED         -           CREATED        CHILDREN_CHANGED   CREATED
    data set    DATA_CHANGED    -           DATA_CHANGED   -                  DATA_CHANGED
    deleted     DELETED         DELETED     DELETED        CHILDREN_CHANGED   DELETED

DATA, EXISTS and CHILDREN are used up by their first event, also when the watcher may not READ the
znode and so is not told. Ref: ZooKeeper WatchManager, DataTree; Programmer's Guide, "Watches".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

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
from coordsvc.paths import ancestors_of, parent_of

DATA, EXISTS, CHILDREN, PERSISTENT, PERSISTENT_RECURSIVE = 1, 2, 3, 4, 5
"""Kinds of watches."""

CHILDREN_CHANGED: Final = 4
"""An event's type, beside those of changes. Ref: ZooKeeper Watcher.Event.EventType."""

_ONE_SHOT = (DATA, EXISTS, CHILDREN)

_OWN_KINDS: Final[dict[int, tuple[int, ...]]] = {
    CREATED: (DATA, EXISTS, PERSISTENT, PERSISTENT_RECURSIVE),
    DATA_CHANGED: (DATA, EXISTS, PERSISTENT, PERSISTENT_RECURSIVE),
    DELETED: (DATA, EXISTS, CHILDREN, PERSISTENT, PERSISTENT_RECURSIVE),
}
"""Which kinds on the changed path itself hear of a change."""

_PARENT_KINDS = (CHILDREN, PERSISTENT)

Watch = tuple[int, int, int]
"""(watcher_id, kind, watch_id), under its path."""

IdsOf = Callable[[int], tuple[AuthId, ...]]
"""A watcher's identities at this moment."""


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One event for one watcher. `path` is the parent's for CHILDREN_CHANGED. `is_last_of_zxid`:
    the watcher gets nothing more of this zxid."""

    watcher_id: int
    type: int
    path: str
    zxid: int
    watch_ids: tuple[int, ...]
    change: Change
    is_last_of_zxid: bool


class WatchTable:
    """The watches at one replica."""

    def __init__(self) -> None:
        self._by_path: dict[str, dict[Watch, None]] = {}
        self._by_watcher: dict[int, dict[tuple[str, Watch], None]] = {}
        self._recursive_count = 0

    def __len__(self) -> int:
        return sum(map(len, self._by_watcher.values()))

    def add(self, watcher_id: int, path: str, kind: int, watch_id: int = 0) -> None:
        """Watch `path`, whether or not anything is there. The same watch twice is one."""
        watch = (watcher_id, kind, watch_id)
        watches = self._by_path.setdefault(path, {})
        if watch not in watches:
            watches[watch] = None
            self._by_watcher.setdefault(watcher_id, {})[path, watch] = None
            self._recursive_count += kind == PERSISTENT_RECURSIVE

    def remove(self, watcher_id: int, path: str, kind: int, watch_id: int = 0) -> bool:
        """Stop watching. False: there was no such watch (NO_WATCHER)."""
        watch = (watcher_id, kind, watch_id)
        if watch not in self._by_path.get(path, {}):
            return False
        self._drop(path, watch)
        return True

    def remove_watcher(self, watcher_id: int) -> None:
        """The watcher is gone, and all its watches with it."""
        for path, watch in tuple(self._by_watcher.get(watcher_id, ())):
            self._drop(path, watch)

    def _drop(self, path: str, watch: Watch) -> None:
        watches = self._by_path[path]
        del watches[watch]
        if not watches:
            del self._by_path[path]
        of_watcher = self._by_watcher[watch[0]]
        del of_watcher[path, watch]
        if not of_watcher:
            del self._by_watcher[watch[0]]
        self._recursive_count -= watch[1] == PERSISTENT_RECURSIVE

    # ------------------------------------------------------------------- changes

    def trigger(self, changes: Iterable[Change], ids_of: IdsOf) -> list[Delivery]:
        """The deliveries of these changes, in their order; uses up one-shot watches. Whole
        groups only: all changes of a zxid must come in one call."""
        if not self._by_path:
            return []
        deliveries: list[Delivery] = []
        last_of_watcher: dict[int, int] = {}
        for change in changes:
            for delivery in self._deliveries(change, ids_of):
                last_of_watcher[delivery.watcher_id] = len(deliveries)
                deliveries.append(delivery)
            if change.last_of_zxid:
                for index in last_of_watcher.values():
                    deliveries[index] = msgspec.structs.replace(
                        deliveries[index], is_last_of_zxid=True
                    )
                last_of_watcher.clear()
        return deliveries

    def _deliveries(self, change: Change, ids_of: IdsOf) -> list[Delivery]:
        path = change.path
        own: dict[int, list[int]] = {}
        self._match(path, _OWN_KINDS[change.type], own)
        if self._recursive_count:
            for ancestor in ancestors_of(path):
                if ancestor != path:
                    self._match(ancestor, (PERSISTENT_RECURSIVE,), own)
        deliveries = _readable(own, change.type, path, change.acl, change, ids_of)
        if change.type != DATA_CHANGED:
            parent_path = parent_of(path)
            of_parent: dict[int, list[int]] = {}
            self._match(parent_path, _PARENT_KINDS, of_parent)
            deliveries += _readable(
                of_parent, CHILDREN_CHANGED, parent_path, change.parent_acl, change, ids_of
            )
        return deliveries

    def _match(self, path: str, kinds: tuple[int, ...], found: dict[int, list[int]]) -> None:
        """Add the watch ids of these kinds at `path` to `found`, by watcher."""
        watches = self._by_path.get(path)
        if watches is None:
            return
        for watch in tuple(watches):
            watcher_id, kind, watch_id = watch
            if kind in kinds:
                ids = found.setdefault(watcher_id, [])
                if watch_id not in ids:
                    ids.append(watch_id)
                if kind in _ONE_SHOT:
                    self._drop(path, watch)


def _readable(
    found: dict[int, list[int]],
    event_type: int,
    path: str,
    acl: tuple[Acl, ...],
    change: Change,
    ids_of: IdsOf,
) -> list[Delivery]:
    """Deliveries to those who may READ the znode the event is about, as its ACL was then."""
    return [
        Delivery(watcher_id, event_type, path, change.zxid, tuple(watch_ids), change, False)
        for watcher_id, watch_ids in found.items()
        if acl is OPEN_ACL or check(acl, READ, ids_of(watcher_id))
    ]


# --------------------------------------------------------------------------- catching up


def missed_event(state: State, path: str, kind: int, after_zxid: int) -> int | None:
    """What a watch set at `after_zxid` must be told by now, as far as the stat shows it; None:
    nothing, arm it. Only for one-shot kinds: what a persistent one missed, no stat shows.

    A znode deleted and made again shows as DATA_CHANGED. An EXISTS watch on nothing that came
    and went again cannot be told at all. Ref: ZooKeeper DataTree.setWatches.
    """
    assert kind in _ONE_SHOT
    znode = state.znodes.get(path)
    if znode is None:
        return None if kind == EXISTS else DELETED
    if kind == CHILDREN:
        return CHILDREN_CHANGED if znode.stat.pzxid > after_zxid else None
    if kind == EXISTS and znode.stat.czxid > after_zxid:
        return CREATED
    return DATA_CHANGED if znode.stat.mzxid > after_zxid else None
