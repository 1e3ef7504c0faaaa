"""Everything that docs/performance.md tells, or some rows of it: what `make bench` runs.

    .venv/bin/python -m bench.run [--only W2,F1,clients] [--report docs/performance.md]

Rows side by side, sweeps, rows of scale; each group is a program of its own, which writes the page
as soon as it knows more. A group that fails does not keep the others from being measured, but ends
this with status 1. P3 is measured by `make failover`.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.scale_rows import ROWS as SCALE_ROWS
from bench.side_by_side_rows import ROWS
from bench.sweep_results import NAMES as SWEEPS

PAGE: Final = Path("docs/performance.md")


@dataclass(frozen=True, slots=True)
class Group:
    module: str
    option: str
    names: tuple[str, ...]

    def chosen(self, only: Sequence[str]) -> list[str]:
        """A row's variants are chosen with it: W4-leader with W4."""
        return [name for name in self.names if {name, name.partition("-")[0]} & set(only)]

    def command(self, only: Sequence[str], report: Path) -> list[str]:
        """Empty: nothing of this was chosen."""
        names = self.chosen(only)
        if only and not names:
            return []
        chosen = [self.option, ",".join(names)] if only else []
        return [sys.executable, "-m", self.module, *chosen, "--report", str(report)]


GROUPS: Final = (
    Group("bench.side_by_side", "--rows", tuple(row.row_id for row in ROWS)),
    Group("bench.sweep", "--sweeps", SWEEPS),
    Group("bench.scale", "--rows", tuple(row.row_id for row in SCALE_ROWS)),
)


def commands(only: Sequence[str], report: Path) -> list[list[str]]:
    """ValueError: something is no row and no sweep."""
    known = {name for group in GROUPS for name in group.names}
    known |= {name.partition("-")[0] for name in known}
    if unknown := set(only) - known:
        raise ValueError(f"no such row or sweep: {', '.join(sorted(unknown))}")
    made = [group.command(only, report) for group in GROUPS]
    plots = [sys.executable, "-m", "bench.plots", str(report.parent / "plots")]
    page = [sys.executable, "-m", "bench.side_by_side_report", str(report)]
    return [*filter(None, made), plots, page]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    names = "; ".join(", ".join(group.names) for group in GROUPS)
    parser.add_argument("--only", default="", help=f"of {names}; without it, all")
    parser.add_argument("--report", type=Path, default=PAGE, help="the page to write")
    arguments = parser.parse_args()
    try:
        todo = commands([name for name in arguments.only.split(",") if name], arguments.report)
    except ValueError as error:
        parser.error(str(error))
    failed = []
    for command in todo:
        print(f"$ {shlex.join(command)}", flush=True)
        if subprocess.run(command).returncode:
            failed.append(command[2])
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
