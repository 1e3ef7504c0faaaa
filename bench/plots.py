"""The plots of docs/performance.md, drawn from the results of `sweep` and of `scale`.

    .venv/bin/python -m bench.plots docs/plots

Needs matplotlib, which `make bench` installs; nothing else here does. A plot without results is not
drawn. Points are medians, bars go from the least to the most of the runs. The colours are those of
Okabe and Ito, which people who are colour-blind can tell apart; markers differ, too.
"""

from __future__ import annotations

import statistics
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from bench import flat, sweep_results
from bench.load import PERCENTS
from bench.side_by_side_results import Run
from bench.sweep_results import PointResult, SweepResult

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73")
MARKERS: Final = ("o", "s", "^")
"""Of the systems, ours first."""

WIDTH: Final = 10.0
HEIGHT: Final = 4.2
GROWTH_COLUMNS: Final = 3
GROWTH_HEIGHT: Final = 2.6
"""Inches; the last is of a row of panels."""

TITLE_WIDTH: Final = 34
"""Letters that fit above a panel."""

STYLE: Final = {
    "svg.hashsalt": "coordsvc",  # The same results give the same file.
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def _rate(run: Run) -> float:
    return run.outcome.rate


def _short(value: float) -> str:
    """1,200 as 1.2 k."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _figure(panels: int, title: str, *, share_y: bool) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    return figure, list(figure.subplots(1, panels, squeeze=False, sharey=share_y)[0])


def _line(
    axes: Axes, number: int, label: str, xs: Sequence[float], samples: Sequence[Sequence[float]]
) -> None:
    """Medians, with a bar from the least to the most."""
    middles = [statistics.median(each) for each in samples]
    below = [middle - min(each) for middle, each in zip(middles, samples, strict=True)]
    above = [max(each) - middle for middle, each in zip(middles, samples, strict=True)]
    axes.errorbar(
        xs,
        middles,
        yerr=[below, above],
        label=label,
        color=COLOURS[number % len(COLOURS)],
        marker=MARKERS[number % len(MARKERS)],
        markersize=5,
        linewidth=1.8,
        capsize=3,
        elinewidth=1,
    )


def _log_y(axes: Axes, form: Callable[[float], str] = _short) -> None:
    """With numbers at 1, 2 and 5, as few panels span more than two decades."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: form(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _places(axes: Axes, labels: Sequence[str]) -> list[float]:
    """Named places at even distances."""
    places = [float(place) for place in range(len(labels))]
    axes.set_xticks(places, labels)
    return places


def clients(sweep: SweepResult) -> Figure:
    """Throughput against clients."""
    kinds = list(dict.fromkeys(point.in_flight for point in sweep.points))
    figure, panels = _figure(
        len(kinds), "Sets of 100 bytes acknowledged, by number of connections", share_y=True
    )
    for axes, in_flight in zip(panels, kinds, strict=True):
        points = [point for point in sweep.points if point.in_flight == in_flight]
        places = _places(axes, [str(point.connections) for point in points])
        for number, system in enumerate(sweep.systems):
            samples = [point.figures(system, _rate) for point in points]
            _line(axes, number, system, places, samples)
        axes.set_title(f"{in_flight} in flight on each")
        axes.set_xlabel("connections")
        _log_y(axes)
    panels[0].set_ylabel("operations/s (log scale)")
    panels[0].legend(loc="upper left")
    return figure


def reads(sweep: SweepResult) -> Figure:
    """Throughput by read ratio."""
    figure, (axes,) = _figure(
        1, "12 connections, 64 in flight on each, by share of reads", share_y=False
    )
    places = _places(axes, [f"{point.reads:.0%}" for point in sweep.points])
    for number, system in enumerate(sweep.systems):
        samples = [point.figures(system, _rate) for point in sweep.points]
        _line(axes, number, system, places, samples)
    _label_points(axes, places, [point.medians(_rate) for point in sweep.points])
    axes.set_xlabel("share of local gets; the rest are sets, in turn with them on each connection")
    axes.set_ylabel("operations/s (log scale)")
    _log_y(axes)
    axes.legend(loc="upper left")
    return figure


def _label_points(axes: Axes, places: Sequence[float], points: Sequence[Sequence[float]]) -> None:
    """With their figures; the higher one's above it, the lower one's below."""
    for place, figures in zip(places, points, strict=True):
        for number, figure in enumerate(figures):
            is_higher = figure == max(figures)
            axes.annotate(
                _short(figure),
                (place, figure),
                xytext=(0, 8 if is_higher else -8),
                textcoords="offset points",
                ha="center",
                va="bottom" if is_higher else "top",
                color=COLOURS[number],
                fontsize=9,
            )
    axes.margins(x=0.05, y=0.12)


def latency(sweep: SweepResult) -> Figure:
    """Latency distributions."""
    figure, panels = _figure(
        len(sweep.points),
        "How long a set takes: 12 connections, up to 64 in flight on each",
        share_y=True,
    )
    labels = ["max" if percent == 100 else f"{percent:g}" for percent in PERCENTS]
    for axes, point in zip(panels, sweep.points, strict=True):
        places = _places(axes, labels)
        for number, system in enumerate(sweep.systems):
            runs = point.of(system)
            if runs:
                samples = [
                    [1000 * run.outcome.latencies_s[place] for run in runs]
                    for place in range(len(PERCENTS))
                ]
                rate = statistics.median(map(_rate, runs))
                _line(axes, number, f"{system}, {_short(rate)}/s", places, samples)
        axes.set_title(_latency_title(sweep, point), fontsize=10)
        axes.tick_params(axis="x", labelrotation=60)
        axes.set_xlabel("percentile of the requests")
        axes.legend(loc="lower right", fontsize=9)
        _log_y(axes)
    panels[0].set_ylabel("milliseconds (log scale)")
    return figure


def _latency_title(sweep: SweepResult, point: PointResult) -> str:
    if not point.rate:
        return "closed loop: always 768 in flight"
    if all(point.of(system) for system in sweep.systems):
        return "the same rate for both:\nhalf of what the slower one reaches"
    return "half of what it reaches itself"


def growth(tables: Mapping[str, flat.Table]) -> Figure:
    """What operations cost as the tree grows, each on axes of its own, from 0."""
    columns = min(GROWTH_COLUMNS, len(tables))
    rows = -(-len(tables) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + rows * GROWTH_HEIGHT), layout="constrained")
    figure.suptitle(
        "As the tree grows; operations/s and CPU: sets, 12 connections, 64 in flight on each",
        fontweight="bold",
    )
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (what, table) in zip(panels, tables.items(), strict=False):
        _growth(axes, what, table)
    for axes in panels[len(tables) :]:
        axes.set_axis_off()
    panels[0].legend(loc="lower left")
    return figure


def _growth(axes: Axes, what: str, table: flat.Table) -> None:
    sizes = flat.sizes_of(table)
    places = dict(zip(sizes, _places(axes, [_short(size) for size in sizes]), strict=True))
    for number, (system, samples) in enumerate(table.items()):
        measured = sorted(samples)
        xs = [places[size] for size in measured]
        _line(axes, number, system, xs, [samples[size] for size in measured])
    axes.margins(x=0.1)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.set_title(textwrap.fill(what, TITLE_WIDTH), fontsize=10)
    axes.set_xlabel("znodes in the tree")


SWEEP_PLOTS: Final[Mapping[str, Callable[[SweepResult], Figure]]] = {
    "clients": clients,
    "reads": reads,
    "latency": latency,
}


def draw_all(directory: Path) -> list[Path]:
    """The files that were written."""
    with matplotlib.rc_context(dict(STYLE)):
        return _draw_all(directory)


def _draw_all(directory: Path) -> list[Path]:
    figures = {
        name: draw(sweep)
        for name, draw in SWEEP_PLOTS.items()
        if (sweep := sweep_results.load(name)) is not None
    }
    if tables := flat.load():
        figures["growth"] = growth(tables)
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, figure in figures.items():
        file = directory / f"{name}.svg"
        figure.savefig(file, metadata={"Date": None})
        files.append(file)
    return files


def main() -> None:
    for file in draw_all(Path(sys.argv[1])):
        print(file)


if __name__ == "__main__":
    main()
