"""What a client must not send: it costs that client an answer or its connection, and nobody else
anything. (What is sent at random: test_door_fuzz.py.)

Ref: ZooKeeper KeeperException.Code, NIOServerCnxn.readLength.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from coordsvc.testing.zookeeper_client import AUTH_XID, ZooKeeperError
from coordsvc.testing.zookeeper_connection import ConnectionEndedError
from coordsvc.testing.zookeeper_records import (
    WORLD,
    OpCode,
    boolean,
    buffer,
    create_body,
    create_of,
    int32,
    int64,
    multi_body,
    request,
    text,
    texts,
)
from tests.unit.server.harness import eventually
from tests.unit.server.zookeeper.door_harness import (
    SECONDS,
    SHORT,
    DoorHarness,
    door_replica,
    is_served,
    limits,
)

PACKET_BYTES_MAX = 0xFFFFF
MARSHALLING_ERROR, UNIMPLEMENTED, BAD_ARGUMENTS = -5, -6, -8
AUTH_FAILED, RECONFIG_DISABLED = -115, -123


@pytest.fixture
async def replica() -> AsyncIterator[DoorHarness]:
    async with door_replica(limits=limits()) as replica:
        yield replica


# -------------------------------------------------------------------------- unknown requests


@pytest.mark.parametrize(
    ("op", "code"),
    [
        (77, UNIMPLEMENTED),
        (-2, UNIMPLEMENTED),
        (2**31 - 1, UNIMPLEMENTED),
        (-(2**31), UNIMPLEMENTED),
        (0, UNIMPLEMENTED),
        (OpCode.CHECK, UNIMPLEMENTED),
        (OpCode.DELETE_CONTAINER, UNIMPLEMENTED),
        (OpCode.CREATE_SESSION, UNIMPLEMENTED),
        (OpCode.SASL, UNIMPLEMENTED),
        (OpCode.ERROR, UNIMPLEMENTED),
        (OpCode.RECONFIG, RECONFIG_DISABLED),
    ],
)
async def test_what_is_not_served(replica: DoorHarness, op: int, code: int) -> None:
    """The answer keeps its place among the others, and the connection is of use afterwards."""
    client = await replica.open()
    first, unknown, last = client.requests(
        [
            (OpCode.SYNC, text("/"), None),
            (op, text("/") + int32(0), None),
            (OpCode.CREATE, create_body("/a", b"", 0, WORLD), None),
        ]
    )
    assert (await unknown).error == code and not (await unknown).body
    assert (await first).error == (await last).error == 0
    assert [reply.xid for reply in client.replies] == [1, 2, 3]


# ------------------------------------------------------------------------- malformed requests


@pytest.mark.parametrize(
    ("op", "body"),
    [
        (OpCode.CREATE, b""),
        (OpCode.CREATE, text("/x")),
        (OpCode.CREATE, create_body("/x", b"", 0, WORLD)[:-1]),
        (OpCode.CREATE, int32(2**31 - 1) + b"/x"),
        (OpCode.CREATE, int32(-7) + b"/x"),
        (OpCode.CREATE, text("/x") + buffer(b"") + int32(2**31 - 1) + int32(0)),
        (OpCode.DELETE, text("/x") + b"\0\0"),
        (OpCode.SET_DATA, text("/x") + int32(2**31 - 1) + b"x"),
        (OpCode.GET_DATA, text("/x")),
        (OpCode.GET_CHILDREN2, int32(100) + b"/x\0"),
        (OpCode.MULTI, b""),
        (OpCode.MULTI, int32(1) + boolean(False) + int32(-1)),
        (OpCode.MULTI, multi_body([create_of("/x")])[:-9]),
        (OpCode.MULTI, int32(5) + boolean(True)),
        (OpCode.SET_WATCHES, int64(0) + texts(["/x"]) + int32(2**31 - 1)),
        (OpCode.SET_WATCHES2, int64(0) + texts(["/x"]) + texts([])),
        (OpCode.AUTH, b"\0"),
        (OpCode.ADD_WATCH, text("/x")),
    ],
)
async def test_body_that_cannot_be_read(replica: DoorHarness, op: int, body: bytes) -> None:
    """It is told so, does nothing, and what came before it is answered; the connection is of use
    afterwards, because where the next packet begins is known."""
    client = await replica.open()
    before = client.request(OpCode.SYNC, text("/"))
    assert (await client.request(op, body)).error == MARSHALLING_ERROR
    assert (await before).error == 0
    await is_served(client)
    assert set(replica.state.znodes) == {"/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"}


async def test_bad_arguments_are_answers(replica: DoorHarness) -> None:
    """What can be read and cannot be done is refused; the connection lives."""
    client = await replica.open()
    await client.create("/a")
    for body in (
        create_body("", b"", 0, WORLD),
        create_body("a", b"", 0, WORLD),
        create_body("/b", b"", 99, WORLD),
        create_body("/a/", b"", 0, WORLD),
        create_body("/b\0", b"", 0, WORLD),
        # No UTF-8: ZooKeeper reads it as U+FFFD, which it refuses.
        int32(3) + b"/\xff\xfe" + create_body("", b"", 0, WORLD)[4:],
    ):
        assert (await client.request(OpCode.CREATE, body)).error == BAD_ARGUMENTS
    await is_served(client)


@pytest.mark.parametrize("length", [0, 1, 7, -1, -(2**31), PACKET_BYTES_MAX + 1, 2**31 - 1])
async def test_length_that_no_packet_has(replica: DoorHarness, length: int) -> None:
    """That connection is closed, before anything is kept for it; the session lives on."""
    client, other = await replica.open(), await replica.open()
    under_way = client.request(OpCode.EXISTS, text("/") + b"\0")
    assert (await under_way).error == 0
    client.send(int32(length))
    await client.wait_closed()
    await is_served(other)
    await is_served(await replica.attach(client))


async def test_a_write_before_what_is_no_packet_is_done(replica: DoorHarness) -> None:
    """It came first, though both came at once."""
    client = await replica.open()
    body = text("/") + buffer(b"written") + int32(-1)
    client.send(request(1, OpCode.SET_DATA, body) + int32(-1))
    await client.wait_closed()
    await eventually(lambda: replica.state.znodes["/"].data == b"written", SECONDS)


async def test_largest_packet(replica: DoorHarness) -> None:
    """As in ZooKeeper, jute.maxbuffer is what a packet has at most, and one with as much passes."""
    client = await replica.open()
    empty = len(request(1, OpCode.CREATE, create_body("/a", b"", 0, WORLD))) - 4
    data = bytes(PACKET_BYTES_MAX - empty)
    assert await client.create("/a", data) == "/a"
    assert (await client.get_data("/a"))[0] == data
    with pytest.raises(ConnectionEndedError):
        await client.create("/b", data + b"x")
    assert "/b" not in replica.state.znodes


async def test_half_a_packet_then_the_rest(replica: DoorHarness) -> None:
    """Others are served in between, for as long as it takes."""
    client, other = await replica.open(), await replica.open()
    whole = request(1, OpCode.CREATE, create_body("/a", b"x" * 100_000, 0, WORLD))
    answer = client._expect(1)
    client.send(whole[: len(whole) // 2])
    for _ in range(20):
        await is_served(other)
    client.send(whole[len(whole) // 2 :])
    assert (await answer).error == 0


@pytest.mark.parametrize("part", [1, 4, 30], ids=["in the length", "behind it", "in the body"])
async def test_half_a_packet_then_silence(part: int) -> None:
    """A client that was stopped in the middle is one that is silent: its session expires, and the
    connection ends."""
    async with door_replica(cluster=SHORT) as replica:
        client = await replica.open(timeout_ms=SHORT.session_timeout_ms_min)
        await client.create("/e", flags=1)
        client.send(request(9, OpCode.CREATE, create_body("/late", b"", 0, WORLD))[:part])
        await client.wait_closed()
        assert client.session_id not in replica.state.sessions
        assert "/e" not in replica.state.znodes and "/late" not in replica.state.znodes
        await eventually(lambda: not replica.connections, SECONDS)


# ----------------------------------------------------------------------------- authentication


@pytest.mark.parametrize(
    ("scheme", "credential"),
    [("kerberos", b"a:b"), ("", b""), ("super", b"a"), ("world", b"anyone"), ("auth", b"a:b")],
)
async def test_credential_that_proves_nothing(
    replica: DoorHarness, scheme: str, credential: bytes
) -> None:
    """AUTHFAILED, then the end of the connection; the session lives on."""
    client = await replica.open()
    with pytest.raises(ZooKeeperError) as told:
        await client.add_auth(scheme, credential)
    assert told.value.code == AUTH_FAILED
    await client.wait_closed()
    assert [reply.xid for reply in client.replies] == [AUTH_XID]
    await is_served(await replica.attach(client))


async def test_identities_are_the_connections(replica: DoorHarness) -> None:
    """What one connection has proven, another of the same session has not."""
    client = await replica.open()
    await client.add_auth("digest", b"owner:secret")
    assert ("digest", "owner") in await client.who_am_i()
    again = await replica.attach(client)
    assert [scheme for scheme, _ in await again.who_am_i()] == ["ip"]
