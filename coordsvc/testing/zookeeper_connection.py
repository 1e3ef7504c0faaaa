"""A connection of ZooKeeper's protocol that does what it is told and nothing else, for tests.

It sends no ping and never connects again; a session ends when its test wants it to. All that
arrives is kept, in its order. Requests are pipelined: `request` sends at once and returns a future.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, cast

from coordsvc.testing.zookeeper_records import Decoder, connect_request, request

ANSWER_SECONDS: Final = 30.0
"""For what is answered at once by a machine that is not busy."""

NOTIFICATION_XID: Final = -1


class ConnectionEndedError(Exception):
    """The connection ended before the answer."""


class SessionRefusedError(Exception):
    """There is no such session (any more), or the password is not its own."""


@dataclass(frozen=True)
class Reply:
    xid: int
    zxid: int
    error: int
    body: bytes = b""


@dataclass(frozen=True)
class Event:
    """A watch's. `zxid` is that of the header."""

    type: int
    state: int
    path: str
    zxid: int


class RawConnection(asyncio.Protocol):
    """One connection. `inbox`: everything that arrived after the connect response."""

    def __init__(self) -> None:
        self.session_id = 0
        self.password = b""
        self.timeout_ms = 0
        self.protocol_version = -1
        self.has_read_only = False
        self.inbox: list[Event | Reply] = []
        self.is_closed = False
        self.ended: Exception | None = None
        """What the connection ended with, if not in order."""
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._xid = 0
        self._waiting: dict[int, deque[asyncio.Future[Reply]]] = {}
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed = asyncio.Event()
        self._arrived = asyncio.Event()

    # ------------------------------------------------------------------------------- connecting

    @classmethod
    async def connect(cls, host: str, port: int, *, ssl: tls.SSLContext | None = None) -> Self:
        """Without a session: `send` is all that makes sense next."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(cls, host, port, ssl=ssl)
        return protocol

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        *,
        timeout_ms: int = 10_000,
        session_id: int = 0,
        password: bytes = bytes(16),
        last_zxid: int = 0,
        read_only: bool | None = False,
        ssl: tls.SSLContext | None = None,
    ) -> Self:
        """With a session: a new one, or that of `session_id`. `read_only` None is what clients from
        before 3.4 send. Raises SessionRefusedError, ConnectionEndedError (no answer), OSError."""
        connection = await cls.connect(host, port, ssl=ssl)
        hello = connect_request(
            timeout_ms=timeout_ms,
            session_id=session_id,
            password=password,
            last_zxid=last_zxid,
            read_only=read_only,
        )
        connection.send(hello)
        try:
            await connection.wait_connected()
        except BaseException:
            if not connection.is_closed:
                connection.abort()
            raise
        return connection

    async def wait_connected(self) -> None:
        """Until the connect response is there. Raises as `open`."""
        async with asyncio.timeout(ANSWER_SECONDS):
            # Shielded: it may be asked for again.
            await asyncio.shield(self._connected)
        if self.session_id == 0:
            raise SessionRefusedError("there is no such session")

    # ------------------------------------------------------------------------------ the protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        at = 0
        while len(received) - at >= 4:
            end = at + 4 + int.from_bytes(received[at : at + 4], "big", signed=True)
            if len(received) < end:
                break
            self._take(bytes(received[at + 4 : end]))
            at = end
        del received[:at]
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed, self.ended = True, exc
        why = ConnectionEndedError(f"the connection ended: {exc}")
        _fail(self._connected, why)
        for waiting in self._waiting.values():
            for future in waiting:
                _fail(future, why)
        self._waiting.clear()
        self._closed.set()
        self._arrived.set()

    def _take(self, packet: bytes) -> None:
        decoder = Decoder(packet)
        if not self._connected.done():
            self._take_connected(decoder)
            return
        xid, zxid, error = decoder.int32(), decoder.int64(), decoder.int32()
        if xid == NOTIFICATION_XID:
            event = Event(decoder.int32(), decoder.int32(), decoder.text(), zxid)
            decoder.end()
            self.inbox.append(event)
            return
        reply = Reply(xid, zxid, error, decoder.rest)
        self.inbox.append(reply)
        waiting = self._waiting.get(xid)
        assert waiting, f"an answer that was not asked for: {reply}"
        future = waiting.popleft()
        if not future.done():
            future.set_result(reply)

    def _take_connected(self, decoder: Decoder) -> None:
        self.protocol_version = decoder.int32()
        self.timeout_ms, self.session_id = decoder.int32(), decoder.int64()
        self.password = decoder.buffer() or b""
        self.has_read_only = bool(decoder.rest)
        if self.has_read_only:
            decoder.boolean()
        decoder.end()
        self._connected.set_result(None)

    # ---------------------------------------------------------------------------------- sending

    def send(self, data: bytes) -> None:
        """Exactly these bytes, whatever they are."""
        self._transport.write(data)

    def request(self, op: int, body: bytes = b"", xid: int | None = None) -> asyncio.Future[Reply]:
        """Its future gets the answer, whatever its code, or ConnectionEndedError."""
        return self.requests([(op, body, xid)])[0]

    def requests(
        self, wanted: Sequence[tuple[int, bytes, int | None]]
    ) -> list[asyncio.Future[Reply]]:
        """Several requests, (type, body, xid) each, in one write."""
        packets, futures = [], []
        for op, body, wanted_xid in wanted:
            if wanted_xid is None:
                self._xid += 1
            xid = self._xid if wanted_xid is None else wanted_xid
            packets.append(request(xid, op, body))
            futures.append(self._expect(xid))
        if not self.is_closed:
            self.send(b"".join(packets))
        return futures

    def _expect(self, xid: int) -> asyncio.Future[Reply]:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self.is_closed:
            _fail(future, ConnectionEndedError("the connection had ended"))
        else:
            self._waiting.setdefault(xid, deque()).append(future)
        return future

    def pause_reading(self) -> None:
        """Take nothing that is sent, until `resume_reading`."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    # ------------------------------------------------------------------------------ what arrived

    @property
    def events(self) -> list[Event]:
        return [item for item in self.inbox if isinstance(item, Event)]

    @property
    def replies(self) -> list[Reply]:
        return [item for item in self.inbox if isinstance(item, Reply)]

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Looked at each time that something arrives. Raises TimeoutError, or ConnectionEndedError
        when nothing will arrive any more."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while not condition():
                if self.is_closed:
                    raise ConnectionEndedError("the connection ended before that")
                self._arrived.clear()
                await self._arrived.wait()

    # ------------------------------------------------------------------------------------ its end

    def abort(self) -> None:
        """End the connection, not the session."""
        self._transport.abort()

    def close(self) -> None:
        """As abort, but what was sent still leaves."""
        self._transport.close()

    async def wait_closed(self, seconds: float = ANSWER_SECONDS) -> None:
        async with asyncio.timeout(seconds):
            await self._closed.wait()


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Nobody need ask for it."""
    if not future.done():
        future.set_exception(error)
        future.exception()
