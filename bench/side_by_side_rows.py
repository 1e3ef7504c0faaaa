"""The table of what is measured side by side. Another workload is another entry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench.load import GET, SET, Load

DATA_BYTES: Final = 100

SPREAD, LEADER, FOLLOWER = "spread", "leader", "follower"
"""Where the clients are: dealt out over all servers, or all at one of them."""

RATE, P50 = "operations/s", "p50"
"""What the ratio is of. More of a rate is better, less of a latency."""

ZOOKEEPER_DOOR: Final = "ZooKeeper's protocol"
STREAM_DOOR: Final = "gRPC Session stream"
UNARY_DOOR: Final = "unary gRPC"
ETCD_DOOR: Final = "etcd's unary gRPC"
GENERATORS: Final[dict[str, tuple[str, ...]]] = {
    ZOOKEEPER_DOOR: (sys.executable, "-m", "bench.zookeeper_load"),
}
"""The program that speaks it. It takes a Load and prints an Outcome (see `load`)."""

ZOOKEEPER: Final = "ZooKeeper"
ETCD: Final = "etcd"


@dataclass(frozen=True, slots=True)
class Row:
    """`floor` and `goal`: our figure divided by the peer's."""

    row_id: str
    text: str
    operation: str
    connections: int
    in_flight: int
    floor: float
    goal: float
    measure: str = RATE
    place: str = SPREAD
    door: str = ZOOKEEPER_DOOR
    """Through which ours is measured."""

    peer: str = ZOOKEEPER
    peer_door: str = ZOOKEEPER_DOOR

    @property
    def is_read(self) -> bool:
        return self.operation == GET

    def door_of(self, system: str) -> str:
        return self.peer_door if system == self.peer else self.door

    def reaches(self, ratio: float, bound: float) -> bool:
        return ratio >= bound if self.measure == RATE else ratio <= bound

    def load(
        self, path: str, endpoints: dict[int, str], leader: int, ramp_s: float, seconds: float
    ) -> Load:
        places = {
            SPREAD: list(endpoints),
            LEADER: [leader],
            FOLLOWER: [each for each in endpoints if each != leader][:1],
        }
        return Load(
            endpoints=[endpoints[each] for each in places[self.place]],
            all_endpoints=list(endpoints.values()),
            path=path,
            operation=self.operation,
            connections=self.connections,
            in_flight=self.in_flight,
            data_bytes=DATA_BYTES,
            ramp_s=ramp_s,
            seconds=seconds,
        )


ROWS: Final = (
    Row("W2", "set, 12 connections, 64 in flight on each", SET, 12, 64, floor=2.5, goal=5),
    Row("W3", "set, 128 sessions, 1 in flight on each", SET, 128, 1, floor=1.5, goal=2.5),
    Row(
        "W4",
        "set, one client at a follower, one write at a time",
        *(SET, 1, 1),
        floor=1.2,
        goal=0.9,
        measure=P50,
        place=FOLLOWER,
    ),
    Row(
        "W4-leader",
        "the same, the client at the leader",
        *(SET, 1, 1),
        floor=1.2,
        goal=0.9,
        measure=P50,
        place=LEADER,
    ),
    Row("R1", "local get, 12 connections, 64 in flight on each", GET, 12, 64, floor=2, goal=5),
)

WARM_UPS: Final = (
    Row("warm-up", "set, 12 connections, 64 in flight on each", SET, 12, 64, floor=0, goal=0),
    Row("warm-up", "get, 12 connections, 64 in flight on each", GET, 12, 64, floor=0, goal=0),
)
"""What a system does before it is measured, of the operations that will be."""


def chosen(names: Sequence[str]) -> list[Row]:
    """Those of these names, with their variants: W4 is W4 and W4-leader. None named: all.
    ValueError: there is no such row."""
    known = {row.row_id for row in ROWS}
    if unknown := set(names) - known:
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}; there are {sorted(known)}")
    return [
        row for row in ROWS if not names or {row.row_id, row.row_id.partition("-")[0]} & set(names)
    ]
