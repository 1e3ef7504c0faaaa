"""What a connection's watches have missed while its client had none.

One-shot watches are told what the znode shows, as ZooKeeper does. Persistent ones get no catch-up
there at all; here they are told everything, as far as the history reaches back.

Ref: ZooKeeper DataTree.setWatches.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from coordsvc.core.commands import CREATED, DATA_CHANGED, DELETED
from coordsvc.core.replay import PlaceLostError, Replay
from coordsvc.core.watches import CHILDREN, CHILDREN_CHANGED, Watch, may_read
from coordsvc.server.watch_hub import WatchHub
from coordsvc.server.watcher import SLICE_S, Listener, tell
from coordsvc.server.zookeeper.notifications import CAUGHT_UP_ZXID, notification

CHECK_TIME_EACH: Final = 64

OneShot = tuple[Sequence[str], int, bool]
"""Paths; the kind of watch; whether they were set where nothing was."""

Lasting = tuple[Sequence[str], int]


class Watches(Listener, Protocol):
    """The connection's."""

    def has(self, path: str, kind: int) -> bool: ...
    def enter(self, path: str, kind: int) -> Watch: ...
    def tell(self, zxid: int, packet: bytes) -> None: ...


def catch_up(
    hub: WatchHub,
    watches: Watches,
    after_zxid: int,
    one_shot: Iterable[OneShot],
    lasting: Iterable[Lasting],
) -> Iterator[bytes]:
    """Yields every few milliseconds, and ends when all are set, and all that was missed is told.
    What this replica has no room for is not set."""
    yield from _one_shot(hub, watches, after_zxid, one_shot)
    entered: list[Watch] = []
    for paths, kind in lasting:
        for path in paths:
            if hub.watches < hub.limits.watches_max and not watches.has(path, kind):
                entered.append(watches.enter(path, kind))
    if hub.history.complete_after <= after_zxid <= hub.state.zxid:
        yield from _replay(hub, entered, after_zxid)
    else:
        for watch in entered:
            hub.table.put(watch)


def _one_shot(
    hub: WatchHub, watches: Watches, after_zxid: int, groups: Iterable[OneShot]
) -> Iterator[bytes]:
    until = time.perf_counter() + SLICE_S
    count = 0
    for paths, kind, was_missing in groups:
        for path in paths:
            count += 1
            if not count % CHECK_TIME_EACH and time.perf_counter() >= until:
                yield b""
                until = time.perf_counter() + SLICE_S
            _set_or_tell(hub, watches, path, kind, was_missing, after_zxid)


def _set_or_tell(
    hub: WatchHub, watches: Watches, path: str, kind: int, was_missing: bool, after_zxid: int
) -> None:
    event_type = _missed(hub, path, kind, was_missing, after_zxid)
    if event_type is None:
        if not watches.has(path, kind) and hub.watches < hub.limits.watches_max:
            hub.table.put(watches.enter(path, kind))
        return
    znode = hub.state.znodes.get(path)
    if znode is None or may_read(znode.acl, watches.ids):
        watches.tell(hub.state.zxid, notification(event_type, path, CAUGHT_UP_ZXID))


def _missed(hub: WatchHub, path: str, kind: int, was_missing: bool, after_zxid: int) -> int | None:
    """The type of the event; None: nothing was missed, as far as the znode shows."""
    znode = hub.state.znodes.get(path)
    if was_missing:
        return CREATED if znode is not None else None
    if znode is None:
        return DELETED
    if kind == CHILDREN:
        return CHILDREN_CHANGED if znode.stat.pzxid > after_zxid else None
    return DATA_CHANGED if znode.stat.mzxid > after_zxid else None


def _replay(hub: WatchHub, entered: list[Watch], after_zxid: int) -> Iterator[bytes]:
    """In the turn in which nothing is left to replay, they are set."""
    replay = Replay(hub.history, entered, after_zxid, hub.state.znodes.__contains__)
    until = time.perf_counter() + SLICE_S
    while True:
        try:
            step = replay.step()
        except PlaceLostError:
            break
        if step is None:
            break
        if step.change is not None:
            for match in step.matches:
                tell(step.change, match)
        if time.perf_counter() >= until:
            yield b""
            until = time.perf_counter() + SLICE_S
    for watch in replay.table:
        hub.table.put(watch)
