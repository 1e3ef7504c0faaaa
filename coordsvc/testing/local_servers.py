"""Replicas with their gRPC doors in one process, on the running loop, each with a real directory.

For tests that want the whole way of a request and a hand on each replica, without processes.
"""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import Any

from coordsvc.raft.replica import Replica
from coordsvc.server.addresses import Address
from coordsvc.server.assembly import Assembly, Surroundings, Tls
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.host import ReplicaHost
from coordsvc.server.server import Server
from coordsvc.storage.wal import Wal
from coordsvc.testing.ports import free_port

LOOPBACK = "127.0.0.1"
READY_SECONDS = 20.0
SEGMENT_BYTES = 1 << 20
"""Small: a test writes little, and three logs are made for each."""


class LocalServer:
    """One replica. `failure` is what ended it, if anything did. When a snapshot replaces its state,
    `replica` and `server` are others from then on."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.failure: BaseException | None = None
        self._tls = Tls.load(config)
        self.host = ReplicaHost(
            config,
            Surroundings(self._on_fatal, tls=self._tls, segment_bytes=SEGMENT_BYTES),
        )

    def _on_fatal(self, error: BaseException) -> None:
        self.failure = error

    @property
    def assembly(self) -> Assembly:
        assert self.host.assembly is not None, "it is not there: not started, or being rebuilt"
        return self.host.assembly

    @property
    def replica(self) -> Replica:
        return self.assembly.replica

    @property
    def server(self) -> Server:
        return self.assembly.server

    @property
    def wal(self) -> Wal:
        return self.assembly.storage.wal

    @property
    def endpoint(self) -> str:
        return str(self.server.address)

    @property
    def zookeeper_endpoint(self) -> str:
        """What its ZooKeeper clients dial, where `zookeeper_listen` is given."""
        address = self.host.config.zookeeper_listen
        assert address is not None and address.port, "it does not serve ZooKeeper's clients"
        return str(address)

    async def start(self) -> None:
        await self.host.open()
        await self.host.listen()
        await self.host.listen_zookeeper()
        await self.host.start()

    async def wait_ready(self) -> None:
        await self.host.wait_ready()

    async def stop(self) -> None:
        if self.host.assembly is not None or self.host.is_rebuilding:
            await self.host.stop(hand_over=False)


class LocalServers:
    """`async with LocalServers(directory, 3) as servers:` gives them ready to serve. `changes` are
    of ServerConfig; with `zookeeper_listen=Address(LOOPBACK, 0)` each serves ZooKeeper's clients on
    a port of its own."""

    def __init__(self, directory: str, replicas: int, **changes: Any) -> None:
        self._directory = directory
        self._changes = changes
        ids = range(1, replicas + 1)
        self._peers = {i: Address(LOOPBACK, free_port()) for i in ids} if replicas > 1 else {}
        self._ids = tuple(ids)
        self.servers: dict[int, LocalServer] = {}

    def make(self, replica_id: int) -> LocalServer:
        """The replica, not started."""
        config = ServerConfig(
            replica_id=replica_id,
            data_dir=os.path.join(self._directory, str(replica_id)),
            listen=Address(LOOPBACK, 0),
            peers=self._peers,
            **self._changes,
        )
        self.servers[replica_id] = LocalServer(config)
        return self.servers[replica_id]

    async def __aenter__(self) -> LocalServers:
        for replica_id in self._ids:
            await self.make(replica_id).start()
        async with asyncio.timeout(READY_SECONDS):
            for server in self.servers.values():
                await server.wait_ready()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server in self.servers.values():
            await server.stop()
        failures = [server.failure for server in self.servers.values() if server.failure]
        assert not failures, f"replicas failed: {failures}"

    @property
    def leader(self) -> LocalServer | None:
        """The one that leads in the highest term, as far as it knows."""
        leading = [
            server
            for server in self.servers.values()
            if server.host.assembly is not None and server.replica.is_leader
        ]
        return max(leading, key=lambda server: server.replica.term, default=None)

    async def wait_leader(self, *, other_than: int = 0) -> LocalServer:
        async with asyncio.timeout(READY_SECONDS):
            while (leader := self.leader) is None or leader.replica.replica_id == other_than:
                await asyncio.sleep(0.005)
        return leader
