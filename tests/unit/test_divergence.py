"""The page of differences from ZooKeeper names tests that are there, and the script that compares
the two knows exactly those that it says it shows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.differential.case import Step
from tests.differential.groups import GROUPS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "divergence.md").read_text()
SCRIPT = "differential"


class Row(NamedTuple):
    name: str
    zookeeper: str
    coordsvc: str
    why: str
    test: str


def rows() -> list[Row]:
    return [row_of(line) for line in PAGE.splitlines() if line.startswith("| `")]


def row_of(line: str) -> Row:
    name, *others = (cell.strip() for cell in line.strip().strip("|").split("|"))
    return Row(name.strip("`"), *others)


def steps() -> list[Step]:
    return [step for group in GROUPS for case in group.cases for step in case.steps]


def test_there_are_differences() -> None:
    assert len(rows()) >= 30


def test_each_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(row.name for row in rows()).items() if count > 1] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_a_difference_is_told_and_tested(row: Row) -> None:
    assert row.zookeeper and row.coordsvc and row.why
    tests = re.findall("`([^`]+)`", row.test)
    assert tests
    for test in tests:
        if test != SCRIPT:
            path, _, function = test.partition("::")
            assert re.search(rf"^(async )?def {function}\(", (ROOT / path).read_text(), re.M), test


def test_the_script_and_the_page_name_the_same() -> None:
    shown = {row.name for row in rows() if f"`{SCRIPT}`" in row.test}
    assert {step.difference for step in steps() if step.difference} == shown


def test_a_named_difference_says_what_both_answer() -> None:
    """Else another difference could hide behind its name."""
    vague = [
        step.text for step in steps() if step.difference and not (step.zookeeper and step.coordsvc)
    ]
    assert vague == []


def test_the_script_asks_enough() -> None:
    assert len(steps()) >= 2_000
    for group in GROUPS:
        names = Counter(case.name for case in group.cases)
        assert [name for name, count in names.items() if count > 1] == [], group.name
