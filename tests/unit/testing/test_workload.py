"""What a workload's clients do together: enough of everything, and no promise is broken."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from coordsvc.errors import CoordError, NoQuorumError, RequestOutOfOrderError
from coordsvc.testing.check_history import check
from coordsvc.testing.history import (
    ERROR,
    OK,
    Event,
    Held,
    Invoke,
    Progress,
    Record,
    Recorder,
    Return,
    Run,
    Session,
    WatchSet,
)
from coordsvc.testing.local_servers import LocalServers
from coordsvc.testing.recorded_client import RecordedClient
from coordsvc.testing.workload import Workload, WorkloadSettings
from coordsvc.testing.workload_plan import COUNTER, settled

SECONDS = 3.0
SETTINGS = WorkloadSettings(clients=4, rate=150.0, session_timeout_ms=2_000)

FLOORS = {
    "create": 20,
    "set_data": 20,
    "delete": 5,
    "exists": 10,
    "get_data": 20,
    "get_children": 5,
    "sync": 5,
    "multi": 5,
}


@pytest.fixture
def recorder() -> Recorder:
    recorder = Recorder(time.monotonic)
    recorder.add(Run(recorder.time, "processes", 3))
    return recorder


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[LocalServers]:
    async with LocalServers(str(tmp_path), 3) as servers:
        yield servers


def endpoints_of(servers: LocalServers) -> list[str]:
    return [server.endpoint for server in servers.servers.values()]


async def run(workload: Workload, clients: int) -> None:
    """Until they have done enough; on a machine that is busy that takes longer."""
    end = time.monotonic() + SECONDS
    await workload.setup()
    async with asyncio.TaskGroup() as group:
        for number in range(1, clients + 1):
            group.create_task(workload.run_client(number))
        while time.monotonic() < end or not _is_enough(workload.operations):
            await asyncio.sleep(0.05)
        workload.stop()


def _is_enough(operations: Counter[str]) -> bool:
    return all(operations[name] >= floor for name, floor in FLOORS.items())


def count(records: list[Record], kind: type[Record]) -> int:
    return sum(isinstance(record, kind) for record in records)


async def test_there_is_enough_of_everything_and_all_promises_hold(
    servers: LocalServers, recorder: Recorder
) -> None:
    workload = Workload(endpoints_of(servers), recorder, random.Random(7), SETTINGS)
    await run(workload, SETTINGS.clients)
    records = recorder.records
    assert check(records) == []
    answered = [
        each for each in records if isinstance(each, Return) and each.outcome in (OK, ERROR)
    ]
    assert workload.operations.total() == len(answered)
    names = {each.op: each.name for each in records if isinstance(each, Invoke)}
    assert workload.operations == Counter(names[each.op] for each in answered)
    assert {each.outcome for each in answered} == {OK, ERROR}
    assert {each.replica for each in answered if each.replica} == {1, 2, 3}
    for kind in (Event, WatchSet, Held, Progress):
        assert count(records, kind), kind
    writes = [each for each in records if isinstance(each, Invoke) and each.request_number]
    done = {each.op for each in answered}
    assert any(each.repeats in done for each in writes)
    assert any(each.repeats and each.repeats not in done for each in writes)
    sessions = {each.session for each in records if isinstance(each, Session)}
    assert len(sessions) > SETTINGS.clients


async def test_every_value_is_written_once(servers: LocalServers, recorder: Recorder) -> None:
    workload = Workload(endpoints_of(servers), recorder, random.Random(8), SETTINGS)
    await run(workload, SETTINGS.clients)
    values: list[str] = []
    for each in recorder.records:
        if isinstance(each, Invoke) and not each.repeats:
            for part in each.args.get("ops", [each.args]):
                values += [part["data"]] if part.get("data") is not None else []
    assert len(values) > 50
    assert len(values) == len(set(values))


async def test_clients_survive_replicas_that_go(servers: LocalServers, recorder: Recorder) -> None:
    """Without a majority nothing is answered, and that is expected."""
    settings = WorkloadSettings(clients=3, rate=100.0, timeout_ms=500, session_timeout_ms=2_000)
    workload = Workload(endpoints_of(servers), recorder, random.Random(9), settings)
    await workload.setup()
    async with asyncio.TaskGroup() as group:
        for number in range(1, settings.clients + 1):
            group.create_task(workload.run_client(number))
        await until(lambda: workload.operations.total() > 60)
        await servers.servers.pop(1).stop()
        more = workload.operations.total() + 30
        await until(lambda: workload.operations.total() > more)
        await servers.servers.pop(2).stop()
        await until(lambda: _states(recorder)["lost"] >= settings.clients)
        workload.stop()
    assert _states(recorder)["suspended"]
    outcomes = {each.outcome for each in recorder.records if isinstance(each, Return)}
    assert {"refused", "unknown"} <= outcomes
    assert check(recorder.records) == []


def _states(recorder: Recorder) -> Counter[str]:
    return Counter(each.state for each in recorder.records if isinstance(each, Session))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_it_ends_by_itself_when_enough_was_answered(
    servers: LocalServers, recorder: Recorder
) -> None:
    settings = WorkloadSettings(clients=2, rate=300.0, operations_max=80)
    workload = Workload(endpoints_of(servers), recorder, random.Random(10), settings)
    await workload.setup()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for number in (1, 2):
            group.create_task(workload.run_client(number))
    assert 80 <= workload.operations.total() < 160


async def test_only_expected_errors_are_answers() -> None:
    async def fail(error: CoordError) -> None:
        raise error

    expected = NoQuorumError()
    assert await settled(fail(expected)) is expected
    with pytest.raises(RequestOutOfOrderError):
        await settled(fail(RequestOutOfOrderError()))


async def test_what_is_no_expected_error_comes_out(
    servers: LocalServers, recorder: Recorder
) -> None:
    """A counter that is none is a bug, whoever's."""
    settings = WorkloadSettings(clients=1, rate=300.0, shares={"count": 1})
    workload = Workload(endpoints_of(servers), recorder, random.Random(11), settings)
    await workload.setup()
    client = RecordedClient(endpoints_of(servers), recorder, "c0")
    await client.open()
    await client.set_data(COUNTER, "many")
    await client.close()
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(30):
            await workload.run_client(1)
    assert caught.group_contains(ValueError)
