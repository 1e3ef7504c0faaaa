"""The two ends of a stream of messages in memory. It has a window: what nobody reads fills it, and
holds the writer up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from grpc import aio

WINDOW_BYTES = 64 * 1024
"""What a stream may have under way and unread, in one direction, before its writer waits."""

HEAD_BYTES = 5
"""What a message takes beside its own bytes."""

TWO_AT_ONCE = "Failed grpc_call_start_batch: too many operations"


class Inbox:
    """Messages of one stream that have come and were not read. `give_back(bytes)` tells the sender
    that there is room again."""

    __slots__ = ("_give_back", "_is_ended", "_is_reading", "_loop", "_messages", "_read", "_waiter")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, give_back: Callable[[int], None] | None
    ) -> None:
        self._loop = loop
        self._give_back = give_back
        self._messages: deque[bytes] = deque()
        self._read = 0
        self._is_ended = False
        self._is_reading = False
        self._waiter: asyncio.Future[bytes | None] | None = None

    def put(self, message: bytes) -> None:
        if self._is_ended:
            return
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(message)
        else:
            self._messages.append(message)

    def end(self, *, drop: bool = False) -> None:
        """Nothing comes any more; `drop`: nor is what is there to be read. What a reader was given
        stays its."""
        self._is_ended = True
        if drop:
            self._messages.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def is_empty(self) -> bool:
        return not self._messages

    async def get(self) -> bytes | None:
        """The next message, None: there are no more. Always takes a turn of the loop. Raises
        aio.InternalError when somebody else is reading."""
        if self._is_reading:
            raise aio.InternalError(TWO_AT_ONCE)
        self._is_reading = True
        try:
            if self._messages or self._is_ended:
                message = self._messages.popleft() if self._messages else None
                await asyncio.sleep(0)
            else:
                self._waiter = self._loop.create_future()
                message = await self._waiter
        finally:
            self._is_reading, self._waiter = False, None
        if message is not None:
            self._count(len(message) + HEAD_BYTES)
        return message

    def _count(self, read: int) -> None:
        self._read += read
        if self._read * 2 >= WINDOW_BYTES and self._give_back is not None:
            self._give_back(self._read)
            self._read = 0


class Outbox:
    """What leaves on one stream, as far as its window goes. `send(message)` sends it."""

    __slots__ = ("_is_writing", "_loop", "_room", "_send", "_waiter", "is_closed")

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._send = send
        self._room = WINDOW_BYTES
        self._is_writing = False
        self._waiter: asyncio.Future[None] | None = None
        self.is_closed = False

    async def put(self, message: bytes) -> bool:
        """Returns when it was taken, after a turn of the loop at least; False: the stream is over.
        Raises aio.InternalError when somebody else is writing."""
        if self._is_writing:
            raise aio.InternalError(TWO_AT_ONCE)
        self._is_writing = True
        try:
            if self._room > 0:
                self._take(message)
                await asyncio.sleep(0)
                return True
            while self._room <= 0 and not self.is_closed:
                self._waiter = self._loop.create_future()
                await self._waiter
            if not self.is_closed:
                self._take(message)
            return not self.is_closed
        finally:
            self._is_writing, self._waiter = False, None

    def _take(self, message: bytes) -> None:
        # One message may exceed the window: the next one waits for longer.
        self._room -= len(message) + HEAD_BYTES
        self._send(message)

    def give(self, count: int) -> None:
        self._room += count
        if self._room > 0:
            self._wake()

    def close(self) -> None:
        self.is_closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
