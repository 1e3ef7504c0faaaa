"""What a watch has to tell and nobody has taken yet: bounded, and honest about it."""

from __future__ import annotations

import asyncio
from collections import deque

from coordsvc.client.records import WatchEvent, WatchGap, WatchGapReason, WatchItem, WatchRemoved
from coordsvc.errors import CoordError, NoAuthError

EVENTS_MAX = 100_000
"""Several frames full: what a replica makes up for after a break comes all at once."""

BYTES_MAX = 32 * 1024 * 1024
"""So that a slow program's watch with data does not fill the memory."""

EVENT_BYTES_OVERHEAD = 200


class WatchQueue:
    """Events in, events out, in order. When it is full, what comes is dropped and a WatchGap waits
    at its end until it is taken; then events are kept again. One taker at a time."""

    def __init__(self, events_max: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._items: deque[WatchEvent | WatchGap] = deque()
        self._bytes = 0
        self._overflow: WatchGap | None = None
        self._is_ended = False
        self._error: CoordError | None = None
        self._taker: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._items) + (self._overflow is not None)

    def deliver(self, item: WatchItem) -> None:
        if self._is_ended:
            return
        if isinstance(item, WatchRemoved):
            self.end(NoAuthError("the right to read it was lost") if item.is_refused else None)
            return
        if self._overflow is not None:
            self._overflow = _widen(self._overflow, item)
        elif len(self._items) >= self._events_max or self._bytes >= self._bytes_max:
            self._overflow = _gap_for(item)
        else:
            self._items.append(item)
            self._bytes += _size(item)
        self._wake()

    def end(self, error: CoordError | None = None) -> None:
        """Nothing comes any more; who takes gets what is left, then `error`, or the end."""
        if not self._is_ended:
            self._is_ended, self._error = True, error
            self._wake()

    def fail(self, error: CoordError) -> None:
        self.end(error)

    async def take(self) -> WatchEvent | WatchGap | None:
        """The next one, waiting for it; None: it has ended."""
        while True:
            if self._items:
                item = self._items.popleft()
                self._bytes -= _size(item)
                return item
            if self._overflow is not None:
                gap, self._overflow = self._overflow, None
                return gap
            if self._error is not None:
                raise self._error
            if self._is_ended:
                return None
            assert self._taker is None, "two tasks take from one watch"
            self._taker = asyncio.get_running_loop().create_future()
            try:
                await self._taker
            finally:
                self._taker = None

    def _wake(self) -> None:
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)


def _size(item: WatchEvent | WatchGap) -> int:
    if isinstance(item, WatchGap):
        return 0
    return EVENT_BYTES_OVERHEAD + len(item.path) + len(item.data or b"")


def _gap_for(item: WatchEvent | WatchGap) -> WatchGap:
    """For an item that is dropped, the first one of its zxid or not."""
    if isinstance(item, WatchGap):
        return item
    return WatchGap(item.zxid - 1, item.zxid, WatchGapReason.BUFFER_OVERFLOW)


def _widen(gap: WatchGap, item: WatchEvent | WatchGap) -> WatchGap:
    """The gap, with another item fallen into it."""
    if isinstance(item, WatchEvent):
        return gap._replace(resumed_at_zxid=max(gap.resumed_at_zxid, item.zxid))
    if item.reason is WatchGapReason.OTHER_HISTORY:
        return item
    return gap._replace(resumed_at_zxid=max(gap.resumed_at_zxid, item.resumed_at_zxid))
