"""Random and mutated packets at the door: whatever comes, that connection at most is ended. Others
are served, the replica lives, and nothing is left of those that are gone."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import pytest

from coordsvc.server.zookeeper import connection
from coordsvc.server.zookeeper.asking import Read
from coordsvc.server.zookeeper.jute import Reader
from coordsvc.server.zookeeper.requests import READS, ReadKind
from coordsvc.testing.zookeeper_client import ZooKeeperConnection
from coordsvc.testing.zookeeper_records import (
    WORLD,
    OpCode,
    acls,
    boolean,
    buffer,
    connect_request,
    create_body,
    create_of,
    delete_of,
    get_data_of,
    int32,
    int64,
    multi_body,
    request,
    set_data_of,
    text,
    texts,
)
from tests.unit.server.harness import eventually
from tests.unit.server.zookeeper.door_harness import (
    MANY_OPENINGS,
    SECONDS,
    SHORT,
    DoorHarness,
    door_replica,
    is_served,
)

CONNECTIONS = 60
"""Of each test and seed."""

ROUND = 10
"""Connections at a time."""


def valid_requests(rng: random.Random) -> list[bytes]:
    """One packet of each kind, about a few znodes."""
    path = text(rng.choice(("/", "/a", "/a/b", "/c", "/zookeeper/config")))
    version = int32(rng.choice((-1, 0, 1, 7)))
    paths = texts(["/a", "/c"])
    bodies = [
        (OpCode.CREATE, create_body("/a", b"x", rng.randrange(5), WORLD)),
        (OpCode.CREATE2, create_body("/a/b", None, 2, WORLD)),
        (OpCode.DELETE, path + version),
        (OpCode.EXISTS, path + boolean(True)),
        (OpCode.GET_DATA, path + boolean(True)),
        (OpCode.SET_DATA, path + buffer(b"y") + version),
        (OpCode.GET_ACL, path),
        (OpCode.SET_ACL, path + acls(WORLD) + version),
        (OpCode.GET_CHILDREN, path + boolean(True)),
        (OpCode.GET_CHILDREN2, path + boolean(False)),
        (OpCode.SYNC, path),
        (OpCode.MULTI, multi_body([create_of("/c"), set_data_of("/a", b""), delete_of("/c")])),
        (OpCode.MULTI_READ, multi_body([get_data_of("/a"), get_data_of("/c")])),
        (OpCode.CHECK_WATCHES, path + int32(3)),
        (OpCode.REMOVE_WATCHES, path + int32(3)),
        (OpCode.ADD_WATCH, path + int32(rng.randrange(2))),
        (OpCode.SET_WATCHES, int64(0) + paths * 3),
        (OpCode.SET_WATCHES2, int64(rng.randrange(5)) + paths * 5),
        (OpCode.GET_EPHEMERALS, path),
        (OpCode.GET_ALL_CHILDREN_NUMBER, path),
        (OpCode.WHO_AM_I, b""),
        (OpCode.AUTH, int32(0) + text("digest") + buffer(b"me:secret")),
        (OpCode.PING, b""),
    ]
    return [request(number, op, body) for number, (op, body) in enumerate(bodies, 1)]


def mutated(packet: bytes, rng: random.Random) -> bytes:
    """A little of it is something else; often still a packet of its length."""
    data = bytearray(packet)
    kind = rng.randrange(6)
    if kind == 0:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        at = rng.randrange(len(data))
        data[at : at + 4] = rng.choice((b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0"))
    elif kind == 2:
        del data[rng.randrange(4, len(data)) :]
        data[:4] = int32(len(data) - 4)
    elif kind == 3:
        data += rng.randbytes(rng.randrange(1, 40))
        data[:4] = int32(len(data) - 4)
    elif kind == 4:
        data[8:12] = int32(rng.choice((-100, -11, 0, 10, 13, 16, 20, 23, 102, 999)))
    else:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def garbage(rng: random.Random) -> list[bytes]:
    """Not even a handshake."""
    first = rng.choice((b"", b"ruok", b"GET / HTTP/1.1\r\n\r\n", int32(44), int32(0), int32(-1)))
    return [first + rng.randbytes(rng.randrange(200))]


def half_valid(rng: random.Random) -> list[bytes]:
    """A handshake, often a valid one, and requests of which every second one is mutated."""
    connect = connect_request(
        timeout_ms=SHORT.session_timeout_ms_min, read_only=rng.choice((None, False, True))
    )
    if rng.random() < 0.2:
        connect = mutated(connect, rng)
    packets = valid_requests(rng)
    rng.shuffle(packets)
    return [connect, *(p if rng.random() < 0.5 else mutated(p, rng) for p in packets)]


async def send(replica: DoorHarness, packets: list[bytes], rng: random.Random) -> None:
    """In pieces of any length, and then gone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", replica.port)
    data = b"".join(packets)
    try:
        while data:
            size = rng.randrange(1, 400)
            writer.write(data[:size])
            data = data[size:]
            await writer.drain()
        if rng.random() < 0.5:
            # Whatever is answered is taken, until it is quiet or at an end.
            async with asyncio.timeout(0.05):
                while await reader.read(65_536):
                    pass
    except (ConnectionError, TimeoutError):
        pass  # The door has ended it, or still waits for the rest of a packet.
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("make", [garbage, half_valid])
@pytest.mark.parametrize("seed", range(3))
async def test_only_the_connection_suffers(
    make: Callable[[random.Random], list[bytes]], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(seed)
    async with door_replica(cluster=SHORT, limits=MANY_OPENINGS) as replica:
        other = await replica.open(timeout_ms=120_000)
        await other.create("/a")
        tasks = len(asyncio.all_tasks())
        sessions = 0
        with caplog.at_level(logging.ERROR):
            for _ in range(CONNECTIONS // ROUND):
                packets = [make(rng) for _ in range(ROUND)]
                async with asyncio.timeout(SECONDS):
                    await asyncio.gather(*(send(replica, each, rng) for each in packets))
                sessions = max(sessions, len(replica.state.sessions) - 1)
                await _serves(other)
        bugs = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert not bugs, "a bug, or the end of the replica"
        assert (make is garbage) == (sessions == 0)
        await _nothing_is_left(replica, other, tasks)


@pytest.mark.parametrize("where", ["decode", "answer", "behind a write"])
async def test_a_bug_that_a_request_finds_ends_its_connection_alone(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And is told in the log, with its stack; also when the read is done amid the entries that the
    replica applies."""

    def bug(*_: object) -> Read:
        raise RuntimeError("a bug of ours")

    def decode(reader: Reader) -> Read:
        return bug() if where == "decode" else Read(bug, is_plain=where != "answer")

    broken = {**READS, OpCode.WHO_AM_I: ReadKind("who_am_i", decode)}
    monkeypatch.setattr(connection, "READS", broken)
    async with door_replica() as replica:
        other, client = await replica.open(), await replica.open()
        packets = [request(1, OpCode.WHO_AM_I)]
        if where == "behind a write":
            packets.insert(0, request(2, OpCode.CREATE, create_body("/a", b"", 0, WORLD)))
        client.send(b"".join(packets))
        async with asyncio.timeout(SECONDS):
            await client.wait_closed()
        await _serves(other)
        assert replica.local.failure is None
        assert ("/a" in replica.state.znodes) == (where == "behind a write")
        assert replica.door.pipeline.statistics().reads_waiting == 0
        # The session is not to blame, and goes on.
        await is_served(await replica.attach(client))
    [told] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert told.message == "zookeeper.connection_failed"
    assert told.exc_info is not None and isinstance(told.exc_info[1], RuntimeError)


async def _serves(other: ZooKeeperConnection) -> None:
    async with asyncio.timeout(SECONDS):
        await other.ping()
        await is_served(other)


async def _nothing_is_left(replica: DoorHarness, other: ZooKeeperConnection, tasks: int) -> None:
    await eventually(lambda: replica.connections == 1, SECONDS)
    await eventually(lambda: set(replica.state.sessions) == {other.session_id}, SECONDS)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, SECONDS)
    server = replica.local.server
    assert server.hub.statistics().watches == 0
    assert server.pipeline.statistics().reads_waiting == 0
    assert server.pipeline.statistics().writes_pending == 0
