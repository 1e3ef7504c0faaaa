"""Watches that last, and those of one session together: each history passes, and altered it does
not."""

from __future__ import annotations

import pytest

from tests.unit.testing.history_builder import (
    S1,
    S2,
    Case,
    Cases,
    HistoryBuilder,
    changed,
    created,
    resumed,
    tree,
)

CASES = Cases("watches")


@CASES.add("created /p/x/y is not what it watches")
def a_watch_is_told_of_its_path_only(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p", 2)
    h.create(3, "/p/x/y" if altered else "/p/y", session=S2)
    if altered:
        h.event(3, "created", "/p/x/y")
    else:
        h.event(3, "children_changed", "/p")


@CASES.add("children_changed /p is not what it watches")
def a_recursive_watch_is_told_of_znodes_and_not_of_children(
    h: HistoryBuilder, altered: bool
) -> None:
    tree(h)
    h.watch("persistent_recursive", "/p", 2)
    h.create(3, "/p/y", session=S2)
    if altered:
        h.event(3, "children_changed", "/p")
    else:
        h.event(3, "created", "/p/y")


@CASES.add("is not what it watches")
def below_is_by_components(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent_recursive", "/p", 2)
    h.create(3, "/px", session=S2)
    if altered:
        h.event(3, "created", "/px")
    h.progress(3)


@CASES.add(
    "data_changed /p/x at zxid 4 is told of, and data_changed /p/x at zxid 3 before it was not"
)
def nothing_is_left_out(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.set(4, "/p/x", "2", 2, session=S2)
    if not altered:
        h.event(3, "data_changed", "/p/x")
    h.event(4, "data_changed", "/p/x")


@CASES.add("zxid 5 was reached, and data_changed /p/x at zxid 3 not told of")
def progress_is_made_when_all_is_told(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent_recursive", "/", 2, session="")
    h.set(3, "/p/x", "1", 1, session=S2)
    if not altered:
        h.event(3, "data_changed", "/p/x")
    h.progress(5)


@CASES.add("data_changed /p/x at zxid 3 is told of twice, or too late")
def nothing_is_told_twice(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.event(3, "data_changed", "/p/x")
    resumed(h)
    if altered:
        h.event(3, "data_changed", "/p/x")


@CASES.add("data_changed /p/x at zxid 4 never happened")
def nothing_is_invented(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.event(3, "data_changed", "/p/x")
    if altered:
        h.event(4, "data_changed", "/p/x")


@CASES.add("deleted /p/x at zxid 3 never happened")
def the_kind_of_a_change_is_told(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.event(3, "deleted" if altered else "data_changed", "/p/x")


@CASES.add("created /p/x at zxid 2 was before it was set")
def it_is_told_of_what_comes_after_it(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    if altered:
        h.event(2, "created", "/p/x")
    h.progress(2)


@CASES.add("is told of after its end")
def nothing_is_told_after_the_end(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    if not altered:
        h.set(3, "/p/x", "1", 1, session=S2)
        h.event(3, "data_changed", "/p/x")
    h.watch_end()
    if altered:
        h.set(3, "/p/x", "1", 1, session=S2)
        h.event(3, "data_changed", "/p/x")
    h.get(3, "/p/x", "1", 3, version=1)


@CASES.add("created /p/b at zxid 3 is told of, and created /p/a at zxid 3 before it was not")
def a_multi_is_told_in_its_order(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent_recursive", "/p", 2)
    h.multi(3, created("/p/a", "1"), created("/p/b", "2"), session=S2)
    for path in ("/p/b", "/p/a") if altered else ("/p/a", "/p/b"):
        h.event(3, "created", path)


@CASES.add("data_changed /p/a at zxid 4 is told of, and created /p/b at zxid 3 before it was not")
def a_multi_is_told_whole(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent_recursive", "/p", 2)
    h.multi(3, created("/p/a", "1"), created("/p/b", "2"), session=S2)
    h.set(4, "/p/a", "3", 1, session=S2)
    h.event(3, "created", "/p/a")
    resumed(h)
    if not altered:
        h.event(3, "created", "/p/b")
    h.event(4, "data_changed", "/p/a")


@CASES.add("children_changed /p at zxid 4 is told of, and children_changed /p at zxid 3 before")
def a_multi_is_told_as_often_as_it_changes(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p", 2)
    h.multi(3, created("/p/a", "1"), created("/p/b", "2"), session=S2)
    h.create(4, "/p/c", session=S2)
    for _ in range(1 if altered else 2):
        h.event(3, "children_changed", "/p")
    h.event(4, "children_changed", "/p")


@CASES.add(
    "data_changed /p/x at zxid 6 is told of, and data_changed /p/x at zxid 5 before it was not"
)
def a_gap_covers_what_is_up_to_it(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    for zxid in (3, 4, 5, 6):
        h.set(zxid, "/p/x", str(zxid), zxid - 2, session=S2)
    h.event(3, "data_changed", "/p/x")
    h.gap(4 if altered else 5)
    h.event(6, "data_changed", "/p/x")


@CASES.add("zxid 4 was reached, and data_changed /p/x at zxid 3 not told of")
def what_a_gap_may_cover_may_come_yet(h: HistoryBuilder, altered: bool) -> None:
    """After a gap the stream may break, and the next replica know it all."""
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.set(4, "/p/x", "2", 2, session=S2)
    if not altered:
        h.gap(4)
    resumed(h)
    if not altered:
        h.event(3, "data_changed", "/p/x")
        h.event(4, "data_changed", "/p/x")
    h.get(4, "/p/x", "2", 4, version=2)


@CASES.add("data_changed /p/x at zxid 3 never happened")
def nothing_is_invented_in_between(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.create(3, "/p/y", session=S2)
    h.set(4, "/p/x", "1", 1, session=S2)
    if altered:
        h.event(3, "data_changed", "/p/x")
    h.event(4, "data_changed", "/p/x")


@CASES.add("data_changed /p/x at zxid 3 is told of twice, or too late")
def a_multi_may_write_a_znode_twice(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.multi(3, changed("/p/x", "1"), changed("/p/x", "2"), session=S2)
    for _ in range(3 if altered else 2):
        h.event(3, "data_changed", "/p/x")


@CASES.add("zxid 4 was reached, and data_changed /p/x at zxid 4 not told of")
def what_a_gap_covers_may_be_missing(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.set(4, "/p/x", "2", 2, session=S2)
    h.gap(3 if altered else 4)
    h.get(4, "/p/x", "2", 4, version=2)


@CASES.add("zxid 3 was reached, and data_changed /p/x at zxid 3 not told of")
def progress_says_nothing_of_what_comes_later(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    for number, kind in enumerate(("persistent", "data")):
        h.watch(kind, "/p/x", 2, watch=f"w{number}", session="")
        h.progress(2, f"w{number}")
    h.set(3, "/p/x", "1", 1, session=S2)
    for number in range(2):
        h.progress(3 if altered else 2, f"w{number}")


# ------------------------------------------------------------------------------- within a session


@CASES.add("zxid 3 was reached, and data_changed /p/x at zxid 3 not told of")
def events_come_before_what_shows_them(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    if not altered:
        h.event(3, "data_changed", "/p/x")
    h.get(3, "/p/x", "1", 3, version=1)
    if altered:
        h.event(3, "data_changed", "/p/x")


@CASES.add("zxid 4 was reached, and data_changed /p/x at zxid 4 not told of")
def and_so_does_each_one_after_it(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    for zxid in (3, 4):
        h.set(zxid, "/p/x", str(zxid), zxid - 2, session=S2)
        if zxid == 3 or not altered:
            h.event(zxid, "data_changed", "/p/x")
    h.get(4, "/p/x", "4", 4, version=2)


@CASES.add("zxid 3 was reached, and data_changed /p/x at zxid 3 not told of")
def a_write_s_own_event_comes_before_its_answer(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data", "/p/x", 2)
    write = h.invoke("set_data", path="/p/x", data="1")
    h.applied(3, changed("/p/x", "1"))
    if not altered:
        h.event(3, "data_changed", "/p/x")
    h.answer(write, 3, version=1)
    if altered:
        h.event(3, "data_changed", "/p/x")


@CASES.add("zxid 3 was reached, and data_changed /p/x at zxid 3 not told of")
def other_sessions_have_their_own_time(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("data", "/p/x", 2, session=S1)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.get(3, "/p/x", "1", 3, version=1, session=S1 if altered else S2)


@CASES.add("zxid 3 is told after 4")
def watches_of_a_session_are_told_in_one_order(h: HistoryBuilder, altered: bool) -> None:
    """Those outside of sessions each in their own."""
    tree(h)
    h.watch("persistent", "/p", 2, watch="w1")
    h.watch("persistent", "/p/x", 2, watch="w2")
    h.watch("persistent", "/p", 2, watch="w3", session="")
    h.watch("persistent", "/p/x", 2, watch="w4", session="")
    h.set(3, "/p/x", "1", 1, session=S2)
    h.create(4, "/p/y", session=S2)
    if altered:
        h.event(4, "children_changed", "/p", "w1")
        h.event(3, "data_changed", "/p/x", "w2")
    else:
        h.event(3, "data_changed", "/p/x", "w2")
        h.event(4, "children_changed", "/p", "w1")
    h.event(4, "children_changed", "/p", "w3")
    h.event(3, "data_changed", "/p/x", "w4")


@CASES.add("w9 is no watch that was set")
def events_are_of_watches(h: HistoryBuilder, altered: bool) -> None:
    tree(h)
    h.watch("persistent", "/p/x", 2)
    h.set(3, "/p/x", "1", 1, session=S2)
    h.event(3, "data_changed", "/p/x", "w9" if altered else "w1")


def test_only_the_first_fault_of_a_watch_is_told() -> None:
    def build(h: HistoryBuilder, altered: bool) -> None:
        tree(h)
        h.watch("persistent", "/p/x", 2, session="")
        for zxid in (3, 4, 5):
            h.set(zxid, "/p/x", str(zxid), zxid - 2, session=S2)
        h.event(5, "data_changed", "/p/x")
        h.event(4, "data_changed", "/p/x")
        h.event(4, "data_changed", "/p/x")
        h.progress(5)

    (violation,) = CASES.find(Case("", build, "", True), is_altered=True)
    assert "w1 (persistent on /p/x after 2)" in violation.text


def test_records_of_two_watches_may_be_a_moment_out_of_order() -> None:
    """Each is read by a task of its own."""

    def build(h: HistoryBuilder, altered: bool) -> None:
        tree(h)
        h.watch("persistent", "/p", 2, watch="w1")
        h.watch("persistent", "/p/x", 2, watch="w2")
        h.set(3, "/p/x", "1", 1, session=S2)
        h.create(4, "/p/y", session=S2)
        h.event(4, "children_changed", "/p", "w1")
        h.wait(-0.0999)
        h.event(3, "data_changed", "/p/x", "w2")

    assert CASES.find(Case("", build, "", True), is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_a_history_as_it_should_be_passes(case: Case) -> None:
    assert CASES.find(case, is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_what_breaks_a_rule_is_told(case: Case) -> None:
    CASES.require_caught(case)
