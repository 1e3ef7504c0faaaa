"""One replica with both its doors, in this process, and raw connections to the one for ZooKeeper's
clients."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from grpc import aio

from coordsvc.core.state import State
from coordsvc.server.addresses import Address
from coordsvc.server.config_model import ClusterConfig, LimitsConfig
from coordsvc.server.zookeeper.door import Door
from coordsvc.testing.local_servers import LOOPBACK, LocalServer, LocalServers
from coordsvc.testing.zookeeper_client import ZooKeeperConnection
from coordsvc.testing.zookeeper_connection import RawConnection
from coordsvc.v1 import coordination_pb2_grpc
from tests.unit.server.harness import eventually

SECONDS = 30.0
"""For what happens at once on a machine that is not busy."""

SHORT = ClusterConfig(session_timeout_ms_min=400, tick_ms=100)
"""For tests that wait until a session expires."""

MANY_OPENINGS = LimitsConfig(openings_per_s_max=10**6, openings_burst_max=10**6)


class DoorHarness:
    def __init__(self, local: LocalServer) -> None:
        self.local = local
        self._connections: list[RawConnection] = []
        self._channels: list[aio.Channel] = []

    @property
    def door(self) -> Door:
        door = self.local.server.zookeeper
        assert door is not None
        return door

    @property
    def state(self) -> State:
        return self.local.replica.machine.state

    @property
    def port(self) -> int:
        assert self.door.address is not None
        return self.door.address.port

    @property
    def connections(self) -> int:
        """How many the door knows."""
        return len(self.door.facts().connections)

    async def open(self, **options: Any) -> ZooKeeperConnection:
        connection = await ZooKeeperConnection.open(LOOPBACK, self.port, **options)
        self._connections.append(connection)
        return connection

    async def attach(self, other: ZooKeeperConnection, **options: Any) -> ZooKeeperConnection:
        """Another connection with the session of this one."""
        return await self.open(session_id=other.session_id, password=other.password, **options)

    async def connect(self) -> ZooKeeperConnection:
        """Without a session."""
        connection = await ZooKeeperConnection.connect(LOOPBACK, self.port)
        self._connections.append(connection)
        return connection

    def forget(self, connections: Iterable[ZooKeeperConnection]) -> None:
        """They have ended: nothing of them is to be kept here."""
        for connection in connections:
            self._connections.remove(connection)

    def stub(self) -> coordination_pb2_grpc.CoordinationAsyncStub:
        """Of the gRPC door."""
        options = [("grpc.enable_http_proxy", 0)]
        channel = aio.insecure_channel(self.local.endpoint, options)
        self._channels.append(channel)
        return coordination_pb2_grpc.CoordinationStub(channel)

    async def close(self) -> None:
        for connection in self._connections:
            if not connection.is_closed:
                connection.abort()
        for channel in self._channels:
            await channel.close()
        await eventually(lambda: not self.connections, SECONDS)


@asynccontextmanager
async def door_replica(**changes: Any) -> AsyncIterator[DoorHarness]:
    """`changes` are of ServerConfig. When it ends, the door has no connection left."""
    settings = {"zookeeper_listen": Address(LOOPBACK, 0), **changes}
    with tempfile.TemporaryDirectory(prefix="coordsvc-door-") as directory:
        async with LocalServers(directory, 1, **settings) as servers:
            harness = DoorHarness(servers.servers[1])
            try:
                yield harness
            finally:
                await harness.close()


async def is_served(connection: ZooKeeperConnection) -> None:
    """It answers, as if nothing had happened."""
    async with asyncio.timeout(SECONDS):
        await connection.get_children("/")


def limits(**changes: int) -> LimitsConfig:
    return replace(MANY_OPENINGS, **changes)
