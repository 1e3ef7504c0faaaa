"""The checker of linearizability: histories made by hand, each good or bad for one reason: single
znodes, unknown outcomes, repetitions, local reads.
"""

from __future__ import annotations

import pytest

from coordsvc.testing.history import Invoke
from coordsvc.testing.linearizable import check_linearizable
from tests.unit.testing.linearizable_history import S1, S2, History


@pytest.fixture
def history() -> History:
    """There is /r with version 0."""
    history = History()
    history.create("/r", (0, 1))
    return history


# ------------------------------------------------------------------------- single znodes


def test_an_empty_history_and_one_without_answers_are_good() -> None:
    assert check_linearizable([]) == []
    history = History()
    history.create("/r", (0, None))
    history.get("/r", (1, 2), "unknown")
    history.assert_good()


def test_what_one_client_does_after_the_other_is_good(history: History) -> None:
    history.set("/r", "a", (2, 3), 1)
    history.get("/r", (4, 5), ("a", 1))
    history.set("/r", "b", (6, 7), "BAD_VERSION", version=0)
    history.set("/r", "b", (8, 9), 2, version=1)
    history.create("/r/x", (10, 11))
    history.delete("/r", (12, 13), "NOT_EMPTY")
    history.names("/r", (14, 15), "x")
    history.delete("/r/x", (16, 17))
    history.delete("/r", (18, 19))
    history.get("/r", (20, 21), "NO_NODE")
    history.create("/r/x", (22, 23), "NO_NODE")
    history.exists("/r", (24, 25), None)
    history.assert_good()


def test_a_stale_read_is_bad(history: History) -> None:
    history.set("/r", "a", (2, 3), 1)
    read = history.get("/r", (4, 5), ("0", 0))
    violation = history.assert_bad(op=read, paths="/r")
    assert "get_data (path '/r', consistency 'linearizable') -> data '0'" in violation.text
    znode = "/r with '(data that nobody reads)', version 1"
    answer = "('get_data', '(data that nobody reads)', 1)"
    assert violation.text.endswith(f"without what was under way: [{znode}: {answer}]")
    assert [record.op for record in violation.records if isinstance(record, Invoke)] == [2, 3]


def test_a_read_during_a_write_may_show_either(history: History) -> None:
    history.set("/r", "a", (2, 9), 1)
    history.get("/r", (3, 4), ("0", 0))
    history.get("/r", (5, 6), ("a", 1))
    history.assert_good()


def test_a_read_that_goes_back_is_bad(history: History) -> None:
    history.set("/r", "a", (2, 9), 1)
    history.get("/r", (3, 4), ("a", 1))
    again = history.get("/r", (5, 6), ("0", 0))
    history.assert_bad(op=again, paths="/r")


def test_a_lost_write_is_bad(history: History) -> None:
    history.set("/r", "a", (2, 3), 1)
    lost = history.set("/r", "b", (4, 5), 1)
    history.assert_bad(op=lost, paths="/r")


def test_two_writes_under_way_at_once_may_be_done_in_either_order(history: History) -> None:
    history.set("/r", "a", (2, 6), 2)
    history.set("/r", "b", (3, 5), 1)
    history.get("/r", (7, 8), ("a", 2))
    history.assert_good()


def test_a_write_applied_twice_is_bad(history: History) -> None:
    history.set("/r", "a", (2, 3), 1)
    read = history.get("/r", (4, 5), ("a", 2))
    history.assert_bad(op=read, paths="/r")


def test_a_skipped_version_is_bad(history: History) -> None:
    skipped = history.set("/r", "a", (2, 3), 2)
    history.assert_bad(op=skipped, paths="/r")


def test_a_value_that_nobody_wrote_is_bad(history: History) -> None:
    history.set("/r", "a", (2, 3), 1)
    read = history.get("/r", (4, 5), ("z", 1))
    history.assert_bad(op=read, paths="/r")


def test_two_that_both_created_are_bad() -> None:
    history = History()
    history.create("/r", (0, 5))
    second = history.create("/r", (1, 6))
    history.assert_bad(op=second, paths="/r")


def test_two_that_wrote_the_same_version_are_bad(history: History) -> None:
    history.set("/r", "a", (2, 5), 1, version=0)
    second = history.set("/r", "b", (3, 6), 1, version=0)
    history.assert_bad(op=second, paths="/r")


def test_a_deleted_znode_that_is_back_is_bad(history: History) -> None:
    history.delete("/r", (2, 3))
    history.get("/r", (4, 5), "NO_NODE")
    read = history.get("/r", (6, 7), ("0", 0))
    history.assert_bad(op=read, paths="/r")


def test_a_refusal_for_no_reason_is_bad(history: History) -> None:
    refused = history.delete("/r", (2, 3), "NOT_EMPTY")
    history.assert_bad(op=refused, paths="/r")


def test_an_answer_at_the_time_of_an_invocation_comes_in_the_order_of_the_records() -> None:
    """A simulated clock stands still while a client goes on to its next operation."""
    history = History()
    history.create("/r", (0, 1))
    history.set("/r", "a", (1, 2), 1)
    read = history.get("/r", (2, 3), ("0", 0))
    history.assert_bad(op=read, paths="/r")


# ---------------------------------------------------------------- unknown, refused, repeated


def test_a_write_of_unknown_outcome_may_appear_late(history: History) -> None:
    history.set("/r", "u", (2, 3), "unknown")
    history.get("/r", (4, 5), ("0", 0))
    history.set("/r", "a", (6, 7), 1)
    history.get("/r", (8, 9), ("u", 2))
    history.assert_good()


def test_a_write_without_return_may_appear_or_not(history: History) -> None:
    history.set("/r", "u", (2, None), "unknown")
    history.set("/r", "v", (2, None), "unknown")
    history.get("/r", (4, 5), ("v", 1))
    history.get("/r", (6, 7), ("v", 1))
    history.assert_good()


def test_a_write_of_unknown_outcome_that_appears_and_disappears_is_bad(history: History) -> None:
    history.set("/r", "u", (2, 3), "unknown")
    history.get("/r", (4, 5), ("u", 1))
    again = history.get("/r", (6, 7), ("0", 0))
    history.assert_bad(op=again, paths="/r")


def test_a_write_of_unknown_outcome_that_appears_twice_is_bad(history: History) -> None:
    history.set("/r", "u", (2, 3), "unknown")
    history.get("/r", (4, 5), ("u", 1))
    history.set("/r", "a", (6, 7), 2)
    again = history.get("/r", (8, 9), ("u", 3))
    history.assert_bad(op=again, paths="/r")


def test_a_write_is_not_seen_before_it_was_invoked(history: History) -> None:
    read = history.get("/r", (2, 3), ("u", 1))
    history.set("/r", "u", (4, 5), "unknown")
    history.assert_bad(op=read, paths="/r")


def test_many_writes_of_unknown_outcome_explain_a_version(history: History) -> None:
    for number in range(12):
        history.set("/r", f"u{number}", (2, 3), "unknown")
    history.get("/r", (4, 5), ("u7", 9))
    history.get("/r", (6, 7), ("u3", 12))
    history.assert_good()
    beyond = history.get("/r", (8, 9), ("u1", 13))
    history.assert_bad(op=beyond, paths="/r")


@pytest.mark.parametrize("outcome", ["refused", "NO_QUORUM", "GUARD_FAILED", "SESSION_EXPIRED"])
def test_a_refused_write_that_is_seen_is_bad(history: History, outcome: str) -> None:
    history.set("/r", "a", (2, 3), outcome)
    read = history.get("/r", (4, 5), ("a", 1))
    history.assert_bad(op=read, paths="/r")


def test_a_write_answered_with_an_error_that_is_seen_is_bad(history: History) -> None:
    history.set("/r", "a", (2, 3), "BAD_VERSION", version=7)
    read = history.get("/r", (4, 5), ("a", 1))
    history.assert_bad(op=read, paths="/r")


def test_an_error_that_leaves_the_outcome_open_does_so(history: History) -> None:
    history.set("/r", "a", (2, 3), "RESULT_FORGOTTEN")
    history.set("/r", "b", (2, 3), "OUTCOME_UNKNOWN")
    history.get("/r", (4, 5), ("a", 2))
    history.assert_good()


def test_a_repeated_write_is_one_from_the_first_attempt_to_the_first_answer(
    history: History,
) -> None:
    first = history.set("/r", "a", (2, 3), "unknown", session=S1)
    history.get("/r", (4, 5), ("a", 1))
    second = history.set("/r", "a", (6, 7), "refused", session=S1, repeats=first)
    history.set("/r", "a", (8, 9), 1, session=S1, repeats=second)
    history.set("/r", "b", (10, 11), 2)
    history.assert_good()


def test_a_repeated_write_that_was_done_twice_is_bad(history: History) -> None:
    first = history.set("/r", "a", (2, 3), "unknown", session=S1)
    read = history.get("/r", (4, 5), ("a", 1))
    second = history.set("/r", "a", (6, 7), 2, session=S1, repeats=first)
    violation = history.assert_bad(op=read, paths="/r")
    invoked = [record.op for record in violation.records if isinstance(record, Invoke)]
    assert invoked[-3:] == [first, read, second]


def test_a_repetition_after_the_answer_does_not_put_it_off(history: History) -> None:
    first = history.set("/r", "a", (2, 3), 1, session=S1)
    read = history.get("/r", (4, 5), ("0", 0))
    history.set("/r", "a", (6, 7), 1, session=S1, repeats=first)
    history.assert_bad(op=read, paths="/r")


def test_a_repetition_that_was_refused_says_nothing_of_the_first_attempt(history: History) -> None:
    first = history.set("/r", "a", (2, 3), "unknown", session=S1)
    history.set("/r", "a", (4, 5), "refused", session=S1, repeats=first)
    history.get("/r", (6, 7), ("a", 1))
    history.assert_good()


def test_attempts_that_were_all_refused_did_nothing(history: History) -> None:
    first = history.set("/r", "a", (2, 3), "refused", session=S1)
    history.set("/r", "a", (4, 5), "refused", session=S1, repeats=first)
    read = history.get("/r", (6, 7), ("a", 1))
    history.assert_bad(op=read, paths="/r")


# -------------------------------------------------------------------------- local reads


def local_read(history: History, synced: float | None, session: str) -> int:
    """/r is written from 2 to 3, and read as before at 6."""
    history.set("/r", "a", (2, 3), 1)
    if synced is not None:
        history.add("sync", (synced, 5), {"path": "/r"}, {}, session=session)
    return history.get("/r", (6, 7), ("0", 0), consistency="local", session=S1)


def test_a_local_read_may_be_stale(history: History) -> None:
    local_read(history, None, S1)
    history.assert_good()


def test_a_local_read_after_a_sync_is_not_older_than_the_sync(history: History) -> None:
    read = local_read(history, 4, S1)
    history.assert_bad(op=read, paths="/r")


def test_a_local_read_after_a_sync_may_be_as_old_as_it(history: History) -> None:
    local_read(history, 2.5, S1)
    history.assert_good()


def test_the_sync_of_another_session_says_nothing(history: History) -> None:
    local_read(history, 4, S2)
    history.assert_good()


def test_a_sync_that_was_not_answered_in_time_says_nothing(history: History) -> None:
    history.set("/r", "a", (2, 3), 1)
    history.add("sync", (4, 9), {"path": "/r"}, {}, session=S1)
    history.add("sync", (4, 5), {"path": "/r"}, "unknown", session=S1)
    history.get("/r", (6, 7), ("0", 0), consistency="local", session=S1)
    history.assert_good()
