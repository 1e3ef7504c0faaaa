"""A cluster of real replicas for tests: processes of their own on 127.0.0.1, killed and paused as
real ones are.

    with LocalCluster(tmp_path) as cluster:
        cluster.start()
        ... cluster.endpoints ...
        cluster.kill(cluster.wait_leader())

The replicas' output goes to files below `logs`. Nothing survives: leaving the block kills what
still runs, and a child ends by itself when its parent dies. Blocking, so call it from a thread
other than that of an event loop whose turns matter; start replicas from a thread that outlives
them (see `coordsvc.cli._child`).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from coordsvc.cli.local_layout import (
    LocalReplica,
    endpoints_text,
    serve_arguments,
    zookeeper_hosts,
)
from coordsvc.client.channels import channel_options
from coordsvc.client.methods import DIGEST, STATUS, Method, RequestT, ResponseT
from coordsvc.client.options import ClientConfig, TlsOptions
from coordsvc.client.tls import channel_credentials
from coordsvc.testing.ports import free_port
from coordsvc.v1 import cluster_pb2

POLL_SECONDS = 0.02
READY_SECONDS = 15.0
STOP_SECONDS = 8.0
CALL_SECONDS = 2.0
LOG_TAIL_BYTES = 4_000


class ClusterError(Exception):
    """The cluster is not as the test needs it; with the end of the logs."""


class LocalCluster:
    """`environments` are added to the replicas' own environment, by replica id; `limits` are
    resource limits set on their processes (such as {2: {resource.RLIMIT_NOFILE: 512}}). `tls` is
    how this class itself asks them. `settings` are configuration keys of all of them, by flat name
    (such as {"checkpoint_interval_s": 1}). With `zookeeper` they serve ZooKeeper's clients, too."""

    def __init__(
        self,
        directory: Path,
        size: int = 3,
        *,
        environments: Mapping[int, Mapping[str, str]] | None = None,
        limits: Mapping[int, Mapping[int, int]] | None = None,
        extra_arguments: Sequence[str] = (),
        tls: TlsOptions | None = None,
        settings: Mapping[str, object] | None = None,
        zookeeper: bool = False,
    ) -> None:
        self._directory = directory
        self._environments = environments or {}
        self._limits = limits or {}
        self._extra_arguments = tuple(extra_arguments)
        self._settings = {
            f"COORDSVC_{name.upper()}": str(value) for name, value in (settings or {}).items()
        }
        self.has_zookeeper = zookeeper
        self.tls = tls
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._pipes: dict[int, int] = {}
        self.ids = tuple(range(1, size + 1))
        self.replicas: dict[int, LocalReplica] = {}
        self.move_ports()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill_all()

    # ------------------------------------------------------------------------------- addresses

    def move_ports(self) -> None:
        """Other ports from the next start on; only while no replica runs."""
        assert not self._processes, "the replicas run"
        self.replicas = {
            replica_id: LocalReplica(
                replica_id=replica_id,
                data_dir=self._directory / str(replica_id),
                client_port=free_port(),
                peer_port=free_port(),
                admin_port=free_port(),
                zookeeper_port=free_port() if self.has_zookeeper else 0,
            )
            for replica_id in self.ids
        }

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(replica.endpoint for replica in self.replicas.values())

    @property
    def endpoints_text(self) -> str:
        return endpoints_text(list(self.replicas.values()))

    @property
    def zookeeper_hosts(self) -> str:
        """What ZooKeeper's clients take; with `zookeeper`."""
        return zookeeper_hosts(list(self.replicas.values()))

    def log_path(self, replica_id: int) -> Path:
        return self._directory / "logs" / f"replica-{replica_id}.log"

    # ------------------------------------------------------------------------------- processes

    def start(self, *, wait: bool = True) -> None:
        """Start those that do not run, and with `wait` until all serve."""
        for replica_id in self.ids:
            if replica_id not in self._processes:
                self.start_replica(replica_id)
        if wait:
            self.wait_ready()

    def start_replica(self, replica_id: int) -> None:
        """Start one, without waiting for it."""
        assert replica_id not in self._processes, f"replica {replica_id} runs"
        replica = self.replicas[replica_id]
        log_path = self.log_path(replica_id)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        read_fd, write_fd = os.pipe()
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [
                    *self.launcher(replica_id),
                    *(sys.executable, "-m", "coordsvc.cli._child", str(read_fd)),
                    *serve_arguments(replica, list(self.replicas.values())),
                    *self._extra_arguments,
                ],
                env={**os.environ, **self._settings, **self._environments.get(replica_id, {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(read_fd,),
            )
        os.close(read_fd)
        self._processes[replica_id], self._pipes[replica_id] = process, write_fd
        for limit, value in self._limits.get(replica_id, {}).items():
            resource.prlimit(process.pid, limit, (value, value))

    def launcher(self, replica_id: int) -> list[str]:
        """What a replica's command line begins with; a program that becomes the replica."""
        return []

    def pid(self, replica_id: int) -> int:
        return self._processes[replica_id].pid

    def is_running(self, replica_id: int) -> bool:
        process = self._processes.get(replica_id)
        return process is not None and process.poll() is None

    def kill(self, replica_id: int) -> None:
        """kill -9, and wait until the process is gone."""
        self._processes[replica_id].kill()
        self.wait_end(replica_id)

    def kill_all(self) -> None:
        """kill -9 of all that run, at once."""
        for process in self._processes.values():
            process.kill()
        for replica_id in list(self._processes):
            self.wait_end(replica_id)

    def terminate(self, replica_id: int) -> None:
        """SIGTERM; `wait_end` waits for what it does about it."""
        self.send_signal(replica_id, signal.SIGTERM)

    def send_signal(self, replica_id: int, number: signal.Signals) -> None:
        self._processes[replica_id].send_signal(number)

    def wipe(self, replica_id: int) -> None:
        """Delete the data directory of a replica that does not run."""
        assert replica_id not in self._processes, f"replica {replica_id} runs"
        shutil.rmtree(self.replicas[replica_id].data_dir)

    def rejoin(self, replica_id: int) -> str:
        """`coordsvc rejoin` on the data directory of a replica that does not run; what it says."""
        assert replica_id not in self._processes, f"replica {replica_id} runs"
        data_dir = str(self.replicas[replica_id].data_dir)
        done = subprocess.run(
            [sys.executable, "-m", "coordsvc", "rejoin", data_dir],
            capture_output=True,
            text=True,
            timeout=READY_SECONDS,
        )
        if done.returncode:
            raise ClusterError(f"rejoin ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def stop(self) -> dict[int, int]:
        """SIGTERM to all that run; their exit statuses, by replica id."""
        for replica_id in self._processes:
            self.terminate(replica_id)
        return {replica_id: self.wait_end(replica_id) for replica_id in list(self._processes)}

    def wait_end(self, replica_id: int, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for the process to end; its exit status, negative for a signal."""
        process = self._processes[replica_id]
        try:
            status = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise self._error(f"replica {replica_id} still runs") from None
        del self._processes[replica_id]
        os.close(self._pipes.pop(replica_id))
        return status

    def pause(self, replica_id: int) -> None:
        """SIGSTOP; returns once the process stands still."""
        pid = self.pid(replica_id)
        os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: _state(pid) == "T", f"process {pid} to stop")

    def resume(self, replica_id: int) -> None:
        os.kill(self.pid(replica_id), signal.SIGCONT)

    # ------------------------------------------------------------------------------- questions

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> None:
        """Until every replica that was started serves."""
        deadline = time.monotonic() + timeout_seconds
        for replica_id in list(self._processes):
            while not self.is_serving(replica_id):
                if not self.is_running(replica_id):
                    raise self._error(f"replica {replica_id} ended instead of starting")
                if time.monotonic() >= deadline:
                    raise self._error(f"replica {replica_id} is not ready")
                time.sleep(POLL_SECONDS)

    def is_serving(self, replica_id: int) -> bool:
        """What grpc.health.v1 says of it."""
        check = Method(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest,
            health_pb2.HealthCheckResponse,
            is_write=False,
        )
        try:
            answer = self.ask(replica_id, check, health_pb2.HealthCheckRequest())
        except grpc.RpcError:
            return False
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    def status(self, replica_id: int) -> cluster_pb2.StatusResponse:
        """Cluster.Status as this replica answers it. grpc.RpcError: it does not."""
        return self.ask(replica_id, STATUS, cluster_pb2.StatusRequest())

    def digest(self, replica_id: int, min_zxid: int = 0) -> cluster_pb2.DigestResponse:
        return self.ask(replica_id, DIGEST, cluster_pb2.DigestRequest(min_zxid=min_zxid))

    def is_leader(self, replica_id: int) -> bool:
        """Whether the replica says of itself that it leads."""
        return any(
            replica.id == replica_id and replica.role == cluster_pb2.REPLICA_ROLE_LEADER
            for replica in self.status(replica_id).replicas
        )

    def wait_leader(self, timeout_seconds: float = READY_SECONDS) -> int:
        """The id of the replica that says it leads; one that runs."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            for replica_id in self._processes:
                try:
                    if self.is_leader(replica_id):
                        return replica_id
                except grpc.RpcError:
                    continue  # It is down or busy; another one may lead.
            time.sleep(POLL_SECONDS)
        raise self._error("nobody leads")

    def metric(self, replica_id: int, name: str) -> float:
        """A metric of the replica, summed over its labels."""
        _, text = self.page(replica_id, "/metrics")
        values = [
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith((name + " ", name + "{"))
        ]
        if not values:
            raise ClusterError(f"replica {replica_id} has no metric {name}")
        return sum(values)

    def page(self, replica_id: int, path: str) -> tuple[int, str]:
        """A page of the replica's admin port: its status and text. OSError: nobody answers."""
        address = self.replicas[replica_id].admin_endpoint
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{address}{path}", timeout=CALL_SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def events(self, replica_id: int, event: str) -> list[dict[str, Any]]:
        """What the replica logged under that name, in all its runs."""
        with self.log_path(replica_id).open() as log:
            lines = [line for line in log if f'"event": "{event}"' in line]
        return [json.loads(line) for line in lines]

    def ask(
        self, replica_id: int, method: Method[RequestT, ResponseT], request: RequestT
    ) -> ResponseT:
        """One call to one replica, on a connection of its own."""
        endpoint = self.replicas[replica_id].endpoint
        options = channel_options(ClientConfig((endpoint,)))
        with self._channel(endpoint, options) as channel:
            call = channel.unary_unary(
                method.name,
                request_serializer=method.request_type.SerializeToString,
                response_deserializer=method.response_type.FromString,
            )
            answer: ResponseT = call(request, timeout=CALL_SECONDS)
            return answer

    def _channel(self, endpoint: str, options: list[tuple[str, int]]) -> grpc.Channel:
        if self.tls is None:
            return grpc.insecure_channel(endpoint, options=options)
        return grpc.secure_channel(endpoint, channel_credentials(self.tls), options=options)

    def log_tails(self) -> str:
        """The end of each replica's output, for a failing test's message."""
        parts = []
        for replica_id in self.ids:
            if (log_path := self.log_path(replica_id)).exists():
                tail = log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
                parts.append(f"--- {log_path}\n{tail}")
        return "\n".join(parts)

    def _error(self, message: str) -> ClusterError:
        return ClusterError(f"{message}\n{self.log_tails()}")


def wait_for(
    condition: Callable[[], bool], what: str, timeout_seconds: float = READY_SECONDS
) -> None:
    """Poll `condition` until it holds; ClusterError names `what` when it does not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise ClusterError(f"waited {timeout_seconds} s in vain for {what}")
        time.sleep(POLL_SECONDS)


def _state(pid: int) -> str:
    """The kernel's letter for what a process does: T for stopped."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text.rpartition(")")[2].split()[0]
