"""A history's form, and the command that checks files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coordsvc.testing.check_history import check, check_form, main
from coordsvc.testing.history import (
    OK,
    Applied,
    Invoke,
    Record,
    Return,
    Run,
    WatchSet,
    save,
)
from tests.unit.testing.history_builder import HistoryBuilder

RUN = Run(0.0, "simulation", 3)


def invoke(op: int = 1, repeats: int = 0, data: str = "1") -> Invoke:
    args = {"path": "/a", "data": data, "version": None}
    return Invoke(1.0, op, "c1", "set_data", args, "", 0, repeats)


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([], "it does not begin with a run"),
        ([invoke()], "it does not begin with a run"),
        ([Run(0.0, "simulation", 3, format=99)], "its format is 99"),
        ([RUN, Run(1.0, "simulation", 3)], "a second run"),
        ([RUN, invoke(), Return(0.5, 1, OK)], "time goes back from 1.0 to 0.5"),
        ([RUN, Return(1.0, 1, OK)], "operation 1 returns, and was not invoked"),
        ([RUN, invoke(), Return(1.0, 1, OK), Return(1.0, 1, OK)], "operation 1 returns twice"),
        ([RUN, invoke(), Return(1.0, 1, "done")], "'done' is no outcome"),
        ([RUN, invoke(), invoke()], "operation 1 is invoked twice"),
        ([RUN, invoke(1, repeats=7)], "it repeats operation 7, which was not invoked"),
        ([RUN, invoke(), invoke(2, repeats=1, data="2")], "it is not what operation 1 was"),
        ([RUN, Applied(1.0, 5), Applied(1.0, 5)], "zxid 5 is applied after 5"),
        (
            [RUN, *[WatchSet(1.0, "c1", "w1", "data", "/a", 1)] * 2],
            "watch w1 is set twice",
        ),
    ],
)
def test_what_is_no_history_is_told(records: list[Record], fault: str) -> None:
    (violation,) = check(records)
    assert violation.check == "history"
    assert fault in violation.text


def test_a_history_has_a_form() -> None:
    records = [RUN, invoke(), invoke(2, repeats=1), Return(1.0, 2, OK, 5), Applied(1.0, 5)]
    assert check_form([*records, Applied(1.0, 6), Return(1.0, 1, OK, 5)]) == []


def good() -> HistoryBuilder:
    h = HistoryBuilder()
    h.create(1, "/a", "0")
    h.set(2, "/a", "1", 1)
    h.get(2, "/a", "1", 2, version=1)
    return h


def unheld() -> HistoryBuilder:
    h = good()
    h.held(2, "c1")
    h.held(1, "c2")
    return h


def test_everything_is_checked_in_the_order_of_time() -> None:
    h = good()
    assert check(h.records) == []
    h.held(2, "c1")
    h.held(3, "c2")
    h.get(1, "/a", "0", 1, session="", consistency="linearizable")
    h.held(1, "c3")
    found = [violation.check for violation in check(h.records)]
    assert found == ["holds", "linearizability", "holds", "holds"]


def test_the_command_prints_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "good.jsonl", good().records)
    save(tmp_path / "unheld.jsonl", unheld().records)
    assert main([str(tmp_path / "good.jsonl")]) == 0
    assert capsys.readouterr().out.endswith("good.jsonl: 9 records, 0 violations\n")
    assert main([str(tmp_path / "good.jsonl"), str(tmp_path / "unheld.jsonl")]) == 1
    out = capsys.readouterr().out
    assert "unheld.jsonl: 11 records, 2 violations" in out
    assert "holds at 1.0000 s: /lock is held by c2 while c1 holds it" in out
    assert '    {"type":"held"' in out


def test_the_command_says_what_it_cannot_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "odd.jsonl").write_text('{"type":"odd"}\n')
    assert main([]) == 2
    assert main([str(tmp_path / "none.jsonl")]) == 2
    assert main([str(tmp_path / "odd.jsonl")]) == 2
    assert "line 1 is no record" in capsys.readouterr().err


def test_the_command_runs(tmp_path: Path) -> None:
    save(tmp_path / "unheld.jsonl", unheld().records)
    command = [sys.executable, "-m", "coordsvc.testing.check_history", "unheld.jsonl"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 1, finished.stderr
    assert "2 violations" in finished.stdout
