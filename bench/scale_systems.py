"""The systems of `scale`: as those of `side_by_side`, but their servers die and come back one by
one, and tell of their memory, checkpoints and sessions.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bench import zookeeper_server
from bench.side_by_side_rows import ZOOKEEPER, ZOOKEEPER_DOOR
from bench.side_by_side_systems import (
    COORDSVC,
    SETTLE_SECONDS,
    Coordsvc,
    System,
    ZooKeeper,
)
from bench.zookeeper_server import ZooKeeperEnsemble, ZooKeeperSettings
from coordsvc.testing.cluster import ClusterError, LocalCluster

TOOL_SECONDS: Final = 120.0
"""For a tool of the JDK that stops a server to look at its heap."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one server. `anonymous`: without what it maps of files, which the kernel may take
    back. `heap`: of a JVM, what its last collection left; 0: it is none."""

    resident: int
    anonymous: int
    heap: int = 0


class ScaleSystem(System, Protocol):
    def stream_endpoints(self) -> list[str]:
        """Of gRPC Session streams; empty: it has none."""

    def kill(self, server_id: int) -> None:
        """kill -9; returns when the process is gone."""

    def start_again(self, server_id: int) -> None:
        """One that was killed. Does not wait for it."""

    def wait_ready(self) -> None:
        """Until all serve, one of them as the leader."""

    def memory(self, server_id: int) -> Memory:
        """After a collection of all garbage, where it can be asked for."""

    def checkpoints(self, server_id: int) -> int:
        """How many it has completed since it was started."""

    def sessions(self, server_id: int) -> int:
        """Of the whole cluster, as this server knows."""

    def expired(self, server_id: int) -> int:
        """Sessions that ended without being closed, as far as this server knows."""


class ScaleCoordsvc(Coordsvc):
    """`heap_mb` is of no meaning to it."""

    def __init__(self, directory: Path, heap_mb: int) -> None:
        super().__init__(directory)
        self._local: LocalCluster = self._cluster

    def stream_endpoints(self) -> list[str]:
        return list(self._local.endpoints)

    def kill(self, server_id: int) -> None:
        self._local.kill(server_id)

    def start_again(self, server_id: int) -> None:
        self._local.start_replica(server_id)

    def wait_ready(self) -> None:
        self._local.wait_ready(SETTLE_SECONDS)

    def memory(self, server_id: int) -> Memory:
        return process_memory(self._local.pid(server_id))

    def checkpoints(self, server_id: int) -> int:
        return int(self._local.metric(server_id, "coordsvc_checkpoint_seconds_count"))

    def sessions(self, server_id: int) -> int:
        return int(self._local.metric(server_id, "coordsvc_sessions"))

    def expired(self, server_id: int) -> int:
        return int(self._local.metric(server_id, "coordsvc_sessions_expired_total"))


class ScaleEnsemble(ZooKeeperEnsemble):
    """With a heap of `heap_mb`. Its servers start one by one."""

    def __init__(self, directory: Path, heap_mb: int) -> None:
        super().__init__(directory, None, ZooKeeperSettings())
        self._heap_mb = heap_mb

    def start_again(self, server_id: int) -> None:
        self._processes[server_id] = self._start(self._servers[server_id])

    def _start(self, server: zookeeper_server._Server) -> subprocess.Popen[bytes]:
        java = ["java", f"-Xmx{self._heap_mb}m", zookeeper_server._logging()]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        with (server.directory / "log").open("ab") as log:
            return subprocess.Popen(
                # The kernel ends it when this process dies.
                [
                    *("setpriv", "--pdeathsig", "KILL", *java, "-cp"),
                    *(zookeeper_server._class_path(), main, str(server.directory / "zoo.cfg")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )


class ScaleZooKeeper(ZooKeeper):
    def __init__(self, directory: Path, heap_mb: int) -> None:
        super().__init__(directory / "unused")
        self._scale = ScaleEnsemble(directory / "servers", heap_mb)
        self._ensemble = self._scale
        self.log_tails = self._scale.log_tails
        default = f"heap {zookeeper_server.HEAP_MB} MB"
        self.description = self.description.replace(default, f"heap {heap_mb} MB")

    def stream_endpoints(self) -> list[str]:
        return []

    def kill(self, server_id: int) -> None:
        self._scale.kill(server_id)

    def start_again(self, server_id: int) -> None:
        self._scale.start_again(server_id)

    def wait_ready(self) -> None:
        self._scale.wait_ready()

    def memory(self, server_id: int) -> Memory:
        """After a full collection, which gives what is free back to the machine."""
        pid = self._scale.pid(server_id)
        _jcmd(pid, "GC.run")
        seen = process_memory(pid)
        return Memory(seen.resident, seen.anonymous, heap_used(_jcmd(pid, "GC.heap_info")))

    def checkpoints(self, server_id: int) -> int:
        return int(self._scale.metric(server_id, "zk_cnt_snapshottime"))

    def sessions(self, server_id: int) -> int:
        return int(self._scale.metric(server_id, "zk_global_sessions"))

    def expired(self, server_id: int) -> int:
        """What the leader let expire; followers tell 0."""
        return int(self._scale.metric(server_id, "zk_stale_sessions_expired"))


SCALE_SYSTEMS: Final[Mapping[str, Callable[[Path, int], ScaleSystem]]] = {
    COORDSVC: ScaleCoordsvc,
    ZOOKEEPER: ScaleZooKeeper,
}


def zookeeper_endpoints(system: System) -> dict[int, str]:
    return system.endpoints(ZOOKEEPER_DOOR)


def process_memory(pid: int) -> Memory:
    return memory_of(Path(f"/proc/{pid}/status").read_text())


def memory_of(status: str) -> Memory:
    """From what the kernel says of a process."""
    found = dict(re.findall(r"^(VmRSS|RssAnon):\s+(\d+) kB$", status, re.MULTILINE))
    return Memory(1024 * int(found["VmRSS"]), 1024 * int(found["RssAnon"]))


def heap_used(info: str) -> int:
    """From what `jcmd GC.heap_info` says, in bytes."""
    found = re.search(r"\bused (\d+)K", info)
    if found is None:
        raise ClusterError(f"no heap in {info!r}")
    return 1024 * int(found[1])


def _jcmd(pid: int, command: str) -> str:
    done = subprocess.run(
        ["jcmd", str(pid), command], capture_output=True, text=True, timeout=TOOL_SECONDS
    )
    if done.returncode:
        raise ClusterError(f"jcmd {command}: {done.stdout}{done.stderr}")
    return done.stdout
