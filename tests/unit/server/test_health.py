"""Alive and ready: what makes each of them false."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordsvc.server.health import DISK_SILENT_SECONDS_MAX, Check, disk_fault, is_ready
from coordsvc.server.loop_monitor import DEAD_SECONDS, STUCK_SECONDS, LoopMonitor, where_is
from coordsvc.storage.wal import WalStatistics
from tests.unit.server.harness import Harness, eventually, local_server

IDLE = WalStatistics(
    fsyncs_total=0,
    bytes_written_total=0,
    last_fsync_seconds=0.0,
    pending_since=None,
    segments=1,
    is_space_low=False,
)


@pytest.fixture
async def server() -> AsyncIterator[Harness]:
    async with local_server() as harness:
        yield harness


def failing(server: Harness) -> set[str]:
    return {check.name for check in server.server.checks() if not check.is_ok}


async def serving(server: Harness) -> bool:
    """What gRPC health says."""
    stub = health_pb2_grpc.HealthStub(server.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    known: bool = answer.status == health_pb2.HealthCheckResponse.SERVING
    return known


# -------------------------------------------------------------------------------------- ready


async def test_each_check_fails_for_its_own_reason(server: Harness) -> None:
    assert failing(server) == set()
    server.replica.has_quorum = False
    assert failing(server) == {"leader confirmed"}
    server.replica.has_quorum = True
    server.replica.is_ready = False
    assert failing(server) == {"caught up"}
    server.replica.is_ready = True
    server.server._disk_fault = lambda: "no room"
    assert failing(server) == {"disk writable"}
    server.server._disk_fault = lambda: ""
    server.server.begin_stop()
    assert failing(server) == {"not shutting down"}


@pytest.mark.parametrize("cause", ["quorum", "behind", "disk", "stop"])
async def test_grpc_health_says_what_readyz_says(server: Harness, cause: str) -> None:
    assert await serving(server)
    if cause == "quorum":
        server.replica.has_quorum = False
    elif cause == "behind":
        server.replica.is_ready = False
    elif cause == "disk":
        server.server._disk_fault = lambda: "no room"
    else:
        server.server.begin_stop()
    told: list[bool] = []

    async def ask() -> bool:
        told.append(await serving(server))
        return not told[-1]

    for _ in range(200):
        if await ask():
            break
    else:
        raise AssertionError("it goes on to say that it serves")
    assert not is_ready(server.server.checks())


async def test_told_to_stop_it_opens_no_session_at_once(server: Harness) -> None:
    server.server.begin_stop()
    refused = await server.refusal("OpenSession")
    assert refused.code == "SHUTTING_DOWN"


def test_the_disk_is_not_writable_while_a_write_takes_too_long() -> None:
    busy = replace(IDLE, pending_since=100.0)
    assert disk_fault(busy, 100.0 + DISK_SILENT_SECONDS_MAX - 0.1) == ""
    assert "5 s" in disk_fault(busy, 100.0 + DISK_SILENT_SECONDS_MAX)
    assert disk_fault(IDLE, 1e9) == ""


def test_the_disk_is_not_writable_when_the_log_has_no_room() -> None:
    assert "free some space" in disk_fault(replace(IDLE, is_space_low=True), 0.0)


def test_a_check_shows_its_name_and_its_fault() -> None:
    assert str(Check("loaded")) == "[+] loaded"
    assert str(Check("loaded", "reading")) == "[-] loaded: reading"


# -------------------------------------------------------------------------------------- alive


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_loop_that_turns_is_alive_and_its_lag_is_measured() -> None:
    monitor = LoopMonitor()
    monitor.start()
    try:
        await eventually(lambda: monitor.lag_seconds.count >= 3)
        assert monitor.fault == ""
    finally:
        monitor.stop()


def test_a_loop_that_does_not_turn_is_told_of_once_with_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    monitor = LoopMonitor(clock)
    monitor._thread_id = threading.get_ident()
    clock.now += STUCK_SECONDS - 0.01
    monitor.look()
    assert not caplog.records
    clock.now += 0.01
    monitor.look()
    monitor.look()
    (record,) = caplog.records
    assert record.getMessage() == "loop.stuck" and record.levelno == logging.WARNING
    assert "test_a_loop_that_does_not_turn" in vars(record)["where"]


def test_it_is_not_called_dead_before_its_time() -> None:
    clock = Clock()
    monitor = LoopMonitor(clock)
    clock.now += DEAD_SECONDS - 0.1
    assert monitor.fault == ""
    clock.now += 0.1
    assert monitor.fault == "the loop last turned 10.0 s ago"


def test_a_thread_that_is_gone_is_nowhere() -> None:
    assert where_is(-1) == "nowhere"
