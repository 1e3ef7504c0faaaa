"""What a replica needs of its log's store, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from coordsvc.core.commands import Reply
from coordsvc.raft.journal import LogStore


class Waiter(Protocol):
    """Who is told what became of a write: one of the two setters is called, once, unless `done()`
    already. An asyncio future is one; what must not wait for another turn of the loop brings its
    own."""

    def done(self) -> bool: ...
    def set_result(self, reply: Reply, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


class RecoveredLog(Protocol):
    base_index: int
    base_term: int
    entries: list[tuple[bytes, int, int]]
    term: int
    voted_for: str | None
    voter: bool
    ambiguous_cut: bool


class Wal(LogStore, Protocol):
    @property
    def recovered(self) -> RecoveredLog: ...
    def set_voter(self, voter: bool) -> None: ...
    def flush(self) -> None: ...


class SilentDiskError(OSError):
    """The disk has completed nothing for too long."""


@dataclass(frozen=True)
class ReplicaStatistics:
    term: int
    role: int
    leader_id: int | None
    commit_index: int
    applied_index: int
    last_index: int
    durable_index: int
    log_bytes: int
    writes_waiting: int
    writes_undecided: int
    elections_started: int
    leader_changes: int
    truncated_entries: int
    memoryless: bool
    ready: bool
    linked: tuple[int, ...]
