"""Host and port pairs."""

from __future__ import annotations

import pytest

from coordsvc.server.addresses import Address, parse_address, parse_peers


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7401", Address("127.0.0.1", 7401)),
        ("[::1]:7401", Address("::1", 7401)),
        ("replica-1.coordsvc:0", Address("replica-1.coordsvc", 0)),
    ],
)
def test_an_address_is_read_and_written(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    ["", "7401", ":7401", "host", "host:", "host:x", "host:65536", "host:-1", "::1:7401",
     "[::1:7401", "a b:1", "http://host:1", "host:٣"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


def test_loopback_is_what_only_this_machine_reaches() -> None:
    near = ("127.0.0.1", "127.9.9.9", "::1", "localhost")
    far = ("0.0.0.0", "::", "10.0.0.1", "example.org")
    assert all(Address(host, 1).is_loopback for host in near)
    assert not any(Address(host, 1).is_loopback for host in far)


def test_peers_are_sorted_by_id() -> None:
    peers = parse_peers("2=b:2, 1=a:1,3=[::1]:3")
    assert list(peers) == [1, 2, 3]
    assert list(peers.values()) == [Address("a", 1), Address("b", 2), Address("::1", 3)]
    assert parse_peers("") == {}


@pytest.mark.parametrize(
    "text",
    ["a:1", "0=a:1", "-1=a:1", "x=a:1", "1=a:1,1=b:1", "1=a:1,2=a:1", "1=a:0", "1=0.0.0.0:1",
     "4294967296=a:1"],
)  # fmt: skip
def test_peers_nobody_could_dial_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_peers(text)
