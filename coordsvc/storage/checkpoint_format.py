"""The bytes of a checkpoint: what the keys and values of its LMDB file are. Pure.

::

    key    = table, one byte; the record's key (`ChangedRecords.items`)
    value  = hash of the record, 8 bytes; the record

The hash is the record's share of the state's digest, over table, key and record: it finds a bit
that flipped in any of them, and the digest of all that was written is the sum of what is there.
Table 0 has one key: what the checkpoint covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from coordsvc.core.digest import record_hash
from coordsvc.core.records import SINGLETONS, Record, encode_record, key_bytes

CHECKPOINT_FORMAT: Final = 1
HASH_BYTES: Final = 8
HASH_MASK: Final = 2**64 - 1

INFO_TABLE: Final = 0
INFO_KEY: Final = b"\x00info"
SINGLETONS_KEY: Final = SINGLETONS.to_bytes(1, "big") + key_bytes(0)


@dataclass(frozen=True)
class CheckpointInfo:
    """The last entry covered, and the state after it."""

    index: int
    term: int
    zxid: int
    digest: int


NO_CHECKPOINT: Final = CheckpointInfo(index=1, term=0, zxid=0, digest=0)
"""Where a replica without a checkpoint starts: at the entry that all take for granted."""


class StoredInfo(msgspec.Struct, array_like=True, frozen=True):
    """`CheckpointInfo` on disk. Fields are only ever appended."""

    format: int
    index: int
    term: int
    zxid: int
    digest: int

    @property
    def info(self) -> CheckpointInfo:
        return CheckpointInfo(self.index, self.term, self.zxid, self.digest)


_info_decoder: Final = msgspec.msgpack.Decoder(StoredInfo)


def encode_value(table_key: bytes, record: Record) -> bytes:
    """The record with its hash before it."""
    body = encode_record(record)
    return seal(table_key, body)


def encode_info(info: CheckpointInfo) -> bytes:
    stored = StoredInfo(CHECKPOINT_FORMAT, info.index, info.term, info.zxid, info.digest)
    return seal(INFO_KEY, msgspec.msgpack.encode(stored))


def decode_info(value: bytes) -> StoredInfo | None:
    """None: these are not the bytes that were written."""
    body = open_value(INFO_KEY, value)
    if body is None:
        return None
    try:
        return _info_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def hash_of(value: bytes | memoryview) -> int:
    """The hash before the record, as it was written."""
    return int.from_bytes(value[:HASH_BYTES], "big")


def open_value(table_key: bytes, value: bytes) -> bytes | None:
    """The record's bytes; None when its hash does not match them."""
    body = value[HASH_BYTES:]
    if len(value) < HASH_BYTES or not table_key:
        return None
    if record_hash(table_key[0], table_key[1:], body) != hash_of(value):
        return None
    return body


def key_text(table_key: bytes) -> str:
    """A key for a message."""
    return f"table {table_key[0]}, key {table_key[1:].hex()}" if table_key else "an empty key"


def seal(table_key: bytes, body: bytes) -> bytes:
    """The bytes with their hash before them."""
    own = record_hash(table_key[0], table_key[1:], body)
    return own.to_bytes(HASH_BYTES, "big") + body
