"""The real server and the real client over gRPC in memory.

Goal: nothing of either needs a network, and both survive what the simulated one does to them.
Method: a server around a replica without network or disk, on the test's own loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from coordsvc.client.client import Client
from coordsvc.client.options import ClientConfig
from coordsvc.client.records import SessionState, WatchEvent
from coordsvc.client.unary import UnaryClient
from coordsvc.client.watch_stream import WatchStream
from coordsvc.errors import NodeExistsError, UnavailableError
from coordsvc.server.addresses import Address
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.server import Server
from coordsvc.testing.local_replica import LocalReplica
from coordsvc.testing.simulated_rpc import RpcFabric

PATIENCE_S = 30.0


@dataclass
class Scene:
    fabric: RpcFabric
    server: Server

    @property
    def endpoint(self) -> str:
        return str(self.server.address)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    fabric = RpcFabric()
    replica = LocalReplica()
    config = ServerConfig(listen=Address("replica", 0))
    server = Server(config, replica, election_timeout_s=1.0, make_grpc_server=fabric.make_server)
    replica.on_applied = server.on_applied
    server.on_leading(replica.term)
    await server.start()
    with fabric.serves_clients():
        yield Scene(fabric, server)
    async with asyncio.timeout(PATIENCE_S):
        await server.stop(1.0)
    assert fabric.connections == 0, "a connection stays behind"


async def test_a_session_with_all_that_goes_over_it(scene: Scene) -> None:
    async with Client(scene.endpoint) as client:
        async with client.watch("/", recursive=True) as changes:
            await client.create("/a", b"1")
            await asyncio.gather(*(client.set_data("/a", b"%d" % i) for i in range(100)))
            data, stat, _ = await client.get_data("/a")
            assert (data, stat.version) == (b"99", 100)
            with pytest.raises(NodeExistsError):
                await client.create("/a")
            seen = [await anext(changes) for _ in range(101)]
            assert all(isinstance(event, WatchEvent) and event.path == "/a" for event in seen)
        big = bytes(1_000_000)
        await client.set_data("/a", big)
        assert (await client.get_data("/a"))[0] == big


async def test_unary_calls_and_a_watch_of_its_own(scene: Scene) -> None:
    config = ClientConfig((scene.endpoint,))
    async with WatchStream(config, "/", recursive=True) as changes, UnaryClient(config) as unary:
        await unary.create("/a", b"1")
        event = await anext(changes)
        assert isinstance(event, WatchEvent) and event.path == "/a"
        assert (await unary.get_data("/a")).data == b"1"


async def test_a_session_outlives_its_connection(scene: Scene) -> None:
    async with Client(scene.endpoint) as client:
        session_id = client.session_id
        async with client.watch("/", recursive=True) as changes:
            await client.create("/a", b"1")
            assert scene.fabric.break_connections(address=scene.endpoint) == 1
            stat = await client.set_data("/a", b"2")
            assert (stat.version, client.session_id) == (1, session_id)
            events = [await anext(changes) for _ in range(2)]
            assert [event.path for event in events if isinstance(event, WatchEvent)] == ["/a"] * 2
        assert client.state is SessionState.CONNECTED


async def test_a_write_whose_answer_is_held_up_is_done_once(scene: Scene) -> None:
    async with Client(scene.endpoint) as client:
        await client.create("/a", b"1")
        before = scene.server.replica.machine.state.zxid
        scene.fabric.cut("client", scene.endpoint, up=False)
        writing = asyncio.create_task(client.set_data("/a", b"2"))
        while scene.server.replica.machine.state.zxid == before:
            await asyncio.sleep(0.002)
        assert not writing.done()
        scene.fabric.break_connections("client")
        scene.fabric.mend_all()
        assert (await writing).version == 1


async def test_nobody_listens(scene: Scene) -> None:
    config = ClientConfig(("nowhere:1",), unreachable_timeout_ms=200)
    async with UnaryClient(config) as unary:
        with pytest.raises(UnavailableError, match="cannot connect to nowhere:1"):
            await unary.sync()
