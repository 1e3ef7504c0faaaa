"""The call Watch over a real connection: what is set, told, refused, and how a stream ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import aio

from coordsvc.core.commands import (
    ALL,
    Acl,
    Caller,
    CloseSessionOp,
    CreateOp,
    DeleteOp,
    MultiOp,
    SetAclOp,
    SetDataOp,
    Write,
)
from coordsvc.errors import ShuttingDownError
from coordsvc.v1 import common_pb2, watch_pb2
from tests.unit.server.harness import eventually
from tests.unit.server.watch_harness import WatchHarness, spec, tasks_of_calls, watch_server

CREATED = watch_pb2.WATCH_EVENT_TYPE_CREATED
DELETED = watch_pb2.WATCH_EVENT_TYPE_DELETED
DATA_CHANGED = watch_pb2.WATCH_EVENT_TYPE_DATA_CHANGED
CHILDREN_CHANGED = watch_pb2.WATCH_EVENT_TYPE_CHILDREN_CHANGED
CLOSED = (Acl(ALL & ~1, "world", "anyone"),)


@pytest.fixture
async def server() -> AsyncIterator[WatchHarness]:
    async with watch_server() as harness:
        harness.write(CreateOp("/p", b"0"))
        yield harness


def told(events: list[watch_pb2.WatchEvent]) -> list[tuple[int, str, list[int]]]:
    return [(event.type, event.path, list(event.watch_ids)) for event in events]


# ------------------------------------------------------------------------------------ what is told


async def test_watches_are_set_at_once_and_say_from_where(server: WatchHarness) -> None:
    call = server.start(spec(3, "/p", "DATA"), spec(1, "/none", "EXISTS"))
    watches_set = await call.take("watches_set")
    assert list(watches_set.watch_ids) == [3, 1] and watches_set.zxid == server.zxid
    header = call.frames[0].header
    assert (header.zxid, header.replica_id, header.term) == (server.zxid, 1, 1)
    assert header.cluster_id


async def test_every_kind_reports_what_it_is_for(server: WatchHarness) -> None:
    kinds = ("DATA", "EXISTS", "CHILDREN", "PERSISTENT", "PERSISTENT_RECURSIVE")
    calls = {kind: await server.watch(spec(1, "/p", kind)) for kind in kinds}
    server.write(CreateOp("/p/c", b""))
    server.write(SetDataOp("/p", b"1"))
    server.write(SetDataOp("/p/c", b"1"))
    server.write(DeleteOp("/p/c"))
    server.write(DeleteOp("/p"))
    expected = {
        "DATA": [(DATA_CHANGED, "/p", [1])],
        "EXISTS": [(DATA_CHANGED, "/p", [1])],
        "CHILDREN": [(CHILDREN_CHANGED, "/p", [1])],
        "PERSISTENT": [
            (CHILDREN_CHANGED, "/p", [1]),
            (DATA_CHANGED, "/p", [1]),
            (CHILDREN_CHANGED, "/p", [1]),
            (DELETED, "/p", [1]),
        ],
        "PERSISTENT_RECURSIVE": [
            (CREATED, "/p/c", [1]),
            (DATA_CHANGED, "/p", [1]),
            (DATA_CHANGED, "/p/c", [1]),
            (DELETED, "/p/c", [1]),
            (DELETED, "/p", [1]),
        ],
    }
    for kind, call in calls.items():
        assert told(await call.events(len(expected[kind]))) == expected[kind], kind
    await eventually(lambda: server.hub.watches == 2)


async def test_data_only_for_those_who_asked(server: WatchHarness) -> None:
    call = await server.watch(spec(1, "/p", "PERSISTENT"))
    asked = await server.watch(
        spec(1, "/p", "PERSISTENT"), spec(2, "/", "PERSISTENT_RECURSIVE", True)
    )
    reply = server.write(SetDataOp("/p", b"new"))
    server.write(SetDataOp("/p", None))
    server.write(DeleteOp("/p"))
    for event in await call.events(3):
        assert not event.HasField("data") and not event.HasField("stat")
    written, null, deleted = await asked.events(3)
    assert list(written.watch_ids) == [1, 2]
    assert written.data == b"new" and written.stat.mzxid == written.zxid == reply.zxid
    assert null.HasField("stat") and not null.HasField("data")
    assert not deleted.HasField("stat")


async def test_a_group_has_one_zxid_and_its_last_is_marked(server: WatchHarness) -> None:
    call = await server.watch(spec(1, "/p", "PERSISTENT"))
    reply = server.write(
        MultiOp((CreateOp("/p/1", b""), CreateOp("/p/2", b""), CreateOp("/elsewhere", b"")))
    )
    events = await call.events(2)
    assert [event.zxid for event in events] == [reply.zxid] * 2
    assert [event.last_of_zxid for event in events] == [False, True]


async def test_what_may_not_be_read_is_not_told(server: WatchHarness) -> None:
    """A one-shot watch that is used up by it is gone, and says so."""
    call = await server.watch(spec(1, "/p", "DATA"), spec(2, "/p", "PERSISTENT"))
    server.write(SetAclOp("/p", CLOSED))
    server.write(SetDataOp("/p", b"secret"))
    removed = await call.take("removed")
    assert list(removed.watch_ids) == [1]
    assert removed.reason == watch_pb2.WATCH_REMOVED_REASON_NO_AUTH
    server.write(SetAclOp("/p", (Acl(ALL, "world", "anyone"),)))
    reply = server.write(SetDataOp("/p", b"open"))
    event = await call.take("event")
    assert (list(event.watch_ids), event.zxid) == ([2], reply.zxid)


async def test_a_large_event_has_a_frame_of_its_own(server: WatchHarness) -> None:
    """A client of default limits takes 4 MiB, and everything arrives."""
    call = await server.watch(spec(1, "/p", "PERSISTENT", True))
    for number in range(3):
        server.write(SetDataOp("/p", bytes([number]) * 2**20))
    events = await call.events(3)
    assert [event.data[0] for event in events] == [0, 1, 2]
    assert all(frame.ByteSize() < 3 * 2**20 for frame in call.frames)


async def test_progress_marks_come_when_nothing_else_does(server: WatchHarness) -> None:
    """Each is a position: what is written to other znodes raises it."""
    call = await server.watch(spec(1, "/p", "DATA"), progress_interval_ms=1)
    first = await call.take("progress")
    assert first.zxid == server.zxid
    server.write(CreateOp("/other", b""))
    while (await call.take("progress")).zxid < server.zxid:
        pass
    reply = server.write(SetDataOp("/p", b""))
    while (item := await call.item()).WhichOneof("item") == "progress":
        assert item.progress.zxid < reply.zxid
    assert item.event.zxid == reply.zxid
    assert (await call.take("progress")).zxid == reply.zxid


async def test_values_below_a_hundred_count_as_a_hundred(server: WatchHarness) -> None:
    call = await server.watch(spec(1, "/p", "DATA"), progress_interval_ms=1)
    stream = next(iter(server.service._streams))
    assert stream._interval_s == 0.1
    await call.take("progress")


# ---------------------------------------------------------------------------------------- resuming


async def test_resuming_replays_what_was_missed_and_goes_on(server: WatchHarness) -> None:
    start = server.zxid
    server.write(SetDataOp("/p", b"1"))
    server.write(CreateOp("/p/c", b""))
    server.write(SetDataOp("/p", b"2"))
    call = server.start(spec(1, "/p", "DATA"), spec(2, "/p", "PERSISTENT"), start_after_zxid=start)
    watches_set = await call.take("watches_set")
    assert watches_set.zxid == start
    assert told(await call.events(3)) == [
        (DATA_CHANGED, "/p", [1, 2]),
        (CHILDREN_CHANGED, "/p", [2]),
        (DATA_CHANGED, "/p", [2]),
    ]
    server.write(DeleteOp("/p/c"))
    assert told(await call.events(1)) == [(CHILDREN_CHANGED, "/p", [2])]


async def test_half_a_group_is_sent_again_from_its_start(server: WatchHarness) -> None:
    """Given events of one multi only half delivered before a cut, when the client resumes from the
    last complete group, then all of it comes."""
    start = server.zxid
    reply = server.write(MultiOp((CreateOp("/p/1", b""), CreateOp("/p/2", b""))))
    call = await server.watch(spec(1, "/p", "PERSISTENT"), start_after_zxid=start)
    (first,) = await call.events(1)
    assert not first.last_of_zxid
    call.call.cancel()
    again = await server.watch(spec(1, "/p", "PERSISTENT"), start_after_zxid=start)
    events = await again.events(2)
    assert [(event.zxid, event.last_of_zxid) for event in events] == [
        (reply.zxid, False),
        (reply.zxid, True),
    ]


async def test_what_the_history_has_dropped_is_a_gap_or_in_the_stat() -> None:
    async with watch_server(watch_history_bytes_max=3_000) as server:
        server.write(CreateOp("/p", b"0"))
        start = server.zxid
        for number in range(20):
            server.write(SetDataOp("/p", b"%d" % number))
        specs = [
            spec(1, "/p", "DATA", True),
            spec(2, "/p", "PERSISTENT"),
            spec(3, "/p", "CHILDREN"),
            spec(4, "/none", "EXISTS"),
        ]
        call = server.start(*specs, start_after_zxid=start)
        assert (await call.take("watches_set")).zxid == server.zxid
        gap = await call.take("gap")
        assert list(gap.watch_ids) == [2, 4]
        assert (gap.after_zxid, gap.resumed_at_zxid) == (start, server.zxid)
        assert gap.reason == watch_pb2.WATCH_GAP_REASON_HISTORY_TOO_OLD
        (event,) = await call.events(1)
        assert told([event]) == [(DATA_CHANGED, "/p", [1])]
        assert (event.data, event.zxid) == (b"19", server.zxid)
        server.write(CreateOp("/p/c", b""))
        assert told(await call.events(1)) == [(CHILDREN_CHANGED, "/p", [2, 3])]


async def test_a_start_that_is_ahead_here_is_waited_for(server: WatchHarness) -> None:
    """It is another replica's, of the same cluster; a read-index finds out."""
    server.replica.apply_elsewhere(Write(Caller(), SetDataOp("/p", b"1")))
    start = server.zxid + 1
    call = server.start(spec(1, "/p", "PERSISTENT"), start_after_zxid=start)
    assert (await call.take("watches_set")).zxid == start == server.zxid
    server.write(SetDataOp("/p", b"2"))
    assert told(await call.events(1)) == [(DATA_CHANGED, "/p", [1])]


async def test_a_start_that_nobody_has_reached_is_another_history(server: WatchHarness) -> None:
    call = server.start(spec(1, "/p", "DATA"), start_after_zxid=server.zxid + 1000)
    assert (await call.take("watches_set")).zxid == server.zxid
    gap = await call.take("gap")
    assert gap.reason == watch_pb2.WATCH_GAP_REASON_OTHER_HISTORY
    assert (list(gap.watch_ids), gap.resumed_at_zxid) == ([1], server.zxid)
    server.write(SetDataOp("/p", b"1"))
    assert told(await call.events(1)) == [(DATA_CHANGED, "/p", [1])]


async def test_a_replay_larger_than_the_buffer_is_no_gap() -> None:
    async with watch_server(watch_buffer_events_max=10, watch_buffer_bytes_max=2_000) as server:
        server.write(CreateOp("/p", b"0"))
        start = server.zxid
        for _ in range(300):
            server.write(SetDataOp("/p", b"x" * 100))
        call = await server.watch(spec(1, "/p", "PERSISTENT", True), start_after_zxid=start)
        events = await call.events(300)
        assert [event.zxid for event in events] == list(range(start + 1, start + 301))
        assert server.hub.gaps_total == 0


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"watches": []}, "BAD_ARGUMENTS"),
        ({"watches": [spec(0, "/p", "DATA")]}, "BAD_ARGUMENTS"),
        ({"watches": [spec(-1, "/p", "DATA")]}, "BAD_ARGUMENTS"),
        ({"watches": [spec(1, "/p", "DATA"), spec(1, "/", "DATA")]}, "BAD_ARGUMENTS"),
        ({"watches": [spec(1, "p", "DATA")]}, "BAD_ARGUMENTS"),
        ({"watches": [spec(1, "/p/", "DATA")]}, "BAD_ARGUMENTS"),
        ({"watches": [spec(1, "/" + "x" * 5000, "EXISTS")]}, "BAD_ARGUMENTS"),
        ({"watches": [watch_pb2.WatchSpec(watch_id=1, path="/p")]}, "BAD_ARGUMENTS"),
        ({"watches": [watch_pb2.WatchSpec(watch_id=1, path="/p", kind=9)]}, "BAD_ARGUMENTS"),
        ({"start_after_zxid": -1}, "BAD_ARGUMENTS"),
        ({"progress_interval_ms": -1}, "BAD_ARGUMENTS"),
        ({"context": common_pb2.RequestContext(min_zxid=-1)}, "BAD_ARGUMENTS"),
        ({"watches": [spec(n, "/p", "DATA") for n in range(1, 1002)]}, "LIMIT_EXCEEDED"),
        ({"watches": [spec(1, "/none", "DATA")]}, "NO_NODE"),
        ({"watches": [spec(1, "/none", "CHILDREN")]}, "NO_NODE"),
        ({"watches": [spec(1, "/closed", "DATA")]}, "NO_AUTH"),
        ({"watches": [spec(1, "/closed", "PERSISTENT")]}, "NO_AUTH"),
        ({"context": common_pb2.RequestContext(required_features=["x"])}, "UNSUPPORTED_FEATURE"),
        (
            {
                "context": common_pb2.RequestContext(
                    session=common_pb2.SessionCredentials(session_id=77, password=b"x" * 16)
                )
            },
            "SESSION_EXPIRED",
        ),
    ],
)
async def test_refusals_are_typed_and_leave_nothing(
    server: WatchHarness, fields: dict[str, Any], code: str
) -> None:
    server.write(CreateOp("/closed", b"", acl=CLOSED))
    specs = fields.pop("watches", [spec(1, "/p", "DATA")])
    refused = await server.start(*specs, **fields).refusal()
    assert refused.code == code
    assert (server.hub.watches, server.service.open_streams) == (0, 0)


async def test_all_or_none_of_the_watches(server: WatchHarness) -> None:
    refused = await server.start(spec(1, "/p", "DATA"), spec(2, "/none", "DATA")).refusal()
    assert refused.code == "NO_NODE" and refused.detail.path == "/none"
    assert (server.hub.watches, len(server.hub.table)) == (0, 0)


async def test_limits_of_watches_have_a_hint() -> None:
    async with watch_server(watches_per_stream_max=2, watches_max=3) as server:
        specs = [spec(number, "/x", "EXISTS") for number in (1, 2, 3)]
        refused = await server.start(*specs).refusal()
        assert refused.code == "LIMIT_EXCEEDED" and "watches_per_stream_max" in refused.message
        await server.watch(*specs[:2])
        refused = await server.start(*specs[:2]).refusal()
        assert refused.code == "LIMIT_EXCEEDED" and "watches_max" in refused.message


async def test_min_zxid_is_waited_for(server: WatchHarness) -> None:
    context = common_pb2.RequestContext(min_zxid=server.zxid + 1)
    call = server.start(spec(1, "/p", "DATA"), context=context)
    await eventually(lambda: server.service.open_streams == 1)
    server.write(SetDataOp("/p", b"1"))
    assert (await call.take("watches_set")).zxid == context.min_zxid
    waiting = common_pb2.RequestContext(min_zxid=10**15)
    refused = await server.start(spec(1, "/p", "DATA"), context=waiting, timeout=1).refusal()
    assert refused.code == "NOT_CAUGHT_UP"


# ------------------------------------------------------------------------------------------- ends


async def test_a_stream_ends_with_its_session(server: WatchHarness) -> None:
    """After what the end of the session changed, and with nobody else's stream."""
    context = server.open_session()
    session_id = context.session.session_id
    mine = await server.watch(spec(1, "/", "PERSISTENT_RECURSIVE"), context=context)
    others = await server.watch(spec(1, "/", "PERSISTENT_RECURSIVE"))
    caller = Caller(session_id=session_id)
    server.replica.apply_elsewhere(
        Write(caller, CreateOp("/e", b"", mode=1)), Write(caller, CloseSessionOp())
    )
    server.replica.catch_up()
    assert told(await mine.events(2)) == [(CREATED, "/e", [1]), (DELETED, "/e", [1])]
    refused = await mine.refusal()
    assert refused.code == "SESSION_EXPIRED" and f"{session_id:#x}" in refused.message
    await others.events(2)
    server.write(SetDataOp("/p", b""))
    await others.events(1)
    assert server.service.open_streams == 1


async def test_a_stream_does_not_renew_its_session(server: WatchHarness) -> None:
    """Only the request that opens it does."""
    context = server.open_session()
    await server.watch(spec(1, "/p", "PERSISTENT"), context=context, progress_interval_ms=100)
    heard: list[int] = []
    server.server.reports.heard = lambda session_id, at: heard.append(session_id)  # type: ignore[method-assign]
    server.write(SetDataOp("/p", b""))
    await asyncio.sleep(0.3)
    assert not heard


async def test_without_a_leader_streams_end_and_none_begins(server: WatchHarness) -> None:
    call = await server.watch(spec(1, "/p", "PERSISTENT"))
    server.replica.has_quorum = False
    refused = await call.refusal()
    assert refused.code == "NO_QUORUM" and refused.detail.retry_after_ms > 0
    assert (await server.start(spec(1, "/p", "DATA")).refusal()).code == "NO_QUORUM"
    server.replica.has_quorum = True
    await server.watch(spec(1, "/p", "PERSISTENT"))


async def test_the_end_of_all_streams_comes_after_what_waits(server: WatchHarness) -> None:
    calls = [await server.watch(spec(1, "/p", "PERSISTENT")) for _ in range(50)]
    reply = server.write(SetDataOp("/p", b"1"))
    server.service.end_all(ShuttingDownError("this replica is stopping; try another one"))
    for call in calls:
        (event,) = await call.events(1)
        assert event.zxid == reply.zxid
        assert (await call.refusal()).code == "SHUTTING_DOWN"
    assert (await server.start(spec(1, "/p", "DATA")).refusal()).code == "SHUTTING_DOWN"
    assert (server.hub.watches, server.service.open_streams) == (0, 0)
    assert server.service._timer is None


async def test_cancel_and_deadline_leave_nothing(server: WatchHarness) -> None:
    cancelled = await server.watch(spec(1, "/p", "PERSISTENT"))
    timed = await server.watch(spec(1, "/p", "PERSISTENT"), timeout=0.5)
    cancelled.call.cancel()
    with pytest.raises(aio.AioRpcError):
        await timed.item()
    await eventually(lambda: server.service.open_streams == 0)
    await eventually(lambda: not tasks_of_calls())
    statistics = server.hub.statistics()
    assert (statistics.watches, statistics.watchers, len(server.hub.table)) == (0, 0, 0)


async def test_a_reader_that_does_not_read_costs_a_bounded_buffer() -> None:
    """Goal: what it missed is a gap, with everything before it delivered and everything after."""
    async with watch_server(watch_buffer_bytes_max=2**20, watch_buffer_events_max=1000) as server:
        server.write(CreateOp("/p", b"0"))
        call = await server.watch(spec(1, "/p", "PERSISTENT", True))
        (watcher,) = server.hub._watchers
        first = server.zxid + 1
        for number in range(400):
            server.write(SetDataOp("/p", number.to_bytes(2, "big") * 40_000))
            assert watcher._buffer.bytes <= 2 * 2**20
            await asyncio.sleep(0)
        assert server.hub.gaps_total > 0
        at, last = first - 1, server.zxid
        while at < last:
            item = await call.item()
            if item.WhichOneof("item") == "gap":
                assert item.gap.reason == watch_pb2.WATCH_GAP_REASON_BUFFER_OVERFLOW
                assert (item.gap.after_zxid, list(item.gap.watch_ids)) == (at, [1])
                at = item.gap.resumed_at_zxid
            else:
                assert item.event.zxid == at + 1
                at = item.event.zxid
        reply = server.write(SetDataOp("/p", b"at last"))
        (event,) = await call.events(1)
        assert event.zxid == reply.zxid
