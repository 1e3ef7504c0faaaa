"""The mutants fit the source as it is now, and the docs list them; `make mutants` runs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.mutants import definition
from tests.mutants.definition import SIMULATION, Found, Mutant
from tests.mutants.verdict import (
    CAUGHT,
    OTHER_REASON,
    SURVIVED,
    TOO_LONG,
    Run,
    judge,
    said_by_pytest,
)

SOURCE = "x = 1\ny = 2\nz = 1\n"
MUTANT = Mutant("m", "It is kept.", "source.py", "y = 2\n", "y = 3\n", "test_it.py::test_y", "3")


def test_each_fits_the_source_once_and_its_catcher_is_there() -> None:
    mutants = definition.load()
    assert len(mutants) >= 25
    assert definition.faults(mutants) == []


def test_at_least_twelve_are_for_the_simulation() -> None:
    assert sum(mutant.is_for_simulation for mutant in definition.load()) >= 12


def test_the_docs_are_what_is_defined() -> None:
    path = definition.ROOT / definition.DOCS_FILE
    assert path.read_text() == definition.render_docs(), (
        "run `.venv/bin/python scripts/mutants.py --docs`"
    )


def test_what_was_found_is_defined() -> None:
    known = {mutant.id for mutant in definition.load() if mutant.is_for_simulation}
    assert definition.load_found().keys() <= known


# ------------------------------------------------------------------------------- the definitions


def test_one_that_fits_is_applied() -> None:
    assert MUTANT.apply(SOURCE) == "x = 1\ny = 3\nz = 1\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"old": "y = 4"}, "no longer fits: source.py has its text 0 times"),
        ({"old": "= 1"}, "no longer fits: source.py has its text 2 times"),
        ({"new": "y = 2  # two"}, "changes nothing"),
        ({"new": "y ="}, "makes no valid source"),
    ],
)
def test_one_that_does_not_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(MUTANT, **change).apply(SOURCE)


def with_catcher(**changes: Any) -> Callable[[], list[Mutant]]:
    return lambda: [replace(MUTANT, **changes)]


@pytest.mark.parametrize(
    ("mutants", "fault"),
    [
        (with_catcher(expect=""), "m does not say how its catcher fails"),
        (with_catcher(catcher="test_it.py::test_x"), "test_it.py::test_x, which is not there"),
        (with_catcher(catcher="other.py::test_y"), "other.py::test_y, which is not there"),
        (with_catcher(file="other.py"), "No such file"),
        (lambda: [MUTANT, MUTANT], "m is defined twice"),
    ],
)
def test_faults_are_found(tmp_path: Path, mutants: Callable[[], list[Mutant]], fault: str) -> None:
    (tmp_path / "source.py").write_text(SOURCE)
    (tmp_path / "test_it.py").write_text("def test_y(): ...\n")
    assert definition.faults([MUTANT], tmp_path) == []
    (found,) = definition.faults(mutants(), tmp_path)
    assert fault in found


# ------------------------------------------------------------------------------- the verdicts

FAILED_TEST = """\
tests/unit/test_it.py:3: in test_y
    assert y == 2
           ^^^^^^
E   assert 3 == 2
"""
CRASHED_TEST = FAILED_TEST.replace("assert 3 == 2", "KeyError: 3")


def test_what_a_test_says_is_why_it_failed_and_which_assertion() -> None:
    assert said_by_pytest(FAILED_TEST) == "assert y == 2\nassert 3 == 2"
    assert said_by_pytest(CRASHED_TEST) == "KeyError: 3"


@pytest.mark.parametrize(
    ("status", "output", "verdict"),
    [
        (1, FAILED_TEST, CAUGHT),
        (0, "1 passed", SURVIVED),
        (1, FAILED_TEST.replace("3", "4"), OTHER_REASON),
        (1, CRASHED_TEST, OTHER_REASON),
        (2, FAILED_TEST, OTHER_REASON),  # not even collected
        (None, FAILED_TEST, TOO_LONG),
    ],
)
def test_a_test_must_fail_for_the_reason_expected(
    status: int | None, output: str, verdict: str
) -> None:
    mutant = replace(MUTANT, expect="assert 3 == 2")
    ended = Run(status, said_by_pytest(output), output, 1.0)
    assert judge(mutant, mutant.catcher, ended).verdict == verdict


LOST = "seed 7: writes at 3.1416 s: /a is gone\n  to see it again: make sim SEED=7\n"
SUMMARY = "7 seeds, 161 s simulated in 42 s; 1 with a violation\n"
BUG = "seed 7: no bug at 1.0000 s: replica 1 ended: KeyError(3)\n"


@pytest.mark.parametrize(
    ("violation", "status", "output", "verdict", "found"),
    [
        ("", 1, LOST + SUMMARY, CAUGHT, Found(7, "writes")),
        ("is gone", 1, LOST + SUMMARY, CAUGHT, Found(7, "writes")),
        ("is there twice", 1, LOST + SUMMARY, OTHER_REASON, None),
        ("", 1, BUG + LOST + SUMMARY, CAUGHT, Found(7, "writes")),
        ("", 1, BUG + SUMMARY, OTHER_REASON, None),
        ("KeyError", 1, BUG + SUMMARY, CAUGHT, Found(7, "no bug")),
        ("", 1, LOST.replace("writes", "liveness") + SUMMARY, OTHER_REASON, None),
        ("", 0, SUMMARY, SURVIVED, None),
        ("", 1, "Traceback (most recent call last):\nKeyError: 3\n", OTHER_REASON, None),
        ("", None, LOST, TOO_LONG, None),
    ],
)
def test_the_simulation_must_find_a_violation(
    violation: str, status: int | None, output: str, verdict: str, found: Found | None
) -> None:
    mutant = replace(MUTANT, simulation=True, violation=violation)
    outcome = judge(mutant, SIMULATION, Run(status, "", output, 1.0))
    assert (outcome.verdict, outcome.found) == (verdict, found)


def test_what_was_found_is_read_back(tmp_path: Path) -> None:
    (tmp_path / definition.FOLDER).mkdir(parents=True)
    found = {"b-c": Found(7, "session order"), "a": Found(50, "writes")}
    assert definition.load_found(tmp_path) == {}
    definition.save_found(found, tmp_path)
    assert definition.load_found(tmp_path) == found
