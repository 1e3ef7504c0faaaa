"""The decisions of the client, without a network."""

from __future__ import annotations

import pytest

from coordsvc.client.options import ClientConfig, parse_endpoints
from coordsvc.client.retry import (
    ConnectionFailedError,
    Failures,
    Repeatable,
    UnreachableError,
    delay_ms,
    may_retry,
)
from coordsvc.errors import (
    Applied,
    BadArgumentsError,
    CoordError,
    InternalError,
    LimitExceededError,
    NodeExistsError,
    NoQuorumError,
    OutcomeUnknownError,
    RequestError,
    SessionExpiredError,
    ShuttingDownError,
    ThrottledError,
)


@pytest.mark.parametrize("error", [NoQuorumError(), ShuttingDownError(), UnreachableError()])
def test_what_was_not_applied_may_always_be_repeated(error: CoordError) -> None:
    assert may_retry(error, Repeatable.IF_NOT_APPLIED)
    assert may_retry(error, Repeatable.ALWAYS)


def test_an_unknown_outcome_is_repeated_only_when_that_changes_nothing() -> None:
    assert not may_retry(OutcomeUnknownError(), Repeatable.IF_NOT_APPLIED)
    assert may_retry(OutcomeUnknownError(), Repeatable.ALWAYS)


def test_refusals_and_faults_are_not_repeated() -> None:
    refusals = [kind for kind in CoordError.by_code.values() if issubclass(kind, RequestError)]
    assert len(refusals) > 10
    for kind in [*refusals, InternalError]:
        assert not may_retry(kind(), Repeatable.ALWAYS), kind


def test_each_endpoint_is_tried_at_once_and_the_rounds_slow_down() -> None:
    delays = [delay_ms(failures, 3, 20, 100) for failures in range(1, 16)]
    assert delays == [0, 0, 20, 20, 20, 40, 40, 40, 80, 80, 80, 100, 100, 100, 100]
    assert delay_ms(10**6, 1, 20, 500) == 500


def failures_of(*errors: CoordError) -> Failures:
    failures = Failures(ClientConfig(("a:1", "b:2")))
    for error in errors:
        failures.add(error)
    return failures


def test_the_last_error_is_the_verdict() -> None:
    last = NodeExistsError()
    assert failures_of(NoQuorumError(), last).verdict() is last


def test_an_outcome_once_unknown_stays_unknown() -> None:
    """A later attempt that was certainly not applied proves nothing about the earlier one."""
    unknown = OutcomeUnknownError()
    assert failures_of(unknown, NoQuorumError()).verdict() is unknown
    assert failures_of(unknown, UnreachableError()).verdict() is unknown
    assert failures_of(unknown, ThrottledError()).verdict() is unknown
    assert failures_of(unknown, LimitExceededError()).verdict().applied is Applied.UNKNOWN
    verdict = failures_of(unknown, SessionExpiredError()).verdict()
    assert isinstance(verdict, SessionExpiredError)
    assert verdict.applied is Applied.UNKNOWN


def test_an_unknown_outcome_that_was_answered_later_is_known() -> None:
    answered = NodeExistsError(zxid=7)
    assert failures_of(OutcomeUnknownError(), answered).verdict() is answered
    assert answered.applied is Applied.NO


def test_nobody_reached_names_all_endpoints() -> None:
    verdict = failures_of(UnreachableError("cannot connect to a:1")).verdict()
    assert isinstance(verdict, ConnectionFailedError)
    assert "a:1" in verdict.message and "b:2" in verdict.message


def test_a_server_hint_outranks_the_own_pace() -> None:
    assert failures_of(NoQuorumError(retry_after_ms=700)).pause_seconds() == 0.7


def test_endpoints_are_parsed() -> None:
    assert parse_endpoints(" 127.0.0.1:7401, [::1]:7402,db-1:1 ,") == (
        "127.0.0.1:7401",
        "[::1]:7402",
        "db-1:1",
    )


@pytest.mark.parametrize(
    "text", ["", ",", "host", "host:", ":7401", "host:0", "host:65536", "host:x", "::1:7401",
             "host:٣"],
)  # fmt: skip
def test_bad_endpoints_are_named(text: str) -> None:
    with pytest.raises(BadArgumentsError) as caught:
        parse_endpoints(text)
    assert text.strip(",") in caught.value.message


def test_what_a_replica_said_is_told_rather_than_that_another_cannot_be_reached() -> None:
    verdict = failures_of(NoQuorumError("as told"), UnreachableError("b:2")).verdict()
    assert isinstance(verdict, NoQuorumError)
    assert verdict.message == "as told"
