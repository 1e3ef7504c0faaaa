"""What was measured side by side, kept as JSON in `bench/results`, a file for each row."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.failover_results import RESULTS
from bench.load import Outcome
from bench.side_by_side_rows import P50, P99, RATE, Row
from bench.side_by_side_systems import COORDSVC

GENERATOR_CORES_MAX = 0.8
"""Of a generator that uses more it is not known that the servers, not it, were measured."""

OTHERS_CORES_MAX = 0.2
"""Of a machine that does more beside it it is not known what a system would have reached."""


@dataclass(frozen=True, slots=True)
class Run:
    """CPU seconds are of the time that was measured; syncs of all the run, by server."""

    system: str
    leader: int
    outcome: Outcome
    seconds: float
    """Between the two looks at what the servers used."""

    cpu_s: dict[int, float]
    fsyncs: dict[int, int]
    others_cores: float
    """What everything else on the machine used meanwhile: the systems that were not measured then,
    and whatever has nothing to do with it."""

    @property
    def cpu_us(self) -> dict[int, float]:
        """Of each operation, by server."""
        operations = self.outcome.rate * self.seconds
        return {each: 1e6 * used / operations for each, used in self.cpu_s.items()}

    @property
    def leader_cpu_us(self) -> float:
        return self.cpu_us[self.leader]

    @property
    def follower_cpu_us(self) -> float:
        """The mean of them."""
        return statistics.mean(used for each, used in self.cpu_us.items() if each != self.leader)

    @property
    def fsyncs_per_s(self) -> float:
        """Of all servers together."""
        return sum(self.fsyncs.values()) / self.outcome.total * self.outcome.rate

    @property
    def is_disturbed(self) -> bool:
        return self.others_cores > OTHERS_CORES_MAX

    @property
    def is_generator_bound(self) -> bool:
        return self.outcome.generator_cores > GENERATOR_CORES_MAX


@dataclass(frozen=True, slots=True)
class RowResult:
    row_id: str
    command: str
    machine: str
    systems: dict[str, str]
    """Descriptions, by name."""

    runs: list[Run]

    def of(self, system: str) -> list[Run]:
        return [run for run in self.runs if run.system == system]

    def figures(self, system: str, measure: Callable[[Run], float]) -> list[float]:
        return [measure(run) for run in self.of(system)]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours divided by the peer's: of the medians; and of the pairs that ran one after the other,
    the least and the most."""

    median: float
    least: float
    most: float


def figure_of(row: Row) -> Callable[[Run], float]:
    if row.measure == RATE:
        return lambda run: run.outcome.rate
    percent = {P50: 50.0, P99: 99.0}[row.measure]
    return lambda run: run.outcome.latency_s(percent)


def ratio(row: Row, result: RowResult) -> Ratio:
    ours, theirs = (result.figures(each, figure_of(row)) for each in (COORDSVC, row.peer))
    pairs = [our / their for our, their in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ours) / statistics.median(theirs), min(pairs), max(pairs))


def file_of(row_id: str) -> Path:
    return RESULTS / f"side_by_side_{row_id}.json"


def save(result: RowResult) -> None:
    file = file_of(result.row_id)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def load(row_id: str) -> RowResult | None:
    """None: never measured."""
    if not file_of(row_id).exists():
        return None
    return msgspec.json.decode(file_of(row_id).read_bytes(), type=RowResult)
