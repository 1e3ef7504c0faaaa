"""The checker of linearizability: histories made by hand, each good or bad for one reason: multis,
sequence numbers, ephemerals, and how a history falls into components.
"""

from __future__ import annotations

import pytest

from coordsvc.testing.history import Return
from coordsvc.testing.linearizable import check_linearizable
from tests.unit.testing.linearizable_history import S1, S2, SEQUENTIAL, History, create_op, set_op


@pytest.fixture
def history() -> History:
    """There is /r with version 0."""
    history = History()
    history.create("/r", (0, 1))
    return history


# ------------------------------------------------------------------------------ multi


@pytest.fixture
def two(history: History) -> History:
    """There are /r and /s."""
    history.create("/s", (0, 1))
    return history


def test_a_multi_is_seen_as_a_whole(two: History) -> None:
    results = {"results": [{"version": 1}, {"version": 1}]}
    two.multi((2, 9), [set_op("/r", "a"), set_op("/s", "b")], results)
    two.get("/r", (3, 4), ("a", 1))
    two.get("/s", (5, 6), ("b", 1))
    two.assert_good()


def test_a_multi_seen_half_is_bad(two: History) -> None:
    results = {"results": [{"version": 1}, {"version": 1}]}
    two.multi((2, 9), [set_op("/r", "a"), set_op("/s", "b")], results)
    two.get("/r", (3, 4), ("a", 1))
    half = two.get("/s", (5, 6), ("0", 0))
    two.assert_bad(op=half, paths="/r, /s")


def test_a_multi_of_unknown_outcome_seen_half_is_bad(two: History) -> None:
    two.multi((2, 3), [set_op("/r", "a"), set_op("/s", "b")], "unknown")
    two.get("/r", (4, 5), ("a", 1))
    half = two.get("/s", (6, 7), ("0", 0))
    two.assert_bad(op=half, paths="/r, /s")


def test_a_failed_multi_has_done_nothing_and_tells_which_failed(two: History) -> None:
    ops = [set_op("/r", "a"), {"name": "check", "path": "/s", "version": 4}, set_op("/s", "b")]
    two.multi((2, 3), ops, {"code": "BAD_VERSION", "index": 1})
    two.get("/r", (4, 5), ("0", 0))
    two.assert_good()
    half = two.get("/r", (6, 7), ("a", 1))
    two.assert_bad(op=half, paths="/r, /s")


def test_a_multi_of_unknown_outcome_that_must_fail_did_nothing(two: History) -> None:
    two.multi((2, 3), [set_op("/r", "a"), {"name": "check", "path": "/s", "version": 4}], "unknown")
    half = two.get("/r", (4, 5), ("a", 1))
    two.assert_bad(op=half, paths="/r, /s")


def test_a_multi_may_write_one_znode_twice(history: History) -> None:
    history.set("/r", "u", (2, 3), "unknown")
    results = {"results": [{"version": 2}, {"version": 3}]}
    history.multi((4, 5), [set_op("/r", "a"), set_op("/r", "b")], results)
    history.get("/r", (6, 7), ("b", 3))
    history.assert_good()


def test_a_multi_that_names_the_wrong_operation_is_bad(two: History) -> None:
    ops = [set_op("/r", "a"), {"name": "check", "path": "/s", "version": 4}]
    multi = two.multi((2, 3), ops, {"code": "BAD_VERSION", "index": 0})
    two.assert_bad(op=multi, paths="/r, /s")


def test_parts_of_a_multi_see_those_before(history: History) -> None:
    ops = [create_op("/r/a"), create_op("/r/a/b"), set_op("/r/a", "x")]
    results = [{"path": "/r/a"}, {"path": "/r/a/b"}, {"version": 1}]
    history.multi((2, 3), ops, {"results": results})
    history.names("/r/a", (4, 5), "b")
    failing = [{"name": "delete", "path": "/r/a/b", "version": None}, create_op("/r/a/b/c")]
    history.multi((6, 7), failing, {"code": "NO_NODE", "index": 1})
    history.names("/r/a", (8, 9), "b")
    history.assert_good()


# ------------------------------------------------------------------- sequence numbers


def test_numbers_count_all_children_ever_created(history: History) -> None:
    history.create("/r/n-", (2, 3), mode=SEQUENTIAL, made="/r/n-0000000000")
    history.create("/r/plain", (4, 5))
    history.delete("/r/plain", (6, 7))
    history.create("/r/m-", (8, 9), mode=SEQUENTIAL, made="/r/m-0000000002")
    history.names("/r", (10, 11), "m-0000000002", "n-0000000000")
    history.assert_good()


def test_a_number_given_twice_is_bad(history: History) -> None:
    history.create("/r/n-", (2, 3), mode=SEQUENTIAL, made="/r/n-0000000000")
    history.delete("/r/n-0000000000", (4, 5))
    again = history.create("/r/n-", (6, 7), mode=SEQUENTIAL, made="/r/n-0000000000")
    history.assert_bad(op=again, paths="/r, /r/n-0000000000")


def test_a_number_left_out_is_bad(history: History) -> None:
    skipped = history.create("/r/n-", (2, 3), mode=SEQUENTIAL, made="/r/n-0000000001")
    history.assert_bad(op=skipped, paths="/r, /r/n-0000000001")


def test_a_sequential_create_of_unknown_outcome_may_have_taken_a_number(history: History) -> None:
    history.create("/r/n-", (2, 3), "unknown", mode=SEQUENTIAL)
    history.create("/r/n-", (4, 5), mode=SEQUENTIAL, made="/r/n-0000000001")
    history.names("/r", (6, 7), "n-0000000000", "n-0000000001")
    history.delete("/r/n-0000000000", (8, 9))
    history.names("/r", (10, 11), "n-0000000001")
    history.assert_good()
    back = history.names("/r", (12, 13), "n-0000000000", "n-0000000001")
    history.assert_bad(op=back, paths="/r, /r/n-0000000000, /r/n-0000000001")


def test_numbers_begin_anew_with_the_parent(history: History) -> None:
    for began in (2, 20):
        when = [(began + 2 * number, began + 2 * number + 1) for number in range(7)]
        history.create("/r/n-", when[0], mode=SEQUENTIAL, made="/r/n-0000000000")
        below = "/r/n-0000000000/m-0000000000"
        history.create("/r/n-0000000000/m-", when[1], mode=SEQUENTIAL, made=below)
        history.delete(below, when[2])
        history.delete("/r/n-0000000000", when[3])
        history.delete("/r", when[4])
        history.create("/r", when[5])
    history.assert_good()


def test_a_failed_multi_takes_no_number(history: History) -> None:
    ops = [create_op("/r/n-", SEQUENTIAL), {"name": "check", "path": "/r", "version": 9}]
    history.multi((2, 3), ops, {"code": "BAD_VERSION", "index": 1})
    history.create("/r/n-", (4, 5), mode=SEQUENTIAL, made="/r/n-0000000000")
    history.assert_good()


# ------------------------------------------------------------------------- ephemerals


@pytest.fixture
def ephemeral(history: History) -> History:
    """There is /r/e, of session S1; it was seen from 4 to 5."""
    history.create("/r/e", (2, 3), mode="ephemeral", session=S1)
    history.exists("/r/e", (4, 5), S1)
    return history


def test_an_ephemeral_has_its_owner_and_no_children(ephemeral: History) -> None:
    ephemeral.create("/r/e/x", (6, 7), "NO_CHILDREN_FOR_EPHEMERALS")
    ephemeral.assert_good()
    other = ephemeral.exists("/r/e", (8, 9), S2)
    ephemeral.assert_bad(op=other, paths="/r/e, /r/e/x")


def test_an_ephemeral_may_vanish_though_its_client_knows_of_no_end(ephemeral: History) -> None:
    ephemeral.exists("/r/e", (6, 7), None)
    ephemeral.create("/r/e", (8, 9), mode="ephemeral", session=S2)
    ephemeral.exists("/r/e", (10, 11), S2)
    ephemeral.assert_good()


def test_an_ephemeral_that_is_gone_and_seen_again_is_bad(ephemeral: History) -> None:
    ephemeral.session(5.5, S1, "lost")
    ephemeral.exists("/r/e", (6, 7), None)
    again = ephemeral.exists("/r/e", (8, 9), S1)
    ephemeral.assert_bad(op=again, paths="/r/e")


def test_an_ephemeral_that_is_gone_while_its_session_writes_is_bad(ephemeral: History) -> None:
    gone = ephemeral.exists("/r/e", (6, 7), None)
    ephemeral.set("/r", "a", (8, 9), 1, session=S1)
    ephemeral.assert_bad(op=gone, paths="/r/e")


def test_a_write_of_a_session_that_ended_is_not_seen(ephemeral: History) -> None:
    ephemeral.create("/r/e", (4, None), mode="ephemeral", session=S1)
    ephemeral.exists("/r/e", (6, 7), None)
    undead = ephemeral.exists("/r/e", (8, 9), S1)
    ephemeral.assert_bad(op=undead, paths="/r/e")


def test_a_session_may_end_between_its_last_write_and_the_answer(ephemeral: History) -> None:
    ephemeral.create("/s", (4, 5))
    ops = [{"name": "check", "path": path, "version": 0} for path in ("/r/e", "/s")]
    ephemeral.multi((5.1, 5.2), ops, {"results": [{}, {}]})
    ephemeral.set("/s", "a", (6, 9), 1, session=S1)
    ephemeral.exists("/r/e", (7, 8), None)
    ephemeral.assert_good()


def test_a_persistent_znode_does_not_vanish(history: History) -> None:
    history.create("/r/e", (2, 3), session=S1)
    history.session(4, S1, "closed")
    gone = history.exists("/r/e", (6, 7), None)
    history.assert_bad(op=gone, paths="/r/e")


def test_ephemerals_listed_together_vanish_together(ephemeral: History) -> None:
    ephemeral.create("/r/f", (4, 5), mode="ephemeral", session=S1)
    ephemeral.create("/r/n-", (6, 7), "unknown", mode="ephemeral_sequential", session=S1)
    ephemeral.names("/r", (8, 9), "e", "f", "n-0000000002")
    ephemeral.names("/r", (10, 11))
    ephemeral.assert_good()
    half = ephemeral.names("/r", (12, 13), "f")
    ephemeral.assert_bad(op=half, paths="/r, /r/e, /r/f")


def test_ephemerals_that_vanish_one_by_one_are_bad(ephemeral: History) -> None:
    ephemeral.create("/r/f", (4, 5), mode="ephemeral", session=S1)
    half = ephemeral.names("/r", (8, 9), "f")
    ephemeral.assert_bad(op=half, paths="/r, /r/e, /r/f")


# ------------------------------------------------------------------ components and limits


def test_each_component_has_its_violation(two: History) -> None:
    two.get("/s", (4, 5), ("z", 0))
    two.get("/r", (2, 3), ("z", 0))
    assert [violation.text.split(":")[0] for violation in two.check()] == ["/r", "/s"]


def test_what_others_made_under_one_parent_is_apart_until_it_is_listed(history: History) -> None:
    history.create("/r/a", (2, 5))
    history.create("/r/b", (3, 4))
    history.get("/r/a", (6, 7), ("0", 1))
    assert [violation.text.split(":")[0] for violation in history.check()] == ["/r/a"]
    history.names("/r", (3.5, 6), "a", "b")
    assert [violation.text.split(":")[0] for violation in history.check()] == ["/r, /r/a, /r/b"]


def test_a_parent_that_may_be_missing_matters_to_its_children() -> None:
    history = History()
    history.create("/r", (0, 9))
    history.create("/r/a", (1, 2))
    history.create("/r/b", (3, 4), "NO_NODE")
    (violation,) = history.check()
    assert violation.text.startswith("/r, /r/a, /r/b: ")


def test_the_root_has_what_is_there_from_the_beginning(history: History) -> None:
    history.names("/", (2, 3), "r", "zookeeper")
    history.delete("/r", (4, 5))
    history.names("/", (6, 7), "zookeeper")
    history.create("/n-", (8, 9), mode=SEQUENTIAL, made="/n-0000000001")
    history.assert_good()


def test_a_search_that_takes_too_long_is_no_success(history: History) -> None:
    for number in range(10):
        history.set("/r", f"u{number}", (2, 3), "unknown")
        history.get("/r", (6 + number, 7 + number), (f"u{number}", number + 1))
    records = history.records()
    assert check_linearizable(records) == []
    (violation,) = check_linearizable(records, steps_max=20)
    assert "the search was given up after 21 steps" in violation.text
    assert violation.check == "linearizability"


@pytest.mark.parametrize("mode", ["container", "ttl"])
def test_modes_that_are_not_modelled_are_told(history: History, mode: str) -> None:
    history.create("/r/c", (2, 3), mode=mode)
    with pytest.raises(ValueError, match=f"op 2: znodes that are {mode} are not modelled"):
        history.check()


def test_a_record_that_misses_a_part_is_told(history: History) -> None:
    history.add("set_data", (2, 3), {"path": "/r", "data": "a", "version": None}, {})
    with pytest.raises(ValueError, match="op 2: a set_data with a part missing: KeyError"):
        history.check()
    with pytest.raises(ValueError, match="op 9 returned, and was not invoked before"):
        check_linearizable([Return(0, 9, "ok")])
