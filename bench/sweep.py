"""One workload in many sizes, for the plots and for the cost model.

    .venv/bin/python -m bench.sweep [--sweeps clients,reads] [--report docs/performance.md]

Each point is measured as a row of `side_by_side` is, with the same checks, in shorter runs, and
always over ZooKeeper's protocol:

    clients   sets by 1 to 256 connections, with 1 and with 64 in flight on each
    reads     12 connections, 64 in flight, from sets alone to gets alone
    latency   sets of 12 connections, 64 in flight: in a closed loop; then begun at the half rate of
              the slower system, both of them; and the faster one at the half of its own
    model     what the cost model needs besides: ours alone, gets in several batch sizes, sets of
              clients that are all in one place
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.failover_results import this_command, this_machine
from bench.load import GET, SET, Load
from bench.side_by_side import Bench, measure
from bench.side_by_side_report import write_page
from bench.side_by_side_results import Run
from bench.side_by_side_rows import FOLLOWER, LEADER, WARM_UPS, ZOOKEEPER, Row
from bench.side_by_side_systems import (
    COORDSVC,
    SYSTEMS,
    System,
    check_disk,
    check_libraries,
    check_synced,
)
from bench.sweep_results import NAMES, PointResult, SweepResult, save
from coordsvc.testing.cluster import ClusterError

RAMP_S: Final = 0.5
CLIENTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
IN_FLIGHT: Final = (1, 64)
READS: Final = (0.0, 0.5, 0.9, 0.99, 1.0)
HALF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Point(Row):
    """A workload that no goal is set for."""

    reads: float = 0.0

    @property
    def is_read(self) -> bool:
        """Of a mixed load only some operations need syncs: that is looked at here."""
        return self.operation == GET or self.reads > 0

    def load(
        self, path: str, endpoints: dict[int, str], leader: int, ramp_s: float, seconds: float
    ) -> Load:
        whole = Row.load(self, path, endpoints, leader, RAMP_S, seconds)
        return replace(whole, reads=self.reads)

    def result(self, runs: list[Run]) -> PointResult:
        return PointResult(
            operation=self.operation,
            connections=self.connections,
            in_flight=self.in_flight,
            reads=1.0 if self.operation == GET else self.reads,
            rate=self.rate,
            place=self.place,
            door=self.door,
            runs=runs,
        )


def point(operation: str, connections: int, in_flight: int, **more: float | str) -> Point:
    text = f"{operation}, {connections} x {in_flight}"
    text += "".join(f", {name} {value}" for name, value in more.items())
    return Point(
        text,
        text,
        operation,
        connections,
        in_flight,
        floor=0.0,
        goal=0.0,
        **more,  # type: ignore[arg-type]
    )


class Sweeps:
    """Measures points, of all systems in turns."""

    def __init__(self, bench: Bench, systems: Sequence[System], runs: int, seconds: float) -> None:
        self._bench = bench
        self._systems = systems
        self._runs = runs
        self._seconds = seconds

    def _measure(self, points: Sequence[Point], systems: Sequence[System]) -> list[PointResult]:
        done = []
        for each in points:
            runs = measure(self._bench, each, systems, self._runs, self._seconds)
            for run in runs:
                _check_synced(each, run)
            done.append(each.result(runs))
        return done

    def clients(self) -> list[PointResult]:
        sizes = [(clients, in_flight) for in_flight in IN_FLIGHT for clients in CLIENTS]
        return self._measure([point(SET, *size) for size in sizes], self._systems)

    def reads(self) -> list[PointResult]:
        mixed = [point(SET, 12, 64, reads=share) for share in READS if share < 1]
        return self._measure([*mixed, point(GET, 12, 64)], self._systems)

    def latency(self) -> list[PointResult]:
        closed = self._measure([point(SET, 12, 64)], self._systems)
        rates = {
            system.name: closed[0].median(system.name, lambda run: run.outcome.rate)
            for system in self._systems
        }
        slower, faster = sorted(self._systems, key=lambda system: rates[system.name])
        half, own_half = (round(HALF * rates[system.name]) for system in (slower, faster))
        same = self._measure([point(SET, 12, 64, rate=half)], self._systems)
        own = self._measure([point(SET, 12, 64, rate=own_half)], [faster])
        return [*closed, *same, *own]

    def model(self) -> list[PointResult]:
        gets = [point(GET, *size) for size in ((12, 1), (128, 1), (12, 8))]
        sets = [point(SET, 12, 64, place=place) for place in (LEADER, FOLLOWER)]
        ours = [system for system in self._systems if system.name == COORDSVC]
        return self._measure([*gets, *sets], ours)


SWEEPS: Final[dict[str, Callable[[Sweeps], list[PointResult]]]] = dict(
    zip(NAMES, (Sweeps.clients, Sweeps.reads, Sweeps.latency, Sweeps.model), strict=True)
)


def _check_synced(each: Point, run: Run) -> None:
    """ClusterError, as for a row, of those of its operations that are sets."""
    if each.operation == SET and each.reads > 0:
        # Less the round that a connection had not ended.
        sets = round(run.outcome.total * (1 - each.reads)) - each.connections
        check_synced(run.fsyncs, max(0, sets), each.connections * each.in_flight)


def run_all(names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Sweep by sweep; each is kept when it is done."""
    machine = this_machine()
    print(machine)
    with contextlib.ExitStack() as stack:
        below = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
        check_disk(below)
        systems = [
            stack.enter_context(SYSTEMS[name](below / str(number)))
            for number, name in enumerate((COORDSVC, ZOOKEEPER))
        ]
        for system in systems:
            system.start()
            check_libraries(list(system.pids().values()))
        bench = Bench({system.name: system for system in systems})
        bench.warm_up(WARM_UPS, arguments.warm_up)
        sweeps = Sweeps(bench, systems, arguments.runs, arguments.seconds)
        for name in names:
            result = SweepResult(
                name=name,
                command=this_command("bench.sweep"),
                machine=machine,
                seconds=arguments.seconds,
                systems={system.name: system.description for system in systems},
                points=SWEEPS[name](sweeps),
            )
            if arguments.report is not None:
                save(result)
                write_page(arguments.report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    names = ",".join(SWEEPS)
    parser.add_argument("--sweeps", default=names, help=f"of {names}; without it, all")
    parser.add_argument("--runs", type=int, default=3, help="of each system at each point")
    parser.add_argument("--seconds", type=float, default=2.0, help="that each run is measured")
    parser.add_argument("--warm-up", type=int, default=200_000, help="operations a server")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to use")
    parser.add_argument("--report", type=Path, default=None, help="keep it, and write the page")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.sweeps.split(",") if name]
    if unknown := set(chosen) - set(SWEEPS):
        parser.error(f"no such sweep: {', '.join(sorted(unknown))}; there are {names}")
    try:
        run_all(chosen, arguments)
    except ClusterError as error:
        sys.exit(f"no result: {error}")


if __name__ == "__main__":
    main()
