"""Plots show the medians, and the same results give the same files."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import scale_results, sweep_results
from bench.scale_results import ScaleResult, ScaleRun
from tests.unit.bench import builders
from tests.unit.bench.builders import point, run, sweep

pytest.importorskip("matplotlib", reason="only `make bench` installs it")
from bench import plots

US = dict.fromkeys(builders.SERVERS, 1.0)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (sweep_results, scale_results):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


def both(ours: list[float], theirs: list[float]) -> list[builders.Run]:
    return [run(US, rate=each) for each in ours] + [
        run(US, rate=each, system="ZooKeeper") for each in theirs
    ]


def save_all() -> None:
    points = [point(both([100.0, 300.0, 200.0], [50.0]), in_flight=each) for each in (1, 64)]
    sweep_results.save(sweep("clients", points))
    sweep_results.save(sweep("reads", [point(both([10.0], [20.0]), reads=each) for each in (0, 1)]))
    own = point([run(US, rate=5.0)], rate=5.0)
    paced = point(both([2.0], [2.0]), rate=2.0)
    sweep_results.save(sweep("latency", [point(both([10.0], [4.0])), paced, own]))
    details = {f"{size:,} znodes {what}": 5.0 for size in (10, 1_000_000) for what in "abcd"}
    scale_results.save(
        ScaleResult(
            *("FLAT", "", "", "", "x", 1.0, 1.0, False, "", "2 cores", {}),
            [ScaleRun("coordsvc", 1.0, details)],
        )
    )


def test_all_are_drawn_and_the_same_results_give_the_same_files(results: Path) -> None:
    save_all()
    files = plots.draw_all(results / "plots")
    assert [file.name for file in files] == [
        "clients.svg",
        "reads.svg",
        "latency.svg",
        "growth.svg",
    ]
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in plots.draw_all(results / "plots")] == before


def test_nothing_is_drawn_of_what_was_not_measured(results: Path) -> None:
    assert plots.draw_all(results / "plots") == []


def test_points_are_medians_with_bars_from_the_least_to_the_most() -> None:
    figure = plots.clients(sweep("clients", [point(both([100.0, 300.0, 250.0], [50.0]))]))
    [axes] = figure.axes
    ours, theirs = axes.containers
    assert (ours.get_label(), theirs.get_label()) == ("coordsvc", "ZooKeeper")
    assert list(ours.lines[0].get_ydata()) == [250.0]
    [bar] = ours.lines[2][0].get_segments()
    assert [value for _, value in bar] == [100.0, 300.0]
