"""The digest: one number for the whole state, the same on every replica at the same entry.

It is the sum, modulo 2^64, of a hash of each record with its table and key, so the order in which
records came to be does not matter and a change costs only what changed. It finds replicas that
have diverged by a bug or a bad disk; it is no protection against somebody who wants to deceive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TypeVar

from coordsvc.core.records import (
    ORIGINS,
    RESULTS,
    SESSIONS,
    SINGLETONS,
    ZNODES,
    ChangedRecords,
    Record,
    Singletons,
    encode_record,
    key_bytes,
    result_key_bytes,
)

_MASK = 2**64 - 1
_HASH_BYTES = 8
_SINGLETONS_KEY = key_bytes(0)


def record_hash(table: int, key: bytes, value: bytes) -> int:
    """The hash of one record's bytes, as `State.export_records` gives them."""
    hashed = blake2b(table.to_bytes(1, "big") + key + value, digest_size=_HASH_BYTES)
    return int.from_bytes(hashed.digest(), "big")


_Key = TypeVar("_Key")


class Digest:
    """The running sum, with each record's hash, so that an old one can be taken out."""

    def __init__(self) -> None:
        self._sum = 0
        self._znodes: dict[int, int] = {}
        self._sessions: dict[int, int] = {}
        self._results: dict[tuple[int, int], int] = {}
        self._origins: dict[int, int] = {}

    def fold(self, changed: ChangedRecords) -> None:
        """Bring the sum up to the changed records."""
        self._sum = (
            self._sum
            + _fold(ZNODES, changed.znodes, self._znodes, key_bytes)
            + _fold(SESSIONS, changed.sessions, self._sessions, key_bytes)
            + _fold(RESULTS, changed.results, self._results, result_key_bytes)
            + _fold(ORIGINS, changed.origins, self._origins, key_bytes)
        ) & _MASK

    def value(self, singletons: Singletons) -> int:
        """The digest of what was folded, together with the scalars."""
        own = record_hash(SINGLETONS, _SINGLETONS_KEY, encode_record(singletons))
        return (self._sum + own) & _MASK


def _fold(
    table: int,
    changed: Mapping[_Key, Record | None],
    hashes: dict[_Key, int],
    bytes_of: Callable[[_Key], bytes],
) -> int:
    """What the sum grows by. As `record_hash`, written out: it is done for every record that
    changes."""
    first, total = table.to_bytes(1, "big"), 0
    for key, record in changed.items():
        if record is None:
            total -= hashes.pop(key, 0)
        else:
            digest = blake2b(first + bytes_of(key) + encode_record(record), digest_size=_HASH_BYTES)
            new = int.from_bytes(digest.digest(), "big")
            total += new - hashes.get(key, 0)
            hashes[key] = new
    return total
