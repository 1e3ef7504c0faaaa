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
