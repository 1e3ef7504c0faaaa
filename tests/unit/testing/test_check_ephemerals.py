"""Sessions and their ephemerals: each history passes, and altered it does not."""

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
    deleted,
)

CASES = Cases("ephemerals")


def ephemeral(h: HistoryBuilder) -> None:
    """A session with one, up to zxid 2, at about 0.5 s."""
    h.open(1, timeout=4.0)
    h.create(2, "/e", mode="ephemeral")


def expiry(h: HistoryBuilder, zxid: int = 9) -> None:
    h.applied(zxid, deleted("/e"), closed=(S1,), expired=True)


@CASES.add("/e is deleted; session 0000000000000001 lives, and nobody asked for it")
def an_ephemeral_stays_while_its_session_does(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.wait(5.0)
    h.applied(9, deleted("/e"), closed=() if altered else (S1,), expired=True)


@CASES.add("/e is deleted; session 0000000000000001 lives, and nobody asked for it")
def any_client_may_delete_it(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.create(3, "/a", "0")
    h.applied(4, deleted("/a"))
    if altered:
        h.applied(5, deleted("/e"))
    else:
        h.delete(5, "/e", session=S2)


@CASES.add("/e is deleted; session 0000000000000001 lives, and nobody asked for it")
def a_delete_perhaps_done_explains_it(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    op = h.invoke("delete", session=S2, path="/e")
    h.outcome(op, "refused" if altered else "unknown")
    h.applied(3, deleted("/e"))


@CASES.add("/e is deleted; session 0000000000000001 lives, and nobody asked for it")
def a_delete_explains_what_comes_after_it(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    if altered:
        h.applied(3, deleted("/e"))
    op = h.invoke("multi", session=S2, ops=[{"name": "delete", "path": "/e", "version": None}])
    if not altered:
        h.applied(3, deleted("/e"))
    h.outcome(op, "unknown")


@CASES.add("session 0000000000000001 ends, and leaves /f behind")
def all_go_with_the_session(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.create(3, "/f", mode="ephemeral")
    h.wait(5.0)
    gone = [deleted("/e")] if altered else [deleted("/e"), deleted("/f")]
    h.applied(9, *gone, closed=(S1,), expired=True)


@CASES.add("/g is made for session 0000000000000001, which has ended")
def none_is_made_for_a_session_that_has_ended(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.outcome(h.invoke("create", path="/g", mode="ephemeral", data="1"), "unknown")
    if not altered:
        h.applied(8, created("/g", "1", S1))
    h.wait(5.0)
    gone = [deleted("/e")] if altered else [deleted("/e"), deleted("/g")]
    h.applied(9, *gone, closed=(S1,), expired=True)
    if altered:
        h.applied(10, created("/g", "1", S1))


@CASES.add("expires 3.900 s after it was alive; its timeout is 4.000 s")
def a_session_does_not_expire_early(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.set(3, "/e", "1", 1)
    h.wait(3.6 if altered else 3.7)
    expiry(h)


@CASES.add("expires 2.900 s after it was alive; its timeout is 4.000 s")
def a_session_has_a_timeout_from_its_opening(h: HistoryBuilder, altered: bool) -> None:
    h.open(1, timeout=4.0)
    h.wait(2.7 if altered else 4.0)
    h.applied(9, closed=(S1,), expired=True)


@CASES.add("expires 3.000 s after it was alive; its timeout is 4.000 s")
def a_session_has_a_timeout_from_its_attachment(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.wait(3.0)
    h.session("suspended")
    h.session("connected")
    h.wait(2.8 if altered else 4.0)
    expiry(h)


@CASES.add("expires 3.900 s after it was alive; its timeout is 4.000 s")
def an_answered_read_is_no_sign_of_life(h: HistoryBuilder, altered: bool) -> None:
    """A replica that is cut off may have given it."""
    ephemeral(h)
    h.wait(2.0)
    h.set(3, "/e", "1", 1) if altered else h.get(2, "/e", None, 2)
    h.wait(3.6)
    expiry(h)


@CASES.add("is still there 9.0 s after its client gave up")
def a_session_that_was_given_up_goes(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.create(3, "/a", session=S2)
    h.session("suspended")
    h.session("lost")
    for zxid in range(4, 16):
        if zxid == 10 and not altered:
            h.applied(100, deleted("/e"), closed=(S1,), expired=True)
        shift = 97 if zxid >= 10 and not altered else 0
        h.set(zxid + shift, "/a", str(zxid), zxid - 3, session=S2)
        h.wait(0.7)


@CASES.add("is still there 9.0 s after its client gave up")
def a_session_that_nobody_gave_up_stays(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.create(3, "/a", session=S2)
    h.session("lost" if altered else "connected")
    for zxid in range(4, 16):
        h.set(zxid, "/a", str(zxid), zxid - 3, session=S2)
        h.wait(0.7)


@CASES.add("is still there 9.0 s after its client gave up")
def replicas_that_stand_still_expire_nobody(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.create(3, "/a", session=S2)
    h.session("lost")
    for zxid in range(4, 16):
        h.set(zxid, "/a", str(zxid), zxid - 3, session=S2)
        h.wait(0.7 if altered or zxid != 8 else 3.0)


@CASES.add("is still there 9.0 s after its client gave up")
def replicas_with_a_fault_are_given_time(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.create(3, "/a", session=S2)
    h.fault("crash")
    h.session("lost")
    if altered:
        h.fault("healed")
    for zxid in range(4, 16):
        h.set(zxid, "/a", str(zxid), zxid - 3, session=S2)
        h.wait(0.7)


@CASES.add("is still there 9.0 s after its client gave up")
def and_some_more_when_it_is_over(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.create(3, "/a", session=S2)
    h.session("lost")
    for zxid in range(4, 16):
        if zxid == (4 if altered else 8):
            h.fault("healed")
        h.set(zxid, "/a", str(zxid), zxid - 3, session=S2)
        h.wait(0.7)


@CASES.add("ended at zxid 9, and operation 3 (set_data) of it was done at 10")
def a_session_that_has_ended_writes_nothing(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.create(3, "/a", session=S2)
    op = h.invoke("set_data", path="/a", data="1")
    if not altered:
        h.applied(8, changed("/a", "1"))
    h.wait(5.0)
    expiry(h)
    if altered:
        h.applied(10, changed("/a", "1"))
    h.answer(op, 10 if altered else 8, version=1)


@CASES.add("ended at zxid 9, and operation 2 (exists) of it was done at 9")
def a_session_that_has_ended_reads_nothing_new(h: HistoryBuilder, altered: bool) -> None:
    """At a replica that does not know yet it may."""
    ephemeral(h)
    h.wait(5.0)
    expiry(h)
    there = {"exists": True, "version": 0, "czxid": 2, "mzxid": 2, "owner": S1}
    if altered:
        h.done(9, "exists", path="/e", result={"exists": False})
    else:
        h.done(8, "exists", path="/e", result=there)


@CASES.add("has not ended, and its client was told so")
def a_session_that_was_closed_has_ended(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    if not altered:
        h.applied(3, deleted("/e"), closed=(S1,))
    h.session("closed")


@CASES.add("has not ended, and its client was told so")
def a_session_has_ended_when_its_client_is_told_so(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    if altered:
        h.session("closed")
    h.applied(3, deleted("/e"), closed=(S1,))
    if not altered:
        h.session("closed")


@CASES.add("session 0000000000000001 ends a second time")
def a_session_ends_once(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.applied(3, deleted("/e"), closed=(S1,))
    h.applied(4, closed=(S1,) if altered else (S2,))


@CASES.add("session 0000000000000001 is opened a second time")
def a_session_is_opened_once(h: HistoryBuilder, altered: bool) -> None:
    ephemeral(h)
    h.applied(3, deleted("/e"), closed=(S1,))
    h.applied(4, opened=(S1,) if altered else (S2,))


def test_without_the_truth_nothing_is_said() -> None:
    def build(h: HistoryBuilder, altered: bool) -> None:
        ephemeral(h)
        h.session("closed")

    assert CASES.find(Case("", build, "", False), is_altered=True) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_a_history_as_it_should_be_passes(case: Case) -> None:
    assert CASES.find(case, is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_what_breaks_a_rule_is_told(case: Case) -> None:
    CASES.require_caught(case)
