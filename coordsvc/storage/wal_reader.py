"""From scanned segments to a log: what recovery and `inspect` have in common.

Checks that each segment continues the one before it, replays the records and refuses what cannot
have been written. Opens and changes nothing.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field

import msgspec

from coordsvc.storage.errors import CorruptionError, DataDirRefusedError
from coordsvc.storage.wal_format import (
    FORMAT_VERSION,
    KEPT,
    SECTOR_BYTES,
    BatchInfo,
    Kind,
    SegmentHeader,
    records_of,
)
from coordsvc.storage.wal_scan import SegmentScan, segment_file_name
from coordsvc.storage.wal_state import WalState


@dataclass(frozen=True)
class Identity:
    """Whose log this is. `cluster_id` is empty until known."""

    uuid: bytes
    replica_id: int
    cluster_id: bytes = b""


@dataclass
class RecoveredLog:
    """What the log held. `entries` are (payload, index, term), from base_index + 1 on."""

    base_index: int = 0
    base_term: int = 0
    entries: list[tuple[bytes, int, int]] = field(default_factory=list)
    term: int = 0
    voted_for: str | None = None
    voter: bool = False
    ambiguous_cut: bool = False
    """A batch was cut whose sync may have completed: this replica may have forgotten a vote or an
    acknowledgement. Holds over restarts until the voter flag is set, either way."""
    is_new: bool = True
    """Nothing was ever recorded."""
    installed: tuple[int, int] | None = None
    """(index, term) of the last snapshot that took the place of entries, if the log still says."""


@dataclass(frozen=True)
class SegmentFile:
    segment_id: int
    base_index: int
    base_term: int


class LogReader:
    """Takes in segments, oldest first, and knows the log and the state they amount to."""

    def __init__(self, directory: str, identity: Identity, synced_lsn: int = 0) -> None:
        self.directory = directory
        self.identity = identity
        self.synced_lsn = synced_lsn
        """The log reached at least this far once, by what is known from outside it."""
        self.log = RecoveredLog()
        self.state = WalState()
        self.segments: list[SegmentFile] = []
        self.older: SegmentScan | None = None
        """The one before `scan`."""
        self.scan: SegmentScan | None = None
        self.data = b""
        self._cut = False

    def take_segment(self, data: bytes, scan: SegmentScan) -> None:
        """Raise CorruptionError or DataDirRefusedError; what came before the fault is taken in."""
        file_path = os.path.join(self.directory, segment_file_name(scan.segment_id))
        if scan.header is None:
            assert scan.damage is not None
            raise CorruptionError(file_path, scan.damage.offset, scan.damage.reason)
        check_identity(file_path, scan.header, self.identity)
        if self.scan is None:
            self._begin(scan.header)
        else:
            self._check_continues(self.scan, scan)
        self.data, self.older, self.scan = data, self.scan, scan
        for batch in scan.batches:
            self._replay(file_path, batch)
        if scan.damage is not None and scan.damage.was_synced:
            raise CorruptionError(file_path, scan.damage.offset, scan.damage.reason)
        header = scan.header
        self.segments.append(SegmentFile(scan.segment_id, header.base_index, header.base_term))

    def finish(self) -> None:
        """There are no more segments: only now is it known which one's end is the log's."""
        log, state = self.log, self.state
        damage = None if self.scan is None else self.scan.damage
        if damage is not None and not damage.was_synced:
            self._cut = state.ambiguous_cut = True
        log.base_index, log.base_term = state.base_index, state.base_term
        log.term, log.voted_for, log.voter = state.term, state.voted_for, state.voter
        log.ambiguous_cut = state.ambiguous_cut
        log.installed = state.installed
        state.has_soft_base = False
        log.is_new = self.scan is None or (self.scan.lsn_end == 0 and not log.ambiguous_cut)

    def check_end(self) -> None:
        """Raise CorruptionError when the log went on beyond the last segment's end once."""
        scan = self.scan
        if scan is None:
            return
        file_path = os.path.join(self.directory, segment_file_name(scan.segment_id))
        if scan.is_closed:
            missing = segment_file_name(scan.segment_id + 1)
            raise CorruptionError(
                file_path, scan.end, f"the segment after it, {missing}, is missing"
            )
        if scan.lsn_end < self.synced_lsn:
            reason = f"the log ends at LSN {scan.lsn_end}, but had been synced up to"
            raise CorruptionError(file_path, scan.end, f"{reason} {self.synced_lsn}")

    @property
    def has_cut(self) -> bool:
        return self._cut

    def _begin(self, header: SegmentHeader) -> None:
        self.state = WalState(
            base_index=header.base_index,
            base_term=header.base_term,
            term=header.term,
            voted_for=header.voted_for,
            voter=header.voter,
            ambiguous_cut=header.ambiguous_cut,
        )
        self.state.has_soft_base = header.segment_id > 1

    def _check_continues(self, previous: SegmentScan, scan: SegmentScan) -> None:
        """The older segment was whole when the newer one was begun, and must be so still."""
        header, state = scan.header, self.state
        assert header is not None
        older = os.path.join(self.directory, segment_file_name(previous.segment_id))
        newer = os.path.join(self.directory, segment_file_name(scan.segment_id))
        if scan.segment_id != previous.segment_id + 1:
            missing = segment_file_name(previous.segment_id + 1)
            raise CorruptionError(newer, 0, f"the segment before it, {missing}, is missing")
        if previous.damage is not None and (scan.batches or not self._is_torn_marker(previous)):
            raise CorruptionError(older, previous.damage.offset, "a closed segment was changed")
        if scan.lsn_start != previous.lsn_end:
            reason = f"it ends at LSN {previous.lsn_end}, the next segment begins at"
            raise CorruptionError(older, previous.end, f"{reason} {scan.lsn_start}")
        if scan.batches and not previous.is_closed:
            reason = "the marker that closed it, before anything came into the next one, is gone"
            raise CorruptionError(older, previous.end, reason)
        expected = segment_header(
            scan.segment_id, self.identity, state, header.cluster_id, header.size_bytes
        )
        if header != msgspec.structs.replace(expected, format=header.format):
            raise CorruptionError(newer, 0, "its header contradicts the segments before it")

    def _is_torn_marker(self, previous: SegmentScan) -> bool:
        """Whether the damage fits where the closing marker goes, the last write of a segment."""
        rest = previous.end + SECTOR_BYTES
        return self.data.count(0, rest) == len(self.data) - rest

    def _replay(self, file_path: str, batch: BatchInfo) -> None:
        state, entries = self.state, self.log.entries
        try:
            for kind, index, term, payload in records_of(self.data, batch):
                if kind == Kind.ENTRY:
                    state.append(index, term)
                    entries.append((payload, index, term))
                else:
                    state.apply(kind, index, term, payload)
                    if kind == Kind.TRUNCATE:
                        while entries and entries[-1][1] >= index:
                            entries.pop()
                    elif kind == Kind.INSTALLED:
                        is_kept = payload == KEPT
                        entries[:] = [entry for entry in entries if is_kept and entry[1] > index]
        except (ValueError, struct.error) as error:
            raise CorruptionError(file_path, batch.offset, f"impossible record: {error}") from error


def segment_header(
    segment_id: int, identity: Identity, state: WalState, cluster_id: bytes, size_bytes: int
) -> SegmentHeader:
    return SegmentHeader(
        format=FORMAT_VERSION,
        segment_id=segment_id,
        replica_id=identity.replica_id,
        uuid=identity.uuid,
        cluster_id=cluster_id,
        base_index=state.last_index,
        base_term=state.last_term,
        term=state.term,
        voted_for=state.voted_for,
        voter=state.voter,
        ambiguous_cut=state.ambiguous_cut,
        size_bytes=size_bytes,
    )


def check_identity(file_path: str, header: SegmentHeader, identity: Identity) -> None:
    if header.format > FORMAT_VERSION:
        raise DataDirRefusedError(
            f"{file_path} has format {header.format}; this version knows up to {FORMAT_VERSION}."
            " Run the version that wrote it, or a newer one"
        )
    if header.replica_id != identity.replica_id:
        raise DataDirRefusedError(
            f"{file_path} belongs to replica {header.replica_id}, this is replica"
            f" {identity.replica_id}"
        )
    if header.uuid != identity.uuid:
        raise DataDirRefusedError(
            f"{file_path} belongs to the data directory {header.uuid.hex()}, this one is"
            f" {identity.uuid.hex()}"
        )
    if header.cluster_id and identity.cluster_id and header.cluster_id != identity.cluster_id:
        raise DataDirRefusedError(
            f"{file_path} belongs to cluster {header.cluster_id.hex()}, this replica to"
            f" {identity.cluster_id.hex()}"
        )
