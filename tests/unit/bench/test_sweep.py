"""Which loads a sweep is made of, and that each point is checked as a row is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from bench.load import GET, SET
from bench.side_by_side_results import Run
from bench.sweep import CLIENTS, RAMP_S, Point, Sweeps, point
from coordsvc.testing.cluster import ClusterError
from tests.unit.bench import builders

ENDPOINTS = {1: "a:1", 2: "b:2", 3: "c:3"}
RATES = {"coordsvc": 4_000.0, "ZooKeeper": 1_000.0}


@dataclass
class FakeBench:
    """Every system always does what RATES says."""

    done: list[tuple[str, Point]] = field(default_factory=list)
    per_turn: float = 1.0

    def run(self, row: Point, system: SimpleNamespace, seconds: float) -> Run:
        self.done.append((system.name, row))
        us = dict.fromkeys(builders.SERVERS, 1.0)
        return builders.run(us, system=system.name, rate=RATES[system.name], per_turn=self.per_turn)


def sweeps_on(bench: FakeBench) -> Sweeps:
    systems = [SimpleNamespace(name=name) for name in RATES]
    return Sweeps(bench, systems, runs=2, seconds=1.0)  # type: ignore[arg-type]


def test_a_point_is_a_load_with_its_share_of_reads() -> None:
    load = point(SET, 6, 4, reads=0.9).load("/x", ENDPOINTS, 1, ramp_s=9.0, seconds=2.0)
    assert (load.operation, load.reads, load.rate) == (SET, 0.9, 0.0)
    assert (load.connections, load.in_flight, load.ramp_s, load.seconds) == (6, 4, RAMP_S, 2.0)
    assert point(SET, 6, 4, rate=50.0).load("/x", ENDPOINTS, 1, 0, 2.0).rate == 50.0


def test_systems_take_turns_at_every_point() -> None:
    bench = FakeBench()
    found = sweeps_on(bench).clients()
    assert [name for name, _ in bench.done[:4]] == ["coordsvc", "ZooKeeper"] * 2
    sizes = [(each.connections, each.in_flight) for each in found]
    assert sizes == [(clients, in_flight) for in_flight in (1, 64) for clients in CLIENTS]
    assert all(len(each.of(name)) == 2 for each in found for name in RATES)


def test_reads_go_from_none_to_all() -> None:
    found = sweeps_on(FakeBench()).reads()
    assert [each.reads for each in found] == [0.0, 0.5, 0.9, 0.99, 1.0]
    assert found[-1].operation == GET


def test_both_get_half_the_rate_of_the_slower_one_and_the_faster_half_its_own() -> None:
    found = sweeps_on(FakeBench()).latency()
    assert [each.rate for each in found] == [0.0, 500.0, 2_000.0]
    systems = [sorted({run.system for run in each.runs}) for each in found]
    assert systems == [["ZooKeeper", "coordsvc"]] * 2 + [["coordsvc"]]


def test_a_mixed_load_that_was_not_synced_is_refused() -> None:
    """12 x 64 in flight: at most 768 sets a sync; of 4,000 requests 2,000 are sets."""
    sweeps_on(FakeBench(per_turn=1_500.0)).reads()
    with pytest.raises(ClusterError, match="writes need"):
        sweeps_on(FakeBench(per_turn=20_000.0)).reads()


def test_a_point_of_sets_is_left_to_the_check_of_rows() -> None:
    assert not point(SET, 1, 1).is_read
    assert point(SET, 1, 1, reads=0.5).is_read
    assert replace(point(GET, 1, 1), rate=1.0).is_read
