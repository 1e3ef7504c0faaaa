"""What decides, in the script that compares ZooKeeper and coordsvc, whether two results agree."""

from __future__ import annotations

import pytest

from tests.differential.case import Group, Step
from tests.differential.compare import compare, faulty, judge
from tests.differential.masks import rank_zxids, zxid_mark
from tests.differential.run import main


def step(difference: str = "", zookeeper: str = "", coordsvc: str = "") -> Step:
    return Step("a step", lambda _: [], difference, zookeeper, coordsvc)


@pytest.mark.parametrize(
    ("asked", "theirs", "ours", "fault"),
    [
        (step(), ["x"], ["x"], ""),
        (step(), ["x"], ["y"], "a difference that has no name"),
        (step(), ["x"], [], "a difference that has no name"),
        (step(), ["x", "y"], ["y", "x"], "a difference that has no name"),
        (step("d", "x", "y"), ["x 1"], ["y 1"], ""),
        (step("d", "x", "y"), ["x"], ["x"], "d does not occur any more"),
        (step("d", "x", "y"), ["x"], ["z"], "d: coordsvc was to say 'y'"),
        (step("d", "x", "y"), ["z"], ["y"], "d: ZooKeeper was to say 'x'"),
    ],
)
def test_what_is_a_fault(asked: Step, theirs: list[str], ours: list[str], fault: str) -> None:
    assert judge(asked, theirs, ours) == fault


def test_zxids_are_compared_by_their_order() -> None:
    first, second = zxid_mark(0x100000009), zxid_mark(0x20000000A)
    assert rank_zxids([[f"{second} {first}"], [f"{first}, {zxid_mark(0)}, {zxid_mark(-1)}"]]) == [
        ["z2 z1"],
        ["z1, 0, -1"],
    ]


def test_the_verdict_counts_and_tells(capsys: pytest.CaptureFixture[str]) -> None:
    group = Group("group")
    group.case("good", step(), step("named", "x", "y"))
    group.case("bad", step())
    group.case("more than was asked for", step())
    theirs = {
        ("group", "good"): [["x"], ["x"], []],
        ("group", "bad"): [["x"], []],
        ("group", "more than was asked for"): [["x"], []],
    }
    ours = {
        ("group", "good"): [["x"], ["y"], []],
        ("group", "bad"): [["y"], []],
        ("group", "more than was asked for"): [["x"], ["A: event"]],
    }
    verdict = compare([group], ("theirs", "ours"), theirs, ours)
    assert (verdict.cases, verdict.steps, verdict.equal) == (3, 5, 2)
    assert verdict.named == {"named": 1}
    assert len(verdict.faults) == 2
    [again] = faulty([group], theirs, ours)
    assert [case.name for case in again.cases] == ["bad", "more than was asked for"]
    assert "A: event" in capsys.readouterr().out


def test_a_case_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "no case has this name"])
    assert "no case" in capsys.readouterr().err
