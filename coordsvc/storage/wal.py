"""The write-ahead log: the Raft log and hard state on disk. The loop's side of it.

Records are appended in memory and handed to the disk as groups: while one group is being
written and synced, the next accumulates. Each record has a position, its LSN, which only grows;
`synced_lsn` says up to where everything is on disk, and nothing that depends on a record may be
told to anybody before that. Truncation is a record too.

Knows no Raft: whether an entry conflicts, commits or may be dropped is decided by the caller. No
call here waits for the disk, `open` excepted. All of it runs on the loop, except the jobs handed to
the executor, which touch only the writer. A caller's mistake (an entry out of sequence) raises
ValueError at once.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.storage.errors import StorageError, disk_errors
from coordsvc.storage.executor import CallLater, Executor, TimedExecutor, Timer
from coordsvc.storage.files import Files
from coordsvc.storage.wal_format import DROPPED, KEPT, SECTOR_BYTES, Kind, Record
from coordsvc.storage.wal_reader import Identity, RecoveredLog
from coordsvc.storage.wal_recovery import OpenSegment, recover
from coordsvc.storage.wal_writer import FSYNC_SECONDS_BOUNDS, SegmentWriter

__all__ = ["FSYNC_SECONDS_BOUNDS", "RecoveredLog", "Wal", "WalStatistics"]

SEGMENT_BYTES = 16 << 20
"""Long enough that a switch is rare, short enough that preparing one and rewriting the last one at
a start take a fraction of a second."""
SEGMENT_BYTES_MIN = 4 * SECTOR_BYTES
MARKER_DELAY_SECONDS = 0.020
"""After this long without a write a marker says that the last one is on disk; until then damage to
it looks like a torn write."""


@dataclass(frozen=True)
class WalStatistics:
    fsyncs_total: int
    bytes_written_total: int
    last_fsync_seconds: float
    pending_since: float | None
    """When, on the monotonic clock, the write that the disk is busy with was handed over; None:
    the disk is idle."""
    segments: int
    is_space_low: bool
    """The disk has no room for another segment: writes will fail when the open one is full."""
    fsync_seconds_total: float = 0.0
    fsync_counts: tuple[int, ...] = (0,) * (len(FSYNC_SECONDS_BOUNDS) + 1)
    """How many syncs took no longer than each of FSYNC_SECONDS_BOUNDS, but longer than the one
    before it; the last one: longer than all."""


class Wal:
    """Open with `Wal.open`. `on_synced(lsn)` and `on_failed(error)` are called on the loop."""

    def __init__(
        self,
        writer: SegmentWriter,
        recovered: RecoveredLog,
        segment: OpenSegment,
        executor: Executor,
        call_later: CallLater | None,
        clock: Callable[[], float],
        on_synced: Callable[[int], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        self.recovered = recovered
        self.end_lsn = segment.lsn
        self.synced_lsn = segment.lsn
        self._writer = writer
        self._state = segment.state.copy()
        self._executor = executor
        self._call_later = call_later
        self._clock = clock
        self._on_synced = on_synced
        self._on_failed = on_failed
        self._pending: list[Record] = []
        self._is_flush_wanted = False
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._busy_since: float | None = None
        self._is_filling_spare = False
        self._is_marked = True
        self._last_write = 0.0
        self._timer: Timer | None = None
        self._failure: StorageError | None = None
        self._is_closing = False
        self._on_closed: Callable[[], None] | None = None

    @classmethod
    def open(
        cls,
        directory: str,
        *,
        files: Files,
        executor: Executor,
        identity: bytes,
        replica_id: int,
        on_synced: Callable[[int], None],
        on_failed: Callable[[BaseException], None],
        segment_bytes: int = SEGMENT_BYTES,
        cluster_id: bytes = b"",
        synced_lsn: int = 0,
        check: Callable[[RecoveredLog], None] = lambda log: None,
        call_later: CallLater | None = None,
        clock: Callable[[], float] | None = None,
    ) -> Wal:
        """Read the log in `directory`, or begin one, and return when it is safely on disk.

        `identity` is the data directory's uuid. `synced_lsn`: a `synced_lsn` of an earlier time,
        kept elsewhere: a log that ends before it is damaged. `check` is shown what was read, and
        may raise, before anything is changed. `call_later` None: the executor's, if it has one;
        otherwise no marker is written while idle, only at `close`. `clock` None: time.monotonic.
        Blocks.

        Raises CorruptionError when something that had been synced is damaged or missing,
        DataDirRefusedError when the log is not this replica's or of a newer format, DiskError.
        """
        if segment_bytes < SEGMENT_BYTES_MIN or segment_bytes % SECTOR_BYTES:
            raise ValueError(
                f"segment_bytes must be a multiple of {SECTOR_BYTES}, at least"
                f" {SEGMENT_BYTES_MIN}, not {segment_bytes}"
            )
        clock = clock or time.monotonic
        owner = Identity(identity, replica_id, cluster_id)
        recovered, segment = recover(directory, files, owner, segment_bytes, synced_lsn, check)
        writer = SegmentWriter(directory, files, owner, segment_bytes, segment, clock)
        with disk_errors(f"cannot reserve a segment in {directory}"):
            writer.spare.reserve()
        if call_later is None and isinstance(executor, TimedExecutor):
            call_later = executor.call_later
        return cls(writer, recovered, segment, executor, call_later, clock, on_synced, on_failed)

    def append_entry(self, payload: bytes, index: int, term: int) -> None:
        """In memory until `flush`. Raises ValueError unless it follows the last entry."""
        self._state.append(index, term)
        self._append((Kind.ENTRY, index, term, payload))

    def truncate_from(self, index: int) -> None:
        """Drop the entry at `index` and all after it. Raises ValueError when there is none."""
        self._state.truncate(index)
        self._append((Kind.TRUNCATE, index, self._state.last_term, b""))

    def install(self, index: int, term: int) -> None:
        """A snapshot up to `index` takes the place of the entries up to there. Those after it stay
        if the log holds this very entry; if not, all go. Hard state and voter flag stay.

        Raises ValueError when the log begins after `index`, or with another entry there."""
        keeps_rest = self._state.has(index, term)
        self._state.install(index, term, keeps_rest=keeps_rest)
        self._append((Kind.INSTALLED, index, term, KEPT if keeps_rest else DROPPED))

    def set_hard_state(self, term: int, voted_for: str | None) -> None:
        """Raises ValueError when the term falls or a vote of this term is taken back."""
        self._state.set_hard_state(term, voted_for)
        vote = b"" if voted_for is None else voted_for.encode()
        self._append((Kind.HARD_STATE, int(voted_for is not None), term, vote))

    def set_voter(self, voter: bool) -> None:
        """Whether this replica may vote and campaign. Ends `recovered.ambiguous_cut`."""
        self._state.set_voter(voter)
        self._append((Kind.VOTER, int(voter), 0, b""))

    def flush(self) -> None:
        """Have everything appended so far written and synced: now if the disk is idle, otherwise as
        one group when it is. Raises the StorageError that made an earlier write fail."""
        if self._failure is not None:
            raise self._failure
        if self._is_closing:
            raise StorageError("the log is closed")
        self._is_flush_wanted = bool(self._pending)
        self._next_job()

    def call_when_synced(self, callback: Callable[[], None]) -> None:
        """Call it, on the loop, when everything appended so far is on disk; never if that fails.
        For what is not Raft's: Raft is told by `on_synced`."""
        if self.synced_lsn >= self.end_lsn:
            callback()
        else:
            self._waiting.append((self.end_lsn, callback))

    def drop_before(self, index: int) -> None:
        """Unlink the segments that hold no entry from `index` on; call it once a checkpoint that
        covers all entries before is on disk. The base moves up to the oldest segment left."""
        if self._failure is not None:
            raise self._failure

        def dropped(result: object, error: BaseException | None) -> None:
            if error is not None:
                self._fail(error)

        self._executor.submit(lambda: self._writer.drop_before(index), dropped)

    def close(self, done: Callable[[], None]) -> None:
        """Flush, write the final marker, release the files; then `done`, on the loop. After a
        failure nothing more is written."""
        assert not self._is_closing, "closed twice"
        self._is_closing = True
        self._on_closed = done
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_flush_wanted = True
        self._next_job()

    def statistics(self) -> WalStatistics:
        writer = self._writer
        return WalStatistics(
            fsyncs_total=writer.fsyncs_total,
            bytes_written_total=writer.bytes_written_total,
            last_fsync_seconds=writer.last_fsync_seconds,
            fsync_seconds_total=writer.fsync_seconds_total,
            fsync_counts=tuple(writer.fsync_counts),
            pending_since=self._busy_since,
            segments=writer.segments_count,
            is_space_low=writer.spare.is_out_of_space,
        )

    def _append(self, record: Record) -> None:
        self._pending.append(record)
        self.end_lsn += 1

    def _next_job(self) -> None:
        """Give the idle disk what is to be done next: a group, the final marker, the release."""
        if self._busy_since is not None:
            return
        if self._failure is None and self._is_flush_wanted and self._pending:
            records, self._pending = self._pending, []
            self._is_flush_wanted = False
            self._is_marked = False
            self._submit(lambda: self._writer.write_group(records), self._group_done)
        elif self._is_closing:
            if self._failure is None and not self._is_marked:
                self._write_marker()
            elif self._on_closed is not None:
                self._submit(self._writer.release, self._released)
        elif self._failure is None and not self._is_marked:
            self._arm_timer(MARKER_DELAY_SECONDS)

    def _submit(
        self, job: Callable[[], object], done: Callable[[object, BaseException | None], None]
    ) -> None:
        self._busy_since = self._clock()
        self._executor.submit(job, done)

    def _group_done(self, result: object, error: BaseException | None) -> None:
        self._busy_since = None
        self._last_write = self._clock()
        if error is not None or self._failure is not None:
            self._fail(error)
            return
        assert isinstance(result, int) and self.synced_lsn <= result <= self.end_lsn
        self.synced_lsn = result
        self._next_job()
        self._fill_spare()
        self._on_synced(result)
        while self._waiting and self._waiting[0][0] <= self.synced_lsn:
            self._waiting.popleft()[1]()

    def _fail(self, error: BaseException | None) -> None:
        """From now on nothing is written or acknowledged."""
        if self._failure is None:
            assert error is not None
            self._pending.clear()
            if isinstance(error, StorageError):
                self._failure = error
            else:
                self._failure = StorageError(f"the log cannot be written: {error!r}")
                self._failure.__cause__ = error
            self._on_failed(self._failure)
        self._next_job()

    def _arm_timer(self, seconds: float) -> None:
        """One timer at a time, looked at again when it fires: a busy log must not create and
        cancel one for each group."""
        if self._call_later is not None and self._timer is None:
            self._timer = self._call_later(seconds, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if self._is_closing or self._failure is not None or self._is_marked:
            return
        remaining = self._last_write + MARKER_DELAY_SECONDS - self._clock()
        if self._busy_since is not None or self._pending:
            self._arm_timer(MARKER_DELAY_SECONDS)
        elif remaining > 0.0005:
            self._arm_timer(remaining)
        else:
            self._write_marker()

    def _write_marker(self) -> None:
        self._is_marked = True
        self._submit(self._writer.write_marker, self._marker_done)

    def _marker_done(self, result: object, error: BaseException | None) -> None:
        self._busy_since = None
        if error is not None or self._failure is not None:
            self._fail(error)
        else:
            self._next_job()

    def _fill_spare(self) -> None:
        """Queue the next piece of work on the spare, behind the group that was just queued."""
        if self._is_filling_spare or self._is_closing or not self._writer.needs_spare:
            return
        self._is_filling_spare = True

        def filled(result: object, error: BaseException | None) -> None:
            self._is_filling_spare = False
            if error is not None:
                self._fail(error)
            elif self._failure is None:
                self._fill_spare()

        def fill() -> None:
            with disk_errors("cannot prepare the next segment of the log"):
                self._writer.spare.fill_piece()

        self._executor.submit(fill, filled)

    def _released(self, result: object, error: BaseException | None) -> None:
        self._busy_since = None
        done, self._on_closed = self._on_closed, None
        if error is not None and self._failure is None:
            self._failure = StorageError(f"the log could not be closed: {error!r}")
            self._on_failed(self._failure)
        if done is not None:
            done()
