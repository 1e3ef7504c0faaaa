"""The table of what is measured of scale, and the sizes at which it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.side_by_side_rows import STREAM_DOOR, ZOOKEEPER_DOOR


@dataclass(frozen=True, slots=True)
class ScaleRow:
    """`floor` and `goal` as in `ScaleResult`. `is_large`: it is measured with the large tree."""

    row_id: str
    text: str
    measure: str
    unit: str
    floor: float
    goal: float
    runs: int
    of_ratio: bool = False
    door: str = ZOOKEEPER_DOOR
    is_large: bool = False
    has_peer: bool = True
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """`runs` 0: as many as the row has."""

    watchers: int = 1_000
    rounds: int = 40
    sessions: int = 10_000
    idle_seconds: float = 60.0
    ephemerals: int = 10_000
    znodes: int = 1_000_000
    write_rate: float = 1_000.0
    write_seconds: float = 60.0
    load_seconds: float = 8.0
    warm_up: int = 200_000
    runs: int = 0

    def runs_of(self, row: ScaleRow) -> int:
        return self.runs or row.runs


ROWS: Final = (
    ScaleRow(
        "F1",
        "1,000 watchers of one znode",
        measure="from the write's acknowledgement to the last watcher's event, p50",
        unit="ms",
        floor=1.0,
        goal=0.5,
        runs=3,
        of_ratio=True,
        notes=(
            "One-shot data watches, set again in each round, each of a connection and a session of "
            "its own, dealt out over the servers. Writer and watchers are two processes. A round "
            "counts only if each watcher got exactly one event, of the write's zxid."
        ),
    ),
    ScaleRow(
        "S1",
        "10,000 idle sessions, timeout 30 s",
        measure="CPU time of the three servers together",
        unit="% of a core",
        floor=25.0,
        goal=10.0,
        runs=1,
        notes=(
            "A ping every third of the timeout. The figure is the sum of the servers; the busiest "
            "is in the details. It does not count if a session expired or lost its connection, or "
            "if a ping was not answered."
        ),
    ),
    ScaleRow(
        "S1-stream",
        "10,000 idle sessions, timeout 30 s, a Session stream each",
        measure="CPU time of the three servers together",
        unit="% of a core",
        floor=60.0,
        goal=30.0,
        runs=1,
        door=STREAM_DOOR,
        has_peer=False,
        notes="As S1. Each session has a connection of its own. ZooKeeper has no such door.",
    ),
    ScaleRow(
        "E1",
        "a client with 10,000 ephemerals dies",
        measure="other clients' writes from 1 s before the expiry to 1 s after it, p99",
        unit="ms",
        floor=100.0,
        goal=20.0,
        runs=3,
        notes=(
            "Eight clients write all the time, one write each at a time: a moment at which nothing "
            "is answered delays eight writes, so it shows in the most of the details before it "
            "shows in the p99."
        ),
    ),
    ScaleRow(
        "D1",
        "memory of a znode (28-byte path, 100-byte data)",
        measure="resident bytes of a server's process for each of the znodes, median of servers",
        unit="bytes",
        floor=1.0,
        goal=400.0,
        runs=1,
        of_ratio=True,
        is_large=True,
        notes=(
            "The floor is of the ratio to ZooKeeper, the goal of our own bytes. ZooKeeper's "
            "servers are asked to collect their garbage before each look; what their heaps hold "
            "after it is in the details."
        ),
    ),
    ScaleRow(
        "FLAT",
        "what an operation costs in a larger tree",
        measure="operations/s of set (12 x 64) in the smallest tree, divided by in the largest",
        unit="x",
        floor=1.3,
        goal=1.1,
        runs=3,
        is_large=True,
        notes=(
            "No peer is needed to be flat: floor and goal are of our own figure, the floor as wide "
            "as runs differ from each other here."
        ),
    ),
    ScaleRow(
        "P1",
        "checkpoints of a large tree under 1,000 writes a second",
        measure="writes while every server completes a checkpoint, p99.9, from when each was due",
        unit="ms",
        floor=250.0,
        goal=50.0,
        runs=3,
        is_large=True,
        notes=(
            "Writes of znodes all over the tree, for at least a minute and until each server has "
            "completed a checkpoint. Both systems decide by their default settings when they take "
            "one: ours after 60 s, ZooKeeper's after 50,000 to 100,000 writes."
        ),
    ),
    ScaleRow(
        "P2",
        "restart with a large tree",
        measure="from the start of a server that was killed to its first answer, with its data",
        unit="s",
        floor=20.0,
        goal=5.0,
        runs=3,
        is_large=True,
        notes="One server after the other. The whole cluster, killed at once, is in the details.",
    ),
)
"""In the order in which they are measured: a row leaves the tree as the next one needs it."""


def chosen(names: Sequence[str]) -> list[ScaleRow]:
    """Those of these names, with their variants: S1 is S1 and S1-stream. None named: all.
    ValueError: there is no such row."""
    known = {row.row_id for row in ROWS}
    if unknown := set(names) - known:
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}; there are {sorted(known)}")
    return [
        row for row in ROWS if not names or {row.row_id, row.row_id.partition("-")[0]} & set(names)
    ]
