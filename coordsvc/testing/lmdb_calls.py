"""LMDB's own writes and syncs, seen one by one.

LMDB writes from C, past `storage.files`. While an `LmdbCalls` is entered, each of its calls that
changes a file comes here first; a write then reaches the system, a sync does not: what is on disk
is for the watcher to say. For that the slots through which its library
calls the C library are pointed at functions of ours, and back again afterwards. Nothing is built or
preloaded; it takes Linux and a 64-bit library that binds its calls through such slots.

What is told is what LMDB asked the system for, not what it is documented to ask: a flag that makes
it skip a sync shows here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol

import lmdb.cpython

_SIZE = ctypes.c_ssize_t
_PROTOTYPES: Final = {
    "pwrite": (_SIZE, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long),
    "write": (_SIZE, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t),
    "writev": (_SIZE, ctypes.c_int, ctypes.c_void_p, ctypes.c_int),
    "fdatasync": (ctypes.c_int, ctypes.c_int),
    "fsync": (ctypes.c_int, ctypes.c_int),
}
"""What LMDB changes files with, and returns -1 and an errno from. It maps files for reading only,
unless it is told to write through the map: then its writes are not seen, so nothing is kept."""

_SYNCS: Final = ("fdatasync", "fsync")

_DT_STRTAB, _DT_SYMTAB, _DT_PLTRELSZ, _DT_JMPREL = 5, 6, 2, 23
_PT_DYNAMIC = 2
_JUMP_SLOTS: Final = {"x86_64": 7, "aarch64": 1026}
"""The relocation of a slot, by machine."""

IS_SUPPORTED: Final = sys.platform == "linux" and os.uname().machine in _JUMP_SLOTS


class LmdbWatcher(Protocol):
    """Is asked before each call; OSError: the call fails with it. Any other exception: the call
    fails, and the exception is raised when `LmdbCalls` is left, or by `LmdbCalls.check`."""

    def lmdb_write(self, file_path: str, data: bytes, offset: int, *, is_synced: bool) -> None:
        """`is_synced`: when the call returns, the data is on disk (O_DSYNC)."""
        ...

    def lmdb_sync(self, file_path: str) -> None: ...


class _Slot(NamedTuple):
    address: int
    original: int


class LmdbCalls:
    """One at a time. `watcher` may be changed while it is entered; None: calls pass."""

    def __init__(self, watcher: LmdbWatcher | None = None) -> None:
        self.watcher = watcher
        self._failure: BaseException | None = None
        self._slots: dict[str, _Slot] = {}
        self._callbacks: list[Any] = []
        """While a slot points at one it must live."""
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> LmdbCalls:
        slots = dict(_slots_of(lmdb.cpython.__file__, set(_PROTOTYPES)))
        assert {"pwrite", "fdatasync"} <= slots.keys(), f"LMDB calls through {sorted(slots)} only"
        for name, slot in slots.items():
            callback = ctypes.CFUNCTYPE(*_PROTOTYPES[name], use_errno=True)(self._guarded(name))
            self._callbacks.append(callback)
            self._slots[name] = slot
            address = ctypes.cast(callback, ctypes.c_void_p).value
            assert address is not None
            _poke(slot.address, address)
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for slot in self._slots.values():
            _poke(slot.address, slot.original)
        self._slots = {}
        self.check()

    def check(self) -> None:
        """Raise what the watcher raised, if it was no OSError."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _guarded(self, name: str) -> Callable[..., int]:
        before: Callable[..., None] = getattr(self, f"_before_{name}")
        function = getattr(self._libc, name)
        function.restype, function.argtypes = _PROTOTYPES[name][0], _PROTOTYPES[name][1:]

        def call(*arguments: Any) -> int:
            try:
                if self.watcher is not None:
                    before(*arguments)
                    if name in _SYNCS:
                        return 0
            except OSError as error:
                ctypes.set_errno(error.errno or errno.EIO)
                return -1
            except BaseException as error:  # C cannot pass it on: kept for `check`
                self._failure = self._failure or error
                ctypes.set_errno(errno.EIO)
                return -1
            result: int = function(*arguments)
            return result

        return call

    def _before_pwrite(self, fd: int, buffer: int, size: int, offset: int) -> None:
        assert self.watcher is not None
        is_synced = bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DSYNC)
        data = ctypes.string_at(buffer, size)
        self.watcher.lmdb_write(_path_of(fd), data, offset, is_synced=is_synced)

    def _before_write(self, fd: int, buffer: int, size: int) -> None:
        self._before_pwrite(fd, buffer, size, os.lseek(fd, 0, os.SEEK_CUR))

    def _before_writev(self, fd: int, vectors: int, count: int) -> None:
        offset = os.lseek(fd, 0, os.SEEK_CUR)
        for address, size in struct.iter_unpack("QQ", ctypes.string_at(vectors, 16 * count)):
            self._before_pwrite(fd, address, size, offset)
            offset += size

    def _before_fdatasync(self, fd: int) -> None:
        assert self.watcher is not None
        self.watcher.lmdb_sync(_path_of(fd))

    _before_fsync = _before_fdatasync


def _path_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")


def _poke(address: int, value: int) -> None:
    """Write a pointer into the library's table, which may be protected."""
    page = address & -mmap.PAGESIZE
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if mprotect(page, mmap.PAGESIZE, protection):
        raise OSError(ctypes.get_errno(), "mprotect")
    ctypes.c_uint64.from_address(address).value = value


def _slots_of(library: str, names: set[str]) -> Iterator[tuple[str, _Slot]]:
    """Where the loaded library keeps the addresses of these functions."""
    base = _base_of(library)
    dynamic = dict(_dynamic_of(base))
    jump_slot = _JUMP_SLOTS[os.uname().machine]
    table = ctypes.string_at(dynamic[_DT_JMPREL], dynamic[_DT_PLTRELSZ])
    for offset, info, _ in struct.iter_unpack("<QQq", table):
        if info & 0xFFFFFFFF != jump_slot:
            continue
        symbol = ctypes.string_at(dynamic[_DT_SYMTAB] + 24 * (info >> 32), 4)
        name = ctypes.string_at(dynamic[_DT_STRTAB] + int.from_bytes(symbol, "little")).decode()
        if name.removesuffix("64") in names:
            slot = base + offset
            yield name.removesuffix("64"), _Slot(slot, ctypes.c_uint64.from_address(slot).value)


def _dynamic_of(base: int) -> Iterator[tuple[int, int]]:
    """The library's dynamic section; the loader has made its addresses absolute."""
    headers_at, entry_size, count = struct.unpack("<Q14xHH", ctypes.string_at(base + 32, 26))
    for number in range(count):
        header = ctypes.string_at(base + headers_at + number * entry_size, 56)
        kind, _, _, address, _, _, size, _ = struct.unpack("<IIQQQQQQ", header)
        if kind == _PT_DYNAMIC:
            yield from struct.iter_unpack("<qQ", ctypes.string_at(base + address, size))


def _base_of(library: str) -> int:
    path = os.path.realpath(library)
    with open("/proc/self/maps") as maps:
        starts = [int(line.partition("-")[0], 16) for line in maps if line.rstrip().endswith(path)]
    assert starts, f"{path} is not loaded"
    return min(starts)
