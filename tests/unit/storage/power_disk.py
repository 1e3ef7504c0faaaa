"""A disk that loses its power under log and checkpoint alike.

What `mirror_disk` does for the files of `storage.files` this does for LMDB's own writes, too: they
reach real files, and a fake disk that knows what of them is on the medium. One row of operations
counts all of them, so that a cut can come between any two, or in the middle of a write.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from coordsvc.storage.files import write_all
from coordsvc.testing.fake_disk import SECTOR_BYTES, FakeDisk, Operation, SimulatedCrash
from tests.unit.storage.mirror_disk import MirrorDisk, write_image

KEPT_SHARES: Final = (0.0, 0.0, 0.1, 0.5, 0.9, 1.0)
"""Of what was not synced, how much a power cut may leave."""

NO_LOG_SYNC, NO_OTHER_SYNC, NO_NAMES_SYNC, NO_LMDB_SYNC = "log", "other files", "names", "LMDB"
LIES: Final = (NO_LOG_SYNC, NO_OTHER_SYNC, NO_NAMES_SYNC, NO_LMDB_SYNC)


class PowerDisk(MirrorDisk):
    """Give it to `LmdbCalls` as the watcher. `lies`: syncs that return without having synced."""

    def __init__(
        self, directory: str, fake: FakeDisk | None = None, lies: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(directory, fake)
        self.lies = lies
        self.failures = 0
        """How often it failed."""
        self._crash_at: int | None = None
        self._has_crashed = False
        self._fault_at: int | None = None
        self._nested: tuple[Callable[[Operation], bool], Callable[[], object]] | None = None
        self.fake.before_operation = self._before

    # ------------------------------------------------------------------------- faults

    def crash_after(self, operations: int, torn_write_bytes: int) -> None:
        """Of a write that is crashed into, so much is written."""
        self._crash_at = len(self.fake.operations) + operations
        self.fake.torn_write_bytes = torn_write_bytes

    def fail_after(self, operations: int) -> None:
        """The first sync or write after so many operations fails, that one only."""
        self._fault_at = len(self.fake.operations) + operations

    def fill(self, free_bytes: int | None) -> None:
        """No more than this fits; None: the disk is as large as it takes."""
        used = sum(self.fake.file_size(path) for path in self.fake.files())
        self.fake.capacity_bytes = None if free_bytes is None else used + free_bytes

    @property
    def is_full(self) -> bool:
        return self.fake.capacity_bytes is not None

    def nest(
        self, is_its: Callable[[Operation], bool], skipped: int, job: Callable[[], object]
    ) -> None:
        """Do a job of one thread before an operation of another one, past its first ones."""
        left = skipped

        def is_time(operation: Operation) -> bool:
            nonlocal left
            left -= is_its(operation)
            return left < 0

        self._nested = is_time, job

    def unnest(self) -> bool:
        """Whether it was not done, and will not be."""
        nested, self._nested = self._nested, None
        return nested is not None

    def _before(self, operation: Operation) -> None:
        if self._crash_at is not None and operation.number >= self._crash_at:
            if self._has_crashed:  # LMDB tries to repair what it could not write.
                self.fake.torn_write_bytes = 0
            self._has_crashed = True
            raise SimulatedCrash(operation)
        if self._nested is not None and self._nested[0](operation):
            nested, self._nested = self._nested[1], None
            nested()
        is_late = self._fault_at is not None and operation.number >= self._fault_at
        if is_late and operation.name in ("fdatasync", "pwrite"):
            self._fault_at = None
            self.failures += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO), operation.file_path)

    # ------------------------------------------------------------------------- files

    def fdatasync(self, handle: int) -> None:
        file_path = self.fake._handles[handle][0]
        if (NO_LOG_SYNC if "/wal/" in file_path else NO_OTHER_SYNC) in self.lies:
            self.fake._begin("fdatasync", file_path)
            return
        try:
            super().fdatasync(handle)
        except OSError:
            self._forget_dirty(file_path)
            raise

    def fsync_dir(self, dir_path: str) -> None:
        if NO_NAMES_SYNC in self.lies:
            self.fake._begin("fsync_dir", dir_path)
        else:
            super().fsync_dir(dir_path)

    def lmdb_write(self, file_path: str, data: bytes, offset: int, *, is_synced: bool) -> None:
        if not file_path.startswith(self.directory + os.sep):
            return
        handle = self.fake.open(file_path)
        try:
            write_all(self.fake, handle, data, offset)
        finally:
            self.fake.close(handle)
        if is_synced and NO_LMDB_SYNC not in self.lies:
            file = self.fake._names[file_path]
            end = offset + len(data)
            sectors = set(range(offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1))
            file.sync(sectors, with_size=False)
            file.dirty -= sectors

    def lmdb_sync(self, file_path: str) -> None:
        if not file_path.startswith(self.directory + os.sep):
            return
        if NO_LMDB_SYNC in self.lies:
            self.fake._begin("fdatasync", file_path)
            return
        handle = self.fake.open(file_path)
        try:
            self.fake.fdatasync(handle)
        except OSError:
            self._forget_dirty(file_path)
            raise
        finally:
            self.fake.close(handle)

    # ------------------------------------------------------------------------- what is left

    def killed(self) -> PowerDisk:
        """As the next process finds it after kill -9. Nothing may use this one any more."""
        self._release()
        return self.after(self.fake.kill())

    def cut(self, dice: Random) -> PowerDisk:
        """As the next process finds it after the power went: of what was not synced, any part."""
        return self.cut_to(dice.choice(KEPT_SHARES), dice)

    def cut_to(self, share: float, dice: Random) -> PowerDisk:
        """The same, with about this share of it left."""
        self._release()
        kept = [sector for sector in self.fake.dirty_sectors() if dice.random() < share]
        names = [number for number in range(self.fake.unsynced_names) if dice.random() < share]
        return self.after(self.fake.power_cut(kept, names))

    def after(self, fake: FakeDisk) -> PowerDisk:
        """The directory as `fake` has it."""
        for folder, _, names in os.walk(self.directory):
            for path in (os.path.join(folder, name) for name in names):
                if not fake.exists(path):
                    os.unlink(path)
        write_image(fake, self.directory, Path(self.directory))
        return PowerDisk(self.directory, fake, self.lies)

    def _release(self) -> None:
        """The process is gone, and with it what it had open."""
        for handle in self._handles.values():
            self.real.close(handle)
        self._handles = {}

    def _forget_dirty(self, file_path: str) -> None:
        """A sync that failed: the kernel may count the pages as clean, though they are not on the
        medium, and say of the next sync that it succeeded."""
        self.fake._names[file_path].dirty = set()
