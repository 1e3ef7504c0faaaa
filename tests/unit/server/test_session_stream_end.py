"""Signs of life on a Session stream, and the ways it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from coordsvc.core.commands import Caller, CreateOp, ExpireSession, SetDataOp, Write
from coordsvc.errors import NoQuorumError
from coordsvc.v1 import common_pb2, coordination_pb2, errors_pb2
from tests.unit.server.harness import Harness, eventually, local_server
from tests.unit.server.stream_harness import (
    Stream,
    code_of,
    greet,
    opened,
    refused_hello,
    start,
    streams,
    watch,
)

SHUTTING_DOWN = coordination_pb2.GO_AWAY_REASON_SHUTTING_DOWN
NO_QUORUM = coordination_pb2.GO_AWAY_REASON_NO_QUORUM


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with local_server() as harness:
        yield harness


@pytest.fixture
async def stream(harness: Harness) -> AsyncIterator[Stream]:
    async with streams(harness) as (stream,):
        yield stream


async def assert_nothing_left(harness: Harness) -> None:
    server = harness.server
    await eventually(lambda: server.door.active == 0)
    assert server.sessions.statistics().streams == 0
    hub = server.hub.statistics()
    assert (hub.watchers, hub.watches) == (0, 0)
    pipeline = server.pipeline.statistics()
    assert (pipeline.reads_waiting, pipeline.sessions_active) == (0, 0)
    await eventually(lambda: server.pipeline.statistics().writes_pending == 0)


# --------------------------------------------------------------------------------- life signs


async def test_a_pong_follows_every_event_up_to_its_zxid(harness: Harness, stream: Stream) -> None:
    await stream.ask("create", path="/a")
    await stream.ask("add_watches", watches=[watch(1, "/a")])
    for nonce in range(1, 20):
        harness.replica.apply_elsewhere(Write(Caller(), SetDataOp("/a", b"")))
        await stream.send(ping=nonce)
        harness.replica.catch_up()
        await stream.pong(nonce)
    await stream.ask("exists", path="/a")
    last = 0
    for item in stream.items:
        if item.HasField("pong"):
            last = item.pong.zxid
        elif item.HasField("event"):
            assert item.event.zxid > last
    assert len(stream.events) == 19


async def test_in_one_frame_the_pong_is_behind_the_events(harness: Harness, stream: Stream) -> None:
    """The acknowledgement and the change come in the same turn of the loop."""
    await stream.ask("create", path="/a")
    await stream.ask("add_watches", watches=[watch(1, "/a")])
    replica = harness.replica
    replica.hold_confirmations = True
    replica.apply_elsewhere(Write(Caller(), SetDataOp("/a", b"")))
    await stream.send(ping=5)
    await eventually(lambda: bool(replica._confirmations))
    replica.confirm()
    replica.catch_up()
    pong = await stream.pong(5)
    assert [event.zxid for event in stream.events] == [pong.zxid]
    frame = stream.frames[-1]
    assert [item.WhichOneof("item") for item in frame.items] == ["event", "pong"]


async def test_a_pong_does_not_wait_for_the_queue(harness: Harness, stream: Stream) -> None:
    harness.replica.is_automatic = False
    await stream.send(stream.operation("create", path="/a"), ping=8)
    await stream.pong(8)
    assert not stream.answered


async def test_a_pong_waits_for_the_leaders_acknowledgement(
    harness: Harness, stream: Stream
) -> None:
    harness.replica.hold_confirmations = True
    await stream.send(stream.operation("exists", path="/"), ping=8)
    await stream.reply(1)
    assert not any(item.HasField("pong") for item in stream.items)
    harness.replica.hold_confirmations = False
    harness.replica.confirm()
    assert (await stream.pong(8)).zxid == harness.replica.machine.state.zxid


async def test_a_ping_nobody_acknowledges_ends_the_stream(harness: Harness, stream: Stream) -> None:
    harness.replica.hold_confirmations = True
    await stream.send(ping=8)
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "NO_QUORUM"
    assert refused.status.name == "UNAVAILABLE"
    assert stream.items[-1].go_away.reason == NO_QUORUM
    assert not any(item.HasField("pong") for item in stream.items)


async def test_frames_and_requests_under_way_are_signs_of_life(
    harness: Harness, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []
    monkeypatch.setattr(harness.server.reports, "heard", lambda sid, now: heard.append(sid))
    await stream.ask("exists", path="/")
    assert heard == [stream.session_id]
    harness.replica.is_automatic = False
    await stream.send(stream.operation("create", path="/a"))
    await eventually(lambda: len(heard) > 4)
    harness.replica.apply()
    await stream.reply(2)
    assert set(heard) == {stream.session_id}


# --------------------------------------------------------------------------------- close, expiry


async def test_closing_answers_and_then_ends_the_stream_well(
    harness: Harness, stream: Stream
) -> None:
    await stream.ask("create", path="/e", mode=common_pb2.CREATE_MODE_EPHEMERAL)
    await stream.ask("exists", path="/e", watch_id=1)
    (request_id,) = await stream.send(stream.operation("close_session"))
    assert await stream.end() is None
    assert code_of(await stream.reply(request_id)) == "OK"
    assert stream.items[-1].reply.request_id == request_id
    assert [event.path for event in stream.events] == ["/e"]
    assert "/e" not in harness.replica.machine.state.znodes
    await assert_nothing_left(harness)
    credentials = stream.credentials
    refused = await refused_hello(harness, credentials=credentials)
    assert refused.code == "SESSION_EXPIRED"


async def test_what_is_sent_behind_a_close_has_no_effect(harness: Harness, stream: Stream) -> None:
    await stream.send(
        stream.operation("close_session"),
        stream.operation("create", path="/late"),
        stream.operation("exists", path="/"),
    )
    assert await stream.end() is None
    assert stream.answered == [1]
    await assert_nothing_left(harness)
    assert "/late" not in harness.replica.machine.state.znodes


async def test_an_expired_session_ends_its_stream(harness: Harness, stream: Stream) -> None:
    harness.replica.is_automatic = False
    ids = await stream.send(stream.operation("create", path="/a"), stream.operation("sync"))
    await eventually(lambda: len(harness.replica.submitted) == 2)
    epoch = harness.replica.machine.state.sessions[stream.session_id].attach_epoch
    harness.replica.propose(ExpireSession(1, stream.session_id, epoch))
    harness.replica._apply_entry((), tuple(harness.replica.proposals))
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "SESSION_EXPIRED"
    codes = [code_of(reply) for reply in await stream.replies(ids)]
    assert codes == ["SESSION_EXPIRED"] * 2
    harness.replica.apply()
    assert "/a" not in harness.replica.machine.state.znodes


async def test_the_unary_close_of_its_session_ends_the_stream(
    harness: Harness, stream: Stream
) -> None:
    context = common_pb2.RequestContext(session=stream.credentials)
    await harness.call("CloseSession", context=context)
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "SESSION_EXPIRED"
    await assert_nothing_left(harness)


async def test_a_client_that_has_said_all_gets_all_answers(
    harness: Harness, stream: Stream
) -> None:
    harness.replica.is_automatic = False
    ids = await stream.send(*(stream.operation("create", path=f"/{n}") for n in range(100)), ping=1)
    await stream.call.done_writing()
    await eventually(lambda: len(harness.replica.submitted) == 101)
    await stream.pong(1)
    (served,) = harness.server.sessions._all()
    await eventually(lambda: served._has_read_all)
    for _ in range(5):
        await asyncio.sleep(0)
    harness.replica.apply()
    assert await stream.end() is None
    assert stream.answered == ids
    assert stream.session_id in harness.replica.machine.state.sessions
    await assert_nothing_left(harness)


# --------------------------------------------------------------------------------- no quorum


async def test_without_a_quorum_streams_end_and_say_what_is_certain(
    harness: Harness, stream: Stream
) -> None:
    harness.replica.is_automatic = False
    ids = await stream.send(
        stream.operation("create", path="/a"),
        stream.operation("get_children", path="/a"),
        stream.operation("create", path="/b"),
    )
    await eventually(lambda: len(harness.replica.submitted) == 2)
    harness.replica.has_quorum = False
    refused = await stream.end()
    assert refused is not None
    assert (refused.code, refused.status.name) == ("NO_QUORUM", "UNAVAILABLE")
    replies = await stream.replies(ids)
    assert [code_of(reply) for reply in replies] == ["OUTCOME_UNKNOWN", "NO_QUORUM", "NO_QUORUM"]
    applied = [reply.error.applied for reply in replies]
    assert applied == [errors_pb2.APPLIED_UNKNOWN, errors_pb2.APPLIED_NO, errors_pb2.APPLIED_NO]
    assert stream.items[-1].go_away.reason == NO_QUORUM
    await assert_nothing_left(harness)


async def test_without_a_quorum_a_local_read_is_refused_also_before_the_stream_ends(
    harness: Harness, stream: Stream
) -> None:
    assert harness.server.sessions._timer is not None
    harness.server.sessions._timer.cancel()
    harness.replica.has_quorum = False
    assert code_of(await stream.ask("exists", path="/")) == "NO_QUORUM"
    harness.replica.has_quorum = True
    assert code_of(await stream.ask("exists", path="/")) == "OK"


async def test_without_a_quorum_no_stream_begins(harness: Harness, stream: Stream) -> None:
    harness.replica.has_quorum = False
    for hello in ({}, {"credentials": stream.credentials}):
        assert (await refused_hello(harness, **hello)).code == "NO_QUORUM"


# --------------------------------------------------------------------------------- shutdown


async def test_shutting_down_answers_what_is_proposed_and_runs_nothing_more(
    harness: Harness, stream: Stream
) -> None:
    replica = harness.replica
    replica.is_automatic = False
    ids = await stream.send(
        stream.operation("create", path="/a"),
        stream.operation("get_children", path="/a"),
        stream.operation("create", path="/b"),
    )
    await eventually(lambda: len(replica.submitted) == 2)
    harness.server.sessions.begin_end_all(SHUTTING_DOWN, 5_000)
    ids += await stream.send(stream.operation("create", path="/c"))
    go_away = (await stream.until(lambda item: item.HasField("go_away"))).go_away
    assert (go_away.reason, go_away.grace_ms) == (SHUTTING_DOWN, 5_000)
    assert not stream.answered
    replica.apply()
    refused = await stream.end()
    assert refused is not None
    assert (refused.code, refused.status.name) == ("SHUTTING_DOWN", "UNAVAILABLE")
    codes = [code_of(await stream.reply(request_id)) for request_id in ids[:3]]
    assert codes == ["OK", "SHUTTING_DOWN", "SHUTTING_DOWN"]
    assert len(replica.submitted) == 2
    assert stream.session_id in replica.machine.state.sessions
    assert (await refused_hello(harness)).code == "SHUTTING_DOWN"


async def test_fifty_streams_end_at_once(harness: Harness) -> None:
    """One of them does not read, and one has a write that is never decided."""
    async with streams(harness, 50) as many:
        await many[0].ask("create", path="/big", data=b"x" * (1 << 20))
        big = many[0].operation("get_data", path="/big")
        for request_id in range(100, 130):
            big.request_id = request_id
            await many[0].send(big)
        harness.replica.is_automatic = False
        (undecided,) = await many[1].send(many[1].operation("create", path="/a"))
        await eventually(lambda: len(harness.replica.submitted) == 52)
        harness.server.sessions.begin_end_all(SHUTTING_DOWN, 100)
        await harness.server.sessions.end_all()
        assert harness.server.sessions.statistics().streams == 0
        for stream in many[1:]:
            refused = await stream.end()
            assert refused is not None
            assert refused.code == "SHUTTING_DOWN"
            assert any(item.go_away.reason == SHUTTING_DOWN for item in stream.items)
        assert code_of(await many[1].reply(undecided)) == "OUTCOME_UNKNOWN"


async def test_writes_of_streams_are_waited_for_by_a_drain(
    harness: Harness, stream: Stream
) -> None:
    """Also when their stream has gone."""
    harness.replica.is_automatic = False
    await stream.send(*(stream.operation("create", path=f"/{n}") for n in range(3)))
    await eventually(lambda: len(harness.replica.submitted) == 4)
    drained = asyncio.create_task(harness.server.pipeline.drained())
    stream.cancel()
    await eventually(lambda: harness.server.door.active == 0)
    assert not drained.done()
    harness.replica.apply()
    await drained
    assert {"/0", "/1", "/2"} <= harness.replica.machine.state.znodes.keys()


# --------------------------------------------------------------------------------- cancelling


@pytest.mark.parametrize("seed", range(4))
async def test_streams_cancelled_at_any_moment_leave_nothing_behind(
    harness: Harness, seed: int
) -> None:
    """Sessions live on; tasks, watchers, places in queues do not."""
    rng = random.Random(seed)
    keeper = await opened(harness)
    await keeper.ask("create", path="/a", data=b"x" * 100_000)
    tasks = len(asyncio.all_tasks())
    for _ in range(40):
        stream = start(harness)
        hello = coordination_pb2.SessionHello(watches=[watch(1, "/a"), watch(2, "/b")])
        if rng.random() < 0.3:
            hello.credentials.CopyFrom(keeper.credentials)
        await stream.call.write(coordination_pb2.SessionRequest(hello=hello))
        for _ in range(rng.randrange(4)):
            operations = [
                stream.operation("set_data", path="/a", data=b"y" * 100_000),
                stream.operation("get_data", path="/a", watch_id=rng.randrange(100)),
                stream.operation("sync", path="/a"),
                stream.operation(
                    "exists", path="/b", context=common_pb2.RequestContext(min_zxid=99_999)
                ),
                stream.operation("create", path="/c-", mode=3),
                stream.operation("remove_watches", watch_ids=[1]),
            ]
            rng.shuffle(operations)
            await stream.send(*operations, ping=rng.randrange(3))
        for _ in range(rng.randrange(30)):
            await asyncio.sleep(0)
        stream.cancel()
    keeper.cancel()
    await assert_nothing_left(harness)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_a_session_lives_on_after_its_stream(harness: Harness, stream: Stream) -> None:
    await stream.ask("create", path="/e", mode=common_pb2.CREATE_MODE_EPHEMERAL)
    stream.cancel()
    await eventually(lambda: harness.server.door.active == 0)
    async with streams(harness, credentials=stream.credentials) as (again,):
        reply = await again.ask("exists", path="/e")
        assert reply.exists.stat.ephemeral_owner == again.session_id
    assert "/e" in harness.replica.machine.state.znodes


async def test_a_write_under_way_runs_though_its_stream_is_cancelled(
    harness: Harness, stream: Stream
) -> None:
    harness.replica.is_automatic = False
    await stream.send(stream.operation("create", path="/a"))
    await eventually(lambda: len(harness.replica.submitted) == 2)
    stream.cancel()
    await eventually(lambda: harness.server.door.active == 0)
    harness.replica.apply_elsewhere(Write(Caller(), CreateOp("/b")))
    harness.replica.catch_up()
    harness.replica.apply()
    assert {"/a", "/b"} <= harness.replica.machine.state.znodes.keys()


async def test_writes_of_a_cancelled_stream_run_in_order_or_not_at_all(
    harness: Harness, stream: Stream
) -> None:
    replica = harness.replica
    replica.is_automatic = False
    await stream.send(*(stream.operation("create", path=f"/{n}") for n in range(3)))
    await eventually(lambda: len(replica.submitted) == 4)
    stream.cancel()
    await eventually(lambda: harness.server.door.active == 0)
    replica._waiting.pop(0)[1].set_exception(
        NoQuorumError("its deadline passed before it was sent")
    )
    replica.apply()
    assert not {"/0", "/1", "/2"} & replica.machine.state.znodes.keys()
    await assert_nothing_left(harness)


async def test_a_stream_that_never_says_hello_is_ended(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordsvc.server.session_streams.HELLO_S_MAX", 0.05)
    stream = start(harness)
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "BAD_ARGUMENTS"
    again = start(harness)
    await greet(again)
    again.cancel()
