"""The digest: one number for the whole state, the same on every replica at the same entry.

It is the sum, modulo 2^64, of a hash of each record with its table and key, so the order in which
records came to be does not matter and a change costs only what changed. It finds replicas that
have diverged by a bug or a bad disk; it is no protection against somebody who wants to deceive.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Protocol, TypeVar

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
_Key_contra = TypeVar("_Key_contra", contravariant=True)

_PAGE_BITS = 6
_PAGE = 1 << _PAGE_BITS


class _Hashes(Protocol[_Key_contra]):
    """The hash of each record there is; 0 of one that is not."""

    def get(self, key: _Key_contra, default: int, /) -> int: ...
    def pop(self, key: _Key_contra, default: int, /) -> int: ...
    def __setitem__(self, key: _Key_contra, value: int, /) -> None: ...


class _NumberedHashes:
    """Of records with numbers that are given one after the other: some twelve bytes for each, where
    a dict takes a hundred. In pages that go when all that is in them has gone; they are small, for
    of many znodes made together perhaps a single one stays."""

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}
        self._counts: dict[int, int] = {}

    def get(self, key: int, default: int, /) -> int:
        page = self._pages.get(key >> _PAGE_BITS)
        return page[key & _PAGE - 1] or default if page is not None else default

    def __setitem__(self, key: int, value: int, /) -> None:
        number = key >> _PAGE_BITS
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = array("Q", bytes(8 * _PAGE))
            self._counts[number] = 0
        place = key & _PAGE - 1
        self._counts[number] += bool(value) - bool(page[place])
        page[place] = value

    def pop(self, key: int, default: int, /) -> int:
        value = self.get(key, 0)
        if not value:
            return default
        self[key] = 0
        number = key >> _PAGE_BITS
        if not self._counts[number]:
            del self._pages[number], self._counts[number]
        return value

    def __len__(self) -> int:
        return sum(self._counts.values())


class Digest:
    """The running sum, with each record's hash, so that an old one can be taken out."""

    def __init__(self) -> None:
        self._sum = 0
        self._znodes = _NumberedHashes()
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
    hashes: _Hashes[_Key],
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
