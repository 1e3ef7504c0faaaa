"""A session over its streams: kept alive, moved to other replicas, and lost when it must be."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from coordsvc.client.client import Client
from coordsvc.client.records import SessionState
from coordsvc.errors import (
    Applied,
    BadArgumentsError,
    CoordError,
    ErrorCode,
    LimitExceededError,
    SessionError,
    SessionExpiredError,
    SessionMovedError,
    UnavailableError,
)
from coordsvc.testing.ports import free_port
from tests.unit.client.fake_replica import (
    PASSWORD,
    PATIENCE_SECONDS,
    SESSION_ID,
    FakeReplica,
    Item,
    go_away,
    numbers,
    paths,
    pong,
    refusal,
    reply,
)
from tests.unit.client.opening import Connect, opened


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def outcome(future: asyncio.Future[object]) -> CoordError:
    with pytest.raises(CoordError) as raised:
        await future
    return raised.value


# --------------------------------------------------------------------------------- opening, closing


async def test_the_hello_of_a_new_session(replicas: list[FakeReplica]) -> None:
    client = Client(replicas[0].endpoint, session_timeout_ms=4_000, client_name="me")
    assert client.state is SessionState.CLOSED
    starting = asyncio.create_task(client.start())
    stream = await replicas[0].accept()
    hello = await stream.welcome(timeout_ms=5_000)
    await starting
    assert (hello.timeout_ms, hello.client_name) == (4_000, "me")
    assert not hello.HasField("credentials")
    assert (client.state, client.session_id) == (SessionState.CONNECTED, SESSION_ID)
    assert (client.session_timeout_ms, client.zxid) == (5_000, 10)
    await client._shut()


async def test_nobody_there_is_said_soon() -> None:
    client = Client(f"127.0.0.1:{free_port()}", timeout_ms=200)
    with pytest.raises(UnavailableError):
        await client.start()
    assert client.state is SessionState.LOST
    with pytest.raises(UnavailableError):
        await client.exists("/a")


async def test_a_hello_that_is_refused_for_good_is_not_repeated(
    replicas: list[FakeReplica],
) -> None:
    client = Client(replicas[0].endpoint, client_name="x" * 300)
    starting = asyncio.create_task(client.start())
    stream = await replicas[0].accept()
    await stream.hello()
    stream.end(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorCode.LIMIT_EXCEEDED)
    with pytest.raises(LimitExceededError):
        await starting
    assert not replicas[0].has_stream


async def test_a_replica_without_a_quorum_is_left_for_another(
    replicas: list[FakeReplica],
) -> None:
    client = Client([each.endpoint for each in replicas], randomize_endpoints=False)
    starting = asyncio.create_task(client.start())
    stream = await replicas[0].accept()
    await stream.hello()
    stream.end(grpc.StatusCode.UNAVAILABLE, ErrorCode.NO_QUORUM)
    await (await replicas[1].accept()).welcome()
    await starting
    assert client.endpoint == replicas[1].endpoint
    await client._shut()


async def test_a_replica_that_is_full_does_not_cost_the_session(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """Its limit is its own; the session lives, and the next replica has room."""
    client, stream = await connect()
    stream.cut()
    full = await replicas[1].accept()
    await full.hello()
    full.end(grpc.StatusCode.RESOURCE_EXHAUSTED, ErrorCode.LIMIT_EXCEEDED)
    hello = await (await replicas[0].accept()).welcome()
    assert hello.credentials.session_id == SESSION_ID
    await client.wait_for_state(SessionState.CONNECTED)


async def test_closing_is_the_last_write(connect: Connect) -> None:
    client, stream = await connect()
    write = client.nowait.set_data("/a", b"x")
    closing = asyncio.create_task(client.close())
    operations = await stream.operations(2)
    assert operations[1].HasField("close_session") and numbers(operations) == [1, 2]
    stream.send(*(reply(each) for each in operations))
    stream.end(None)
    await closing
    assert write.done() and client.state is SessionState.CLOSED
    with pytest.raises(SessionExpiredError):
        await client.exists("/a")


async def test_a_session_that_has_expired_is_closed(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """Such as by a close whose answer was lost."""
    client, stream = await connect()
    closing = asyncio.create_task(client.close())
    await stream.operations(1)
    stream.cut()
    other = await replicas[1].accept()
    await other.hello()
    other.end(grpc.StatusCode.FAILED_PRECONDITION, ErrorCode.SESSION_EXPIRED)
    await closing


# ----------------------------------------------------------------------------------- kept alive


async def test_pings_leave_each_third_of_the_timeout_also_under_load(
    replicas: list[FakeReplica],
) -> None:
    """Other requests prove nothing to the leader. By a clock that stands still but for the test:
    no ping leaves before it is due."""
    clock = Clock()
    client = Client(replicas[0].endpoint, clock=clock)
    stream = await opened(client, replicas[0], timeout_ms=3_000)
    clock.now += 0.9
    client.nowait.exists("/a")
    assert not (await stream.frame()).HasField("ping")
    clock.now += 0.2
    client.nowait.exists("/a")
    frame = await stream.frame()
    assert frame.HasField("ping")
    await client._shut()


async def test_a_client_takes_the_clock_that_is_there_when_it_is_made(
    replicas: list[FakeReplica], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one that was there when the library was imported: a test may have its own time."""
    clock = Clock()
    client = Client(replicas[0].endpoint)
    await opened(client, replicas[0], timeout_ms=60_000)
    assert client.state is SessionState.CONNECTED
    await client._shut()
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: clock.now)
        patched = Client(replicas[0].endpoint)
    await opened(patched, replicas[0], timeout_ms=60_000)
    clock.now += 61.0
    assert patched.state is SessionState.LOST
    await patched._shut()


async def test_an_idle_client_pings(connect: Connect) -> None:
    client, stream = await connect(session_ms=1_500)
    before = client._keeper
    assert before is not None
    lost_at = before.conversation.lifetime.lost_at
    stream.send(pong(await stream.ping()))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while before.conversation.lifetime.lost_at == lost_at:
            await asyncio.sleep(0)


async def test_a_session_is_lost_by_the_clients_own_clock(replicas: list[FakeReplica]) -> None:
    """One timeout after the hello was sent, though the stream stands and answers come: at the
    first look, not when a timer gets round to it."""
    clock = Clock()
    client = Client(replicas[0].endpoint, clock=clock)
    stream = await opened(client, replicas[0], timeout_ms=3_000)
    states: list[SessionState] = []
    client.add_listener(states.append)
    sent = client.nowait.set_data("/a", b"x")
    await stream.operations(1)
    unsent = client.nowait.set_data("/b", b"x")
    clock.now += 2.999
    assert client.state is SessionState.CONNECTED
    clock.now += 0.001
    assert client.state is SessionState.LOST
    assert states == [SessionState.LOST]
    unknown, not_applied = await outcome(sent), await outcome(unsent)
    assert isinstance(unknown, SessionExpiredError) and isinstance(not_applied, SessionExpiredError)
    assert (unknown.applied, not_applied.applied) == (Applied.UNKNOWN, Applied.NO)
    with pytest.raises(SessionExpiredError):
        await client.exists("/a")
    with pytest.raises(SessionExpiredError):
        await client.wait_for_state(SessionState.CONNECTED)
    await stream.gone()
    await client.close()


async def test_a_session_that_finds_no_replica_is_lost_when_its_time_is_up(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect(session_ms=600)
    states: list[SessionState] = []
    client.add_listener(states.append)
    for replica in replicas:
        await replica.stop()
    await client.wait_for_state(SessionState.LOST)
    assert states == [SessionState.SUSPENDED, SessionState.LOST]


async def test_a_replica_that_answers_no_pings_is_left_in_time(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """As one that was stopped: its connection stands."""
    client, stream = await connect(session_ms=1_500)
    await stream.ping()
    other = await replicas[1].accept()
    hello = await other.welcome()
    assert hello.credentials.session_id == SESSION_ID
    assert client.state is not SessionState.LOST
    await stream.gone()


# ----------------------------------------------------------------------------------- moved about


async def test_it_goes_to_another_replica_with_its_credentials_and_what_it_has_seen(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    states: list[SessionState] = []
    client.add_listener(states.append)
    read = client.nowait.exists("/a")
    (operation,) = await stream.operations(1)
    stream.send(reply(operation, zxid=123))
    await read
    stream.cut()
    other = await replicas[1].accept()
    hello = await other.welcome(zxid=130)
    assert hello.credentials.session_id == SESSION_ID and hello.credentials.password == PASSWORD
    assert (hello.last_zxid, hello.timeout_ms, hello.client_name) == (123, 0, "")
    await client.wait_for_state(SessionState.CONNECTED)
    assert states == [SessionState.SUSPENDED, SessionState.CONNECTED]
    assert client.zxid == 130


async def test_reads_are_sent_again(connect: Connect, replicas: list[FakeReplica]) -> None:
    client, stream = await connect()
    read = client.nowait.exists("/a")
    await stream.operations(1)
    stream.cut()
    other = await replicas[1].accept()
    await other.welcome()
    (operation,) = await other.operations(1)
    other.send(reply(operation))
    assert await read is None


async def test_go_away_loses_no_request(connect: Connect, replicas: list[FakeReplica]) -> None:
    """What was sent is still answered there; what is submitted afterwards goes to another one."""
    client, stream = await connect()
    before = client.nowait.set_data("/before", b"x")
    (operation,) = await stream.operations(1)
    stream.send(go_away())
    keeper = client._keeper
    assert keeper is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while keeper.conversation.leave_by is None:
            await asyncio.sleep(0)
    after = client.nowait.set_data("/after", b"x")
    assert not replicas[1].has_stream
    stream.send(reply(operation))
    await before
    other = await replicas[1].accept()
    await other.welcome()
    operations = await other.operations(1)
    assert (paths(operations), numbers(operations)) == (["/after"], [2])
    other.send(reply(operations[0]))
    await after
    assert stream.frames.empty()


async def test_a_replica_that_owes_an_answer_and_is_silent_is_asked_and_left(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """Long before a ping of a session of two minutes would be due."""
    client, stream = await connect(session_ms=120_000)
    write = client.nowait.set_data("/a", b"x")
    await stream.operations(1)
    began = time.monotonic()
    await stream.ping()
    other = await replicas[1].accept()
    await other.welcome()
    (operation,) = await other.operations(1)
    assert time.monotonic() - began < 20
    other.send(reply(operation))
    await write
    await stream.gone()


async def test_a_replica_that_answers_the_ping_is_waited_for(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """It is slow, not dead."""
    client, stream = await connect(session_ms=120_000)
    write = client.nowait.set_data("/a", b"x")
    (operation,) = await stream.operations(1)
    for _ in range(2):
        stream.send(pong(await stream.ping()))
    stream.send(reply(operation))
    await write
    assert not replicas[1].has_stream


async def test_a_session_taken_over_by_another_client_is_lost(connect: Connect) -> None:
    client, stream = await connect()
    write = client.nowait.set_data("/a", b"x")
    await stream.operations(1)
    stream.end(grpc.StatusCode.FAILED_PRECONDITION, ErrorCode.SESSION_MOVED)
    error = await outcome(write)
    assert isinstance(error, SessionMovedError) and error.applied is Applied.UNKNOWN
    assert client.state is SessionState.LOST
    with pytest.raises(SessionMovedError):
        await client.exists("/a")


async def test_its_own_late_hello_does_not_cost_the_session(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """A hello that was given up may be done later, by a replica that was cut off: then the session
    was moved by nobody else. It is attached anew, once; the next time it is lost."""
    client, stream = await connect(session_ms=6_000)
    stream.cut()
    silent = await replicas[1].accept()
    await silent.hello()
    silent.cut()
    third = await replicas[0].accept()
    await third.welcome()
    third.end(grpc.StatusCode.FAILED_PRECONDITION, ErrorCode.SESSION_MOVED)
    fourth = await replicas[1].accept()
    await fourth.welcome()
    await client.wait_for_state(SessionState.CONNECTED)
    fourth.end(grpc.StatusCode.FAILED_PRECONDITION, ErrorCode.SESSION_MOVED)
    await client.wait_for_state(SessionState.LOST)


async def test_an_expired_session_is_lost(connect: Connect, replicas: list[FakeReplica]) -> None:
    client, stream = await connect()
    stream.cut()
    other = await replicas[1].accept()
    await other.hello()
    other.end(grpc.StatusCode.FAILED_PRECONDITION, ErrorCode.SESSION_EXPIRED)
    await client.wait_for_state(SessionState.LOST)
    assert not replicas[0].has_stream


async def test_a_fault_of_the_protocol_is_not_repeated_for_ever(connect: Connect) -> None:
    client, stream = await connect()
    stream.end(grpc.StatusCode.INVALID_ARGUMENT, ErrorCode.BAD_ARGUMENTS)
    with pytest.raises(BadArgumentsError):
        await client.wait_for_state(SessionState.LOST)
        await client.exists("/a")


async def test_numbers_that_do_not_fit_end_the_session(connect: Connect) -> None:
    """Rather than be sent again and again."""
    client, stream = await connect()
    write = client.nowait.set_data("/a", b"x")
    (operation,) = await stream.operations(1)
    stream.send(refusal(operation, ErrorCode.REQUEST_OUT_OF_ORDER, zxid=9))
    assert isinstance(await outcome(write), SessionError)
    assert client.state is SessionState.LOST


async def test_another_cluster_makes_old_zxids_meaningless(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """A replica of a restored cluster has not got what was seen before it, and never will."""
    client, stream = await connect(zxid=500, cluster_id=5)
    replicas[1].cluster_id = 6
    stream.cut()
    restored = await replicas[1].accept()
    assert (await restored.hello()).last_zxid == 500
    restored.end(grpc.StatusCode.UNAVAILABLE, ErrorCode.NOT_CAUGHT_UP)
    back = await replicas[0].accept()
    assert (await back.welcome(zxid=3, cluster_id=6)).last_zxid == 0
    await client.wait_for_state(SessionState.CONNECTED)
    assert client.zxid == 3


async def test_an_item_of_a_later_version_is_passed_over(connect: Connect) -> None:
    client, stream = await connect()
    read = client.nowait.exists("/a")
    (operation,) = await stream.operations(1)
    stream.send(Item(), reply(operation))
    assert await read is None
