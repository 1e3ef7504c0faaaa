"""What sweeps measured (`sweep`), kept as JSON in `bench/results`, a file for each of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.failover_results import RESULTS
from bench.side_by_side_results import Run

NAMES = ("clients", "reads", "latency", "model")


@dataclass(frozen=True, slots=True)
class PointResult:
    """One workload, as a Load has it, and what came of it. `place`: where the clients were."""

    operation: str
    connections: int
    in_flight: int
    reads: float
    """The share of gets; 1 of gets alone."""

    rate: float
    """Requests begun in a second; 0: a closed loop."""

    place: str
    door: str
    runs: list[Run]

    def of(self, system: str) -> list[Run]:
        return [run for run in self.runs if run.system == system]

    def figures(self, system: str, measure: Callable[[Run], float]) -> list[float]:
        return [measure(run) for run in self.of(system)]

    def median(self, system: str, measure: Callable[[Run], float]) -> float:
        return statistics.median(self.figures(system, measure))

    def medians(self, measure: Callable[[Run], float]) -> list[float]:
        """Of each system that was measured here."""
        return [
            self.median(each, measure) for each in dict.fromkeys(run.system for run in self.runs)
        ]


@dataclass(frozen=True, slots=True)
class SweepResult:
    name: str
    command: str
    machine: str
    seconds: float
    """That each run was measured."""

    systems: dict[str, str]
    """Descriptions, by name; ours first."""

    points: list[PointResult]


def file_of(name: str) -> Path:
    return RESULTS / f"sweep_{name}.json"


def save(result: SweepResult) -> None:
    file = file_of(result.name)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def load(name: str) -> SweepResult | None:
    """None: never measured."""
    if not file_of(name).exists():
        return None
    return msgspec.json.decode(file_of(name).read_bytes(), type=SweepResult)
