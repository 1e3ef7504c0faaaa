"""What an operation costs, from what batches it travels in, fitted to what `sweep` measured.

In its simplest form: operations/s = cores x 1,000,000 / (c + C / B), where an operation costs c
microseconds of CPU at all replicas together, and a batch of B of them another C. One B is not
enough, for there are two kinds of batches: the *message*, what one read of a connection brings, and
the *turn*, what becomes one entry of the log and one sync. So for each replica, and each operation
that any client has done:

    share x (door + door_message / operations per message)      those of its own clients
    + apply + turn / operations per turn                        what every replica does for a set
    + lead + lead_turn / operations per turn                    the leader alone

`share` is the part of the clients that this replica serves. A local get costs only the first line.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.least_squares import UndeterminedError, fit
from bench.load import GET, SET
from bench.side_by_side_results import Run
from bench.side_by_side_rows import FOLLOWER, LEADER, SPREAD, Row
from bench.side_by_side_systems import COORDSVC
from bench.sweep_results import PointResult, SweepResult

FEW_IN_FLIGHT: Final = 16
"""Of fewer it is chance how many share a turn."""


@dataclass(frozen=True, slots=True)
class Batches:
    """Operations in a message of a client, and in a turn of the leader."""

    message: float
    turn: float


@dataclass(frozen=True, slots=True)
class DoorCost:
    """Microseconds, of whoever serves the client: of an operation, and of a message."""

    operation: float
    message: float

    def us(self, batches: Batches) -> float:
        return self.operation + self.message / batches.message


@dataclass(frozen=True, slots=True)
class SetCost:
    door: DoorCost
    apply: float
    turn: float
    lead: float
    lead_turn: float

    def replica_us(self, share: float, batches: Batches, *, is_leader: bool) -> float:
        cost = share * self.door.us(batches) + self.apply + self.turn / batches.turn
        return cost + is_leader * (self.lead + self.lead_turn / batches.turn)

    def total_us(self, batches: Batches, replicas: int = 3) -> float:
        """All replicas together, wherever the clients are."""
        each = self.apply + self.turn / batches.turn
        return self.door.us(batches) + replicas * each + self.lead + self.lead_turn / batches.turn


@dataclass(frozen=True, slots=True)
class Simple:
    """c and C of the simplest form, all replicas together."""

    operation: float
    batch: float

    def us(self, size: float) -> float:
        return self.operation + self.batch / size


@dataclass(frozen=True, slots=True)
class Model:
    sets: SetCost
    gets: DoorCost
    simple_sets: Simple
    """By turns."""

    simple_gets: Simple
    """By messages."""

    turns_under_way: float
    """In a closed loop: what is in flight, divided by what is in a turn."""

    message_share: float
    """Of what a connection has in flight, so much comes in one message."""

    def batches(self, connections: int, in_flight: int) -> Batches:
        """What is to be expected of a closed loop."""
        return Batches(
            message=max(1.0, in_flight * self.message_share),
            turn=max(1.0, connections * in_flight / self.turns_under_way),
        )

    def total_us(self, *, reads: float, batches: Batches, replicas: int = 3) -> float:
        """An operation, all replicas together."""
        gets = reads * self.gets.us(batches) if reads else 0.0
        return gets + (1 - reads) * (self.sets.total_us(batches, replicas) if reads < 1 else 0.0)


@dataclass(frozen=True, slots=True)
class _Sample:
    """One replica in one run."""

    share: float
    batches: Batches
    is_leader: bool
    us: float


def batches_of(run: Run, in_flight: int, reads: float = 0.0) -> Batches:
    """Where messages were not counted, as many are taken to travel together as there may be. Of a
    turn only sets count, for a get needs none."""
    outcome = run.outcome
    message = outcome.operations / outcome.messages if outcome.messages else float(in_flight)
    sets = outcome.total * (1 - reads)
    return Batches(message, max(1.0, sets / max(1, run.fsyncs[run.leader])))


def share_of(place: str, server: int, run: Run, connections: int) -> float:
    """Of the clients, at this server. They are dealt out in the order of the servers' ids."""
    servers = sorted(run.cpu_s)
    if place == SPREAD:
        number = servers.index(server)
        return len(range(number, connections, len(servers))) / connections
    followers = [each for each in servers if each != run.leader]
    at = {LEADER: run.leader, FOLLOWER: followers[0]}[place]
    return float(server == at)


def fit_model(sweeps: Iterable[SweepResult]) -> Model | None:
    """None: too little was measured. Of mixed loads and of paced ones nothing is taken: what the
    model says of them shows what it is worth."""
    points = [point for sweep in sweeps for point in sweep.points if not point.rate]
    sets = [each for each in points if each.operation == SET and not each.reads]
    gets = [each for each in points if each.operation == GET]
    if not sets or not gets:
        return None
    try:
        return Model(
            sets=_fit_sets(sets),
            gets=DoorCost(*_fit_simple(gets, by_turns=False)),
            simple_sets=Simple(*_fit_simple(sets, by_turns=True)),
            simple_gets=Simple(*_fit_simple(gets, by_turns=False)),
            turns_under_way=_turns_under_way(sets),
            message_share=_message_share(sets),
        )
    except UndeterminedError:
        return None


def _fit_sets(points: Sequence[PointResult]) -> SetCost:
    samples = [sample for point in points for sample in _samples(point)]
    rows = [
        [
            each.share,
            each.share / each.batches.message,
            1.0,
            1 / each.batches.turn,
            float(each.is_leader),
            each.is_leader / each.batches.turn,
        ]
        for each in samples
    ]
    operation, message, *rest = fit(rows, [each.us for each in samples])
    return SetCost(DoorCost(operation, message), *rest)


def _samples(point: PointResult) -> list[_Sample]:
    return [
        _Sample(
            share=share_of(point.place, server, run, point.connections),
            batches=batches_of(run, point.in_flight),
            is_leader=server == run.leader,
            us=us,
        )
        for run in point.of(COORDSVC)
        for server, us in run.cpu_us.items()
        if us > 0
    ]


def _fit_simple(points: Sequence[PointResult], *, by_turns: bool) -> list[float]:
    rows, wanted = [], []
    for point in points:
        for run in point.of(COORDSVC):
            batches = batches_of(run, point.in_flight)
            rows.append([1.0, 1 / (batches.turn if by_turns else batches.message)])
            wanted.append(sum(run.cpu_us.values()))
    return fit(rows, wanted)


def _turns_under_way(points: Sequence[PointResult]) -> float:
    ratios = [
        point.connections * point.in_flight / batches_of(run, point.in_flight).turn
        for point in points
        if point.connections * point.in_flight >= FEW_IN_FLIGHT
        for run in point.of(COORDSVC)
    ]
    return max(1.0, statistics.median(ratios)) if ratios else 1.0


def _message_share(points: Sequence[PointResult]) -> float:
    shares = [
        batches_of(run, point.in_flight).message / point.in_flight
        for point in points
        if point.in_flight > 1
        for run in point.of(COORDSVC)
    ]
    return statistics.median(shares) if shares else 1.0


def fit_door(model: Model, measured: Sequence[tuple[Row, Sequence[Run]]]) -> DoorCost | None:
    """Of another door: its sets cost what they do but for the door itself. None: with fewer than
    two batch sizes an operation cannot be told from a message."""
    rows, wanted = [], []
    for row, runs in measured:
        for run in runs:
            batches = batches_of(run, row.in_flight)
            door = sum(run.cpu_us.values())
            if not row.is_read:
                door -= model.sets.total_us(batches) - model.sets.door.us(batches)
            if door > 0:
                rows.append([1.0, 1 / batches.message])
                wanted.append(door)
    if len({row[1] for row in rows}) < 2:
        return None
    try:
        return DoorCost(*fit(rows, wanted))
    except UndeterminedError:
        return None
