"""The disk side of the write-ahead log. Every call runs as a job of the executor, one at a time.

Writes groups of records into the open segment, one sync per group, and moves on to the next
segment: the old one is synced; the spare, long since filled with zeros, gets its header and is
synced; then it gets its name and the directory is synced; then the old one is marked as closed;
only then comes the new one's first record. So a file with a segment's name always has a header,
everything before it is on disk, and its own disappearance is noticed once anything was in it.

After any error the disk's state is unknown: the caller must not call again.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence

from coordsvc.storage.errors import disk_errors
from coordsvc.storage.files import Files, write_all
from coordsvc.storage.wal_format import (
    CLOSED_MARKER,
    HEADER_BYTES,
    MARKER,
    RECORD_BYTES,
    SECTOR_BYTES,
    Record,
    encode_batch,
    encode_segment_header,
    round_up,
    seed_of,
    takes_lsn,
)
from coordsvc.storage.wal_reader import Identity, SegmentFile, segment_header
from coordsvc.storage.wal_recovery import OpenSegment
from coordsvc.storage.wal_scan import segment_file_name
from coordsvc.storage.wal_spare import SpareSegment

BATCH_BYTES_TARGET = 1 << 20
"""A group beyond this is written as several batches, to bound the copy each one needs."""
FSYNC_SECONDS_BOUNDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""From a sync of a fast disk to one that is about to be given up."""
RESERVED_BYTES = 2 * SECTOR_BYTES
"""Left over at a segment's end, for a marker and for the one that closes the segment."""


class SegmentWriter:
    """Owns the open segment and the spare. The counters may be read from the loop."""

    def __init__(
        self,
        directory: str,
        files: Files,
        identity: Identity,
        segment_bytes: int,
        segment: OpenSegment,
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._files = files
        self._identity = identity
        self._segment_bytes = segment_bytes
        self._seed = seed_of(identity.uuid)
        self._clock = clock
        self._handle = segment.handle
        self._segment_id = segment.segment_id
        self._offset = segment.offset
        self._size = segment.size
        self._lsn = segment.lsn
        self._synced_lsn = segment.lsn
        self._state = segment.state
        self._segments = segment.segments
        self.spare = SpareSegment(directory, files, segment_bytes)
        self.fsyncs_total = 0
        self.bytes_written_total = 0
        self.last_fsync_seconds = 0.0
        self.fsync_seconds_total = 0.0
        self.fsync_counts = [0] * (len(FSYNC_SECONDS_BOUNDS) + 1)

    @property
    def segments_count(self) -> int:
        return len(self._segments)

    @property
    def needs_spare(self) -> bool:
        """Whether the spare has a step to make now. Its space is taken at once; the zeros wait
        until the open segment is partly used: they compete with the groups for the disk."""
        spare = self.spare
        if spare.is_reserved:
            return not spare.is_ready and self._offset >= self._size // 4
        return not spare.is_out_of_space

    def write_group(self, records: Sequence[Record]) -> int:
        """Write and sync; return the LSN up to which everything is on disk now."""
        with disk_errors(f"cannot write the log in {self._directory}"):
            start = 0
            while start < len(records):
                end = self._end_of_batch(records, start)
                if end == start:
                    self._switch(self._room_for(records[start]))
                    continue
                self._write_batch(records[start:end])
                start = end
            self._sync()
        return self._synced_lsn

    def write_marker(self) -> None:
        """Record that everything so far is on disk. There is always room: see `_end_of_batch`."""
        with disk_errors(f"cannot write the log in {self._directory}"):
            self._write_batch([MARKER])
            self._sync()

    def drop_before(self, index: int) -> None:
        """Unlink the segments that hold no entry from `index` on. The open one stays: its header,
        which is on disk, makes the older ones' hard state dispensable."""
        with disk_errors(f"cannot unlink old segments in {self._directory}"):
            while len(self._segments) > 1 and self._segments[1].base_index < index:
                name = segment_file_name(self._segments[0].segment_id)
                self._files.unlink(os.path.join(self._directory, name))
                # One by one, so that a crash never leaves a gap in the row.
                self._files.fsync_dir(self._directory)
                del self._segments[0]

    def release(self) -> None:
        self.spare.release()
        self._files.close(self._handle)

    def _end_of_batch(self, records: Sequence[Record], start: int) -> int:
        """How many records from `start` on the next batch takes; `start` when the segment is full.
        `RESERVED_BYTES` are left over."""
        room = self._size - self._offset - RESERVED_BYTES
        size = HEADER_BYTES
        for position in range(start, len(records)):
            size += RECORD_BYTES + len(records[position][3])
            if round_up(size) > room or (size > BATCH_BYTES_TARGET and position > start):
                return position
        return len(records)

    def _room_for(self, record: Record) -> int:
        """The size of a segment into which the record fits, however large it is."""
        batch_size = round_up(HEADER_BYTES + RECORD_BYTES + len(record[3]))
        header_size = len(self._next_header(self._segment_bytes))
        return max(self._segment_bytes, header_size + batch_size + RESERVED_BYTES)

    def _next_header(self, size: int) -> bytearray:
        header = segment_header(
            self._segment_id + 1, self._identity, self._state, self._identity.cluster_id, size
        )
        return encode_segment_header(header, self._lsn)

    def _write_batch(self, records: Sequence[Record]) -> None:
        batch = encode_batch(
            records,
            segment_id=self._segment_id,
            lsn_start=self._lsn,
            synced_lsn=self._synced_lsn,
            seed=self._seed,
        )
        assert self._offset + len(batch) <= self._size
        write_all(self._files, self._handle, batch, self._offset)
        self._offset += len(batch)
        self.bytes_written_total += len(batch)
        for record in records:
            self._state.apply(*record)
            self._lsn += takes_lsn(record[0])

    def _sync(self) -> None:
        self._timed_sync(self._handle)
        self._synced_lsn = self._lsn

    def _timed_sync(self, handle: int) -> None:
        start = self._clock()
        self._files.fdatasync(handle)
        seconds = self._clock() - start
        self.last_fsync_seconds = seconds
        self.fsync_seconds_total += seconds
        self.fsync_counts[bisect_left(FSYNC_SECONDS_BOUNDS, seconds)] += 1
        self.fsyncs_total += 1

    def _switch(self, size: int) -> None:
        """Go on in a new segment of at least this size."""
        self._sync()
        raw_path, handle, raw_size = self.spare.take(size)
        header = self._next_header(raw_size)
        write_all(self._files, handle, header, 0)
        self._timed_sync(handle)
        name = segment_file_name(self._segment_id + 1)
        self._files.rename(raw_path, os.path.join(self._directory, name))
        self._files.fsync_dir(self._directory)
        self._write_batch([CLOSED_MARKER])
        self._sync()
        self._files.close(self._handle)
        self._segment_id += 1
        self._handle, self._size, self._offset = handle, raw_size, len(header)
        state = self._state
        self._segments.append(SegmentFile(self._segment_id, state.last_index, state.last_term))
        self.bytes_written_total += len(header)
