"""What reads show, with the truth and without: each history passes, and altered it does not."""

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

CASES = Cases("reads")


@CASES.add("it shows data '0'; at that zxid it is '1'")
def data_is_that_of_the_zxid(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.set(2, "/a", "1", 1, session=S2)
    h.get(2, "/a", "0" if altered else "1", 2, version=1)


@CASES.add("it shows version 0; at that zxid it is 1")
def a_read_is_of_the_zxid_it_claims(h: HistoryBuilder, altered: bool) -> None:
    """A lagging replica shows an old state, but not under a new zxid."""
    h.create(1, "/a", "0")
    h.set(2, "/a", "1", 1, session=S2)
    h.get(2 if altered else 1, "/a", "0", 1)


@CASES.add("it shows mzxid 1; at that zxid it is 2")
def the_stat_is_that_of_the_zxid(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.set(2, "/a", "1", 1)
    result = {"exists": True, "version": 1, "czxid": 1, "mzxid": 1 if altered else 2, "owner": ""}
    h.done(2, "exists", path="/a", result=result)


@CASES.add("it shows owner ''")
def an_ephemeral_has_its_owner(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/e", mode="ephemeral")
    owner = "" if altered else S1
    result = {"exists": True, "version": 0, "czxid": 1, "mzxid": 1, "owner": owner}
    h.done(1, "exists", path="/e", result=result)


@CASES.add("it shows none, and there is one since zxid 1")
def what_is_there_is_shown(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.delete(2, "/a")
    h.done(1 if altered else 2, "exists", session=S2, path="/a", result={"exists": False})


@CASES.add("it shows none, and there is one since zxid 1")
def no_node_is_said_of_what_is_not_there(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.delete(2, "/a")
    op = h.invoke("get_data", session=S2, path="/a")
    h.error(op, "NO_NODE", 1 if altered else 2)


@CASES.add("/b was never created")
def what_was_never_created_is_not_shown(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.get(1, "/b" if altered else "/a", "0", 1)


@CASES.add("missing are ['y'], too many []")
def children_are_those_of_the_zxid(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/p")
    h.create(2, "/p/x")
    h.create(3, "/p/y")
    h.delete(4, "/p/x")
    h.done(4, "get_children", path="/p", result={"names": [] if altered else ["y"]})
    h.done(2, "get_children", session=S2, path="/p", result={"names": ["x"]})
    h.done(4, "get_children", path="/", result={"names": ["p", "zookeeper"]})


@CASES.add("missing are ['y'], too many []")
def a_multi_is_seen_whole(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/p")
    h.multi(2, created("/p/x", "1"), created("/p/y", "2"))
    h.done(2, "get_children", path="/p", result={"names": ["x"] if altered else ["x", "y"]})


@CASES.add("it shows a znode where there is none")
def children_are_of_a_znode_that_is_there(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/p")
    h.delete(2, "/p")
    h.done(2 if altered else 1, "get_children", session=S2, path="/p", result={"names": []})


@CASES.add("which was over at zxid 3, or never was")
def without_a_zxid_the_state_is_not_left_behind(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.set(3, "/a", "1", 1)
    h.set(5, "/a", "2", 2, session=S2)
    mzxid, version = (1, 0) if altered else (3, 1)
    result = {"exists": True, "version": version, "czxid": 1, "mzxid": mzxid, "owner": ""}
    h.done(0, "exists", path="/a", result=result)


@CASES.add("which was over at zxid 1, or never was")
def without_a_zxid_nothing_is_missing(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    if not altered:
        h.delete(2, "/a", session=S2)
    h.done(0, "exists", path="/a", result={"exists": False})


@CASES.add("which was over at zxid 1, or never was")
def without_a_zxid_nothing_is_invented(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/b", "0")
    op = h.invoke("get_data", path="/a")
    h.applied(2, created("/a", "1"))
    h.answer(op, 0, data="2" if altered else "1", version=0, mzxid=2)


# ------------------------------------------------------------------------- without the truth


@CASES.add("zxid 2 has changed it", has_truth=False)
def an_acknowledged_write_is_shown(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.set(2, "/a", "1", 1, session=S2)
    if altered:
        h.get(2, "/a", "0", 1)
    else:
        h.get(2, "/a", "1", 2, version=1)


@CASES.add("it shows '0'; zxid 2 wrote '1'", has_truth=False)
def data_is_that_of_its_write(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.set(2, "/a", "1", 1)
    h.get(2, "/a", "0" if altered else "1", 2, version=1)


@CASES.add("it shows none, and there is one since zxid 1", has_truth=False)
def what_nobody_deleted_is_shown(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    if not altered:
        h.outcome(h.invoke("delete", session=S2, path="/a"), "unknown")
    h.done(3, "exists", path="/a", result={"exists": False})


@CASES.add("zxid 2 has changed it", has_truth=False)
def what_was_deleted_is_not_shown(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.delete(2, "/a")
    h.create(3, "/a", "1", session=S2)
    if altered:
        h.get(2, "/a", "0", 1)
    else:
        h.get(3, "/a", "1", 3)


@CASES.add("it shows a write of zxid 4, which is beyond its own", has_truth=False)
def nothing_later_is_shown(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.outcome(h.invoke("set_data", session=S2, path="/a", data="1"), "unknown")
    h.get(3 if altered else 4, "/a", "1", 4, version=1)


@CASES.add("it shows none, and there is one since zxid 1", has_truth=False)
def no_node_is_said_of_what_may_be_gone(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0", mode="persistent" if altered else "ephemeral")
    h.error(h.invoke("get_data", path="/a"), "NO_NODE", 2)


@CASES.add("at zxid 7: it shows data")
def writes_of_nobody_are_part_of_the_truth(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.outcome(h.invoke("set_data", session=S2, path="/a", data="1"), "unknown")
    h.applied(5, changed("/a", "1"))
    h.applied(6, deleted("/a"))
    h.applied(7, created("/a", "2"))
    h.get(7, "/a", "1" if altered else "2", 7)


@pytest.mark.parametrize("has_truth", [True, False])
def test_what_is_not_known_is_not_judged(has_truth: bool) -> None:
    def build(h: HistoryBuilder, altered: bool) -> None:
        h.create(1, "/p")
        h.outcome(h.invoke("create", session=S2, path="/p/x", data="0"), "unknown")
        h.applied(2, created("/p/x", "0"))
        h.error(h.invoke("get_data", path="/p"), "NO_AUTH", 2)
        h.get(2, "/p/x", "0", 2)
        h.get(0, "/p/x", "0", 2)
        h.set(3, "/p/x", "1", 1, session=S2)
        h.get(0, "/p/x", "1", 3, version=1)
        h.done(0, "get_children", path="/p", result={"names": []})
        h.done(3, "sync")

    assert CASES.find(Case("", build, "", has_truth), is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_a_history_as_it_should_be_passes(case: Case) -> None:
    assert CASES.find(case, is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_what_breaks_a_rule_is_told(case: Case) -> None:
    CASES.require_caught(case)
