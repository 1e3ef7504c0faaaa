"""The systems that are measured side by side: three servers each, every one a process, on loopback.

And what makes a figure worthless: servers that do not sync, or do not agree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from bench import etcd_server, zookeeper_server
from bench.etcd_server import EtcdCluster
from bench.failover_ensembles import READY_SECONDS
from bench.side_by_side_rows import (
    ETCD,
    ETCD_DOOR,
    STREAM_DOOR,
    UNARY_DOOR,
    ZOOKEEPER,
    ZOOKEEPER_DOOR,
)
from bench.zookeeper_server import ZooKeeperEnsemble, ZooKeeperSettings
from coordsvc import __version__
from coordsvc.testing.cluster import ClusterError, LocalCluster, wait_for

COORDSVC: Final = "coordsvc"
SETTLE_SECONDS: Final = 30.0
UNSYNCED_FILE_SYSTEMS: Final = ("tmpfs", "ramfs", "devtmpfs")
UNSYNCING_LIBRARIES: Final = ("eatmydata", "nosync")


class System(Protocol):
    """Leaving the block ends it."""

    @property
    def name(self) -> str: ...

    @property
    def description(self) -> str:
        """Its version and settings."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def start(self) -> None:
        """Returns when all serve."""

    def leader(self) -> int: ...

    def endpoints(self, door: str) -> dict[int, str]:
        """host:port, by server id."""

    def pids(self) -> dict[int, int]:
        """By server id."""

    def fsyncs(self) -> dict[int, int]:
        """How often each server has synced its log so far."""

    def check_agreement(self) -> None:
        """ClusterError: the servers hold different data. What is there apart from what the
        generator itself compared."""

    def log_tails(self) -> str: ...


class Coordsvc:
    name = COORDSVC
    description = f"coordsvc {__version__} with default settings"

    def __init__(self, directory: Path) -> None:
        self._cluster = LocalCluster(directory, zookeeper=True)
        self.log_tails = self._cluster.log_tails

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cluster.kill_all()

    def start(self) -> None:
        self._cluster.start()

    def leader(self) -> int:
        return self._cluster.wait_leader(READY_SECONDS)

    def endpoints(self, door: str) -> dict[int, str]:
        assert door in (ZOOKEEPER_DOOR, STREAM_DOOR, UNARY_DOOR), door
        replicas = self._cluster.replicas
        if door == ZOOKEEPER_DOOR:
            return {each: replica.zookeeper_endpoint for each, replica in replicas.items()}
        return {each: replica.endpoint for each, replica in replicas.items()}

    def pids(self) -> dict[int, int]:
        return {each: self._cluster.pid(each) for each in self._cluster.ids}

    def fsyncs(self) -> dict[int, int]:
        name = "coordsvc_wal_fsync_total"
        return {each: int(self._cluster.metric(each, name)) for each in self._cluster.ids}

    def check_agreement(self) -> None:
        """Digests at one zxid, which come to rest as sessions end."""
        digests: dict[int, tuple[int, int]] = {}

        def is_settled() -> bool:
            for each in self._cluster.ids:
                answer = self._cluster.digest(each)
                digests[each] = answer.zxid, answer.digest
            return len({zxid for zxid, _ in digests.values()}) == 1

        wait_for(is_settled, "all replicas to have applied the same", SETTLE_SECONDS)
        if len(set(digests.values())) > 1:
            raise ClusterError(f"the replicas' (zxid, digest) differ: {digests}")


class ZooKeeper:
    """Of its data the generator compares what it wrote, at every server."""

    name = ZOOKEEPER

    def __init__(self, directory: Path) -> None:
        if why := zookeeper_server.why_not():
            raise ClusterError(f"ZooKeeper cannot be measured: {why}")
        zookeeper_server.prepare()
        settings = ZooKeeperSettings()
        self.description = f"ZooKeeper {zookeeper_server.version()} with {settings}"
        self._ensemble = ZooKeeperEnsemble(directory, None, settings)
        self.log_tails = self._ensemble.log_tails

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ensemble.__exit__(exception_type, exception, traceback)

    def start(self) -> None:
        self._ensemble.start()
        self._ensemble.wait_ready()

    def leader(self) -> int:
        return self._ensemble.leader(self._ensemble.ids)

    def endpoints(self, door: str) -> dict[int, str]:
        assert door == ZOOKEEPER_DOOR, door
        return {each: self._ensemble.endpoint(each) for each in self._ensemble.ids}

    def pids(self) -> dict[int, int]:
        return {each: self._ensemble.pid(each) for each in self._ensemble.ids}

    def fsyncs(self) -> dict[int, int]:
        name = "zk_cnt_fsynctime"
        return {each: int(self._ensemble.metric(each, name)) for each in self._ensemble.ids}

    def check_agreement(self) -> None:
        self._ensemble.wait_ready()


class Etcd:
    name = ETCD

    def __init__(self, directory: Path) -> None:
        if why := etcd_server.why_not():
            raise ClusterError(f"etcd cannot be measured: {why}")
        etcd_server.prepare()
        self.description = f"etcd {etcd_server.version()} with default settings"
        self._cluster = EtcdCluster(directory)
        self.log_tails = self._cluster.log_tails

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cluster.__exit__(exception_type, exception, traceback)

    def start(self) -> None:
        self._cluster.start()
        self._cluster.wait_ready()

    def leader(self) -> int:
        return self._cluster.leader()

    def endpoints(self, door: str) -> dict[int, str]:
        assert door == ETCD_DOOR, door
        return {each: self._cluster.endpoint(each) for each in self._cluster.servers}

    def pids(self) -> dict[int, int]:
        return {each: self._cluster.pid(each) for each in self._cluster.servers}

    def fsyncs(self) -> dict[int, int]:
        name = etcd_server.FSYNCS
        return {each: int(self._cluster.metric(each, name)) for each in self._cluster.servers}

    def check_agreement(self) -> None:
        """Hashes of all that was ever written, at one revision."""
        hashes: dict[int, tuple[int, int]] = {}

        def is_settled() -> bool:
            hashes.update(
                {each: self._cluster.hash_at_rest(each) for each in self._cluster.servers}
            )
            return len({revision for revision, _ in hashes.values()}) == 1

        wait_for(is_settled, "all etcd servers to have applied the same", SETTLE_SECONDS)
        if len(set(hashes.values())) > 1:
            raise ClusterError(f"the etcd servers' (revision, hash) differ: {hashes}")


SYSTEMS: Final[Mapping[str, Callable[[Path], System]]] = {
    COORDSVC: Coordsvc,
    ZOOKEEPER: ZooKeeper,
    ETCD: Etcd,
}


def check_disk(directory: Path) -> None:
    """ClusterError: it is in memory, where nothing is ever synced."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [
        (len(point), kind) for point, kind in mounts if directory.resolve().is_relative_to(point)
    ]
    _, kind = max(inside)
    if kind in UNSYNCED_FILE_SYSTEMS:
        raise ClusterError(f"{directory} is in memory ({kind}): give a --directory on a disk")


def check_libraries(pids: Sequence[int]) -> None:
    """ClusterError: a server runs with a library that makes a sync do nothing."""
    for pid in pids:
        maps = Path(f"/proc/{pid}/maps").read_text()
        if found := [name for name in UNSYNCING_LIBRARIES if name in maps]:
            raise ClusterError(f"process {pid} runs with {found[0]}: its syncs do nothing")


def check_synced(fsyncs: Mapping[int, int], writes: int, in_flight: int) -> None:
    """ClusterError: there were fewer syncs than what was acknowledged needs. A majority synced each
    write after it was sent; never more than `in_flight` were under way, so no sync was of more."""
    needed = (len(fsyncs) // 2 + 1) * writes / in_flight
    if sum(fsyncs.values()) < needed:
        raise ClusterError(f"{writes:,} writes need {needed:,.0f} syncs; by server: {fsyncs}")


def cpu_seconds(pids: Mapping[int, int]) -> dict[int, float]:
    """What each has used so far, in user and system mode, all its threads."""
    return {each: _cpu_seconds(pid) for each, pid in pids.items()}


def machine_cpu_seconds() -> float:
    """What everything on the machine has used so far."""
    user, nice, system, _idle, _io_wait, irq, soft_irq, steal = map(
        int, Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
