"""One stream's watches: set, resumed, removed, and what waits to be told of them.

A watch that resumes reads the history until nothing is left there, and is set in the same turn; so
nothing is missed and nothing comes twice. Reading goes on only as far as there is room for what it
finds: the history itself keeps the rest, and only when that drops it, it becomes a gap. While one
stream resumes, no other watch is set on it, for events come in the order of their zxids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from coordsvc.core.auth import check
from coordsvc.core.commands import DELETED, OPEN_ACL, READ, AuthId, Change
from coordsvc.core.replay import PlaceLostError, Replay
from coordsvc.core.watches import NEEDS_ZNODE, ONE_SHOT, Match, Watch, may_read
from coordsvc.errors import BadArgumentsError, NoAuthError, NoNodeError, NoWatcherError
from coordsvc.paths import shown
from coordsvc.server.limits import refusal
from coordsvc.server.watch_buffer import WatchBuffer
from coordsvc.server.watch_catch_up import missed_by_stat, missing_before
from coordsvc.server.watch_messages import (
    HISTORY_TOO_OLD,
    OTHER_HISTORY,
    Event,
    Item,
    Spec,
    event_of,
)

if TYPE_CHECKING:
    from coordsvc.server.watch_hub import WatchHub

SLICE_S: Final = 0.004
"""Resuming goes on for so long in one turn of the loop, which must not take 10 ms."""


class Listener(Protocol):
    """What the hub tells: a watcher of its table, whatever it stands for."""

    ids: Callable[[], tuple[AuthId, ...]]
    """Its identities at that moment."""

    def push(self, event: Event, watches: list[Watch]) -> None:
        """An event that these watches match, and it may READ; it is the same for everybody.
        One-shot watches are used up, and not in the table any more."""
        ...

    def push_unreadable(self, zxid: int, watches: list[Watch]) -> None:
        """They match a change that it may not READ. One-shot watches are used up."""
        ...

    def end_group(self) -> None:
        """All of a zxid was pushed."""
        ...


class Watcher:
    """Made by `WatchHub.open`."""

    __slots__ = (
        "_buffer",
        "_hub",
        "_is_closed",
        "_is_told",
        "_on_items",
        "_replay",
        "_watches",
        "ids",
    )

    def __init__(
        self, hub: WatchHub, ids: Callable[[], tuple[AuthId, ...]], on_items: Callable[[], None]
    ) -> None:
        self.ids = ids
        self._hub = hub
        self._on_items = on_items
        self._is_told = False
        self._is_closed = False
        self._watches: dict[int, Watch] = {}
        self._replay: Replay | None = None
        self._buffer = WatchBuffer(
            bytes_max=hub.limits.watch_buffer_bytes_max,
            events_max=hub.limits.watch_buffer_events_max,
            on_gap=hub.count_gap,
        )

    # ----------------------------------------------------------------------------------- watches

    def add(self, specs: Sequence[Spec]) -> int:
        """Set all, or none of them, now; returns the zxid they follow. Raises BadArgumentsError
        for an id in use, LimitExceededError, NoNodeError for DATA and CHILDREN on a missing znode,
        and NoAuthError without READ on a znode that is there."""
        assert not self.is_resuming
        self._check_room(specs)
        self._check_znodes(specs)
        self._set(self._take_in(specs))
        return self._hub.state.zxid

    async def resume(self, specs: Sequence[Spec], after_zxid: int) -> int:
        """Set watches that were set before, on another stream: what happened after `after_zxid`
        waits then, or a gap for what nobody remembers. Returns the zxid from which on they report
        everything. Raises BadArgumentsError and LimitExceededError.

        A znode that is not there (any more) is no error, as it is for `add`: DATA and CHILDREN
        report it as deleted. Nor is lost READ: what may not be read is left out, and a one-shot
        watch used up by it is told of as removed.

        `after_zxid` beyond what this replica has applied counts as another history's: who cannot
        know waits for it before, or asks for a read-index.

        Everything is caught up when this returns, unless that is more than there is room for:
        then `is_resuming`, and `take` goes on with it.
        """
        zxid = self.begin_resume(specs, after_zxid)
        limits = self._hub.limits
        while self._advance(limits.watch_buffer_bytes_max):
            await asyncio.sleep(0)
        self._notify()
        return zxid

    def begin_resume(self, specs: Sequence[Spec], after_zxid: int) -> int:
        """The same without looking for what was missed: `advance` and `take` do that."""
        assert not self._watches and not self.is_resuming, "resume first, then set others"
        hub = self._hub
        self._check_room(specs)
        watches = self._take_in(specs)
        zxid = hub.state.zxid
        if after_zxid > zxid:
            self._buffer.push_gap(watches, after_zxid, zxid, OTHER_HISTORY)
            self._set(watches)
            return zxid
        if after_zxid < hub.history.complete_after:
            self._catch_up(watches, after_zxid)
            return zxid
        missing = missing_before(hub.state, hub.history, watches, after_zxid)
        self._tell_missing(missing, after_zxid)
        gone = set(missing)
        left = [watch for watch in watches if watch not in gone] if gone else watches
        self._replay = Replay(hub.history, left, after_zxid, hub.state.znodes.__contains__)
        return after_zxid

    def remove(self, watch_ids: Iterable[int]) -> None:
        """Nothing is told of them any more. Raises NoWatcherError when one is unknown, and then
        removes none."""
        removed: set[Watch] = set()
        for watch_id in watch_ids:
            watch = self._watches.get(watch_id)
            if watch is None:
                raise NoWatcherError(f"no watch {watch_id} is set on this stream")
            removed.add(watch)
        for watch in removed:
            self._hub.table.drop(watch)
            if self._replay is not None:
                self._replay.table.drop(watch)
            self._leave(watch)
        if len(self._buffer):
            self._buffer.forget(removed)

    def close(self) -> None:
        """The stream has ended: all its watches are gone. More than once is the same as once."""
        if self._is_closed:
            return
        self._is_closed = True
        for watch in self._watches.values():
            self._hub.table.drop(watch)
        self._hub.watches -= len(self._watches)
        self._watches.clear()
        self._replay = None
        self._hub.closed(self)
        self._on_items = _nobody
        self.ids = _no_ids

    def _check_znodes(self, specs: Sequence[Spec]) -> None:
        state = self._hub.state
        for spec in specs:
            path = spec.path
            znode = state.znodes.get(path)
            if znode is None:
                if spec.kind in NEEDS_ZNODE:
                    raise NoNodeError(f"{shown(path)} does not exist", path=path, zxid=state.zxid)
            elif not may_read(znode.acl, self.ids):
                raise NoAuthError(f"READ on {shown(path)} is needed", path=path, zxid=state.zxid)

    def _check_room(self, specs: Sequence[Spec]) -> None:
        hub, count = self._hub, len(self._watches) + len(specs)
        if count > hub.limits.watches_per_stream_max:
            what = f"the stream would have {count} watches"
            raise refusal("watches_per_stream", what, hub.limits.watches_per_stream_max)
        if hub.watches + len(specs) > hub.limits.watches_max:
            what = f"{hub.watches} watches are set here"
            raise refusal("watches", what, hub.limits.watches_max)
        given: set[int] = set()
        for spec in specs:
            watch_id = spec.watch_id
            if watch_id in self._watches or watch_id in given:
                raise BadArgumentsError(f"watch_id {watch_id} is in use on this stream")
            given.add(watch_id)

    def _take_in(self, specs: Sequence[Spec]) -> list[Watch]:
        watches = [Watch(self, *spec) for spec in specs]
        self._watches.update({watch.watch_id: watch for watch in watches})
        self._hub.watches += len(watches)
        return watches

    def _set(self, watches: Iterable[Watch]) -> None:
        for watch in watches:
            self._hub.table.put(watch)

    def _leave(self, watch: Watch) -> None:
        del self._watches[watch.watch_id]
        self._hub.watches -= 1

    # ----------------------------------------------------------------------------------- resuming

    @property
    def is_resuming(self) -> bool:
        """There is more to be found in the history, behind what waits."""
        return self._replay is not None

    def advance(self) -> bool:
        """Look on in the history for a few milliseconds, if there is room for what is found there.
        True: nothing was found yet, and there is more to look at."""
        return self._advance(self._hub.limits.frame_size_bytes_max) and not self._buffer.has_ready

    def _advance(self, bytes_max: int) -> bool:
        """False: there is no room, or nothing is left."""
        buffer, events_max = self._buffer, self._hub.limits.watch_buffer_events_max
        until = time.perf_counter() + SLICE_S
        while self._replay is not None:
            if len(buffer) > 1 and (buffer.bytes >= bytes_max or len(buffer) >= events_max):
                return False
            self._step(self._replay)
            if time.perf_counter() >= until:
                return self._replay is not None
        return False

    def _step(self, replay: Replay) -> None:
        try:
            step = replay.step()
        except PlaceLostError:
            # A group that ended has been ended: what is open has lost its rest.
            self._buffer.break_group()
            self._replay = None
            self._catch_up(list(replay.table), replay.position)
            return
        if step is None:
            self._buffer.end_group()
            self._replay = None
            self._set(replay.table)
            return
        if step.change is not None:
            for match in step.matches:
                tell(step.change, match)
            if step.is_group_end:
                self._buffer.end_group()

    def _catch_up(self, watches: list[Watch], after_zxid: int) -> None:
        """Without a history: by what the znodes show, or not at all."""
        hub, buffer = self._hub, self._buffer
        missed = missed_by_stat(hub.state, watches, after_zxid, self.ids)
        zxid = hub.state.zxid
        if missed.unclear:
            buffer.push_gap(missed.unclear, after_zxid, zxid, HISTORY_TOO_OLD)
        self._tell_in_groups(missed.events, after_zxid)
        if missed.unreadable:
            buffer.push_removed(zxid, missed.unreadable)
        self._set(missed.unclear)
        self._set(missed.quiet)

    def _tell_missing(self, watches: list[Watch], zxid: int) -> None:
        by_path: dict[str, list[Watch]] = {}
        for watch in watches:
            by_path.setdefault(watch.path, []).append(watch)
        self._tell_in_groups(
            [(Event(DELETED, path, zxid, None, None), by_path[path]) for path in by_path],
            zxid - 1,
        )

    def _tell_in_groups(self, events: list[tuple[Event, list[Watch]]], after_zxid: int) -> None:
        zxid = 0
        for event, watches in events:
            if event.zxid != zxid:
                self._buffer.end_group()
                zxid = event.zxid
            self._buffer.push(event, watches, is_bounded=False, after_zxid=after_zxid)
        self._buffer.end_group()

    # ----------------------------------------------------------------------------- what is to tell

    @property
    def has_items(self) -> bool:
        """`take` may have something."""
        return len(self._buffer) > 0 or self._replay is not None

    @property
    def position(self) -> int:
        """Everything up to this zxid that any of the watches matches was taken."""
        if len(self._buffer):
            return self._buffer.after_zxid
        return self._replay.position if self._replay is not None else self._hub.state.zxid

    def take(
        self, up_to_zxid: int | None = None, bytes_max: int | None = None
    ) -> list[tuple[int, Item]]:
        """What waits, in order, with its zxid, as messages that nobody may change: all of it up to
        `up_to_zxid`, but not much more than `bytes_max` (None: a frame). Empty: there is nothing.

        A gap is where the first of the missing events was. A group may be cut by `bytes_max`, and
        goes on with the next call.
        """
        if bytes_max is None:
            bytes_max = self._hub.limits.frame_size_bytes_max
        if self._replay is not None:
            is_more = self._advance(bytes_max)
            # Rarely: more was missed than a buffer holds, and then comes much that is not watched.
            while is_more and not self._buffer.has_ready:
                is_more = self._advance(bytes_max)
        items, ended = self._buffer.take(up_to_zxid, bytes_max)
        for watch in ended:
            self._leave(watch)
        self._is_told = False
        return items

    def push(self, event: Event, watches: list[Watch]) -> None:
        """An event, of a group that `end_group` ends."""
        self._buffer.push(event, watches, is_bounded=self._replay is None)

    def push_unreadable(self, zxid: int, watches: list[Watch]) -> None:
        """They match a change that may not be told. One-shot watches are used up by it."""
        ended = [watch for watch in watches if watch.kind in ONE_SHOT]
        if ended:
            self._buffer.push_removed(zxid, ended)

    def end_group(self) -> None:
        buffer = self._buffer
        buffer.end_group()
        if buffer.armed_again:
            self._set(buffer.armed_again)
            buffer.armed_again.clear()
        self._notify()

    def _notify(self) -> None:
        if not self._is_told and self.has_items:
            self._is_told = True
            self._on_items()


def tell(change: Change, match: Match) -> None:
    """Put the change into the buffers of those who watch, and may READ what it is about."""
    event_type, path, acl, found = match
    event: Event | None = None
    watcher: Listener
    for watcher, watches in found.items():
        if acl is OPEN_ACL or check(acl, READ, watcher.ids()):
            if event is None:
                event = event_of(change, event_type, path)
            watcher.push(event, watches)
        else:
            watcher.push_unreadable(change.zxid, watches)


def _nobody() -> None:
    """Is told of what waits in a watcher that is closed."""


def _no_ids() -> tuple[AuthId, ...]:
    return ()
