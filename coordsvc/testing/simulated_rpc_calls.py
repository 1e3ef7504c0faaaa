"""Calls at a client in memory, with the interface and the behaviour of `grpc.aio`'s.

A status that the server sent is seen when everything before it was read; that the connection broke,
the deadline passed or the call was cancelled is seen at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, NoReturn, Protocol

from grpc import StatusCode, aio

from coordsvc.testing.simulated_rpc_streams import Inbox, Outbox
from coordsvc.testing.simulated_rpc_wire import Connection, Pairs

CANCELLED_DETAILS = "Locally cancelled by application!"


class CallChannel(Protocol):
    """What a call needs of its channel."""

    loop: asyncio.AbstractEventLoop

    def begin(self, call: Call) -> None: ...
    def ended(self, call: Call) -> None: ...


class Method:
    """What all calls of one method have in common."""

    __slots__ = ("_deserializer", "_serializer", "channel", "name")

    def __init__(self, channel: CallChannel, name: str, serializer: Any, deserializer: Any) -> None:
        self.channel = channel
        self.name = name
        self._serializer = serializer
        self._deserializer = deserializer

    def serialize(self, message: Any) -> bytes:
        data: bytes = self._serializer(message) if self._serializer is not None else message
        return data

    def deserialize(self, data: bytes) -> Any:
        return self._deserializer(data) if self._deserializer is not None else data


class _Status:
    """How a call ended."""

    __slots__ = ("code", "details", "trailers")

    def __init__(self, code: StatusCode, details: str, trailers: Pairs) -> None:
        self.code = code
        self.details = details
        self.trailers = trailers


class Call(aio.Call):
    """`request` is the only one, or None: they are a stream."""

    def __init__(
        self,
        method: Method,
        request: bytes | None,
        timeout: float | None,
        metadata: Any,
        wait_for_ready: bool | None,
    ) -> None:
        channel = method.channel
        self._method = method
        self._channel = channel
        self._loop = loop = channel.loop
        self._request = request
        self._metadata: Pairs = tuple(metadata) if metadata is not None else ()
        self.waits_for_ready = bool(wait_for_ready)
        self.connection: Connection | None = None
        self._number = 0
        self._initial: Pairs | None = None
        self._status: _Status | None = None
        self._is_cancelled_here = False
        self._callbacks: list[Callable[[Any], None]] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if timeout is not None:
            self._deadline = loop.time() + timeout
            self._timer = loop.call_at(self._deadline, self._expire)
        channel.begin(self)

    # ------------------------------------------------------------------------- what happens to it

    def begin(self, connection: Connection) -> None:
        self.connection = connection
        self._number = connection.next_call()
        timeout_s = None if self._deadline is None else self._deadline - self._loop.time()
        connection.up.send(
            connection.far.on_call,
            self._number,
            self,
            self._method.name,
            timeout_s,
            self._metadata,
            self._request,
        )
        self._wake()

    def end(self, code: StatusCode, details: str, trailers: Pairs = ()) -> None:
        """Now, whatever is not read yet."""
        if self._status is not None:
            return
        self._status = _Status(code, details, trailers)
        if self._timer is not None:
            self._timer.cancel()
        self._channel.ended(self)
        self._wake()
        for callback in self._callbacks:
            callback(self)

    def _expire(self) -> None:
        if self._status is None:
            self._reset()
            self.end(StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _reset(self) -> None:
        if self.connection is not None:
            self.connection.up.send(self.connection.far.on_cancel, self._number)

    def on_initial(self, metadata: Pairs) -> None:
        if self._initial is None:
            self._initial = metadata
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait(self) -> None:
        """Until something of the above happens."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    # ------------------------------------------------------------------------- what it is asked for

    def cancel(self) -> bool:
        if self._status is not None:
            return False
        self._is_cancelled_here = True
        self._reset()
        self.end(StatusCode.CANCELLED, CANCELLED_DETAILS)
        return True

    def cancelled(self) -> bool:
        return self._status is not None and self._status.code is StatusCode.CANCELLED

    def done(self) -> bool:
        return self._status is not None

    def add_done_callback(self, callback: Any) -> None:
        if self._status is not None:
            callback(self)
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    async def _ended(self) -> _Status:
        while self._status is None:
            await self._wait()
        return self._status

    async def code(self) -> StatusCode:
        return (await self._ended()).code

    async def details(self) -> str:
        return (await self._ended()).details

    async def trailing_metadata(self) -> aio.Metadata:
        return aio.Metadata.from_tuple((await self._ended()).trailers)

    async def initial_metadata(self) -> aio.Metadata:
        while self._initial is None and self._status is None:
            await self._wait()
        return aio.Metadata.from_tuple(self._initial or ())

    async def wait_for_connection(self) -> None:
        await self._begun()
        if self._status is not None:
            self._raise_for(self._status)

    async def _begun(self) -> None:
        while self.connection is None and self._status is None:
            await self._wait()

    def _raise_for(self, status: _Status) -> None:
        """Unless all is well."""
        if self._is_cancelled_here:
            raise asyncio.CancelledError
        if status.code is not StatusCode.OK:
            self._raise_error(status)

    def _raise_error(self, status: _Status) -> NoReturn:
        raise aio.AioRpcError(
            status.code,
            aio.Metadata.from_tuple(self._initial or ()),
            aio.Metadata.from_tuple(status.trailers),
            details=status.details,
        )


class UnaryUnaryCall(Call, aio.UnaryUnaryCall[Any, Any]):
    _response: bytes | None = None

    def on_status(
        self, code: StatusCode, details: str, trailers: Pairs, message: bytes | None = None
    ) -> None:
        self._response = message
        self.end(code, details, trailers)

    def on_message(self, message: bytes) -> None:
        raise AssertionError("the answer comes with the status")

    def on_room(self, count: int) -> None:
        raise AssertionError("the request was sent as a whole")

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            status = yield from self._ended().__await__()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._raise_for(status)
        assert self._response is not None
        return self._method.deserialize(self._response)


class _StreamCall(Call):
    """Many answers."""

    def __init__(
        self,
        method: Method,
        request: bytes | None,
        timeout: float | None,
        metadata: Any,
        wait_for_ready: bool | None,
    ) -> None:
        loop = method.channel.loop
        self._inbox = Inbox(loop, self._give_back)
        self._outbox = Outbox(loop, self._send)
        self._said: _Status | None = None
        """By the server, when not everything before it is read."""
        super().__init__(method, request, timeout, metadata, wait_for_ready)

    def _give_back(self, count: int) -> None:
        assert self.connection is not None
        self.connection.up.send(self.connection.far.on_room, self._number, count)

    def _send(self, message: bytes) -> None:
        assert self.connection is not None
        self.connection.up.send(self.connection.far.on_message, self._number, message)

    def on_message(self, message: bytes) -> None:
        self.on_initial(())
        self._inbox.put(message)

    def on_room(self, count: int) -> None:
        self._outbox.give(count)

    def on_status(
        self, code: StatusCode, details: str, trailers: Pairs, message: bytes | None = None
    ) -> None:
        assert message is None, "an answer with the status is for calls with one"
        self._said = _Status(code, details, trailers)
        self._inbox.end()
        self._end_as_said()

    def _end_as_said(self) -> None:
        said = self._said
        if said is not None and self._inbox.is_empty:
            self.end(said.code, said.details, said.trailers)

    def end(self, code: StatusCode, details: str, trailers: Pairs = ()) -> None:
        self._inbox.end(drop=True)
        self._outbox.close()
        super().end(code, details, trailers)

    async def read(self) -> Any:
        if self._status is None:
            try:
                message = await self._inbox.get()
            except asyncio.CancelledError:
                self.cancel()
                raise
            if message is not None:
                self._end_as_said()
                return self._method.deserialize(message)
        self._raise_for(await self._ended())
        return aio.EOF

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not aio.EOF:
            yield message


class UnaryStreamCall(_StreamCall, aio.UnaryStreamCall[Any, Any]):
    pass


class StreamStreamCall(_StreamCall, aio.StreamStreamCall[Any, Any]):
    _is_half_closed = False

    async def write(self, request: Any) -> None:
        if self._status is not None:
            raise asyncio.InvalidStateError("RPC already finished.")
        if self._is_half_closed:
            raise asyncio.InvalidStateError('RPC is half closed after calling "done_writing".')
        data = self._method.serialize(request)
        try:
            await self._begun()
            is_taken = not self.done() and await self._outbox.put(data)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if not is_taken:
            self._raise_for(await self._ended())
            raise asyncio.InvalidStateError("RPC already finished.")

    async def done_writing(self) -> None:
        if self._status is not None or self._is_half_closed:
            return
        self._is_half_closed = True
        await self._begun()
        if self.connection is not None:
            self.connection.up.send(self.connection.far.on_half_close, self._number)
