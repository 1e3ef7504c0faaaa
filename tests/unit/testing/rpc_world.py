"""A server and a client as processes of a timeline, each with its own loop, and gRPC in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc
from grpc import aio

from coordsvc.testing.simulated_rpc import RpcFabric
from coordsvc.testing.timeline import SimulatedLoop, Timeline

ADDRESS = "replica:7400"
LATENCY_S = 0.001
OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class World:
    """`seen` is what the servers' handlers were told: which server's, and what. `latencies` are
    those of the next messages, the last one first."""

    def __init__(self, latency_s: Callable[[], float] = lambda: LATENCY_S) -> None:
        self.latencies: list[float] = []
        self.timeline = Timeline()
        self.fabric = RpcFabric(
            latency_s=lambda: self.latencies.pop() if self.latencies else latency_s(),
            host_name=running_name,
        )
        self.unhandled: list[dict[str, Any]] = []
        self.loops: list[SimulatedLoop] = []
        self.servers: list[aio.Server] = []
        self.seen: list[tuple[str, object]] = []
        self.client = self.process("client")

    def process(self, name: str) -> SimulatedLoop:
        self.loops.append(SimulatedLoop(self.timeline, name, self.unhandled.append))
        return self.loops[-1]

    def start(self, loop: SimulatedLoop, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Begin it in that process; what it gives comes in the future."""
        done = loop.create_future()

        def begin() -> None:
            task = loop.create_task(work)
            task.add_done_callback(lambda task: done.set_result(task))

        loop.call_soon(begin)
        return done

    def finish(self, started: asyncio.Future[Any], limit_s: float = 100.0) -> Any:
        assert self.timeline.run_until(started.done, limit_s), "it never ends"
        return started.result().result()

    def run(self, loop: SimulatedLoop, work: Coroutine[Any, Any, Any]) -> Any:
        return self.finish(self.start(loop, work))

    def serve(self, name: str = "server", address: str = ADDRESS) -> SimulatedLoop:
        """A new server process."""
        loop = self.process(name)
        self.run(loop, self._serve(address))
        return loop

    async def _serve(self, address: str) -> None:
        server = self.fabric.make_server()
        self.servers.append(server)
        handlers: dict[str, Any] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self._unary),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
            "Flood": grpc.stream_stream_rpc_method_handler(self._flood),
        }
        generic = grpc.method_handlers_generic_handler("test.Service", handlers)
        server.add_generic_rpc_handlers((generic,))
        server.add_insecure_port(address)
        await server.start()

    async def _unary(self, request: bytes, context: Any) -> bytes:
        self.seen.append((running_name(), request))
        if request == b"wait":
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.seen.append((running_name(), "cancelled"))
                raise
        return request

    async def _talk(self, requests: AsyncIterator[bytes], context: Any) -> None:
        try:
            async for request in requests:
                self.seen.append((running_name(), request))
                await context.write(request)
        except asyncio.CancelledError:
            self.seen.append((running_name(), "cancelled"))
            raise

    async def _flood(self, requests: AsyncIterator[bytes], context: Any) -> None:
        for number in range(1000):
            await context.write(bytes(1019))
            self.seen.append((running_name(), number))

    def open(self, address: str = ADDRESS) -> aio.Channel:
        """The client's channel, connected."""
        return cast(aio.Channel, self.run(self.client, self._open(address)))

    async def _open(self, address: str) -> aio.Channel:
        channel = self.fabric.open_channel(address, options=OPTIONS)
        await channel.channel_ready()
        return channel

    def talk(self, channel: aio.Channel) -> Any:
        """A stream over which one message went each way."""

        async def begin() -> Any:
            call: Any = channel.stream_stream("/test.Service/Talk")()
            await call.write(b"first")
            assert await call.read() == b"first"
            return call

        return self.run(self.client, begin())

    def told(self, server: str = "server") -> list[object]:
        return [what for name, what in self.seen if name == server]


def running_name() -> str:
    return cast(SimulatedLoop, asyncio.get_running_loop()).name


@contextmanager
def running(world: World) -> Iterator[World]:
    yield world
    for loop in world.loops:
        loop.kill()
    assert not world.unhandled


async def outcome(awaited: Awaitable[object]) -> object:
    """What it gives, or the status it ends with."""
    try:
        return await awaited
    except aio.AioRpcError as error:
        return error.code()


async def call(channel: aio.Channel, request: bytes, timeout: float | None = None) -> object:
    unary: Any = channel.unary_unary("/test.Service/Unary")
    return await outcome(unary(request, timeout=timeout))


async def give(value: Callable[[], object]) -> object:
    return value()
