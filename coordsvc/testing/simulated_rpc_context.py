"""One call at a server in memory: runs its handler, and is the context that the handler is given.

As in `grpc.aio`: a client that has gone cancels the handler, an error of the handler becomes a
status, and what a handler asks for after the end raises.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import grpc
from grpc import StatusCode, aio

from coordsvc.testing.simulated_rpc_streams import Inbox, Outbox
from coordsvc.testing.simulated_rpc_wire import Connection, Pairs, Replies

logger = logging.getLogger(__name__)

FINISHED = "RPC already finished."
GONE = 'Failed "execute_batch": the client has gone'


class ServerStoppedError(aio.BaseError):
    """A handler wants something of a server that has stopped."""


class ServerCall(aio.ServicerContext[Any, Any]):
    """`handler` is called with it. `is_stopped()` asks for the server, `on_end()` is called when
    nothing of the call runs any more."""

    def __init__(
        self,
        wire: Connection,
        replies: Replies,
        handler: grpc.RpcMethodHandler[Any, Any],
        timeout_s: float | None,
        metadata: Pairs,
        is_stopped: Callable[[], bool],
        on_end: Callable[[], None],
    ) -> None:
        self._loop = loop = wire.server.loop
        self._down = wire.down
        self._peer = wire.peer
        self._replies = replies
        self._is_stopped = is_stopped
        self._on_end = on_end
        self._handler = handler
        self._metadata = metadata
        self._deadline = None if timeout_s is None else loop.time() + timeout_s
        self._code: StatusCode | None = None
        self._details = ""
        self._trailers: Pairs = ()
        self._aborted: aio.AbortError | None = None
        self._has_sent_initial = False
        self._has_sent_status = False
        self._is_gone = False
        """The client is; or the server has given the call up."""
        self._callbacks: list[Callable[[ServerCall], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.inbox = Inbox(loop, self._give_back if handler.request_streaming else None)
        self.outbox = Outbox(loop, self._send_message)

    def begin(self, method: str, request: bytes | None) -> None:
        if self._deadline is not None:
            self._timer = self._loop.call_at(
                self._deadline, self.cancel, StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
            )
        self._task = self._loop.create_task(self._run(method, request))
        self._task.add_done_callback(self._ended)

    def cancel(self, code: StatusCode, details: str) -> None:
        """The client has gone, or is told so: `code`."""
        if self._is_gone:
            return
        self._is_gone = True
        self.inbox.end(drop=True)
        self.outbox.close()
        if not self._has_sent_status:
            if code is not StatusCode.CANCELLED:
                self._down.send(self._replies.on_status, code, details, ())
            if self._task is not None:
                self._task.cancel()

    def _give_back(self, count: int) -> None:
        self._down.send(self._replies.on_room, count)

    def _send_message(self, message: bytes) -> None:
        self._has_sent_initial = True
        self._down.send(self._replies.on_message, message)

    def _send_status(self, code: StatusCode, details: str, message: bytes | None = None) -> None:
        self._has_sent_status = True
        if not self._is_gone:
            status = code, details, self._trailers, message
            self._down.send(self._replies.on_status, *status)

    # ----------------------------------------------------------------------------------- running

    async def _run(self, method: str, request: bytes | None) -> None:
        try:
            await self._answer(request)
        except aio.AbortError as error:
            assert error is self._aborted, "another call's"
        except asyncio.CancelledError:
            # As in grpc.aio nothing is said to a client that is there: it waits for its deadline.
            logger.debug("%s was cancelled", method)
        except ServerStoppedError:
            logger.warning("%s: the server has stopped", method)
        except Exception as error:
            if isinstance(error, aio.InternalError) and self._is_gone:
                return
            logger.exception("%s failed", method)
            if not self._has_sent_status:
                code = self._code or StatusCode.UNKNOWN
                self._send_status(code, f"Unexpected {type(error)}: {error}")

    async def _answer(self, request: bytes | None) -> None:
        handler: Any = self._handler
        if handler.request_streaming:
            asked: Any = _Requests(self)
        else:
            asked = self._deserialized(request)
        if not handler.response_streaming:
            assert not handler.request_streaming, "many requests with one answer: not simulated"
            response = await handler.unary_unary(asked, self)
            self._raise_if_over()
            is_ok = self._code in (None, StatusCode.OK)
            self._send_status(
                self._code or StatusCode.OK,
                self._details,
                self._serialized(response) if is_ok else None,
            )
            return
        behaviour = handler.stream_stream if handler.request_streaming else handler.unary_stream
        answers = behaviour(asked, self)
        if inspect.isasyncgen(answers):
            async for answer in answers:
                await self.write(answer)
        else:
            await answers
        self._raise_if_over()
        self._send_status(self._code or StatusCode.OK, self._details)

    def _deserialized(self, message: bytes | None) -> Any:
        deserializer: Any = self._handler.request_deserializer
        return deserializer(message) if deserializer is not None else message

    def _serialized(self, message: Any) -> bytes:
        serializer: Any = self._handler.response_serializer
        data: bytes = serializer(message) if serializer is not None else message
        return data

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.outbox.close()
        self.inbox.end(drop=True)
        self._on_end()
        for callback in self._callbacks:
            callback(self)
        if not task.cancelled():
            task.result()  # What it raises is for the loop.

    def _raise_if_over(self) -> None:
        if self._aborted is not None:
            raise self._aborted
        if self._has_sent_status:
            raise aio.UsageError(FINISHED)
        if self._is_stopped():
            raise ServerStoppedError("Server already stopped.")

    # ------------------------------------------------------------------------------- the context

    async def read(self) -> Any:
        self._raise_if_over()
        message = await self.inbox.get()
        self._raise_if_over()
        return aio.EOF if message is None else self._deserialized(message)

    async def write(self, message: Any) -> None:
        self._raise_if_over()
        data = self._serialized(message)
        if self._is_gone or not await self.outbox.put(data):
            raise aio.InternalError(GONE)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._raise_if_over()
        if self._has_sent_initial:
            raise aio.UsageError("Send initial metadata failed: already sent")
        self._has_sent_initial = True
        self._down.send(self._replies.on_initial, tuple(initial_metadata))

    async def abort(
        self, code: StatusCode, details: str = "", trailing_metadata: Any = ()
    ) -> NoReturn:
        if self._aborted is not None:
            raise aio.UsageError("Abort already called!")
        self._aborted = aio.AbortError("Locally aborted.")
        self._trailers = tuple(trailing_metadata) or self._trailers
        self._code, self._details = code, details or self._details
        if self._is_gone:
            self._has_sent_status = True
            raise aio.InternalError(GONE)
        self._send_status(code, self._details)
        raise self._aborted

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailers = tuple(trailing_metadata)

    def set_code(self, code: StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is compressed."""

    def disable_next_message_compression(self) -> None:
        """Nothing is compressed."""

    def invocation_metadata(self) -> aio.Metadata:
        return aio.Metadata.from_tuple(self._metadata)

    def trailing_metadata(self) -> aio.Metadata:
        return aio.Metadata.from_tuple(self._trailers)

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._details

    def peer(self) -> str:
        return self._peer

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {}

    def time_remaining(self) -> Any:
        """Seconds; None: as long as it takes."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self._loop.time())

    def add_done_callback(self, callback: Any) -> None:
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        return self._code is StatusCode.CANCELLED

    def done(self) -> bool:
        return self._has_sent_status


class _Requests:
    """What a client sends, for handlers that iterate over it."""

    def __init__(self, call: ServerCall) -> None:
        self._call = call

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        message = await self._call.read()
        if message is aio.EOF:
            raise StopAsyncIteration
        return message
