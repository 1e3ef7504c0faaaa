"""Ephemerals vanish in time: never before their session's timeout, and soon after it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordsvc.client.lifetime import PINGS_PER_TIMEOUT
from coordsvc.client.methods import CREATE, EXISTS
from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.testing.cluster import LocalCluster, wait_for
from coordsvc.v1 import common_pb2, coordination_pb2
from tests.integration.direct import Direct

pytestmark = pytest.mark.timeout(60)

TICK_SECONDS = 0.5
LATE_SECONDS_MAX = 2 * TICK_SECONDS
POLL_SECONDS = 0.01
SCHEDULING_SECONDS = 0.15
"""What polling, and a busy machine, may add to the moment something is seen."""

TIMEOUTS_MS = (1_000, 1_250, 1_700, 2_000, 2_600, 3_000)


@dataclass
class Held:
    """An ephemeral whose session nobody renews any more."""

    path: str
    timeout: float
    renewal_sent_at: float
    renewal_answered_at: float
    gone_at: float = 0.0


async def hold(endpoint: str, name: str, timeout_ms: int, beats: int) -> Held:
    """Open a session with an ephemeral, renew it so often, and then no more."""
    async with Direct(endpoint) as replica:
        session = await replica.open_session(timeout_ms)
        context = common_pb2.RequestContext(session=session.credentials)
        request = coordination_pb2.CreateRequest(
            context=context, path=f"/held/{name}", mode=common_pb2.CREATE_MODE_EPHEMERAL
        )
        assert session.timeout_ms == timeout_ms
        await replica.call(CREATE, request, 5)
        sent_at = answered_at = time.monotonic()
        for _ in range(beats):
            await asyncio.sleep(timeout_ms / 1000 / 3)
            sent_at = time.monotonic()
            await replica.heartbeat(session.credentials)
            answered_at = time.monotonic()
    return Held(request.path, timeout_ms / 1000, sent_at, answered_at)


async def watch_vanish(endpoint: str, held: Held) -> None:
    """Poll until it is gone, and note when it was first seen so."""
    async with Direct(endpoint) as replica:
        while True:
            request = coordination_pb2.ExistsRequest(path=held.path)
            answer = await replica.call(EXISTS, request, 5)
            if not answer.HasField("stat"):
                held.gone_at = time.monotonic()
                return
            assert time.monotonic() < held.renewal_answered_at + held.timeout + 10
            await asyncio.sleep(POLL_SECONDS)


async def hold_and_watch(cluster: LocalCluster) -> list[Held]:
    async with UnaryClient(ClientConfig(cluster.endpoints)) as client:
        await client.create("/held")

    async def one(number: int, timeout_ms: int) -> Held:
        at = cluster.endpoints[number % len(cluster.endpoints)]
        elsewhere = cluster.endpoints[(number + 1) % len(cluster.endpoints)]
        held = await hold(at, str(number), timeout_ms, beats=number % 3)
        await watch_vanish(elsewhere, held)
        return held

    return await asyncio.gather(*(one(*pair) for pair in enumerate(TIMEOUTS_MS)))


def test_silence_ends_a_session_in_time(cluster: LocalCluster) -> None:
    for held in asyncio.run(hold_and_watch(cluster)):
        early = held.renewal_sent_at + held.timeout - held.gone_at
        late = held.gone_at - held.renewal_answered_at - held.timeout
        print(f"{held.path}: timeout {held.timeout} s, gone {late * 1000:.0f} ms after it")
        assert early <= 0, f"{held.path} vanished {early:.3f} s before its timeout"
        assert late <= LATE_SECONDS_MAX + SCHEDULING_SECONDS, f"{held.path}: {late:.3f} s late"


# ---------------------------------------------------------------------------- the command's


def start_holder(cluster: LocalCluster, path: str, timeout_seconds: float) -> subprocess.Popen[str]:
    """`coordsvc create -e`, once the znode is there."""
    holder = subprocess.Popen(
        [
            *(sys.executable, "-m", "coordsvc", "create", path, "held", "-e"),
            *("--session-timeout", str(timeout_seconds)),
            *("--endpoints", cluster.endpoints_text),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == f"{path}\n"
    return holder


def exists(cluster: LocalCluster, path: str) -> bool:
    async def ask() -> bool:
        async with UnaryClient(ClientConfig(cluster.endpoints)) as client:
            return (await client.exists(path)).HasField("stat")

    return asyncio.run(ask())


def has_open_connection(pid: int) -> bool:
    sockets = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    return any(target.startswith("socket:") for target in sockets)


def test_a_stopped_client_loses_its_session_in_time(cluster: LocalCluster) -> None:
    """Its connection stays open, and its kernel answers for it; that renews nothing."""
    timeout = 2.0
    holder = start_holder(cluster, "/stopped", timeout)
    try:
        wait_for_heartbeat = 1.2 * timeout / PINGS_PER_TIMEOUT
        started = time.monotonic()
        wait_for(lambda: time.monotonic() - started > wait_for_heartbeat, "a heartbeat")
        holder.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        wait_for(lambda: not exists(cluster, "/stopped"), "the ephemeral to vanish")
        lasted = time.monotonic() - stopped_at
        print(f"gone {lasted:.2f} s after SIGSTOP, with a timeout of {timeout} s")
        assert has_open_connection(holder.pid)
        assert lasted >= timeout - timeout / PINGS_PER_TIMEOUT
        assert lasted <= timeout + LATE_SECONDS_MAX + SCHEDULING_SECONDS
        holder.send_signal(signal.SIGCONT)
        _, errors = holder.communicate(timeout=20)
        assert holder.returncode == 1
        assert "error: SESSION_EXPIRED /stopped" in errors
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_client_takes_its_ephemeral_along(
    cluster: LocalCluster, number: int
) -> None:
    holder = start_holder(cluster, "/mine", 30)
    assert exists(cluster, "/mine")
    holder.send_signal(number)
    _, errors = holder.communicate(timeout=10)
    assert holder.returncode == 0, errors
    assert not exists(cluster, "/mine")


def test_a_client_whose_cluster_is_gone_says_that_it_lost_its_session(
    cluster: LocalCluster,
) -> None:
    holder = start_holder(cluster, "/lost", 2)
    cluster.kill_all()
    started = time.monotonic()
    _, errors = holder.communicate(timeout=20)
    assert time.monotonic() - started < 3
    assert holder.returncode == 1
    assert "error: SESSION_EXPIRED /lost" in errors


def test_a_client_keeps_its_session_through_a_fail_over(cluster: LocalCluster) -> None:
    timeout = 2.0
    holder = start_holder(cluster, "/kept", timeout)
    try:
        for _ in range(2):
            leader = cluster.wait_leader()
            cluster.kill(leader)
            killed_at = time.monotonic()
            cluster.wait_leader()
            wait_for(lambda at=killed_at: time.monotonic() - at > timeout, "its timeout")  # type: ignore[misc]
            assert exists(cluster, "/kept")
            assert holder.poll() is None
            cluster.start()
    finally:
        holder.kill()
        holder.communicate()
