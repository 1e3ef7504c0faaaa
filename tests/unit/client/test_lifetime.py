"""When a session counts as lost, by this process's clock. Pure: the test tells the time."""

from __future__ import annotations

import pytest

from coordsvc.client.lifetime import Lifetime


@pytest.fixture
def lifetime() -> Lifetime:
    """Hello at 100 s, welcome at 102 s, with a timeout of 9 s."""
    lifetime = Lifetime()
    lifetime.welcomed(100.0, 102.0, 9_000)
    return lifetime


def test_before_the_welcome_nothing_is_lost() -> None:
    assert Lifetime().lost_at == float("inf")


def test_it_counts_from_when_the_hello_was_sent(lifetime: Lifetime) -> None:
    assert lifetime.lost_at == 109.0


def test_a_pong_counts_from_when_its_ping_was_sent(lifetime: Lifetime) -> None:
    nonce = lifetime.ping(103.0)
    lifetime.received(108.0)
    lifetime.pong(nonce)
    assert lifetime.lost_at == 112.0


def test_other_messages_renew_nothing(lifetime: Lifetime) -> None:
    lifetime.ping(103.0)
    lifetime.received(108.0)
    assert lifetime.lost_at == 109.0


def test_an_unknown_or_repeated_pong_renews_nothing(lifetime: Lifetime) -> None:
    first, second = lifetime.ping(103.0), lifetime.ping(106.0)
    lifetime.pong(second)
    lifetime.pong(first)
    lifetime.pong(99)
    assert lifetime.lost_at == 115.0


def test_pings_are_due_each_third_of_the_timeout(lifetime: Lifetime) -> None:
    assert lifetime.ping_at == 103.0
    lifetime.ping(103.5)
    assert lifetime.ping_at == 106.5


def test_a_stream_is_given_up_when_a_ping_gets_no_sign_of_life_for_a_third(
    lifetime: Lifetime,
) -> None:
    lifetime.ping(103.0)
    assert lifetime.give_up_at == 106.0
    assert lifetime.give_up_at < lifetime.lost_at


def test_a_replica_that_is_heard_has_half_a_timeout_for_the_pong(lifetime: Lifetime) -> None:
    lifetime.ping(103.0)
    lifetime.received(105.9)
    assert lifetime.give_up_at == 107.5


def test_a_ping_that_cannot_even_leave_counts_as_unanswered(lifetime: Lifetime) -> None:
    """The transport takes nothing from us: the replica has stopped reading."""
    assert lifetime.give_up_at == 106.0


def test_a_new_stream_starts_afresh(lifetime: Lifetime) -> None:
    nonce = lifetime.ping(103.0)
    lifetime.welcomed(105.0, 105.5, 6_000)
    assert (lifetime.lost_at, lifetime.ping_at) == (111.0, 107.0)
    assert lifetime.give_up_at == 109.0  # The old stream's ping is not waited for.
    lifetime.pong(nonce)
    assert lifetime.lost_at == 111.0


# ------------------------------------------------------- a replica that owes answers and is silent


@pytest.fixture
def impatient() -> Lifetime:
    """Hello at 100 s, welcome at 102 s, with a timeout of 9 s, and other replicas to go to."""
    lifetime = Lifetime(has_others=True)
    lifetime.welcomed(100.0, 102.0, 9_000)
    nonce = lifetime.ping(102.1)
    lifetime.received(102.2)
    lifetime.pong(nonce)
    return lifetime


def test_a_silent_replica_that_owes_answers_is_asked_and_then_left(impatient: Lifetime) -> None:
    impatient.asked(103.0)
    impatient.asked(103.7)  # More requests put nothing off.
    assert impatient.ping_at == 104.0
    impatient.ping(104.0)
    assert impatient.give_up_at == 104.5


def test_whatever_it_says_counts(impatient: Lifetime) -> None:
    impatient.asked(103.0)
    impatient.received(103.6)
    assert impatient.ping_at == 104.6
    impatient.ping(104.6)
    impatient.received(104.7)
    assert impatient.give_up_at > 106.0


def test_a_ping_that_was_due_anyway_is_not_repeated(impatient: Lifetime) -> None:
    impatient.asked(105.0)
    impatient.ping(105.1)
    assert impatient.ping_at == 108.1
    assert impatient.give_up_at == 106.5
    impatient.received(105.2)
    assert impatient.ping_at == 106.2


def test_one_that_takes_no_ping_is_left_as_soon(impatient: Lifetime) -> None:
    """The transport is full: the ping was due, and has not left."""
    impatient.asked(103.0)
    assert impatient.give_up_at == 104.5


def test_one_that_owes_nothing_has_its_third(impatient: Lifetime) -> None:
    impatient.asked(103.0)
    impatient.settled()
    assert impatient.ping_at == pytest.approx(105.1)
    assert impatient.give_up_at == pytest.approx(108.1)


def test_the_only_replica_is_given_time(lifetime: Lifetime) -> None:
    lifetime.asked(102.5)
    assert lifetime.ping_at == 103.0
    assert lifetime.give_up_at == 106.0


def test_nothing_is_owed_on_a_new_stream(impatient: Lifetime) -> None:
    impatient.asked(103.0)
    impatient.welcomed(104.2, 104.3, 9_000)
    assert impatient.ping_at == pytest.approx(107.2)
