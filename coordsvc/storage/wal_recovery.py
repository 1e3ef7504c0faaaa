"""Opening the write-ahead log: read all, cut or refuse, make durable what was read.

What the kernel shows after the process was killed may be in its page cache only, or, after a
failed sync, differ from the disk for good. So the last segment's valid batches are written to a new
file, which is synced and takes the old one's name, before anything read here is acted upon. Older
segments were synced before the switch to the next one, all but perhaps the marker that closes the
last of them, which is written again. A crash at any point of this leaves either the old file or the
new one under the segment's name.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from coordsvc.storage.errors import disk_errors
from coordsvc.storage.files import Files, replace_file, write_all
from coordsvc.storage.wal_format import (
    CLOSED_MARKER,
    CUT_MARKER,
    MARKER,
    SECTOR_BYTES,
    BatchInfo,
    Kind,
    encode_batch,
    encode_segment_header,
    records_of,
    seed_of,
)
from coordsvc.storage.wal_reader import (
    Identity,
    LogReader,
    RecoveredLog,
    SegmentFile,
    segment_header,
)
from coordsvc.storage.wal_scan import (
    scan_segment,
    segment_file_name,
    segment_ids,
)
from coordsvc.storage.wal_state import WalState

SPARE_FILE_NAME = "spare.tmp"
REWRITE_FILE_NAME = "rewrite.tmp"
ZEROS = bytes(1 << 20)


@dataclass
class OpenSegment:
    """The segment being written, and all the writer needs to go on."""

    handle: int
    segment_id: int
    offset: int
    size: int
    lsn: int
    state: WalState
    segments: list[SegmentFile]
    """Oldest first; the last one is this one."""


def recover(
    directory: str,
    files: Files,
    identity: Identity,
    segment_bytes: int,
    synced_lsn: int,
    check: Callable[[RecoveredLog], None] = lambda log: None,
) -> tuple[RecoveredLog, OpenSegment]:
    """Raise CorruptionError when something synced is damaged or missing (`synced_lsn`: the log
    reached at least this far), DataDirRefusedError when the log is another replica's or a newer
    version's, DiskError when the disk fails. `check` may refuse what was read before anything is
    changed."""
    with disk_errors(f"cannot open the log in {directory}"):
        if not files.is_dir(directory) or not segment_ids(files.list_dir(directory)):
            create_log(directory, files, identity)
        reader = LogReader(directory, identity, synced_lsn)
        for segment_id in segment_ids(files.list_dir(directory)):
            data = files.read(os.path.join(directory, segment_file_name(segment_id)))
            reader.take_segment(data, scan_segment(data, segment_id))
        reader.finish()
        reader.check_end()
        check(reader.log)
        _close_older(reader, files)
        return reader.log, _rewrite_last(reader, files, segment_bytes)


def create_log(directory: str, files: Files, identity: Identity) -> None:
    """Begin a log: one segment with nothing but its header. `recover` preallocates the rest."""
    with disk_errors(f"cannot create the log in {directory}"):
        files.make_dir(directory)
        files.fsync_dir(os.path.dirname(directory))
        header = segment_header(1, identity, WalState(), identity.cluster_id, SECTOR_BYTES)
        content = bytes(encode_segment_header(header, 0))
        assert len(content) == header.size_bytes
        replace_file(files, os.path.join(directory, segment_file_name(1)), content)


def _close_older(reader: LogReader, files: Files) -> None:
    """Have the last segment but one closed on disk before the last one gets its first batch."""
    older, scan = reader.older, reader.scan
    assert scan is not None
    if older is None or scan.batches:
        return
    marker = encode_batch(
        [CLOSED_MARKER],
        segment_id=older.segment_id,
        lsn_start=older.lsn_end,
        synced_lsn=older.lsn_end,
        seed=seed_of(reader.identity.uuid),
    )
    handle = files.open(os.path.join(reader.directory, segment_file_name(older.segment_id)))
    try:
        # Also when it is there: it may be in the page cache only.
        offset = older.batches[-1].offset if older.is_closed else older.end
        write_all(files, handle, marker, offset)
        files.fdatasync(handle)
    finally:
        files.close(handle)


def _rewrite_last(reader: LogReader, files: Files, segment_bytes: int) -> OpenSegment:
    """Write what is valid of the last segment to a new, preallocated file in its place."""
    content, size = _rewritten_content(reader, segment_bytes)
    segment = reader.segments[-1]
    directory = reader.directory
    raw_path = _raw_file(files, directory, size)
    handle = files.open(raw_path)
    try:
        files.allocate(handle, size)
        write_all(files, handle, content, 0)
        fill_zeros(files, handle, len(content), size)
        files.fdatasync(handle)
        files.rename(raw_path, os.path.join(directory, segment_file_name(segment.segment_id)))
        files.fsync_dir(directory)
    except BaseException:
        files.close(handle)
        raise
    scan = reader.scan
    return OpenSegment(
        handle=handle,
        segment_id=segment.segment_id,
        offset=len(content),
        size=size,
        lsn=0 if scan is None else scan.lsn_end,
        state=reader.state,
        segments=reader.segments,
    )


def _rewritten_content(reader: LogReader, segment_bytes: int) -> tuple[bytes, int]:
    """What to write, and the size of the file: with room at least for the closing marker."""
    scan, identity = reader.scan, reader.identity
    assert scan is not None and scan.header is not None
    body = bytearray(reader.data[scan.body_offset : scan.end])
    if reader.has_cut or not _ends_with_marker(reader.data, scan.batches):
        # All of it is synced before it gets the segment's name, and the marker says so.
        body += encode_batch(
            [CUT_MARKER if reader.has_cut else MARKER],
            segment_id=scan.segment_id,
            lsn_start=scan.lsn_end,
            synced_lsn=scan.lsn_end,
            seed=seed_of(identity.uuid),
        )
    size = max(segment_bytes, scan.body_offset + len(body) + SECTOR_BYTES)
    header = msgspec.structs.replace(scan.header, size_bytes=size)
    content = bytes(encode_segment_header(header, scan.lsn_start) + body)
    assert len(content) + SECTOR_BYTES <= size
    return content, size


def _ends_with_marker(data: bytes, batches: list[BatchInfo]) -> bool:
    """Whether nothing, or only a marker, comes after what is known to be synced."""
    return not batches or next(records_of(data, batches[-1]))[0] == Kind.MARKER


def _raw_file(files: Files, directory: str, size: int) -> str:
    """A file to write to: left over by a crash or kept as the spare, so that recovery succeeds on
    a full disk; or a new one. Other leftovers are removed."""
    chosen = None
    for name in (REWRITE_FILE_NAME, SPARE_FILE_NAME):
        file_path = os.path.join(directory, name)
        if not files.exists(file_path):
            continue
        if chosen is None and files.file_size(file_path) == size:
            chosen = file_path
        else:
            files.unlink(file_path)
    return chosen or os.path.join(directory, REWRITE_FILE_NAME)


def fill_zeros(files: Files, handle: int, start: int, end: int) -> None:
    """Write zeros over [start, end): writing into written blocks later changes no metadata, which
    would cost each sync a journal commit."""
    while start < end:
        size = min(len(ZEROS), end - start)
        write_all(files, handle, memoryview(ZEROS)[:size], start)
        start += size
