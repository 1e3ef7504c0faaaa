"""Watches where only acknowledged writes are known: each history passes, and altered it does
not."""

from __future__ import annotations

import pytest

from tests.unit.testing.history_builder import (
    S2,
    Case,
    Cases,
    HistoryBuilder,
    resumed,
    tree,
)

CASES = Cases("watches")


@CASES.add("data_changed /p/x at zxid 3 not told of", has_truth=False)
def acknowledged_writes_are_told_of(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    if not altered:
        h.event(3, "data_changed", "/p/x")
    h.get(3, "/p/x", "1", 3, version=1)


@CASES.add("data_changed /p/x at zxid 3 never happened", has_truth=False)
def acknowledged_writes_are_told_as_they_were(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/y" if altered else "/p/x", "1", 1, session=S2)
    h.event(3, "data_changed", "/p/x")


@CASES.add(
    "data_changed /p/x at zxid 4 is told of after data_changed /p/x at zxid 5", has_truth=False
)
def unknown_writes_are_told_of_in_order(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.outcome(h.invoke("set_data", session=S2, path="/p/x", data="1"), "unknown")
    h.outcome(h.invoke("set_data", session=S2, path="/p/x", data="2"), "unknown")
    for zxid in (5, 4) if altered else (4, 5):
        h.event(zxid, "data_changed", "/p/x")


@CASES.add(
    "data_changed /p/x at zxid 4 is told of after data_changed /p/x at zxid 4", has_truth=False
)
def unknown_writes_are_told_of_once(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.outcome(h.invoke("set_data", session=S2, path="/p/x", data="1"), "unknown")
    for _ in range(2 if altered else 1):
        h.event(4, "data_changed", "/p/x")


@CASES.add("data_changed /p/x at zxid 5 comes after data_changed /p/x at zxid 4", has_truth=False)
def a_one_shot_watch_tells_of_nothing_behind_an_acknowledged_write(
    h: HistoryBuilder, altered: bool
) -> None:
    tree(h)
    h.watch("data", "/p/x", 2)
    h.outcome(h.invoke("set_data", session=S2, path="/p/x", data="1"), "unknown")
    h.set(4, "/p/x", "2", 1, session=S2)
    h.event(5 if altered else 3, "data_changed", "/p/x")


@CASES.add("deleted /p at zxid 4 is told of after deleted /p at zxid 4", has_truth=False)
def unknown_multis_may_change_much_at_once(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p", 2)
    ops = [{"name": "delete", "path": "/p/x", "version": None}]
    h.outcome(h.invoke("multi", session=S2, ops=ops), "unknown")
    h.event(4, "children_changed", "/p")
    h.event(4, "children_changed", "/p")
    h.event(4, "deleted", "/p")
    if altered:
        h.event(4, "deleted", "/p")


@CASES.add("data_changed /p/x at zxid 4 not told of", has_truth=False)
def unknown_writes_stand_for_no_known_one(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.outcome(h.invoke("set_data", session=S2, path="/p/x", data="1"), "unknown")
    h.event(3, "data_changed", "/p/x")
    h.set(4, "/p/x", "2", 2, session=S2)
    if not altered:
        h.event(4, "data_changed", "/p/x")
    h.get(4, "/p/x", "2", 4, version=2)


@CASES.add("data_changed /p/x at zxid 3 never happened", has_truth=False)
def a_one_shot_watch_tells_of_writes_as_they_were(h: HistoryBuilder, altered: bool) -> None:
    """Or, resumed, of what they left."""
    tree(h)
    h.watch("data", "/p/x", 2)
    if not altered:
        resumed(h)
    h.create(3, "/p/y", session=S2)
    h.event(3, "data_changed", "/p/x")


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_a_history_as_it_should_be_passes(case: Case) -> None:
    assert CASES.find(case, is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_what_breaks_a_rule_is_told(case: Case) -> None:
    CASES.require_caught(case)
