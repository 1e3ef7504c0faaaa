"""What was measured of scale (`bench.scale`), kept as JSON in `bench/results`, a file for each row.

Unlike the rows of `side_by_side`, a figure here is of something done once: a restart, a fan-out, an
expiry, memory. The peer does the same in the same minutes, where it can.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bench.failover_results import RESULTS


@dataclass(frozen=True, slots=True)
class ScaleRun:
    system: str
    value: float
    """In the row's unit. Less is better in every row of scale."""

    details: dict[str, float] = field(default_factory=dict)
    """What else was seen, by name with its unit: {"p50 ms": 1.2, "false expiries": 0}."""


@dataclass(frozen=True, slots=True)
class ScaleResult:
    """`floor` and `goal`: of the ratio to the peer's median when `of_ratio`, else of our own."""

    row_id: str
    text: str
    door: str
    measure: str
    """What `value` is: "ms from the write's acknowledgement to the last delivery"."""

    unit: str
    floor: float
    goal: float
    of_ratio: bool
    command: str
    machine: str
    systems: dict[str, str]
    """Descriptions, by name; ours first."""

    runs: list[ScaleRun]
    notes: str = ""
    """What a reader must know: why a system is missing, what was counted."""

    def values(self, system: str) -> list[float]:
        return [run.value for run in self.runs if run.system == system]

    def median(self, system: str) -> float:
        return statistics.median(self.values(system))


def file_of(row_id: str) -> Path:
    return RESULTS / f"scale_{row_id}.json"


def save(result: ScaleResult) -> None:
    file = file_of(result.row_id)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def load(row_id: str) -> ScaleResult | None:
    """None: never measured."""
    if not file_of(row_id).exists():
        return None
    return msgspec.json.decode(file_of(row_id).read_bytes(), type=ScaleResult)


def load_all() -> list[ScaleResult]:
    """Of every row that was measured, in the order of their names."""
    files = sorted(file_of("*").parent.glob(file_of("*").name))
    return [msgspec.json.decode(file.read_bytes(), type=ScaleResult) for file in files]
