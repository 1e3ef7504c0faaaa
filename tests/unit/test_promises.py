"""The page of promises names tests, checkers and mutants that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text()
MUTANTS = set(
    re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs" / "mutants.md").read_text(), re.M)
)
FILES = {
    path.name for folder in ("tests", "coordsvc/testing") for path in (ROOT / folder).rglob("*")
}


def rows() -> list[tuple[str, str, str]]:
    table = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| **")]
    return [(cells[0], cells[1], cells[2]) for cells in table]


def test_there_are_promises() -> None:
    assert len(rows()) >= 12
    assert len(MUTANTS) >= 25


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0].strip(" *")[:40])
def test_a_promise_is_held_by_what_is_there(row: tuple[str, str, str]) -> None:
    promise, tests, sabotages = row
    named = set(re.findall(r"`([a-z0-9-]+-[a-z0-9-]+)`", sabotages))
    assert named or "It comes back" in promise
    assert not named - MUTANTS
    for path in re.findall(r"`(tests/[\w/.]+|[\w]+\.py)`", tests):
        assert (ROOT / path).exists() or Path(path).name in FILES, path
