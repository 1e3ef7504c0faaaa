"""Replicas that stand still (SIGSTOP) with their sockets open: nobody is told what is not so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from coordsvc.client.methods import CREATE, SYNC
from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import (
    CoordError,
    NoNodeError,
    OutcomeUnknownError,
    UnavailableError,
)
from coordsvc.testing.cluster import LocalCluster
from coordsvc.v1 import coordination_pb2
from tests.integration.direct import Asked, Direct, ask

pytestmark = pytest.mark.timeout(90)

REFUSE_SECONDS_MAX = 2.0
ASK_PAUSE_SECONDS = 0.1
RESUME_SECONDS_MAX = 5.0
SCHEDULING_SECONDS = 0.3
"""What a busy machine of two cores may add between a packet and its reader."""


def others(cluster: LocalCluster, replica_id: int) -> list[int]:
    return [other for other in cluster.ids if other != replica_id]


# ------------------------------------------------------------------------- without its followers


async def ask_until(
    end: float, kind: str, question: Callable[[int], Awaitable[object]]
) -> list[Asked]:
    """The same question again and again, without waiting for the answers."""
    asked = []
    number = 0
    while time.monotonic() < end:
        asked.append(asyncio.create_task(ask(kind, question(number))))
        number += 1
        await asyncio.sleep(ASK_PAUSE_SECONDS)
    return await asyncio.gather(*asked)


async def question_the_lonely_leader(endpoint: str, pause: Callable[[], None]) -> list[Asked]:
    """All answers to questions asked from the pause of the followers on, for 4 s."""
    async with Direct(endpoint) as leader:
        session = await leader.open_session(60_000)
        create = coordination_pb2.CreateRequest(path="/paused")
        await leader.call(CREATE, create, 5)

        def write(number: int) -> Awaitable[object]:
            request = coordination_pb2.CreateRequest(path=f"/paused/{number}")
            return leader.call(CREATE, request, 6)

        questions: dict[str, Callable[[int], Awaitable[object]]] = {
            "write": write,
            "read": lambda number: leader.read("/paused", 6),
            "sync": lambda number: leader.call(SYNC, coordination_pb2.SyncRequest(), 6),
            "heartbeat": lambda number: leader.heartbeat(session.credentials, 6),
        }
        for kind, question in questions.items():
            assert (await ask(kind, question(1_000))).error is None, kind
        await asyncio.to_thread(pause)
        end = time.monotonic() + 2 * REFUSE_SECONDS_MAX
        answers = await asyncio.gather(
            *(ask_until(end, kind, question) for kind, question in questions.items())
        )
    return [asked for of_kind in answers for asked in of_kind]


def check_refusals(answers: list[Asked], paused_at: float) -> None:
    late = paused_at + REFUSE_SECONDS_MAX
    for kind in ("write", "read", "sync", "heartbeat"):
        of_kind = [asked for asked in answers if asked.kind == kind]
        refused = [asked for asked in of_kind if isinstance(asked.error, UnavailableError)]
        assert refused, f"no {kind} was refused: {of_kind}"
        first = min(asked.answered_at for asked in refused) - paused_at
        print(f"{kind}: first refused {first:.2f} s after the pause, {len(of_kind)} asked")
        assert first < REFUSE_SECONDS_MAX + SCHEDULING_SECONDS
        for asked in of_kind:
            if asked.asked_at < late:
                continue
            assert isinstance(asked.error, UnavailableError), (kind, asked)
            assert asked.answered_at - asked.asked_at < 1.0, (kind, asked)


async def check_service(cluster: LocalCluster, answers: list[Asked]) -> None:
    """It serves again, and nothing that was refused took effect."""
    async with UnaryClient(ClientConfig(cluster.endpoints, timeout_ms=5_000)) as client:
        await client.create("/again", b"x")
        assert (await client.get_data("/again")).data == b"x"
        writes = [asked for asked in answers if asked.kind == "write"]
        await client.sync()
        for number, asked in enumerate(writes):
            if isinstance(asked.error, UnavailableError):
                there = (await client.exists(f"/paused/{number}")).HasField("stat")
                assert not there, f"write {number} was refused ({asked.error}) and applied"


def test_a_leader_without_its_followers_refuses(cluster: LocalCluster) -> None:
    leader = cluster.wait_leader()
    pids = {replica_id: cluster.pid(replica_id) for replica_id in cluster.ids}
    paused_at = 0.0

    def pause() -> None:
        nonlocal paused_at
        for replica_id in others(cluster, leader):
            cluster.pause(replica_id)
        paused_at = time.monotonic()

    endpoint = cluster.replicas[leader].endpoint
    answers = asyncio.run(question_the_lonely_leader(endpoint, pause))
    check_refusals(answers, paused_at)
    for replica_id in others(cluster, leader):
        cluster.resume(replica_id)
    resumed_at = time.monotonic()
    asyncio.run(check_service(cluster, answers))
    print(f"served {time.monotonic() - resumed_at:.2f} s after SIGCONT")
    assert time.monotonic() - resumed_at < RESUME_SECONDS_MAX
    assert {replica_id: cluster.pid(replica_id) for replica_id in cluster.ids} == pids
    assert all(cluster.is_running(replica_id) for replica_id in cluster.ids)


# ------------------------------------------------------------------------ a leader of the past

READS = 50


async def read_from_the_past(cluster: LocalCluster, leader: int) -> list[bytes | CoordError]:
    """Reads queued at the stopped leader while the others went on; their answers."""
    elsewhere = [cluster.replicas[other].endpoint for other in others(cluster, leader)]
    config = ClientConfig(tuple(elsewhere), timeout_ms=20_000)
    async with UnaryClient(config) as client, Direct(cluster.replicas[leader].endpoint) as past:
        await client.create("/v", b"v1")
        assert await past.read("/v", 5) == b"v1"
        await asyncio.to_thread(cluster.pause, leader)
        reads = [asyncio.create_task(past.read("/v", 30)) for _ in range(READS)]
        await asyncio.sleep(0)
        await client.set_data("/v", b"v2", version=0)
        assert (await client.get_data("/v")).data == b"v2"
        assert not any(read.done() for read in reads), "the leader was not paused"
        await asyncio.to_thread(cluster.resume, leader)
        answers = await asyncio.gather(*reads, return_exceptions=True)
        reborn = await ask_until_ok(lambda: past.read("/v", 5))
        assert reborn == b"v2"
    return answers  # type: ignore[return-value]


async def ask_until_ok(question: Callable[[], Awaitable[bytes]]) -> bytes:
    end = time.monotonic() + 10
    while True:
        try:
            return await question()
        except (UnavailableError, OutcomeUnknownError, NoNodeError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)


def test_a_leader_of_the_past_answers_nothing_old(cluster: LocalCluster) -> None:
    leader = cluster.wait_leader()
    answers = asyncio.run(read_from_the_past(cluster, leader))
    assert len(answers) == READS
    old = [answer for answer in answers if answer == b"v1"]
    assert not old, f"{len(old)} of {READS} reads answered what was overwritten before"
    for answer in answers:
        assert answer == b"v2" or isinstance(answer, UnavailableError), answer
    fresh = sum(answer == b"v2" for answer in answers)
    print(f"{fresh} answered v2, {READS - fresh} were refused")
