"""Replicas with their gRPC doors in one process, on the running loop, each with a real directory.

For tests that want the whole way of a request and a hand on each replica, without processes.
"""

from __future__ import annotations

import asyncio
import os
from types import TracebackType

from coordsvc.core.machine import Machine
from coordsvc.raft.hooks import Hooks
from coordsvc.raft.replica import Replica
from coordsvc.server.addresses import Address
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.serve import replica_settings
from coordsvc.server.server import Server
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.executor import ThreadExecutor
from coordsvc.storage.files import FileSystem
from coordsvc.storage.wal import Wal
from coordsvc.testing.ports import free_port

LOOPBACK = "127.0.0.1"
READY_SECONDS = 20.0
SEGMENT_BYTES = 1 << 20
"""Small: a test writes little, and three logs are made for each."""


class LocalServer:
    """One replica. `failure` is what ended it, if anything did."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.failure: BaseException | None = None
        files, loop = FileSystem(), asyncio.get_running_loop()
        self._data_dir = DataDir.open(
            config.data_dir, config.replica_id, files, members=config.peers
        )
        self._executor = ThreadExecutor(loop)
        self.wal = Wal.open(
            self._data_dir.wal_path,
            files=files,
            executor=self._executor,
            identity=self._data_dir.uuid,
            replica_id=config.replica_id,
            cluster_id=self._data_dir.cluster_id,
            synced_lsn=self._data_dir.synced_lsn,
            segment_bytes=SEGMENT_BYTES,
            on_synced=lambda lsn: self.replica.on_synced(lsn),
            on_failed=lambda error: self.replica.on_wal_failed(error),
        )
        settings = replica_settings(config)
        self.replica: Replica = Replica(
            settings,
            Machine(),
            self.wal,
            uuid=self._data_dir.uuid,
            cluster_id=self._data_dir.cluster_id,
            loop=loop,
            hooks=Hooks(
                on_applied=lambda applied: self.server.on_applied(applied),
                on_leading=lambda term: self.server.on_leading(term),
                on_not_leading=lambda: self.server.on_not_leading(),
                on_cluster_id=self._data_dir.set_cluster_id,
                on_fatal=self._on_fatal,
            ),
        )
        self.server: Server = Server(
            config, self.replica, election_timeout_s=settings.election_timeout_s_min
        )

    def _on_fatal(self, error: BaseException) -> None:
        self.failure = error

    @property
    def endpoint(self) -> str:
        return str(self.server.address)

    async def start(self) -> None:
        await self.server.start()
        await self.replica.start()

    async def stop(self) -> None:
        self.server.begin_stop()
        await self.replica.stop(hand_over=False)
        await self.server.stop(grace_s=0)
        if self.failure is None:
            closed = asyncio.Event()
            self.wal.close(closed.set)
            await closed.wait()
        self._executor.close(timeout_seconds=5)
        self._data_dir.set_synced_lsn(self.wal.synced_lsn)
        self._data_dir.close()


class LocalServers:
    """`async with LocalServers(directory, 3) as servers:` gives them ready to serve."""

    def __init__(self, directory: str, replicas: int) -> None:
        self._directory = directory
        ids = range(1, replicas + 1)
        self._peers = {i: Address(LOOPBACK, free_port()) for i in ids} if replicas > 1 else {}
        self._ids = tuple(ids)
        self.servers: dict[int, LocalServer] = {}

    async def __aenter__(self) -> LocalServers:
        for replica_id in self._ids:
            config = ServerConfig(
                replica_id=replica_id,
                data_dir=os.path.join(self._directory, str(replica_id)),
                listen=Address(LOOPBACK, 0),
                peers=self._peers,
            )
            self.servers[replica_id] = LocalServer(config)
            await self.servers[replica_id].start()
        async with asyncio.timeout(READY_SECONDS):
            for server in self.servers.values():
                await server.server.wait_ready()
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
        leading = [server for server in self.servers.values() if server.replica.is_leader]
        return max(leading, key=lambda server: server.replica.term, default=None)

    async def wait_leader(self, *, other_than: int = 0) -> LocalServer:
        async with asyncio.timeout(READY_SECONDS):
            while (leader := self.leader) is None or leader.replica.replica_id == other_than:
                await asyncio.sleep(0.005)
        return leader
