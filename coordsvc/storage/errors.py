"""Errors of the disk. Each ends the process, with an exit status of its own kind.

::

    StorageError
    +-- DiskError              read, write or sync failed: the disk's state is unknown
    |   +-- DiskFullError      no space left
    +-- CorruptionError        what is on disk cannot be what was written
    +-- DataDirRefusedError    the directory is intact, but not one this process may use

Foreign errors (OSError) are turned into these where the call is made and never leave storage/.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from coordsvc.errors import InternalError


class StorageError(InternalError):
    """A fault of this replica's disk or data directory."""


class DiskError(StorageError):
    """The disk refused to read, write or sync. After a failed sync nobody knows what is on it:
    the kernel may have dropped the pages and report success the next time, so never retry."""


class DiskFullError(DiskError):
    """No space left, or the quota is used up."""


class CorruptionError(StorageError):
    """Data that had been synced is damaged or gone. Starting without it could undo what was
    acknowledged, so the start is refused."""

    def __init__(self, file_path: str, offset: int | None, reason: str) -> None:
        """`offset` None: it is not known where in the file, or not in one place."""
        place = "" if offset is None else f" at byte {offset}"
        super().__init__(
            f"{file_path} is damaged{place}: {reason}. Nothing was changed. Restore the disk; or,"
            " if the other replicas are whole, run `coordsvc rejoin DATA_DIR`, which sets aside"
            " what is there, and start again: the replica then fetches everything from them"
        )
        self.file_path = file_path
        self.offset = offset
        self.reason = reason


class DataDirRefusedError(StorageError):
    """The data directory belongs to somebody else, or cannot be used as one."""


@contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Turn an OSError of the block into a typed error that says what was being done."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        error_class = DiskFullError if full else DiskError
        raise error_class(f"{doing}: {error}") from error
