"""The page that tells what `side_by_side` measured, made from its results."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.side_by_side_results import (
    GENERATOR_CORES_MAX,
    OTHERS_CORES_MAX,
    RowResult,
    Run,
    load,
    ratio,
)
from bench.side_by_side_rows import DATA_BYTES, P50, ROWS, Row

COLUMNS = (
    *("system", "operations/s", "p50 ms", "p99 ms"),
    *("leader us", "follower us", "all servers us", "fsyncs/s", "generator", "others"),
)

SUMMARY_COLUMNS = ("row", "workload", "measure", "ratio", "of the pairs", "floor", "goal", "result")

INTRODUCTION = f"""\
# Performance

<!-- Do not edit: written by bench/side_by_side.py (`--report`). -->

What is measured here is measured beside another system, under the same load, from the same
generator, in the same minutes. Three servers of each and the generator share one machine, so the
figures themselves say little about machines of their own, and they vary from run to run: what
counts is the **ratio** of the two.

* Every server is a process with its data on disk, and a write is acknowledged after a majority has
  synced it; there is no setting here that trades this for speed. Values have {DATA_BYTES} bytes.
* Each has done 200,000 operations or more a server before it is measured. Then they take turns, and
  each run lasts some seconds after a second that is not counted. Given is the median of the runs,
  and from the least to the most of them.
* The generator sends as many requests as it has replies for, so that always as many are under
  way (a closed loop: latency is what that many cost). It is one process, beside the servers on
  the same cores. **A row is marked with a * when it used more than {GENERATOR_CORES_MAX:.0%} of a
  core**, for then it is not known whether the servers were measured.
* Every reply is checked: its order, that it is no error, that the version it tells counts every
  acknowledged set once. Afterwards every znode is read at every server. A run in which anything is
  missing, or too much, ends the measurement; so do replicas with different digests, a change of
  leader, and fewer syncs than the acknowledged writes need.

*ratio* is our median divided by the peer's: of operations/s more is better, of p50 less is. *Of the
pairs*: the least and the most of the ratios of runs that followed each other. *us* is what servers
use of a CPU for one operation, in microseconds: of followers, the mean. *fsyncs/s* are those of
all servers together. *others* is what everything else on the machine used meanwhile, of a core; the
other system, which idles, is part of it. **A row is marked with a † when that was more than
{OTHERS_CORES_MAX:.0%}**: it says little then, and is to be measured again.

`make bench` measures all rows, `make bench ROW=W2` one of them.
"""

NOT_MEASURED = "Not measured yet: `make bench ROW={row_id}`.\n"


def write_page(page: Path) -> None:
    results = {row.row_id: result for row in ROWS if (result := load(row.row_id)) is not None}
    parts = [INTRODUCTION, "\n".join([*summary(ROWS, results), ""])]
    parts += [_section(row, results.get(row.row_id)) for row in ROWS]
    page.write_text("\n".join(parts))


def summary(rows: Sequence[Row], results: Mapping[str, RowResult]) -> list[str]:
    """A line for each row, whether it was measured or not."""
    lines = _head(SUMMARY_COLUMNS)
    for row in rows:
        result = results.get(row.row_id)
        cells = [row.row_id, f"{row.text} ({row.door})", f"{row.measure}, {row.peer}"]
        cells += ["not measured", "-"] if result is None else _ratio_cells(row, result)
        at = "at least" if row.measure != P50 else "at most"
        cells += [f"{at} {row.floor:g}", f"{at} {row.goal:g}"]
        cells.append("-" if result is None else verdict(row, result))
        lines.append(_row(*cells))
    return lines


def _ratio_cells(row: Row, result: RowResult) -> list[str]:
    found = ratio(row, result)
    return [
        f"**{found.median:.2f}**{_marks(result.runs)}",
        f"{found.least:.2f} to {found.most:.2f}",
    ]


def _marks(runs: Sequence[Run]) -> str:
    is_bound = any(run.is_generator_bound for run in runs)
    is_disturbed = any(run.is_disturbed for run in runs)
    return " *" * is_bound + " †" * is_disturbed


def verdict(row: Row, result: RowResult) -> str:
    found = ratio(row, result).median
    if row.reaches(found, row.goal):
        return "goal"
    return "floor" if row.reaches(found, row.floor) else "**below the floor**"


def _section(row: Row, result: RowResult | None) -> str:
    title = f"## {row.row_id}: {row.text}\n"
    if result is None:
        return f"{title}\n{NOT_MEASURED.format(row_id=row.row_id)}"
    runs = len(result.runs) // len(result.systems)
    measured = result.runs[0].outcome.seconds
    lines = [title, "```sh", result.command, "```", "", f"{result.machine}."]
    lines += [f"{'; '.join(result.systems.values())}. {runs} runs of {measured:.0f} s each.", ""]
    return "\n".join([*lines, *row_table(result), ""])


def row_table(result: RowResult) -> list[str]:
    """A line for each system."""
    lines = _head((f"{result.row_id}: {COLUMNS[0]}", *COLUMNS[1:]))
    for system in result.systems:

        def figure(measure: Callable[[Run], float], form: str, system: str = system) -> str:
            values = result.figures(system, measure)
            spread = f"{min(values):{form}} to {max(values):{form}}"
            return f"{statistics.median(values):{form}} ({spread})"

        def median(measure: Callable[[Run], float], form: str, system: str = system) -> str:
            return f"{statistics.median(result.figures(system, measure)):{form}}"

        lines.append(
            _row(
                system,
                figure(lambda run: run.outcome.rate, ",.0f") + _marks(result.of(system)),
                figure(lambda run: 1000 * run.outcome.latency_s(50.0), ".2f"),
                figure(lambda run: 1000 * run.outcome.latency_s(99.0), ".2f"),
                median(lambda run: run.leader_cpu_us, ".1f"),
                median(lambda run: run.follower_cpu_us, ".1f"),
                median(lambda run: sum(run.cpu_us.values()), ".1f"),
                median(lambda run: run.fsyncs_per_s, ",.0f"),
                median(lambda run: run.outcome.generator_cores, ".0%"),
                median(lambda run: run.others_cores, ".0%"),
            )
        )
    return lines


def _head(columns: Sequence[str]) -> list[str]:
    return [_row(*columns), "|" + "---|" * len(columns)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
