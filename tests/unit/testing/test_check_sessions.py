"""The order of a session, by the zxids of its answers: each history passes, and altered it does
not."""

from __future__ import annotations

import pytest

from coordsvc.testing.check_history import check_rules
from tests.unit.testing.history_builder import S2, Case, Cases, HistoryBuilder, changed

CASES = Cases("session order")


@CASES.add("was applied before operation 2 (set_data) at zxid 12, invoked earlier")
def writes_of_a_session_take_growing_zxids(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    first = h.invoke("set_data", path="/a", data="1")
    second = h.invoke("set_data", path="/a", data="2")
    early, late = (second, first) if altered else (first, second)
    h.applied(11, changed("/a", "2" if altered else "1"))
    h.applied(12, changed("/a", "1" if altered else "2"))
    h.answer(early, 11, version=1)
    h.answer(late, 12, version=2)


@CASES.add("was evaluated before operation 2 (get_data) at zxid 3, invoked earlier")
def reads_of_a_session_do_not_go_back(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    first = h.invoke("get_data", path="/a")
    second = h.invoke("get_data", path="/a")
    h.answer(first, 3, data="0", version=0, mzxid=1)
    h.answer(second, 2 if altered else 3, data="0", version=0, mzxid=1)


@CASES.add("the session had seen zxid 3 before it was invoked")
def an_answer_is_not_of_a_state_left_behind(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.get(3, "/a", "0", 1)
    h.get(2 if altered else 3, "/a", "0", 1)


@CASES.add("the session had seen zxid 3 before it was invoked")
def a_reconnection_excuses_nothing_that_was_answered_before(
    h: HistoryBuilder, altered: bool
) -> None:
    h.create(1, "/a", "0")
    h.get(3, "/a", "0", 1)
    h.session("suspended")
    h.session("connected")
    h.get(2 if altered else 3, "/a", "0", 1)


@CASES.add("the session had seen zxid 2 before it was invoked")
def a_session_reads_its_own_write(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.set(2, "/a", "1", 1)
    if altered:
        h.get(1, "/a", "0", 1)
    else:
        h.get(2, "/a", "1", 2, version=1)


@CASES.add("was evaluated before operation 2 (get_data) at zxid 5, invoked earlier")
def a_read_sees_no_write_that_was_invoked_after_it(h: HistoryBuilder, altered: bool) -> None:
    """But for one that was asked again at another replica."""
    h.create(1, "/a", "0")
    read = h.invoke("get_data", path="/a")
    write = h.invoke("set_data", path="/a", data="1")
    h.applied(5, changed("/a", "1"))
    if not altered:
        h.session("suspended")
        h.session("connected")
    h.answer(read, 5, data="1", version=1, mzxid=5)
    h.answer(write, 5, version=1)


@CASES.add("was evaluated before operation 2 (get_data) at zxid 6, invoked earlier")
def a_read_that_was_asked_again_has_its_place_again(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    again = h.invoke("get_data", path="/a")
    write = h.invoke("set_data", path="/a", data="1")
    h.applied(4, changed("/a", "1"))
    h.session("suspended")
    h.session("connected")
    last = h.invoke("get_data", path="/a")
    h.answer(write, 4, version=1)
    h.answer(again, 6, data="1", version=1, mzxid=4)
    h.answer(last, 5 if altered else 6, data="1", version=1, mzxid=4)


@CASES.add("was applied before operation 2 (set_data) at zxid 4, invoked earlier")
def writes_keep_their_order_around_such_a_read(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    ops = [
        h.invoke("set_data", path="/a", data="1"),
        h.invoke("get_data", path="/a"),
        h.invoke("set_data", path="/a", data="2"),
    ]
    written = ["2", "1"] if altered else ["1", "2"]
    for zxid, data in zip((3, 4), written, strict=True):
        h.applied(zxid, changed("/a", data))
    h.session("suspended")
    h.session("connected")
    h.answer(ops[0], 4 if altered else 3, version=2 if altered else 1)
    h.answer(ops[1], 4, data=written[1], version=2, mzxid=4)
    h.answer(ops[2], 3 if altered else 4, version=1 if altered else 2)


@CASES.add("the session had seen zxid 3 before it was invoked")
def a_refusal_is_of_a_state_too(h: HistoryBuilder, altered: bool) -> None:
    """Which need not be one of its own, as that of a write that was done."""
    h.create(1, "/a", "0")
    h.get(3, "/a", "0", 1)
    h.error(h.invoke("create", path="/a", data="1"), "BAD_ARGUMENTS", 2 if altered else 3)


def test_sessions_have_orders_of_their_own() -> None:
    h = HistoryBuilder()
    h.create(1, "/a", "0")
    h.get(3, "/a", "0", 1)
    h.get(2, "/a", "0", 1, session=S2)
    h.get(2, "/a", "0", 1, session="")
    h.get(1, "/a", "0", 1, session="")
    assert check_rules(h.records) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_a_history_as_it_should_be_passes(case: Case) -> None:
    assert CASES.find(case, is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_what_breaks_a_rule_is_told(case: Case) -> None:
    CASES.require_caught(case)
