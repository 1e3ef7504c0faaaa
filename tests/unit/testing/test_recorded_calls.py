"""Numbered unary writes and roaming watches, in the history as they were."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordsvc.client.options import ClientConfig
from coordsvc.testing.check_history import check
from coordsvc.testing.history import (
    ERROR,
    OK,
    UNKNOWN,
    Event,
    Invoke,
    Recorder,
    Return,
    Run,
    Session,
    WatchEnd,
    WatchSet,
)
from coordsvc.testing.local_servers import LocalServers
from coordsvc.testing.recorded_calls import RecordedCalls
from coordsvc.testing.recorded_watch import RecordedWatch, RecordedWatchStream

PATIENCE_SECONDS = 20.0


@pytest.fixture
def recorder() -> Recorder:
    recorder = Recorder(time.monotonic)
    recorder.add(Run(recorder.time, "processes", 3))
    return recorder


@pytest.fixture
async def endpoints(tmp_path: Path) -> AsyncIterator[list[str]]:
    async with LocalServers(str(tmp_path), 3) as servers:
        yield [server.endpoint for server in servers.servers.values()]


@pytest.fixture
async def calls(endpoints: list[str], recorder: Recorder) -> AsyncIterator[RecordedCalls]:
    calls = RecordedCalls(endpoints, recorder, "n1")
    await calls.open(0)
    yield calls
    await calls.stop()


def returns(recorder: Recorder) -> list[Return]:
    return [record for record in recorder.records if isinstance(record, Return)]


def sequential_create(value: str) -> dict[str, object]:
    return {"path": "/n-", "data": value, "mode": "persistent_sequential"}


async def test_a_repeated_write_is_answered_as_the_first_time(
    calls: RecordedCalls, recorder: Recorder
) -> None:
    write = calls.next_write("create", sequential_create("n1.1"))
    assert [await calls.attempt(write, at) for at in calls.replicas] == [OK] * 3
    refused = calls.next_write("delete", {"path": "/none", "version": None})
    assert [await calls.attempt(refused, at) for at in (1, 2)] == [ERROR] * 2
    invoked = [record for record in recorder.records if isinstance(record, Invoke)]
    assert [(each.request_number, each.repeats) for each in invoked] == [
        (1, 0),
        (1, 1),
        (1, 1),
        (2, 0),
        (2, 4),
    ]
    assert {each.session for each in invoked} == {calls.session}
    first, *others = returns(recorder)
    assert first.result == {"path": "/n-0000000000"}
    assert [(each.zxid, each.result) for each in others[:2]] == [(first.zxid, first.result)] * 2
    assert [each.replica for each in returns(recorder)[:3]] == [1, 2, 3]
    assert others[2].zxid == others[3].zxid == first.zxid + 1
    assert [each.code for each in others[2:]] == ["NO_NODE", "NO_NODE"]


async def test_every_kind_of_write_has_its_result(calls: RecordedCalls, recorder: Recorder) -> None:
    create = {"path": "/a", "data": None, "mode": "persistent"}
    check = {"name": "check", "path": "/a", "version": 1}
    written = {"name": "set_data", "path": "/a", "data": "n1.3", "version": 1}
    for name, args in (
        ("create", create),
        ("set_data", {"path": "/a", "data": "n1.2", "version": 0}),
        ("multi", {"ops": [check, written]}),
        ("delete", {"path": "/a", "version": 2}),
    ):
        assert await calls.attempt(calls.next_write(name, args), 0) == OK
    assert [each.result for each in returns(recorder)] == [
        {"path": "/a"},
        {"version": 1},
        {"results": [{}, {"version": 2}]},
        {},
    ]


async def test_a_call_that_was_cut_off_is_unknown_and_done_once(
    calls: RecordedCalls, recorder: Recorder
) -> None:
    write = calls.next_write("create", sequential_create("n1.1"))
    assert await calls.attempt(write, 0, cut_after_s=0.0) == UNKNOWN
    assert await calls.attempt(write, 1) == OK
    assert await calls.attempt(calls.next_write("create", sequential_create("n1.2")), 2) == OK
    assert [each.outcome for each in returns(recorder)] == [UNKNOWN, OK, OK]
    assert [each.result for each in returns(recorder)[1:]] == [
        {"path": "/n-0000000000"},
        {"path": "/n-0000000001"},
    ]


async def test_reads_of_the_session_see_what_it_wrote_wherever_they_ask(
    calls: RecordedCalls, recorder: Recorder
) -> None:
    create = {"path": "/a", "data": "n1.1", "mode": "persistent"}
    assert await calls.attempt(calls.next_write("create", create), 0) == OK
    assert calls._context().min_zxid == returns(recorder)[-1].zxid
    values = [await calls.get_data("/a", at) for at in calls.replicas]
    assert [value.data for value in values if value is not None] == [b"n1.1"] * 3
    assert await calls.get_data("/none", 1, linearizable=True) is None
    assert returns(recorder)[-1].outcome == ERROR
    delete = {"path": "/none", "version": None}
    assert await calls.attempt(calls.next_write("delete", delete), 0) == ERROR
    assert calls._context().min_zxid == returns(recorder)[-1].zxid, "an error shows a state, too"
    assert check(recorder.records) == []


async def test_a_session_ends_when_it_is_not_renewed(
    endpoints: list[str], recorder: Recorder
) -> None:
    """By its own clock, whatever the replicas think."""
    calls = RecordedCalls(endpoints, recorder, "n1", session_timeout_ms=60_000)
    await calls.open(0)
    await calls.renew(1)
    assert not calls.is_over
    calls._lost_at = 0.0
    await calls.renew(2)
    assert not calls.is_over, "it has just been renewed"
    calls._credentials.password = b"x" * 16
    await calls.renew(0)
    assert calls.is_over
    await calls.close(0)
    states = [record.state for record in recorder.records if isinstance(record, Session)]
    assert states == ["opened", "lost"]


async def test_a_closed_session_is_closed(endpoints: list[str], recorder: Recorder) -> None:
    calls = RecordedCalls(endpoints, recorder, "n1")
    await calls.open(2)
    await calls.close(1)
    states = [record.state for record in recorder.records if isinstance(record, Session)]
    assert states == ["opened", "closed"]
    write = RecordedCalls(endpoints, recorder, "n2")
    await write.open(0)
    write._credentials.session_id = int(calls.session, 16)
    assert await write.attempt(write.next_write("create", sequential_create("n2.1")), 0) != OK
    assert write.is_over
    await write.stop()


async def test_a_watch_goes_on_from_replica_to_replica_and_from_stream_to_stream(
    endpoints: list[str], calls: RecordedCalls, recorder: Recorder
) -> None:
    watch = RecordedWatch(recorder, "w1", "persistent_recursive", "/")
    config = ClientConfig(tuple(endpoints))
    position = None
    visited = set()
    written = 0

    async def write() -> None:
        nonlocal written
        written += 1
        create = calls.next_write("create", sequential_create(f"n1.{written}"))
        assert await calls.attempt(create, 0) == OK

    for _ in range(3):
        async with RecordedWatchStream(config, watch, position) as stream:
            for _ in range(3):
                await write()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while watch.told < written:
                        await anext(stream)
                visited.add(stream._channels.endpoint)
                stream.roam()
            watch.progress(stream.position)
            position = stream.position
        await write()  # While nobody follows.
    watch.end()
    watch.end()
    events = [record for record in recorder.records if isinstance(record, Event)]
    assert [each.path for each in events] == [f"/n-{number:010}" for number in range(11)]
    assert visited == set(endpoints)
    assert {each.watch for each in events} == {"w1"}
    kinds = [type(record) for record in recorder.records]
    assert kinds.count(WatchSet) == kinds.count(WatchEnd) == 1
    assert check(recorder.records) == []
