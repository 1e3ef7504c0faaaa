"""A ZooKeeper ensemble of three servers on this machine, to measure beside ours.

Maven fetches it into `.bench/zookeeper` when it is first needed, as `zookeeper/pom.xml` says; Java
(a JDK) compiles the client that writes. Its settings are those of the sample configuration that
ZooKeeper ships, but that the connections of an address are not limited, and that `mntr` is
answered; its data is synced as by default.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.failover_ensembles import READY_SECONDS
from coordsvc.testing.cluster import ClusterError, wait_for
from coordsvc.testing.namespaces import Network
from coordsvc.testing.ports import free_port

SOURCES = Path(__file__).resolve().parent / "zookeeper"
FETCHED = SOURCES.parents[1] / ".bench" / "zookeeper"
ASK_SECONDS = 2.0
LOG_TAIL_BYTES = 4_000

IDS = (1, 2, 3)
HEAP_MB = 512


@dataclass(frozen=True, slots=True)
class ZooKeeperSettings:
    """A leader that has heard no majority for `sync_limit` ticks, and a follower that has heard no
    leader for so long, give up."""

    tick_ms: int = 2_000
    init_limit: int = 10
    sync_limit: int = 5

    def __str__(self) -> str:
        limits = f"initLimit {self.init_limit}, syncLimit {self.sync_limit}"
        return f"tickTime {self.tick_ms} ms, {limits}, heap {HEAP_MB} MB"


@dataclass(frozen=True, slots=True)
class _Server:
    server_id: int
    host: str
    client_port: int
    peer_port: int
    election_port: int
    directory: Path


def why_not() -> str:
    """Why ZooKeeper cannot be run here; empty: it can."""
    tools = ("mvn", "java", "javac", "setpriv")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def prepare() -> None:
    """Fetch what is not there yet, and compile."""
    FETCHED.mkdir(parents=True, exist_ok=True)
    fetched_for = FETCHED / "pom.xml"
    pom = (SOURCES / "pom.xml").read_text()
    if not fetched_for.exists() or fetched_for.read_text() != pom:
        shutil.rmtree(FETCHED / "lib", ignore_errors=True)
        command = [
            "mvn",
            "-q",
            "-B",
            "-f",
            str(SOURCES / "pom.xml"),
            "dependency:copy-dependencies",
        ]
        _run([*command, f"-DoutputDirectory={FETCHED / 'lib'}", "-DincludeScope=runtime"])
        # The mark of all being there.
        fetched_for.write_text(pom)
    _run(["javac", "-cp", _class_path(), "-d", str(FETCHED), str(SOURCES / "Writer.java")])


def version() -> str:
    [jar] = (FETCHED / "lib").glob("zookeeper-3*.jar")
    return jar.stem.removeprefix("zookeeper-")


class ZooKeeperEnsemble:
    name = "ZooKeeper"

    def __init__(
        self,
        directory: Path,
        network: Network | None,
        settings: ZooKeeperSettings | None = None,
    ) -> None:
        self.network = network
        self.ids: Sequence[int] = IDS
        self._settings = settings or ZooKeeperSettings()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._servers = {
            server_id: _Server(
                server_id=server_id,
                host="127.0.0.1" if network is None else network.address(server_id),
                client_port=free_port(),
                peer_port=free_port(),
                election_port=free_port(),
                directory=directory / str(server_id),
            )
            for server_id in IDS
        }
        for server in self._servers.values():
            self._configure(server)

    def _configure(self, server: _Server) -> None:
        data = server.directory / "data"
        data.mkdir(parents=True)
        (data / "myid").write_text(f"{server.server_id}\n")
        lines = [
            f"tickTime={self._settings.tick_ms}",
            f"initLimit={self._settings.init_limit}",
            f"syncLimit={self._settings.sync_limit}",
            f"dataDir={data}",
            f"clientPort={server.client_port}",
            f"clientPortAddress={server.host}",
            "maxClientCnxns=0",
            "admin.enableServer=false",
            "4lw.commands.whitelist=srvr,mntr",
            *(
                f"server.{each.server_id}={each.host}:{each.peer_port}:{each.election_port}"
                for each in self._servers.values()
            ),
        ]
        (server.directory / "zoo.cfg").write_text("\n".join(lines) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for server_id in list(self._processes):
            self.kill(server_id)

    # ---------------------------------------------------------------------------------- faults

    def start(self) -> None:
        for server_id in self.ids:
            if server_id not in self._processes:
                self._processes[server_id] = self._start(self._servers[server_id])

    def _start(self, server: _Server) -> subprocess.Popen[bytes]:
        network = [] if self.network is None else self.network.command(server.server_id)
        java = ["java", f"-Xmx{HEAP_MB}m", _logging(), "-cp", _class_path()]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        with (server.directory / "log").open("ab") as log:
            return subprocess.Popen(
                # The kernel ends it when this process dies.
                [
                    *("setpriv", "--pdeathsig", "KILL", *network),
                    *(*java, main, str(server.directory / "zoo.cfg")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self, server_id: int) -> None:
        process = self._processes.pop(server_id)
        process.kill()
        process.wait()

    def pause(self, server_id: int) -> None:
        self._processes[server_id].send_signal(signal.SIGSTOP)

    def resume(self, server_id: int) -> None:
        self._processes[server_id].send_signal(signal.SIGCONT)

    # ------------------------------------------------------------------------------- questions

    def wait_ready(self) -> None:
        def is_ready() -> bool:
            modes = sorted(self._mode(each) for each in self.ids)
            return modes == ["follower", "follower", "leader"]

        wait_for(is_ready, "all servers to serve", READY_SECONDS)

    def leader(self, among: Collection[int]) -> int:
        found: list[int] = []

        def is_found() -> bool:
            found.extend(each for each in among if self._mode(each) == "leader")
            return bool(found)

        wait_for(is_found, "a leader", READY_SECONDS)
        return found[0]

    def _mode(self, server_id: int) -> str:
        """What the server says it is; empty: it does not serve."""
        try:
            text = self._word(server_id, b"srvr")
        except OSError:
            return ""
        modes = [line for line in text.splitlines() if line.startswith("Mode: ")]
        return modes[0].removeprefix("Mode: ") if modes else ""

    def metric(self, server_id: int, name: str) -> float:
        """One of those that `mntr` tells."""
        lines = self._word(server_id, b"mntr").splitlines()
        values = dict(line.split("\t", 1) for line in lines if "\t" in line)
        if name not in values:
            raise ClusterError(f"server {server_id} has no metric {name}: {lines[:3]}")
        return float(values[name])

    def _word(self, server_id: int, word: bytes) -> str:
        """OSError: it does not answer."""
        server = self._servers[server_id]
        with socket.create_connection((server.host, server.client_port), ASK_SECONDS) as asked:
            asked.sendall(word)
            return b"".join(iter(lambda: asked.recv(65_536), b"")).decode()

    def pid(self, server_id: int) -> int:
        return self._processes[server_id].pid

    def endpoint(self, server_id: int) -> str:
        server = self._servers[server_id]
        return f"{server.host}:{server.client_port}"

    def writer_command(self) -> list[str]:
        return ["java", _logging(), "-cp", f"{FETCHED}{os.pathsep}{_class_path()}", "Writer"]

    def log_tails(self) -> str:
        parts = []
        for server in self._servers.values():
            log = server.directory / "log"
            tail = log.read_bytes()[-LOG_TAIL_BYTES:] if log.exists() else b""
            parts.append(f"--- {log}\n{tail.decode(errors='replace')}")
        return "\n".join(parts)


def _class_path() -> str:
    return str(FETCHED / "lib" / "*")


def _logging() -> str:
    return f"-Dlogback.configurationFile={SOURCES / 'logback.xml'}"


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
