"""Repetitions, and what else answers alone say of writes: each history passes, and altered it does
not."""

from __future__ import annotations

import pytest

from coordsvc.testing.history import OK, REFUSED, UNKNOWN, Return
from tests.unit.testing.history_builder import S2, Case, Cases, HistoryBuilder, changed

CASES = Cases("retries")


def numbered(h: HistoryBuilder, number: int, data: str, *, repeats: int = 0) -> int:
    return h.invoke("set_data", number=number, repeats=repeats, path="/a", data=data)


@CASES.add("was done at zxid 2, and again at 3", has_truth=False)
def a_repetition_is_answered_at_the_same_zxid(h: HistoryBuilder, altered: bool) -> None:
    first = numbered(h, 1, "1")
    h.answer(first, 2, version=1)
    again = numbered(h, 1, "1", repeats=first)
    h.answer(again, 3 if altered else 2, version=1)


@CASES.add("was answered ok {'version': 1} and then ok {'version': 2}", has_truth=False)
def a_repetition_has_the_same_result(h: HistoryBuilder, altered: bool) -> None:
    first = numbered(h, 1, "1")
    h.answer(first, 2, version=1)
    again = numbered(h, 1, "1", repeats=first)
    h.answer(again, 2, version=2 if altered else 1)


@CASES.add("was answered NO_NODE {} and then ok", has_truth=False)
def a_refusal_is_kept(h: HistoryBuilder, altered: bool) -> None:
    first = numbered(h, 1, "1")
    h.error(first, "NO_NODE", 2)
    again = numbered(h, 1, "1", repeats=first)
    if altered:
        h.answer(again, 3, version=1)
    else:
        h.error(again, "NO_NODE", 2)


@CASES.add("was done at zxid 2, and again at 4", has_truth=False)
def an_attempt_without_an_answer_may_be_the_one(h: HistoryBuilder, altered: bool) -> None:
    first = numbered(h, 1, "1")
    h.outcome(first, UNKNOWN)
    second = numbered(h, 1, "1", repeats=first)
    h.answer(second, 2, version=1)
    third = numbered(h, 1, "1", repeats=second)
    h.error(third, "SESSION_MOVED", 3)
    last = numbered(h, 1, "1", repeats=first)
    h.answer(last, 4 if altered else 2, version=1)


@CASES.add("number 2 was done at zxid 2, number 1 at 3", has_truth=False)
def numbers_are_done_in_their_order(h: HistoryBuilder, altered: bool) -> None:
    first = numbered(h, 1, "1")
    h.outcome(first, UNKNOWN)
    second = numbered(h, 2, "2")
    h.answer(second, 2 if altered else 4, version=2)
    again = numbered(h, 1, "1", repeats=first)
    h.answer(again, 3, version=1)


@CASES.add("were both done at zxid 2", has_truth=False)
def a_zxid_is_of_one_write(h: HistoryBuilder, altered: bool) -> None:
    h.done(2, "set_data", path="/a", data="1", result={"version": 1})
    zxid = 2 if altered else 3
    h.done(zxid, "set_data", session=S2, path="/a", data="2", result={"version": 2})


@CASES.add("/q/n-0000000001 was given twice", has_truth=False)
def a_sequential_name_is_given_once(h: HistoryBuilder, altered: bool) -> None:
    mode = "persistent_sequential"
    first = {"path": "/q/n-0000000001"}
    h.done(2, "create", path="/q/n-", data="1", mode=mode, result=first)
    ops = [{"name": "create", "path": "/q/n-", "data": "2", "mode": mode}]
    second = first if altered else {"path": "/q/n-0000000002"}
    h.done(3, "multi", session=S2, ops=ops, result={"results": [second]})


def test_attempts_without_a_number_are_writes_of_their_own() -> None:
    def build(h: HistoryBuilder, altered: bool) -> None:
        h.create(1, "/a", "0")
        for zxid in (2, 3):
            op = h.invoke("set_data", path="/a", data=str(zxid))
            h.applied(zxid, changed("/a", str(zxid)))
            h.add(Return(h.time, op, OK, zxid, result={"version": zxid - 1}))
        h.outcome(h.invoke("set_data", path="/a", data="4"), REFUSED)

    assert CASES.find(Case("", build, "", True), is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_a_history_as_it_should_be_passes(case: Case) -> None:
    assert CASES.find(case, is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_what_breaks_a_rule_is_told(case: Case) -> None:
    CASES.require_caught(case)
