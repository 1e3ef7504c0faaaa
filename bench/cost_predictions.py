"""What the cost model says: of what was measured, and of clusters that were not.

`Check` holds it against measurements. The rest is paper: it takes the coefficients, and says with
them what bounds a cluster of other machines, or a replica of more than one process.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.cost_model import Batches, DoorCost, Model, batches_of, fit_door
from bench.side_by_side_results import RowResult, Run
from bench.side_by_side_rows import ZOOKEEPER_DOOR, Row
from bench.side_by_side_systems import COORDSVC
from bench.sweep_results import SweepResult

MISS_MAX: Final = 0.3
"""A prediction that is further off is named."""

US: Final = 1e6

Doors = Mapping[tuple[str, bool], DoorCost | None]
"""By door, and whether it is of reads; None: too few rows to fit it."""


@dataclass(frozen=True, slots=True)
class Check:
    """Medians of the runs; microseconds of all replicas for an operation, operations a second."""

    name: str
    batches: Batches
    us: float
    predicted_us: float
    rate: float
    predicted_rate: float
    """If every core that was free for it had been busy."""

    busy: float
    """The share of those cores that was used."""

    @property
    def miss(self) -> float:
        return self.predicted_us / self.us - 1

    @property
    def rate_miss(self) -> float:
        return self.predicted_rate / self.rate - 1


def fit_doors(model: Model, measured: Iterable[tuple[Row, RowResult]]) -> Doors:
    """Of the doors that the sweeps do not go through, from the rows that do."""
    rows: dict[tuple[str, bool], list[tuple[Row, Sequence[Run]]]] = {}
    for row, result in measured:
        if row.door != ZOOKEEPER_DOOR:
            rows.setdefault((row.door, row.is_read), []).append((row, result.of(COORDSVC)))
    return {key: fit_door(model, of_door) for key, of_door in rows.items()}


def check_row(model: Model, doors: Doors, row: Row, result: RowResult) -> Check | None:
    """None: its door could not be fitted."""
    known = model
    if row.door != ZOOKEEPER_DOOR:
        door = doors.get((row.door, row.is_read))
        if door is None:
            return None
        known = replace(model, gets=door, sets=replace(model.sets, door=door))
    reads = 1.0 if row.is_read else 0.0
    return _check(
        row.row_id, known, result.of(COORDSVC), row.in_flight, reads, cores_of(result.machine)
    )


def check_sweep(model: Model, sweep: SweepResult) -> list[Check]:
    """Of the points that the model was not fitted to."""
    return [
        _check(
            f"{point.connections} x {point.in_flight}, {point.reads:.0%} gets",
            model,
            point.of(COORDSVC),
            point.in_flight,
            point.reads,
            cores_of(sweep.machine),
        )
        for point in sweep.points
        if 0 < point.reads < 1
    ]


def _check(
    name: str, model: Model, runs: Sequence[Run], in_flight: int, reads: float, cores: int
) -> Check:
    def middle(values: Iterable[float]) -> float:
        return statistics.median(values)

    each = [batches_of(run, in_flight, reads) for run in runs]
    batches = Batches(middle(one.message for one in each), middle(one.turn for one in each))
    predicted = model.total_us(reads=reads, batches=batches)
    us = middle(sum(run.cpu_us.values()) for run in runs)
    rate = middle(run.outcome.rate for run in runs)
    generator_us = middle(US * run.outcome.generator_cores / run.outcome.rate for run in runs)
    free = cores - middle(run.others_cores for run in runs)
    return Check(
        name=name,
        batches=batches,
        us=us,
        predicted_us=predicted,
        rate=rate,
        predicted_rate=US * free / (predicted + generator_us),
        busy=rate * (us + generator_us) / (US * free),
    )


def cores_of(machine: str) -> int:
    """As `this_machine` writes it."""
    return int(machine.split()[0])


# ---------------------------------------------------------------------------------------- paper


@dataclass(frozen=True, slots=True)
class Cluster:
    """Each replica on a machine of its own. `front_ends`: processes beside each replica that own
    the doors, hold the tree, answer reads from it, and forward encoded batches of writes; with 0
    the replica's own loop does all that."""

    replicas: int = 3
    front_ends: int = 0


@dataclass(frozen=True, slots=True)
class Bound:
    sets: float
    gets: float
    """A second, of the whole cluster."""

    sets_bound_by: str


def leader_us(model: Model, cluster: Cluster, batches: Batches) -> float:
    """Of the leader's loop, for a set of any client. What it does more than a follower was measured
    with two of them; all of that is taken to be per follower."""
    sets = model.sets
    followers = (cluster.replicas - 1) / 2
    lead = followers * (sets.lead + sets.lead_turn / batches.turn)
    own = 0.0 if cluster.front_ends else sets.door.us(batches) / cluster.replicas
    return own + sets.apply + sets.turn / batches.turn + lead


def front_end_us(model: Model, cluster: Cluster, batches: Batches) -> float:
    """Of each front-end process, for a set of any client: it serves its share of the clients, and
    applies everything, as a follower does."""
    sets = model.sets
    share = 1 / (cluster.replicas * cluster.front_ends)
    return share * sets.door.us(batches) + sets.apply + sets.turn / batches.turn


def bound(model: Model, cluster: Cluster, connections: int, in_flight: int) -> Bound:
    """One loop is one core, at most; reads alone, or sets alone."""
    batches = model.batches(connections, in_flight)
    leader = US / leader_us(model, cluster, batches)
    loops = cluster.replicas * max(1, cluster.front_ends)
    gets = loops * US / model.gets.us(batches)
    if cluster.front_ends:
        front_end = US / front_end_us(model, cluster, batches)
        if front_end < leader:
            return Bound(front_end, gets, "each front-end's loop")
    return Bound(leader, gets, "the leader's loop")
