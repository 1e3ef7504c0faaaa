"""The same operations and error cases on ZooKeeper and on coordsvc, both results side by side.

    python -m tests.differential.run

Fails when they differ otherwise than `docs/divergence.md` says, and when a difference that is named
there has gone. Starts three servers of each on this machine; needs Java and Maven.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.zookeeper_server import why_not
from tests.differential import servers
from tests.differential.case import Group
from tests.differential.cases import last
from tests.differential.compare import Verdict, compare, faulty
from tests.differential.groups import GROUPS
from tests.differential.runner import Results, run_groups

STEPS_MIN = 2_000
"""Fewer compared than this, and something has been left out."""

AGAIN_MAX = 20
"""Cases with a fault are asked once more, if there are no more than these: an election on a busy
machine, or a session of another case that expires, may have come between."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose group or name contains this")
    options = parser.parse_args(arguments)
    groups = _chosen(options.only)
    if not groups:
        parser.error(f"no case is named like {options.only!r}")
    if missing := why_not():
        print(missing, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        with (
            servers.zookeeper(Path(directory) / "zookeeper") as zookeeper,
            servers.coordsvc(Path(directory) / "coordsvc") as coordsvc,
        ):
            theirs, ours = _results((zookeeper, coordsvc), groups)
    verdict = compare(groups, (zookeeper.name, coordsvc.name), theirs, ours)
    if not options.only and verdict.steps < STEPS_MIN:
        verdict.faults.append(f"only {verdict.steps} operations were compared")
    _print_summary(verdict, zookeeper.version)
    return 1 if verdict.faults else 0


def _results(targets: Sequence[servers.Target], groups: Sequence[Group]) -> list[Results]:
    results: list[Results] = [{} for _ in targets]

    def ask(asked: Sequence[Group]) -> None:
        for target, its_results in zip(targets, results, strict=True):
            run_groups(target.addresses, asked, its_results)

    repeatable = [group for group in groups if group is not last.GROUP]
    ask(repeatable)
    again = faulty(repeatable, *results)
    if 0 < sum(len(group.cases) for group in again) <= AGAIN_MAX:
        names = [f"{group.name}: {case.name}" for group in again for case in group.cases]
        print("asked again:", *names, sep="\n  ")
        ask(again)
    # Nothing can be asked after it.
    ask([group for group in groups if group is last.GROUP])
    return results


def _chosen(only: str) -> list[Group]:
    if not only:
        return GROUPS
    chosen = []
    for group in GROUPS:
        cases = [case for case in group.cases if only in f"{group.name}: {case.name}"]
        if cases and group is not last.GROUP:
            chosen.append(Group(group.name, cases, group.server))
    return chosen


def _print_summary(verdict: Verdict, version: str) -> None:
    print(f"\nZooKeeper {version} and coordsvc: {verdict.cases} cases, {verdict.steps} operations")
    print(f"  {verdict.equal} equal")
    for difference, count in sorted(verdict.named.items()):
        print(f"  {count} as documented under {difference}")
    print(f"  {len(verdict.faults)} faults")
    for fault in verdict.faults:
        print(f"    {fault}")


if __name__ == "__main__":
    sys.exit(main())
