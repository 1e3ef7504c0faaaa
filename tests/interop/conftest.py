"""One replica, as a user would start it, for the clients of other languages."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0


def is_required() -> bool:
    """`make interop-grpc` says so: then a missing tool is a failure, not a reason to skip."""
    return os.environ.get("INTEROP") == "required"


def skip_or_fail(reason: str) -> None:
    if is_required():
        pytest.fail(reason)
    pytest.skip(reason)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_serving(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 200)]
    with grpc.insecure_channel(address, options=options) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline:
            assert process.poll() is None, f"the replica ended:\n{log.read_text()}"
            try:
                request = health_pb2.HealthCheckRequest()
                answer = health.Check(request, timeout=2, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.05)  # Between two questions; the answer is the condition.
    raise AssertionError(f"not serving after {START_SECONDS_MAX} s:\n{log.read_text()}")


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a replica that serves, a cluster of one."""
    folder = tmp_path_factory.mktemp("replica")
    address = f"127.0.0.1:{_free_port()}"
    log = folder / "log"
    command = [sys.executable, "-m", "coordsvc", "serve"]
    command += ["--data-dir", str(folder / "data"), "--listen", address]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait_until_serving(address, process, log)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
