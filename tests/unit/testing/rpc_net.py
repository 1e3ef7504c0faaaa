"""A service and its clients, over gRPC on loopback or in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import StatusCode, aio

from coordsvc.testing.simulated_rpc import RpcFabric

PATIENCE_S = 30.0
OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


class Service:
    """Does what the first message says, and notes what became of it."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.contexts: list[Any] = []
        self.goes_on = asyncio.Event()

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "test.Service",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
                "List": grpc.unary_stream_rpc_method_handler(self.listing),
                "Generate": grpc.unary_stream_rpc_method_handler(self.generate),
                "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            },
        )

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.contexts.append(context)
        if request == b"abort":
            await context.abort(StatusCode.ABORTED, "why", (("k", "v"), ("k-bin", b"\0\xff")))
        elif request == b"bug":
            raise ValueError("a bug")
        elif request == b"code":
            context.set_code(StatusCode.NOT_FOUND)
            context.set_details("nothing there")
            context.set_trailing_metadata((("seen", "yes"),))
        elif request == b"wait":
            await self.wait()
        return request.upper()

    async def wait(self) -> None:
        self.seen.append("waits")
        try:
            await self.goes_on.wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise

    async def listing(self, request: bytes, context: Any) -> None:
        for number in range(int(request)):
            await context.write(b"%d" % number)
        await context.abort(StatusCode.OUT_OF_RANGE, "no more", (("count", request.decode()),))

    async def generate(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def talk(self, requests: Any, context: Any) -> None:
        self.contexts.append(context)
        while (message := await context.read()) is not aio.EOF:
            if message == b"wait":
                await self.wait()
            elif message == b"refuse":
                await context.abort(StatusCode.FAILED_PRECONDITION, "refused")
            elif message == b"stubborn":
                await self.be_stubborn(context)
                return
            await context.write(message.upper())
        self.seen.append("half-closed")
        await context.write(b"bye")

    async def be_stubborn(self, context: Any) -> None:
        try:
            await self.wait()
        except asyncio.CancelledError:
            self.seen.append(await context.read())
            try:
                await context.write(b"late")
            except aio.InternalError as error:
                self.seen.append(str(error))


class Net:
    """A network. `serve` gives a server and where it is."""

    def __init__(self) -> None:
        self.servers: list[aio.Server] = []
        self.channels: list[aio.Channel] = []

    def make_server(self) -> aio.Server:
        return aio.server(options=(("grpc.so_reuseport", 0),))

    def make_channel(self, address: str) -> aio.Channel:
        return aio.insecure_channel(address, options=OPTIONS)

    async def serve(self, service: Service, port: int = 0) -> tuple[aio.Server, str]:
        server = self.make_server()
        self.servers.append(server)
        server.add_generic_rpc_handlers((service.handlers(),))
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        return server, f"127.0.0.1:{port}"

    def open(self, address: str) -> aio.Channel:
        self.channels.append(self.make_channel(address))
        return self.channels[-1]

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()
        for server in self.servers:
            await server.stop(None)


class SimulatedNet(Net):
    def __init__(self) -> None:
        super().__init__()
        self.fabric = RpcFabric()

    def make_server(self) -> aio.Server:
        return self.fabric.make_server()

    def make_channel(self, address: str) -> aio.Channel:
        return self.fabric.open_channel(address, options=OPTIONS)


@asynccontextmanager
async def closing(net: Net) -> AsyncIterator[Net]:
    yield net
    async with asyncio.timeout(PATIENCE_S):
        await net.close()


async def opened(net: Net) -> tuple[Service, aio.Channel]:
    service = Service()
    _, address = await net.serve(service)
    return service, net.open(address)


async def error_of(awaited: Awaitable[object]) -> aio.AioRpcError:
    with pytest.raises(aio.AioRpcError) as caught:
        await awaited
    return caught.value


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


def unary(channel: aio.Channel) -> Any:
    return channel.unary_unary("/test.Service/Unary")


def talk(channel: aio.Channel) -> Any:
    return channel.stream_stream("/test.Service/Talk")()
