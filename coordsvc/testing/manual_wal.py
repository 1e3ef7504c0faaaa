"""The WAL's interface over lists: a group is on disk when the test says so.

It keeps what was appended apart from what a power cut leaves, and refuses what the real one
refuses, for it rests on the same rules for records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coordsvc.storage.wal import RecoveredLog
from coordsvc.storage.wal_format import DROPPED, KEPT, Kind, Record
from coordsvc.storage.wal_state import WalState

SEGMENT_ENTRIES = 8
"""Entries are dropped by as many at a time as a segment is taken to hold."""


class Disk:
    """What a row of records amounts to."""

    def __init__(self) -> None:
        self.state = WalState()
        self.entries: list[tuple[bytes, int, int]] = []
        """(payload, index, term), without holes."""

    def apply(self, record: Record) -> None:
        self.state.apply(*record)
        kind, index, term, payload = record
        if kind == Kind.ENTRY:
            self.entries.append((payload, index, term))
        elif kind == Kind.TRUNCATE:
            while self.entries and self.entries[-1][1] >= index:
                self.entries.pop()
        elif kind == Kind.INSTALLED:
            is_kept = payload == KEPT
            self.entries = [entry for entry in self.entries if is_kept and entry[1] > index]

    def drop_to(self, index: int) -> tuple[int, int]:
        """Forgets the entries up to `index`; the base (index, term) that leaves."""
        if index <= self.state.base_index:
            return self.state.base_index, self.state.base_term
        self.entries = [entry for entry in self.entries if entry[1] > index]
        return index, self.state.term_at(index)

    def holds(self, payload: bytes, index: int, term: int) -> bool:
        position = index - self.entries[0][1] if self.entries else -1
        return 0 <= position < len(self.entries) and self.entries[position] == (
            payload,
            index,
            term,
        )


class ManualWal:
    """The WAL's interface; a group handed over by `flush` is on disk when `sync` says so.

    One LSN per record, and the real WAL's refusals. `crash()` returns what comes back after a
    power cut. `schedule`, when given, completes each group by itself after a while. `dropped_to`:
    segments up to there had been unlinked.
    """

    def __init__(self, durable: Iterable[Record] = (), *, dropped_to: int = 0) -> None:
        self.records: list[Record] = list(durable)
        self.end_lsn = self.synced_lsn = len(self.records)
        self.on_synced: Callable[[int], None] = lambda lsn: None
        self.schedule: Callable[[Callable[[], bool]], None] | None = None
        self.syncs_total = 0
        self.durable = Disk()
        """What a power cut leaves."""
        self._appended = WalState()
        self._in_flight: int | None = None
        self._is_flush_wanted = False
        for record in self.records:
            self.durable.apply(record)
            self._appended.apply(*record)
        state = self.durable.state
        self.dropped_to = dropped_to
        base_index, base_term = self.durable.drop_to(dropped_to)
        self.recovered = RecoveredLog(
            base_index=base_index,
            base_term=base_term,
            entries=list(self.durable.entries),
            term=state.term,
            voted_for=state.voted_for,
            voter=state.voter,
            is_new=not self.records,
            installed=state.installed,
        )

    def _append(self, kind: Kind, index: int, term: int, payload: bytes) -> None:
        record = (kind, index, term, payload)
        self._appended.apply(*record)
        self.records.append(record)
        self.end_lsn += 1

    def append_entry(self, payload: bytes, index: int, term: int) -> None:
        self._append(Kind.ENTRY, index, term, payload)

    def truncate_from(self, index: int) -> None:
        self._append(Kind.TRUNCATE, index, self._appended.term_at(index - 1), b"")

    def install(self, index: int, term: int) -> None:
        keeps_rest = self._appended.has(index, term)
        self._append(Kind.INSTALLED, index, term, KEPT if keeps_rest else DROPPED)

    def drop_before(self, index: int) -> None:
        """By whole segments, so the base ends up at `index - 1` or lower."""
        assert index - 1 <= self.durable.state.last_index, f"entry {index - 1} is not on disk"
        whole = (index - 1) // SEGMENT_ENTRIES * SEGMENT_ENTRIES
        self.dropped_to = max(self.dropped_to, whole)

    def set_hard_state(self, term: int, voted_for: str | None) -> None:
        vote = b"" if voted_for is None else voted_for.encode()
        self._append(Kind.HARD_STATE, int(voted_for is not None), term, vote)

    def set_voter(self, voter: bool) -> None:
        self._append(Kind.VOTER, int(voter), 0, b"")

    def flush(self) -> None:
        """Hands over what was appended, as one group: now, or when the disk is idle."""
        if self._in_flight is not None:
            self._is_flush_wanted = True
        elif self.synced_lsn < self.end_lsn:
            self._in_flight, self._is_flush_wanted = self.end_lsn, False
            if self.schedule is not None:
                self.schedule(self.sync)

    @property
    def is_busy(self) -> bool:
        return self._in_flight is not None

    def sync(self) -> bool:
        """Completes the group in flight; False when there is none."""
        if self._in_flight is None:
            return False
        for record in self.records[self.synced_lsn : self._in_flight]:
            self.durable.apply(record)
        self.synced_lsn, self._in_flight = self._in_flight, None
        self.syncs_total += 1
        self.on_synced(self.synced_lsn)
        if self._is_flush_wanted:
            self.flush()
        return True

    def sync_all(self) -> None:
        self.flush()
        while self.sync():
            self.flush()

    def crash(self, *, kept: int = 0) -> ManualWal:
        """What is on disk: all that was synced, and `kept` of the records behind it."""
        return ManualWal(self.records[: self.synced_lsn + kept], dropped_to=self.dropped_to)

    @property
    def unsynced(self) -> int:
        return self.end_lsn - self.synced_lsn


def voter_wal() -> ManualWal:
    """An empty disk whose owner remembers everything: as after the first start."""
    return ManualWal([(Kind.VOTER, 1, 0, b"")])
