"""All replicas stopped and started: the tree is the same, and sessions in time live on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from coordsvc.client.methods import CREATE, OPEN_SESSION
from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.exit_status import ExitStatus
from coordsvc.testing.cluster import LocalCluster, wait_for
from coordsvc.v1 import common_pb2, coordination_pb2
from tests.integration.direct import Direct, read_tree

pytestmark = pytest.mark.timeout(60)

SESSION_TIMEOUT_MS = 15_000
SEQUENTIAL = common_pb2.CREATE_MODE_EPHEMERAL_SEQUENTIAL

Credentials = common_pb2.SessionCredentials


async def fill(endpoints: tuple[str, ...]) -> list[Credentials]:
    """A tree of every kind of znode and data, and three sessions with ephemerals."""
    chance = random.Random(7)
    async with UnaryClient(ClientConfig(endpoints)) as client:
        await client.create("/a", None)
        for number in range(60):
            data = chance.choice([None, b"", chance.randbytes(chance.randrange(2_000))])
            await client.create(f"/a/n{number}", data)
            if number % 3 == 0:
                await client.set_data(f"/a/n{number}", b"again", version=0)
            if number % 5 == 0:
                await client.delete(f"/a/n{number}")
        await client.create("/a/n1/c-", b"x", mode=common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL)
        sessions = []
        for _ in range(3):
            request = coordination_pb2.OpenSessionRequest(timeout_ms=SESSION_TIMEOUT_MS)
            session = await client.call(OPEN_SESSION, request)
            context = common_pb2.RequestContext(session=session.credentials)
            await client.create("/a/e-", b"held", mode=SEQUENTIAL, context=context)
            sessions.append(session.credentials)
    return sessions


async def check_sessions(endpoints: tuple[str, ...], sessions: list[Credentials]) -> None:
    """Each is alive, and can be used as before."""
    async with Direct(endpoints[0]) as replica:
        for number, credentials in enumerate(sessions):
            answer = await replica.heartbeat(credentials)
            assert answer.timeout_ms == SESSION_TIMEOUT_MS
            request = coordination_pb2.CreateRequest(
                context=common_pb2.RequestContext(session=credentials, request_number=1),
                path=f"/a/after-{number}",
                mode=common_pb2.CREATE_MODE_EPHEMERAL,
            )
            await replica.call(CREATE, request, 5)


def stop_all(cluster: LocalCluster) -> None:
    assert set(cluster.stop().values()) == {ExitStatus.OK}


def kill_all(cluster: LocalCluster) -> None:
    cluster.kill_all()


@pytest.mark.parametrize(
    ("size", "end", "is_moved"),
    [
        (1, stop_all, True),
        (1, kill_all, False),
        (3, stop_all, False),
        (3, stop_all, True),
        (3, kill_all, True),
    ],
)
def test_what_was_there_is_there_again(
    make_cluster: Callable[..., LocalCluster],
    size: int,
    end: Callable[[LocalCluster], None],
    is_moved: bool,
) -> None:
    cluster = make_cluster(size)
    cluster.start()
    sessions = asyncio.run(fill(cluster.endpoints))
    before = asyncio.run(read_tree(cluster.endpoints))
    assert len(before) > 50
    end(cluster)
    if is_moved:
        cluster.move_ports()
    cluster.start()
    after = asyncio.run(read_tree(cluster.endpoints))
    assert after == before
    asyncio.run(check_sessions(cluster.endpoints, sessions))


def test_a_session_whose_time_is_up_ends_after_the_start(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    """Not before it had its full timeout under the new leader; but then it does."""
    cluster = make_cluster(3)
    cluster.start()

    async def hold() -> None:
        async with UnaryClient(ClientConfig(cluster.endpoints)) as client:
            request = coordination_pb2.OpenSessionRequest(timeout_ms=1_000)
            session = await client.call(OPEN_SESSION, request)
            context = common_pb2.RequestContext(session=session.credentials)
            await client.create("/e", mode=common_pb2.CREATE_MODE_EPHEMERAL, context=context)

    async def exists() -> bool:
        async with UnaryClient(ClientConfig(cluster.endpoints)) as client:
            return (await client.exists("/e")).HasField("stat")

    asyncio.run(hold())
    cluster.kill_all()
    cluster.start()
    wait_for(lambda: not asyncio.run(exists()), "the session to expire", 6)
