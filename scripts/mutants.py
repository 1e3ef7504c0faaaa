"""Runs the mutants of tests/mutants: each must make its catcher fail, and for the right reason.

    scripts/mutants.py                    all of them, against the tests that catch them
    scripts/mutants.py --only ID ...      some
    scripts/mutants.py --simulation       those marked for it, against the simulation alone
    scripts/mutants.py --docs             write docs/mutants.md, run nothing
    scripts/mutants.py --simulation --docs    run, note the seeds, and write docs/mutants.md
    scripts/mutants.py --check-docs       fail unless docs/mutants.md is what --docs would write

The tree is copied, the copies are sabotaged, the tree itself is never touched. First each catcher
must pass on an unchanged copy. Exit status 1 when a mutant survives, or is caught for another
reason than the one expected: a test that merely crashes has understood nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.mutants import definition  # noqa: E402
from tests.mutants.definition import SIMULATION, Mutant  # noqa: E402
from tests.mutants.verdict import (  # noqa: E402
    CAUGHT,
    OTHER_REASON,
    VIOLATION,
    Outcome,
    Run,
    judge,
    said_by_pytest,
)

TIMEOUT_S = 180
UNCHANGED_TIMEOUT_S = 900
SIMULATION_TIMEOUT_S = 900
SEEDS = 50
LEFT_OUT = (
    ".git", ".venv*", "__pycache__", ".*_cache", ".hypothesis", "node_modules", "data", "dist",
)  # fmt: skip
ResultT = TypeVar("ResultT")


# ------------------------------------------------------------------------------------- running


def run(arguments: Sequence[str], tree: Path, timeout_s: float) -> Run:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COORDSVC_")
    }
    environment |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # so that what it has started ends with it
    ) as process:
        status: int | None
        try:
            output, _ = process.communicate(timeout=timeout_s)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = None
    return Run(status, said_by_pytest(output), output, time.monotonic() - start)


def run_simulation(tree: Path, first: int = 1) -> Run:
    """From the seed `first` on, one after the other: so that what is found is always the same."""
    seeds = ("--first", str(first), "--seeds", str(SEEDS + 1 - first))
    options = (*seeds, "--stop-at-first", "--jobs", "1")
    return run(("-m", "coordsvc.testing.simulate", *options), tree, SIMULATION_TIMEOUT_S)


def run_tests(tests: Sequence[str], tree: Path, timeout_s: float = TIMEOUT_S) -> Run:
    options = ("-x", "-vv", "--tb=short", "-p", "no:cacheprovider", "-p", "no:xdist")
    return run(("-m", "pytest", *options, *tests), tree, timeout_s)


# ------------------------------------------------------------------------------------- the copies


def copy_tree(target: Path) -> None:
    shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    compile_all = (sys.executable, "-m", "compileall", "-q", "coordsvc", "tests")
    subprocess.run(compile_all, cwd=target, check=False)  # for speed only


def sabotage(base: Path, tree: Path, mutant: Mutant) -> None:
    """A copy of `base`, files shared with it, but for the one that is replaced."""
    shutil.copytree(base, tree, copy_function=os.link)
    source = tree / mutant.file
    text = mutant.apply(source.read_text())
    source.unlink()
    source.write_text(text)
    for compiled in (source.parent / "__pycache__").glob(f"{source.stem}.*"):
        compiled.unlink()


def try_mutant(base: Path, folder: Path, mutant: Mutant, catcher: str) -> Outcome:
    tree = folder / mutant.id
    sabotage(base, tree, mutant)
    try:
        if catcher == SIMULATION:
            return simulate(tree, mutant)
        return judge(mutant, catcher, run_tests([catcher], tree))
    finally:
        shutil.rmtree(tree)


def simulate(tree: Path, mutant: Mutant) -> Outcome:
    """Goes on behind a seed that fails for another reason."""
    first, seconds = 1, 0.0
    while True:
        ended = run_simulation(tree, first)
        seconds += ended.seconds
        outcome = replace(judge(mutant, SIMULATION, ended), seconds=seconds)
        failed = VIOLATION.search(ended.output)
        if outcome.verdict != OTHER_REASON or failed is None or int(failed[1]) >= SEEDS:
            return outcome
        first = int(failed[1]) + 1


def in_parallel(jobs: int, work: Iterable[Callable[[], ResultT]]) -> list[ResultT]:
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda each: each(), work))


# ------------------------------------------------------------------------------------- everything


def pass_unchanged(base: Path, catchers: Iterable[str], jobs: int) -> bool:
    """Whether all catchers pass without any mutant; says so if not."""
    distinct = sorted(set(catchers))
    tests = [each for each in distinct if each != SIMULATION]
    shares = [share for start in range(jobs) if (share := tests[start::jobs])]
    runs = [partial(run_tests, share, base, UNCHANGED_TIMEOUT_S) for share in shares]
    if SIMULATION in distinct:
        runs.append(partial(run_simulation, base))
    failed = [ended for ended in in_parallel(jobs, runs) if ended.status != 0]
    for ended in failed:
        print(f"without any mutant, a catcher does not pass:\n{ended.output[-5000:]}", flush=True)
    return not failed


def run_all(mutants: Sequence[Mutant], *, simulation: bool, jobs: int) -> list[Outcome] | None:
    """None: a catcher fails on the unchanged tree."""
    catcher_of = {m.id: SIMULATION if simulation else m.catcher for m in mutants}
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = Path(name)
        base = folder / "unchanged"
        copy_tree(base)
        if not pass_unchanged(base, catcher_of.values(), jobs):
            return None

        def attempt(mutant: Mutant) -> Outcome:
            outcome = try_mutant(base, folder, mutant, catcher_of[mutant.id])
            report(outcome)
            return outcome

        return in_parallel(jobs, [partial(attempt, mutant) for mutant in mutants])


def report(outcome: Outcome) -> None:
    found = outcome.found
    by = f"seed {found.seed}, {found.check}" if found is not None else outcome.catcher
    line = f"{outcome.verdict:<14} {outcome.seconds:6.1f} s  {outcome.mutant.id:<42} {by}"
    print(line, *(f"    {each}" for each in outcome.detail.splitlines()), sep="\n", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sabotage copies of the tree: is it noticed?")
    parser.add_argument("--only", nargs="+", metavar="ID", default=[])
    parser.add_argument("--list", action="store_true", help="only list them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--simulation", action="store_true", help="against the simulation alone")
    parser.add_argument("--docs", action="store_true", help="write docs/mutants.md")
    parser.add_argument("--check-docs", action="store_true", help="only compare docs/mutants.md")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    mutants = definition.load()
    if found := definition.faults(mutants):
        print("\n".join(found))
        return 2
    if unknown := set(options.only) - {mutant.id for mutant in mutants}:
        print(f"no such mutant: {', '.join(sorted(unknown))}")
        return 2
    if options.check_docs:
        return check_docs()
    mutants = [m for m in mutants if not options.only or m.id in options.only]
    if options.simulation:
        mutants = [m for m in mutants if m.is_for_simulation]
    if options.list:
        print("\n".join(f"{mutant.id:<42} {mutant.catcher}" for mutant in mutants))
        return 0
    if options.docs and not options.simulation:
        write_docs()
        return 0
    outcomes = run_all(mutants, simulation=options.simulation, jobs=options.jobs)
    if outcomes is None:
        return 1
    if options.docs:
        note_found(outcomes)
        write_docs()
    return summarize(outcomes)


def summarize(outcomes: Sequence[Outcome]) -> int:
    others = [each for each in outcomes if each.verdict != CAUGHT]
    for each in others:
        print(f"{each.verdict}: {each.mutant.id}: {each.mutant.promise}")
    print(f"{len(outcomes) - len(others)} of {len(outcomes)} mutants caught")
    return 1 if others else 0


def note_found(outcomes: Sequence[Outcome]) -> None:
    """Those that were not tried keep what was noted; those not for the simulation have nothing."""
    found = definition.load_found() | {each.mutant.id: each.found for each in outcomes}
    known = {mutant.id for mutant in definition.load() if mutant.is_for_simulation}
    definition.save_found(
        {key: each for key, each in found.items() if each is not None and key in known}
    )


def write_docs() -> None:
    (ROOT / definition.DOCS_FILE).write_text(definition.render_docs())


def check_docs() -> int:
    path = ROOT / definition.DOCS_FILE
    if path.exists() and path.read_text() == definition.render_docs():
        return 0
    print(f"{definition.DOCS_FILE} is not what is defined: run scripts/mutants.py --docs")
    return 1


if __name__ == "__main__":
    sys.exit(main())
