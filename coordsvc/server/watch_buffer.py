"""What waits for one watcher, in order, within bounds of bytes and of count.

When it is full, everything that waits becomes one gap, and so does what comes after it until the
gap is taken. The gap names every watch that had something there, so nothing is lost silently; and
all of them stay set: a one-shot watch whose event was dropped has told nothing yet, and is armed
again. A note that a watch is gone is never dropped: there is at most one for each watch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from coordsvc.core.watches import ONE_SHOT, Watch
from coordsvc.server.watch_messages import (
    BUFFER_OVERFLOW,
    WATCH_ID_BYTES,
    Event,
    GapReason,
    Item,
    gap_message,
    ids_of,
    no_auth_message,
)


class _Event:
    """One event for this watcher. `watches` are those of its watches that match. It stands for
    everything they may have missed after `after_zxid`."""

    __slots__ = ("after_zxid", "event", "include_data", "is_last", "size", "watches", "zxid")

    def __init__(self, event: Event, watches: list[Watch], after_zxid: int) -> None:
        self.event = event
        self.zxid = event.zxid
        self.after_zxid = after_zxid
        self.watches = watches
        self.is_last = False
        self.measure()

    def measure(self) -> None:
        self.include_data = any(watch.include_data for watch in self.watches)
        self.size = self.event.size(len(self.watches), self.include_data)

    def message(self) -> Item:
        return self.event.message(ids_of(self.watches), self.include_data, self.is_last)

    @property
    def ended(self) -> list[Watch]:
        """Watches that are gone once it is told."""
        return [watch for watch in self.watches if watch.kind in ONE_SHOT]


class _Removed:
    """Watches that are gone, because what they would have told may not be read."""

    __slots__ = ("after_zxid", "size", "watches", "zxid")

    def __init__(self, zxid: int, watches: list[Watch]) -> None:
        self.zxid = zxid
        self.after_zxid = zxid - 1
        self.watches = watches
        self.measure()

    def measure(self) -> None:
        self.size = WATCH_ID_BYTES * (1 + len(self.watches))

    def message(self) -> Item:
        return no_auth_message(self.watches)

    @property
    def ended(self) -> list[Watch]:
        return self.watches


class _Gap:
    """Events missing for these watches, from `zxid` on."""

    __slots__ = ("after_zxid", "reason", "resumed_at", "watches", "zxid")

    def __init__(
        self,
        zxid: int,
        watches: Iterable[Watch],
        after_zxid: int,
        resumed_at: int,
        reason: GapReason,
    ) -> None:
        self.zxid = zxid
        self.watches = dict.fromkeys(watches)
        self.after_zxid = after_zxid
        self.resumed_at = resumed_at
        self.reason = reason

    @property
    def size(self) -> int:
        return WATCH_ID_BYTES * (4 + len(self.watches))

    def message(self) -> Item:
        return gap_message(ids_of(self.watches), self.after_zxid, self.resumed_at, self.reason)

    @property
    def ended(self) -> list[Watch]:
        return []


class WatchBuffer:
    """Pushed to in the order of zxids; `end_group` says that a zxid has no more. `armed_again`
    are one-shot watches whose event was dropped: whoever pushes sets them again when the group
    ends, and clears it. `on_gap` counts."""

    def __init__(self, *, bytes_max: int, events_max: int, on_gap: Callable[[], None]) -> None:
        self._bytes_max = bytes_max
        self._events_max = events_max
        self._waiting: deque[_Event | _Removed | _Gap] = deque()
        self._open: _Event | None = None
        """The last event of a group that may get more: it cannot be told yet."""
        self._overflow: _Gap | None = None
        """The gap at the front which takes in everything, until it is taken."""
        self.bytes = 0
        self.armed_again: list[Watch] = []
        self._on_gap = on_gap

    def __len__(self) -> int:
        return len(self._waiting) + (self._overflow is not None)

    @property
    def has_ready(self) -> bool:
        """Something can be taken."""
        return self._first() is not None

    @property
    def after_zxid(self) -> int:
        """Of everything after this something may wait; only when something does."""
        first = self._overflow if self._overflow is not None else self._waiting[0]
        return min(first.after_zxid, first.zxid - 1)

    def push(
        self,
        event: Event,
        watches: list[Watch],
        *,
        is_bounded: bool = True,
        after_zxid: int | None = None,
    ) -> None:
        """`after_zxid` None: the event is of all that happened, and not of what may have."""
        if self._overflow is not None:
            self._drop(self._overflow, event.zxid, watches)
            return
        if after_zxid is None:
            after_zxid = event.zxid - 1
        waiting = self._open = _Event(event, watches, after_zxid)
        self._append(waiting)
        is_full = self.bytes > self._bytes_max or len(self._waiting) > self._events_max
        if is_bounded and is_full and len(self._waiting) > 1:
            self._become_gap()

    def push_removed(self, zxid: int, watches: list[Watch]) -> None:
        self._append(_Removed(zxid, watches))

    def push_gap(
        self, watches: Iterable[Watch], after_zxid: int, resumed_at: int, reason: GapReason
    ) -> None:
        """One that is known as such."""
        zxid = min(after_zxid + 1, resumed_at)
        self._append(_Gap(zxid, watches, after_zxid, resumed_at, reason))
        self._on_gap()

    def end_group(self) -> None:
        if self._open is not None:
            self._open.is_last = True
            self._open = None

    def break_group(self) -> None:
        """What has come of the group is all that will, and it is not all there was."""
        self._open = None

    def _append(self, waiting: _Event | _Removed | _Gap) -> None:
        self._waiting.append(waiting)
        self.bytes += waiting.size

    def _become_gap(self) -> None:
        """Everything that waits is dropped, but for notes of watches that are gone."""
        dropped, self._waiting = self._waiting, deque()
        self.bytes, self._open = 0, None
        first = next(each for each in dropped if not isinstance(each, _Removed))
        reason = first.reason if isinstance(first, _Gap) else BUFFER_OVERFLOW
        gap = self._overflow = _Gap(first.zxid, (), first.after_zxid, first.zxid, reason)
        self._on_gap()
        for waiting in dropped:
            if isinstance(waiting, _Removed):
                self._append(waiting)
            elif isinstance(waiting, _Gap):
                gap.watches |= waiting.watches
                gap.resumed_at = max(gap.resumed_at, waiting.resumed_at)
            else:
                self._drop(gap, waiting.zxid, waiting.watches)

    def _drop(self, gap: _Gap, zxid: int, watches: list[Watch]) -> None:
        gap.resumed_at = zxid
        for watch in watches:
            gap.watches[watch] = None
            if watch.kind in ONE_SHOT:
                self.armed_again.append(watch)

    def take(
        self, up_to_zxid: int | None, bytes_max: int
    ) -> tuple[list[tuple[int, Item]], list[Watch]]:
        """(what waits, with its zxid; watches that are gone by that). At least one item, if one
        can be told."""
        items: list[tuple[int, Item]] = []
        ended: list[Watch] = []
        size = 0
        while (first := self._first()) is not None:
            if up_to_zxid is not None and first.zxid > up_to_zxid:
                break
            if items and size + first.size > bytes_max:
                break
            items.append((first.zxid, first.message()))
            ended += first.ended
            size += first.size
            if first is self._overflow:
                self._overflow = None
            else:
                self._waiting.popleft()
                self.bytes -= first.size
        return items, ended

    def _first(self) -> _Event | _Removed | _Gap | None:
        if self._overflow is not None:
            return self._overflow
        if not self._waiting or self._waiting[0] is self._open:
            return None
        return self._waiting[0]

    def forget(self, watches: set[Watch]) -> None:
        """These watches are removed: nothing of them is told any more."""
        if self._overflow is not None:
            _forget(self._overflow.watches, watches)
            if not self._overflow.watches:
                self._overflow = None
        # A group that lost its rest has no last event, whatever of it is left.
        ended = {each.zxid for each in self._waiting if isinstance(each, _Event) and each.is_last}
        kept = [waiting for waiting in self._waiting if _is_left(waiting, watches)]
        self._waiting = deque(kept)
        self.bytes = sum(waiting.size for waiting in kept)
        events = [waiting for waiting in kept if isinstance(waiting, _Event)]
        for event, following in zip(events, [*events[1:], None], strict=False):
            is_behind = following is None or following.zxid != event.zxid
            event.is_last = is_behind and event.zxid in ended
        if self._open is not None:
            is_left = bool(events) and events[-1].zxid == self._open.zxid
            self._open = events[-1] if is_left else None


def _forget(kept: dict[Watch, None], watches: set[Watch]) -> None:
    for watch in watches & kept.keys():
        del kept[watch]


def _is_left(waiting: _Event | _Removed | _Gap, watches: set[Watch]) -> bool:
    """Without these watches, whether there is still somebody it concerns."""
    if isinstance(waiting, _Gap):
        _forget(waiting.watches, watches)
    elif not watches.isdisjoint(waiting.watches):
        waiting.watches = [watch for watch in waiting.watches if watch not in watches]
        waiting.measure()
    return bool(waiting.watches)
