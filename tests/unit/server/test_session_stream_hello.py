"""How a Session stream begins, and whose the session is: attachments that take it over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordsvc.core.commands import AttachSessionOp, Caller, CreateOp, SetDataOp, Write
from coordsvc.v1 import common_pb2, coordination_pb2, watch_pb2
from tests.unit.server.harness import Harness, eventually, local_server
from tests.unit.server.stream_harness import (
    Stream,
    code_of,
    opened,
    refused_hello,
    start,
    streams,
    watch,
)


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with local_server() as harness:
        yield harness


@pytest.fixture
async def stream(harness: Harness) -> AsyncIterator[Stream]:
    async with streams(harness, timeout_ms=5_000) as (stream,):
        yield stream


def attach_elsewhere(harness: Harness, session_id: int, timeout_ms: int = 0) -> None:
    """Another replica attaches the session; not applied here yet."""
    harness.replica.apply_elsewhere(Write(Caller(session_id), AttachSessionOp(timeout_ms)))


# --------------------------------------------------------------------------------- hello


@pytest.mark.parametrize(
    "first",
    [
        coordination_pb2.SessionRequest(),
        coordination_pb2.SessionRequest(ping=coordination_pb2.SessionPing(nonce=1)),
    ],
)
async def test_nothing_is_answered_before_the_hello(
    harness: Harness, first: coordination_pb2.SessionRequest
) -> None:
    stream = start(harness)
    await stream.call.write(first)
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "BAD_ARGUMENTS"
    assert not stream.items
    assert not harness.replica.machine.state.sessions


async def test_a_second_hello_is_a_fault_of_the_protocol(stream: Stream) -> None:
    frame = coordination_pb2.SessionRequest(hello=coordination_pb2.SessionHello())
    await stream.call.write(frame)
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "BAD_ARGUMENTS"


async def test_a_new_session_is_welcomed_with_everything_it_needs(harness: Harness) -> None:
    hello: dict[str, Any] = {
        "timeout_ms": 7_000,
        "client_name": "a client",
        "watches": [watch(4, "/a")],
    }
    async with streams(harness, **hello) as (stream,):
        welcome = stream.welcome
        session = harness.replica.machine.state.sessions[stream.session_id]
        assert welcome.credentials.password == session.password
        assert (session.client_name, session.attach_epoch) == ("a client", 1)
        assert welcome.timeout_ms == session.timeout_ms == 7_000
        assert welcome.attach_number == 1
        assert welcome.outstanding_requests_max == 1_000
        assert welcome.watches_set.watch_ids == [4]
        assert welcome.header.zxid == welcome.watches_set.zxid == session.session_id
        assert welcome.header.replica_id == 1
        assert welcome.header.cluster_id
        assert welcome.header.term == 1


async def test_requests_in_the_first_frame_are_answered_after_the_welcome(
    harness: Harness,
) -> None:
    stream = start(harness)
    frame = coordination_pb2.SessionRequest(
        hello=coordination_pb2.SessionHello(),
        operations=[stream.operation("create", path="/a")],
        ping=coordination_pb2.SessionPing(nonce=3),
    )
    await stream.call.write(frame)
    await stream.pong(3)
    assert code_of(await stream.reply(1)) == "OK"
    assert stream.items[0].HasField("welcome")
    stream.cancel()


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"timeout_ms": -1}, "BAD_ARGUMENTS"),
        ({"last_zxid": -1}, "BAD_ARGUMENTS"),
        ({"start_after_zxid": -1}, "BAD_ARGUMENTS"),
        ({"client_name": "x" * 257}, "LIMIT_EXCEEDED"),
        ({"required_features": ["levitation"]}, "UNSUPPORTED_FEATURE"),
        ({"watches": [watch(0, "/a")]}, "BAD_ARGUMENTS"),
        ({"watches": [watch(1, "a")]}, "BAD_ARGUMENTS"),
        ({"watches": [watch(1, "/a"), watch(1, "/b")]}, "BAD_ARGUMENTS"),
        ({"credentials": common_pb2.SessionCredentials(session_id=-1)}, "BAD_ARGUMENTS"),
    ],
)
async def test_a_hello_that_is_wrong_opens_nothing(
    harness: Harness, hello: dict[str, Any], code: str
) -> None:
    assert (await refused_hello(harness, **hello)).code == code
    assert not harness.replica.machine.state.sessions


async def test_a_session_opened_for_a_hello_whose_watch_is_refused_is_closed(
    harness: Harness,
) -> None:
    on_missing = watch(1, "/missing", watch_pb2.WATCH_KIND_DATA)
    assert (await refused_hello(harness, watches=[on_missing])).code == "NO_NODE"
    await eventually(lambda: not harness.replica.machine.state.sessions)


async def test_a_session_that_comes_back_with_a_watch_that_is_refused_lives_on(
    harness: Harness, stream: Stream
) -> None:
    on_missing = watch(1, "/missing", watch_pb2.WATCH_KIND_DATA)
    refused = await refused_hello(harness, watches=[on_missing], credentials=stream.credentials)
    assert refused.code == "NO_NODE"
    assert (
        code_of(await (await opened(harness, credentials=stream.credentials)).ask("sync")) == "OK"
    )
    assert stream.session_id in harness.replica.machine.state.sessions


async def test_a_replica_behind_the_client_refuses_it(harness: Harness, stream: Stream) -> None:
    ahead = harness.replica.machine.state.zxid + 1
    epoch = harness.replica.machine.state.sessions[stream.session_id].attach_epoch
    for hello in ({"last_zxid": ahead}, {"last_zxid": ahead, "credentials": stream.credentials}):
        assert (await refused_hello(harness, **hello)).code == "NOT_CAUGHT_UP"
    assert harness.replica.machine.state.sessions[stream.session_id].attach_epoch == epoch
    assert len(harness.replica.machine.state.sessions) == 1


async def test_a_replica_that_catches_up_in_time_welcomes(harness: Harness) -> None:
    harness.replica.apply_elsewhere(Write(Caller(), CreateOp("/a")))
    ahead = harness.replica.machine.state.zxid + 1
    stream = start(harness)
    await stream.call.write(
        coordination_pb2.SessionRequest(hello=coordination_pb2.SessionHello(last_zxid=ahead))
    )
    await eventually(lambda: harness.server.door.active == 1)
    harness.replica.catch_up()
    assert await stream.read()
    assert stream.welcome.header.zxid > ahead
    stream.cancel()


@pytest.mark.parametrize("password", [b"", b"wrong", b"0" * 16])
async def test_an_unknown_session_is_expired_and_never_replaced(
    harness: Harness, stream: Stream, password: bytes
) -> None:
    for session_id in (stream.session_id, 4711):
        credentials = common_pb2.SessionCredentials(session_id=session_id, password=password)
        refused = await refused_hello(harness, credentials=credentials)
        assert refused.code == "SESSION_EXPIRED"
    assert list(harness.replica.machine.state.sessions) == [stream.session_id]
    assert code_of(await stream.ask("exists", path="/")) == "OK"


async def test_a_session_opened_elsewhere_is_attached_once_a_read_index_knows_it(
    harness: Harness,
) -> None:
    from coordsvc.core.commands import OpenSession

    harness.replica.apply_elsewhere(OpenSession(10_000, b"p" * 16, "", True))
    session_id = harness.replica.machine.state.zxid + 1
    credentials = common_pb2.SessionCredentials(session_id=session_id, password=b"p" * 16)
    async with streams(harness, credentials=credentials) as (stream,):
        assert stream.welcome.attach_number == 2


async def test_attaching_keeps_the_timeout_or_changes_it(harness: Harness, stream: Stream) -> None:
    kept = await opened(harness, credentials=stream.credentials)
    assert (kept.welcome.timeout_ms, kept.welcome.attach_number) == (5_000, 2)
    raised = await opened(harness, credentials=stream.credentials, timeout_ms=500_000)
    assert (raised.welcome.timeout_ms, raised.welcome.attach_number) == (120_000, 3)
    assert raised.welcome.credentials == stream.credentials
    raised.cancel()


# --------------------------------------------------------------------------------- watches


async def test_events_since_a_zxid_come_after_the_welcome(harness: Harness, stream: Stream) -> None:
    await stream.ask("create", path="/a")
    zxid = (await stream.ask("set_data", path="/a", data=b"1")).zxid
    for data in (b"2", b"3"):
        await stream.ask("set_data", path="/a", data=data)
    resumed = await opened(
        harness,
        credentials=stream.credentials,
        watches=[watch(1, "/a", include_data=True)],
        start_after_zxid=zxid,
    )
    await resumed.ask("exists", path="/a")
    assert [event.data for event in resumed.events] == [b"2", b"3"]
    assert resumed.welcome.watches_set.zxid == zxid
    resumed.cancel()


async def test_a_zxid_that_is_not_applied_here_yet_is_no_other_history(
    harness: Harness, stream: Stream
) -> None:
    harness.replica.apply_elsewhere(*(Write(Caller(), CreateOp(f"/{n}")) for n in range(3)))
    zxid = harness.replica.machine.state.zxid + 2
    hello: dict[str, Any] = {"watches": [watch(1, "/")], "start_after_zxid": zxid}
    async with streams(harness, **hello) as (resumed,):
        assert (await resumed.event(1)).zxid == zxid + 1
    hello["start_after_zxid"] = 10_000
    async with streams(harness, **hello) as (strange,):
        gap = (await strange.until(lambda item: item.HasField("gap"))).gap
        assert gap.reason == watch_pb2.WATCH_GAP_REASON_OTHER_HISTORY


async def test_a_watch_that_cannot_be_set_ends_the_stream(harness: Harness) -> None:
    data = watch(1, "/missing", watch_pb2.WATCH_KIND_DATA)
    refused = await refused_hello(harness, watches=[data])
    assert refused.code == "NO_NODE"
    assert harness.server.sessions.statistics().streams == 0


# --------------------------------------------------------------------------------- moves


async def test_a_new_stream_ends_the_older_one(harness: Harness, stream: Stream) -> None:
    newer = await opened(harness, credentials=stream.credentials)
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "SESSION_MOVED"
    assert code_of(await newer.ask("create", path="/a")) == "OK"
    newer.cancel()


async def test_an_attachment_elsewhere_ends_the_stream_when_it_is_applied_here(
    harness: Harness, stream: Stream
) -> None:
    """Until then it cannot know; what it was asked before is answered first."""
    await stream.ask("create", path="/a", data=b"x")
    attach_elsewhere(harness, stream.session_id)
    ids = await stream.send(stream.operation("get_data", path="/a"))
    assert [code_of(reply) for reply in await stream.replies(ids)] == ["OK"]
    harness.replica.catch_up()
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "SESSION_MOVED"


async def test_a_delayed_write_of_the_older_stream_has_no_effect(
    harness: Harness, stream: Stream
) -> None:
    """It is under way when the session is attached elsewhere, and decided after."""
    await stream.ask("create", path="/a", data=b"old")
    harness.replica.is_automatic = False
    (request_id,) = await stream.send(stream.operation("set_data", path="/a", data=b"late"))
    await eventually(lambda: len(harness.replica.submitted) == 3)
    attach_elsewhere(harness, stream.session_id)
    harness.replica.apply_elsewhere(Write(Caller(), SetDataOp("/a", b"new")))
    harness.replica.catch_up()
    harness.replica.apply()
    assert harness.replica.machine.state.znodes["/a"].data == b"new"
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "SESSION_MOVED"
    reply = await stream.reply(request_id)
    assert code_of(reply) == "SESSION_MOVED"
    assert reply.error.applied == 1


async def test_a_write_at_a_replica_that_lags_has_no_effect(
    harness: Harness, stream: Stream
) -> None:
    """The attachment is before it in the log, but not applied here when it is submitted."""
    await stream.ask("create", path="/a", data=b"old")
    harness.replica.is_automatic = False
    await stream.send(stream.operation("set_data", path="/a", data=b"late"))
    await eventually(lambda: len(harness.replica.submitted) == 3)
    attach_elsewhere(harness, stream.session_id)
    harness.replica.catch_up()
    harness.replica.apply()
    assert harness.replica.machine.state.znodes["/a"].data == b"old"


async def test_what_was_decided_before_the_attachment_is_answered(
    harness: Harness, stream: Stream
) -> None:
    """Write and attachment applied in one turn: the answer leaves before the end."""
    harness.replica.is_automatic = False
    (request_id,) = await stream.send(stream.operation("create", path="/a"))
    await eventually(lambda: len(harness.replica.submitted) == 2)
    attach_elsewhere(harness, stream.session_id)
    harness.replica.apply()
    harness.replica.catch_up()
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "SESSION_MOVED"
    assert code_of(await stream.reply(request_id)) == "OK"


async def test_a_read_is_refused_once_the_attachment_is_applied(
    harness: Harness, stream: Stream
) -> None:
    """It was asked before, and had to wait: it would show the old stream what the new one did."""
    context = common_pb2.RequestContext(min_zxid=harness.replica.machine.state.zxid + 1)
    (request_id,) = await stream.send(stream.operation("exists", path="/", context=context), ping=1)
    await stream.pong(1)
    attach_elsewhere(harness, stream.session_id)
    harness.replica.catch_up()
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "SESSION_MOVED"
    assert code_of(await stream.reply(request_id)) == "SESSION_MOVED"


async def test_of_two_streams_that_attach_at_once_one_lives(
    harness: Harness, stream: Stream
) -> None:
    harness.replica.is_automatic = False
    both = [start(harness), start(harness)]
    hello = coordination_pb2.SessionHello(credentials=stream.credentials)
    for each in both:
        await each.call.write(coordination_pb2.SessionRequest(hello=hello))
    await eventually(lambda: len(harness.replica.submitted) == 3)
    harness.replica.is_automatic = True
    harness.replica.apply()
    ends = [await each.end() if not await _is_welcomed(each) else None for each in both]
    assert [end.code for end in ends if end is not None] == ["SESSION_MOVED"]
    (living,) = [each for each, end in zip(both, ends, strict=True) if end is None]
    assert code_of(await living.ask("create", path="/a")) == "OK"
    living.cancel()


async def _is_welcomed(stream: Stream) -> bool:
    from grpc import aio

    try:
        await stream.read()
    except aio.AioRpcError:
        return False
    return bool(stream.items)


async def test_the_unary_calls_of_a_session_go_on_beside_its_stream(
    harness: Harness, stream: Stream
) -> None:
    context = common_pb2.RequestContext(session=stream.credentials)
    await harness.call("Create", context=context, path="/a")
    assert code_of(await stream.ask("exists", path="/a")) == "OK"


# --------------------------------------------------------------------------------- the timeout


async def test_a_longer_timeout_reaches_the_judge_at_once(harness: Harness) -> None:
    """The client need not ping before a third of the new timeout: the old one must not count."""
    async with streams(harness, timeout_ms=1_000) as (stream,):
        session_id = stream.session_id
        before = harness.server.clock._deadlines[session_id].at
        newer = await opened(harness, credentials=stream.credentials, timeout_ms=60_000)
        assert harness.server.clock._deadlines[session_id].at >= before + 50
        newer.cancel()
