"""The page: what was lost is on it, and what was never measured is on it, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import flat, scale_results, sweep_results
from bench.failover_results import FailoverResult
from bench.failover_rounds import ClientGap, Round
from bench.report_summary import (
    BELOW,
    FLOOR,
    GOAL,
    NOT_MEASURED,
    SummaryRow,
    all_rows,
    of_failover,
    of_scale,
    outcome_text,
    table,
)
from bench.run import commands
from bench.scale_results import ScaleResult, ScaleRun
from bench.scale_rows import ROWS as SCALE_ROWS
from bench.side_by_side_report import write_page
from bench.side_by_side_rows import ROWS
from tests.unit.bench import builders


@pytest.fixture
def no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in ("side_by_side_results", "scale_results", "sweep_results"):
        monkeypatch.setattr(f"bench.{module}.RESULTS", tmp_path)
    monkeypatch.setattr("bench.failover_results.FAILOVER", tmp_path / "failover.json")
    return tmp_path


def scale(
    row_id: str, ours: list[float], theirs: list[float], *, of_ratio: bool = False
) -> ScaleResult:
    return ScaleResult(
        row_id=row_id,
        text="what happened",
        door="a door",
        measure="how long it took",
        unit="ms",
        floor=100.0 if not of_ratio else 1.0,
        goal=20.0 if not of_ratio else 0.5,
        of_ratio=of_ratio,
        command="the command",
        machine="2 cores; a day",
        systems={"coordsvc": "coordsvc 1", "ZooKeeper": "ZooKeeper 3"},
        runs=[ScaleRun("coordsvc", each, {"p50 ms": 1.5}) for each in ours]
        + [ScaleRun("ZooKeeper", each) for each in theirs],
        notes="What a reader must know.",
    )


# --------------------------------------------------------------------------------------- summary


def test_every_row_there_is_has_a_line_in_the_order_of_the_goals(no_results: Path) -> None:
    rows = all_rows()
    assert {row.verdict for row in rows} == {NOT_MEASURED}
    ids = [row.row_id for row in rows]
    assert sorted(ids) == sorted([row.row_id for row in (*ROWS, *SCALE_ROWS)] + ["P3"])
    assert [each for each in ids if "-" not in each][:4] == ["W1", "W2", "W3", "W4"]
    assert ids.index("W4-leader") == ids.index("W4") + 1
    assert len(table(rows)) == len(rows) + 2


@pytest.mark.parametrize(
    ("ours", "expected"), [(20.0, GOAL), (20.1, FLOOR), (100.0, FLOOR), (100.1, BELOW)]
)
def test_bounds_of_our_own_figure(ours: float, expected: str) -> None:
    """Whatever the peer does; the table says who is better."""
    row = of_scale(scale("E1", [ours], [10.0]))
    assert row.verdict == expected
    assert row.is_lost
    assert row.ratio == pytest.approx(ours / 10)


@pytest.mark.parametrize(("ours", "expected"), [(50.0, GOAL), (51.0, FLOOR), (101.0, BELOW)])
def test_bounds_of_the_ratio(ours: float, expected: str) -> None:
    assert of_scale(scale("F1", [ours], [100.0], of_ratio=True)).verdict == expected


def test_a_ratio_that_has_no_peer_is_not_measured() -> None:
    row = of_scale(scale("F1", [50.0], [], of_ratio=True))
    assert row.verdict == NOT_MEASURED
    assert not row.is_lost


def test_the_floor_of_memory_is_of_the_ratio_and_its_goal_of_bytes() -> None:
    def verdict(ours: float, theirs: float) -> str:
        result = scale("D1", [ours], [theirs], of_ratio=True)
        object.__setattr__(result, "goal", 400.0)
        return of_scale(result).verdict

    assert verdict(390.0, 500.0) == GOAL
    assert verdict(410.0, 500.0) == FLOOR
    assert verdict(390.0, 380.0) == BELOW


def test_losses_are_told_before_the_table(no_results: Path) -> None:
    scale_results.save(scale("E1", [30.0], [10.0]))
    scale_results.save(scale("P1", [10.0], [30.0]))
    text = outcome_text(all_rows())
    assert "* **lost to the peer**: E1 (3.00 times ZooKeeper's how long it took)" in text
    assert "1 reach their floor, not their goal: E1" in text
    assert "1 reach their goal: P1" in text


def test_leaders_that_were_killed_are_a_row_and_others_are_not() -> None:
    def one(system: str, fault: str, gap_s: float) -> Round:
        client = ClientGap(
            is_at_leader=True,
            gap_s=gap_s,
            later_silence_s=0.0,
            return_silence_s=0.0,
            has_moved=True,
            acked=500,
            errors={},
            sessions_lost=0,
        )
        return Round(system, fault, 1, 2, 0.0, [client])

    rounds = [
        one("coordsvc", "kill", 0.1),
        one("coordsvc", "kill", 0.3),
        one("ZooKeeper", "kill", 0.5),
    ]
    row = of_failover(FailoverResult("c", "m", "3.9", [*rounds, one("coordsvc", "pause", 9.0)]))
    assert (row.ours, row.theirs, row.verdict) == (0.3, 0.5, GOAL)
    assert "p99 of 2 gaps" in row.text


# ------------------------------------------------------------------------------------------ page


def test_a_page_without_results_says_how_to_get_them(no_results: Path) -> None:
    page = no_results / "page.md"
    write_page(page)
    text = page.read_text()
    for name in (*(row.row_id for row in SCALE_ROWS), "clients", "latency", "reads"):
        assert f"`make bench ROW={name}`" in text, name
    assert "`make failover`" in text


def test_programs_get_the_same_table(no_results: Path) -> None:
    scale_results.save(scale("E1", [30.0], [10.0]))
    page = no_results / "page.md"
    write_page(page)
    content = json.loads(page.with_suffix(".json").read_text())
    rows = {row["row_id"]: row for row in content["rows"]}
    assert list(rows) == [row.row_id for row in all_rows()]
    assert rows["E1"]["ours"] == 30.0
    assert (rows["E1"]["verdict"], rows["E1"]["is_lost"]) == (FLOOR, True)
    assert rows["W2"]["verdict"] == NOT_MEASURED
    assert content["cost_model"] is None


def test_a_row_of_scale_is_told_with_its_details_and_notes(no_results: Path) -> None:
    scale_results.save(scale("E1", [30.0, 10.0, 20.0], [5.0]))
    page = no_results / "page.md"
    write_page(page)
    text = page.read_text()
    assert "### E1: what happened (a door)" in text
    assert "| coordsvc | 20 (10 to 30) ms | 3 | 1.5 |" in text
    assert "| ZooKeeper | 5 (5 to 5) ms | 1 | - |" in text
    assert "What a reader must know." in text


def test_a_sweep_that_was_disturbed_says_so(no_results: Path) -> None:
    quiet = builders.run({1: 1.0, 2: 1.0, 3: 1.0})
    busy = builders.run({1: 1.0, 2: 1.0, 3: 1.0}, system="ZooKeeper")
    object.__setattr__(busy, "others_cores", 0.5)
    points = [builders.point([quiet]), builders.point([quiet, busy], connections=6)]
    sweep_results.save(builders.sweep("clients", points))
    page = no_results / "page.md"
    write_page(page)
    assert "At 1 of 2 points something else used over 20% of a core" in page.read_text()


def test_growth_is_read_from_the_details_by_size() -> None:
    result = scale("FLAT", [], [])
    details = {"10 znodes operations/s": 50.0, "10,000 znodes operations/s": 40.0, "least": 1.0}
    runs = [ScaleRun("coordsvc", 1.0, details), ScaleRun("coordsvc", 1.0, details)]
    object.__setattr__(result, "runs", [*runs, ScaleRun("ZooKeeper", 1.0, {"10 znodes us": 1.0})])
    assert flat.tables(result) == {
        "operations/s": {"coordsvc": {10: [50.0, 50.0], 10_000: [40.0, 40.0]}}
    }


# --------------------------------------------------------------------------------------- commands


def test_rows_and_sweeps_are_measured_by_the_program_that_knows_them() -> None:
    def modules(*only: str) -> list[str]:
        return [" ".join(each[2:5]) for each in commands(only, Path("docs/p.md"))][:-2]

    assert [each.split()[0] for each in modules()] == [
        "bench.side_by_side",
        "bench.sweep",
        "bench.scale",
    ]
    assert modules("W4-leader") == ["bench.side_by_side --rows W4-leader"]
    assert modules("W4", "S1", "reads") == [
        "bench.side_by_side --rows W4,W4-leader",
        "bench.sweep --sweeps reads",
        "bench.scale --rows S1,S1-stream",
    ]
    with pytest.raises(ValueError, match="no such row or sweep: W9"):
        modules("W9")


def test_a_summary_row_is_lost_only_to_a_peer_that_is_better(no_results: Path) -> None:
    def lost(ratio: float | None, *, less: bool) -> bool:
        row = SummaryRow(
            *("X", "", "", "", "", less, "", "", 1.0, True, 1.0, True, ""), ratio=ratio
        )
        return row.is_lost

    assert lost(0.9, less=False) and lost(1.1, less=True)
    assert not (lost(1.1, less=False) or lost(0.9, less=True) or lost(None, less=True))
