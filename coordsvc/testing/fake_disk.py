"""A disk in memory that forgets, tears, fails and stands still on command.

`FakeDisk` stands in for `coordsvc.storage.files.FileSystem`. It keeps what a running kernel shows
apart from what the medium holds: writes become durable by `fdatasync`, names by `fsync_dir`.
`kill()` is a process killed (everything written stays visible), `power_cut()` a lost supply (of
what was not synced, any sectors and any name changes may have made it). Both return a
new disk, so that one moment can be continued in many ways.

Syncs complete on command when the disk's jobs run in `coordsvc.testing.manual_loop`. Nothing here
is thread-safe or random.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

SECTOR_BYTES = 512


class SimulatedCrash(BaseException):
    """The process is gone. No `except Exception` may catch it: nothing runs after a crash."""


class Operation(NamedTuple):
    """A call that changes the disk. `number` counts them all, from 0."""

    number: int
    name: str
    file_path: str


class DirtySector(NamedTuple):
    """One unsynced sector: which file (by a number that survives renames), which sector of it."""

    file_number: int
    sector: int


@dataclass
class _File:
    number: int
    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)

    def copy(self) -> _File:
        return _File(self.number, self.cached[:], self.durable[:], set(self.dirty))

    def write(self, data: bytes, offset: int) -> None:
        if not data:
            return
        end = offset + len(data)
        if end > len(self.cached):
            self.cached.extend(bytes(end - len(self.cached)))
        self.cached[offset:end] = data
        self.dirty.update(range(offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1))

    def sync(self, sectors: Iterable[int], *, with_size: bool) -> None:
        for sector in sectors:
            start = sector * SECTOR_BYTES
            piece = self.cached[start : start + SECTOR_BYTES]
            if start > len(self.durable):
                self.durable.extend(bytes(start - len(self.durable)))
            self.durable[start : start + len(piece)] = piece
        if with_size:
            self.durable.extend(bytes(len(self.cached) - len(self.durable)))


class _NameChange(NamedTuple):
    """`file_path` names this file from now on (None: nothing)."""

    file_path: str
    file: _File | None


class FakeDisk:
    """`before_operation`, when set, is called before each operation that changes the disk, and may
    raise: OSError for a fault, SimulatedCrash for a crash. See `fail` and `crash_at`."""

    def __init__(self) -> None:
        self.before_operation: Callable[[Operation], None] | None = None
        self.operations: list[Operation] = []
        self.pwrite_bytes_max: int | None = None
        """Longer writes are short writes."""
        self.capacity_bytes: int | None = None
        self.torn_write_bytes = 0
        """How much of a pwrite that a SimulatedCrash interrupts still happens."""
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        self._dirs: set[str] = {"/"}
        self._pending_names: list[_NameChange] = []
        self._handles: dict[int, tuple[str, _File]] = {}
        self._next_handle = 3
        self._next_file = 0
        self._locks: dict[int, str] = {}

    # ------------------------------------------------------------------ what tests do to it

    def fail(self, name: str, nth: int, error_number: int = errno.EIO) -> None:
        """The nth (from 1) operation of this name from now on, and all after it, fail."""
        seen = 0

        def before(operation: Operation) -> None:
            nonlocal seen
            seen += operation.name == name
            if seen >= nth and operation.name == name:
                raise OSError(error_number, os.strerror(error_number), operation.file_path)

        self.before_operation = before

    def crash_at(self, number: int, torn_write_bytes: int = 0) -> None:
        """Crash instead of the operation with this number; of a pwrite, after some bytes."""
        self.torn_write_bytes = torn_write_bytes

        def before(operation: Operation) -> None:
            if operation.number >= number:
                raise SimulatedCrash(operation)

        self.before_operation = before

    def kill(self) -> FakeDisk:
        """The disk as the next process finds it after kill -9."""
        copies = {id(file): file.copy() for file in self._files()}
        twin = FakeDisk()
        twin.capacity_bytes = self.capacity_bytes
        twin._next_file = self._next_file
        twin._dirs = set(self._dirs)
        twin._names = {path: copies[id(file)] for path, file in self._names.items()}
        twin._durable_names = {path: copies[id(file)] for path, file in self._durable_names.items()}
        twin._pending_names = [
            _NameChange(path, None if file is None else copies[id(file)])
            for path, file in self._pending_names
        ]
        return twin

    def power_cut(
        self, kept: Iterable[DirtySector] = (), names_kept: Iterable[int] = ()
    ) -> FakeDisk:
        """The disk after the power went: what was synced, these unsynced sectors, and these (by
        their number, from 0) of the `unsynced_names` name changes."""
        twin = self.kill()
        by_file: dict[int, list[int]] = {}
        for number, sector in kept:
            by_file.setdefault(number, []).append(sector)
        for file in twin._files():
            file.sync(by_file.get(file.number, ()), with_size=False)
            file.cached, file.dirty = file.durable[:], set()
        for number in sorted(names_kept):
            _rename(twin._durable_names, twin._pending_names[number])
        twin._pending_names = []
        twin._names = dict(twin._durable_names)
        return twin

    def dirty_sectors(self) -> list[DirtySector]:
        files = sorted(self._files(), key=lambda file: file.number)
        return [DirtySector(file.number, sector) for file in files for sector in sorted(file.dirty)]

    @property
    def unsynced_names(self) -> int:
        return len(self._pending_names)

    def flip_bit(self, file_path: str, bit: int) -> FakeDisk:
        """A copy on which one bit of this file is the other way round, on the medium too."""
        twin = self.kill()
        file = twin._names[file_path]
        for content in (file.cached, file.durable):
            if bit // 8 < len(content):
                content[bit // 8] ^= 1 << bit % 8
        return twin

    def put(self, file_path: str, data: bytes) -> None:
        """Give a file this content, durably, past all faults."""
        file = self._names.get(file_path) or self._new_file()
        file.cached, file.durable, file.dirty = bytearray(data), bytearray(data), set()
        self._names[file_path] = self._durable_names[file_path] = file

    def files(self) -> list[str]:
        return sorted(self._names)

    # ------------------------------------------------------------------ storage.files.Files

    def open(self, file_path: str) -> int:
        if file_path not in self._names:
            self._need_dir(os.path.dirname(file_path))
            self._begin("create", file_path)
            self._change_name(file_path, self._new_file())
        return self._handle(file_path)

    def close(self, handle: int) -> None:
        del self._handles[handle]
        self._locks.pop(handle, None)

    def pwrite(self, handle: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        file_path, file = self._handles[handle]
        piece = bytes(data[: self.pwrite_bytes_max])
        try:
            self._begin("pwrite", file_path)
        except SimulatedCrash:
            file.write(piece[: self.torn_write_bytes], offset)
            raise
        self._need_space(offset + len(piece) - len(file.cached))
        file.write(piece, offset)
        return len(piece)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return bytes(self._handles[handle][1].cached[offset : offset + size])

    def allocate(self, handle: int, size: int) -> None:
        file_path, file = self._handles[handle]
        self._begin("allocate", file_path)
        self._need_space(size - len(file.cached))
        file.cached.extend(bytes(size - len(file.cached)))

    def fdatasync(self, handle: int) -> None:
        file_path, file = self._handles[handle]
        self._begin("fdatasync", file_path)
        file.sync(file.dirty, with_size=True)
        file.dirty = set()

    def fsync_dir(self, dir_path: str) -> None:
        self._begin("fsync_dir", dir_path)
        rest: list[_NameChange] = []
        for change in self._pending_names:
            if os.path.dirname(change.file_path) == dir_path:
                _rename(self._durable_names, change)
            else:
                rest.append(change)
        self._pending_names = rest

    def read(self, file_path: str) -> bytes:
        return bytes(self._need_file(file_path).cached)

    def list_dir(self, dir_path: str) -> list[str]:
        self._need_dir(dir_path)
        paths = [*self._names, *self._dirs]
        names = (os.path.basename(path) for path in paths if os.path.dirname(path) == dir_path)
        return sorted(name for name in names if name)

    def make_dir(self, dir_path: str) -> None:
        self._begin("make_dir", dir_path)
        while dir_path not in self._dirs:
            if dir_path in self._names:
                raise FileExistsError(errno.EEXIST, "File exists", dir_path)
            self._dirs.add(dir_path)  # durable at once: an empty directory tells nobody anything
            dir_path = os.path.dirname(dir_path)

    def exists(self, file_path: str) -> bool:
        return file_path in self._names or file_path in self._dirs

    def is_dir(self, file_path: str) -> bool:
        return file_path in self._dirs

    def file_size(self, file_path: str) -> int:
        return len(self._need_file(file_path).cached)

    def rename(self, source: str, target: str) -> None:
        file = self._need_file(source)
        self._begin("rename", target)
        # One step of the journal: a crash never shows both names, or neither.
        self._change_name(target, file)
        for handle, (path, opened) in self._handles.items():
            if path == source and opened is file:
                self._handles[handle] = (target, file)

    def unlink(self, file_path: str) -> None:
        self._need_file(file_path)
        self._begin("unlink", file_path)
        self._change_name(file_path, None)

    def lock(self, file_path: str) -> int:
        if file_path in self._locks.values():
            raise BlockingIOError(errno.EAGAIN, "locked", file_path)
        handle = self.open(file_path)
        self._locks[handle] = file_path
        return handle

    # ------------------------------------------------------------------ helpers

    def _begin(self, name: str, file_path: str) -> None:
        operation = Operation(len(self.operations), name, file_path)
        self.operations.append(operation)
        if self.before_operation is not None:
            self.before_operation(operation)

    def _files(self) -> list[_File]:
        changed = [change.file for change in self._pending_names if change.file is not None]
        opened = [file for _, file in self._handles.values()]
        named = [*self._names.values(), *self._durable_names.values()]
        return list({id(file): file for file in [*named, *changed, *opened]}.values())

    def _new_file(self) -> _File:
        self._next_file += 1
        return _File(self._next_file)

    def _handle(self, file_path: str) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = (file_path, self._names[file_path])
        return self._next_handle

    def _change_name(self, file_path: str, file: _File | None) -> None:
        change = _NameChange(file_path, file)
        _rename(self._names, change)
        self._pending_names.append(change)

    def _need_file(self, file_path: str) -> _File:
        if file_path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "No such file", file_path)
        return self._names[file_path]

    def _need_dir(self, dir_path: str) -> None:
        if dir_path not in self._dirs:
            raise FileNotFoundError(errno.ENOENT, "No such directory", dir_path)

    def _need_space(self, more: int) -> None:
        if self.capacity_bytes is None or more <= 0:
            return
        used = sum(len(file.cached) for file in self._names.values())
        if used + more > self.capacity_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _rename(names: dict[str, _File], change: _NameChange) -> None:
    """Apply one change; a file that takes a name loses the one it had."""
    for path in [path for path, file in names.items() if file is change.file]:
        del names[path]
    names.pop(change.file_path, None)
    if change.file is not None:
        names[change.file_path] = change.file
