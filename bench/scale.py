"""Rows of scale: many watchers, sessions, ephemerals and znodes; ours beside ZooKeeper.

    .venv/bin/python -m bench.scale [--rows F1,S1] [--runs 3] [--report docs/performance.md]

Three servers of each system, each a process, and the clients share this machine. All systems run
all the time, the idle ones too, and take turns: A, B, A, B; before that each has done `--warm-up`
sets. What is measured is the table in `scale_rows`; each row's module tells how, and what makes it
fail: then nothing is kept of it, and the others go on. Rows with a large tree share one, which is
made once. `--report` writes the page, and each row to `bench/results`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from bench import scale_expiry, scale_fanout, scale_idle
from bench.failover_results import this_command, this_machine
from bench.scale_idle import IdleOptions
from bench.scale_large import HEAP_MB as LARGE_HEAP_MB
from bench.scale_large import LargeTree
from bench.scale_pipe import run
from bench.scale_results import ScaleResult, ScaleRun, save
from bench.scale_rows import ROWS, Options, ScaleRow, chosen
from bench.scale_systems import SCALE_SYSTEMS, ScaleSystem
from bench.side_by_side import Bench
from bench.side_by_side_report import write_page
from bench.side_by_side_rows import STREAM_DOOR, WARM_UPS
from bench.side_by_side_systems import COORDSVC, check_disk, check_libraries
from bench.zookeeper_server import HEAP_MB
from coordsvc.testing.cluster import ClusterError, wait_for

LEFT_MAX: Final = 50
SESSIONS_END_S_MAX: Final = 120.0

_began: Final = time.perf_counter()


def say(text: str) -> None:
    print(f"{time.perf_counter() - _began:6.0f} s  {text}", flush=True)


def measure_one(row: ScaleRow, system: ScaleSystem, number: int, options: Options) -> ScaleRun:
    """Run `number` of a row without a large tree. ClusterError: the figure would be worthless."""

    def tell(text: str) -> None:
        say(f"{system.name:10} {text}")

    if row.row_id == "F1":
        return scale_fanout.measure(system, options.watchers, options.rounds, tell)
    if row.row_id == "E1":
        return run(scale_expiry.measure(system, options.ephemerals, number, tell))
    assert row.row_id in ("S1", "S1-stream"), row
    idle = IdleOptions(options.sessions, options.idle_seconds)
    return run(scale_idle.measure(system, idle, row.door == STREAM_DOOR, tell))


def wait_sessions_end(systems: Mapping[str, ScaleSystem]) -> None:
    """Those that a row left behind when it failed. ClusterError: they do not end."""

    def are_few() -> bool:
        return all(
            system.sessions(server) <= LEFT_MAX
            for system in systems.values()
            for server in system.pids()
        )

    wait_for(are_few, "sessions to end", SESSIONS_END_S_MAX)


class Scale:
    """`results` of the rows that could be measured, `failures` of the others."""

    def __init__(self, options: Options, names: Sequence[str], report: Path | None) -> None:
        self.results: list[ScaleResult] = []
        self.failures: dict[str, ClusterError] = {}
        self._options = options
        self._names = names
        self._report = report
        self._machine = this_machine()

    def measure(self, rows: Sequence[ScaleRow], below: Path) -> None:
        """Small rows first: each group on systems of its own, with data in `below`."""
        for is_large in (False, True):
            group = [row for row in rows if row.is_large == is_large]
            if not group:
                continue
            heap_mb = LARGE_HEAP_MB if is_large else HEAP_MB
            with contextlib.ExitStack() as stack:
                systems = {
                    name: stack.enter_context(
                        SCALE_SYSTEMS[name](below / f"{name}-{heap_mb}", heap_mb)
                    )
                    for name in self._names
                }
                bench = self._start(systems)
                measure = self._measure_large if is_large else self._measure_small
                measure(group, systems, bench)

    def _start(self, systems: Mapping[str, ScaleSystem]) -> Bench:
        for system in systems.values():
            system.start()
            check_libraries(list(system.pids().values()))
            say(f"{system.name:10} runs: {system.description}")
        bench = Bench(systems)
        if self._options.warm_up:
            bench.warm_up(WARM_UPS[:1], self._options.warm_up)
        return bench

    def _measure_small(
        self, rows: Sequence[ScaleRow], systems: Mapping[str, ScaleSystem], bench: Bench
    ) -> None:
        for row in rows:
            say(f"{row.row_id}: {row.text}")
            runs: list[ScaleRun] = []
            try:
                for number in range(self._options.runs_of(row)):
                    for system in systems.values():
                        if row.has_peer or system.name == COORDSVC:
                            runs.append(self._measure_one(row, system, number))
                            say(_run_text(row, runs[-1]))
            except ClusterError as error:
                self._failed(row.row_id, error)
                wait_sessions_end(systems)
                continue
            self._keep(row, runs, systems)

    def _measure_one(self, row: ScaleRow, system: ScaleSystem, number: int) -> ScaleRun:
        """ClusterError: with what the servers said last."""
        try:
            return measure_one(row, system, number, self._options)
        except (ClusterError, OSError) as error:
            raise ClusterError(f"{system.name}: {error}\n{system.log_tails()}") from error

    def _measure_large(
        self, rows: Sequence[ScaleRow], systems: Mapping[str, ScaleSystem], bench: Bench
    ) -> None:
        tree = LargeTree(systems, bench, self._options, say)
        try:
            tree.measure(list(rows))
        except ClusterError as error:
            self._failed("the large tree", error)
        for row_id, failure in tree.failures.items():
            self._failed(row_id, failure)
        for row in rows:
            for each in tree.runs.get(row.row_id, ()):
                say(_run_text(row, each))
            if row.row_id in tree.runs:
                self._keep(row, tree.runs[row.row_id], systems)

    def _failed(self, name: str, error: ClusterError) -> None:
        say(f"{name} has no result: {error}")
        self.failures[name] = error

    def _keep(
        self, row: ScaleRow, runs: list[ScaleRun], systems: Mapping[str, ScaleSystem]
    ) -> None:
        used = {each.system for each in runs}
        result = ScaleResult(
            row_id=row.row_id,
            text=row.text,
            door=row.door,
            measure=row.measure,
            unit=row.unit,
            floor=row.floor,
            goal=row.goal,
            of_ratio=row.of_ratio,
            command=this_command("bench.scale"),
            machine=self._machine,
            systems={name: each.description for name, each in systems.items() if name in used},
            runs=runs,
            notes=row.notes,
        )
        self.results.append(result)
        if self._report is not None:
            save(result)
            write_page(self._report)


def _run_text(row: ScaleRow, each: ScaleRun) -> str:
    details = "; ".join(f"{name} {value:,.4g}" for name, value in each.details.items())
    return f"{row.row_id} {each.system:10} {each.value:,.4g} {row.unit} ({details})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", default="", help=f"of {', '.join(r.row_id for r in ROWS)}")
    parser.add_argument("--systems", default=",".join(SCALE_SYSTEMS), help="fewer of them")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to use")
    parser.add_argument("--report", type=Path, default=None, help="write the page")
    for each in fields(Options):
        name = f"--{each.name.replace('_', '-')}"
        parser.add_argument(name, type=type(each.default), default=each.default)
    arguments = parser.parse_args()
    try:
        rows = chosen([name for name in arguments.rows.split(",") if name])
    except ValueError as error:
        parser.error(str(error))
    given = {each.name: getattr(arguments, each.name) for each in fields(Options)}
    scale = Scale(replace(Options(), **given), arguments.systems.split(","), arguments.report)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        below = Path(directory)
        try:
            check_disk(below)
        except ClusterError as error:
            parser.error(str(error))
        scale.measure(rows, below)
    if scale.failures:
        sys.exit(f"no result of {', '.join(scale.failures)}")


if __name__ == "__main__":
    main()
