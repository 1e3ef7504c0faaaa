"""Callers who go away: their calls are cancelled, and nobody else's."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Sequence

import pytest

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.testing.cluster import LocalCluster
from coordsvc.v1 import common_pb2

pytestmark = pytest.mark.timeout(60)

WRITES = 1_000
CLIENTS = 3
AHEAD = 200
SEQUENTIAL = common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL


async def write(client: UnaryClient, number: int) -> str:
    answer = await client.create("/c/n-", str(number).encode(), mode=SEQUENTIAL)
    return answer.path


async def cancel_half(
    writes: Sequence[asyncio.Task[str]], chance: random.Random
) -> set[asyncio.Task[str]]:
    """Cancel 500 of 1,000 at random, each when its turn to be answered is near: by then it has
    been sent, and is somewhere between here and the disks. Those that were cancelled in time."""
    victims = sorted(chance.sample(range(len(writes)), len(writes) // 2))
    cancelled = set()
    while victims:
        await asyncio.sleep(0)
        near = sum(write.done() for write in writes) + chance.randrange(AHEAD)
        while victims and victims[0] <= near:
            victim = writes[victims.pop(0)]
            if victim.cancel():
                cancelled.add(victim)
    return cancelled


async def run(endpoints: tuple[str, ...]) -> None:
    chance = random.Random(11)
    clients = [
        UnaryClient(ClientConfig(endpoints[turn:] + endpoints[:turn], timeout_ms=20_000))
        for turn in range(CLIENTS)
    ]
    await clients[0].create("/c")
    for client in clients:
        await client.sync()
    writes = [
        asyncio.create_task(write(clients[number % CLIENTS], number)) for number in range(WRITES)
    ]
    cancelled = await cancel_half(writes, chance)
    answers = await asyncio.gather(*writes, return_exceptions=True)

    in_flight = sum(isinstance(answer, asyncio.CancelledError) for answer in answers)
    print(f"{in_flight} of {len(cancelled)} were cancelled in flight")
    assert in_flight >= WRITES // 4, "too few were in flight: this proves little"
    paths = {}
    for number, (task, answer) in enumerate(zip(writes, answers, strict=True)):
        if task not in cancelled:
            assert isinstance(answer, str), f"write {number}, not cancelled: {answer!r}"
        if isinstance(answer, str):
            paths[answer] = number
    await check(clients[0], paths)
    await asyncio.gather(*(client.close() for client in clients))


async def check(client: UnaryClient, paths: dict[str, int]) -> None:
    """Each write was applied at most once, and each answered one is where it was said to be."""
    await client.sync()
    there = {}
    async for page in client.get_children("/c", include_data=True):
        there.update({f"/c/{child.name}": int(child.data) for child in page.children})
    counts = collections.Counter(there.values())
    assert max(counts.values()) == 1, [number for number, count in counts.items() if count > 1]
    assert {path: there.get(path) for path in paths} == paths
    print(f"{len(there)} of {WRITES} were applied, {len(paths)} answered")


def test_half_of_the_callers_go_away(cluster: LocalCluster) -> None:
    asyncio.run(run(cluster.endpoints))
    assert all(cluster.is_running(replica_id) for replica_id in cluster.ids)
