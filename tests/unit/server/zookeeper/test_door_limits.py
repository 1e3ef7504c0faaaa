"""What clients of the door can cost: a bounded amount each, and nothing when they are gone."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from socket import SO_RCVBUF, SOL_SOCKET

import pytest

from coordsvc.core.commands import DeleteOp, Op
from coordsvc.server.limits import refusal
from coordsvc.server.zookeeper.connection import Connection
from coordsvc.server.zookeeper.outbox import OUT_BYTES_MAX
from coordsvc.server.zookeeper.protocol import QUOTA_EXCEEDED
from coordsvc.testing.zookeeper_client import ZooKeeperConnection
from coordsvc.testing.zookeeper_connection import ConnectionEndedError
from coordsvc.testing.zookeeper_records import OpCode, WatchMode, boolean, buffer, int32, text
from tests.unit.server.harness import eventually
from tests.unit.server.zookeeper.door_harness import (
    MANY_OPENINGS,
    SECONDS,
    SHORT,
    DoorHarness,
    door_replica,
    is_served,
    limits,
)

DATA_BYTES = 100_000
UNSENT_BYTES_MAX = 2 * OUT_BYTES_MAX + DATA_BYTES
"""In the transport of a client that does not read: what was put there in one go above the mark."""


def connection_of(replica: DoorHarness, client: ZooKeeperConnection) -> Connection:
    [connection] = replica.door._of_session[client.session_id]
    return connection


def unsent_bytes(connection: Connection) -> int:
    return connection._transport.get_write_buffer_size()


async def largest(value: Callable[[], int], until: Callable[[], bool]) -> int:
    """The largest value seen before `until` holds."""
    most = 0
    async with asyncio.timeout(SECONDS):
        while not until():
            most = max(most, value())
            await asyncio.sleep(0.001)
    return most


# ------------------------------------------------------------------------------- slow readers


async def test_client_that_does_not_read_its_replies() -> None:
    """A bounded part of what it asked for is made ready. Others are served meanwhile, and when its
    session has expired the connection is closed."""
    async with door_replica(cluster=SHORT) as replica:
        other = await replica.open(timeout_ms=120_000)
        await other.create("/large", b"x" * DATA_BYTES)
        client = await replica.open(timeout_ms=SHORT.session_timeout_ms_min)
        connection = connection_of(replica, client)
        client.pause_reading()
        client.requests([(OpCode.GET_DATA, text("/large") + boolean(False), None)] * 900)
        await eventually(lambda: unsent_bytes(connection) > OUT_BYTES_MAX, SECONDS)
        for _ in range(20):
            await is_served(other)
        sessions = replica.state.sessions
        most = await largest(
            lambda: unsent_bytes(connection), lambda: client.session_id not in sessions
        )
        assert OUT_BYTES_MAX < most <= UNSENT_BYTES_MAX
        await eventually(lambda: replica.connections == 1, SECONDS)
        await is_served(other)


async def test_client_that_reads_again_gets_everything() -> None:
    async with door_replica() as replica:
        client = await replica.open()
        await client.create("/large", b"x" * DATA_BYTES)
        connection = connection_of(replica, client)
        client.pause_reading()
        answers = client.requests(
            [(OpCode.GET_DATA, text("/large") + boolean(False), None)] * 200
            + [(OpCode.SET_DATA, text("/large") + buffer(b"y") + int32(-1), None)]
        )
        await eventually(lambda: unsent_bytes(connection) > OUT_BYTES_MAX, SECONDS)
        assert not any(answer.done() for answer in answers)
        client.resume_reading()
        async with asyncio.timeout(SECONDS):
            replies = await asyncio.gather(*answers)
        assert {len(reply.body) for reply in replies[:-1]} == {4 + DATA_BYTES + 68}
        assert replies[-1].error == 0


async def test_client_that_does_not_read_its_events() -> None:
    """They are kept up to a bound; then it is closed, and its writer and other watchers go on."""
    few = limits(watch_buffer_events_max=200)
    async with door_replica(limits=few) as replica:
        writer, client, other = [await replica.open(timeout_ms=120_000) for _ in range(3)]
        await writer.create("/a")
        # Long paths fill the sockets soon, small ones the sooner.
        socket = client._transport.get_extra_info("socket")
        socket.setsockopt(SOL_SOCKET, SO_RCVBUF, 4_096)
        path = "/a/" + "x" * 3_000
        await writer.create(path)
        for watching in (client, other):
            await watching.add_watch("/a", WatchMode.PERSISTENT_RECURSIVE)
        client.pause_reading()
        written = 0
        while len(replica.door._connections) == 3:
            assert written < 20_000
            await asyncio.gather(
                *writer.requests(
                    [(OpCode.SET_DATA, text(path) + buffer(b"") + int32(-1), None)] * 100
                )
            )
            written += 100
            await other.sync()
        assert len(other.events) == written
        # Its session lives on: it comes again, and sets its watches as of what it knows.
        await is_served(await replica.attach(client))


# -------------------------------------------------------------------------------- connections


async def test_connections_per_address() -> None:
    """One more is closed without a word; when one has gone there is room again."""
    async with door_replica(limits=limits(connections_per_address_max=3)) as replica:
        clients = [await replica.open() for _ in range(3)]
        with pytest.raises((ConnectionEndedError, OSError)):
            await replica.open()
        for client in clients:
            await is_served(client)
        clients[0].abort()
        await eventually(lambda: replica.connections == 2, SECONDS)
        await is_served(await replica.open())


async def test_connections_of_all() -> None:
    async with door_replica(zookeeper_connections_max=3, limits=MANY_OPENINGS) as replica:
        clients = [await replica.open() for _ in range(3)]
        with pytest.raises((ConnectionEndedError, OSError)):
            await replica.open()
        clients[0].abort()
        await eventually(lambda: replica.connections == 2, SECONDS)
        await is_served(await replica.open())


async def test_a_thousand_connections_leave_nothing() -> None:
    """Opened, given watches and requests, and dropped, each in one of several ways."""
    async with door_replica(cluster=SHORT, limits=MANY_OPENINGS) as replica:
        other = await replica.open(timeout_ms=120_000)
        await other.create("/p")
        tasks = len(asyncio.all_tasks())
        hub = replica.local.server.hub
        for begin in range(0, 1_000, 100):
            clients = await asyncio.gather(
                *(replica.open(timeout_ms=SHORT.session_timeout_ms_min) for _ in range(100))
            )
            await asyncio.gather(*(drop(c, begin + n) for n, c in enumerate(clients)))
            replica.forget(clients)
            await other.set_data("/p", b"%d" % begin)
            await other.ping()
        clients.clear()
        await eventually(lambda: replica.connections == 1, SECONDS)
        await eventually(lambda: set(replica.state.sessions) == {other.session_id}, SECONDS)
        await other.sync()
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks, SECONDS)
        assert set(replica.door._of_session) == {other.session_id}
        assert replica.door._per_address == {"127.0.0.1": 1}
        statistics = hub.statistics()
        assert (statistics.watches, len(hub.table)) == (0, 0)
        assert replica.local.server.pipeline.statistics().reads_waiting == 0
        gc.collect()
        # The last one may still be the loop's.
        left = sum(isinstance(found, Connection) for found in gc.get_objects())
        assert left <= 2


async def drop(client: ZooKeeperConnection, number: int) -> None:
    await client.add_watch("/p", WatchMode.PERSISTENT_RECURSIVE)
    await client.get_data("/p", watch=True)
    kind = number % 4
    if kind == 0:
        await client.close_session()
    elif kind == 1:
        client.requests([(OpCode.SYNC, text("/"), None), (OpCode.GET_DATA, text("/p\0"), None)])
        client.abort()
    elif kind == 2:
        client.send(b"\0\0\0\x20half a packet")
        client.close()
    else:
        client.send(int32(-1))
    await client.wait_closed()


class _Low:
    """A disk that has no room left. Ref: DiskSpace."""

    is_low = True

    def check_write(self, op: Op) -> None:
        if not isinstance(op, DeleteOp):
            raise refusal("disk_free", "disk space is low", 1)


async def test_a_full_disk_refuses_each_write_by_itself() -> None:
    """All of them came at once; what frees space is taken."""
    async with door_replica() as replica:
        client = await replica.open()
        await client.create("/a")
        replica.door.pipeline.admission.disk = _Low()  # type: ignore[assignment]
        answers = [
            client.request(OpCode.SET_DATA, text("/") + buffer(b"x") + int32(-1)),
            client.request(OpCode.DELETE, text("/a") + int32(-1)),
            client.request(OpCode.SET_DATA, text("/") + buffer(b"x") + int32(-1)),
        ]
        assert [(await answer).error for answer in answers] == [QUOTA_EXCEEDED, 0, QUOTA_EXCEEDED]
        assert replica.state.znodes["/"].data == b""
        replica.door.pipeline.admission.disk = None
        await is_served(client)


async def test_nothing_is_read_without_a_majority() -> None:
    """Not even what needs not wait for anything."""
    async with door_replica() as replica:
        client = await replica.open()
        assert (await client.request(OpCode.EXISTS, text("/") + b"\0")).error == 0
        replica.door.pipeline._confirmed_age_s_max = -1.0
        with pytest.raises(ConnectionEndedError):
            await client.request(OpCode.EXISTS, text("/") + b"\0")
