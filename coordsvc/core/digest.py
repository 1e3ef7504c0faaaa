"""The digest: one number for the whole state, the same on every replica at the same entry.

It is the sum, modulo 2^64, of a hash of each record with its table and key, so the order in which
records came to be does not matter and a change costs only what changed. It finds replicas that
have diverged by a bug or a bad disk; it is no protection against somebody who wants to deceive.
"""

from __future__ import annotations

from hashlib import blake2b

from coordsvc.core.records import SINGLETONS, ChangedRecords, Singletons, encode_record, key_bytes

_MASK = 2**64 - 1
_HASH_BYTES = 8
_SINGLETONS_KEY = key_bytes(0)


def record_hash(table: int, key: bytes, value: bytes) -> int:
    """The hash of one record's bytes, as `State.export_records` gives them."""
    hashed = blake2b(table.to_bytes(1, "big") + key + value, digest_size=_HASH_BYTES)
    return int.from_bytes(hashed.digest(), "big")


class Digest:
    """The running sum, with each record's hash, so that an old one can be taken out."""

    def __init__(self) -> None:
        self._sum = 0
        self._hashes: dict[bytes, int] = {}

    def fold(self, changed: ChangedRecords) -> None:
        """Bring the sum up to the changed records."""
        hashes = self._hashes
        total = self._sum
        for table, key, record in changed.items():
            table_key = table.to_bytes(1, "big") + key
            if record is None:
                total -= hashes.pop(table_key, 0)
                continue
            digest = blake2b(table_key + encode_record(record), digest_size=_HASH_BYTES).digest()
            new = int.from_bytes(digest, "big")
            total += new - hashes.get(table_key, 0)
            hashes[table_key] = new
        self._sum = total & _MASK

    def value(self, singletons: Singletons) -> int:
        """The digest of what was folded, together with the scalars."""
        own = record_hash(SINGLETONS, _SINGLETONS_KEY, encode_record(singletons))
        return (self._sum + own) & _MASK
