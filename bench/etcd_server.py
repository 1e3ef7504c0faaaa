"""An etcd cluster of three servers on this machine, to measure beside ours.

Go fetches its modules and builds it into `.bench/etcd`, as `etcd/go.mod` says. Its settings are the
defaults; given are only its name, its addresses and its data directory. So it syncs its log before
it acknowledges, and keeps a history of all that was written, which nothing compacts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bench.failover_ensembles import READY_SECONDS
from bench.go_programs import ETCD_PROGRAM
from coordsvc.testing.cluster import ClusterError, wait_for
from coordsvc.testing.ports import free_port

IDS: Final = (1, 2, 3)
ASK_SECONDS: Final = 5.0
HASH_SECONDS: Final = 60.0
"""A server goes through all its history for it."""

LOG_TAIL_BYTES: Final = 4_000
FSYNCS: Final = "etcd_disk_wal_fsync_duration_seconds_count"
IS_LEADER: Final = "etcd_server_is_leader"

prepare = ETCD_PROGRAM.prepare


@dataclass(frozen=True, slots=True)
class Server:
    server_id: int
    client_port: int
    peer_port: int
    directory: Path

    @property
    def name(self) -> str:
        return f"etcd{self.server_id}"

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def log(self) -> Path:
        return self.directory / "log"


def why_not() -> str:
    """Why etcd cannot be run here; empty: it can."""
    if shutil.which("setpriv") is None:
        return "not installed: setpriv"
    return ETCD_PROGRAM.why_not()


def version() -> str:
    command = [str(ETCD_PROGRAM.file), "--version"]
    first, *_ = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return first.removeprefix("etcd Version: ")


def arguments(server: Server, servers: Sequence[Server]) -> list[str]:
    """What a server is told."""
    client_url = f"http://{server.endpoint}"
    return [
        f"--name={server.name}",
        f"--data-dir={server.directory / 'data'}",
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={server.peer_url}",
        f"--initial-advertise-peer-urls={server.peer_url}",
        f"--initial-cluster={','.join(f'{each.name}={each.peer_url}' for each in servers)}",
    ]


def environment() -> dict[str, str]:
    """Without what etcd would take its settings from."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}


def metric_in(page: str, name: str) -> float:
    """A metric without labels. ClusterError: it is not there."""
    for line in page.splitlines():
        if line.startswith(f"{name} "):
            return float(line.rsplit(" ", 1)[1])
    raise ClusterError(f"etcd has no metric {name}")


class EtcdCluster:
    """Leaving the block ends it."""

    def __init__(self, directory: Path) -> None:
        self.servers: Mapping[int, Server] = {
            server_id: Server(server_id, free_port(), free_port(), directory / str(server_id))
            for server_id in IDS
        }
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()

    def start(self) -> None:
        """`wait_ready` waits for them."""
        for server_id, server in self.servers.items():
            if server_id not in self._processes:
                self._processes[server_id] = self._start(server)

    def _start(self, server: Server) -> subprocess.Popen[bytes]:
        server.directory.mkdir(parents=True, exist_ok=True)
        with server.log.open("ab") as log:
            return subprocess.Popen(
                # The kernel ends it when this process dies.
                [
                    *("setpriv", "--pdeathsig", "KILL", str(ETCD_PROGRAM.file)),
                    *arguments(server, list(self.servers.values())),
                ],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    # ------------------------------------------------------------------------------- questions

    def wait_ready(self) -> None:
        """Until all serve, and one of them leads."""

        def is_ready() -> bool:
            for server_id, process in self._processes.items():
                if process.poll() is not None:
                    raise ClusterError(f"etcd {server_id} ended early\n{self.log_tails()}")
            return all(map(self._is_healthy, self.servers)) and len(self._leaders()) == 1

        wait_for(is_ready, "all servers to serve", READY_SECONDS)

    def leader(self) -> int:
        """Waits for one."""
        found: list[int] = []

        def is_found() -> bool:
            found[:] = self._leaders()
            return len(found) == 1

        wait_for(is_found, "a leader", READY_SECONDS)
        return found[0]

    def _leaders(self) -> list[int]:
        """Those that say so; none while any does not answer."""
        try:
            return [each for each in self.servers if self.metric(each, IS_LEADER)]
        except OSError:
            return []

    def _is_healthy(self, server_id: int) -> bool:
        """It knows a leader, and reads through the quorum."""
        try:
            return bool(json.loads(self._page(server_id, "/health"))["health"] == "true")
        except OSError:
            return False

    def metric(self, server_id: int, name: str) -> float:
        """OSError: it does not answer."""
        return metric_in(self._page(server_id, "/metrics"), name)

    def hash_at_rest(self, server_id: int) -> tuple[int, int]:
        """(revision, hash of all keys and their history up to it)"""
        answer: dict[str, Any] = json.loads(
            self._page(server_id, "/v3/maintenance/hashkv", b"{}", HASH_SECONDS)
        )
        return int(answer["header"]["revision"]), int(answer["hash"])

    def _page(
        self,
        server_id: int,
        path: str,
        data: bytes | None = None,
        timeout_seconds: float = ASK_SECONDS,
    ) -> str:
        """OSError: it does not answer, or not with success."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = f"http://{self.servers[server_id].endpoint}{path}"
        with opener.open(url, data, timeout_seconds) as response:
            text: str = response.read().decode()
            return text

    def pid(self, server_id: int) -> int:
        return self._processes[server_id].pid

    def endpoint(self, server_id: int) -> str:
        return self.servers[server_id].endpoint

    def log_tails(self) -> str:
        parts = []
        for server in self.servers.values():
            tail = server.log.read_bytes()[-LOG_TAIL_BYTES:] if server.log.exists() else b""
            parts.append(f"--- {server.log}\n{tail.decode(errors='replace')}")
        return "\n".join(parts)
