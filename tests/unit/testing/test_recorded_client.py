"""What a client does and is told stands in the history: at a real replica, and, where it matters
how an answer comes, at one that says what it is told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from coordsvc.client.records import SessionState
from coordsvc.errors import (
    BadArgumentsError,
    CoordError,
    ErrorCode,
    InternalError,
    NoNodeError,
    NoQuorumError,
    OutcomeUnknownError,
    ResultForgottenError,
    SessionExpiredError,
    ThrottledError,
)
from coordsvc.testing.history import (
    ERROR,
    OK,
    REFUSED,
    UNKNOWN,
    Event,
    Gap,
    Held,
    Invoke,
    Record,
    Recorder,
    Released,
    Return,
    Session,
    WatchEnd,
    WatchSet,
)
from coordsvc.testing.local_servers import LocalServers
from coordsvc.testing.recorded_client import Holds, RecordedClient
from coordsvc.testing.recording import outcome_of
from coordsvc.v1 import coordination_pb2, watch_pb2
from tests.unit.client.fake_replica import FakeReplica, FakeStream, Item, detail

RecordT = TypeVar("RecordT", bound=Record)

PATIENCE_SECONDS = 20.0


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(time.monotonic)


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[str]:
    async with LocalServers(str(tmp_path), 1) as servers:
        yield servers.servers[1].endpoint


@pytest.fixture
async def client(endpoint: str, recorder: Recorder) -> AsyncIterator[RecordedClient]:
    client = RecordedClient([endpoint], recorder, "c1")
    await client.open()
    yield client
    await client.close()


@pytest.fixture
async def replica() -> AsyncIterator[FakeReplica]:
    replica = FakeReplica()
    await replica.start()
    yield replica
    await replica.stop()


def of_kind(recorder: Recorder, kind: type[RecordT]) -> list[RecordT]:
    return [record for record in recorder.records if isinstance(record, kind)]


def last_return(recorder: Recorder) -> Return:
    return of_kind(recorder, Return)[-1]


async def fails(answer: asyncio.Future[Any]) -> CoordError:
    with pytest.raises(CoordError) as caught:
        await answer
    return caught.value


async def at_fake(
    replica: FakeReplica, recorder: Recorder, name: str = "c1", **more: Any
) -> tuple[RecordedClient, FakeStream]:
    """A client that is attached there."""
    client = RecordedClient([replica.endpoint], recorder, name, **more)
    opening = asyncio.create_task(client.open())
    stream = await replica.accept()
    await stream.welcome()
    await opening
    return client, stream


def reply(request_id: int, zxid: int, **result: Any) -> Item:
    return Item(reply=coordination_pb2.SessionReply(request_id=request_id, zxid=zxid, **result))


def event(watch_id: int, zxid: int) -> Item:
    return Item(
        event=watch_pb2.WatchEvent(
            watch_ids=[watch_id],
            type=watch_pb2.WATCH_EVENT_TYPE_DATA_CHANGED,
            path="/a",
            zxid=zxid,
            last_of_zxid=True,
        )
    )


# ---------------------------------------------------------------------------------- operations


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NoNodeError(zxid=7), ERROR),
        (NoNodeError(), REFUSED),
        (SessionExpiredError(zxid=7), REFUSED),
        (NoQuorumError(), REFUSED),
        (ThrottledError(), REFUSED),
        (OutcomeUnknownError(), UNKNOWN),
        (ResultForgottenError(zxid=7), UNKNOWN),
        (InternalError(), UNKNOWN),
    ],
)
def test_the_outcome_of_an_error(error: CoordError, outcome: str) -> None:
    """An error is an answer only when the state machine gave it."""
    assert outcome_of(error) == outcome


async def test_each_operation_is_there_with_its_result(
    client: RecordedClient, recorder: Recorder
) -> None:
    created = await client.create("/a", "c1.1", "ephemeral")
    await client.create("/q", None)
    sequential = await client.create("/q/n-", "c1.2", "persistent_sequential")
    written = await client.set_data("/a", "c1.3", 0)
    data = await client.get_data("/a", linearizable=True)
    await client.get_data("/q")
    await client.exists("/a")
    await client.exists("/missing")
    await client.get_children("/q")
    await client.sync()
    await client.multi(
        [
            {"name": "check", "path": "/a", "version": 1},
            {"name": "create", "path": "/b", "data": "c1.4", "mode": "persistent"},
            {"name": "set_data", "path": "/b", "data": "c1.5", "version": None},
            {"name": "delete", "path": sequential.path, "version": 0},
        ]
    )
    await client.delete("/b", 1)
    invoked, returned = of_kind(recorder, Invoke), of_kind(recorder, Return)
    assert [each.op for each in invoked] == [each.op for each in returned]
    told = [(each.name, each.args, back.result) for each, back in zip(invoked, returned)]  # noqa: B905
    assert told == [
        ("create", {"path": "/a", "data": "c1.1", "mode": "ephemeral"}, {"path": "/a"}),
        ("create", {"path": "/q", "data": None, "mode": "persistent"}, {"path": "/q"}),
        (
            "create",
            {"path": "/q/n-", "data": "c1.2", "mode": "persistent_sequential"},
            {"path": "/q/n-0000000000"},
        ),
        ("set_data", {"path": "/a", "data": "c1.3", "version": 0}, {"version": 1}),
        (
            "get_data",
            {"path": "/a", "consistency": "linearizable"},
            {"data": "c1.3", "version": 1, "mzxid": written.mzxid},
        ),
        (
            "get_data",
            {"path": "/q", "consistency": "local"},
            {"data": None, "version": 0, "mzxid": created.stat.czxid + 1},
        ),
        (
            "exists",
            {"path": "/a", "consistency": "local"},
            {
                "exists": True,
                "version": 1,
                "czxid": created.stat.czxid,
                "mzxid": written.mzxid,
                "owner": client.session,
            },
        ),
        ("exists", {"path": "/missing", "consistency": "local"}, {"exists": False}),
        ("get_children", {"path": "/q", "consistency": "local"}, {"names": ["n-0000000000"]}),
        ("sync", {}, {}),
        ("multi", invoked[10].args, {"results": [{}, {"path": "/b"}, {"version": 1}, {}]}),
        ("delete", {"path": "/b", "version": 1}, {}),
    ]
    assert {each.session for each in invoked} == {client.session}
    assert {(each.outcome, each.replica) for each in returned} == {(OK, 1)}
    zxids = [each.zxid for each in returned]
    assert zxids[0] == created.stat.czxid and zxids[3] == written.mzxid and zxids[4] == data.zxid
    assert zxids[10:] == [written.mzxid + 1, written.mzxid + 2]


async def test_what_the_state_machine_refuses_is_an_error_at_a_zxid(
    client: RecordedClient, recorder: Recorder
) -> None:
    await client.create("/a", "c1.1")
    parent = await client.create("/a/b", "c1.2")
    answers: list[tuple[asyncio.Future[Any], ErrorCode]] = [
        (client.create("/a", "c1.3"), ErrorCode.NODE_EXISTS),
        (client.set_data("/a", "c1.4", 7), ErrorCode.BAD_VERSION),
        (client.set_data("/none", "c1.5"), ErrorCode.NO_NODE),
        (client.delete("/a"), ErrorCode.NOT_EMPTY),
        (client.get_data("/none"), ErrorCode.NO_NODE),
        (client.get_children("/none"), ErrorCode.NO_NODE),
    ]
    for answer, code in answers:
        assert (await fails(answer)).code is code
    returned = of_kind(recorder, Return)[2:]
    assert [each.outcome for each in returned] == [ERROR] * len(answers)
    assert [each.code for each in returned] == [code.name for _, code in answers]
    # Refused writes take one each, reads show the state they saw.
    assert [each.zxid - parent.stat.czxid for each in returned] == [1, 2, 3, 4, 4, 4]


async def test_a_failed_multi_says_which_operation_failed(
    client: RecordedClient, recorder: Recorder
) -> None:
    ops: list[dict[str, object]] = [
        {"name": "check", "path": "/", "version": None},
        {"name": "delete", "path": "/none", "version": None},
    ]
    await fails(client.multi(ops))
    returned = last_return(recorder)
    assert (returned.outcome, returned.code, returned.result) == (ERROR, "NO_NODE", {"index": 1})


async def test_what_no_replica_would_take_is_refused(
    client: RecordedClient, recorder: Recorder
) -> None:
    assert isinstance(await fails(client.create("a", "c1.1")), BadArgumentsError)
    assert (last_return(recorder).outcome, last_return(recorder).zxid) == (REFUSED, 0)


async def test_a_burst_is_recorded_in_the_order_in_which_it_was_made(
    client: RecordedClient, recorder: Recorder
) -> None:
    answers = [client.create("/a", "c1.1"), client.set_data("/a", "c1.2"), client.get_data("/a")]
    assert [each.name for each in of_kind(recorder, Invoke)] == ["create", "set_data", "get_data"]
    assert not of_kind(recorder, Return)
    await asyncio.gather(*answers)
    assert [each.op for each in of_kind(recorder, Return)] == [1, 2, 3]


async def test_without_a_connection_a_request_is_refused_and_a_sent_write_unknown(
    replica: FakeReplica, recorder: Recorder
) -> None:
    client, stream = await at_fake(replica, recorder, timeout_ms=300)
    sent = client.set_data("/a", "c1.1")
    await stream.operations(1)
    stream.cut()
    await client._client.wait_for_state(SessionState.SUSPENDED)
    unsent, read = client.set_data("/a", "c1.2"), client.get_data("/a")
    assert isinstance(await fails(sent), OutcomeUnknownError)
    await fails(unsent)
    await fails(read)
    outcomes = {each.op: each.outcome for each in of_kind(recorder, Return)}
    assert outcomes == {1: UNKNOWN, 2: REFUSED, 3: REFUSED}
    await client.abandon()


async def test_what_is_under_way_when_the_session_is_left_is_unknown(
    replica: FakeReplica, recorder: Recorder
) -> None:
    client, stream = await at_fake(replica, recorder)
    sent = client.set_data("/a", "c1.1")
    await stream.operations(1)
    await client.abandon()
    assert isinstance(await fails(sent), SessionExpiredError)
    assert last_return(recorder).outcome == UNKNOWN
    await fails(client.set_data("/a", "c1.2"))
    assert last_return(recorder).outcome == REFUSED
    assert [each.state for each in of_kind(recorder, Session)][-1] == "lost"


async def test_an_answer_stands_between_the_events_before_and_behind_it(
    replica: FakeReplica, recorder: Recorder
) -> None:
    """In one frame, and also when it is an error: nobody waits for a turn of the loop."""
    client, stream = await at_fake(replica, recorder)
    setting = client.watch("persistent", "/a")
    (operation,) = await stream.operations(1)
    watch_id = operation.add_watches.watches[0].watch_id
    added = coordination_pb2.AddWatchesResponse(watches_set=watch_pb2.WatchesSet(zxid=20))
    stream.send(reply(operation.request_id, 20, add_watches=added))
    await setting
    answers = [client.sync(), client.get_data("/a")]
    first, second = await stream.operations(2)
    no_node = detail(ErrorCode.NO_NODE, zxid=23)
    stream.send(
        event(watch_id, 21),
        reply(first.request_id, 21, sync=coordination_pb2.SyncResponse()),
        event(watch_id, 22),
        reply(second.request_id, 23, error=no_node),
        event(watch_id, 24),
    )
    assert await answers[0] == 21
    assert isinstance(await fails(answers[1]), NoNodeError)
    told = [record for record in recorder.records if isinstance(record, Event | Return)]
    assert [(type(each), each.zxid) for each in told] == [
        (Event, 21),
        (Return, 21),
        (Event, 22),
        (Return, 23),
        (Event, 24),
    ]
    assert of_kind(recorder, WatchSet)[0].zxid == 20
    await client.abandon()


# ----------------------------------------------------------------------------------- sessions


async def test_a_session_from_its_beginning_to_its_end(endpoint: str, recorder: Recorder) -> None:
    client = RecordedClient([endpoint], recorder, "c1", session_timeout_ms=2_500)
    await client.open()
    session = client.session
    await client.close()
    states = [(each.session, each.state, each.timeout) for each in of_kind(recorder, Session)]
    assert states == [
        (session, "opened", 2.5),
        (session, "connected", 0.0),
        (session, "closed", 0.0),
    ]
    assert len(session) == 16 and int(session, 16) > 0


async def test_a_lost_replica_and_a_lost_session(replica: FakeReplica, recorder: Recorder) -> None:
    client, stream = await at_fake(replica, recorder)
    setting = client.watch("persistent", "/a")
    (operation,) = await stream.operations(1)
    added = coordination_pb2.AddWatchesResponse(watches_set=watch_pb2.WatchesSet(zxid=20))
    stream.send(reply(operation.request_id, 20, add_watches=added))
    await setting
    stream.cut()
    stream = await replica.accept()
    await stream.welcome()
    await client._client.wait_for_state(SessionState.CONNECTED)
    answer = client.sync()
    (operation,) = await stream.operations(1)
    expired = detail(ErrorCode.SESSION_EXPIRED, zxid=30)
    stream.send(reply(operation.request_id, 30, error=expired))
    assert isinstance(await fails(answer), SessionExpiredError)
    assert client.is_over
    states = [each.state for each in of_kind(recorder, Session)]
    assert states == ["opened", "connected", "suspended", "connected", "suspended", "lost"]
    last = [type(each) for each in recorder.records[-3:]]
    assert last == [Return, WatchEnd, Session]
    assert last_return(recorder).outcome == REFUSED


async def test_a_session_that_never_came_about_is_not_there(recorder: Recorder) -> None:
    client = RecordedClient(["127.0.0.1:1"], recorder, "c1", timeout_ms=200)
    with pytest.raises(CoordError):
        await client.open()
    assert not recorder.records


# ------------------------------------------------------------------------------------ watches


async def test_a_one_shot_watch_from_its_read_to_its_event(
    client: RecordedClient, recorder: Recorder
) -> None:
    await client.create("/a", "c1.1")
    read = await client.get_data("/a", watched=True)
    await client.exists("/b", watched=True)
    await client.get_children("/", watched=True)
    await fails(client.get_data("/none", watched=True))
    written = await client.set_data("/a", "c1.2")
    created = await client.create("/b", "c1.3")
    await client.set_data("/a", "c1.4")
    sets = of_kind(recorder, WatchSet)
    assert [(each.kind, each.path, each.zxid) for each in sets] == [
        ("data", "/a", read.zxid),
        ("exist", "/b", read.zxid),
        ("children", "/", read.zxid),
    ]
    assert {each.session for each in sets} == {client.session}
    events = {each.watch: (each.event, each.path, each.zxid) for each in of_kind(recorder, Event)}
    assert events == {
        sets[0].watch: ("data_changed", "/a", written.mzxid),
        sets[1].watch: ("created", "/b", created.stat.czxid),
        sets[2].watch: ("children_changed", "/", created.stat.czxid),
    }
    assert {each.watch for each in of_kind(recorder, WatchEnd)} == set(events)
    assert len(of_kind(recorder, Event)) == 3


async def test_a_watch_that_lasts_until_it_is_removed(
    client: RecordedClient, recorder: Recorder
) -> None:
    await client.watch("persistent_recursive", "/")
    await client.create("/a", "c1.1")
    await client.create("/a/b", "c1.2")
    await client.delete("/a/b")
    client.unwatch(client.watches[0])
    await client.delete("/a")
    told = [(each.event, each.path) for each in of_kind(recorder, Event)]
    assert told == [("created", "/a"), ("created", "/a/b"), ("deleted", "/a/b")]
    assert len(of_kind(recorder, WatchEnd)) == 1
    assert not client.watches


async def test_a_gap_is_told_and_ends_what_fires_once(
    replica: FakeReplica, recorder: Recorder
) -> None:
    client, stream = await at_fake(replica, recorder)
    answer = client.exists("/a", watched=True)
    (operation,) = await stream.operations(1)
    gap = watch_pb2.WatchGap(
        watch_ids=[operation.exists.watch_id], after_zxid=20, resumed_at_zxid=25
    )
    exists = coordination_pb2.ExistsResponse()
    stream.send(reply(operation.request_id, 20, exists=exists), Item(gap=gap))
    await answer
    await stream.operations(1)  # It is removed over there.
    assert [each.zxid for each in of_kind(recorder, Gap)] == [25]
    assert isinstance(recorder.records[-1], WatchEnd)
    await client.abandon()


async def test_a_watch_whose_read_was_given_up_is_set_when_the_answer_comes(
    replica: FakeReplica, recorder: Recorder
) -> None:
    client, stream = await at_fake(replica, recorder)
    answer = client.exists("/a", watched=True)
    (operation,) = await stream.operations(1)
    answer.cancel()
    late = coordination_pb2.ExistsResponse()
    stream.send(reply(operation.request_id, 20, exists=late), event(operation.exists.watch_id, 21))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not of_kind(recorder, WatchEnd):
            await asyncio.sleep(0.005)
    told = [type(each) for each in recorder.records[-3:]]
    assert told == [WatchSet, Event, WatchEnd]
    assert not of_kind(recorder, Return)
    await client.abandon()


# -------------------------------------------------------------------------------------- holds


async def test_a_lock_is_held_from_its_creation_until_it_is_given_up(
    client: RecordedClient, recorder: Recorder
) -> None:
    created = await client.create("/x", "c1.1", "ephemeral", resource="x")
    await fails(client.create("/x", "c1.2", "ephemeral", resource="x"))
    client.release("x")
    client.release("x")
    held, released = of_kind(recorder, Held), of_kind(recorder, Released)
    assert [(each.client, each.session, each.resource, each.fence) for each in held] == [
        ("c1", client.session, "x", created.stat.czxid)
    ]
    assert [(each.client, each.resource) for each in released] == [("c1", "x")]
    order = [type(each) for each in recorder.records if isinstance(each, Return | Held)]
    assert order == [Return, Held, Return]


async def test_the_end_of_a_session_ends_its_holds_and_its_watches_first(
    endpoint: str, recorder: Recorder
) -> None:
    client = RecordedClient([endpoint], recorder, "c1")
    await client.open()
    await client.create("/x", "c1.1", "ephemeral", resource="x")
    await client.get_data("/x", watched=True)
    await client.abandon()
    assert [type(each) for each in recorder.records[-3:]] == [Released, WatchEnd, Session]


async def test_to_close_a_session_gives_up_what_it_holds(
    replica: FakeReplica, recorder: Recorder
) -> None:
    """Before the replica can hear of it; and what is answered from then on is not held."""
    client, stream = await at_fake(replica, recorder)
    client.hold("x", 5)
    creating = client.create("/y", "c1.1", "ephemeral", resource="y")
    closing = asyncio.create_task(client.close())
    create, close = await stream.operations(2)
    assert isinstance(recorder.records[-1], Released)
    created = coordination_pb2.CreateResponse(path="/y")
    closed = coordination_pb2.CloseSessionResponse()
    stream.send(
        reply(create.request_id, 20, create=created),
        reply(close.request_id, 21, close_session=closed),
    )
    await closing
    await creating
    assert len(of_kind(recorder, Held)) == 1
    assert of_kind(recorder, Session)[-1].state == "closed"


async def test_whose_time_is_up_holds_nothing_when_another_does(
    replica: FakeReplica, recorder: Recorder
) -> None:
    """Its timer has not run yet, as in a process that stood still."""
    holds = Holds(recorder)
    first, _ = await at_fake(replica, recorder, "c1", holds=holds)
    second, _ = await at_fake(replica, recorder, "c2", holds=holds)
    first.hold("x", 5)
    keeper = first._client._keeper
    assert keeper is not None
    keeper.conversation.lifetime.lost_at = 0.0
    second.hold("x", 6)
    first.hold("y", 7)
    told = [record for record in recorder.records if isinstance(record, Held | Released)]
    assert [(type(each), each.client) for each in told] == [
        (Held, "c1"),
        (Released, "c1"),
        (Held, "c2"),
    ]
    await first.abandon()
    await second.abandon()
