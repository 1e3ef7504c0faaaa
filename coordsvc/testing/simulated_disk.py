"""A simulated replica's disk, and the threads that write to it.

The log and META are on a `FakeDisk`, which forgets what was not synced. LMDB writes by itself, so
its files (`*.mdb`) are real ones in a scratch directory; a commit of LMDB's happens as a whole or
not at all here, and is durable then. `tests/unit/storage` tears the pages of both.

A job takes a while and happens at its end, so that of one that is under way at a crash nothing has
happened, or a part.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from coordsvc.server.disk_space import DiskSpace
from coordsvc.storage.executor import Done, Job, Timer
from coordsvc.storage.files import FileSystem
from coordsvc.testing.fake_disk import FakeDisk, SimulatedCrash
from coordsvc.testing.timeline import SimulatedLoop

REAL_HANDLES_FROM = 1_000_000
TORN_OPERATIONS_MAX = 4
KEPT_SECTORS_SHARE = 0.5


class SimulatedDisk:
    """`Files` in `directory`, which is a real one. `write_s` is what a job takes on average."""

    def __init__(self, directory: str, rng: random.Random) -> None:
        self.directory = directory
        self.fake = FakeDisk()
        self.real = FileSystem()
        self.rng = rng
        self.write_s = 0.001
        self.slow_until = 0.0
        """Nothing that is begun before this time is completed before it."""
        os.makedirs(directory, exist_ok=True)

    def duration_s(self, now: float) -> float:
        took = self.rng.expovariate(1 / self.write_s)
        return took + max(0.0, self.slow_until - now)

    # ------------------------------------------------------------------------ what is done to it

    def crash(self, *, is_power_cut: bool) -> None:
        """What the next process finds: everything written, or only what was synced and by chance
        some of the rest."""
        if not is_power_cut:
            self.fake = self.fake.kill()
            return
        rng = self.rng
        kept = [each for each in self.fake.dirty_sectors() if rng.random() < KEPT_SECTORS_SHARE]
        names = [i for i in range(self.fake.unsynced_names) if rng.random() < KEPT_SECTORS_SHARE]
        self.fake = self.fake.power_cut(kept, names)

    def wipe(self) -> None:
        self.fake = FakeDisk()
        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            if os.path.isdir(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    def image(self) -> DiskImage:
        """What a copy of the disk would hold that is taken at this moment."""
        return DiskImage(self.fake.kill(), _read_real(self.directory))

    def restore(self, image: DiskImage) -> None:
        self.wipe()
        self.fake = image.fake.kill()
        for path, data in image.real.items():
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)

    def fill(self, free_bytes: int) -> None:
        used = sum(self.fake.file_size(path) for path in self.fake.files())
        self.fake.capacity_bytes = used + free_bytes

    # ----------------------------------------------------------------------- storage.files.Files

    def _of(self, file_path: str) -> Any:
        return self.real if _is_real(file_path) else self.fake

    def open(self, file_path: str) -> int:
        handle: int = self._of(file_path).open(file_path)
        return handle + REAL_HANDLES_FROM if _is_real(file_path) else handle

    def _by(self, handle: int) -> tuple[Any, int]:
        if handle >= REAL_HANDLES_FROM:
            return self.real, handle - REAL_HANDLES_FROM
        return self.fake, handle

    def close(self, handle: int) -> None:
        files, handle = self._by(handle)
        files.close(handle)

    def pwrite(self, handle: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        files, handle = self._by(handle)
        return cast(int, files.pwrite(handle, data, offset))

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        files, handle = self._by(handle)
        return cast(bytes, files.pread(handle, size, offset))

    def allocate(self, handle: int, size: int) -> None:
        files, handle = self._by(handle)
        files.allocate(handle, size)

    def fdatasync(self, handle: int) -> None:
        files, handle = self._by(handle)
        if files is self.fake:  # What is real here needs to outlive nobody.
            files.fdatasync(handle)

    def fsync_dir(self, dir_path: str) -> None:
        self.fake.fsync_dir(dir_path)

    def read(self, file_path: str) -> bytes:
        return cast(bytes, self._of(file_path).read(file_path))

    def list_dir(self, dir_path: str) -> list[str]:
        real = os.listdir(dir_path) if os.path.isdir(dir_path) else []
        names = {*self.fake.list_dir(dir_path), *(name for name in real if _is_real(name))}
        return sorted(names)

    def make_dir(self, dir_path: str) -> None:
        self.fake.make_dir(dir_path)
        self.real.make_dir(dir_path)

    def exists(self, file_path: str) -> bool:
        return cast(bool, self._of(file_path).exists(file_path))

    def is_dir(self, file_path: str) -> bool:
        return self.fake.is_dir(file_path)

    def file_size(self, file_path: str) -> int:
        return cast(int, self._of(file_path).file_size(file_path))

    def rename(self, source: str, target: str) -> None:
        self._of(source).rename(source, target)

    def unlink(self, file_path: str) -> None:
        self._of(file_path).unlink(file_path)

    def lock(self, file_path: str) -> int:
        return self.fake.lock(file_path)


class DiskImage:
    """A copy of a disk, as a backup of the machine would be."""

    def __init__(self, fake: FakeDisk, real: dict[str, bytes]) -> None:
        self.fake = fake
        self.real = real


def _is_real(path: str) -> bool:
    return path.endswith((".mdb", ".mdb.new"))


def _read_real(directory: str) -> dict[str, bytes]:
    found = {}
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[path] = file.read()
    return found


class SimulatedExecutor:
    """A thread of a simulated process: one job at a time, each at the end of its duration."""

    def __init__(self, loop: SimulatedLoop, disk: SimulatedDisk) -> None:
        self._loop = loop
        self._disk = disk
        self._jobs: deque[tuple[Job, Done]] = deque()
        self._is_busy = False

    def submit(self, job: Job, done: Done) -> None:
        self._jobs.append((job, done))
        if not self._is_busy:
            self._begin()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_later(seconds, callback)

    def close(self, timeout_seconds: float = 5.0) -> bool:
        while self._jobs:
            self._run(*self._jobs.popleft())
        return True

    def tear(self) -> None:
        """The machine fails while the first job is done: some of its calls were still made."""
        if not self._jobs:
            return
        fake, rng = self._disk.fake, self._disk.rng
        at = len(fake.operations) + rng.randrange(TORN_OPERATIONS_MAX)
        fake.crash_at(at, torn_write_bytes=rng.randrange(4096))
        try:
            self._jobs.popleft()[0]()
        except (SimulatedCrash, OSError):
            pass  # Either way nobody is left to be told.
        finally:
            fake.before_operation = None

    def _begin(self) -> None:
        self._is_busy = True
        self._loop.call_later(self._disk.duration_s(self._loop.time()), self._complete)

    def _complete(self) -> None:
        self._is_busy = False
        if self._jobs:
            self._run(*self._jobs.popleft())
        if self._jobs:
            self._begin()

    def _run(self, job: Job, done: Done) -> None:
        result: object = None
        failure: BaseException | None = None
        try:
            result = job()
        except Exception as error:  # handed to the loop, which decides
            failure = error
        self._loop.call_soon(done, result, failure)


class PlentyOfSpace(DiskSpace):
    """Asks nobody: of a simulated disk the log finds out by itself that it is full."""

    def start(self) -> None:
        self.note_free(1 << 40)

    def stop(self) -> None:
        pass
