"""Runs as a cost model would have them: made from coefficients that a fit is to find again."""

from __future__ import annotations

from bench.load import PERCENTS, Outcome
from bench.side_by_side_results import Run
from bench.sweep_results import PointResult, SweepResult

SERVERS = (1, 2, 3)
LEADER_ID = 2
SECONDS = 4.0
DESCRIPTIONS = {"coordsvc": "coordsvc 1", "ZooKeeper": "ZooKeeper 3"}


def run(
    us: dict[int, float],
    *,
    system: str = "coordsvc",
    rate: float = 1_000.0,
    per_message: float = 1.0,
    per_turn: float = 1.0,
    p50_s: float = 0.001,
) -> Run:
    """`us`: CPU microseconds of an operation, by server."""
    operations = round(rate * SECONDS)
    outcome = Outcome(
        operations=operations,
        seconds=SECONDS,
        total=operations,
        verified=1,
        generator_cpu_s=0.1 * SECONDS,
        latencies_s=[p50_s * (1 + place) for place in range(len(PERCENTS))],
        messages=round(operations / per_message),
    )
    return Run(
        system=system,
        leader=LEADER_ID,
        outcome=outcome,
        seconds=SECONDS,
        cpu_s={each: value * operations / 1e6 for each, value in us.items()},
        fsyncs={each: round(operations / per_turn) for each in us},
        others_cores=0.0,
    )


def point(
    runs: list[Run],
    *,
    operation: str = "set",
    connections: int = 3,
    in_flight: int = 1,
    reads: float = 0.0,
    rate: float = 0.0,
    place: str = "spread",
) -> PointResult:
    return PointResult(
        operation, connections, in_flight, reads, rate, place, "ZooKeeper's protocol", runs
    )


def sweep(name: str, points: list[PointResult]) -> SweepResult:
    return SweepResult(
        name, "the command", "2 cores (x86_64); a day", SECONDS, DESCRIPTIONS, points
    )
