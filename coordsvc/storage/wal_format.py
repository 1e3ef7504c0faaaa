"""The bytes of the write-ahead log. Pure: encodes and decodes, opens nothing.

A segment file is a row of batches, each starting on a sector (512 bytes), then zeros to its end::

    batch   = header, records, zeros up to the next sector
    header  = magic, checksum, bytes of records, LSNs taken, segment id, first LSN, synced LSN
    record  = kind, bytes of payload, index, term, payload

* A batch never shares a sector with another, so writing one cannot damage one synced before.
* The checksum (CRC-32, which detects every single-bit flip) covers everything after itself, the
  padding included. It is seeded with the data directory's uuid, which no client knows: data inside
  a torn batch cannot pose as a batch.
* The LSN counts records that change the log or the hard state. A batch takes one for each such
  record; segment headers and markers take none.
* `synced_lsn` is what was known to be on disk when the batch was written. It lets recovery tell a
  batch that was damaged after it was synced from one that was still in flight.

A segment's first batch holds one SEGMENT record and is sealed without the seed, so that the file
can be read by itself. Kinds and fields are format: never reused, never reordered.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeAlias
from zlib import crc32

import msgspec

FORMAT_VERSION = 1
SECTOR_BYTES = 512
"""The unit that disks write whole or not at all."""

MAGIC = b"\xc5WL\x01"

_HEADER = struct.Struct("<4sIIIQQQ")
_CHECKED_FROM = 8
_CHECKSUM = struct.Struct("<I")
_RECORD = struct.Struct("<BIQQ")
HEADER_BYTES = _HEADER.size
RECORD_BYTES = _RECORD.size


class Kind(IntEnum):
    SEGMENT = 1
    """Starts a segment; payload: SegmentHeader."""
    ENTRY = 2
    """Log entry `index` of `term`; payload: the entry."""
    TRUNCATE = 3
    """Drops the entry at `index` and all after it; `term`: of the entry before it."""
    HARD_STATE = 4
    """`term`; `index` 1: voted for the replica named in the payload, 0: for nobody."""
    VOTER = 5
    """`index` 1: this replica may vote and campaign, 0: it is memoryless."""
    MARKER = 6
    """Says that everything before it is synced; `index` 1: and that recovery cut something here
    whose sync may have completed; 2: and that the next segment exists, this one is closed."""
    INSTALLED = 7
    """A snapshot up to `index` of `term` takes the place of the entries up to there. Payload: KEPT,
    the entries after it stay; DROPPED, they went too, for the log was another one there."""


KEPT, DROPPED = b"\x01", b"\x00"


Record: TypeAlias = tuple[int, int, int, bytes]
"""(kind, index, term, payload). A plain tuple: a long log has millions."""

MARKER: Record = (Kind.MARKER, 0, 0, b"")
CUT_MARKER: Record = (Kind.MARKER, 1, 0, b"")
CLOSED_MARKER: Record = (Kind.MARKER, 2, 0, b"")


class SegmentHeader(msgspec.Struct, array_like=True, frozen=True):
    """What was true when the segment began: it makes all older segments dispensable for the hard
    state. `base_*` is the last entry of the log at that time."""

    format: int
    segment_id: int
    replica_id: int
    uuid: bytes
    cluster_id: bytes
    base_index: int
    base_term: int
    term: int
    voted_for: str | None
    voter: bool
    ambiguous_cut: bool
    """A batch whose sync may have completed was cut, and the voter flag not decided since."""
    size_bytes: int
    """Of the file, which is this long and synced before it gets a segment's name: no crash makes
    it shorter."""


_header_decoder = msgspec.msgpack.Decoder(SegmentHeader)


class BatchInfo(NamedTuple):
    """A batch found intact. Its records end at `records_end`, the next batch begins at `end`."""

    offset: int
    records_end: int
    end: int
    lsn_start: int
    lsn_count: int
    synced_lsn: int

    @property
    def lsn_end(self) -> int:
        return self.lsn_start + self.lsn_count


def round_up(size: int) -> int:
    return -(-size // SECTOR_BYTES) * SECTOR_BYTES


def seed_of(uuid: bytes) -> int:
    return crc32(uuid)


def encode_batch(
    records: Sequence[Record],
    *,
    segment_id: int,
    lsn_start: int,
    synced_lsn: int,
    seed: int,
) -> bytearray:
    parts: list[bytes] = [bytes(HEADER_BYTES)]
    size = lsn_count = 0
    for kind, index, term, payload in records:
        parts.append(_RECORD.pack(kind, len(payload), index, term))
        parts.append(payload)
        size += RECORD_BYTES + len(payload)
        lsn_count += takes_lsn(kind)
    parts.append(bytes(round_up(HEADER_BYTES + size) - HEADER_BYTES - size))
    batch = bytearray().join(parts)
    _HEADER.pack_into(batch, 0, MAGIC, 0, size, lsn_count, segment_id, lsn_start, synced_lsn)
    checksum = crc32(memoryview(batch)[_CHECKED_FROM:], seed)
    _CHECKSUM.pack_into(batch, len(MAGIC), checksum)
    return batch


def takes_lsn(kind: int) -> bool:
    return kind not in (Kind.SEGMENT, Kind.MARKER)


def encode_segment_header(header: SegmentHeader, lsn: int) -> bytearray:
    """The first batch of a segment. Everything before it had been synced when it was written."""
    record: Record = (Kind.SEGMENT, 0, 0, msgspec.msgpack.encode(header))
    return encode_batch(
        [record], segment_id=header.segment_id, lsn_start=lsn, synced_lsn=lsn, seed=0
    )


def read_batch(data: bytes, offset: int, segment_id: int, seed: int) -> BatchInfo | None:
    """The batch at `offset`, or None when there is none that is whole and of this segment."""
    if offset + HEADER_BYTES > len(data):
        return None
    magic, checksum, size, lsn_count, own_id, lsn_start, synced_lsn = _HEADER.unpack_from(
        data, offset
    )
    if magic != MAGIC or own_id != segment_id:
        return None
    records_end = offset + HEADER_BYTES + size
    end = offset + round_up(HEADER_BYTES + size)
    if end > len(data):
        return None
    if crc32(memoryview(data)[offset + _CHECKED_FROM : end], seed) != checksum:
        return None
    return BatchInfo(offset, records_end, end, lsn_start, lsn_count, synced_lsn)


def records_of(data: bytes, batch: BatchInfo) -> Iterator[Record]:
    offset, end = batch.offset + HEADER_BYTES, batch.records_end
    unpack = _RECORD.unpack_from
    while offset < end:
        kind, size, index, term = unpack(data, offset)
        offset += RECORD_BYTES
        yield kind, index, term, data[offset : offset + size]
        offset += size


def decode_segment_header(data: bytes, batch: BatchInfo) -> SegmentHeader | None:
    """The header in a segment's first batch; None when it is not one of this format."""
    kind, _, _, payload = next(records_of(data, batch), (0, 0, 0, b""))
    if kind != Kind.SEGMENT:
        return None
    try:
        return _header_decoder.decode(payload)
    except msgspec.MsgspecError:
        return None
