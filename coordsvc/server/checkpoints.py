"""When this replica writes a checkpoint, and how: taken on the loop, written by a thread.

Taking one is swapping the set of changed records, in one turn of the loop; what the set holds never
changes, so a thread can write it while the loop goes on. When the checkpoint is on disk, the log
before it can go. One at a time. A failure ends the process: without checkpoints the log grows until
the disk is full, and a failed write says that the disk cannot be trusted.

Nobody waits for a checkpoint, but each takes its share of the disk and of the interpreter. So the
replicas of a cluster take theirs one after the other, as far as that goes without asking: the log's
indexes at which they are due lie apart, and so do, after a common start, times and bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from coordsvc.core.machine import ChangeFeed, Machine
from coordsvc.core.records import ChangedRecords, Singletons
from coordsvc.raft.replica import Replica
from coordsvc.server.config_model import StorageConfig
from coordsvc.server.histogram import Histogram
from coordsvc.storage.checkpoint import CheckpointInfo, CheckpointWritten
from coordsvc.storage.executor import Executor

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.05


class Store(Protocol):
    """`storage.checkpoint.CheckpointStore`, as much of it as is needed here."""

    def write(
        self, changed: ChangedRecords, singletons: Singletons, info: CheckpointInfo
    ) -> CheckpointWritten: ...


class Source(Protocol):
    """What is checkpointed: see `ReplicaSource`."""

    @property
    def machine(self) -> Machine: ...
    @property
    def is_ready(self) -> bool: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def durable_index(self) -> int: ...
    def term_at(self, index: int) -> int: ...
    def compact_log(self, index: int) -> None: ...


class ReplicaSource:
    """A replica's state and log."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    @property
    def machine(self) -> Machine:
        return self._replica.machine

    @property
    def is_ready(self) -> bool:
        """Not while it replays its log, and never again once a snapshot takes its place: that is
        then what is on disk."""
        return self._replica.is_ready

    @property
    def applied_index(self) -> int:
        return self._replica.applied_index

    @property
    def durable_index(self) -> int:
        """Up to where its own disk holds the log."""
        return self._replica.journal.durable_index

    def term_at(self, index: int) -> int:
        return self._replica.journal.term_at(index)

    def compact_log(self, index: int) -> None:
        self._replica.compact_log(index)


@dataclass
class _Taken:
    """A checkpoint that is not on disk yet."""

    info: CheckpointInfo
    changed: ChangedRecords
    singletons: Singletons


@dataclass(frozen=True)
class CheckpointStatistics:
    index: int
    """Of the last log entry that the checkpoint on disk covers."""
    zxid: int
    age_seconds: float | None
    """Since this process wrote one; None: it has not yet."""
    checkpoints_total: int
    bytes_written_total: int
    last_bytes: int
    last_records: int
    last_seconds: float
    is_writing: bool


class Pace:
    """When the next one is due: `checkpoint_interval_s` after the last, or so many entries or bytes
    of log. `rank` is the replica's place among `replicas`, from 0."""

    def __init__(
        self,
        settings: StorageConfig,
        *,
        rank: int,
        replicas: int,
        now: float,
        index: int,
        log_bytes: int = 0,
    ) -> None:
        share = rank / replicas
        self._settings = settings
        self._shift = int(settings.checkpoint_entries * share)
        self._last_at = now - settings.checkpoint_interval_s * share
        self._last_index = index
        self._last_log_bytes = log_bytes - int(settings.checkpoint_log_bytes * share)

    def is_due(self, now: float, index: int, log_bytes: int) -> bool:
        """`log_bytes`: written to the log in all."""
        if index <= self._last_index:
            return False
        settings = self._settings
        return (
            now - self._last_at >= settings.checkpoint_interval_s
            or self._period(index) > self._period(self._last_index)
            or log_bytes - self._last_log_bytes >= settings.checkpoint_log_bytes
        )

    def _period(self, index: int) -> int:
        """Counted from where it is the same after any restart."""
        return (index - self._shift) // self._settings.checkpoint_entries

    def taken(self, now: float, index: int, log_bytes: int) -> None:
        self._last_at, self._last_index, self._last_log_bytes = now, index, log_bytes


class Checkpointer:
    """`log_bytes()` is what was written to the log in all. `on_failed(error)` ends the process."""

    def __init__(
        self,
        source: Source,
        store: Store,
        feed: ChangeFeed,
        executor: Executor,
        pace: Pace,
        *,
        info: CheckpointInfo,
        log_bytes: Callable[[], int],
        monotonic: Callable[[], float],
        on_failed: Callable[[BaseException], None],
        seconds: Histogram | None = None,
    ) -> None:
        self._source = source
        self._store = store
        self._feed = feed
        self._executor = executor
        self._pace = pace
        self._info = info
        self._log_bytes = log_bytes
        self._monotonic = monotonic
        self._on_failed = on_failed
        self._seconds = seconds or Histogram()
        self._written_at: float | None = None
        self._last = CheckpointWritten(0, 0.0, 0)
        self._taken: _Taken | None = None
        self._is_writing = False
        self._is_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._checkpoints_total = 0
        self._bytes_written_total = 0

    def start(self) -> None:
        """Look every LOOK_SECONDS whether one is due, from now on."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self.start)
        self.turn(self._monotonic())

    def stop(self) -> None:
        """Begin no other one. What a thread is writing goes on, and means nothing any more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def turn(self, now: float) -> None:
        """Take one if it is due, unless one is under way. It is not written before this replica's
        own log holds on disk what it covers: with a slow disk that can be later than applying."""
        source = self._source
        if self._is_writing or self._is_stopped or not source.is_ready:
            return
        if self._taken is None:
            index, log_bytes = source.applied_index, self._log_bytes()
            if not self._pace.is_due(now, index, log_bytes):
                return
            self._pace.taken(now, index, log_bytes)
            self._taken = self._take(index)
        if self._taken.info.index <= source.durable_index:
            taken, self._taken = self._taken, None
            self._write(taken)

    def _take(self, index: int) -> _Taken:
        """All of it in one turn: records, scalars and index belong together."""
        machine = self._source.machine
        changed = self._feed.take()
        singletons = machine.state.singletons()
        info = CheckpointInfo(index, self._source.term_at(index), singletons.zxid, machine.digest())
        return _Taken(info, changed, singletons)

    def _write(self, taken: _Taken) -> None:
        info, singletons = taken.info, taken.singletons
        # In a list, so that the thread's last job does not keep the records alive until the next.
        waiting = [taken.changed]
        self._is_writing = True

        def done(written: object, error: BaseException | None) -> None:
            self._is_writing = False
            if error is not None:
                self._is_stopped = True
                self._on_failed(error)
            else:
                assert isinstance(written, CheckpointWritten)
                self._note(info, written)
                if not self._is_stopped:
                    self._source.compact_log(info.index)

        self._executor.submit(lambda: self._store.write(waiting.pop(), singletons, info), done)

    def _note(self, info: CheckpointInfo, written: CheckpointWritten) -> None:
        self._info, self._last = info, written
        self._written_at = self._monotonic()
        self._checkpoints_total += 1
        self._bytes_written_total += written.bytes_written
        self._seconds.observe(written.seconds)
        logger.info(
            "checkpoint.written",
            extra={
                "index": info.index,
                "zxid": info.zxid,
                "records": written.records,
                "bytes": written.bytes_written,
                "ms": int(written.seconds * 1000),
            },
        )

    def statistics(self) -> CheckpointStatistics:
        written_at = self._written_at
        return CheckpointStatistics(
            index=self._info.index,
            zxid=self._info.zxid,
            age_seconds=None if written_at is None else self._monotonic() - written_at,
            checkpoints_total=self._checkpoints_total,
            bytes_written_total=self._bytes_written_total,
            last_bytes=self._last.bytes_written,
            last_records=self._last.records,
            last_seconds=self._last.seconds,
            is_writing=self._is_writing or self._taken is not None,
        )
