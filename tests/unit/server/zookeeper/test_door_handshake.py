"""How a connection to the door gets its session, and who gets none.

Ref: ZooKeeper ZooKeeperServer.processConnectRequest, finishSessionInit; Programmer's Guide,
"ZooKeeper Sessions".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordsvc.server import pipeline
from coordsvc.server.zookeeper import connection as door_connection
from coordsvc.testing.zookeeper_client import ZooKeeperConnection
from coordsvc.testing.zookeeper_connection import ConnectionEndedError, SessionRefusedError
from coordsvc.testing.zookeeper_records import (
    WORLD,
    OpCode,
    buffer,
    connect_request,
    create_body,
    int32,
    packet,
    request,
    text,
)
from coordsvc.v1 import common_pb2, coordination_pb2
from tests.unit.server.harness import eventually
from tests.unit.server.zookeeper.door_harness import SECONDS, DoorHarness, door_replica, is_served

SESSION_MOVED = -118


@pytest.fixture
async def replica() -> AsyncIterator[DoorHarness]:
    async with door_replica() as replica:
        yield replica


async def refused(replica: DoorHarness, session_id: int, password: bytes) -> ZooKeeperConnection:
    """What a connection is told that asks for this session: id 0, timeout 0, and the end."""
    connection = await replica.connect()
    connection.send(connect_request(timeout_ms=5_000, session_id=session_id, password=password))
    with pytest.raises(SessionRefusedError):
        await connection.wait_connected()
    await connection.wait_closed()
    assert (connection.session_id, connection.timeout_ms) == (0, 0)
    assert connection.password == bytes(16) and not connection.inbox
    return connection


# ------------------------------------------------------------------------------ new sessions


async def test_new_session(replica: DoorHarness) -> None:
    first, second = await replica.open(timeout_ms=5_000), await replica.open()
    assert first.session_id > 0 and first.session_id != second.session_id
    assert len(first.password) == 16 and first.password != second.password
    assert (first.protocol_version, first.timeout_ms, first.has_read_only) == (0, 5_000, True)
    assert set(replica.state.sessions) >= {first.session_id, second.session_id}
    await is_served(first)


async def test_client_without_the_read_only_flag(replica: DoorHarness) -> None:
    """From before 3.4: the answer has no such flag either, or it would be taken for the next
    packet's first byte."""
    old = await replica.open(read_only=None)
    assert not old.has_read_only
    await is_served(old)
    old.abort()
    again = await replica.attach(old, read_only=None)
    assert not again.has_read_only and again.session_id == old.session_id
    await is_served(again)


async def test_client_that_would_be_content_with_reads(replica: DoorHarness) -> None:
    """It gets all: no replica serves reads alone."""
    client = await replica.open(read_only=True)
    assert await client.create("/a") == "/a"


@pytest.mark.parametrize(
    ("wanted", "given"), [(-1, 1_000), (0, 1_000), (1, 1_000), (3_600_000, 120_000), (7_777, 7_777)]
)
async def test_timeout_is_clamped(replica: DoorHarness, wanted: int, given: int) -> None:
    """Also that of a session that is attached again: each connection asks anew."""
    client = await replica.open(timeout_ms=wanted)
    assert client.timeout_ms == replica.state.sessions[client.session_id].timeout_ms == given
    other = await replica.open(timeout_ms=50_000)
    again = await replica.attach(other, timeout_ms=wanted)
    assert again.timeout_ms == replica.state.sessions[other.session_id].timeout_ms == given


async def test_requests_right_behind_the_connect_request(replica: DoorHarness) -> None:
    """Nothing that comes before the session is there is lost."""
    client = await replica.connect()
    body = create_body("/a", b"", 0, WORLD)
    client.send(connect_request(timeout_ms=5_000))
    answers = client.requests(
        [(OpCode.CREATE, body, None), (OpCode.GET_CHILDREN, text("/") + b"\0", None)]
    )
    created, listed = [await answer for answer in answers]
    assert created.error == listed.error == 0
    assert text("a") in listed.body


async def test_connect_request_with_more_in_it(replica: DoorHarness) -> None:
    """Of a later version, perhaps: what is known of it is read."""
    client = await replica.connect()
    client.send(packet(connect_request(timeout_ms=5_000)[4:] + b"more"))
    await client.wait_connected()
    await is_served(client)


async def test_connect_request_byte_by_byte(replica: DoorHarness) -> None:
    client = await replica.connect()
    hello = connect_request(timeout_ms=5_000)
    for at in range(len(hello)):
        client.send(hello[at : at + 1])
        if at in (0, 3, 4, 30):
            # As a packet of its own on the wire.
            await is_served(await replica.open())
    await client.wait_connected()
    await is_served(client)


# ------------------------------------------------------------------------ sessions that exist


async def test_wrong_password(replica: DoorHarness) -> None:
    """It is told that there is no such session. Who has the session is not disturbed."""
    owner = await replica.open()
    for password in (bytes(16), b"", owner.password[:-1], owner.password + b"x"):
        await refused(replica, owner.session_id, password)
    await is_served(owner)


@pytest.mark.parametrize("session_id", [12_345, -1, -(2**63), 2**63 - 1])
async def test_unknown_session(replica: DoorHarness, session_id: int) -> None:
    await refused(replica, session_id, bytes(16))


async def test_session_that_has_ended_stays_so(replica: DoorHarness) -> None:
    """A new one is never given silently."""
    client = await replica.open()
    await client.close_session()
    before = set(replica.state.sessions)
    for _ in range(2):
        await refused(replica, client.session_id, client.password)
    assert set(replica.state.sessions) == before


async def test_client_that_has_seen_more(
    replica: DoorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer at all: it goes to another replica, with its session."""
    monkeypatch.setattr(pipeline, "MIN_ZXID_WAIT_S_MAX", 0.1)
    client = await replica.open()
    zxid = replica.state.zxid
    for session_id, password in ((0, bytes(16)), (client.session_id, client.password)):
        ahead = await replica.connect()
        ahead.send(
            connect_request(
                timeout_ms=5_000, session_id=session_id, password=password, last_zxid=zxid + 1_000
            )
        )
        with pytest.raises(ConnectionEndedError):
            await ahead.wait_connected()
        await ahead.wait_closed()
    await is_served(client)
    assert replica.state.zxid == zxid
    again = await replica.attach(client, last_zxid=zxid)
    await is_served(again)


async def test_session_goes_on_at_another_connection(replica: DoorHarness) -> None:
    """With its ephemerals, its id and its password."""
    client = await replica.open()
    await client.create("/e", flags=1)
    client.abort()
    again = await replica.attach(client)
    assert (again.session_id, again.password) == (client.session_id, client.password)
    assert await again.get_ephemerals() == ("/e",)
    assert (await again.exists("/e")).ephemeral_owner == client.session_id


async def test_older_connection_here_is_closed(replica: DoorHarness) -> None:
    """Nobody is left who could read it, as at one server of ZooKeeper. What comes on it has no
    effect; the session lives on at the newer one."""
    older = await replica.open()
    await older.create("/a", b"1")
    newer = await replica.attach(older)
    late = older.request(OpCode.SET_DATA, text("/a") + buffer(b"2") + int32(-1))
    await older.wait_closed()
    with pytest.raises(ConnectionEndedError):
        await late
    data, stat = await newer.get_data("/a")
    assert (data, stat.version) == (b"1", 0)
    assert replica.connections == 1


# ------------------------------------------------------------------------------- both doors


async def move_to_grpc(replica: DoorHarness, client: ZooKeeperConnection) -> Any:
    """Attach its session to a stream; the stream."""
    credentials = common_pb2.SessionCredentials(
        session_id=client.session_id, password=client.password
    )
    stream = replica.stub().Session()
    hello = coordination_pb2.SessionHello(credentials=credentials)
    await stream.write(coordination_pb2.SessionRequest(hello=hello))
    frame = await stream.read()
    assert frame.items[0].welcome.credentials.session_id == client.session_id
    return stream


async def test_session_of_the_grpc_door_attaches_here(replica: DoorHarness) -> None:
    """And is one session: its ephemerals are owned by it, whichever door they came through."""
    stub = replica.stub()
    opened = await stub.OpenSession(coordination_pb2.OpenSessionRequest(timeout_ms=10_000))
    context = common_pb2.RequestContext(session=opened.credentials)
    mode = common_pb2.CREATE_MODE_EPHEMERAL
    await stub.Create(coordination_pb2.CreateRequest(context=context, path="/g", mode=mode))
    client = await replica.open(
        session_id=opened.credentials.session_id, password=opened.credentials.password
    )
    await client.create("/z", flags=1)
    assert await client.get_ephemerals() == ("/g", "/z")
    await client.close_session()
    other = await replica.open()
    assert await other.get_children("/") == ("zookeeper",)


async def test_session_that_has_moved(replica: DoorHarness) -> None:
    """To the gRPC door: the next request is told SESSIONMOVED, nothing more is done, and the
    connection is closed; the session lives on over there."""
    client = await replica.open()
    await client.create("/z", flags=1)
    stream = await move_to_grpc(replica, client)
    late = client.requests(
        [(OpCode.CREATE, create_body(path, b"", 0, WORLD), None) for path in ("/b", "/c")]
    )
    assert (await late[0]).error == SESSION_MOVED
    await client.wait_closed()
    with pytest.raises(ConnectionEndedError):
        await late[1]
    znodes = replica.state.znodes
    assert "/z" in znodes and "/b" not in znodes and "/c" not in znodes
    stream.cancel()


@pytest.mark.parametrize("op", [OpCode.CLOSE_SESSION, OpCode.PING, OpCode.SYNC, 77])
async def test_nothing_is_done_for_a_session_that_has_moved(replica: DoorHarness, op: int) -> None:
    """Not even its end."""
    client = await replica.open()
    stream = await move_to_grpc(replica, client)
    xid = -2 if op == OpCode.PING else 1
    reply = await client.request(op, text("/") if op == OpCode.SYNC else b"", xid)
    assert (reply.error, reply.xid) == (SESSION_MOVED, xid)
    await client.wait_closed()
    assert client.session_id in replica.state.sessions
    stream.cancel()


async def test_no_event_for_a_session_that_has_moved(
    replica: DoorHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its watches are void, and one that asks nothing more is closed after a while."""
    monkeypatch.setattr(door_connection, "MOVED_S_MAX", 0.2)
    client, other = await replica.open(), await replica.open()
    await client.create("/a")
    await client.get_data("/a", watch=True)
    stream = await move_to_grpc(replica, client)
    await other.set_data("/a", b"x")
    await client.wait_closed()
    assert not client.events
    stream.cancel()


# --------------------------------------------------------------------- no connect request


@pytest.mark.parametrize(
    "first",
    [
        int32(0),
        int32(-1),
        int32(-(2**31)),
        int32(2**31 - 1),
        int32(1_025) + bytes(1_025),
        packet(b"\0"),
        packet(connect_request(timeout_ms=1)[4:-2]),
        request(1, OpCode.SYNC, text("/")),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=["0", "-1", "min", "max", "long", "1 byte", "short", "request", "http", "tls"],
)
async def test_something_else_than_a_connect_request(replica: DoorHarness, first: bytes) -> None:
    """The connection is closed without a word; others are served."""
    other = await replica.open()
    stranger = await replica.connect()
    stranger.send(first)
    await stranger.wait_closed()
    assert not stranger.inbox and stranger.protocol_version == -1
    await is_served(other)


@pytest.mark.parametrize(
    "first",
    [b"", b"\0\0", connect_request(timeout_ms=1)[:-1]],
    ids=["nothing", "half a length", "all but a byte"],
)
async def test_silence_instead_of_a_connect_request(
    replica: DoorHarness, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """It is not waited for, for ever."""
    monkeypatch.setattr(door_connection, "HANDSHAKE_S_MAX", 0.2)
    stranger = await replica.connect()
    stranger.send(first)
    await stranger.wait_closed()
    await eventually(lambda: not replica.connections, SECONDS)


async def test_client_that_leaves_before_its_session_is_open(replica: DoorHarness) -> None:
    """The session that nobody knows the password of is ended again."""
    for _ in range(20):
        client = await replica.connect()
        client.send(connect_request(timeout_ms=120_000))
        client.close()
    await eventually(lambda: not replica.connections and not replica.state.sessions, SECONDS)
