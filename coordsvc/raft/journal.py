"""The Raft log in memory, every change of it recorded in the write-ahead log.

`log[0]` is the base: index and term of the last entry before the log, without a payload, never
sent and never applied. Positions in the list are index - base index. What is durable is known by
index here; the WAL knows bytes and positions only.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

from pysyncobj.journal import Journal

from coordsvc.raft.adapter import NO_OP

Record = tuple[bytes, int, int]
"""(payload, index, term), the library's order."""

ENTRY_OVERHEAD_BYTES = 150
"""What an entry takes in memory besides its payload, about."""

FIRST_BASE = (NO_OP, 1, 0)
"""What an empty log starts from, the same on every replica."""


class LogStore(Protocol):
    """The part of the WAL this module writes to."""

    end_lsn: int
    synced_lsn: int

    def append_entry(self, payload: bytes, index: int, term: int) -> None: ...
    def truncate_from(self, index: int) -> None: ...
    def set_hard_state(self, term: int, voted_for: str | None) -> None: ...


class WalJournal(Journal):  # type: ignore[misc]
    """Journal of the library over a WAL. All of it runs on the loop; nothing here waits."""

    def __init__(
        self,
        store: LogStore,
        base_index: int,
        base_term: int,
        entries: list[Record],
        term: int,
        voted_for: str | None,
    ) -> None:
        self._store = store
        base = (NO_OP, base_index, base_term) if base_index > 1 else FIRST_BASE
        self._records: list[Record] = [base, *entries]
        for position, record in enumerate(self._records):
            assert record[1] == base[1] + position, "the recovered log has a hole"
        self._term = term
        self._voted_for = voted_for
        self._bytes = sum(len(record[0]) for record in entries)
        # What recovery returned has been rewritten and synced before it came here.
        self.durable_index: int = self._records[-1][1]
        self._unsynced: deque[tuple[int, int]] = deque()

    # ------------------------------------------------------------ the library's interface

    def add(self, command: bytes, idx: int, term: int) -> None:
        assert idx == self.last_index + 1, f"entry {idx} does not follow {self.last_index}"
        assert term >= self.last_term, f"entry {idx} goes back to term {term}"
        self._records.append((command, idx, term))
        self._bytes += len(command)
        self._store.append_entry(command, idx, term)
        self._unsynced.append((self._store.end_lsn, idx))

    def clear(self) -> None:
        raise AssertionError("the log is never cleared")

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        raise AssertionError("the log is truncated on a conflict only, by index")

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise AssertionError("the log is compacted in slices, by index")

    def __getitem__(self, item: Any) -> Any:
        return self._records[item]

    def __len__(self) -> int:
        return len(self._records)

    def _destroy(self) -> None:
        pass

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Not stored: after a start the leader says again what is committed."""

    def getRaftCommitIndex(self) -> int:
        return self.base_index

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        if (term, votedForNodeId) == (self._term, self._voted_for):
            return
        self._term, self._voted_for = term, votedForNodeId
        self._store.set_hard_state(term, votedForNodeId)

    def getCurrentTerm(self) -> int:
        return self._term

    def getVotedForNodeId(self) -> str | None:
        return self._voted_for

    # ------------------------------------------------------------ by index

    @property
    def base_index(self) -> int:
        return self._records[0][1]

    @property
    def last_index(self) -> int:
        return self._records[-1][1]

    @property
    def last_term(self) -> int:
        return self._records[-1][2]

    @property
    def end_lsn(self) -> int:
        """The WAL's position after everything recorded so far; it is durable at `synced_lsn`."""
        return self._store.end_lsn

    @property
    def synced_lsn(self) -> int:
        return self._store.synced_lsn

    @property
    def bytes_held(self) -> int:
        return self._bytes

    @property
    def weight_bytes(self) -> int:
        """What the entries take in memory, about."""
        return self._bytes + ENTRY_OVERHEAD_BYTES * (len(self._records) - 1)

    def term_at(self, index: int) -> int:
        return self.record(index)[2]

    def record(self, index: int) -> Record:
        position = index - self._records[0][1]
        assert 0 <= position < len(self._records), f"no entry {index} in the log"
        return self._records[position]

    def slice_from(self, index: int, bytes_soft: int, count_max: int) -> list[Record]:
        """At most `count_max` entries from `index` on until they exceed `bytes_soft`; at least one
        if there is any."""
        position = index - self._records[0][1]
        assert position >= 1, "the base is never sent"
        end, size, last = position, 0, min(len(self._records), position + count_max)
        while end < last and (end == position or size + len(self._records[end][0]) <= bytes_soft):
            size += len(self._records[end][0])
            end += 1
        return self._records[position:end]

    def first_index_of_term(self, index: int, above: int) -> int:
        """The first index, not at or below `above`, of the run of entries that have the same term
        as the one at `index` and end there."""
        term = self.term_at(index)
        while index - 1 > above and self.term_at(index - 1) == term:
            index -= 1
        return index

    def truncate_from(self, index: int) -> None:
        """Drops the entry at `index` and all after it; only ever called on a proven conflict."""
        assert index > self.base_index, "the base cannot be truncated"
        position = index - self._records[0][1]
        self._bytes -= sum(len(record[0]) for record in self._records[position:])
        del self._records[position:]
        self._store.truncate_from(index)
        self.durable_index = min(self.durable_index, index - 1)
        while self._unsynced and self._unsynced[-1][1] >= index:
            self._unsynced.pop()

    def drop_front(self, index: int, keep_bytes: int, count_max: int) -> int:
        """Moves the base up, at most to `index` and by `count_max` entries, while what is left
        weighs at least `keep_bytes`. Returns how many entries were dropped. The caller has their
        effect on disk elsewhere, and tells the WAL."""
        assert index <= self.durable_index, f"entry {index} is not on disk yet"
        records, left = self._records, self.weight_bytes
        end, dropped = min(index - self.base_index, count_max), 0
        while dropped < end:
            weight = len(records[dropped + 1][0]) + ENTRY_OVERHEAD_BYTES
            if left - weight < keep_bytes:
                break
            left -= weight
            dropped += 1
        if dropped:
            _, base_index, base_term = records[dropped]
            del records[:dropped]
            records[0] = (NO_OP, base_index, base_term)
            self._bytes = left - ENTRY_OVERHEAD_BYTES * (len(records) - 1)
        return dropped

    def synced_to(self, lsn: int) -> None:
        """The WAL holds everything before position `lsn` on disk."""
        while self._unsynced and self._unsynced[0][0] <= lsn:
            self.durable_index = self._unsynced.popleft()[1]
