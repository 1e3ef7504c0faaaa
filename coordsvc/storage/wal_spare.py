"""The spare segment: space held ready, filled with zeros a piece at a time.

Making a segment ready takes long (tens of milliseconds for the zeros and their sync), too long for
a group of writes to wait for. So its space is reserved at start, which costs little, and the zeros
are written in small jobs between groups, from when the open segment is partly used. The space also
lets recovery succeed on a full disk. Runs in the executor, like the writer that owns it.
"""

from __future__ import annotations

import errno
import os

from coordsvc.storage.files import Files
from coordsvc.storage.wal_recovery import SPARE_FILE_NAME, fill_zeros

PIECE_BYTES = 256 << 10


class SpareSegment:
    """`reserve`, then `fill_piece` until it is ready, then `take`, then again."""

    def __init__(self, directory: str, files: Files, segment_bytes: int) -> None:
        self._path = os.path.join(directory, SPARE_FILE_NAME)
        self._directory = directory
        self._files = files
        self._segment_bytes = segment_bytes
        self._handle: int | None = None
        self._filled = 0
        self.is_out_of_space = False

    @property
    def is_reserved(self) -> bool:
        return self._handle is not None

    @property
    def is_ready(self) -> bool:
        return self._filled >= self._segment_bytes

    def reserve(self) -> None:
        """Take the space. A full disk is no error yet: the open segment still has room."""
        handle = self._files.open(self._path)
        try:
            self._files.allocate(handle, self._segment_bytes)
            self._files.fdatasync(handle)
            self._files.fsync_dir(self._directory)
        except OSError as error:
            self._files.close(handle)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._files.unlink(self._path)
            self.is_out_of_space = True
            return
        self._handle, self._filled = handle, 0

    def fill_piece(self) -> None:
        """One step towards a ready spare."""
        if self._handle is None:
            self.reserve()
            return
        end = min(self._filled + PIECE_BYTES, self._segment_bytes)
        fill_zeros(self._files, self._handle, self._filled, end)
        self._files.fdatasync(self._handle)
        self._filled = end

    def take(self, size: int) -> tuple[str, int, int]:
        """(path, handle, size) of a file of at least `size` bytes of zeros, synced. What is not
        ready is made so now."""
        handle = self._files.open(self._path) if self._handle is None else self._handle
        actual_size = max(size, self._segment_bytes)
        if self._filled < actual_size:
            self._files.allocate(handle, actual_size)
            fill_zeros(self._files, handle, self._filled, actual_size)
            self._files.fdatasync(handle)
        self._handle, self._filled, self.is_out_of_space = None, 0, False
        return self._path, handle, actual_size

    def release(self) -> None:
        if self._handle is not None:
            self._files.close(self._handle)
            self._handle = None
