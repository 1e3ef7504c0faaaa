"""The service and its peers under the same load, in the same minutes.

    .venv/bin/python -m bench.side_by_side [--rows W2,W3] [--runs 3] [--report docs/performance.md]

Three servers of each system, each a process, and the generator share this machine. All systems that
the rows need run all the time, the idle ones too, and take turns: A, B, A, B. Before that each has
done `--warm-up` of each operation a server, in turns through all the doors that are measured. What
is measured is the table in `side_by_side_rows`; what generators are asked is told in `load`.

Fails, and keeps nothing of the row, if what was acknowledged is not there afterwards at every
server, if replicas differ, if there were fewer syncs than the acknowledged writes need, or if the
leader changed. `--report` writes the page, and each row to `bench/results`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from bench.failover_results import this_command, this_machine
from bench.go_programs import GRPC_LOAD
from bench.load import MEASURED, MEASURING, Load, Outcome
from bench.side_by_side_report import row_table, summary, write_page
from bench.side_by_side_results import RowResult, Run, save
from bench.side_by_side_rows import (
    BUILT_DOORS,
    GENERATORS,
    ROWS,
    Row,
    chosen,
    row_of,
    warm_ups,
)
from bench.side_by_side_systems import (
    COORDSVC,
    SYSTEMS,
    System,
    check_disk,
    check_libraries,
    check_synced,
    cpu_seconds,
    machine_cpu_seconds,
)
from coordsvc.testing.cluster import ClusterError

RAMP_S = 1.0
WARM_UP_S = 5.0
WARM_UP_RUNS_MAX = 60
CLOSED_S = 4.0
HALF = 0.5


class GeneratorError(ClusterError):
    """What it said."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What the generator says; and by this process's clock the time that was measured, with the
    CPU seconds that were used meanwhile, by server and by all that runs on the machine."""

    outcome: Outcome
    seconds: float
    cpu_s: dict[int, float]
    machine_cpu_s: float


def generate(command: Sequence[str], load: Load, pids: Mapping[int, int]) -> Generated:
    """GeneratorError: it ended with an error, which is told."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(load))
            process.stdin.close()
            _expect(process, MEASURING)
            before, machine, began = cpu_seconds(pids), machine_cpu_seconds(), time.perf_counter()
            _expect(process, MEASURED)
            after = cpu_seconds(pids)
            machine, seconds = machine_cpu_seconds() - machine, time.perf_counter() - began
            outcome = msgspec.json.decode(_line(process), type=Outcome)
        finally:
            process.kill()
    cpu_s = {each: after[each] - used for each, used in before.items()}
    return Generated(outcome, seconds, cpu_s, machine)


def _expect(process: subprocess.Popen[bytes], word: str) -> None:
    line = _line(process).decode().strip()
    if line != word:
        raise GeneratorError(f"the generator said {line!r}, not {word!r}")


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None and process.stderr is not None
    if not (line := process.stdout.readline()):
        raise GeneratorError(f"the generator: {process.stderr.read().decode().strip()}")
    return line


class Bench:
    """Systems that run. Every load has znodes of its own."""

    def __init__(self, systems: Mapping[str, System]) -> None:
        self._systems = systems
        self._numbers = itertools.count(1)

    def warm_up(self, rows: Sequence[Row], operations: int) -> None:
        """Each system, with what it will be asked. A set is done by all servers, a get by one."""
        for system in self._systems.values():
            doors: dict[str, dict[str, Row]] = {}
            for row in rows:
                if system.name in (COORDSVC, row.peer):
                    doors.setdefault(row.operation, {})[row.door_of(system.name)] = row
            for by_door in doors.values():
                self._warm_up(system, list(by_door.values()), operations)

    def _warm_up(self, system: System, rows: Sequence[Row], operations: int) -> None:
        """Through each door once at least, and then in turns."""
        wanted = operations * (len(system.pids()) if rows[0].is_read else 1)
        done = 0
        for number, row in zip(range(WARM_UP_RUNS_MAX), itertools.cycle(rows), strict=False):
            done += self.run(row, system, WARM_UP_S).outcome.total
            if number + 1 >= len(rows) and done >= wanted:
                break
        print(f"{system.name:10} warm after {done:,} operations: {rows[0].text}", flush=True)

    def run(self, row: Row, system: System, seconds: float) -> Run:
        """ClusterError: the figure would be worthless, or there is none."""
        try:
            return self._run(row, system, seconds)
        except ClusterError as error:
            raise ClusterError(f"{system.name}: {error}\n{system.log_tails()}") from error

    def _run(self, row: Row, system: System, seconds: float) -> Run:
        leader = system.leader()
        door = row.door_of(system.name)
        endpoints = system.endpoints(door)
        load = row.load(f"/load{next(self._numbers)}", endpoints, leader, RAMP_S, seconds)
        before = system.fsyncs()
        generated = generate(GENERATORS[door], load, system.pids())
        fsyncs = {each: count - before[each] for each, count in system.fsyncs().items()}
        outcome = generated.outcome
        if system.leader() != leader:
            raise ClusterError("the leader changed while it was measured")
        if not row.is_read:
            check_synced(fsyncs, outcome.total, row.connections * row.in_flight)
        system.check_agreement()
        known_s = sum(generated.cpu_s.values()) + outcome.generator_cpu_s
        return Run(
            system=system.name,
            leader=leader,
            outcome=outcome,
            seconds=generated.seconds,
            cpu_s=generated.cpu_s,
            fsyncs=fsyncs,
            others_cores=max(0.0, generated.machine_cpu_s - known_s) / generated.seconds,
        )


def measure(
    bench: Bench, row: Row, systems: Sequence[System], runs: int, seconds: float
) -> list[Run]:
    """They take turns."""
    done = []
    for number, system in itertools.product(range(runs), systems):
        run = bench.run(row, system, seconds)
        done.append(run)
        outcome = run.outcome
        print(
            f"{row.row_id:10} {system.name:10} {number + 1}: {outcome.rate:10,.0f}/s, "
            f"p50 {1000 * outcome.latency_s(50.0):.2f} ms, "
            f"p99 {1000 * outcome.latency_s(99.0):.2f} ms, "
            f"servers {sum(run.cpu_us.values()):.0f} us, "
            f"generator {outcome.generator_cores:.0%} of a core, others {run.others_cores:.0%}",
            flush=True,
        )
    return done


def at_half_rate(row: Row, closed: Mapping[str, float]) -> Row:
    """The row, with the rate that is asked of both; `closed` are the rates of the row it is half
    of, by system."""
    return replace(row, rate=float(round(HALF * min(closed.values()))))


def closed_rates(
    bench: Bench, row: Row, systems: Sequence[System], known: Mapping[str, RowResult], runs: int
) -> dict[str, float]:
    """What each system does in a closed loop, as measured in this very session."""
    if row.half_of in known:
        measured = known[row.half_of].runs
    else:
        measured = measure(bench, row_of(row.half_of), systems, runs, CLOSED_S)
    return {
        system.name: statistics.median(
            run.outcome.rate for run in measured if run.system == system.name
        )
        for system in systems
    }


def prepare_generators(rows: Sequence[Row]) -> None:
    """ClusterError: one cannot be had."""
    if any(door in BUILT_DOORS for row in rows for door in (row.door, row.peer_door)):
        if why := GRPC_LOAD.why_not():
            raise ClusterError(f"the load generator cannot be built: {why}")
        GRPC_LOAD.prepare()


def run_all(rows: Sequence[Row], arguments: argparse.Namespace) -> list[RowResult]:
    """Row by row; each is kept when it is done."""
    machine = this_machine()
    print(machine)
    names = [COORDSVC, *dict.fromkeys(row.peer for row in rows)]
    results: dict[str, RowResult] = {}
    prepare_generators(rows)
    with contextlib.ExitStack() as stack:
        below = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
        check_disk(below)
        systems = {
            name: stack.enter_context(SYSTEMS[name](below / str(number)))
            for number, name in enumerate(names)
        }
        for system in systems.values():
            system.start()
            check_libraries(list(system.pids().values()))
        bench = Bench(systems)
        bench.warm_up(warm_ups(rows), arguments.warm_up)
        for row in rows:
            both = [systems[COORDSVC], systems[row.peer]]
            if row.half_of:
                closed = closed_rates(bench, row, both, results, arguments.runs)
                row = at_half_rate(row, closed)
            runs = measure(bench, row, both, arguments.runs, arguments.seconds)
            descriptions = {system.name: system.description for system in both}
            command = this_command("bench.side_by_side")
            result = RowResult(row.row_id, command, machine, descriptions, runs)
            results[row.row_id] = result
            if arguments.report is not None:
                save(result)
                write_page(arguments.report)
    return list(results.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    names = ", ".join(row.row_id for row in ROWS)
    parser.add_argument("--rows", default="", help=f"of {names}; without it, all")
    parser.add_argument("--runs", type=int, default=3, help="of each system")
    parser.add_argument("--seconds", type=float, default=8.0, help="that each run is measured")
    parser.add_argument("--warm-up", type=int, default=200_000, help="operations a server")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to use")
    parser.add_argument("--report", type=Path, default=None, help="write the page")
    arguments = parser.parse_args()
    try:
        rows = chosen([name for name in arguments.rows.split(",") if name])
    except ValueError as error:
        parser.error(str(error))
    try:
        results = run_all(rows, arguments)
    except ClusterError as error:
        sys.exit(f"no result: {error}")
    for result in results:
        print("\n".join(["", *row_table(result)]))
    print("\n".join(["", *summary(rows, {each.row_id: each for each in results})]))


if __name__ == "__main__":
    main()
