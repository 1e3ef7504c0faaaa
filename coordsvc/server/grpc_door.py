"""The gRPC front door: bytes in, typed errors out. What a method does is given to it as a table.

Handlers are built from the services' descriptors rather than from the generated classes. So every
method of the API has one: those not in the table answer UNIMPLEMENTED with our own detail. And a
request is refused, typed, before it is decoded when it is too large, and when it cannot be decoded.
"""

from __future__ import annotations

import ipaddress
import logging
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc import aio

from coordsvc.core.commands import AuthId
from coordsvc.errors import (
    Applied,
    CoordError,
    InternalError,
    LimitExceededError,
    MarshallingError,
    UnimplementedError,
)
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
        "Status",
        "Members",
        "Digest",
    }
)
"""Methods that apply nothing, whatever happens."""

Context = aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Message]]


class _Unreadable:
    """Stands for a request that was refused before it was one."""

    def __init__(self, error: CoordError) -> None:
        self.error = error


class FrontDoor:
    """Counts what passes, and turns errors into statuses. `handlers(...)` makes the gRPC handlers
    of one service."""

    def __init__(self, *, message_size_bytes_max: int) -> None:
        self._message_size_bytes_max = message_size_bytes_max
        self._active = 0
        self.calls_total: Counter[tuple[str, str]] = Counter()
        """By method and error code, OK included."""

    @property
    def active(self) -> int:
        """Calls under way."""
        return self._active

    def handlers(
        self, service: ServiceDescriptor, methods: Mapping[str, Handler]
    ) -> grpc.GenericRpcHandler:
        unknown = set(methods) - {method.name for method in service.methods}
        assert not unknown, f"{service.full_name} has no methods {unknown}"
        made = {
            method.name: self._method_handler(method, methods.get(method.name, _unimplemented))
            for method in service.methods
        }
        return grpc.method_handlers_generic_handler(service.full_name, made)

    def _method_handler(
        self, method: MethodDescriptor, handler: Handler
    ) -> grpc.RpcMethodHandler[Any, Any]:
        request_class = message_factory.GetMessageClass(method.input_type)
        response_class = message_factory.GetMessageClass(method.output_type)
        name = method.name

        async def answer(request: Any, context: Context) -> Message:
            return await self._serve(name, handler, request, context)

        async def answer_stream(request: Any, context: Context) -> AsyncIterator[Message]:
            yield await self._serve(name, handler, request, context)

        behaviours: dict[tuple[bool, bool], Any] = {
            (False, False): (grpc.unary_unary_rpc_method_handler, answer),
            (False, True): (grpc.unary_stream_rpc_method_handler, answer_stream),
            (True, True): (grpc.stream_stream_rpc_method_handler, answer_stream),
        }
        make, behaviour = behaviours[method.client_streaming, method.server_streaming]
        made: grpc.RpcMethodHandler[Any, Any] = make(
            behaviour,
            request_deserializer=self._deserializer(request_class),
            response_serializer=response_class.SerializeToString,
        )
        return made

    def _deserializer(self, message_class: type[Message]) -> Callable[[bytes], Any]:
        def deserialize(data: bytes) -> Message | _Unreadable:
            if len(data) > self._message_size_bytes_max:
                return _Unreadable(
                    LimitExceededError(
                        f"the request has {len(data)} bytes; at most "
                        f"{self._message_size_bytes_max} are allowed"
                    )
                )
            try:
                return message_class.FromString(data)
            except DecodeError:
                return _Unreadable(MarshallingError("the request cannot be decoded"))

        return deserialize

    async def _serve(
        self, method: str, handler: Handler, request: Any, context: Context
    ) -> Message:
        self._active += 1
        began = time.perf_counter()
        outcome = "CANCELLED"
        error: CoordError | None = None
        try:
            if isinstance(request, _Unreadable):
                raise request.error
            response = await handler(request, context)
            outcome = "OK"
            return response
        except CoordError as known:
            error = known
        except Exception as unexpected:
            error = _internal_error(method, unexpected)
        finally:
            self._active -= 1
            outcome = error.code.name if error is not None else outcome
            self._note(method, outcome, began)
        assert error is not None
        await context.abort(status_of(error), status_message(error), trailers_of(error))
        raise AssertionError("abort raises")

    def _note(self, method: str, outcome: str, began: float) -> None:
        self.calls_total[method, outcome] += 1
        if logger.isEnabledFor(logging.DEBUG):
            ms = round((time.perf_counter() - began) * 1000, 3)
            logger.debug("rpc.done", extra={"method": method, "code": outcome, "ms": ms})


async def _unimplemented(request: Any, context: Context) -> Message:
    raise UnimplementedError("this version does not serve this call")


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


def connection_ids(peer: str) -> tuple[AuthId, ...]:
    """Who the connection of `peer` is by its address alone: scheme `ip`. gRPC writes a peer as
    ipv4:ADDRESS:PORT, ipv6:%5BADDRESS%5D:PORT or unix:PATH; the last has no address."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ()
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        logger.warning("rpc.strange_peer", extra={"peer": peer[:128]})
        return ()
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return (AuthId("ip", str(address.ipv4_mapped)),)
    return (AuthId("ip", str(address)),)
