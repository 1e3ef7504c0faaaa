"""Writes against the truth: each history passes, and altered it does not."""

from __future__ import annotations

import pytest

from coordsvc.testing.history import REFUSED, UNKNOWN
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

CASES = Cases("writes")


@CASES.add("it was to change /a (data_changed, '1'); zxid 2 changed nothing")
def an_acknowledged_write_is_not_lost(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    op = h.invoke("set_data", path="/a", data="1")
    if not altered:
        h.applied(2, changed("/a", "1"))
    h.answer(op, 2, version=1)


@CASES.add("zxid 2 changed /a (data_changed, '2')")
def it_is_there_with_its_data(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    op = h.invoke("set_data", path="/a", data="1")
    h.applied(2, changed("/a", "2" if altered else "1"))
    h.answer(op, 2, version=1)


@CASES.add("zxid 3 changed nothing")
def it_is_there_at_its_zxid(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    op = h.invoke("set_data", path="/a", data="1")
    h.applied(2, changed("/a", "1"))
    h.answer(op, 3 if altered else 2, version=1)


@CASES.add("it was answered version 2, which is 1")
def it_has_the_version_that_was_answered(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.set(2, "/a", "1", 2 if altered else 1)


@CASES.add("it was to change /e (created, None); zxid 2 changed /e (created, None)")
def an_ephemeral_is_its_session_s(h: HistoryBuilder, altered: bool) -> None:
    op = h.invoke("create", path="/e", mode="ephemeral")
    h.applied(2, created("/e", None, S2 if altered else S1))
    h.answer(op, 2, path="/e")


@CASES.add("zxid 2 changed nothing")
def a_delete_is_done(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    op = h.invoke("delete", path="/a")
    if not altered:
        h.applied(2, deleted("/a"))
    h.answer(op, 2)


@CASES.add("zxid 1 changed /p (created, None), /p/x (created, '1')")
def a_multi_is_whole(h: HistoryBuilder, altered: bool) -> None:
    ops = [
        {"name": "create", "path": "/p"},
        {"name": "check", "path": "/p", "version": 0},
        {"name": "create", "path": "/p/x", "data": "1"},
        {"name": "set_data", "path": "/p", "data": "2"},
    ]
    op = h.invoke("multi", ops=ops)
    changes = [created("/p"), created("/p/x", "1"), changed("/p", "2")]
    h.applied(1, *changes[: 2 if altered else 3])
    results = [{"path": "/p"}, {}, {"path": "/p/x"}, {"version": 1}]
    h.answer(op, 1, results=results)


@CASES.add("zxid 3 changed /a (data_changed, '1')")
def a_multi_perhaps_done_is_whole(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.create(2, "/b", "0'")
    ops = [
        {"name": "set_data", "path": "/a", "data": "1"},
        {"name": "create", "path": "/n-", "data": "2", "mode": "persistent_sequential"},
        {"name": "set_data", "path": "/b", "data": "3"},
    ]
    h.outcome(h.invoke("multi", ops=ops), UNKNOWN)
    changes = [changed("/a", "1"), created("/n-0000000002", "2"), changed("/b", "3")]
    h.applied(3, *changes[: 1 if altered else 3])


@CASES.add("it was done more than once, at zxids [3, 4]")
def a_multi_perhaps_done_is_at_one_zxid(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.create(2, "/b", "0'")
    ops = [
        {"name": "set_data", "path": "/a", "data": "1"},
        {"name": "set_data", "path": "/b", "data": "2"},
    ]
    h.outcome(h.invoke("multi", ops=ops), UNKNOWN)
    if altered:
        h.applied(3, changed("/a", "1"))
        h.applied(4, changed("/b", "2"))
    else:
        h.applied(3, changed("/a", "1"), changed("/b", "2"))


@CASES.add("it was answered version 2, which is 1")
def a_multi_has_the_versions_that_were_answered(h: HistoryBuilder, altered: bool) -> None:
    """Of a znode that it writes twice the first one is not told."""
    h.create(1, "/a", "0")
    h.create(2, "/b", "0'")
    written = [("/a", "1", 1), ("/a", "2", 2), ("/b", "3", 2 if altered else 1)]
    ops = [{"name": "set_data", "path": path, "data": data} for path, data, _ in written]
    op = h.invoke("multi", ops=ops)
    h.applied(3, *[changed(path, data) for path, data, _ in written])
    h.answer(op, 3, results=[{"version": version} for _, _, version in written])


@CASES.add("it was to change /a (data_changed, '1'); zxid 3 changed /ab (data_changed, '1')")
def it_is_there_at_its_path(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.create(2, "/ab", "0'")
    op = h.invoke("set_data", path="/a", data="1")
    h.applied(3, changed("/ab" if altered else "/a", "1"))
    h.answer(op, 3, version=1)


@CASES.add("zxid 2 changed /b (data_changed, '1')")
def what_was_perhaps_done_is_at_its_path(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.outcome(h.invoke("set_data", path="/a", data="1"), UNKNOWN)
    h.applied(2, changed("/b" if altered else "/a", "1"))


@CASES.add("it was done more than once, at zxids [2, 3]")
def a_write_perhaps_done_is_done_once(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    first = h.invoke("set_data", number=1, path="/a", data="1")
    h.outcome(first, UNKNOWN)
    h.applied(2, changed("/a", "1"))
    again = h.invoke("set_data", number=1, repeats=first, path="/a", data="1")
    if altered:
        h.applied(3, changed("/a", "1"))
    h.outcome(again, UNKNOWN)


@CASES.add("it was done more than once, at zxids [2, 3]")
def a_write_that_was_answered_is_done_once(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    first = h.invoke("set_data", number=1, path="/a", data="1")
    h.applied(2, changed("/a", "1"))
    h.answer(first, 2, version=1)
    if altered:
        h.applied(3, changed("/a", "1"))


@CASES.add("it was not applied, and is found at zxid 2")
def what_was_refused_is_nowhere(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    first = h.invoke("set_data", number=1, path="/a", data="1")
    h.outcome(first, REFUSED)
    if not altered:
        h.outcome(h.invoke("set_data", number=1, repeats=first, path="/a", data="1"), UNKNOWN)
    h.applied(2, changed("/a", "1"))


@CASES.add("it was not applied, and is found at zxid 3")
def what_ended_with_an_error_is_nowhere(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.error(h.invoke("set_data", path="/a", data="1", version=7), "BAD_VERSION", 2)
    h.applied(3, changed("/a", "1" if altered else "2"))


@CASES.add("there is no /a")
def node_exists_is_true(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.error(h.invoke("create", path="/a", data="1"), "NODE_EXISTS", 2)
    h.delete(3, "/a")
    code = "NODE_EXISTS" if altered else "NO_NODE"
    h.error(h.invoke("create" if altered else "delete", path="/a", data="2"), code, 4)


@CASES.add("there is /a")
def no_node_is_true(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    path = "/a/x" if altered else "/b/x"
    h.error(h.invoke("create", path=path, data="1"), "NO_NODE", 2)


@CASES.add("version 1 is the one it has")
def bad_version_is_true(h: HistoryBuilder, altered: bool) -> None:
    h.create(1, "/a", "0")
    h.set(2, "/a", "1", 1)
    op = h.invoke("set_data", path="/a", data="2", version=1 if altered else 0)
    h.error(op, "BAD_VERSION", 3)


def test_what_is_not_known_is_not_judged() -> None:
    def build(h: HistoryBuilder, altered: bool) -> None:
        h.create(1, "/a", "0")
        h.create(2, "/a/x", "0'")
        h.error(h.invoke("delete", path="/a", version=0), "NOT_EMPTY", 3)
        h.outcome(h.invoke("set_data", path="/a", data="1"), UNKNOWN)
        delete = h.invoke("delete", path="/a/x")
        h.applied(4, deleted("/a/x"))
        h.answer(delete, 0)
        create = h.invoke("create", path="/b", data="2")
        h.applied(5, created("/b", "2"))
        h.answer(create, 0, path="/b")

    assert CASES.find(Case("", build, "", True), is_altered=False) == []


def test_values_that_several_write_tell_nothing() -> None:
    def build(h: HistoryBuilder, altered: bool) -> None:
        h.create(1, "/a", "0")
        for zxid in (2, 3):
            h.set(zxid, "/a", "same", zxid - 1)
        h.outcome(h.invoke("set_data", path="/a", data="same"), REFUSED)

    assert CASES.find(Case("", build, "", True), is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_a_history_as_it_should_be_passes(case: Case) -> None:
    assert CASES.find(case, is_altered=False) == []


@pytest.mark.parametrize("case", CASES.all, ids=lambda case: case.name)
def test_what_breaks_a_rule_is_told(case: Case) -> None:
    CASES.require_caught(case)
