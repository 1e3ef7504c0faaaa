"""A gRPC channel in memory, with the interface and the behaviour of `grpc.aio`'s.

Everything here runs on the loop of the process that made the channel. Like gRPC's own it connects
when it is asked to or needs to, tries again with growing pauses while it fails, and is told to try
when a connection was lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import grpc
from grpc import ChannelConnectivity, StatusCode, aio

from coordsvc.testing.simulated_rpc_calls import (
    Call,
    Method,
    StreamStreamCall,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from coordsvc.testing.simulated_rpc_wire import Connection

BACKOFF_FACTOR = 1.6

READY, IDLE = ChannelConnectivity.READY, ChannelConnectivity.IDLE
CONNECTING, FAILING = ChannelConnectivity.CONNECTING, ChannelConnectivity.TRANSIENT_FAILURE


class Network(Protocol):
    def dial(self, channel: SimulatedChannel) -> Connection | None:
        """The channel hears what comes of it. None: from nobody; `on_no_listener` may be called
        with this attempt's number."""


class SimulatedChannel(aio.Channel):
    """From the host `client` to `address`. `options` are gRPC's; those of reconnecting count."""

    def __init__(
        self, network: Network, client: str, address: str, options: Sequence[tuple[str, Any]] = ()
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.client = client
        self.address = address
        self.attempt = 0
        """The number of the last attempt to connect."""
        given = dict(options)
        self._backoff_s_min = given.get("grpc.initial_reconnect_backoff_ms", 1_000) / 1000
        self._backoff_s_max = given.get("grpc.max_reconnect_backoff_ms", 120_000) / 1000
        self._attempt_s_min = given.get("grpc.min_reconnect_backoff_ms", 20_000) / 1000
        self._backoff_s = self._backoff_s_min
        self._network = network
        self._state = IDLE
        self._watchers: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._began_at = 0.0
        self._dialled: Connection | None = None
        self._connection: Connection | None = None
        self._queued: list[Call] = []
        self._calls: dict[Call, None] = {}

    # --------------------------------------------------------------------------------------- state

    def get_state(self, try_to_connect: bool = False) -> ChannelConnectivity:
        state = self._state
        if try_to_connect and state is IDLE:
            self._connect()
        return state

    async def wait_for_state_change(self, last_observed_state: ChannelConnectivity) -> None:
        self._check_open()
        while self._state is last_observed_state:
            watcher = self.loop.create_future()
            self._watchers.append(watcher)
            try:
                await watcher
            finally:
                self._watchers = [each for each in self._watchers if each is not watcher]

    async def channel_ready(self) -> None:
        while (state := self.get_state(try_to_connect=True)) is not READY:
            await self.wait_for_state_change(state)

    def _set_state(self, state: ChannelConnectivity) -> None:
        if state is self._state:
            return
        self._state = state
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)

    @property
    def _is_closed(self) -> bool:
        return self._state is ChannelConnectivity.SHUTDOWN

    def _check_open(self) -> None:
        if self._is_closed:
            raise aio.UsageError("Channel is closed.")

    # ---------------------------------------------------------------------------------- connecting

    def _connect(self) -> None:
        if self._state is IDLE:
            self._set_state(CONNECTING)
        self.attempt += 1
        self._began_at = self.loop.time()
        self._set_timer(self._began_at + max(self._attempt_s_min, self._backoff_s), self._failed)
        self._dialled = self._network.dial(self)

    def _failed(self) -> None:
        """This attempt did; there will be another one. Until one succeeds the channel is failing,
        also while it tries."""
        dialled, self._dialled = self._dialled, None
        if dialled is not None:
            dialled.close_at_client()
        self._set_state(FAILING)
        self._set_timer(self._began_at + self._backoff_s, self._connect)
        self._backoff_s = min(self._backoff_s * BACKOFF_FACTOR, self._backoff_s_max)
        queued, self._queued = self._queued, []
        for call in queued:
            if call.waits_for_ready:
                self._queued.append(call)
            else:
                call.end(StatusCode.UNAVAILABLE, f"failed to connect to {self.address}")

    def _set_timer(self, at: float, callback: Any) -> None:
        self._cancel_timer()
        self._timer = self.loop.call_at(at, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_no_listener(self, attempt: int) -> None:
        if attempt == self.attempt and self._state in (CONNECTING, FAILING):
            self._failed()

    def on_refused(self, connection: Connection) -> None:
        if connection is self._dialled:
            self._failed()

    def on_connected(self, connection: Connection) -> None:
        if connection is not self._dialled:
            return
        self._cancel_timer()
        self._dialled, self._connection = None, connection
        self._backoff_s = self._backoff_s_min
        self._set_state(READY)
        queued, self._queued = self._queued, []
        for call in queued:
            call.begin(connection)

    def on_go_away(self, connection: Connection) -> None:
        """The server stops: it takes no new calls on it, and ends it when those that run are
        done."""
        if connection is self._connection:
            self._connection = None
            self._set_state(IDLE)

    def on_lost(self, connection: Connection) -> None:
        connection.close_at_client()
        for call in tuple(self._calls):
            if call.connection is connection:
                call.end(StatusCode.UNAVAILABLE, "Socket closed")
        if connection is self._connection:
            self._connection = None
            self._set_state(IDLE)
            if self._queued:
                self._connect()
        elif connection is self._dialled:
            self._failed()

    # --------------------------------------------------------------------------------------- calls

    def begin(self, call: Call) -> None:
        """Send it on its way, now or once there is a connection."""
        self._check_open()
        self._calls[call] = None
        if self._connection is not None:
            call.begin(self._connection)
        elif self._state is FAILING and not call.waits_for_ready:
            call.end(StatusCode.UNAVAILABLE, f"failed to connect to {self.address}")
        else:
            self._queued.append(call)
            if self._state is IDLE:
                self._connect()

    def ended(self, call: Call) -> None:
        self._calls.pop(call, None)
        if call.connection is None:
            self._queued = [each for each in self._queued if each is not call]

    async def close(self, grace: float | None = None) -> None:
        """Cancels its calls; a `grace` is not simulated."""
        if self._is_closed:
            return
        self._set_state(ChannelConnectivity.SHUTDOWN)
        self._cancel_timer()
        for call in tuple(self._calls):
            call.cancel()
        for connection in (self._dialled, self._connection):
            if connection is not None:
                connection.close_at_client()
        self._dialled = self._connection = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self.close()

    # ------------------------------------------------------------------------------------- methods
    # `_registered_method` is what generated stubs say.

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool = False,
    ) -> UnaryUnary:
        return UnaryUnary(Method(self, method, request_serializer, response_deserializer))

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool = False,
    ) -> UnaryStream:
        return UnaryStream(Method(self, method, request_serializer, response_deserializer))

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool = False,
    ) -> StreamStream:
        return StreamStream(Method(self, method, request_serializer, response_deserializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool = False,
    ) -> aio.StreamUnaryMultiCallable[Any, Any]:
        raise NotImplementedError("many requests with one answer: not simulated")


class UnaryUnary(aio.UnaryUnaryMultiCallable[Any, Any]):
    def __init__(self, method: Method) -> None:
        self._method = method

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryUnaryCall:
        data = self._method.serialize(request)
        return UnaryUnaryCall(self._method, data, timeout, metadata, wait_for_ready)


class UnaryStream(aio.UnaryStreamMultiCallable[Any, Any]):
    def __init__(self, method: Method) -> None:
        self._method = method

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryStreamCall:
        data = self._method.serialize(request)
        return UnaryStreamCall(self._method, data, timeout, metadata, wait_for_ready)


class StreamStream(aio.StreamStreamMultiCallable[Any, Any]):
    def __init__(self, method: Method) -> None:
        self._method = method

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamStreamCall:
        assert request_iterator is None, "write requests; iterators are not simulated"
        return StreamStreamCall(self._method, None, timeout, metadata, wait_for_ready)
