"""The table of what is measured side by side. Another workload is another entry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.go_programs import GRPC_LOAD
from bench.load import GET, LINEARIZABLE_GET, SET, Load

DATA_BYTES: Final = 100

SPREAD, LEADER, FOLLOWER = "spread", "leader", "follower"
"""Where the clients are: dealt out over all servers, or all at one of them."""

RATE, P50, P99 = "operations/s", "p50", "p99"
"""What the ratio is of. More of a rate is better, less of a latency."""

ZOOKEEPER_DOOR: Final = "ZooKeeper's protocol"
STREAM_DOOR: Final = "gRPC Session stream"
UNARY_DOOR: Final = "unary gRPC"
ETCD_DOOR: Final = "etcd's unary gRPC"
GENERATORS: Final[dict[str, tuple[str, ...]]] = {
    ZOOKEEPER_DOOR: (sys.executable, "-m", "bench.zookeeper_load"),
    STREAM_DOOR: (sys.executable, "-m", "bench.stream_load"),
    UNARY_DOOR: (str(GRPC_LOAD.file), "-system", "coordsvc"),
    ETCD_DOOR: (str(GRPC_LOAD.file), "-system", "etcd"),
}
"""The program that speaks it. It takes a Load and prints an Outcome (see `load`)."""

BUILT_DOORS: Final = (UNARY_DOOR, ETCD_DOOR)
"""Whose generator is to be built before it is run."""

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
    half_of: str = ""
    """The row whose rate is halved: so much is asked of both systems, of the slower one's."""

    rate: float = 0.0
    """Operations begun a second, on all connections; 0: as many as are answered."""

    @property
    def is_read(self) -> bool:
        return self.operation != SET

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
            rate=self.rate,
        )


_BESIDE_ETCD: Final = {"peer": ETCD, "peer_door": ETCD_DOOR}

ROWS: Final = (
    Row(
        "W1",
        "set, 12 streams, 64 in flight on each",
        *(SET, 12, 64),
        floor=2,
        goal=4,
        door=STREAM_DOOR,
    ),
    Row("W2", "set, 12 connections, 64 in flight on each", SET, 12, 64, floor=2.5, goal=5),
    Row(
        "W2-open",
        "set, 12 connections, at half the rate of the slower one",
        *(SET, 12, 64),
        floor=1,
        goal=0.5,
        measure=P99,
        half_of="W2",
    ),
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
    Row(
        "W5",
        "put, 128 connections, 1 in flight on each",
        *(SET, 128, 1),
        floor=1,
        goal=2,
        door=UNARY_DOOR,
        **_BESIDE_ETCD,
    ),
    Row(
        "W5-12",
        "put, 12 connections, 1 in flight on each",
        *(SET, 12, 1),
        floor=1,
        goal=2,
        door=UNARY_DOOR,
        **_BESIDE_ETCD,
    ),
    Row(
        "W5-open",
        "put, 128 connections, at half the rate of the slower one",
        *(SET, 128, 1),
        floor=1,
        goal=0.5,
        measure=P99,
        door=UNARY_DOOR,
        half_of="W5",
        **_BESIDE_ETCD,
    ),
    Row(
        "W6",
        "set, 128 streams, 1 in flight on each",
        *(SET, 128, 1),
        floor=0.5,
        goal=1,
        door=STREAM_DOOR,
    ),
    Row("R1", "local get, 12 connections, 64 in flight on each", GET, 12, 64, floor=2, goal=5),
    Row(
        "R2",
        "linearizable get, 128 connections, 1 in flight on each",
        *(LINEARIZABLE_GET, 128, 1),
        floor=1,
        goal=5,
        door=UNARY_DOOR,
        **_BESIDE_ETCD,
    ),
    Row(
        "R2-stream",
        "linearizable get, 12 streams or connections, 64 in flight on each",
        *(LINEARIZABLE_GET, 12, 64),
        floor=1,
        goal=5,
        door=STREAM_DOOR,
        **_BESIDE_ETCD,
    ),
)

WARM_UPS: Final = (
    Row("warm-up", "set, 12 connections, 64 in flight on each", SET, 12, 64, floor=0, goal=0),
    Row("warm-up", "get, 12 connections, 64 in flight on each", GET, 12, 64, floor=0, goal=0),
)
"""What a system does before it is measured over ZooKeeper's protocol."""


def warm_ups(rows: Sequence[Row]) -> list[Row]:
    """What the systems do before these are measured: the same operations through the same doors."""
    made = [
        replace(
            row,
            row_id="warm-up",
            text=f"{row.operation}, 12 connections, 64 in flight on each",
            connections=12,
            in_flight=64,
            floor=0,
            goal=0,
            measure=RATE,
            place=SPREAD,
            half_of="",
        )
        for row in rows
    ]
    return list(dict.fromkeys(made))


def row_of(row_id: str) -> Row:
    [row] = [row for row in ROWS if row.row_id == row_id]
    return row


def chosen(names: Sequence[str]) -> list[Row]:
    """Those of these names, with their variants: W4 is W4 and W4-leader. None named: all.
    ValueError: there is no such row."""
    known = {row.row_id for row in ROWS}
    if unknown := set(names) - known:
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}; there are {sorted(known)}")
    return [
        row for row in ROWS if not names or {row.row_id, row.row_id.partition("-")[0]} & set(names)
    ]
