"""What really became of the znodes in a run of real replicas: one replica's log, applied once more.

Where the log is there from its beginning, it is the truth about each zxid. A leader stamps each
entry with the time at which it decides on it; that is taken for the time at which it was applied,
which is a little later. The replicas' clock must have gone right for that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from coordsvc.core.commands import (
    CREATED,
    DATA_CHANGED,
    DELETED,
    ENTRY_PREFIX,
    NO_OP_PAYLOAD,
    AppliedEntry,
    Batch,
    Change,
    Entry,
    LeaderCommand,
    SessionClosed,
    SessionOpened,
    Write,
)
from coordsvc.core.machine import Machine
from coordsvc.storage.data_dir import META_FILE_NAME, WAL_DIR_NAME
from coordsvc.storage.meta import decode_meta
from coordsvc.storage.wal_reader import Identity, LogReader
from coordsvc.storage.wal_scan import scan_segment, segment_file_name, segment_ids
from coordsvc.testing import history
from coordsvc.testing.history import Applied

FIRST_INDEX = 2
"""Of entries. What is before them is the empty state that all replicas have."""

_NAMES = {CREATED: "created", DATA_CHANGED: "data_changed", DELETED: "deleted"}
_decoder = msgspec.msgpack.Decoder(Entry)


class LogTruth:
    """`applied` is in the order of zxids. `digests`: those that the state had at zxid `digest_at`.
    `to_time` makes Unix milliseconds a time of the history."""

    def __init__(self, data_dir: Path, to_time: Callable[[int], float], digest_at: int) -> None:
        self._machine = Machine()
        self._to_time = to_time
        self._digest_at = digest_at
        self._time = 0.0
        self._by_zxid: dict[int, Applied] = {}
        self.digests: set[int] = set()
        for entry, term in _entries(data_dir):
            self._apply(entry, term)

    @property
    def applied(self) -> list[Applied]:
        return [self._by_zxid[zxid] for zxid in sorted(self._by_zxid)]

    @property
    def zxid(self) -> int:
        return self._machine.state.zxid

    def _apply(self, entry: Entry, term: int) -> None:
        """In steps: only after a step of its own is it known which zxid a leader's command took."""
        # A new leader's clock may be a little behind the one's before it.
        self._time = time = max(self._time, self._to_time(entry.time_ms))
        done = self._step(time, entry.batches, (), entry, term)
        self._note_sessions(time, entry, done)
        for command in entry.leader_commands:
            done = self._step(time, (), (command,), entry, term)
            for session_id in done.closed_sessions:
                record = self._at(time, self.zxid)
                record.closed.append(_hex(session_id))
                record.expired = True
        if self.zxid == self._digest_at:
            # Also what takes no zxid may change it.
            self.digests.add(self._machine.digest())

    def _step(
        self,
        time: float,
        batches: tuple[Batch, ...],
        commands: tuple[LeaderCommand, ...],
        entry: Entry,
        term: int,
    ) -> AppliedEntry:
        step = msgspec.structs.replace(entry, batches=batches, leader_commands=commands)
        done = self._machine.apply_entry(step, term)
        for change in done.changes:
            self._at(time, change.zxid).changes.append(_change(change))
        return done

    def _note_sessions(self, time: float, entry: Entry, done: AppliedEntry) -> None:
        opened, closed = set(done.opened_sessions), set(done.closed_sessions)
        for batch, replies in zip(entry.batches, done.batches, strict=True):
            for command, reply in zip(batch.commands, replies.replies, strict=False):
                result = reply.result
                if isinstance(result, SessionOpened) and result.session_id in opened:
                    opened.discard(result.session_id)
                    self._at(time, reply.zxid).opened.append(_hex(result.session_id))
                elif isinstance(result, SessionClosed):
                    assert isinstance(command, Write)
                    session_id = command.caller.session_id
                    if session_id in closed:
                        closed.discard(session_id)
                        self._at(time, reply.zxid).closed.append(_hex(session_id))
        assert not opened and not closed, (opened, closed)

    def _at(self, time: float, zxid: int) -> Applied:
        if zxid not in self._by_zxid:
            self._by_zxid[zxid] = Applied(time, zxid, changes=[], opened=[], closed=[])
        return self._by_zxid[zxid]


def _entries(data_dir: Path) -> Iterator[tuple[Entry, int]]:
    """(entry, term), in order. ValueError: the log does not begin where all logs began."""
    meta = decode_meta((data_dir / META_FILE_NAME).read_bytes(), META_FILE_NAME)
    directory = data_dir / WAL_DIR_NAME
    identity = Identity(bytes.fromhex(meta.uuid), meta.replica_id, bytes.fromhex(meta.cluster_id))
    reader = LogReader(str(directory), identity)
    for segment_id in segment_ids(os.listdir(directory)):
        data = (directory / segment_file_name(segment_id)).read_bytes()
        reader.take_segment(data, scan_segment(data, segment_id))
    reader.finish()
    if reader.log.base_index >= FIRST_INDEX:
        raise ValueError(f"the log begins after entry {reader.log.base_index}")
    for payload, _, term in reader.log.entries:
        if payload != NO_OP_PAYLOAD:
            yield _decoder.decode(memoryview(payload)[len(ENTRY_PREFIX) :]), term


def _change(change: Change) -> history.Change:
    data = None if change.data is None else change.data.decode(errors="backslashreplace")
    owner = change.stat.ephemeral_owner if change.stat is not None else 0
    return history.Change(_NAMES[change.type], change.path, data, _hex(owner) if owner else "")


def _hex(session_id: int) -> str:
    return f"{session_id:016x}"
