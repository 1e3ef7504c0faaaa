"""Watch over a real connection: the calls of one replica in this process, with its hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from grpc import aio

from coordsvc.core.commands import NO_CALLER, Op, OpenSession, Reply, Write
from coordsvc.server.addresses import Address
from coordsvc.server.config_model import LimitsConfig, ServerConfig
from coordsvc.server.grpc_door import SERVER_OPTIONS
from coordsvc.server.server import Server
from coordsvc.server.watch_service import WatchService
from coordsvc.testing.local_replica import LocalReplica
from coordsvc.v1 import common_pb2, coordination_pb2, watch_pb2
from tests.unit.server.harness import PASSWORD, Refused

WATCH = "/coordsvc.v1.Coordination/Watch"
CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 4 << 20)]


def spec(watch_id: int, path: str, kind: str, include_data: bool = False) -> watch_pb2.WatchSpec:
    return watch_pb2.WatchSpec(
        watch_id=watch_id,
        path=path,
        kind=watch_pb2.WatchKind.Value(f"WATCH_KIND_{kind}"),
        include_data=include_data,
    )


class WatchCall:
    """One stream, item by item."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.frames: list[watch_pb2.WatchResponse] = []
        self._items: list[watch_pb2.WatchItem] = []

    async def item(self) -> watch_pb2.WatchItem:
        """The next one. Raises Refused when the stream ends with a status of ours."""
        while not self._items:
            try:
                frame = await self.call.read()
            except aio.AioRpcError as error:
                if "grpc-status-details-bin" in dict(error.trailing_metadata() or ()):
                    raise Refused(error) from error
                raise
            assert frame is not aio.EOF, "a Watch stream never ends with OK"
            self.frames.append(frame)
            self._items.extend(frame.items)
        return self._items.pop(0)

    async def take(self, kind: str) -> Any:
        """The next item, which must be of this kind."""
        item = await self.item()
        assert item.WhichOneof("item") == kind, item
        return getattr(item, kind)

    async def events(self, count: int) -> list[watch_pb2.WatchEvent]:
        return [await self.take("event") for _ in range(count)]

    async def refusal(self) -> Refused:
        """What it ends with, whatever comes before."""
        try:
            while True:
                await self.item()
        except Refused as refused:
            return refused


class WatchHarness:
    def __init__(
        self, server: Server, replica: LocalReplica, service: WatchService, port: int
    ) -> None:
        self.server = server
        self.replica = replica
        self.service = service
        self.hub = server.hub
        self.port = port
        self.channel = self.open_channel()

    @property
    def zxid(self) -> int:
        return self.replica.machine.state.zxid

    def open_channel(self, number: int = 0) -> aio.Channel:
        # An option of its own keeps gRPC from sharing one connection among channels.
        options = [*CHANNEL_OPTIONS, ("coordsvc.channel", number)]
        return aio.insecure_channel(f"127.0.0.1:{self.port}", options=options)

    def write(self, *ops: Op) -> Reply:
        """Applied at once, in one entry; the last one's reply."""
        self.replica.apply_elsewhere(*[Write(NO_CALLER, op) for op in ops])
        return self.replica.catch_up()[-1]

    def open_session(self) -> common_pb2.RequestContext:
        self.replica.apply_elsewhere(OpenSession(10_000, PASSWORD))
        session_id = self.replica.catch_up()[0].zxid
        credentials = common_pb2.SessionCredentials(session_id=session_id, password=PASSWORD)
        return common_pb2.RequestContext(session=credentials)

    def start(
        self, *specs: watch_pb2.WatchSpec, channel: aio.Channel | None = None, **fields: Any
    ) -> WatchCall:
        timeout = fields.pop("timeout", 60)
        stub = (channel or self.channel).unary_stream(
            WATCH,
            request_serializer=watch_pb2.WatchRequest.SerializeToString,
            response_deserializer=watch_pb2.WatchResponse.FromString,
        )
        request = watch_pb2.WatchRequest(watches=specs, **fields)
        return WatchCall(stub(request, timeout=timeout))

    async def watch(self, *specs: watch_pb2.WatchSpec, **fields: Any) -> WatchCall:
        """A stream whose watches are set."""
        call = self.start(*specs, **fields)
        watches_set = await call.take("watches_set")
        assert list(watches_set.watch_ids) == [each.watch_id for each in specs]
        return call


@asynccontextmanager
async def watch_server(**limits: int) -> AsyncIterator[WatchHarness]:
    """`limits` are of LimitsConfig. Its own gRPC server has the one call, so a test can hold the
    hub and the service in its hands."""
    config = replace(
        ServerConfig(listen=Address("127.0.0.1", 0)), limits=replace(LimitsConfig(), **limits)
    )
    replica = LocalReplica(replica_id=config.replica_id)
    server = Server(config, replica, election_timeout_s=1.0)
    replica.on_applied = server.on_applied
    service = WatchService(
        server.pipeline, server.hub, config, server.header, replica.clock.monotonic
    )
    grpc_server = aio.server(options=SERVER_OPTIONS)
    descriptor = coordination_pb2.DESCRIPTOR.services_by_name["Coordination"]
    grpc_server.add_generic_rpc_handlers(
        (server.door.handlers(descriptor, {}, streams=service.streams),)
    )
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    harness = WatchHarness(server, replica, service, port)
    try:
        yield harness
    finally:
        await harness.channel.close()
        await grpc_server.stop(0)


def tasks_of_calls() -> list[asyncio.Task[Any]]:
    """What gRPC runs for the calls of a server."""
    return [task for task in asyncio.all_tasks() if "HandleExceptions" in task.get_name()]
