"""The gRPC front door: bytes in, typed errors out. What a method does is given to it as a table.

Handlers are built from the services' descriptors rather than from the generated classes. So every
method of the API has one: those not in the table answer UNIMPLEMENTED with our own detail. And a
request is refused, typed, before it is decoded when it is too large, and when it cannot be decoded.

A method whose answer is a stream is a coroutine that writes: `await context.write(message)` returns
when the transport has taken the message, so a reader that does not read holds its writer up, and
memory stays bounded. gRPC sends nothing at all before the first message, and clients wait for it:
a handler with nothing to say yet should say so at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc import aio

from coordsvc.errors import (
    Applied,
    CoordError,
    InternalError,
    MarshallingError,
    UnimplementedError,
)
from coordsvc.server.limits_admission import Admission
from coordsvc.server.measurements import GRPC, Measurements
from coordsvc.server.status_map import status_message, status_of, trailers_of

logger = logging.getLogger(__name__)

DEADLINE_S_DEFAULT = 10.0
ANSWER_MARGIN_SHARE = 0.1
ANSWER_MARGIN_S_MAX = 0.1
RECEIVE_BYTES_MAX = 8 * 1024 * 1024
"""gRPC's own limit is above ours, so that what is too large is refused with our detail."""

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    # Otherwise a second process may listen on the same port, and each gets half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
    ("grpc.max_concurrent_streams", 1000),
    # Calls that wait for this loop to take them. gRPC cancels at random from 1,000 on, without a
    # word of ours; this is above what the streams of 100 connections can bring.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)

READS = frozenset(
    {
        "Exists",
        "GetData",
        "GetChildren",
        "GetAcl",
        "Sync",
        "Heartbeat",
        "Watch",
        "Status",
        "Members",
        "Digest",
    }
)
"""Methods that apply nothing, whatever happens."""

Context = aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Message]]
StreamHandler = Callable[[Any, Context], Awaitable[None]]
"""Is given the request, or for a stream of them an async iterator, and writes its answers with
`await context.write(message)`, as messages or encoded. It ends the stream by returning, or with a
status by raising a CoordError. It must let CancelledError out: gRPC frees the call only then."""


class _Unreadable:
    """Stands for a request that was refused before it was one."""

    def __init__(self, error: CoordError) -> None:
        self.error = error


class _Frames:
    """What a client sends on its stream, frame by frame. One that cannot be read raises the typed
    error of it, and ends the iteration: what follows it would have lost its place."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> _Frames:
        return self

    async def __anext__(self) -> Any:
        # Read like this, and not through gRPC's own iterator: that is a generator, which somebody
        # would have to close when the stream ends in the middle.
        frame: Any = await self._context.read()
        if frame is aio.EOF:
            raise StopAsyncIteration
        if isinstance(frame, _Unreadable):
            raise frame.error
        return frame


class FrontDoor:
    """Counts what passes, and turns errors into statuses. `handlers(...)` makes the gRPC handlers
    of one service."""

    def __init__(self, admission: Admission, measurements: Measurements | None = None) -> None:
        self._admission = admission
        self._measurements = measurements or Measurements()
        self._active = 0

    @property
    def active(self) -> int:
        """Calls under way, open streams included."""
        return self._active

    @property
    def calls_total(self) -> Counter[tuple[str, str]]:
        """By method and error code, OK included."""
        seconds = self._measurements.rpc_seconds.items()
        return Counter({key[1:]: each.count for key, each in seconds if key[0] == GRPC})

    def handlers(
        self,
        service: ServiceDescriptor,
        methods: Mapping[str, Handler],
        streams: Mapping[str, StreamHandler] | None = None,
    ) -> grpc.GenericRpcHandler:
        """The handlers of every method of `service`: `methods` answer once, `streams` many
        times."""
        given: dict[str, Any] = {**methods, **(streams or {})}
        many = {method.name: method.server_streaming for method in service.methods}
        assert all(many.get(name) is False for name in methods), f"not unary: {set(methods)}"
        assert all(many.get(name) for name in streams or ()), f"not streams: {set(streams or ())}"
        made = {
            method.name: self._method_handler(method, given.get(method.name, _unimplemented))
            for method in service.methods
        }
        return grpc.method_handlers_generic_handler(service.full_name, made)

    def _method_handler(
        self, method: MethodDescriptor, handler: Callable[[Any, Context], Awaitable[Any]]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        request_class = message_factory.GetMessageClass(method.input_type)
        name = method.name

        async def answer(request: Any, context: Context) -> Any:
            return await self._serve(name, handler, request, context)

        async def converse(_requests: Any, context: Context) -> Any:
            return await self._serve(name, handler, _Frames(context), context)

        behaviours: dict[tuple[bool, bool], Any] = {
            (False, False): (grpc.unary_unary_rpc_method_handler, answer),
            (False, True): (grpc.unary_stream_rpc_method_handler, answer),
            (True, True): (grpc.stream_stream_rpc_method_handler, converse),
        }
        make, behaviour = behaviours[method.client_streaming, method.server_streaming]
        made: grpc.RpcMethodHandler[Any, Any] = make(
            behaviour,
            request_deserializer=self._deserializer(request_class),
            response_serializer=_serialize,
        )
        return made

    def _deserializer(self, message_class: type[Message]) -> Callable[[bytes], Any]:
        def deserialize(data: bytes) -> Message | _Unreadable:
            too_large = self._admission.check_message(len(data))
            if too_large is not None:
                return _Unreadable(too_large)
            try:
                return message_class.FromString(data)
            except DecodeError:
                return _Unreadable(MarshallingError("the request cannot be decoded"))

        return deserialize

    async def _serve(
        self,
        method: str,
        handler: Callable[[Any, Context], Awaitable[Any]],
        request: Any,
        context: Context,
    ) -> Any:
        """The handler's answer, None for a stream. An error becomes the call's status; its end is
        noted once, whatever it is. Cancelling goes through: it is how gRPC tells that the client
        has gone, and only what it gets back from here lets it free the call."""
        self._active += 1
        began = time.perf_counter()
        outcome = "CANCELLED"
        error: CoordError | None = None
        try:
            response = await self._admit(handler, request, context)
            outcome = "OK"
            return response
        except CoordError as known:
            error = known
        except aio.BaseError as of_channel:
            if _is_misuse(of_channel):
                error = _internal_error(method, of_channel)
            elif isinstance(of_channel, aio.InternalError):
                # A message could not be sent: the client has gone, and cancelling is on its way.
                raise asyncio.CancelledError from of_channel
            else:
                raise  # the server has stopped; gRPC must not be asked for anything more
        except Exception as unexpected:
            error = _internal_error(method, unexpected)
        finally:
            self._active -= 1
            outcome = error.code.name if error is not None else outcome
            self._note(method, outcome, began)
        assert error is not None
        self._admission.refused(error)
        try:
            await context.abort(status_of(error), status_message(error), trailers_of(error))
        except aio.InternalError as unsent:
            if _is_misuse(unsent):
                raise
            raise asyncio.CancelledError from unsent
        raise AssertionError("abort raises")

    async def _admit(
        self,
        handler: Callable[[Any, Context], Awaitable[Any]],
        request: Any,
        context: Context,
    ) -> Any:
        peer = context.peer()
        self._admission.enter(peer)
        try:
            if isinstance(request, _Unreadable):
                raise request.error
            return await handler(request, context)
        finally:
            self._admission.leave(peer)

    def _note(self, method: str, outcome: str, began: float) -> None:
        seconds = time.perf_counter() - began
        self._measurements.rpc(GRPC, method, outcome, seconds)
        if logger.isEnabledFor(logging.DEBUG):
            ms = round(seconds * 1000, 3)
            logger.debug("rpc.done", extra={"method": method, "code": outcome, "ms": ms})


def _serialize(response: Message | bytes) -> bytes:
    """A stream may encode what it writes itself."""
    return response if isinstance(response, bytes) else response.SerializeToString()


async def _unimplemented(request: Any, context: Context) -> Message:
    raise UnimplementedError("this version does not serve this call")


def _is_misuse(of_channel: aio.BaseError) -> bool:
    """gRPC refused to begin: two writes at once, for one. A bug of ours, and not a client that has
    gone."""
    return isinstance(of_channel, aio.InternalError) and "start_batch" in str(of_channel)


def _internal_error(method: str, unexpected: Exception) -> InternalError:
    """What happened is for the log alone; the caller gets a word to find it by."""
    incident = uuid.uuid4().hex[:12]
    logger.error("rpc.failed", extra={"method": method, "incident": incident}, exc_info=unexpected)
    error = InternalError(f"internal error; the replica's log has it as incident {incident}")
    if method in READS:
        error.applied = Applied.NO
    return error


def seconds_left(context: Context) -> float:
    """For which the server may go on trying: 10 s when the call has no deadline, else a little
    less than is left. At the deadline the caller's own library ends the call, and a typed answer
    that tells whether a write was applied would come too late."""
    remaining: float | None = context.time_remaining()
    if remaining is None:
        return DEADLINE_S_DEFAULT
    return remaining - min(ANSWER_MARGIN_S_MAX, remaining * ANSWER_MARGIN_SHARE)
