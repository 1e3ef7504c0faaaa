"""Who holds what: each history passes, and altered it does not."""

from __future__ import annotations

import pytest

from tests.unit.testing.history_builder import Case, Cases, HistoryBuilder

CASES = Cases("holds")


@CASES.add("/lock is held by c2 while c1 holds it")
def a_resource_is_held_by_one(h: HistoryBuilder, altered: bool) -> None:
    h.held(1, "c1")
    if not altered:
        h.released("c1")
    h.held(2, "c2")


@CASES.add("/lock is held by c3 while c2 holds it")
def another_s_release_ends_no_hold(h: HistoryBuilder, altered: bool) -> None:
    h.held(1, "c1")
    h.released("c1")
    h.held(2, "c2")
    h.released("c1" if altered else "c2")
    h.held(3, "c3")


@CASES.add("/lock is held with fence 5 after fence 5")
def fences_grow(h: HistoryBuilder, altered: bool) -> None:
    h.held(5, "c1")
    h.released("c1")
    h.held(5 if altered else 6, "c2")


@CASES.add("/one is held by c2 while c1 holds it")
def resources_are_held_apart(h: HistoryBuilder, altered: bool) -> None:
    h.held(7, "c1", "/one")
    h.held(3, "c2", "/two")
    h.held(8, "c2" if altered else "c1", "/one")


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_a_history_as_it_should_be_passes(case: Case) -> None:
    assert CASES.find(case, is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_what_breaks_a_rule_is_told(case: Case) -> None:
    CASES.require_caught(case)
