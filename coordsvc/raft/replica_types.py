"""What a replica needs of its log's store, and what it tells about itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from coordsvc.core.commands import ClientCommand, Reply
from coordsvc.core.machine import Reader
from coordsvc.raft.journal import LogStore


class Waiter(Protocol):
    """Who is told what became of a write: one of the two setters is called, once, unless `done()`
    already. An asyncio future is one; what must not wait for another turn of the loop brings its
    own."""

    def done(self) -> bool: ...
    def set_result(self, reply: Reply, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


class Submission(Waiter, Protocol):
    """A write that is the waiter of its own outcome."""

    @property
    def command(self) -> ClientCommand: ...
    @property
    def deadline(self) -> float: ...
    @property
    def readers(self) -> Sequence[Reader]:
        """Called when it has run here, before anything else runs. They may be added until then."""
        ...


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
    def drop_before(self, index: int) -> None: ...


class OutgoingSnapshots(Protocol):
    """Copies of this replica's checkpoint, to be sent. No call blocks; `done` is called later, on
    the loop, with None when the disk refused: nothing but the copy depends on that. What else
    fails ends the process by the store's own way.

    A snapshot, as handed to `done` by `make`, has `snapshot_id` (16 bytes), `size_bytes` and
    `info`: `index`, `term`, `zxid` and `digest` of the last entry it covers."""

    def make(self, done: Callable[[Any | None], None]) -> None:
        """A copy of the checkpoint as it is now. After None nothing is left of it."""
        ...

    def read(
        self, snapshot: Any, offset: int, size: int, done: Callable[[bytes | None], None]
    ) -> None:
        """`size` bytes from `offset`, both within the snapshot. After None it is to be dropped."""
        ...

    def drop(self, snapshot: Any) -> None: ...


class IncomingSnapshot(Protocol):
    """The snapshot being received, one at a time: `begin` forgets the one before. Calls are carried
    out in their order; `done` is called on the loop, unless `discard` came first."""

    def begin(
        self,
        snapshot_id: bytes,
        info: Any,
        size_bytes: int,
        done: Callable[[], None],
        refused: Callable[[], None],
    ) -> None:
        """`info` has `index`, `term`, `zxid` and `digest`. `refused` is called, once, when the disk
        does not take it: now, in `write` or in `verify`. Nothing is left of it then, and nothing
        else is called any more."""
        ...

    def write(self, offset: int, data: bytes, done: Callable[[], None]) -> None: ...
    def verify(self, done: Callable[[bool], None]) -> None:
        """done(True): it is complete, on disk, and its state has the digest announced."""
        ...

    def install(self, done: Callable[[], None]) -> None:
        """Makes it this replica's state on disk; the log begins after it."""
        ...

    def discard(self) -> None: ...


@dataclass(frozen=True)
class SnapshotPort:
    """Where snapshots are read and written."""

    outgoing: OutgoingSnapshots
    incoming: IncomingSnapshot


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
    base_index: int = 0
    """The log begins after it."""
    match_indexes: tuple[tuple[int, int], ...] = ()
    """(peer, up to where a leader knows its log to match); empty while this replica follows."""
    snapshots_sending: tuple[int, ...] = ()
    """Peers that a snapshot is being sent to."""
    snapshot_bytes_sent: int = 0
    snapshots_sent: int = 0
    """Snapshots whose receivers have come back with them."""
    snapshot_receiving: tuple[int, int] | None = None
    """(bytes received, bytes in all)."""
    snapshots_rejected: int = 0
    """Received and found damaged."""
    write_bytes_waiting: int = 0
    """Of writes taken from this replica's callers and not seen applied."""
    clock_jumps: int = 0
    """How often this replica's wall clock jumped while it led."""
