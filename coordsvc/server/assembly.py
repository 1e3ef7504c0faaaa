"""One replica put together: what is on its disk, its part in consensus, and the server around it.

`host.py` does so, and again when a snapshot has replaced what is on disk. The data directory is the
host's, and stays locked.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from grpc import aio

from coordsvc.core.commands import AppliedEntry
from coordsvc.core.machine import ChangeFeed
from coordsvc.raft.hooks import Hooks
from coordsvc.raft.replica import NetworkMaker, Replica
from coordsvc.raft.replica_types import ReplicaStatistics, SnapshotPort
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.raft.transport import PeerNetwork
from coordsvc.server.checkpoints import Checkpointer, CheckpointStatistics, Pace, ReplicaSource
from coordsvc.server.client_tls import ClientTls, client_tls
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.disk_space import DiskSpace
from coordsvc.server.health import disk_fault
from coordsvc.server.measurements import Measurements
from coordsvc.server.peer_tls import PeerTls, peer_tls
from coordsvc.server.server import Server
from coordsvc.storage.checkpoint_check import CheckCheckpoint, check_checkpoint
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.executor import ThreadExecutor, TimedExecutor
from coordsvc.storage.files import Files, FileSystem
from coordsvc.storage.snapshots import IncomingSnapshot, OutgoingSnapshots
from coordsvc.storage.start import StorageOpened, open_storage
from coordsvc.storage.wal import SEGMENT_BYTES, WalStatistics

logger = logging.getLogger(__name__)

DRAIN_SECONDS_MAX = 0.5
"""For writes proposed before the stop, while this replica still leads."""

HAND_OVER_SECONDS_MAX = 1.0
LATE_DRAIN_SECONDS_MAX = 0.5
"""For what the hand-over held up."""

STREAMS_SECONDS_MAX = 0.5
EXECUTOR_SECONDS_MAX = 0.5
FULL_COLLECTION_EACH = 100
"""Collections of the middle generation between two of everything: some 700,000 new objects, where
Python's own 10 make it 70,000. A full one stops the loop for about half a second when thousands of
streams are open, and finds little: the most are some thirty objects of each connection that lived
long and ended."""


@dataclass(frozen=True)
class Tls:
    """For other replicas, for clients; None: without. Their files are watched between `start` and
    `stop`. Raises CertificateFilesError when they cannot be used."""

    peer: PeerTls | None = None
    client: ClientTls | None = None

    @classmethod
    def load(cls, config: ServerConfig) -> Tls:
        return cls(peer_tls(config), client_tls(config))

    def start(self) -> None:
        for part in (self.peer, self.client):
            if part is not None:
                part.start()

    def stop(self) -> None:
        for part in (self.peer, self.client):
            if part is not None:
                part.stop()


@dataclass(frozen=True)
class Parts:
    """What connects a replica with the machine it runs on; a simulation has its own."""

    executor: Callable[[asyncio.AbstractEventLoop, str], TimedExecutor] = ThreadExecutor
    network: NetworkMaker = PeerNetwork
    grpc_server: Callable[[], aio.Server] | None = None
    disk_space: type[DiskSpace] = DiskSpace
    check_checkpoint: CheckCheckpoint = check_checkpoint


@dataclass(frozen=True)
class Surroundings:
    """What a replica is given by those who run it, and what it tells them. `on_fatal` ends it."""

    on_fatal: Callable[[BaseException], None]
    measurements: Measurements = field(default_factory=Measurements)
    tls: Tls = field(default_factory=Tls)
    files: Files = field(default_factory=FileSystem)
    segment_bytes: int = SEGMENT_BYTES
    on_applied: Callable[[Replica, AppliedEntry], None] | None = None
    """Sees every entry before the server does; for tests."""
    parts: Parts = field(default_factory=Parts)


class Assembly:
    """`open`, `listen`, `start`; then `stop`, or `discard` when there is no time for courtesies.
    `on_installed()`: a snapshot has replaced what is on disk; discard this one and make another."""

    replica: Replica
    server: Server
    checkpointer: Checkpointer
    storage: StorageOpened

    def __init__(
        self,
        config: ServerConfig,
        data_dir: DataDir,
        surroundings: Surroundings,
        on_installed: Callable[[], None],
    ) -> None:
        self.config = config
        self._on_installed = on_installed
        self._data_dir = data_dir
        self._around = surroundings
        loop = asyncio.get_running_loop()
        self._loop = loop
        make_executor = surroundings.parts.executor
        self._wal_executor = make_executor(loop, "wal")
        self._checkpoint_executor = make_executor(loop, "checkpoint")

    # --------------------------------------------------------------------------------------- start

    async def open(self) -> None:
        """Read what is on disk, in a thread: the loop goes on answering /livez. Raises
        StorageError."""
        self.storage = await asyncio.to_thread(self._open_storage)
        self._log_opened()
        feed = await asyncio.to_thread(self._feed)
        self._build(feed)
        # What was loaded lives on: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], FULL_COLLECTION_EACH)

    def _open_storage(self) -> StorageOpened:
        return open_storage(
            self._data_dir,
            self._around.files,
            self._wal_executor,
            on_synced=self._on_synced,
            on_failed=self._on_wal_failed,
            segment_bytes=self._around.segment_bytes,
            check=self._around.parts.check_checkpoint,
        )

    def _log_opened(self) -> None:
        recovered, info = self.storage.wal.recovered, self.storage.info
        entries = len(recovered.entries)
        logger.info(
            "wal.recovered",
            extra={
                "entries": entries,
                "is_new": recovered.is_new,
                "term": recovered.term,
                "checkpoint_index": info.index,
                "checkpoint_zxid": info.zxid,
            },
        )
        if recovered.ambiguous_cut:
            logger.warning("wal.cut", extra={"entries": entries})

    def _feed(self) -> ChangeFeed:
        """An empty store needs everything, also what every tree has from the beginning."""
        is_empty = self.storage.store.info is None
        return self.storage.machine.observe_changes(everything=is_empty)

    def _on_synced(self, lsn: int) -> None:
        self.replica.on_synced(lsn)

    def _on_wal_failed(self, error: BaseException) -> None:
        self.replica.on_wal_failed(error)

    def _build(self, feed: ChangeFeed) -> None:
        config, around, opened = self.config, self._around, self.storage
        settings = replica_settings(config, around.tls.peer)
        tail = sum(len(payload) for payload, index, _ in opened.wal.recovered.entries
                   if index > opened.info.index)  # fmt: skip
        self.replica = Replica(
            settings,
            opened.machine,
            opened.wal,
            uuid=self._data_dir.uuid,
            cluster_id=self._data_dir.cluster_id,
            applied=(opened.info.index, opened.info.term),
            snapshots=self._snapshots(),
            loop=self._loop,
            hooks=self._hooks(),
            make_network=around.parts.network,
        )
        self.server = Server(
            config,
            self.replica,
            election_timeout_s=settings.election_timeout_s_min,
            tls=around.tls.client,
            measurements=around.measurements,
            disk_fault=self._disk_fault,
            is_log_low=lambda: self.storage.wal.statistics().is_space_low,
            make_grpc_server=around.parts.grpc_server,
            disk_space=around.parts.disk_space,
        )
        self.server.admission.limits.measure(
            "write_bytes_waiting", lambda: self.replica.statistics().write_bytes_waiting
        )
        self._build_checkpointer(settings, feed, tail)

    def _build_checkpointer(self, settings: ReplicaSettings, feed: ChangeFeed, tail: int) -> None:
        opened, members = self.storage, settings.member_ids
        monotonic = self.replica.clock.monotonic
        pace = Pace(
            self.config.storage,
            rank=members.index(settings.replica_id),
            replicas=len(members),
            now=monotonic(),
            index=opened.info.index,
            log_bytes=self._log_bytes() - tail,
        )
        self.checkpointer = Checkpointer(
            ReplicaSource(self.replica),
            opened.store,
            feed,
            self._checkpoint_executor,
            pace,
            info=opened.info,
            log_bytes=self._log_bytes,
            monotonic=monotonic,
            on_failed=self._around.on_fatal,
            seconds=self._around.measurements.checkpoint_seconds,
        )

    def _snapshots(self) -> SnapshotPort:
        """In the thread that writes the checkpoints: what they touch is one file."""
        around, opened, path = self._around, self.storage, self._data_dir.path
        executor = self._checkpoint_executor
        return SnapshotPort(
            OutgoingSnapshots(path, opened.store, around.files, executor, around.on_fatal),
            IncomingSnapshot(
                path,
                opened.store,
                opened.wal,
                around.files,
                executor,
                around.on_fatal,
                cluster_id=lambda: self._data_dir.cluster_id,
                check=around.parts.check_checkpoint,
            ),
        )

    def _hooks(self) -> Hooks:
        return Hooks(
            on_applied=self._on_applied,
            on_decided=self._around.measurements.commit_seconds.observe,
            on_leading=lambda term: self.server.on_leading(term),
            on_not_leading=lambda: self.server.on_not_leading(),
            on_cluster_id=self._data_dir.set_cluster_id,
            on_installed=self._on_installed,
            on_fatal=self._around.on_fatal,
        )

    def _on_applied(self, applied: AppliedEntry) -> None:
        if self._around.on_applied is not None:
            self._around.on_applied(self.replica, applied)
        self.server.on_applied(applied)

    def _log_bytes(self) -> int:
        return self.storage.wal.statistics().bytes_written_total

    async def listen(self) -> None:
        """Take the ports. Raises OSError; `server.address` and `config.peer_address` say which."""
        await self.replica.listen()
        await self.server.start()

    async def start(self) -> None:
        """Take part."""
        await self.replica.start()
        self.checkpointer.start()

    # --------------------------------------------------------------------------------------- facts

    def _disk_fault(self) -> str:
        return disk_fault(self.wal_statistics(), self.replica.clock.monotonic())

    def replica_statistics(self) -> ReplicaStatistics:
        return self.replica.statistics()

    def wal_statistics(self) -> WalStatistics:
        return self.storage.wal.statistics()

    def checkpoint_statistics(self) -> CheckpointStatistics:
        return self.checkpointer.statistics()

    # ---------------------------------------------------------------------------------------- stop

    async def stop(self, *, hand_over: bool = True) -> None:
        """Finish what was taken, hand leadership over, end the streams, close. Their sessions live
        on: clients go to another replica with them."""
        server, replica = self.server, self.replica
        self.checkpointer.stop()
        server.begin_stop()
        await server.drain_writes(DRAIN_SECONDS_MAX)
        # Without a majority there is nobody to hand over to, and waiting would be in vain.
        if hand_over and server.pipeline.has_quorum:
            await self._hand_over()
        server.begin_end_streams(STREAMS_SECONDS_MAX)
        await server.drain_writes(LATE_DRAIN_SECONDS_MAX)
        await replica.stop(hand_over=False, drain_s=0.0)
        await server.end_streams(STREAMS_SECONDS_MAX)
        await server.stop()
        await self._close_storage()

    async def _hand_over(self) -> None:
        try:
            async with asyncio.timeout(HAND_OVER_SECONDS_MAX):
                await self.replica.hand_over()
        except TimeoutError:
            logger.warning("process.not_handed_over", extra={"seconds": HAND_OVER_SECONDS_MAX})

    async def discard(self) -> None:
        """Close at once: what is on disk is another state now. Streams and calls end with
        UNAVAILABLE, and clients go on at another replica, or at this one when it is back."""
        server = self.server
        self.checkpointer.stop()
        server.begin_stop()
        server.begin_end_streams(STREAMS_SECONDS_MAX)
        await self.replica.stop(hand_over=False, drain_s=0.0)
        await server.end_streams(STREAMS_SECONDS_MAX)
        await server.stop()
        await self._close_storage(is_patient=True)

    async def _close_storage(self, *, is_patient: bool = False) -> None:
        """`is_patient`: everything must be closed, because it will be opened again."""
        closed = asyncio.Event()
        wal = self.storage.wal
        wal.close(closed.set)
        await closed.wait()
        for executor in (self._wal_executor, self._checkpoint_executor):
            seconds = 3600.0 if is_patient else EXECUTOR_SECONDS_MAX
            ended = await asyncio.to_thread(executor.close, seconds)
            if executor is self._checkpoint_executor and ended:
                # Closed under a thread that still writes, LMDB would crash.
                self.storage.store.close()
        await asyncio.to_thread(self._data_dir.set_synced_lsn, wal.synced_lsn)


def replica_settings(config: ServerConfig, tls: PeerTls | None) -> ReplicaSettings:
    peers = {i: (address.host, address.port) for i, address in config.peers.items()}
    listen = config.peer_address
    return ReplicaSettings(
        replica_id=config.replica_id,
        peers=peers,
        peer_listen=(listen.host, listen.port) if listen is not None else None,
        peer_ssl_server=tls.accepting if tls is not None else None,
        peer_ssl_client=tls.dialling if tls is not None else None,
        tick_s=config.cluster.tick_ms / 1000,
        origin_bytes_max=config.limits.write_bytes_waiting_max,
        log_keep_bytes=config.storage.log_keep_bytes,
        log_bytes_max=config.storage.log_bytes_max,
        snapshot_bytes_per_s=config.storage.snapshot_bytes_per_s,
    )
