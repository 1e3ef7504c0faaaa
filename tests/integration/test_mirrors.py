"""Watches lose nothing: two mirrors follow random writes while replicas are killed, and are equal
to the tree at every zxid at which somebody looked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest

from coordsvc.client.methods import COORDINATION, GET_CHILDREN, Method
from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import LINEARIZABLE, UnaryClient
from coordsvc.errors import CoordError
from coordsvc.testing.cluster import LocalCluster, wait_for
from coordsvc.v1 import coordination_pb2 as pb
from tests.integration.mirrors import (
    PARENT,
    Mirror,
    follow_by_session,
    follow_by_watch,
    page_request,
)

NAMES = [f"{PARENT}/n{number:03}" for number in range(300)]
WRITERS = 8
WRITES_PER_SECOND_MIN = 100
CHECKS_PER_KILL_MIN = 2

MULTI = Method(COORDINATION + "Multi", pb.MultiRequest, pb.MultiResponse, is_write=True)


class Writes:
    """Random creates, sets, deletes and multis; refusals and unknown outcomes are part of it."""

    def __init__(self, endpoints: tuple[str, ...]) -> None:
        self._config = ClientConfig(endpoints, timeout_ms=3_000)
        self.done = 0
        self.lost = 0

    async def run(self, seed: int) -> None:
        chance = random.Random(seed)
        async with UnaryClient(self._config) as client:
            while True:
                try:
                    await self._one(client, chance)
                    self.done += 1
                except CoordError as error:
                    # Gone or there already is no matter; a lost answer is counted.
                    self.lost += error.zxid == 0

    async def _one(self, client: UnaryClient, chance: random.Random) -> None:
        path, data = chance.choice(NAMES), b"%d" % chance.randrange(10**9)
        what = chance.random()
        if what < 0.3:
            await client.create(path, data)
        elif what < 0.6:
            await client.set_data(path, data)
        elif what < 0.8:
            await client.delete(path)
        else:
            await client.call(MULTI, _multi(chance, data))


def _multi(chance: random.Random, data: bytes) -> pb.MultiRequest:
    """Two znodes change hands: one goes, one comes, whichever is possible."""
    gone, come = chance.sample(NAMES, 2)
    return pb.MultiRequest(
        operations=[
            pb.MultiOperation(delete=pb.DeleteOperation(path=gone)),
            pb.MultiOperation(create=pb.CreateOperation(path=come, data=data)),
            pb.MultiOperation(set_data=pb.SetDataOperation(path=come, data=data)),
        ]
    )


async def look(client: UnaryClient) -> tuple[int, dict[str, bytes]]:
    """What is there, in one page and so at one zxid."""
    request = page_request(page_size=len(NAMES) + 1)
    request.consistency = LINEARIZABLE
    page = await client.call(GET_CHILDREN, request)
    assert not page.next_page_token
    return page.header.zxid, {f"{PARENT}/{child.name}": child.data for child in page.children}


async def kill_one(cluster: LocalCluster, writes: Writes, kill: int) -> None:
    """Leaders and followers in turn; it is back and serves when this returns."""

    def run() -> None:
        leader = cluster.wait_leader()
        others = [i for i in cluster.ids if i != leader]
        killed = leader if kill % 2 else others[kill // 2 % 2]
        cluster.kill(killed)
        assert not cluster.is_running(killed)
        done = writes.done
        wait_for(lambda: writes.done > done + WRITES_PER_SECOND_MIN, "the others to go on")
        cluster.start_replica(killed)
        cluster.wait_ready()

    await asyncio.to_thread(run)


async def follow(cluster: LocalCluster, kills: int, seconds: float) -> None:
    await asyncio.to_thread(cluster.start)
    endpoints = cluster.endpoints
    config = ClientConfig(endpoints)
    mirrors = {"watch": Mirror(), "session": Mirror()}
    writes = Writes(endpoints)
    began = time.monotonic()
    async with UnaryClient(config) as client, asyncio.TaskGroup() as group:
        await client.create(PARENT, b"")
        tasks = [group.create_task(writes.run(seed)) for seed in range(WRITERS)]
        followers = [
            group.create_task(follow_by_watch(mirrors["watch"], endpoints)),
            group.create_task(follow_by_session(mirrors["session"], endpoints[::-1])),
        ]
        for mirror in mirrors.values():
            await mirror.is_read.wait()
        looking = group.create_task(look_often(client, mirrors))
        for kill in range(kills):
            await kill_one(cluster, writes, kill)
            rest = began + (kill + 1) * seconds / kills - time.monotonic()
            await asyncio.sleep(max(0.0, rest))
        for task in (*tasks, looking):
            task.cancel()
        await settle(client, mirrors)
        for task in followers:
            task.cancel()
    report(mirrors, writes, time.monotonic() - began, kills)


async def look_often(client: UnaryClient, mirrors: dict[str, Mirror]) -> None:
    while True:
        zxid, znodes = await look(client)
        for mirror in mirrors.values():
            mirror.expect(zxid, znodes)
        await asyncio.sleep(0.1)


async def settle(client: UnaryClient, mirrors: dict[str, Mirror]) -> None:
    """Nobody writes any more: both mirrors get there, and are right."""
    await asyncio.sleep(0)
    zxid, znodes = await look(client)
    async with asyncio.timeout(20):
        for mirror in mirrors.values():
            checks = mirror.checks
            while mirror.checks == checks:
                mirror.expect(zxid, znodes)
                if mirror.position > zxid:
                    # A write that was still under way was applied since.
                    zxid, znodes = await look(client)
                await asyncio.sleep(0.05)


def report(mirrors: dict[str, Mirror], writes: Writes, seconds: float, kills: int) -> None:
    print(f"{writes.done} writes, {writes.lost} lost answers, {seconds:.0f} s, {kills} kills")
    for name, mirror in mirrors.items():
        print(
            f"{name}: {mirror.events} events, {mirror.connections} connections, "
            f"{mirror.checks} checks, {mirror.gaps} gaps, {mirror.reads} readings, "
            f"{mirror.interrupted} of them interrupted"
        )
        assert mirror.reads == 1 + mirror.gaps + mirror.interrupted, (
            "it was read again without a gap"
        )
        assert mirror.connections > kills / 3, "it hardly noticed that replicas were killed"
        assert mirror.checks >= CHECKS_PER_KILL_MIN * kills
    assert writes.done >= WRITES_PER_SECOND_MIN * seconds


@pytest.mark.timeout(120)
async def test_mirrors_follow_through_kills(make_cluster: Callable[..., LocalCluster]) -> None:
    await follow(make_cluster(3), kills=2, seconds=10)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_mirrors_follow_through_ten_kills(make_cluster: Callable[..., LocalCluster]) -> None:
    await follow(make_cluster(3), kills=10, seconds=60)
