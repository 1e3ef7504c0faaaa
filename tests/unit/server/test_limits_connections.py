"""Connections with calls under way are counted by address."""

from __future__ import annotations

import pytest

from coordsvc.errors import LimitExceededError
from coordsvc.server.config_model import LimitsConfig
from coordsvc.server.limits_connections import Connections


def connections(maximum: int) -> Connections:
    return Connections(LimitsConfig(connections_per_address_max=maximum))


def test_a_new_connection_of_an_address_that_has_enough_is_refused() -> None:
    count = connections(2)
    count.enter("ipv4:10.0.0.1:1")
    count.enter("ipv4:10.0.0.1:2")
    with pytest.raises(LimitExceededError, match=r"2 connections here; limits\.connections_per"):
        count.enter("ipv4:10.0.0.1:3")
    count.enter("ipv4:10.0.0.2:3")
    assert count.most_of_an_address == 2


def test_a_connection_it_has_goes_on_whatever_it_asks_for() -> None:
    count = connections(1)
    for _ in range(100):
        count.enter("ipv4:10.0.0.1:1")
    assert count.most_of_an_address == 1
    for _ in range(99):
        count.leave("ipv4:10.0.0.1:1")
    with pytest.raises(LimitExceededError):
        count.enter("ipv4:10.0.0.1:2")
    count.leave("ipv4:10.0.0.1:1")
    count.enter("ipv4:10.0.0.1:2")


def test_addresses_are_told_apart_in_both_families() -> None:
    count = connections(1)
    peers = ("ipv4:10.0.0.1:1", "ipv6:%5B::1%5D:1", "ipv6:%5B2001:db8::1%5D:1", "unix:", "unix:/x")
    for peer in peers:
        count.enter(peer)
    for peer in ("ipv4:10.0.0.1:2", "ipv6:%5B::1%5D:2", "ipv6:%5B2001:db8::1%5D:2"):
        with pytest.raises(LimitExceededError):
            count.enter(peer)


def test_nothing_is_left_of_those_that_have_gone() -> None:
    count = connections(10)
    for port in range(10):
        count.enter(f"ipv4:10.0.0.1:{port}")
    with pytest.raises(LimitExceededError):
        count.enter("ipv4:10.0.0.1:11")
    for port in range(10):
        count.leave(f"ipv4:10.0.0.1:{port}")
    assert count.most_of_an_address == 0
    assert not vars(count)["_calls"] and not vars(count)["_per_address"]
