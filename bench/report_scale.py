"""The sections of the page about rows of scale: what happened once, and how long it took."""

from __future__ import annotations

import statistics

from bench import scale_results
from bench.report_table import head, line, spread
from bench.scale_results import ScaleResult

TITLE = """\
## Scale

What is done once: a fan-out, an expiry, a restart; and what something takes that is there all the
time. Less is better in all of these.
"""

FAILOVER = """\
### P3: leader killed -9

All rounds, with other faults, are in [failover.md](failover.md).
"""


def scale_section() -> str:
    parts = [TITLE, *(_section(result) for result in scale_results.load_all()), FAILOVER]
    return "\n".join(parts)


def _section(result: ScaleResult) -> str:
    door = f" ({result.door})" if result.door else ""
    lines = [f"### {result.row_id}: {result.text}{door}", ""]
    lines += ["```sh", result.command, "```", "", f"{result.machine}."]
    lines += [f"{'; '.join(result.systems.values())}.", ""]
    lines += _table(result)
    if result.notes:
        lines += ["", result.notes]
    return "\n".join([*lines, ""])


def _table(result: ScaleResult) -> list[str]:
    names = list(dict.fromkeys(name for run in result.runs for name in run.details))
    lines = head((f"{result.row_id}: system", result.measure, "runs", *names))
    for system in result.systems:
        runs = [run for run in result.runs if run.system == system]
        if runs:
            values = result.values(system)
            form = ",.0f" if statistics.median(values) >= 100 else ".3g"
            cells = [f"{spread(values, form)} {result.unit}", str(len(runs))]
            for name in names:
                found = [run.details[name] for run in runs if name in run.details]
                cells.append(f"{statistics.median(found):,.4g}" if found else "-")
            lines.append(line(system, *cells))
    return lines
