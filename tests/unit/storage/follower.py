"""A replica's disk side that is given a history's entries, on real files that nobody syncs."""

from __future__ import annotations

from coordsvc.core.machine import decode_entry
from coordsvc.storage.checkpoint import CheckpointInfo
from coordsvc.storage.checkpoint_check import read_checkpoint
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.start import StorageOpened, open_storage
from coordsvc.testing.manual_loop import ManualExecutor
from tests.unit.core.harness import TERM
from tests.unit.storage.replica_history import History, Unsynced

SEGMENT_BYTES = 8192
MEMBERS = (1, 2, 3)


class Follower:
    """Opened, it has replayed its log. AssertionError: it has something else than the history."""

    def __init__(self, path: str, history: History) -> None:
        self.history = history
        self.executor = ManualExecutor()
        self.failures: list[BaseException] = []
        files = Unsynced()
        self.data_dir = DataDir.open(path, 1, files, members=MEMBERS)
        try:
            self.opened: StorageOpened = open_storage(
                self.data_dir,
                files,
                self.executor,
                on_synced=lambda lsn: None,
                on_failed=self.failures.append,
                segment_bytes=SEGMENT_BYTES,
                check=read_checkpoint,
            )
        except BaseException:
            self.data_dir.close()
            raise
        self.machine = self.opened.machine
        self.feed = self.machine.observe_changes(everything=self.opened.store.info is None)
        self.index = self.opened.info.index
        self._replay()

    def _replay(self) -> None:
        for payload, index, _ in self.opened.wal.recovered.entries:
            assert payload == self.history.payload(index), f"another entry {index}"
            if index > self.index:
                self._apply()
        assert self.machine.digest() == self.history.digest(self.index), "another state"

    def _apply(self) -> None:
        self.index += 1
        self.machine.apply_entry(decode_entry(self.history.payload(self.index)), TERM)

    def run(self, entries: int) -> None:
        for _ in range(entries):
            self._apply()
            self.opened.wal.append_entry(self.history.payload(self.index), self.index, TERM)
            self.opened.wal.flush()
            self.executor.run_all()
        self._check()

    def checkpoint(self, *, keep: int = 0) -> None:
        """`keep`: so many of the entries that it covers stay in the log, and more."""
        singletons = self.machine.state.singletons()
        info = CheckpointInfo(self.index, TERM, singletons.zxid, self.machine.digest())
        self.opened.store.write(self.feed.take(), singletons, info)
        self.opened.wal.drop_before(self.index + 1 - keep)
        self.executor.run_all()
        self._check()

    def stop(self) -> None:
        self.opened.wal.close(lambda: None)
        self.executor.run_all()
        self._check()
        self.opened.store.close()
        self.data_dir.close()

    def _check(self) -> None:
        for failure in self.failures:
            raise failure
