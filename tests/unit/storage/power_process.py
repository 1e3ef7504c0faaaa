"""A process of a replica's, without the replica: what it has open on its disk, and its threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from coordsvc.storage.checkpoint_check import read_checkpoint
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.snapshots import IncomingSnapshot, OutgoingSnapshots
from coordsvc.storage.start import StorageOpened, open_storage
from coordsvc.testing.manual_loop import ManualExecutor
from tests.unit.storage.power_disk import PowerDisk

SEGMENT_BYTES = 8192
MEMBERS = (1, 2, 3)


class Process:
    """Jobs run when the test says so. Raises StorageError as a start does."""

    def __init__(self, disk: PowerDisk, on_synced: Callable[[int], None]) -> None:
        self.executor = ManualExecutor()
        self.checkpoint_executor = ManualExecutor()
        self.failures: list[BaseException] = []
        self.data_dir = DataDir.open(disk.directory, 1, disk, members=MEMBERS)
        self.opened: StorageOpened = open_storage(
            self.data_dir,
            disk,
            self.executor,
            on_synced=on_synced,
            on_failed=self.failures.append,
            segment_bytes=SEGMENT_BYTES,
            check=read_checkpoint,
        )
        self.machine = self.opened.machine
        self.feed = self.machine.observe_changes(everything=self.opened.store.info is None)
        self.applied = self.opened.info.index
        make = partial(
            IncomingSnapshot,
            disk.directory,
            self.opened.store,
            self.opened.wal,
            disk,
            self.checkpoint_executor,
            self.failures.append,
        )
        self.incoming = make(check=read_checkpoint)
        self.outgoing = OutgoingSnapshots(
            disk.directory,
            self.opened.store,
            disk,
            self.checkpoint_executor,
            self.failures.append,
            free_bytes=lambda path: 1 << 40,
        )

    def sync(self) -> None:
        self.opened.wal.flush()
        self.executor.run_all()

    def run_all(self) -> None:
        while self.executor.jobs or self.checkpoint_executor.jobs:
            self.checkpoint_executor.run_all()
            self.executor.run_all()

    def stop(self) -> None:
        self.run_all()
        self.opened.wal.close(lambda: None)
        self.run_all()
        if not self.failures:
            self.opened.store.close()
            self.data_dir.close()
