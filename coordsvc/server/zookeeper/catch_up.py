"""Setting the watches of an earlier connection again, and telling what they have missed.

One-shot watches are as in ZooKeeper: the stat of a znode shows whether something was missed. Of
what was missed they tell at most one event each, whose zxid is unknown.

Of persistent ones no stat shows what they missed, and ZooKeeper tells nothing. Here they are told
everything, with the zxid of each change, as long as the history has it all; else nothing, as in
ZooKeeper. They come first, so that events are in order as far as they have a zxid.

All of it runs in slices of a few milliseconds. A one-shot watch is set in the turn in which its
znode is looked at. Persistent ones are set in turns in which the history has nothing left for any
of them: some in each, while the rest goes on reading what the history gets. So none misses
anything or is told anything twice; but where watches of two turns, or of two catch-ups, match one
change, it may be told for either.

Ref: ZooKeeper DataTree.setWatches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from coordsvc.core.commands import CREATED, AuthId
from coordsvc.core.replay import PlaceLostError, Replay, Step
from coordsvc.core.state import State
from coordsvc.core.watches import (
    CHILDREN,
    DATA,
    EXISTS,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
    Watch,
    may_read,
    missed_event,
)
from coordsvc.paths import path_fault
from coordsvc.server.watcher import SLICE_S
from coordsvc.server.zookeeper.notifications import CAUGHT_UP_ZXID, notification

if TYPE_CHECKING:
    from coordsvc.server.watch_hub import WatchHub


class Missed(NamedTuple):
    """Paths by kind of watch, and the zxid that their client saw last."""

    after_zxid: int
    data: Sequence[str]
    exist: Sequence[str]
    child: Sequence[str]
    persistent: Sequence[str]
    recursive: Sequence[str]


class Target(Protocol):
    """The watches of the connection that catches up."""

    ids: Callable[[], tuple[AuthId, ...]]
    is_open: bool

    def has(self, path: str, kind: int) -> bool: ...
    def arm(self, path: str, kind: int) -> None: ...
    def put(self, zxid: int, packet: bytes) -> None: ...


def catch_up(target: Target, hub: WatchHub, missed: Missed) -> Iterator[bytes]:
    """Empty pieces, one after each slice of work. At the end all watches are set that were not used
    up, and everything they missed was put. It ends early when the target is not open any more.

    What a connection may not READ is not told; a one-shot watch is used up by it. A malformed path
    is one of a znode that is not there: so DATA and CHILDREN tell of its deletion, and others,
    which would wait for ever, are not set.
    """
    pace = _Pace()
    yield from _catch_up_lasting(target, hub, missed, pace)
    for paths, kind in (
        (missed.data, DATA),
        (missed.exist, EXISTS),
        (missed.child, CHILDREN),
    ):
        for path in paths:
            if not target.is_open:
                return
            _catch_up_one(target, hub.state, path, kind, missed.after_zxid)
            if pace.is_slice_over():
                yield b""
                pace.begin_slice()


class _Pace:
    __slots__ = ("_until",)

    def __init__(self) -> None:
        self.begin_slice()

    def begin_slice(self) -> None:
        self._until = time.perf_counter() + SLICE_S

    def is_slice_over(self) -> bool:
        return time.perf_counter() >= self._until


# -------------------------------------------------------------------------------------- one-shot


def _catch_up_one(target: Target, state: State, path: str, kind: int, after_zxid: int) -> None:
    znode = state.znodes.get(path)
    if kind == EXISTS:
        # Its client knows of no znode there, so any is news to it, however old.
        event_type = CREATED if znode is not None else None
    else:
        event_type = missed_event(state, path, kind, after_zxid)
    if event_type is None:
        if not is_nowhere(state, path):
            target.arm(path, EXISTS if kind == DATA else kind)
    elif znode is None or may_read(znode.acl, target.ids):
        target.put(CAUGHT_UP_ZXID, notification(event_type, path, CAUGHT_UP_ZXID))


def is_nowhere(state: State, path: str) -> bool:
    """No znode can ever be there."""
    return path not in state.znodes and path_fault(path) is not None


# ------------------------------------------------------------------------------------ persistent


def _catch_up_lasting(
    target: Target, hub: WatchHub, missed: Missed, pace: _Pace
) -> Iterator[bytes]:
    replay = None
    if hub.history.complete_after <= missed.after_zxid <= hub.state.zxid:
        replay = Replay(hub.history, (), missed.after_zxid, hub.state.znodes.__contains__)
    left: list[Watch] = []
    for paths, kind in (
        (missed.persistent, PERSISTENT),
        (missed.recursive, PERSISTENT_RECURSIVE),
    ):
        for path in paths:
            if not target.has(path, kind) and not is_nowhere(hub.state, path):
                watch = Watch(target, 0, path, kind)
                left.append(watch)
                if replay is not None:
                    replay.table.put(watch)
            if pace.is_slice_over():
                yield b""
                pace.begin_slice()
    while left and target.is_open:
        step = None
        if replay is not None:
            try:
                step = replay.step()
            except PlaceLostError:
                replay = None
        if step is not None:
            _put_step(target, step)
        else:
            _arm_some(target, left, replay, pace)
        if pace.is_slice_over():
            yield b""
            pace.begin_slice()


def _put_step(target: Target, step: Step) -> None:
    if step.change is None:
        return
    zxid = step.change.zxid
    for event_type, path, acl, _ in step.matches:
        if may_read(acl, target.ids):
            target.put(zxid, notification(event_type, path, zxid))


def _arm_some(target: Target, left: list[Watch], replay: Replay | None, pace: _Pace) -> None:
    """Nothing is left of what they missed, at this moment: one of them at least is set."""
    while left:
        watch = left.pop()
        if replay is not None:
            replay.table.drop(watch)
        target.arm(watch.path, watch.kind)
        if pace.is_slice_over():
            return
