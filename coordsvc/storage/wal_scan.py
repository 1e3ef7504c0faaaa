"""Reading one segment's bytes: which batches are whole, and whether anything else is there.

Pure, shared by recovery and `inspect`. The question it answers about a bad spot: was this synced
once (then it is damage, and starting without it would undo what was acknowledged), or can it be
the remains of a write that was in flight when the process or the power went (then it is cut)?

A batch written later tells: its `synced_lsn` says what was on disk by then. If that lies beyond the
bad spot, the spot was on disk. It was, too, if the later batch continues the log where the spot
begins: then the spot held a marker, and nothing is written before a marker is synced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from coordsvc.storage.wal_format import (
    CLOSED_MARKER,
    MAGIC,
    SECTOR_BYTES,
    BatchInfo,
    SegmentHeader,
    decode_segment_header,
    read_batch,
    records_of,
    seed_of,
)

SEGMENT_SUFFIX = ".wal"


class Damage(NamedTuple):
    """Bytes that are no batch, at `offset`. `was_synced`: proven to have been on disk."""

    offset: int
    reason: str
    was_synced: bool


@dataclass(frozen=True)
class SegmentScan:
    segment_id: int
    header: SegmentHeader | None
    """None: unreadable; `damage` says so."""
    body_offset: int = 0
    """Where the batches after the header begin."""
    lsn_start: int = 0
    lsn_end: int = 0
    batches: list[BatchInfo] = field(default_factory=list)
    """Those whole and in place, without the segment's header."""
    end: int = 0
    """Where the next batch would go."""
    is_closed: bool = False
    """It says itself, at its end, that there is a segment after it."""
    damage: Damage | None = None


def segment_file_name(segment_id: int) -> str:
    return f"{segment_id:016d}{SEGMENT_SUFFIX}"


def segment_ids(file_names: list[str]) -> list[int]:
    """The ids of the segments among a directory's files, oldest first."""
    stems = [name.removesuffix(SEGMENT_SUFFIX) for name in file_names]
    return sorted(
        int(stem)
        for stem, name in zip(stems, file_names, strict=True)
        if stem.isdecimal() and segment_file_name(int(stem)) == name
    )


def scan_segment(data: bytes, segment_id: int) -> SegmentScan:
    first = read_batch(data, 0, segment_id, 0)
    header = decode_segment_header(data, first) if first is not None else None
    if first is None or header is None:
        # A segment gets its name only after its header is synced: this is never a torn write.
        return SegmentScan(
            segment_id, None, damage=Damage(0, "the segment's header is unreadable", True)
        )
    seed = seed_of(header.uuid)
    batches: list[BatchInfo] = []
    offset, lsn = first.end, first.lsn_start
    while (batch := read_batch(data, offset, segment_id, seed)) and batch.lsn_start == lsn:
        batches.append(batch)
        offset, lsn = batch.end, batch.lsn_end
    return SegmentScan(
        segment_id=segment_id,
        header=header,
        body_offset=first.end,
        lsn_start=first.lsn_start,
        lsn_end=lsn,
        batches=batches,
        end=offset,
        is_closed=bool(batches) and next(records_of(data, batches[-1])) == CLOSED_MARKER,
        damage=_examine_size(data, header.size_bytes)
        or _examine_tail(data, offset, lsn, segment_id, seed),
    )


def _examine_size(data: bytes, size_bytes: int) -> Damage | None:
    """A shortened file's end would otherwise look like zeros that were never written to."""
    if len(data) == size_bytes:
        return None
    reason = f"the file has {len(data)} bytes, it was created with {size_bytes}"
    return Damage(min(len(data), size_bytes), reason, True)


def _examine_tail(data: bytes, offset: int, lsn: int, segment_id: int, seed: int) -> Damage | None:
    """What is beyond the last whole batch: None when only zeros."""
    if data.count(0, offset) == len(data) - offset:
        return None
    later = data.find(MAGIC, offset)
    while later >= 0:
        batch = None
        if later % SECTOR_BYTES == 0:
            batch = read_batch(data, later, segment_id, seed)
        if batch is not None and (batch.synced_lsn > lsn or batch.lsn_start <= lsn):
            reason = (
                f"this is no whole batch, but the one at {later} was written after everything"
                f" before LSN {max(batch.synced_lsn, batch.lsn_start)} had been synced"
            )
            return Damage(offset, reason, True)
        later = data.find(MAGIC, later + 1)
    return Damage(offset, "the last write is incomplete", False)
