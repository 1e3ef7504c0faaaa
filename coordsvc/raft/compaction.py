"""When the front of the log may go: what a checkpoint on disk covers, but for what is kept.

Entries are dropped from memory a few thousand at a time, so that the loop does not stand still
while a million of them is freed; then the WAL is told, whose segments go as wholes: its base after
a restart may be lower than this log's, never higher.
"""

from __future__ import annotations

from collections.abc import Callable

from coordsvc.raft.journal import WalJournal
from coordsvc.raft.replica_types import Wal
from coordsvc.raft.settings import ReplicaSettings

ENTRIES_AT_ONCE = 4096
"""Freeing so many takes about a millisecond."""


class LogCompaction:
    """`reserved()` is the lowest index whose successors somebody still needs, None if nobody
    does."""

    def __init__(
        self,
        settings: ReplicaSettings,
        journal: WalJournal,
        wal: Wal,
        reserved: Callable[[], int | None],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._wal = wal
        self._reserved = reserved
        self._covered = journal.base_index
        self._is_due = False
        self._has_dropped = False

    def cover(self, index: int) -> None:
        """A checkpoint at `index` is on disk."""
        self._covered = max(self._covered, index)
        self._is_due = True

    def step(self) -> bool:
        """Drops some, once a turn; True when there may be more to drop."""
        if not self._is_due:
            return False
        if self._drop():
            self._has_dropped = True
            return True
        self._is_due = False
        if self._has_dropped:
            self._has_dropped = False
            self._wal.drop_before(self._journal.base_index + 1)
        return False

    def _drop(self) -> int:
        keep, most = self._settings.log_keep_bytes, self._settings.log_bytes_max
        reserved = self._reserved()
        free = self._covered if reserved is None else min(self._covered, reserved)
        dropped = self._journal.drop_front(free, keep, ENTRIES_AT_ONCE)
        if dropped or free == self._covered:
            return dropped
        # Somebody needs more than is kept otherwise, and has it up to the cap.
        return self._journal.drop_front(self._covered, most, ENTRIES_AT_ONCE)
