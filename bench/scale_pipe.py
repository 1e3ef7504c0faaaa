"""A raw connection of ZooKeeper's protocol that is cheap with many requests, and as one of many.

It has a session, pipelines what it is told to send, and hands each reply, in order, to whoever
asked. It sends no ping by itself. Any surprise fails everything that waits, and stays as `failure`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, Self, TypeVar, cast

import uvloop

from coordsvc.testing.cluster import ClusterError
from coordsvc.testing.zookeeper_records import Decoder, OpCode, Stat, connect_request, request

Result = TypeVar("Result")

ANSWER_S_MAX: Final = 60.0
PING_XID: Final = -2
EVENT_XID: Final = -1

_REPLY: Final = Struct(">iqi")
"""xid, zxid, error; what is before it is the length."""


class PipeError(ClusterError):
    """What came back is not what was asked for, or nothing came back."""


@dataclass(frozen=True, slots=True)
class Event:
    """`zxid`: of the header; the change's own."""

    kind: int
    path: str
    zxid: int


@dataclass(frozen=True, slots=True)
class Reply:
    zxid: int
    error: int
    body: bytes


OnReply = Callable[[Reply], None]
OnEvent = Callable[[Event], None]


class Pipe(asyncio.Protocol):
    """`on_event` is called for each event, before anything that came behind it."""

    def __init__(self, on_event: OnEvent | None = None) -> None:
        self.session_id = 0
        self.timeout_ms = 0
        self.failure: Exception | None = None
        self.waiting: deque[OnReply] = deque()
        self._on_event = on_event
        self._transport: asyncio.Transport
        self._rest = b""
        self._xid = 0
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asks: set[asyncio.Future[Any]] = {self._opened}

    @classmethod
    async def open(
        cls, endpoint: str, *, timeout_ms: int = 30_000, on_event: OnEvent | None = None
    ) -> Self:
        """With a new session. Raises PipeError, OSError."""
        host, _, port = endpoint.rpartition(":")
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_connection(lambda: cls(on_event), host, int(port))
        pipe.write(connect_request(timeout_ms=timeout_ms))
        await within(ANSWER_S_MAX, pipe._opened, f"{endpoint}: a session")
        return pipe

    # ---------------------------------------------------------------------------------- sending

    def write(self, data: bytes) -> None:
        """Exactly these bytes."""
        self._transport.write(data)

    def send(self, op: int, body: bytes, on_reply: OnReply) -> None:
        """PipeError: the connection has failed."""
        if self.failure is not None:
            raise PipeError(str(self.failure))
        self._xid += 1
        self.waiting.append(on_reply)
        self._transport.write(request(self._xid, op, body))

    def ask(self, op: int, body: bytes = b"", allowed: Sequence[int] = ()) -> asyncio.Future[Reply]:
        """Its reply; PipeError: an error that is not `allowed`, or no reply."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def on_reply(reply: Reply) -> None:
            self._asks.discard(future)
            if future.done():
                return
            if reply.error and reply.error not in allowed:
                future.set_exception(PipeError(f"error {reply.error} for {op}: {body[:60]!r}"))
            else:
                future.set_result(reply)

        self._asks.add(future)
        self.send(op, body, on_reply)
        return future

    async def ask_each(self, op: int, bodies: Iterable[bytes], in_flight: int) -> list[Reply]:
        """Their replies, in order; at most so many under way."""
        replies: list[Reply] = []
        under_way: deque[asyncio.Future[Reply]] = deque()
        for body in bodies:
            if len(under_way) >= in_flight:
                replies.append(await within(ANSWER_S_MAX, under_way.popleft(), "a reply"))
            under_way.append(self.ask(op, body))
        for future in under_way:
            replies.append(await within(ANSWER_S_MAX, future, "a reply"))
        return replies

    async def stat(self, path_body: bytes) -> Stat:
        """Of the znode, no older than what was acknowledged before by whichever server."""
        await within(ANSWER_S_MAX, self.ask(OpCode.SYNC, path_body), "a sync")
        reply = await within(ANSWER_S_MAX, self.ask(OpCode.EXISTS, path_body + b"\0"), "a stat")
        return Decoder(reply.body).stat()

    async def close(self) -> None:
        """Its session, too."""
        if self.failure is None:
            await within(ANSWER_S_MAX, self.ask(OpCode.CLOSE_SESSION), "the end of a session")
        self._transport.close()

    def abort(self) -> None:
        """The connection dies; the session is left to itself."""
        self._transport.abort()

    # -------------------------------------------------------------------------------- receiving

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(PipeError(f"session {self.session_id:#x}: the connection was lost ({exc})"))

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size = 0, len(data)
        try:
            while size - at >= 4:
                end = at + 4 + int.from_bytes(data[at : at + 4], "big")
                if end > size:
                    break
                self._take(data, at + 4, end)
                at = end
        except (PipeError, ValueError) as error:
            self._fail(error)
            self._transport.abort()
            return
        self._rest = data[at:] if at < size else b""

    def _take(self, data: bytes, at: int, end: int) -> None:
        if not self._opened.done():
            self._take_connected(Decoder(data[at:end]))
            return
        xid, zxid, error = _REPLY.unpack_from(data, at)
        if xid > 0:
            self._take_reply(xid, Reply(zxid, error, data[at + _REPLY.size : end]))
        elif xid == EVENT_XID:
            self._take_event(zxid, Decoder(data[at + _REPLY.size : end]))
        elif xid != PING_XID or error:
            raise PipeError(f"a packet of xid {xid}, error {error}")

    def _take_reply(self, xid: int, reply: Reply) -> None:
        wanted = self._xid - len(self.waiting) + 1
        if not self.waiting or xid != wanted:
            raise PipeError(f"a reply to request {xid} instead of {wanted}")
        self.waiting.popleft()(reply)

    def _take_event(self, zxid: int, decoder: Decoder) -> None:
        kind, _state, path = decoder.int32(), decoder.int32(), decoder.text()
        if self._on_event is not None:
            self._on_event(Event(kind, path, zxid))

    def _take_connected(self, decoder: Decoder) -> None:
        _version, self.timeout_ms, self.session_id = (
            decoder.int32(),
            decoder.int32(),
            decoder.int64(),
        )
        if not self.session_id:
            raise PipeError("no session was opened")
        self._asks.discard(self._opened)
        self._opened.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self.failure is not None:
            return
        self.failure = error
        for future in self._asks:
            if not future.done():
                future.set_exception(error)
                # Whoever waits sees it; whoever does not asks for `failure`.
                future.exception()
        self._asks.clear()

    def check(self) -> None:
        """PipeError: the connection has failed."""
        if self.failure is not None:
            raise PipeError(str(self.failure))


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """A step of a measurement, on a loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


async def within(seconds: float, wanted: Any, what: str) -> Any:
    """Its result. PipeError: it did not come in time."""
    try:
        async with asyncio.timeout(seconds):
            return await wanted
    except TimeoutError:
        raise PipeError(f"{what} did not come within {seconds:g} s") from None
