"""`coordsvc bench`, against a real server in this process, and what it makes of what it sees.

Goal: no figure without the check, and nothing left behind, however it ends. Method: a server on a
log of one; the command as a user runs it; and single clients whose answers a test decides.
"""

from __future__ import annotations

import asyncio
import io
import json
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from coordsvc.cli.bench_load import Load, Outcome, Plan, Tally, Worker
from coordsvc.cli.bench_report import Progress, print_outcome
from coordsvc.cli.main import main
from coordsvc.client.options import ClientConfig
from coordsvc.client.records import Data, Stat
from coordsvc.errors import CoordError, InternalError, NoQuorumError, OutcomeUnknownError
from tests.unit.server.harness import Harness, local_server

PLAN = Plan("set", clients=2, in_flight=4, seconds=0.2, data_bytes=10, path="/b")
STAT = Stat(*([0] * len(Stat._fields)))


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Of a server that runs in a thread of its own: the command has a loop of its own."""
    found: list[str] = []
    is_up, is_over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with local_server() as harness:
            found.append(str(harness.server.address))
            is_up.set()
            await asyncio.to_thread(is_over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert is_up.wait(10)
    yield found[0]
    is_over.set()
    thread.join(10)


def run(endpoint: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--endpoints", endpoint])


def bench(endpoint: str, *arguments: str) -> Result:
    return run(
        endpoint, "bench", "--seconds", "0.3", "--clients", "2", "--in-flight", "4", *arguments
    )


# -------------------------------------------------------------------------------------- commands


def test_what_it_tells(endpoint: str) -> None:
    result = bench(endpoint)
    assert result.exit_code == 0, result.stderr
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    assert list(lines) == [
        *("load", "operations/s", "latency", "errors", "checked", "client's CPU"),
    ]
    assert "set, 2 clients, 4 in flight on each, 100 bytes" in lines["load"]
    assert int(lines["operations/s"].replace(",", "")) > 0
    assert "p99.9" in lines["latency"]
    assert lines["errors"].strip() == "0"
    assert "acknowledged sets, all are there" in lines["checked"]


@pytest.mark.parametrize("operation", ["set", "get", "mixed"])
def test_programs_are_told_the_same(endpoint: str, operation: str) -> None:
    result = bench(endpoint, "--operation", operation, "-o", "json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["operation"], told["clients"], told["in_flight"]) == (operation, 2, 4)
    assert told["operations_per_s"] == pytest.approx(told["operations"] / told["seconds"], rel=0.01)
    assert 0 < told["latency_ms"]["p50"] <= told["latency_ms"]["p99"]
    assert told["errors"] == {}
    assert (told["acknowledged_sets"] > 0) == (operation != "get")


def test_nothing_is_left_behind(endpoint: str) -> None:
    before = run(endpoint, "ls", "/").stdout
    assert bench(endpoint).exit_code == 0
    assert run(endpoint, "ls", "/").stdout == before


def test_it_says_what_is_wrong_with_the_path(endpoint: str) -> None:
    result = bench(endpoint, "--path", "/no/such")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "error: NO_NODE /no/such-" in result.stderr


def test_linearizable_sets_are_refused(endpoint: str) -> None:
    assert bench(endpoint, "--linearizable").exit_code == 2


def below(harness: Harness) -> list[str]:
    return [path for path in harness.replica.machine.state.znodes if path.startswith("/b-")]


async def test_nothing_is_left_behind_when_it_is_interrupted() -> None:
    async with local_server() as harness:
        is_under_way = asyncio.Event()

        async def measure() -> None:
            async with Load(PLAN, ClientConfig((str(harness.server.address),))) as load:
                await load.measure(lambda passed, tally: is_under_way.set())

        task = asyncio.create_task(measure())
        await is_under_way.wait()
        # The container, and a znode for each client.
        assert len(below(harness)) == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert below(harness) == []


async def test_without_this_program_the_service_deletes_what_it_made() -> None:
    """What is not a container goes with the sessions."""
    async with local_server() as harness:
        async with Load(PLAN, ClientConfig((str(harness.server.address),))):
            state = harness.replica.machine.state
            root, *others = sorted(below(harness))
            assert root in state.containers
            assert set(others) == {path for each in state.ephemerals.values() for path in each}


async def test_a_set_that_is_not_there_is_no_result() -> None:
    """Here one is counted that was never made."""
    async with local_server() as harness:
        async with Load(PLAN, ClientConfig((str(harness.server.address),))) as load:
            load._workers[1].acknowledged += 1
            with pytest.raises(InternalError, match="after [0-9]+ acknowledged sets") as failure:
                await load.measure(lambda passed, tally: None)
            assert (failure.value.path or "").endswith("/client-1")


# --------------------------------------------------------------------------------------- clients


class Answers:
    """In place of a client: what each set in turn comes to. Then it is enough."""

    def __init__(self, *script: CoordError | None) -> None:
        self._script = list(script)
        self.stop = asyncio.Event()
        self.nowait = self

    def set_data(self, path: str, data: bytes) -> asyncio.Future[Stat]:
        future: asyncio.Future[Stat] = asyncio.get_running_loop().create_future()
        error = self._script.pop(0)
        if error is None:
            future.set_result(STAT)
        else:
            future.set_exception(error)
        if not self._script:
            self.stop.set()
        return future


def worker_of(client: Any, tally: Tally, **changes: Any) -> Worker:
    plan = Plan("set", clients=1, in_flight=1, seconds=1, data_bytes=3, path="/b")
    worker = Worker(plan, ClientConfig(("127.0.0.1:1",)), 0, tally)
    worker.client, worker.path = client, "/b-1/client-0"
    for name, value in changes.items():
        setattr(worker, name, value)
    return worker


async def test_refusals_are_counted_by_code_and_doubtful_sets_apart() -> None:
    tally = Tally(is_measuring=True)
    answers = Answers(None, NoQuorumError(), OutcomeUnknownError("?"), None, OutcomeUnknownError())
    worker = worker_of(answers, tally)
    await worker.run(answers.stop)
    assert (worker.acknowledged, worker.doubtful) == (2, 2)
    assert tally.operations == len(tally.latencies_s) == 2
    assert tally.errors == {"NO_QUORUM": 1, "OUTCOME_UNKNOWN": 2}


@pytest.mark.parametrize(("version", "is_right"), [(1, False), (2, True), (4, True), (5, False)])
async def test_sets_of_unknown_outcome_may_count_or_not(version: int, is_right: bool) -> None:
    async def get_data(path: str, *, linearizable: bool) -> Data:
        assert linearizable
        return Data(b"...", STAT._replace(version=version), 1)

    worker = worker_of(SimpleNamespace(get_data=get_data), Tally(), acknowledged=2, doubtful=2)
    if is_right:
        await worker.check()
    else:
        with pytest.raises(InternalError, match="2 acknowledged sets and 2 of unknown outcome"):
            await worker.check()


async def test_a_get_of_other_data_ends_it() -> None:
    stop = asyncio.Event()

    def get_data(path: str, *, linearizable: bool) -> asyncio.Future[Data]:
        stop.set()
        future: asyncio.Future[Data] = asyncio.get_running_loop().create_future()
        future.set_result(Data(b"???", STAT, 1))
        return future

    plan = Plan("get", clients=1, in_flight=1, seconds=1, data_bytes=3, path="/b")
    client = SimpleNamespace(nowait=SimpleNamespace(get_data=get_data))
    worker = worker_of(client, Tally(), _plan=plan)
    with pytest.raises(InternalError, match="other data"):
        await worker.run(stop)


# ---------------------------------------------------------------------------------------- output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO) -> str:
    progress, tally = Progress(4.0, stream), Tally()
    for number in range(9):
        tally.operations = 1_000 * number
        progress(0.5 * number, tally)
    tally.errors["NO_QUORUM"] = 7
    progress(4.5, tally)
    progress.close()
    return stream.getvalue()


def test_on_a_terminal_one_line_is_written_over() -> None:
    text = shown(Terminal())
    assert "\n" not in text
    assert "[############------------]   2.0 of 4 s       2,000 operations/s" in text
    assert "7 errors" in text
    assert text.endswith("\r\x1b[K"), "the line is left empty"


def test_elsewhere_there_is_a_line_a_second() -> None:
    lines = shown(io.StringIO()).splitlines()
    assert lines[:2] == [
        "  1.0 of 4 s       2,000 operations/s",
        "  2.0 of 4 s       2,000 operations/s",
    ]
    assert len(lines) == 4
    assert "\r" not in "".join(lines)


def outcome(cpu_s: float) -> Outcome:
    latencies = array("d", [each / 1000 for each in range(1, 1001)])
    return Outcome(1_000, 2.0, cpu_s, latencies, Counter(NO_QUORUM=3), acknowledged_sets=1_000)


def test_percentiles_are_answers_that_came() -> None:
    found = outcome(0.0)
    assert [found.latency_s(each) for each in (50.0, 99.0, 99.9)] == [0.5, 0.99, 0.999]
    assert Outcome(0, 1.0, 0.0, array("d"), Counter(), 0).latency_s(50.0) == 0.0


@pytest.mark.parametrize(("cpu_s", "is_bound"), [(1.6, False), (1.62, True)])
def test_a_client_that_was_busy_itself_says_so(
    capsys: pytest.CaptureFixture[str], cpu_s: float, is_bound: bool
) -> None:
    print_outcome(PLAN, outcome(cpu_s), as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)["client_bound"] == is_bound
    assert ("may be what was measured" in err) == is_bound


def test_errors_are_told_by_code(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcome(PLAN, outcome(0.0), as_json=False)
    assert "errors        3 NO_QUORUM" in capsys.readouterr().out
