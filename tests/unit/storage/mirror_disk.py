"""Files that are real and, beside that, on a fake disk, which knows what a crash would leave.

LMDB needs real files; only a fake disk forgets what was not synced. Every call goes to both, and
`image` writes what the fake one is left with after a crash into a new real directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from coordsvc.storage.files import FileSystem
from coordsvc.testing.fake_disk import FakeDisk


class MirrorDisk:
    """`storage.files.Files`. What is below `directory` already counts as on disk.
    `before_operation` is called before each call that changes something."""

    def __init__(self, directory: str, fake: FakeDisk | None = None) -> None:
        """`fake`: what a crash left, which the files in the directory show; None: a new one."""
        self.directory = directory
        self.fake = fake or FakeDisk()
        self.real = FileSystem()
        self._handles: dict[int, int] = {}
        self._moved_dirs: dict[str, list[str]] = {}
        self.fake.make_dir(directory)
        if fake is not None:
            return
        for folder, _, names in os.walk(directory):
            self.fake.make_dir(folder)
            for name in names:
                path = os.path.join(folder, name)
                self.fake.put(path, Path(path).read_bytes())

    def on_operation(self, callback: Callable[[str], None]) -> None:
        self.fake.before_operation = lambda operation: callback(operation.name)

    # ---------------------------------------------------------------- both

    def open(self, file_path: str) -> int:
        return self._both(self.fake.open(file_path), self.real.open(file_path))

    def close(self, handle: int) -> None:
        self.real.close(self._handles.pop(handle))
        self.fake.close(handle)

    def pwrite(self, handle: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        self.fake.pwrite(handle, data, offset)
        return self.real.pwrite(self._handles[handle], data, offset)

    def allocate(self, handle: int, size: int) -> None:
        self.fake.allocate(handle, size)
        self.real.allocate(self._handles[handle], size)

    def fdatasync(self, handle: int) -> None:
        self.fake.fdatasync(handle)

    def fsync_dir(self, dir_path: str) -> None:
        self.fake.fsync_dir(dir_path)
        for moved in self._moved_dirs.pop(dir_path, ()):
            self.fake.fsync_dir(moved)

    def make_dir(self, dir_path: str) -> None:
        self.fake.make_dir(dir_path)
        self.real.make_dir(dir_path)

    def rename(self, source: str, target: str) -> None:
        if os.path.isdir(source):
            self._rename_dir(source, target)
        else:
            self.fake.rename(source, target)
        self.real.rename(source, target)

    def unlink(self, file_path: str) -> None:
        self.fake.unlink(file_path)
        self.real.unlink(file_path)

    def lock(self, file_path: str) -> int:
        return self._both(self.fake.lock(file_path), self.real.lock(file_path))

    # ---------------------------------------------------------------- the real ones

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return self.real.pread(self._handles[handle], size, offset)

    def read(self, file_path: str) -> bytes:
        return self.real.read(file_path)

    def list_dir(self, dir_path: str) -> list[str]:
        return self.real.list_dir(dir_path)

    def exists(self, file_path: str) -> bool:
        return self.real.exists(file_path)

    def is_dir(self, file_path: str) -> bool:
        return self.real.is_dir(file_path)

    def file_size(self, file_path: str) -> int:
        return self.real.file_size(file_path)

    def _both(self, handle: int, real_handle: int) -> int:
        self._handles[handle] = real_handle
        return handle

    def _rename_dir(self, source: str, target: str) -> None:
        """The fake disk has no directories worth the name: each file moves by itself, and a crash
        may find some moved. That is more than a real one does. They are safe when the directory
        that took them in is synced."""
        self._moved_dirs.setdefault(os.path.dirname(target), []).append(target)
        self.fake.make_dir(target)
        for path in [path for path in self.fake._names if path.startswith(source + "/")]:
            self.fake.make_dir(os.path.dirname(target + path[len(source) :]))
            self.fake.rename(path, target + path[len(source) :])


class Images:
    """Collects what crashes leave, each different content once."""

    def __init__(self, directory: str, target: Path) -> None:
        self._directory = directory
        self._target = target
        self._known: set[bytes] = set()
        self.found: list[tuple[str, str]] = []
        """(what happened, the directory it is in)"""

    def add(self, label: str, disk: FakeDisk) -> None:
        files = {path: bytes(file.cached) for path, file in sorted(disk._names.items())}
        content = sha256(repr(files).encode()).digest()
        if content in self._known:
            return
        self._known.add(content)
        root = self._target / f"image{len(self.found)}"
        write_image(disk, self._directory, root)
        self.found.append((label, str(root)))


def write_image(disk: FakeDisk, directory: str, target: Path) -> None:
    """Write what the disk shows below `directory` into real files below `target`."""
    for path in disk._dirs:
        if path.startswith(directory):
            (target / path[len(directory) :].lstrip("/")).mkdir(parents=True, exist_ok=True)
    for path, file in disk._names.items():
        real = target / path[len(directory) :].lstrip("/")
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(file.cached)
