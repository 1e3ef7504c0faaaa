"""The thin layer over the operating system's files; everything in storage/ goes through it.

`Files` is what the rest is written against, `FileSystem` the real one. Tests put
`coordsvc.testing.fake_disk.FakeDisk` in its place, which loses, tears and refuses on command.
Calls raise OSError as the system does; callers map it.
"""

from __future__ import annotations

import fcntl
import os
from typing import Protocol


class Files(Protocol):
    """What storage needs of a file system. A handle is an int, valid until `close`."""

    def open(self, file_path: str) -> int:
        """Open for reading and writing; create the file when it is not there."""
        ...

    def close(self, handle: int) -> None: ...

    def pwrite(self, handle: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        """Write some of `data` and return how much: a short write is no error."""
        ...

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        """At most `size` bytes; fewer at the file's end."""
        ...

    def allocate(self, handle: int, size: int) -> None:
        """Make the file at least `size` bytes long, its space reserved, reading as zeros."""
        ...

    def fdatasync(self, handle: int) -> None:
        """Return once the file's data, and the size needed to read it, survive a power cut."""
        ...

    def fsync_dir(self, dir_path: str) -> None:
        """Return once creations, renames and unlinks in the directory survive a power cut."""
        ...

    def read(self, file_path: str) -> bytes: ...

    def list_dir(self, dir_path: str) -> list[str]: ...

    def make_dir(self, dir_path: str) -> None:
        """Create the directory; it is no error when it is there."""
        ...

    def exists(self, file_path: str) -> bool: ...

    def is_dir(self, file_path: str) -> bool: ...

    def file_size(self, file_path: str) -> int: ...

    def rename(self, source: str, target: str) -> None:
        """Atomically give the file the name `target`, in place of what had it."""
        ...

    def unlink(self, file_path: str) -> None: ...

    def lock(self, file_path: str) -> int:
        """Create and lock the file for this process, or raise BlockingIOError."""
        ...


class FileSystem:
    """The operating system's files."""

    def open(self, file_path: str) -> int:
        return os.open(file_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def close(self, handle: int) -> None:
        os.close(handle)

    def pwrite(self, handle: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        return os.pwrite(handle, data, offset)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        return os.pread(handle, size, offset)

    def allocate(self, handle: int, size: int) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
        elif os.fstat(handle).st_size < size:  # macOS: the space comes with the zeros written later
            os.ftruncate(handle, size)

    def fdatasync(self, handle: int) -> None:
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone stops at the drive's own cache
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(handle)

    def fsync_dir(self, dir_path: str) -> None:
        handle = os.open(dir_path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self, file_path: str) -> bytes:
        with open(file_path, "rb") as file:
            return file.read()

    def list_dir(self, dir_path: str) -> list[str]:
        return os.listdir(dir_path)

    def make_dir(self, dir_path: str) -> None:
        os.makedirs(dir_path, mode=0o700, exist_ok=True)

    def exists(self, file_path: str) -> bool:
        return os.path.lexists(file_path)

    def is_dir(self, file_path: str) -> bool:
        return os.path.isdir(file_path)

    def file_size(self, file_path: str) -> int:
        return os.stat(file_path).st_size

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def unlink(self, file_path: str) -> None:
        os.unlink(file_path)

    def lock(self, file_path: str) -> int:
        handle = self.open(file_path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(handle)
            raise
        return handle


def free_bytes(dir_path: str) -> int:
    """What an ordinary user may still write to its file system. Raises OSError."""
    facts = os.statvfs(dir_path)
    return facts.f_bavail * facts.f_frsize


def write_all(files: Files, handle: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data`: the system may take less than it was given in one call."""
    view = memoryview(data)
    while view:
        written = files.pwrite(handle, view, offset)
        if written <= 0:
            raise OSError(f"pwrite wrote {written} of {len(view)} bytes")
        view = view[written:]
        offset += written


def replace_file(files: Files, file_path: str, data: bytes) -> None:
    """Put `data` in the file's place so that a crash leaves the old or the new, never a mix."""
    temporary = file_path + ".tmp"
    if files.exists(temporary):
        files.unlink(temporary)
    handle = files.open(temporary)
    try:
        write_all(files, handle, data, 0)
        files.fdatasync(handle)
    finally:
        files.close(handle)
    files.rename(temporary, file_path)
    files.fsync_dir(os.path.dirname(file_path))


def sync_file(files: Files, file_path: str) -> None:
    """Return once what the file shows is on disk."""
    handle = files.open(file_path)
    try:
        files.fdatasync(handle)
    finally:
        files.close(handle)
