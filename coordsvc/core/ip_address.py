"""Addresses and networks for the ``ip`` scheme of ACLs.

Written out instead of using the standard library's `ipaddress`, whose idea of a legal address
has changed between Python versions: replicas on different ones would disagree about an ACL.
"""

from __future__ import annotations

from functools import lru_cache

Network = tuple[int, int, int]
"""(bits of the family: 32 or 128, the address as a number, bits of the prefix)."""

_MAPPED_PREFIX = 0xFFFF << 32
_DECIMAL = frozenset("0123456789")
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


@lru_cache(maxsize=4096)
def parse_network(text: str) -> Network | None:
    """``10.0.0.0/8``, ``2001:db8::/32``, or an address alone; None when it is neither.

    An IPv4 address in IPv6 clothing (``::ffff:10.0.0.1``) is the IPv4 address: that is how a
    client shows on a socket that serves both families.
    """
    address, slash, prefix = text.partition("/")
    number, family_bits = _parse_ipv4(address), 32
    if number is None:
        number, family_bits = _parse_ipv6(address), 128
    if number is None:
        return None
    bits = _parse_decimal(prefix, family_bits) if slash else family_bits
    if bits is None:
        return None
    if family_bits == 128 and bits >= 96 and number >> 32 == _MAPPED_PREFIX >> 32:
        return 32, number & 0xFFFFFFFF, bits - 96
    return family_bits, number, bits


def is_in_network(address: str, network: str) -> bool:
    """Whether the client's `address` lies in `network`. False when either is malformed."""
    client, allowed = parse_network(address), parse_network(network)
    if client is None or allowed is None or client[0] != allowed[0] or client[2] != client[0]:
        return False
    shift = allowed[0] - allowed[2]
    return client[1] >> shift == allowed[1] >> shift


def _parse_decimal(text: str, most: int) -> int | None:
    if not 1 <= len(text) <= 3 or not _DECIMAL.issuperset(text):
        return None
    number = int(text)
    if number > most or (text[0] == "0" and len(text) > 1):
        return None
    return number


def _parse_ipv4(text: str) -> int | None:
    octets = text.split(".")
    if len(octets) != 4:
        return None
    number = 0
    for octet in octets:
        value = _parse_decimal(octet, 255)
        if value is None:
            return None
        number = number << 8 | value
    return number


def _parse_ipv6(text: str) -> int | None:
    head, gap, tail = text.partition("::")
    first = _parse_groups(head, is_end=not gap)
    last = _parse_groups(tail, is_end=True)
    if first is None or last is None or len(first) + len(last) > (7 if gap else 8):
        return None
    if not gap and len(first) != 8:
        return None
    groups = first + [0] * (8 - len(first) - len(last)) + last
    number = 0
    for group in groups:
        number = number << 16 | group
    return number


def _parse_groups(text: str, *, is_end: bool) -> list[int] | None:
    """The 16-bit groups of one side of ``::``; an address may end in an IPv4 address."""
    if not text:
        return []
    parts = text.split(":")
    groups: list[int] = []
    if is_end and "." in parts[-1]:
        embedded = _parse_ipv4(parts.pop())
        if embedded is None:
            return None
        groups = [embedded >> 16, embedded & 0xFFFF]
    values: list[int] = []
    for part in parts:
        if not 1 <= len(part) <= 4 or not _HEXADECIMAL.issuperset(part):
            return None
        values.append(int(part, 16))
    return values + groups
