"""The order on a Session stream: replies and events, reads among writes, watches set by reads."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from coordsvc.core import queries
from coordsvc.core.commands import Caller, CreateOp, DeleteOp, SetDataOp, Write
from coordsvc.errors import LimitExceededError, OutcomeUnknownError
from coordsvc.server.session_slots import WriteSlot
from coordsvc.testing.local_replica import LocalReplica
from coordsvc.v1 import common_pb2, coordination_pb2, watch_pb2
from tests.unit.server.harness import Harness, Refused, eventually, local_server
from tests.unit.server.stream_harness import Stream, code_of, streams, watch


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with local_server() as harness:
        yield harness


@pytest.fixture
async def stream(harness: Harness) -> AsyncIterator[Stream]:
    async with streams(harness) as (stream,):
        yield stream


@asynccontextmanager
async def deciding(replica: LocalReplica) -> AsyncIterator[None]:
    """Writes wait until everything that could be submitted is, and are decided then."""

    async def decide() -> None:
        decided = len(replica.submitted)

        def is_more() -> bool:
            return len(replica.submitted) > decided

        while True:
            await eventually(is_more)
            for _ in range(3):
                await asyncio.sleep(0)
            decided = len(replica.submitted)
            replica.apply()

    task = asyncio.create_task(decide())
    try:
        yield
    finally:
        task.cancel()


async def test_every_kind_of_request_is_answered_in_its_order(stream: Stream) -> None:
    acl = common_pb2.Acl(permissions=31, scheme="world", id="anyone")
    multi = coordination_pb2.MultiOperation(
        check=coordination_pb2.CheckOperation(path="/a", expected_version=1)
    )
    op = stream.operation
    ids = await stream.send(
        op("create", path="/a", data=b"1"),
        op("set_data", path="/a", data=b"2"),
        op("get_data", path="/a"),
        op("exists", path="/b"),
        op("set_acl", path="/a", acl=[acl]),
        op("get_acl", path="/a"),
        op("multi", operations=[multi]),
        op("add_auth", scheme="digest", credential=b"user:secret"),
        op("get_children", path="/"),
        op("sync", path="/any"),
        op("add_watches", watches=[watch(1, "/a")]),
        op("remove_watches", watch_ids=[1]),
        op("delete", path="/a"),
        op("close_session"),
    )
    replies = await stream.replies(ids)
    kinds = [str(reply.WhichOneof("result")) for reply in replies]
    assert kinds == [
        "create",
        "set_data",
        "get_data",
        "exists",
        "set_acl",
        "get_acl",
        "multi",
        "add_auth",
        "get_children",
        "sync",
        "add_watches",
        "remove_watches",
        "delete",
        "close_session",
    ]
    assert stream.answered == ids
    assert replies[2].get_data.data == b"2"
    assert not replies[3].exists.HasField("stat")
    assert replies[9].sync.path == "/any"
    assert replies[7].add_auth.ids[0].scheme == "digest"
    assert [child.name for child in replies[8].get_children.children] == ["a", "zookeeper"]
    zxids = [reply.zxid for reply in replies]
    assert zxids == sorted(zxids)
    assert zxids[0] > 0
    assert not any(
        getattr(r, k).HasField("header") for r, k in zip(replies[:10], kinds, strict=False)
    )


async def test_reads_and_writes_of_one_frame_see_exactly_the_writes_before_them(
    harness: Harness, stream: Stream
) -> None:
    """Also while nothing is decided yet: a write behind a read must not be proposed before it."""
    await stream.ask("create", path="/a", data=b"0")
    harness.replica.is_automatic = False
    operations = []
    for number in range(1, 20):
        operations.append(stream.operation("set_data", path="/a", data=b"%d" % number))
        operations += [stream.operation("get_data", path="/a") for _ in range(number % 3)]
    async with deciding(harness.replica):
        ids = await stream.send(*operations)
        replies = await stream.replies(ids)
    seen = b"0"
    for operation, reply in zip(operations, replies, strict=True):
        if operation.HasField("set_data"):
            seen = operation.set_data.data
        else:
            assert reply.get_data.data == seen


async def test_plain_reads_between_writes_cost_no_round(harness: Harness, stream: Stream) -> None:
    """All writes are proposed at once, and decided in one entry of the log."""
    await stream.ask("create", path="/a", data=b"0")
    before = harness.replica.applied_index
    harness.replica.is_automatic = False
    operations = [stream.operation("get_data", path="/a")]
    expected = [b"0"]
    for number in range(1, 30):
        operations.append(stream.operation("set_data", path="/a", data=b"%d" % number))
        operations += [stream.operation("get_data", path="/a") for _ in range(number % 3)]
        expected += [b"%d" % number] * (number % 3)
    ids = await stream.send(*operations)
    await eventually(lambda: len(harness.replica.submitted) == 2 + 29)
    harness.replica.apply()
    replies = await stream.replies(ids)
    assert harness.replica.applied_index == before + 1
    seen = [reply.get_data.data for reply in replies if reply.HasField("get_data")]
    assert seen == expected
    zxids = [reply.zxid for reply in replies]
    assert zxids == sorted(zxids)
    assert harness.server.pipeline.statistics().reads_waiting == 0


async def test_reads_that_wait_for_their_client_do_not_see_a_later_write(
    harness: Harness, stream: Stream
) -> None:
    """A client that does not take its answers: the write behind them runs, and they show the state
    before it."""
    big = b"x" * (1 << 20)
    await stream.ask("create", path="/big", data=big)
    ids = await stream.send(*(stream.operation("get_data", path="/big") for _ in range(60)))
    await eventually(lambda: 0 < harness.server.pipeline.statistics().reads_waiting < 60)
    ids += await stream.send(stream.operation("set_data", path="/big", data=b"new"))
    await eventually(lambda: harness.replica.machine.state.znodes["/big"].data == b"new")
    replies = await stream.replies(ids)
    assert all(reply.get_data.data == big for reply in replies[:-1])
    assert replies[-1].set_data.stat.version == 1


async def test_a_write_that_is_answered_is_not_kept(stream: Stream) -> None:
    """Not by the place where a read would stand behind it either: it may hold a mebibyte."""

    def is_kept() -> bool:
        gc.collect()  # Of tests before.
        return any(isinstance(each, WriteSlot) for each in gc.get_objects())

    await stream.ask("create", path="/a", data=b"x" * (1 << 20))
    await stream.ask("set_data", path="/a", data=b"y" * (1 << 20))
    await eventually(lambda: not is_kept())


async def test_a_read_behind_a_write_refused_for_good_sees_the_one_before(
    harness: Harness, stream: Stream
) -> None:
    """The refused one never runs; the one before it is not decided yet."""
    replica = harness.replica
    await stream.ask("create", path="/a", data=b"0")
    replica.is_automatic = False
    ids = await stream.send(
        stream.operation("set_data", path="/a", data=b"1"),
        stream.operation("set_data", path="/a", data=b"2"),
        stream.operation("get_data", path="/a"),
        stream.operation("set_data", path="/a", data=b"3"),
    )
    await eventually(lambda: len(replica.submitted) == 5)
    _, second, _ = replica._waiting.pop(1)
    second.set_exception(LimitExceededError("it is too large"))
    replica.apply()
    replies = await stream.replies(ids)
    assert [code_of(reply) for reply in replies] == ["OK", "LIMIT_EXCEEDED", "OK", "OK"]
    assert replies[2].get_data.data == b"1"


async def test_a_read_behind_a_write_of_unknown_outcome_is_refused(
    harness: Harness, stream: Stream
) -> None:
    """It could show neither the state without that write nor, later, that with the next."""
    replica = harness.replica
    await stream.ask("create", path="/a", data=b"0")
    replica.is_automatic = False
    ids = await stream.send(
        stream.operation("set_data", path="/a", data=b"1"),
        stream.operation("get_data", path="/a"),
        stream.operation("set_data", path="/a", data=b"2"),
        stream.operation("get_data", path="/a"),
    )
    await eventually(lambda: len(replica.submitted) == 4)
    replica._waiting[0][1].set_exception(OutcomeUnknownError("not decided in time"))
    replica.apply()
    replies = await stream.replies(ids)
    codes = [code_of(reply) for reply in replies]
    assert codes == ["OUTCOME_UNKNOWN", "NOT_CAUGHT_UP", "OK", "OK"]
    assert replies[3].get_data.data == b"2"
    assert harness.server.pipeline.statistics().reads_waiting == 0


async def test_a_bug_that_a_read_behind_a_write_finds_ends_its_stream_alone(
    harness: Harness, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is met while the replica applies, which must go on."""

    def bug(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(queries, "exists", bug)
    await stream.send(
        stream.operation("create", path="/a"),
        stream.operation("exists", path="/a"),
        stream.operation("create", path="/b"),
    )
    refused = await stream.end()
    assert refused is not None and refused.code == "SYSTEM_ERROR"
    assert {"/a", "/b"} <= harness.replica.machine.state.znodes.keys()
    async with streams(harness) as (other,):
        assert code_of(await other.ask("get_data", path="/a")) == "OK"
    assert harness.server.pipeline.statistics().reads_waiting == 0


async def test_writes_are_proposed_without_waiting_for_each_other(
    harness: Harness, stream: Stream
) -> None:
    await stream.ask("create", path="/a")
    before = harness.replica.applied_index
    harness.replica.is_automatic = False
    ids = await stream.send(*(stream.operation("set_data", path="/a") for _ in range(200)))
    await eventually(lambda: len(harness.replica.submitted) == 202)
    harness.replica.apply()
    await stream.replies(ids)
    assert harness.replica.applied_index == before + 1


async def test_its_own_event_is_before_the_reply_of_the_write(stream: Stream) -> None:
    await stream.ask("create", path="/a")
    await stream.ask("exists", path="/a", watch_id=3)
    reply = await stream.ask("set_data", path="/a", data=b"x")
    event = stream.position(lambda item: item.HasField("event"))
    assert stream.items[event].event.zxid == reply.zxid
    assert stream.items[event].event.watch_ids == [3]
    assert event < stream.position(lambda item: item.reply.zxid == reply.zxid)


async def test_events_up_to_a_reply_are_before_it_and_later_ones_after(
    harness: Harness, stream: Stream
) -> None:
    """Ten writes of one slice, each with an event: event, reply, event, reply."""
    await stream.ask("create", path="/a")
    await stream.ask("add_watches", watches=[watch(1, "/a")])
    ids = await stream.send(*(stream.operation("set_data", path="/a") for _ in range(10)))
    await stream.replies(ids)
    shown = [
        ("event", item.event.zxid) if item.HasField("event") else ("reply", item.reply.zxid)
        for item in stream.items[3:]
    ]
    first = shown[0][1]
    assert shown == [(kind, first + number) for number in range(10) for kind in ("event", "reply")]


async def test_a_reader_sees_no_data_newer_than_its_last_event(
    harness: Harness, stream: Stream
) -> None:
    """The watcher reads all the time while somebody else writes."""
    await stream.ask("create", path="/a", data=b"0")
    await stream.ask("add_watches", watches=[watch(1, "/a", include_data=True)])
    harness.replica.is_automatic = False
    for number in range(1, 100):
        harness.replica.apply_elsewhere(Write(Caller(), SetDataOp("/a", b"%d" % number)))
        if number % 3:
            harness.replica.catch_up()
        await stream.send(stream.operation("get_data", path="/a"))
    harness.replica.catch_up()
    await stream.ask("get_data", path="/a")
    last, reads = b"0", 0
    for item in stream.items:
        if item.HasField("event"):
            last = item.event.data
        elif item.reply.HasField("get_data"):
            assert item.reply.get_data.data == last
            reads += 1
    assert reads == 100
    assert last == b"99"


async def test_a_refused_read_that_shows_a_change_follows_its_event(
    harness: Harness, stream: Stream
) -> None:
    await stream.ask("create", path="/a")
    await stream.ask("get_data", path="/a", watch_id=1)
    harness.replica.apply_elsewhere(Write(Caller(), DeleteOp("/a")))
    harness.replica.catch_up()
    reply = await stream.ask("get_data", path="/a")
    assert code_of(reply) == "NO_NODE"
    event = stream.position(lambda item: item.HasField("event"))
    assert event < stream.position(lambda item: item.reply.HasField("error"))


# ------------------------------------------------------------------------- watches set by reads


@pytest.mark.parametrize(
    ("kind", "path", "changes", "event_type"),
    [
        ("get_data", "/p", SetDataOp("/p", b""), watch_pb2.WATCH_EVENT_TYPE_DATA_CHANGED),
        ("exists", "/p", SetDataOp("/p", b""), watch_pb2.WATCH_EVENT_TYPE_DATA_CHANGED),
        ("exists", "/q", CreateOp("/q"), watch_pb2.WATCH_EVENT_TYPE_CREATED),
        ("get_children", "/p", CreateOp("/p/c"), watch_pb2.WATCH_EVENT_TYPE_CHILDREN_CHANGED),
    ],
)
async def test_a_read_sets_the_watch_of_its_kind(
    harness: Harness, stream: Stream, kind: str, path: str, changes: Any, event_type: int
) -> None:
    await stream.ask("create", path="/p")
    assert code_of(await stream.ask(kind, path=path, watch_id=9)) == "OK"
    harness.replica.apply_elsewhere(Write(Caller(), changes))
    harness.replica.catch_up()
    event = (await stream.until(lambda item: item.HasField("event"))).event
    assert (list(event.watch_ids), event.type, event.path) == ([9], event_type, path)


async def test_a_refused_read_sets_no_watch(harness: Harness, stream: Stream) -> None:
    for kind in ("get_data", "get_children"):
        assert code_of(await stream.ask(kind, path="/a", watch_id=1)) == "NO_NODE"
    await stream.ask("create", path="/a")
    await stream.ask("create", path="/a/b")
    await stream.ask("set_data", path="/a")
    assert not stream.events


async def test_nothing_is_lost_between_a_read_and_its_watch(
    harness: Harness, stream: Stream
) -> None:
    """A write of somebody else in each turn of the loop: the event tells of the very next one."""
    await stream.ask("create", path="/a", data=b"")
    replica = harness.replica
    for watch_id in range(1, 50):
        (request_id,) = await stream.send(
            stream.operation("get_data", path="/a", watch_id=watch_id)
        )
        while request_id not in stream.answered:
            replica.apply_elsewhere(Write(Caller(), SetDataOp("/a", b"")))
            replica.catch_up()
            await stream.read()
        version = (await stream.reply(request_id)).get_data.stat.version
        replica.apply_elsewhere(Write(Caller(), SetDataOp("/a", b"")))
        replica.catch_up()
        read_at = (await stream.reply(request_id)).zxid
        event = await stream.event(watch_id)
        assert event.zxid == read_at + 1, version


async def test_a_watch_id_in_use_refuses_the_read(stream: Stream) -> None:
    assert code_of(await stream.ask("exists", path="/a", watch_id=1)) == "OK"
    assert code_of(await stream.ask("exists", path="/b", watch_id=1)) == "BAD_ARGUMENTS"
    assert code_of(await stream.ask("exists", path="/b", watch_id=-1)) == "BAD_ARGUMENTS"
    assert code_of(await stream.ask("create", path="/b")) == "OK"
    assert not stream.events


async def test_added_watches_report_the_write_sent_behind_them(
    harness: Harness, stream: Stream
) -> None:
    ids = await stream.send(
        stream.operation("create", path="/a"),
        stream.operation(
            "add_watches",
            watches=[watch(1, "/a", watch_pb2.WATCH_KIND_DATA), watch(2, "/")],
        ),
        stream.operation("set_data", path="/a"),
        stream.operation("create", path="/b"),
    )
    replies = await stream.replies(ids)
    assert replies[1].add_watches.watches_set.watch_ids == [1, 2]
    assert replies[1].add_watches.watches_set.zxid == replies[0].zxid
    assert [(list(e.watch_ids), e.zxid) for e in stream.events] == [
        ([1], replies[2].zxid),
        ([2], replies[3].zxid),
    ]


async def test_watches_are_added_all_or_none(stream: Stream) -> None:
    refused = await stream.ask(
        "add_watches",
        watches=[watch(1, "/a"), watch(2, "/missing", watch_pb2.WATCH_KIND_DATA)],
    )
    assert code_of(refused) == "NO_NODE"
    assert code_of(await stream.ask("remove_watches", watch_ids=[1])) == "NO_WATCHER"
    malformed = await stream.ask("add_watches", watches=[watch(1, "nonsense")])
    assert code_of(malformed) == "BAD_ARGUMENTS"


async def test_no_event_follows_the_reply_that_its_watch_is_removed(stream: Stream) -> None:
    await stream.ask("add_watches", watches=[watch(1, "/a"), watch(2, "/a")])
    ids = await stream.send(
        stream.operation("create", path="/a"),
        stream.operation("remove_watches", watch_ids=[1]),
        stream.operation("set_data", path="/a"),
    )
    replies = await stream.replies(ids)
    assert [event.watch_ids for event in stream.events] == [[1, 2], [2]]
    assert stream.events[1].zxid == replies[2].zxid


# ------------------------------------------------------------------------- freshness


async def test_a_read_waits_for_its_min_zxid(harness: Harness, stream: Stream) -> None:
    replica = harness.replica
    await stream.ask("create", path="/a", data=b"old")
    replica.apply_elsewhere(Write(Caller(), SetDataOp("/a", b"new")))
    zxid = replica.machine.state.zxid + 1
    context = common_pb2.RequestContext(min_zxid=zxid)
    ids = await stream.send(
        stream.operation("get_data", path="/a", context=context),
        stream.operation("exists", path="/a"),
        ping=5,
    )
    await stream.pong(5)
    assert stream.answered == [1]
    replica.catch_up()
    replies = await stream.replies(ids)
    assert replies[0].get_data.data == b"new"
    assert replies[1].zxid >= zxid


async def test_a_linearizable_read_and_a_sync_catch_up(harness: Harness, stream: Stream) -> None:
    await stream.ask("create", path="/a", data=b"0")
    for number, kind in enumerate(("get_data", "sync", "exists"), start=1):
        harness.replica.apply_elsewhere(Write(Caller(), SetDataOp("/a", b"%d" % number)))
        fields: dict[str, Any] = {"path": "/a"}
        if kind != "sync":
            fields["consistency"] = common_pb2.READ_CONSISTENCY_LINEARIZABLE
        await stream.ask(kind, **fields)
        seen = await stream.ask("get_data", path="/a")
        assert seen.get_data.data == b"%d" % number


async def test_local_reads_do_not_catch_up(harness: Harness, stream: Stream) -> None:
    await stream.ask("create", path="/a", data=b"0")
    harness.replica.apply_elsewhere(Write(Caller(), SetDataOp("/a", b"1")))
    assert (await stream.ask("get_data", path="/a")).get_data.data == b"0"


async def test_a_min_zxid_never_reached_is_refused_in_its_place(
    harness: Harness, stream: Stream
) -> None:
    context = common_pb2.RequestContext(min_zxid=10_000)
    ids = await stream.send(
        stream.operation("exists", path="/a", context=context),
        stream.operation("create", path="/a"),
    )
    replies = await stream.replies(ids)
    assert [code_of(reply) for reply in replies] == ["NOT_CAUGHT_UP", "OK"]


async def test_the_same_request_answers_the_same_on_a_stream_and_unary(
    harness: Harness, stream: Stream
) -> None:
    """Field by field, errors included."""
    await stream.ask("create", path="/a", data=b"x")
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("get_data", "GetData", {"path": "/a"}),
        ("get_data", "GetData", {"path": "/none"}),
        ("get_data", "GetData", {"path": "a//"}),
        ("exists", "Exists", {"path": "/a"}),
        ("exists", "Exists", {"path": "/none"}),
        ("exists", "Exists", {"path": "/a", "consistency": 77}),
        ("get_children", "GetChildren", {"path": "/", "include_stat": True, "include_data": True}),
        ("get_children", "GetChildren", {"path": "/", "page_size": 1}),
        ("get_children", "GetChildren", {"path": "/", "page_token": "a/b"}),
        ("get_acl", "GetAcl", {"path": "/a"}),
        ("get_acl", "GetAcl", {"path": "/"}),
        ("sync", "Sync", {"path": "/x"}),
        ("create", "Create", {"path": "/a"}),
        ("create", "Create", {"path": "/x", "mode": 5}),
        ("delete", "Delete", {"path": "/a", "expected_version": 7}),
        ("set_data", "SetData", {"path": "/none"}),
        ("multi", "Multi", {}),
        ("add_auth", "AddAuth", {"scheme": "none"}),
    ]
    context = common_pb2.RequestContext(session=stream.credentials)
    for kind, method, fields in cases:
        reply = await stream.ask(kind, **fields)
        try:
            answer = await harness.call(method, context=context, **fields)
        except Refused as refused:
            expected = refused.detail
            expected.message = refused.message
            if expected.zxid and expected.zxid == reply.error.zxid + 1:
                expected.zxid -= 1  # a write takes one each time
            assert reply.error == expected, method
        else:
            answer.ClearField("header")
            assert getattr(reply, kind) == answer, method
