"""Rows beside etcd, rows with a rate, and what is done before they are measured."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench import side_by_side
from bench.load import LINEARIZABLE_GET, PERCENTS, SET, Outcome
from bench.side_by_side import Bench, at_half_rate, closed_rates
from bench.side_by_side_results import RowResult, Run, figure_of
from bench.side_by_side_rows import (
    BUILT_DOORS,
    ETCD,
    ETCD_DOOR,
    GENERATORS,
    P50,
    P99,
    RATE,
    ROWS,
    STREAM_DOOR,
    UNARY_DOOR,
    ZOOKEEPER,
    ZOOKEEPER_DOOR,
    Row,
    row_of,
    warm_ups,
)
from bench.side_by_side_systems import COORDSVC, SYSTEMS

ENDPOINTS = {1: "a:1", 2: "b:2", 3: "c:3"}


def run(system: str, rate: float, total: int = 100) -> Run:
    latencies = [percent / 1000 for percent in PERCENTS]
    outcome = Outcome(round(rate), 1.0, total, 1, 0.1, latencies)
    return Run(system, 1, outcome, 1.0, {1: 1.0}, {1: 1}, 0.0)


class FakeSystem:
    """As much of a system as a bench asks for that does not run one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def pids(self) -> dict[int, int]:
        return {1: 11, 2: 12, 3: 13}


class FakeBench(Bench):
    """It notes what it would have run."""

    def __init__(self, names: Sequence[str]) -> None:
        self.systems = {name: FakeSystem(name) for name in names}
        super().__init__(self.systems)  # type: ignore[arg-type]
        self.done: Counter[tuple[str, str, str]] = Counter()

    def run(self, row: Row, system: object, seconds: float) -> Run:
        assert isinstance(system, FakeSystem)
        self.done[system.name, row.operation, row.door_of(system.name)] += 1
        assert (row.connections, row.in_flight, row.rate) == (12, 64, 0.0)
        return run(system.name, 1.0)


# ------------------------------------------------------------------------------------------ table


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.row_id)
def test_a_row_goes_through_a_door_that_its_systems_have(row: Row) -> None:
    assert row.door in (ZOOKEEPER_DOOR, STREAM_DOOR, UNARY_DOOR)
    assert (row.peer, row.peer_door) in ((ZOOKEEPER, ZOOKEEPER_DOOR), (ETCD, ETCD_DOOR))
    assert {row.door, row.peer_door} <= set(GENERATORS)
    assert row.peer in SYSTEMS
    if row.operation == LINEARIZABLE_GET:
        assert row.peer == ETCD, "ZooKeeper has no such operation"


def test_what_needs_no_majority_is_not_measured_beside_what_does() -> None:
    """Etcd's reads are linearizable by default; ours beside them must be, too."""
    assert {row.operation for row in ROWS if row.peer == ETCD} == {SET, LINEARIZABLE_GET}


def test_the_doors_that_are_to_be_built_are_those_of_the_built_generator() -> None:
    built = {door for door, command in GENERATORS.items() if command[0].endswith("grpc_load")}
    assert built == set(BUILT_DOORS)


# ------------------------------------------------------------------------------------- warming up


def test_what_is_measured_is_warmed_up_through_the_same_doors() -> None:
    rows = [row_of(each) for each in ("W2", "W2-open", "W5", "W5-12", "W5-open", "R2", "R1")]
    bench = FakeBench([COORDSVC, ZOOKEEPER, ETCD])
    bench.warm_up(warm_ups(rows), operations=100)
    assert set(bench.done) == {
        (COORDSVC, SET, ZOOKEEPER_DOOR),
        (COORDSVC, SET, UNARY_DOOR),
        (COORDSVC, "get", ZOOKEEPER_DOOR),
        (COORDSVC, LINEARIZABLE_GET, UNARY_DOOR),
        (ZOOKEEPER, SET, ZOOKEEPER_DOOR),
        (ZOOKEEPER, "get", ZOOKEEPER_DOOR),
        (ETCD, SET, ETCD_DOOR),
        (ETCD, LINEARIZABLE_GET, ETCD_DOOR),
    }


def test_every_server_has_done_so_much_before() -> None:
    """A set is done by all three; a get by one, so there must be three times as many."""
    bench = FakeBench([COORDSVC, ETCD])
    bench.warm_up(warm_ups([row_of("W5"), row_of("R2")]), operations=1_000)
    assert bench.done[ETCD, SET, ETCD_DOOR] == 10
    assert bench.done[ETCD, LINEARIZABLE_GET, ETCD_DOOR] == 30


def test_doors_are_warmed_up_in_turns() -> None:
    bench = FakeBench([COORDSVC, ZOOKEEPER, ETCD])
    bench.warm_up(warm_ups([row_of("W1"), row_of("W2"), row_of("W5")]), operations=600)
    doors = (ZOOKEEPER_DOOR, STREAM_DOOR, UNARY_DOOR)
    assert [bench.done[COORDSVC, SET, door] for door in doors] == [2, 2, 2]
    assert bench.done[ZOOKEEPER, SET, ZOOKEEPER_DOOR] == 6


# ---------------------------------------------------------------------------------------- latency


def test_half_of_the_slower_ones_rate_is_asked_of_both() -> None:
    row = at_half_rate(row_of("W2-open"), {COORDSVC: 50_000.0, ZOOKEEPER: 12_001.0})
    assert row.load("/x", ENDPOINTS, 1, 1.0, 2.0).rate == 6_000.0


def test_a_row_without_a_rate_is_a_closed_loop() -> None:
    assert row_of("W2").load("/x", ENDPOINTS, 1, 1.0, 2.0).rate == 0


def test_the_rate_of_the_same_session_is_taken_if_there_is_one() -> None:
    rates = [(COORDSVC, 100.0), (ETCD, 30.0), (COORDSVC, 300.0), (ETCD, 10.0)]
    measured = [run(*each) for each in [*rates, (COORDSVC, 200.0), (ETCD, 20.0)]]
    known = {"W5": RowResult("W5", "", "", {}, measured)}
    bench = FakeBench([COORDSVC, ETCD])
    systems = list(bench.systems.values())
    found = closed_rates(bench, row_of("W5-open"), systems, known, 3)  # type: ignore[arg-type]
    assert found == {COORDSVC: 200.0, ETCD: 20.0}
    assert not bench.done


def test_else_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Row] = []

    def measure(bench: Bench, row: Row, systems: object, runs: int, seconds: float) -> list[Run]:
        asked.append(row)
        return [run(COORDSVC, 200.0), run(ETCD, 20.0)]

    monkeypatch.setattr(side_by_side, "measure", measure)
    bench = FakeBench([COORDSVC, ETCD])
    systems = list(bench.systems.values())
    found = closed_rates(bench, row_of("W5-open"), systems, {}, 3)  # type: ignore[arg-type]
    assert found == {COORDSVC: 200.0, ETCD: 20.0}
    assert asked == [row_of("W5")]


@pytest.mark.parametrize("row", [row for row in ROWS if row.half_of], ids=lambda row: row.row_id)
def test_a_row_with_a_rate_comes_after_the_one_it_is_half_of(row: Row) -> None:
    closed = row_of(row.half_of)
    assert ROWS.index(closed) < ROWS.index(row)
    assert closed.measure == RATE and not closed.half_of
    same = [
        (each.operation, each.connections, each.in_flight, each.door, each.peer_door, each.place)
        for each in (closed, row)
    ]
    assert same[0] == same[1]


@pytest.mark.parametrize(("measure", "figure"), [(RATE, 5.0), (P50, 0.05), (P99, 0.099)])
def test_what_is_divided(measure: str, figure: float) -> None:
    row = Row("X", "", SET, 1, 1, floor=0, goal=0, measure=measure)
    assert figure_of(row)(run(ETCD, 5.0)) == figure


def test_of_p99_less_is_better() -> None:
    row = Row("X", "", SET, 1, 1, floor=1, goal=0.5, measure=P99)
    assert row.reaches(0.9, 1) and not row.reaches(1.1, 1)


# ------------------------------------------------------------------------------------------ tools


def test_what_is_missing_is_named_with_its_packages(tmp_path: Path) -> None:
    """On a machine that has only what the script itself needs."""
    for tool in ("dirname", "go", "setpriv"):
        (tmp_path / tool).symlink_to("/usr/bin/dirname")
    script = Path(__file__).parents[3] / "scripts" / "bench_peers.sh"
    done = subprocess.run(
        ["/bin/sh", str(script)], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        "not installed: java javac mvn (Debian: apt-get install default-jdk-headless maven)\n"
    )
