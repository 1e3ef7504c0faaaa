"""Run simulations: `python -m coordsvc.testing.simulate --seeds 300`, or `--seed 7` with its story.

Each seed runs in a process of its own, which starts with everything imported. Exit status 1: a
promise was broken, or the runs together did too little to mean anything.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import msgspec

from coordsvc.testing import history
from coordsvc.testing.simulation import SECONDS, Result, simulate
from coordsvc.testing.simulation_story import StoryTeller, tell
from coordsvc.testing.violation import Violation

CPU_S_MAX = 120
"""Of one seed. Whatever takes longer does not come to an end."""

CRASHES_MEAN_MIN = 3.0
PARTITIONS_MEAN_MIN = 2.0
SEEDS_FOR_MEANS = 30
"""Fewer say nothing about an average."""

PROGRESS_S = 20.0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Simulate clusters under faults.")
    parser.add_argument("--seed", type=int, help="run this one, and tell its story if it fails")
    parser.add_argument("--seeds", type=int, default=300, help="how many (300)")
    parser.add_argument("--first", type=int, default=1, help="the first of them (1)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="simulated, under faults")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument("--stop-at-first", action="store_true", help="violation")
    parser.add_argument("--out", type=Path, default=Path(".sim"), help="for stories (.sim)")
    given = parser.parse_args(arguments)
    if given.seed is not None:
        return _run_one(given.seed, given.seconds, given.out)
    seeds = range(given.first, given.first + given.seeds)
    return _run_many(seeds, given.seconds, given.jobs, stop_at_first=given.stop_at_first)


# ------------------------------------------------------------------------------------- one seed


def _run_one(seed: int, seconds: float, out: Path) -> int:
    teller = StoryTeller()
    result = _simulate(seed, seconds, teller)
    print(_line(result))
    if not result.violations:
        return 0
    out.mkdir(parents=True, exist_ok=True)
    history_path, story_path = out / f"seed-{seed}.jsonl", out / f"seed-{seed}.txt"
    history.save(history_path, result.history)
    story = tell(result.history, teller.lines)
    story_path.write_text("\n".join(text for _, text in story) + "\n")
    for violation in result.violations:
        print(f"\n{violation}\n\nWhat happened around it:")
        for at, text in story:
            if violation.time - 0.5 <= at <= violation.time + 0.1:
                print(f"  {text}")
    print(f"\nThe whole story: {story_path}. The history: {history_path}, for\n"
          f"python -m coordsvc.testing.check_history {history_path}")  # fmt: skip
    return 1


def _simulate(seed: int, seconds: float, teller: StoryTeller | None) -> Result:
    directory = tempfile.mkdtemp(prefix="coordsvc-sim-", dir=_scratch())
    try:
        with teller.listening() if teller is not None else nullcontext():
            return simulate(seed, Path(directory), seconds=seconds)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _scratch() -> str | None:
    """Memory, where there is such a place: what outlives a crash is the simulation's own affair."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


# ------------------------------------------------------------------------------------ many seeds


def _run_many(seeds: Iterable[int], seconds: float, jobs: int, *, stop_at_first: bool) -> int:
    began = told = time.monotonic()
    results: list[Result] = []
    failed = 0
    for result in _results(seeds, seconds, jobs):
        results.append(result)
        if result.violations:
            failed += 1
            for violation in result.violations[:3]:
                print(f"seed {result.seed}: {violation}", flush=True)
            print(f"  to see it again: make sim SEED={result.seed}", flush=True)
            if stop_at_first:
                break
        if time.monotonic() - told > PROGRESS_S:
            told = time.monotonic()
            print(f"{len(results)} seeds, {failed} with a violation", flush=True)
    _print_summary(results, time.monotonic() - began)
    shortfalls = [] if stop_at_first else list(_shortfalls(results))
    for shortfall in shortfalls:
        print(f"too little: {shortfall}")
    return 1 if failed or shortfalls else 0


def _results(seeds: Iterable[int], seconds: float, jobs: int) -> Iterator[Result]:
    """As they come. A process that does not end by itself counts as a violation."""
    waiting, running = iter(seeds), dict[int, tuple[int, str]]()
    directory = tempfile.mkdtemp(prefix="coordsvc-sims-")
    try:
        while True:
            while len(running) < jobs and (seed := next(waiting, None)) is not None:
                path = os.path.join(directory, str(seed))
                running[_fork(seed, seconds, path)] = seed, path
            if not running:
                return
            pid, status = os.wait()
            if pid in running:
                yield _read_result(*running.pop(pid), status)
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(directory, ignore_errors=True)


def _fork(seed: int, seconds: float, path: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.setitimer(signal.ITIMER_PROF, CPU_S_MAX)
    logging.disable(logging.CRITICAL)
    try:
        result = _simulate(seed, seconds, None)
        result.history.clear()
        for violation in result.violations:
            violation.records.clear()
        Path(path).write_bytes(msgspec.json.encode(result))
    except BaseException as error:
        print(f"seed {seed}: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _read_result(seed: int, path: str, status: int) -> Result:
    if status == 0:
        result = msgspec.json.decode(Path(path).read_bytes(), type=Result)
        os.unlink(path)
        return result
    code = os.waitstatus_to_exitcode(status)
    text = f"took more than {CPU_S_MAX} s" if code == -signal.SIGPROF else f"ended with {code}"
    return Result(seed, 0, [Violation("no bug", f"its process {text}", 0.0)])


def _shortfalls(results: list[Result]) -> Iterator[str]:
    if len(results) < SEEDS_FOR_MEANS:
        return
    for name, mean, least in (
        ("crashes", _mean(result.crashes for result in results), CRASHES_MEAN_MIN),
        ("partitions", _mean(result.partitions for result in results), PARTITIONS_MEAN_MIN),
    ):
        if mean < least:
            yield f"{mean:.1f} {name} on average, at least {least:.0f} are wanted"
    for name in ("installs", "elections"):
        if not sum(getattr(result, name) for result in results):
            yield f"no {name}"


def _mean(numbers: Iterable[int]) -> float:
    several = list(numbers)
    return sum(several) / len(several)


# --------------------------------------------------------------------------------------- printing


def _line(result: Result) -> str:
    operations = sum(result.operations.values())
    return (
        f"seed {result.seed}: {result.replicas} replicas, {result.seconds:.1f} s simulated in"
        f" {result.cpu_s:.2f} s, {operations} operations, {result.crashes} crashes,"
        f" {result.partitions} partitions, {result.elections} elections,"
        f" {result.installs} installs,"
        f" trace {result.trace:015x}, {len(result.violations)} violations"
    )


def _print_summary(results: list[Result], wall_s: float) -> None:
    count = max(1, len(results))
    faults, operations = Counter[str](), Counter[str]()
    for result in results:
        faults.update(result.faults)
        operations.update(result.operations)
    _print_histogram("faults", faults, count)
    _print_histogram("operations", operations, count)
    elections = sum(result.elections for result in results)
    installs = sum(result.installs for result in results)
    cpu_s = sum(result.cpu_s for result in results)
    simulated_s = sum(result.seconds for result in results)
    failed = sum(1 for result in results if result.violations)
    print(
        f"{len(results)} seeds, {simulated_s:.0f} s simulated in {wall_s:.0f} s"
        f" ({cpu_s / count:.2f} s of CPU a seed); a seed had on average"
        f" {operations.total() / count:.0f} operations,"
        f" {_mean(result.crashes for result in results) if results else 0:.1f} crashes,"
        f" {_mean(result.partitions for result in results) if results else 0:.1f} partitions,"
        f" {elections / count:.1f} elections, {installs / count:.1f} installs;"
        f" {failed} with a violation",
        flush=True,
    )


def _print_histogram(title: str, counts: Counter[str], seeds: int) -> None:
    print(f"{title} (all seeds, and for each):")
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        print(f"  {name:<34} {count:>8} {count / seeds:>8.2f}")


if __name__ == "__main__":
    sys.exit(main())
