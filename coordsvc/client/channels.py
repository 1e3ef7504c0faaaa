"""Connections to the replicas: one channel per endpoint, and which of them is used now.

Whether a request was sent at all decides whether a write may be repeated, and gRPC tells it only
in words. So a request is handed to a channel only once that is connected: what fails before was
certainly not sent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import cast

from grpc import ChannelConnectivity, aio

from coordsvc.client.methods import Method, RequestT, ResponseT
from coordsvc.client.options import ClientConfig
from coordsvc.client.retry import UnreachableError
from coordsvc.client.tls import open_channel
from coordsvc.client.tls_fault import tls_fault

MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""Above everything a replica sends (3 MiB)."""

FAULT_AGE_S_MAX = 5.0
"""How long it is taken for known what was wrong with an endpoint's TLS."""

Call = Callable[..., Awaitable[ResponseT]]


def channel_options(
    config: ClientConfig, *, reconnect_ms_max: int = 1_000
) -> list[tuple[str, int]]:
    """gRPC's own defaults come back up to 2 minutes late and obey HTTP proxies, which swallow even
    127.0.0.1."""
    return [
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 50),
        # Despite its name the least time given to one connection attempt.
        ("grpc.min_reconnect_backoff_ms", config.connect_timeout_ms),
        ("grpc.max_reconnect_backoff_ms", reconnect_ms_max),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        # Two clients in one process share neither a connection nor its backoff.
        ("grpc.use_local_subchannel_pool", 1),
    ]


class Channels:
    """The channels of one client. `endpoint` is the one in use; `rotate` goes on to the next."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._current = 0
        self._channels: dict[str, aio.Channel] = {}
        self._calls: dict[tuple[str, str], object] = {}
        self._faults: dict[str, tuple[float, str]] = {}

    @property
    def endpoint(self) -> str:
        return self._config.endpoints[self._current]

    def rotate(self, failed: str) -> None:
        """Leave `failed`, unless another call has done so already."""
        if failed == self.endpoint:
            self._current = (self._current + 1) % len(self._config.endpoints)

    async def connect(self, endpoint: str, deadline: float) -> None:
        """Returns once `endpoint` is connected. UnreachableError: it is not, in the time of
        one attempt or before `deadline` (time.monotonic)."""
        channel = self._channel(endpoint)
        state = channel.get_state(try_to_connect=True)
        if state is ChannelConnectivity.READY:
            return
        attempt_end = time.monotonic() + self._config.connect_timeout_ms / 1000
        attempt_end = min(attempt_end, deadline)
        while state is not ChannelConnectivity.READY:
            left = attempt_end - time.monotonic()
            if left <= 0 or state is ChannelConnectivity.TRANSIENT_FAILURE:
                raise await self._unreachable(endpoint, left)
            try:
                # Not wait_for: that of Python 3.11 swallows a cancellation that comes at once.
                async with asyncio.timeout(left):
                    await channel.wait_for_state_change(state)
            except TimeoutError:
                raise UnreachableError(f"cannot connect to {endpoint} in time") from None
            state = channel.get_state(try_to_connect=True)

    async def _unreachable(self, endpoint: str, seconds: float) -> UnreachableError:
        """With the reason, when it is one of TLS. That is looked into once in a while: somebody
        may be waiting for another replica."""
        now = time.monotonic()
        looked_at, reason = self._faults.get(endpoint, (-FAULT_AGE_S_MAX, ""))
        if seconds > 0 and now - looked_at >= FAULT_AGE_S_MAX:
            reason = await tls_fault(endpoint, self._config.tls, seconds)
            self._faults[endpoint] = now, reason
        return UnreachableError(f"cannot connect to {endpoint}", reason=reason)

    def call(self, endpoint: str, method: Method[RequestT, ResponseT]) -> Call[ResponseT]:
        """What makes `method`'s calls at `endpoint`."""
        key = (endpoint, method.name)
        call = self._calls.get(key)
        if call is None:
            call = self._channel(endpoint).unary_unary(
                method.name,
                request_serializer=method.request_type.SerializeToString,
                response_deserializer=method.response_type.FromString,
            )
            self._calls[key] = call
        return cast("Call[ResponseT]", call)

    def open_stream(
        self,
        endpoint: str,
        name: str,
        response_type: type[ResponseT],
    ) -> aio.StreamStreamCall[bytes, ResponseT]:
        """A stream in both directions, of requests as bytes; nothing was sent yet. Cancel it when
        done with it."""
        method: aio.StreamStreamMultiCallable[bytes, ResponseT] = self._channel(
            endpoint
        ).stream_stream(name, response_deserializer=response_type.FromString)
        return method()

    def open_listing(
        self,
        endpoint: str,
        name: str,
        request: RequestT,
        response_type: type[ResponseT],
    ) -> aio.UnaryStreamCall[RequestT, ResponseT]:
        """One request, many responses. Cancel it when done with it."""
        method: aio.UnaryStreamMultiCallable[RequestT, ResponseT] = self._channel(
            endpoint
        ).unary_stream(
            name,
            request_serializer=type(request).SerializeToString,
            response_deserializer=response_type.FromString,
        )
        return method(request)

    async def close(self) -> None:
        channels, self._channels = list(self._channels.values()), {}
        self._calls.clear()
        await asyncio.gather(*(channel.close() for channel in channels))

    def _channel(self, endpoint: str) -> aio.Channel:
        channel = self._channels.get(endpoint)
        if channel is None:
            channel = open_channel(endpoint, self._config, channel_options(self._config))
            self._channels[endpoint] = channel
        return channel
