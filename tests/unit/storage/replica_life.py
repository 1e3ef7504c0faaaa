"""A replica's disk side, living through whatever its dice say, and a model of what it must keep.

It takes entries and votes, drops entries that conflict, syncs in groups, moves on to new segments,
checkpoints (also while the log is being written, and the log goes on while a checkpoint is), drops
old log, receives and installs snapshots, sends copies of its own, is stopped and started. A crash
comes before any operation on the disk, or in the middle of a write, or a sync fails.

After each start the log must be exactly what some number of its records amounts to, no fewer than
were acknowledged; the checkpoint no older than the last one that was reported as written; and the
state, with the log applied to it, what the cluster's history says.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from coordsvc.core.machine import decode_entry
from coordsvc.storage.checkpoint import CheckpointInfo
from coordsvc.storage.errors import DiskError, DiskFullError, StorageError
from coordsvc.storage.snapshots import Snapshot
from coordsvc.testing.fake_disk import SimulatedCrash
from coordsvc.testing.lmdb_calls import LmdbCalls
from tests.unit.core.harness import TERM
from tests.unit.storage.power_disk import PowerDisk
from tests.unit.storage.power_process import Process
from tests.unit.storage.replica_history import History, SnapshotData
from tests.unit.storage.wal_bench import Change, Expected, assert_holds

CHUNK_BYTES = 16 << 10
JUNK_TERM = TERM + 1


class ProcessEnded(Exception):
    """A fault of the disk that ends a replica's process."""


class Life:
    """`step` does something; `start`, after a crash, checks and goes on. The disk is renewed by
    `die`."""

    def __init__(self, disk: PowerDisk, calls: LmdbCalls, history: History, dice: Random) -> None:
        self.disk = disk
        self.calls = calls
        self.history = history
        self.dice = dice
        self.changes: list[Change] = []
        """Of the log, in order; one LSN each."""
        self.truth_at: list[int] = []
        """The last of the history's entries in the log after each."""
        self.acknowledged = 0
        """LSN."""
        self.checkpointed = 1
        """Entries up to here are in a checkpoint that was reported as written."""
        self.dropped_before = 0
        self.did: dict[str, int] = {}
        self._open: Process | None = None

    def die(self, next_disk: Callable[[PowerDisk], PowerDisk]) -> None:
        """`next_disk` makes of the present disk what the next process finds."""
        try:
            self.calls.check()
        except SimulatedCrash:
            pass  # That it died within LMDB may have been told by what came next.
        if self._open is not None:
            self._open.opened.store.close()
        self._open = None
        self.did["failed"] = self.did.get("failed", 0) + self.disk.failures
        self.disk = next_disk(self.disk)

    # ------------------------------------------------------------------------- start

    def start(self) -> None:
        """Open what is there, and check it. AssertionError, StorageError: something is lost."""
        assert self._open is None
        self.calls.watcher = self.disk
        failures = self.disk.failures
        try:
            self._open = Process(self.disk, self._synced)
        except StorageError as error:
            self.calls.check()
            is_full = self.disk.is_full and isinstance(error, DiskFullError)
            if is_full or (self.disk.failures > failures and type(error) is DiskError):
                raise ProcessEnded("start") from error
            raise
        self._check(self._open)

    def _check(self, now: Process) -> None:
        wal, info = now.opened.wal, now.opened.info
        lsn = wal.end_lsn
        assert self.acknowledged <= lsn <= len(self.changes), (
            f"the log ends at {lsn}; acknowledged was {self.acknowledged} of {len(self.changes)}"
        )
        del self.changes[lsn:], self.truth_at[lsn:]
        self.acknowledged = lsn
        assert_holds(wal.recovered, self._expected(), self.dropped_before)
        assert self.checkpointed <= info.index <= max(1, self._last_truth), (
            f"the checkpoint ends at {info.index}; one of {self.checkpointed} had been written"
        )
        self.checkpointed = info.index
        now.applied = info.index
        self._check_digest(now)
        self._apply(now, self._last_truth)
        self._check_digest(now)

    def _check_digest(self, now: Process) -> None:
        expected = self.history.digest(now.applied)
        assert now.machine.digest() == expected, f"another state at entry {now.applied}"

    def _expected(self) -> Expected:
        expected = Expected()
        for change in self.changes:
            expected.apply(change)
        return expected

    @property
    def _last_truth(self) -> int:
        """Of the history's entries."""
        return self.truth_at[-1] if self.truth_at else 1

    @property
    def _durable(self) -> int:
        return self.truth_at[self.acknowledged - 1] if self.acknowledged else 1

    @property
    def is_over(self) -> bool:
        """The history has no more for it."""
        return self._last_truth >= self.history.last_index - 5

    # ------------------------------------------------------------------------- directed

    def write_group(self, entries: int) -> None:
        self._append(entries)
        self._now.sync()

    def vote(self) -> None:
        self._vote(self._now)
        self._now.sync()

    def write_checkpoint(self, how: int = 0) -> bool:
        """Of what is on disk. False: it is the one that is there."""
        return self._checkpoint(self._now, how)

    def drop(self) -> bool:
        """What the checkpoint covers."""
        return self._drop(self._now, 0)

    def install(self) -> bool:
        return self._install(self._now)

    def restart(self) -> None:
        self._restart(self._now)

    # ------------------------------------------------------------------------- what it does

    def step(self) -> None:
        """One thing, by chance. Raises as `guarded`."""
        name = self.dice.choices(_NAMES, _WEIGHTS)[0]

        def act(life: Life) -> None:
            if getattr(life, f"_{name}")(life._now) is not False:
                life._note(name)

        self.guarded(act)

    def guarded(self, act: Callable[[Life], None]) -> None:
        """Do it. SimulatedCrash, ProcessEnded: then `die`."""
        now = self._now
        try:
            act(self)
        except StorageError as error:
            self.calls.check()
            raise ProcessEnded(str(error)) from error
        self.calls.check()
        if now.failures:
            acknowledged = self.acknowledged
            now.run_all()
            assert self.acknowledged == acknowledged, "acknowledged after a failure"
            raise ProcessEnded(str(now.failures[0])) from now.failures[0]

    @property
    def _now(self) -> Process:
        assert self._open is not None, "it does not run"
        return self._open

    def _note(self, name: str) -> None:
        self.did[name] = self.did.get(name, 0) + 1

    def _synced(self, lsn: int) -> None:
        if self._now.failures:
            raise AssertionError("acknowledged after a failure")
        self.acknowledged = max(self.acknowledged, lsn, self._now.opened.wal.synced_lsn)

    def _change(self, name: str, *arguments: object, truth: int | None = None) -> None:
        # Known before it is appended: what is on its way counts as appended.
        self.truth_at.append(self._last_truth if truth is None else truth)
        self.changes.append((name, arguments))
        getattr(self._now.opened.wal, name)(*arguments)

    def _append(self, entries: int) -> None:
        self._drop_junk()
        for index in range(self._last_truth + 1, self._last_truth + 1 + entries):
            if index <= self.history.last_index:
                payload = self.history.payload(index)
                self._change("append_entry", payload, index, TERM, truth=index)

    def _drop_junk(self) -> None:
        last_index, last_term = self._expected().last
        if last_term == JUNK_TERM:
            self._change("truncate_from", self._last_truth + 1)
            self._note("truncated")

    def _write(self, now: Process) -> None:
        self._append(self.dice.randrange(1, 5))
        if self.dice.random() < 0.7:
            now.opened.wal.flush()

    def _write_and_sync(self, now: Process) -> None:
        self._append(self.dice.randrange(1, 4))
        now.sync()

    def _append_junk(self, now: Process) -> None:
        """Entries of a leader that will not have been one."""
        last_index, _ = self._expected().last
        for index in range(last_index + 1, last_index + 1 + self.dice.randrange(1, 4)):
            if index > 1:
                self._change("append_entry", b"junk" * self.dice.randrange(300), index, JUNK_TERM)
        now.opened.wal.flush()

    def _vote(self, now: Process) -> None:
        term = self._expected().term + 1
        self._change("set_hard_state", term, self.dice.choice([None, "1", "2"]))
        now.opened.wal.flush()

    def _set_voter(self, now: Process) -> None:
        self._change("set_voter", self.dice.random() < 0.5)
        now.opened.wal.flush()

    def _run_jobs(self, now: Process) -> None:
        for _ in range(min(self.dice.randrange(1, 4), len(now.executor.jobs))):
            now.executor.run_next()

    def _apply(self, now: Process, last_index: int) -> None:
        for index in range(now.applied + 1, last_index + 1):
            now.machine.apply_entry(decode_entry(self.history.payload(index)), TERM)
            now.applied = index

    def _checkpoint(self, now: Process, how: int | None = None) -> bool:
        """By itself; or while a group of the log's is on its way; or with one in between."""
        self._apply(now, self._durable)
        write = self._take_checkpoint(now)
        if write is None:
            return False
        how = self.dice.randrange(3) if how is None else how
        if how == 0:
            write()
        elif how == 1:
            self._append(2)
            skipped = self.dice.randrange(3)
            self.disk.nest(lambda op: "/wal/" in op.file_path, skipped, write)
            now.sync()
            if self.disk.unnest():
                write()
        else:
            self._append(3)
            now.opened.wal.flush()
            skipped = self.dice.randrange(12)
            self.disk.nest(lambda op: ".mdb" in op.file_path, skipped, now.executor.run_all)
            write()
            self.disk.unnest()
        return True

    def _take_checkpoint(self, now: Process) -> Callable[[], None] | None:
        store, index = now.opened.store, now.applied
        if index <= max(1, self.checkpointed if store.info is None else store.info.index):
            return None
        singletons, changed = now.machine.state.singletons(), now.feed.take()
        info = CheckpointInfo(index, TERM, singletons.zxid, now.machine.digest())

        def write() -> None:
            store.write(changed, singletons, info)
            self.calls.check()
            self.checkpointed = index

        return write

    def _drop(self, now: Process, kept: int | None = None) -> bool:
        kept = self.dice.choice([0, 0, 5, 20]) if kept is None else kept
        index = self.checkpointed + 1 - kept
        if index <= self.dropped_before:
            return False
        self.dropped_before = index
        now.opened.wal.drop_before(index)
        if self.dice.random() < 0.8:
            now.run_all()
        return True

    def _copy(self, now: Process) -> bool:
        if now.opened.store.info is None:
            return False
        made: list[Snapshot | None] = []
        now.outgoing.make(made.append)
        now.run_all()
        if made and made[0] is not None and self.dice.random() < 0.5:
            now.outgoing.drop(made[0])
            now.run_all()
        return True

    def _receive_a_part(self, now: Process) -> None:
        self._receive(now, self.dice.choice(self.history.snapshots), parts=2)

    def _install(self, now: Process) -> bool:
        """Of a snapshot a little ahead, or that it has the log for. Then it starts again."""
        self._apply(now, self._durable)
        fitting = [
            snapshot
            for snapshot in self.history.snapshots
            if now.applied < snapshot.info.index < now.applied + 70
        ]
        if not fitting:
            return False
        snapshot = fitting[0]
        self._receive(now, snapshot)
        verified: list[bool] = []
        now.incoming.verify(verified.append)
        now.run_all()
        if not verified:
            return False
        assert verified == [True]
        index, term = snapshot.info.index, snapshot.info.term
        self.truth_at.append(max(index, self._last_truth))
        if not any(entry[1:] == (index, term) for entry in self._expected().entries):
            self.truth_at[-1] = index
        self.changes.append(("install", (index, term)))
        self.dropped_before = max(self.dropped_before, index + 1)
        installed: list[None] = []
        late = self._take_checkpoint(now)
        now.incoming.install(lambda: installed.append(None))
        now.run_all()
        if not now.failures:
            assert installed == [None]
            if late is not None:
                late()
            self.checkpointed = index
            self._restart(now)
        return True

    def _receive(self, now: Process, snapshot: SnapshotData, parts: int | None = None) -> None:
        data, incoming = snapshot.data, now.incoming
        incoming.begin(
            snapshot.snapshot_id, snapshot.info, len(data), lambda: None, lambda: self._note("lost")
        )
        for start in range(0, len(data), CHUNK_BYTES)[:parts]:
            incoming.write(start, data[start : start + CHUNK_BYTES], lambda: None)
        now.run_all()

    def _restart(self, now: Process) -> None:
        now.stop()
        if now.failures:
            return
        self._open = None
        self.start()


_ACTIONS = {
    "write": 20,
    "write_and_sync": 12,
    "append_junk": 3,
    "vote": 3,
    "set_voter": 1,
    "run_jobs": 20,
    "checkpoint": 10,
    "drop": 6,
    "copy": 2,
    "receive_a_part": 1,
    "install": 2,
    "restart": 1,
}
_NAMES, _WEIGHTS = list(_ACTIONS), list(_ACTIONS.values())
