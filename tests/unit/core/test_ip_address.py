"""Addresses and networks, written out so that no Python version changes their meaning."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsvc.core.ip_address import is_in_network, parse_network


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.1.2.3", (32, 0x0A010203, 32)),
        ("10.0.0.0/8", (32, 0x0A000000, 8)),
        ("0.0.0.0/0", (32, 0, 0)),
        ("::", (128, 0, 128)),
        ("::1", (128, 1, 128)),
        ("2001:db8::/32", (128, 0x20010DB8 << 96, 32)),
        ("1:2:3:4:5:6:7:8", (128, 0x00010002000300040005000600070008, 128)),
        ("64:ff9b::10.0.0.1", (128, 0x0064FF9B << 96 | 0x0A000001, 128)),
        ("::ffff:10.0.0.1", (32, 0x0A000001, 32)),
        ("::ffff:10.0.0.0/104", (32, 0x0A000000, 8)),
    ],
)
def test_legal(text: str, network: tuple[int, int, int]) -> None:
    assert parse_network(text) == network


@pytest.mark.parametrize(
    "text",
    ["", "/", "10.0.0", "10.0.0.0.0", "10.0.0.256", "10.0.0.01", "10.0.0.0/33", "10.0.0.0/", "a"]
    + ["10.0.0.0/-1", "10.0.0.0/08", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "::1::", ":::", "g::"]
    + [
        "12345::",
        "::/129",
        "1.2.3.4::",
        "::1.2.3.4:5",
        "1:2:3:4:5:6:7::8",
        "fe80::1%eth0",
        "١.1.1.1",
    ],
)
def test_malformed(text: str) -> None:
    assert parse_network(text) is None


@pytest.mark.parametrize(
    ("address", "network", "expected"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "0.0.0.0/0", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "::/0", False),
        ("2001:db8::1", "2001:db8::/32", True),
        ("2001:db9::1", "2001:db8::/32", False),
        ("10.0.0.0/8", "10.0.0.0/8", False),  # a client has an address, not a network
        ("nonsense", "10.0.0.0/8", False),
    ],
)
def test_is_in_network(address: str, network: str, expected: bool) -> None:
    assert is_in_network(address, network) is expected


@given(st.ip_addresses())
def test_as_the_standard_library(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    parsed = parse_network(str(address))
    assert parsed is not None
    bits = 32 if address.version == 4 else 128
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert parsed == ((32, int(mapped), 32) if mapped else (bits, int(address), bits))
