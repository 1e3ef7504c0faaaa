"""A replica as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from coordsvc.server import assembly, serve
from coordsvc.server.addresses import Address
from coordsvc.server.config import ServerConfig
from coordsvc.server.config_model import NOWHERE
from coordsvc.storage.errors import CorruptionError
from coordsvc.testing.ports import free_port
from coordsvc.v1 import coordination_pb2
from coordsvc.v1.coordination_pb2_grpc import CoordinationStub

pytestmark = pytest.mark.processes

START_SECONDS_MAX = 20.0


class Process:
    """`coordsvc serve` with these flags; what it logs, line by line."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.port = free_port()
        if "--listen" not in flags:
            flags = ("--listen", f"127.0.0.1:{self.port}", *flags)
        if "--admin-listen" not in flags:
            flags = ("--admin-listen", "127.0.0.1:0", *flags)
        if "--data-dir" not in flags:
            flags = ("--data-dir", str(directory / "data"), *flags)
        self._log_path = directory / f"log-{self.port}"
        self.began = time.monotonic()
        with self._log_path.open("wb") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "coordsvc", "serve", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def text(self) -> str:
        return self._log_path.read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def find(self, event: str) -> dict[str, Any] | None:
        found = [line for line in self.text.splitlines() if f'"event": "{event}"' in line]
        return json.loads(found[-1]) if found else None

    def wait_for(self, event: str) -> dict[str, Any]:
        deadline = time.monotonic() + START_SECONDS_MAX
        while (line := self.find(event)) is None:
            assert self.popen.poll() is None, f"it ended: {self.text}"
            assert time.monotonic() < deadline, f"no {event}: {self.text}"
            time.sleep(0.02)
        return line

    def wait_end(self, seconds: float = START_SECONDS_MAX) -> int:
        return self.popen.wait(seconds)

    def kill(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()

    def stub(self) -> tuple[grpc.Channel, CoordinationStub]:
        channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", [("grpc.enable_http_proxy", 0)])
        return channel, CoordinationStub(channel)


class Starter:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[Process] = []

    def __call__(self, *flags: str) -> Process:
        self.processes.append(Process(self.directory, *flags))
        return self.processes[-1]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    starter = Starter(tmp_path)
    yield starter
    for process in starter.processes:
        process.kill()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    "option", ["--listen", "--peer-listen", "--admin-listen", "--zookeeper-listen"]
)
def test_a_port_in_use_ends_the_start_at_once_and_is_named(
    start: Starter, taken_port: int, option: str
) -> None:
    address = f"127.0.0.1:{taken_port}"
    flags = [option, address]
    if option == "--peer-listen":
        flags += ["--peers", f"1=127.0.0.1:{free_port()},2=127.0.0.1:{free_port()}"]
    process = start(*flags)
    assert process.wait_end() == 3
    # Of which most is the interpreter's start.
    assert time.monotonic() - process.began < 2.0
    refused = process.find("process.refused")
    assert refused is not None and refused["exit_status"] == 3
    assert address in refused["error"] and option in refused["error"]
    assert not (start.directory / "data").exists(), "nothing was touched"


async def test_a_port_that_is_taken_after_it_was_seen_free_is_named_too(
    tmp_path: Path, taken_port: int, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(serve, "check_free", lambda option, address: None)
    config = ServerConfig(
        data_dir=str(tmp_path / "data"), listen=Address("127.0.0.1", 0), admin_listen=NOWHERE,
        zookeeper_listen=Address("127.0.0.1", taken_port),
    )  # fmt: skip
    process = serve.ReplicaProcess(config)
    assert await process.run() == 3
    (refused,) = [record for record in caplog.records if record.message == "process.refused"]
    assert f"cannot listen on 127.0.0.1:{taken_port} (--zookeeper-listen)" in refused.error
    assert process._host is not None
    await process._host.stop(hand_over=False)


def test_it_says_where_it_serves_zookeepers_clients(start: Starter) -> None:
    serving = start("--zookeeper-listen", "127.0.0.1:0").wait_for("serving")
    host, _, port = serving["zookeeper_listen"].rpartition(":")
    socket.create_connection((host, int(port)), 5).close()
    assert start("--data-dir", str(start.directory / "2")).wait_for("serving")[
        "zookeeper_listen"
    ] == ""  # fmt: skip


def test_a_wrong_configuration_ends_with_2_and_all_its_faults(start: Starter) -> None:
    process = start("--replica-id", "x", "--peers", "nonsense", "--admin-listen", "0.0.0.0:1")
    assert process.wait_end() == 2
    for word in ("replica.id", "peers", "admin_listen", "--replica-id"):
        assert word in process.text


def test_a_data_directory_in_use_is_refused_with_4(start: Starter) -> None:
    first = start()
    first.wait_for("serving")
    second = start()
    assert second.wait_end() == 4
    refused = second.find("process.refused")
    assert refused is not None and str(first.popen.pid) in refused["error"]


def test_another_replicas_directory_is_refused_with_4(start: Starter) -> None:
    process = start()
    process.wait_for("serving")
    process.popen.terminate()
    assert process.wait_end() == 0
    other = start("--replica-id", "2")
    assert other.wait_end() == 4
    assert "replica 1" in other.text and "replica 2" in other.text


def test_a_damaged_log_is_refused_with_5(start: Starter) -> None:
    process = start()
    process.wait_for("serving")
    process.popen.terminate()
    process.wait_end()
    (segment,) = (start.directory / "data" / "wal").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[8] ^= 1
    segment.write_bytes(data)
    damaged = start()
    assert damaged.wait_end() == 5
    refused = damaged.find("process.refused")
    assert refused is not None and segment.name in refused["error"]


def test_an_unusable_certificate_is_refused_with_2(start: Starter) -> None:
    pem = start.directory / "pem"
    pem.write_text("no certificate")
    process = start("--peer-tls-cert", str(pem), "--peer-tls-key", str(pem), "--peer-tls-ca",
                    str(pem))  # fmt: skip
    assert process.wait_end() == 2
    assert "--peer-tls-cert" in process.text


async def test_while_the_log_is_read_it_is_alive_and_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long load must not look like a dead process."""
    read = threading.Event()

    def open_slowly(*arguments: object, **keywords: object) -> None:
        read.wait(10)
        raise CorruptionError("wal", 0, "to end it here")

    monkeypatch.setattr(assembly, "open_storage", open_slowly)
    admin = Address("127.0.0.1", free_port())
    config = ServerConfig(
        data_dir=str(tmp_path / "data"), listen=Address("127.0.0.1", free_port()),
        admin_listen=admin,
    )  # fmt: skip
    running = asyncio.create_task(serve.ReplicaProcess(config).run())
    try:
        async with aiohttp.ClientSession() as client:
            while True:
                try:
                    async with client.get(f"http://{admin}/livez") as alive:
                        assert alive.status == 200
                    break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.01)
            async with client.get(f"http://{admin}/readyz") as ready:
                assert ready.status == 503
            async with client.get(f"http://{admin}/metrics") as metrics:
                assert "coordsvc_build_info" in await metrics.text()
    finally:
        read.set()
    assert await running == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_finishes_what_it_took_and_ends_with_0(
    start: Starter, number: signal.Signals
) -> None:
    """And finds all of it again."""
    process = start()
    serving = process.wait_for("serving")
    assert serving["listen"] == f"127.0.0.1:{process.port}"
    channel, stub = process.stub()
    with channel:
        calls = [
            stub.Create.future(coordination_pb2.CreateRequest(path=f"/n{i}"), timeout=10)
            for i in range(200)
        ]
        calls[0].result()
        process.popen.send_signal(number)
        acknowledged = [i for i, call in enumerate(calls) if call.exception() is None]
    told_at = time.monotonic()
    assert process.wait_end() == 0
    assert time.monotonic() - told_at < 5.0
    assert process.find("process.stopped") and not process.find("process.failed")
    again = start()
    again.wait_for("serving")
    channel, stub = again.stub()
    with channel:
        children = stub.GetChildren(coordination_pb2.GetChildrenRequest(path="/")).children
    assert {f"n{i}" for i in acknowledged} <= {child.name for child in children}
    assert acknowledged, "the floor: it took some"


def test_a_signal_before_it_serves_ends_it_too(start: Starter) -> None:
    """Alone among three it never serves."""
    peers = ",".join(f"{i}=127.0.0.1:{free_port()}" for i in (1, 2, 3))
    process = start("--peers", peers)
    process.wait_for("wal.recovered")
    process.popen.terminate()
    assert process.wait_end(5.0) == 0
    assert process.find("serving") is None


def test_a_second_signal_ends_it_at_once(start: Starter) -> None:
    process = start()
    process.wait_for("serving")
    os.kill(process.popen.pid, signal.SIGSTOP)
    # Both wait for it when it goes on, so the second one finds it stopping.
    process.popen.send_signal(signal.SIGTERM)
    process.popen.send_signal(signal.SIGINT)
    os.kill(process.popen.pid, signal.SIGCONT)
    assert process.wait_end(5.0) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


def test_its_log_is_json_with_the_replicas_id_and_without_secrets(start: Starter) -> None:
    process = start("--log-level", "debug")
    process.wait_for("serving")
    channel, stub = process.stub()
    with channel:
        opened = stub.OpenSession(coordination_pb2.OpenSessionRequest())
    process.popen.terminate()
    process.wait_end()
    assert all(line["replica_id"] == 1 and line["event"] for line in process.lines)
    assert process.find("rpc.done")
    password = opened.credentials.password
    assert password.hex() not in process.text and repr(password)[2:-1] not in process.text
