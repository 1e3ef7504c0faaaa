"""What is in a data directory, told without touching it.

Takes no lock, writes nothing, cuts nothing, and goes on where a start would refuse, so that an
operator can look before deciding. Of a running replica it shows what had been written a moment ago.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from coordsvc.storage.checkpoint import CHECKPOINT_FILE_NAME
from coordsvc.storage.checkpoint_check import CheckpointReport, check_checkpoint
from coordsvc.storage.data_dir import LOCK_FILE_NAME, META_FILE_NAME, WAL_DIR_NAME
from coordsvc.storage.entry_listing import list_commands
from coordsvc.storage.errors import DiskError, StorageError, disk_errors
from coordsvc.storage.files import Files, FileSystem
from coordsvc.storage.meta import Meta, check_format, decode_meta
from coordsvc.storage.start import plan_start
from coordsvc.storage.wal_reader import Identity, LogReader
from coordsvc.storage.wal_scan import (
    SegmentScan,
    scan_segment,
    segment_file_name,
    segment_ids,
)

RETRIES = 3
"""A replica that runs may write a checkpoint and drop the log before it while both are read."""


class SegmentReport(msgspec.Struct, frozen=True, kw_only=True):
    """`end` is the first byte after the last whole batch; `end_lsn` the position there."""

    file_name: str
    size_bytes: int
    end: int
    batches: int
    start_lsn: int
    end_lsn: int
    base_index: int
    base_term: int
    damaged_at: int | None = None
    damage: str = ""


class EntryReport(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    term: int
    size_bytes: int
    commands: tuple[str, ...]


class LogReport(msgspec.Struct, frozen=True, kw_only=True):
    """The log as a start would recover it, up to the first problem. `base_*`: the last entry
    before it. `entries_count` 0: `last_*` are the base's."""

    base_index: int
    base_term: int
    last_index: int
    last_term: int
    entries_count: int
    entries_bytes: int
    term: int
    voted_for: str | None
    voter: bool
    ambiguous_cut: bool
    """The end is, or was at an earlier start, a write of which only a part is there."""


class CheckpointShown(msgspec.Struct, frozen=True, kw_only=True):
    """The checkpoint, read from end to end. `contents` None: it is damaged, see the problems."""

    file_name: str
    size_bytes: int
    contents: CheckpointReport | None

    @property
    def is_verified(self) -> bool:
        return self.contents is not None


class InspectReport(msgspec.Struct, frozen=True, kw_only=True):
    """`in_use_by`: the process that has the directory open; 0: none, as far as can be seen.
    `problems`: why a start would refuse; empty: it would not."""

    data_dir: str
    in_use_by: int
    meta: Meta | None
    checkpoint: CheckpointShown | None
    log: LogReport
    segments: tuple[SegmentReport, ...]
    other_files: tuple[str, ...]
    problems: tuple[str, ...]
    entries: tuple[EntryReport, ...] = ()


def inspect(
    data_dir: str, *, list_entries: bool = False, files: Files | None = None
) -> InspectReport:
    """Read a data directory. Raises DiskError when it, or a file of it, cannot be read."""
    files = files or FileSystem()
    data_dir = os.path.abspath(data_dir)
    report = _inspect(data_dir, list_entries, files)
    for _ in range(RETRIES):
        if report.in_use_by and report.problems:
            report = _inspect(data_dir, list_entries, files)
    return report


def _inspect(data_dir: str, list_entries: bool, files: Files) -> InspectReport:
    with disk_errors(f"cannot read {data_dir}"):
        files.list_dir(data_dir)  # refuses what is no directory
        problems: list[str] = []
        meta = _read_meta(data_dir, files, problems)
        directory = os.path.join(data_dir, WAL_DIR_NAME)
        names = files.list_dir(directory) if files.is_dir(directory) else []
        if meta is not None and meta.has_log and not segment_ids(names):
            problems.append(f"{directory}: the log is missing")
        in_use_by = _process_using(os.path.join(data_dir, LOCK_FILE_NAME))
        # Before the log: a log that is read later has what a checkpoint needs.
        checkpoint = _read_checkpoint(data_dir, files, problems)
        reader, segments, is_whole = _read_log(directory, names, files, meta, problems)
        if is_whole and (checkpoint is None or checkpoint.is_verified):
            _check_together(data_dir, files, reader, meta, checkpoint, problems)
    return InspectReport(
        data_dir=data_dir,
        in_use_by=in_use_by,
        meta=meta,
        checkpoint=checkpoint,
        log=_log_report(reader),
        segments=segments,
        other_files=tuple(sorted({*names} - {segment.file_name for segment in segments})),
        problems=tuple(problems),
        entries=tuple(_entry_reports(reader)) if list_entries else (),
    )


def to_dict(report: InspectReport) -> dict[str, object]:
    """The report as JSON has it."""
    result = msgspec.to_builtins(report)
    assert isinstance(result, dict)
    if report.checkpoint is not None and report.checkpoint.contents is not None:
        # 64 bits are more than a JSON number is sure to hold.
        result["checkpoint"]["contents"]["digest"] = f"{report.checkpoint.contents.digest:016x}"
    return result


def render_text(report: InspectReport) -> str:
    """The report for a person to read."""
    return "\n".join(_lines(report))


def _read_meta(data_dir: str, files: Files, problems: list[str]) -> Meta | None:
    file_path = os.path.join(data_dir, META_FILE_NAME)
    if not files.exists(file_path):
        problems.append(f"{file_path} is missing")
        return None
    meta = None
    try:
        meta = decode_meta(files.read(file_path), file_path)
        check_format(meta, data_dir)
    except StorageError as error:
        problems.append(str(error))
    return meta


def _read_log(
    directory: str, names: list[str], files: Files, meta: Meta | None, problems: list[str]
) -> tuple[LogReader, tuple[SegmentReport, ...], bool]:
    """Read as recovery does, up to the first problem; the segments after it are only scanned.
    The last value: there was none."""
    reader = LogReader(directory, Identity(b"", 0))
    if meta is not None:
        reader.identity = Identity(
            bytes.fromhex(meta.uuid), meta.replica_id, bytes.fromhex(meta.cluster_id)
        )
        reader.synced_lsn = meta.synced_lsn
    reports: list[SegmentReport] = []
    is_whole = True
    ids = segment_ids(names)
    for segment_id in ids:
        file_path = os.path.join(directory, segment_file_name(segment_id))
        try:
            data = files.read(file_path)
        except FileNotFoundError:
            continue  # a running replica has just unlinked it
        scan = scan_segment(data, segment_id)
        reports.append(_segment_report(data, scan))
        next_path = os.path.join(directory, segment_file_name(segment_id + 1))
        if segment_id == ids[-1] and scan.is_closed and files.exists(next_path):
            ids.append(segment_id + 1)  # a running replica has just begun it
        if meta is None and scan.header is not None:
            reader.identity = Identity(scan.header.uuid, scan.header.replica_id)
        if is_whole:
            try:
                reader.take_segment(data, scan)
            except StorageError as error:
                problems.append(str(error))
                is_whole = False
    reader.finish()
    if is_whole:
        try:
            reader.check_end()
        except StorageError as error:
            problems.append(str(error))
            is_whole = False
    return reader, tuple(reports), is_whole


def _read_checkpoint(data_dir: str, files: Files, problems: list[str]) -> CheckpointShown | None:
    file_path = os.path.join(data_dir, CHECKPOINT_FILE_NAME)
    if not files.exists(file_path):
        return None
    contents = None
    try:
        contents = check_checkpoint(file_path)
    except DiskError:
        raise
    except StorageError as error:
        problems.append(str(error))
    return CheckpointShown(
        file_name=CHECKPOINT_FILE_NAME,
        size_bytes=files.file_size(file_path),
        contents=contents,
    )


def _check_together(
    data_dir: str,
    files: Files,
    reader: LogReader,
    meta: Meta | None,
    checkpoint: CheckpointShown | None,
    problems: list[str],
) -> None:
    """What a start would refuse although log and checkpoint are whole, each by itself."""

    def read(file_path: str) -> CheckpointReport:
        is_known = file_path == os.path.join(data_dir, CHECKPOINT_FILE_NAME)
        known = checkpoint.contents if checkpoint is not None and is_known else None
        return known or check_checkpoint(file_path)

    try:
        plan_start(
            data_dir,
            files,
            reader.log,
            has_checkpoint=meta is not None and bool(meta.lmdb_engine),
            cluster_id=reader.identity.cluster_id,
            read=read,
        )
    except DiskError:
        raise
    except StorageError as error:
        problems.append(str(error))


def _segment_report(data: bytes, scan: SegmentScan) -> SegmentReport:
    header, damage = scan.header, scan.damage
    return SegmentReport(
        file_name=segment_file_name(scan.segment_id),
        size_bytes=len(data),
        end=scan.end,
        batches=len(scan.batches),
        start_lsn=scan.lsn_start,
        end_lsn=scan.lsn_end,
        base_index=0 if header is None else header.base_index,
        base_term=0 if header is None else header.base_term,
        damaged_at=None if damage is None else damage.offset,
        damage="" if damage is None else damage.reason,
    )


def _log_report(reader: LogReader) -> LogReport:
    log = reader.log
    return LogReport(
        base_index=log.base_index,
        base_term=log.base_term,
        last_index=reader.state.last_index,
        last_term=reader.state.last_term,
        entries_count=len(log.entries),
        entries_bytes=sum(len(payload) for payload, _, _ in log.entries),
        term=log.term,
        voted_for=log.voted_for,
        voter=log.voter,
        ambiguous_cut=log.ambiguous_cut,
    )


def _entry_reports(reader: LogReader) -> Iterator[EntryReport]:
    for payload, index, term in reader.log.entries:
        yield EntryReport(
            index=index, term=term, size_bytes=len(payload), commands=list_commands(payload)
        )


def _process_using(lock_path: str) -> int:
    """The process that holds the lock, asked of the kernel: trying to take it, even for a moment,
    could make a replica that is just starting fail."""
    try:
        inode = os.stat(lock_path).st_ino
        with open("/proc/locks", encoding="ascii") as file:
            lines = [line.split() for line in file]
    except OSError:
        return 0
    for fields in lines:
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(f":{inode}"):
            return int(fields[4])
    return 0


def _checkpoint_lines(checkpoint: CheckpointShown | None) -> Iterator[str]:
    if checkpoint is None:
        yield "checkpoint      none"
        return
    size = f"{checkpoint.file_name}, {checkpoint.size_bytes} bytes"
    contents = checkpoint.contents
    if contents is None:
        yield f"checkpoint      {size}, damaged"
        return
    yield f"checkpoint      {size}, verified"
    yield f"  covers        entries up to index {contents.index}, term {contents.term}"
    yield f"  state         zxid {contents.zxid}, digest {contents.digest:016x}"
    records = ", ".join(f"{count} {table}" for table, count in contents.records.items())
    yield f"  records       {records} ({contents.bytes} bytes)"


def _lines(report: InspectReport) -> Iterator[str]:
    yield f"data directory  {report.data_dir}"
    if report.in_use_by:
        yield f"in use by       process {report.in_use_by}: its last write may be under way"
    if report.meta is not None:
        meta = report.meta
        yield f"format          {meta.format}"
        yield f"replica id      {meta.replica_id}"
        yield f"members         {', '.join(map(str, meta.members))}"
        yield f"uuid            {meta.uuid}"
        yield f"cluster id      {meta.cluster_id or '(not known yet)'}"
        yield f"synced          at least up to LSN {meta.synced_lsn}"
    yield from _checkpoint_lines(report.checkpoint)
    log = report.log
    yield f"log begins      after entry {log.base_index}, term {log.base_term}"
    extent = f"{log.base_index + 1} to {log.last_index}" if log.entries_count else "none"
    yield f"entries         {extent} ({log.entries_count}, {log.entries_bytes} bytes)"
    yield f"last entry      index {log.last_index}, term {log.last_term}"
    yield f"hard state      term {log.term}, voted for {log.voted_for or 'nobody'}"
    yield f"voter           {'yes' if log.voter else 'no'}"
    if log.ambiguous_cut:
        yield "cut             a write is incomplete: what it held may have been acknowledged"
    for segment in report.segments:
        yield (
            f"segment         {segment.file_name}: {segment.end} of {segment.size_bytes} bytes,"
            f" {segment.batches} batches, LSN {segment.start_lsn} to {segment.end_lsn}"
        )
        if segment.damaged_at is not None:
            yield f"                at byte {segment.damaged_at}: {segment.damage}"
    if report.other_files:
        yield f"other files     {', '.join(report.other_files)}"
    for problem in report.problems:
        yield f"problem         {problem}"
    for entry in report.entries:
        yield f"entry {entry.index}  term {entry.term}, {entry.size_bytes} bytes"
        yield from (f"  {command}" for command in entry.commands)
