"""A replica's disk side without the replica: log, checkpoint, machine, in a real directory."""

from __future__ import annotations

from coordsvc.core.commands import CreateOp
from coordsvc.core.machine import ChangeFeed, Machine, decode_entry
from coordsvc.storage.checkpoint import CheckpointInfo
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.files import Files, FileSystem
from coordsvc.storage.start import StorageOpened, open_storage
from coordsvc.testing.manual_loop import ManualExecutor
from tests.unit.core.harness import TERM, Harness

SEGMENT_BYTES = 8192


class Replica:
    """`run` applies and logs entries; all of them count as committed once they are synced."""

    def __init__(
        self, path: str, files: Files | None = None, members: tuple[int, ...] = ()
    ) -> None:
        self.files = files or FileSystem()
        self.data_dir = DataDir.open(path, 1, self.files, members=members)
        self.executor = ManualExecutor()
        self.failures: list[BaseException] = []
        try:
            self.opened: StorageOpened = open_storage(
                self.data_dir,
                self.files,
                self.executor,
                on_synced=lambda lsn: None,
                on_failed=self.failures.append,
                segment_bytes=SEGMENT_BYTES,
            )
        except BaseException:
            self.data_dir.close()
            raise
        self.machine: Machine = self.opened.machine
        self.feed: ChangeFeed = self.machine.observe_changes(
            everything=self.opened.store.info is None
        )
        log = self.opened.wal.recovered
        self.index = max(1, log.base_index + len(log.entries))
        self._harness: Harness | None = None
        self._logged = 0

    @property
    def harness(self) -> Harness:
        if self._harness is None:
            self._harness = Harness(self.machine)
        return self._harness

    def run(self, entries: int) -> None:
        """A znode per entry; the first entry of all registers."""
        harness, end = self.harness, self.index + entries
        self.log_new()
        while self.index < end:
            harness.write(CreateOp(f"/n{self.index + 1}", b"x" * 200))
            self.log_new()

    def log_new(self) -> None:
        """Append what the harness applied meanwhile."""
        payloads = self.harness.payloads[self._logged :]
        for payload in payloads:
            self.index += 1
            self.opened.wal.append_entry(payload, self.index, TERM)
        self._logged += len(payloads)
        self.flush()

    def flush(self) -> None:
        self.opened.wal.flush()
        self.executor.run_all()
        assert not self.failures

    def info(self) -> CheckpointInfo:
        return CheckpointInfo(self.index, TERM, self.machine.state.zxid, self.machine.digest())

    def checkpoint(self, info: CheckpointInfo | None = None) -> None:
        changed = self.feed.take()
        self.opened.store.write(changed, self.machine.state.singletons(), info or self.info())

    def drop_before(self, index: int) -> None:
        self.opened.wal.drop_before(index)
        self.executor.run_all()

    def replay(self) -> None:
        """Apply what the log has beyond the checkpoint."""
        for payload, index, term in self.opened.wal.recovered.entries:
            if index > self.opened.info.index:
                self.machine.apply_entry(decode_entry(payload), term)

    def stop(self) -> None:
        self.opened.wal.close(lambda: None)
        self.executor.run_all()
        self.opened.store.close()
        self.data_dir.close()
