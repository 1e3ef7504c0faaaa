"""Watches that tell once: each history passes, and altered it does not."""

from __future__ import annotations

import pytest

from tests.unit.testing.history_builder import (
    S1,
    S2,
    Case,
    Cases,
    HistoryBuilder,
    created,
    deleted,
    resumed,
    tree,
)

CASES = Cases("watches")


@CASES.add("deleted /q at zxid 2 was before it was set")
def what_was_gone_when_it_was_set_is_told_with_that_zxid(h: HistoryBuilder, altered: bool) -> None:
    """A read that leaves a watch in a session would have been refused."""
    tree(h)
    h.watch("data", "/q", 2, session=S1 if altered else "")
    h.event(2, "deleted", "/q")


@CASES.add("was before it was set")
def only_a_deletion_is_told_with_that_zxid(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data", "/p/x", 2, session="")
    h.set(3, "/p/x", "1", 1, session=S2)
    h.event(2 if altered else 3, "data_changed", "/p/x")


@CASES.add("deleted /q at zxid 1 was before it was set")
def what_was_gone_long_before_is_told_with_that_zxid(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data", "/q", 2, session="")
    h.event(1 if altered else 2, "deleted", "/q")


@CASES.add("data_changed /p/x at zxid 5 never happened")
def behind_a_gap_a_one_shot_watch_may_go_on(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.set(4, "/p/x", "2", 2, session=S2)
    h.gap(3)
    h.event(5 if altered else 4, "data_changed", "/p/x")


@CASES.add("is told of after its end")
def a_used_up_watch_has_nothing_to_tell(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data", "/p/x", 2, session="")
    h.progress(2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.event(3, "data_changed", "/p/x")
    h.progress(3)
    if altered:
        h.event(3, "data_changed", "/p/x")


@CASES.add("data_changed /p/x at zxid 4 is told of; data_changed /p/x at zxid 3 came first")
def a_one_shot_watch_tells_of_the_first_change(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.set(4, "/p/x", "2", 2, session=S2)
    h.event(4 if altered else 3, "data_changed", "/p/x")


@CASES.add("is told of after its end")
def a_one_shot_watch_tells_once(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("exist", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.set(4, "/p/x", "2", 2, session=S2)
    h.event(3, "data_changed", "/p/x")
    if altered:
        h.event(4, "data_changed", "/p/x")


@CASES.add("children_changed /p is not what it watches")
def a_data_watch_is_not_told_of_children(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data" if altered else "children", "/p", 2)
    h.create(3, "/p/y", session=S2)
    h.event(3, "children_changed", "/p")


@CASES.add("data_changed /p/x at zxid 3 never happened")
def a_one_shot_watch_invents_nothing(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data", "/p/x", 2)
    if not altered:
        h.set(3, "/p/x", "1", 1, session=S2)
    h.event(3, "data_changed", "/p/x")


@CASES.add("zxid 3 was reached, and children_changed /p at zxid 3 not told of")
def a_one_shot_watch_forgets_nothing(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("children", "/p", 2)
    resumed(h)
    h.delete(3, "/p/x", session=S2)
    if not altered:
        h.event(3, "children_changed", "/p")
    h.done(3, "get_children", path="/p", result={"names": []})


@CASES.add("data_changed /p/x at zxid 4 never happened")
def a_znode_made_again_has_changed(h: HistoryBuilder, altered: bool) -> None:
    """For a watch that was set again; the same for one that stayed is a change that was not."""
    tree(h)
    h.watch("data", "/p/x", 2)
    h.delete(3, "/p/x", session=S2)
    h.create(4, "/p/x", "1", session=S2)
    if not altered:
        resumed(h)
    h.event(4, "data_changed", "/p/x")


@CASES.add("created /p/x at zxid 4 is told of; deleted /p/x at zxid 3 came first")
def a_znode_made_again_was_created(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("exist", "/p/x", 2)
    h.delete(3, "/p/x", session=S2)
    h.create(4, "/p/x", "1", session=S2)
    if not altered:
        resumed(h)
    h.event(4, "created", "/p/x")


@CASES.add("children_changed /p/x at zxid 4 never happened")
def a_znode_made_again_has_other_children(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("children", "/p/x", 2)
    h.delete(3, "/p/x", session=S2)
    h.create(4, "/p/x", "1", session=S2)
    if not altered:
        resumed(h)
    h.event(4, "children_changed", "/p/x")


@CASES.add("deleted /p/x at zxid 5 never happened")
def what_is_gone_may_be_told_by_a_later_zxid(h: HistoryBuilder, altered: bool) -> None:
    """Of a replica that no longer knows when; but not while the znode is there."""
    tree(h)
    h.watch("data", "/p/x", 2)
    resumed(h)
    h.delete(3, "/p/x", session=S2)
    if altered:
        h.create(4, "/p/x", session=S2)
    h.create(5, "/p/y", session=S2)
    h.event(5, "deleted", "/p/x")


@CASES.add("data_changed /p/x at zxid 5 never happened")
def what_is_missed_is_told_as_the_latest_change(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data", "/p/x", 2)
    resumed(h)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.set(4, "/p/x", "2", 2, session=S2)
    h.event(5 if altered else 4, "data_changed", "/p/x")


@CASES.add("zxid 3 was reached, and data_changed /p/x at zxid 3 not told of")
def a_gap_is_an_answer_to_a_one_shot_watch(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("exist", "/p/x", 2)
    resumed(h)
    h.set(3, "/p/x", "1", 1, session=S2)
    if not altered:
        h.gap(3)
    h.get(3, "/p/x", "1", 3, version=1)


@CASES.add("zxid 4 was reached, and deleted /p/x at zxid 3 not told of")
def a_repeated_answer_shows_nothing_new(h: HistoryBuilder, altered: bool) -> None:
    """The answer to a write may be older than what a watch that resumes is told."""
    tree(h)
    h.watch("data", "/p/x", 2)
    write = h.invoke("create", path="/p/y", data="1")
    h.applied(3, deleted("/p/x"))
    h.applied(4, created("/p/y", "1"))
    h.applied(5, created("/p/x", "2"))
    if not altered:
        resumed(h)
    h.answer(write, 4, path="/p/y")
    if not altered:
        h.event(5, "data_changed", "/p/x")


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_a_history_as_it_should_be_passes(case: Case) -> None:
    assert CASES.find(case, is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_what_breaks_a_rule_is_told(case: Case) -> None:
    CASES.require_caught(case)
