"""A replica that is built again in its process, because a snapshot replaced what it had on disk."""

from __future__ import annotations

import asyncio
import shutil
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.server.addresses import Address
from coordsvc.server.assembly import Surroundings
from coordsvc.server.config_model import ServerConfig, StorageConfig
from coordsvc.server.host import ReplicaHost
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.errors import DataDirRefusedError
from coordsvc.storage.files import FileSystem
from coordsvc.testing.local_servers import LOOPBACK, LocalServer, LocalServers
from coordsvc.v1 import coordination_pb2
from coordsvc.v1.coordination_pb2_grpc import CoordinationStub
from tests.unit.server.harness import eventually

TINY = StorageConfig(checkpoint_interval_s=1, checkpoint_entries=20, log_keep_bytes=0)


async def fill(servers: LocalServers, first: int, count: int) -> None:
    endpoints = tuple(server.endpoint for server in servers.servers.values())
    async with UnaryClient(ClientConfig(endpoints)) as client:
        for number in range(first, first + count):
            await client.create(f"/n{number}", b"x")


async def forget(servers: LocalServers, replica_id: int) -> None:
    """Stop it, have the log go on without it, and take its disk away."""
    victim = servers.servers.pop(replica_id)
    await victim.stop()
    shutil.rmtree(victim.config.data_dir)


def base_indexes(servers: LocalServers) -> list[int]:
    return [server.replica.statistics().base_index for server in servers.servers.values()]


@asynccontextmanager
async def wiped_follower(tmp_path: Path) -> AsyncIterator[tuple[LocalServers, LocalServer]]:
    """Three replicas; one of them was wiped, and is not started yet. No log reaches back to where
    it would have to begin."""
    async with LocalServers(str(tmp_path), 3, storage=TINY) as servers:
        leader = await servers.wait_leader()
        wiped = next(i for i in servers.servers if i != leader.replica.replica_id)
        await fill(servers, 0, 50)
        await forget(servers, wiped)
        await fill(servers, 50, 50)
        await eventually(lambda: min(base_indexes(servers)) > 1, 10)
        yield servers, servers.make(wiped)


async def test_it_comes_back_on_the_same_address_with_the_leaders_state(tmp_path: Path) -> None:
    async with wiped_follower(tmp_path) as (servers, wiped):
        await wiped.start()
        before = wiped.endpoint
        async with asyncio.timeout(20):
            await wiped.wait_ready()
        assert wiped.endpoint == before
        assert wiped.host._around.measurements.snapshots_installed_total == 1
        leader = await servers.wait_leader()
        zxid = leader.replica.machine.state.zxid
        await eventually(lambda: wiped.replica.machine.state.zxid >= zxid, 10)
        assert wiped.replica.machine.digest() == leader.replica.machine.digest()
        async with UnaryClient(ClientConfig((wiped.endpoint,))) as client:
            await client.create("/after", b"x")


async def test_nobody_else_can_have_the_directory_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between closing and opening again the lock is held."""
    tried: list[str] = []
    async with wiped_follower(tmp_path) as (_, wiped):
        assemble = wiped.host._assemble

        async def try_and_assemble() -> Any:
            if wiped.host._rebuilding is not None:
                config = wiped.config
                with pytest.raises(DataDirRefusedError) as caught:
                    DataDir.open(
                        config.data_dir, config.replica_id, FileSystem(), members=(1, 2, 3)
                    )
                tried.append(str(caught.value))
            return await assemble()

        monkeypatch.setattr(wiped.host, "_assemble", try_and_assemble)
        await wiped.start()
        async with asyncio.timeout(20):
            await wiped.wait_ready()
    assert len(tried) == 1 and "in use by process" in tried[0]


async def test_streams_end_and_it_says_that_it_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its clients saw is not what is there afterwards."""
    async with LocalServers(str(tmp_path), 1) as servers:
        server = servers.servers[1]
        held = asyncio.Event()
        assemble = server.host._assemble

        async def assemble_later() -> Any:
            await held.wait()
            return await assemble()

        monkeypatch.setattr(server.host, "_assemble", assemble_later)
        channel = aio.insecure_channel(server.endpoint, options=[("grpc.enable_http_proxy", 0)])
        stub: Any = CoordinationStub(channel)
        stream = stub.Session()
        hello = coordination_pb2.SessionHello(timeout_ms=10_000)
        await stream.write(coordination_pb2.SessionRequest(hello=hello))
        assert (await stream.read()).items[0].HasField("welcome")
        server.host._on_installed()
        with pytest.raises(aio.AioRpcError) as caught:
            while (await stream.read()) is not aio.EOF:
                pass
        assert caught.value.code().name == "UNAVAILABLE"
        await eventually(lambda: server.host.assembly is None)
        assert [check.name for check in server.host.checks() if not check.is_ok] == ["loaded"]
        held.set()
        async with asyncio.timeout(20):
            await server.wait_ready()
        assert all(check.is_ok for check in server.host.checks())
        await channel.close()


async def test_what_fails_while_it_is_built_again_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[BaseException] = []
    config = ServerConfig(data_dir=str(tmp_path / "d"))
    host = ReplicaHost(config, Surroundings(failures.append))
    await host.open()
    failure = OSError("not to be opened")

    async def fail() -> Any:
        raise failure

    monkeypatch.setattr(host, "_assemble", fail)
    host._on_installed()
    await eventually(lambda: bool(failures))
    assert failures == [failure]
    host._data_dir.close()


async def test_what_was_replaced_is_let_go(tmp_path: Path) -> None:
    """Tree and log of the replica before must not stay in memory beside the new one's."""
    async with LocalServers(str(tmp_path), 1) as servers:
        host = servers.servers[1].host
        assert host.assembly is not None
        old = weakref.ref(host.assembly.replica.machine)
        host._on_installed()
        async with asyncio.timeout(20):
            await servers.servers[1].wait_ready()
        assert host.assembly.replica.machine is not old()
        assert old() is None


async def test_zookeepers_clients_find_it_at_the_same_port_again(tmp_path: Path) -> None:
    here = Address(LOOPBACK, 0)
    async with LocalServers(str(tmp_path), 1, zookeeper_listen=here) as servers:
        server = servers.servers[1]
        before, old = server.zookeeper_endpoint, server.server
        server.host._on_installed()
        async with asyncio.timeout(20):
            await server.wait_ready()
        assert server.server is not old
        assert server.zookeeper_endpoint == before == str(server.server.zookeeper_address)
        assert server.server.members.zookeeper_addresses() == {1: before}
        _, writer = await asyncio.open_connection(LOOPBACK, server.server.zookeeper_address.port)
        writer.close()


async def test_what_is_installed_while_it_stops_is_left_to_the_next_start(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    host = ReplicaHost(ServerConfig(data_dir=str(tmp_path / "d")), Surroundings(failures.append))
    await host.open()
    await host.listen()
    await host.start()
    stopping = asyncio.create_task(host.stop())
    await eventually(lambda: host.is_stopping)
    host._on_installed()
    await stopping
    assert failures == [] and host.assembly is not None and not host.is_rebuilding
