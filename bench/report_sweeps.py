"""The part of the page that shows the plots, with what is to be seen on them."""

from __future__ import annotations

from itertools import starmap

from bench import flat, sweep_results
from bench.report_table import head, line, spread
from bench.side_by_side_results import GENERATOR_CORES_MAX, OTHERS_CORES_MAX, Run
from bench.sweep_results import PointResult, SweepResult

TITLE = "## Plots\n"

INTRODUCTION = """\
Shorter runs than those of the table, always through ZooKeeper's protocol. Points are medians; bars
go from the least to the most of the runs. Scales are logarithmic where they say so.
"""

PLOTS = {
    "clients": ("Throughput by number of connections", "Sets, three servers, values of 100 bytes."),
    "latency": (
        "How long a set takes",
        "In the closed loop a reply is followed by the next request at once, so a slower system is "
        "also asked for less. In the others requests begin at a fixed rate whatever the answers "
        "take; waiting for a free place counts. The legend has the rate that was reached.",
    ),
    "reads": (
        "Throughput by share of reads",
        "Gets and sets are mixed on each connection, and every get must find what the sets before "
        "it wrote.",
    ),
}


def plots_section() -> str:
    parts = [TITLE, INTRODUCTION]
    for name, (title, text) in PLOTS.items():
        sweep = sweep_results.load(name)
        parts.append(f"### {title}\n")
        if sweep is None:
            parts.append(f"Not measured yet: `make bench ROW={name}`.\n")
        else:
            parts += [_image(name, title), f"{text}\n", *_details(sweep)]
    parts += _growth()
    return "\n".join(parts)


def _image(name: str, title: str) -> str:
    return f"![{title}](plots/{name}.svg)\n"


def _details(sweep: SweepResult) -> list[str]:
    runs = max(len(point.of(system)) for point in sweep.points for system in sweep.systems)
    origin = f"{sweep.machine}. {'; '.join(sweep.systems.values())}."
    lines = [
        *("<details><summary>The figures</summary>", "", "```sh", sweep.command, "```", ""),
        f"{origin} {runs} runs of {sweep.seconds:g} s each.",
        *("", *_table(sweep), "", "</details>", ""),
    ]
    return [*_doubts(sweep), "\n".join(lines)]


def _table(sweep: SweepResult) -> list[str]:
    lines = head(("load", "system", "operations/s", "p50 ms", "p99 ms", "all servers us"))
    for point in sweep.points:
        for system in sweep.systems:
            if point.of(system):
                lines.append(
                    line(
                        _load_text(point),
                        system,
                        spread(point.figures(system, _rate), ",.0f"),
                        spread(point.figures(system, lambda run: _ms(run, 50.0)), ".2f"),
                        spread(point.figures(system, lambda run: _ms(run, 99.0)), ".2f"),
                        f"{point.median(system, lambda run: sum(run.cpu_us.values())):.1f}",
                    )
                )
    return lines


def _rate(run: Run) -> float:
    return run.outcome.rate


def _ms(run: Run, percent: float) -> float:
    return 1000 * run.outcome.latency_s(percent)


def _load_text(point: PointResult) -> str:
    text = f"{point.connections} x {point.in_flight}"
    if point.reads:
        text += f", {point.reads:.0%} gets"
    return text + (f", {point.rate:,.0f}/s begun" if point.rate else "")


def _doubts(sweep: SweepResult) -> list[str]:
    """What to know before the plot is believed."""
    busy = [
        _load_text(each)
        for each in sweep.points
        if any(run.is_generator_bound for run in each.runs)
    ]
    disturbed = sum(any(run.is_disturbed for run in each.runs) for each in sweep.points)
    lines = []
    if busy:
        lines.append(
            f"The generator used over {GENERATOR_CORES_MAX:.0%} of a core at: {'; '.join(busy)}.\n"
        )
    if disturbed:
        lines.append(
            f"At {disturbed} of {len(sweep.points)} points something else used over "
            f"{OTHERS_CORES_MAX:.0%} of a core in at least one run: to be measured again.\n"
        )
    return lines


def _growth() -> list[str]:
    parts = ["### As the tree grows\n"]
    tables = flat.load()
    if not tables:
        return [*parts, "Not measured yet: `make bench ROW=FLAT`.\n"]
    return [*parts, _image("growth", "As the tree grows"), *starmap(_growth_table, tables.items())]


def _growth_table(what: str, table: flat.Table) -> str:
    sizes = flat.sizes_of(table)
    lines = head((what, *(f"{size:,} znodes" for size in sizes)))
    for system, samples in table.items():
        cells = (spread(samples[size], ",.1f") if size in samples else "-" for size in sizes)
        lines.append(line(system, *cells))
    return "\n".join([*lines, ""])
