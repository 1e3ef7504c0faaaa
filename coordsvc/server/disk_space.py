"""Low disk space: what would fill the disk is refused while there is still room to empty it.

A thread asks the file system of data_dir once a second, because that may take as long as it likes.
Space is low when less than `disk_free_bytes_min` is free, or when the log found no room for its
next segment; it is enough again with a tenth more than that, so that it does not go back and
forth. While it is low this replica takes from its own clients only what makes the tree smaller:
deletes, and the end of sessions. Reads, heartbeats and sessions that are attached again go on.

What clients of the other replicas write still arrives through the log, and must be stored: a
replica that refused that would leave the majority. So one full disk does not stop a cluster of
three; the replica ends when its disk is full, and comes back when there is room. When so many are
low that the rest is no majority, the next one to end would stop the cluster: then all replicas
refuse, for which they tell each other (`set_elsewhere`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable

from coordsvc.core.commands import (
    AttachSessionOp,
    CheckOp,
    CloseSessionOp,
    DeleteOp,
    MultiOp,
    Op,
)
from coordsvc.errors import CoordError
from coordsvc.server.limits import refusal

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
ENOUGH_SHARE = 1.1
"""Of the least free space, from which on it is enough again."""


def free_bytes_at(directory: str) -> int:
    """What this process could still write there. Raises OSError."""
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


def frees_space(op: Op) -> bool:
    """Whether `op` makes the tree smaller, or keeps alive what is in it."""
    if isinstance(op, MultiOp):
        return all(isinstance(sub_op, DeleteOp | CheckOp) for sub_op in op.ops)
    return isinstance(op, DeleteOp | CloseSessionOp | AttachSessionOp)


class DiskSpace:
    """`is_log_low()` is what the log says of its own room."""

    def __init__(
        self,
        directory: str,
        *,
        free_bytes_min: int,
        is_log_low: Callable[[], bool] = lambda: False,
        free_bytes_at: Callable[[str], int] = free_bytes_at,
        poll_s: float = POLL_SECONDS,
    ) -> None:
        self._directory = directory
        self._free_bytes_min = free_bytes_min
        self._is_log_low = is_log_low
        self._free_bytes_at = free_bytes_at
        self._poll_s = poll_s
        self._free_bytes: int | None = None
        self._is_low_here = False
        self._is_low_elsewhere = False
        self._is_unknown = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # --------------------------------------------------------------------------------------- facts

    @property
    def free_bytes(self) -> int | None:
        """As last seen; None before it was seen for the first time."""
        return self._free_bytes

    @property
    def is_low_here(self) -> bool:
        return self._is_low_here

    @property
    def is_low(self) -> bool:
        """Whether writes are refused."""
        return self._is_low_here or self._is_low_elsewhere

    def check_write(self, op: Op) -> None:
        """Raises LimitExceededError, certainly not applied, if `op` must not be taken now."""
        if self.is_low and not frees_space(op):
            raise self._refusal()

    def check_opening(self) -> None:
        """The same for a new session."""
        if self.is_low:
            raise self._refusal()

    def _refusal(self) -> CoordError:
        where = "here" if self._is_low_here else "at most replicas"
        free = f"; {self._free_bytes} bytes are free" if self._is_low_here else ""
        return refusal(
            "disk_free",
            f"disk space is low {where}{free}: only deletes and the end of sessions are taken",
            self._free_bytes_min,
        )

    # ------------------------------------------------------------------------------------- the poll

    def start(self) -> None:
        """On the loop that is to be told. `stop` ends it."""
        loop = asyncio.get_running_loop()
        # A daemon: a file system that never answers must not keep the process.
        self._thread = threading.Thread(
            target=self._poll, args=(loop,), name="disk-space", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _poll(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            try:
                seen: int | OSError = self._free_bytes_at(self._directory)
            except OSError as error:
                seen = error
            try:
                loop.call_soon_threadsafe(self._note, seen)
            except RuntimeError:
                return  # The loop is closed: the process is ending.
            if self._stop.wait(self._poll_s):
                return

    def _note(self, seen: int | OSError) -> None:
        if isinstance(seen, OSError):
            self.note_unknown(seen)
        else:
            self.note_free(seen)

    # -------------------------------------------------------------------------------------- changes

    def note_free(self, free_bytes: int) -> None:
        self._is_unknown = False
        self._free_bytes = free_bytes
        enough = self._free_bytes_min * (ENOUGH_SHARE if self._is_low_here else 1.0)
        is_low = free_bytes < enough or self._is_log_low()
        if is_low == self._is_low_here:
            return
        self._is_low_here = is_low
        fields = {"free_bytes": free_bytes, "disk_free_bytes_min": self._free_bytes_min}
        if is_low:
            logger.warning("disk.space_low", extra=fields)
        else:
            logger.info("disk.space_enough", extra=fields)

    def note_unknown(self, error: OSError) -> None:
        """What was known last goes on to hold; the log finds out by itself when it has no room."""
        if not self._is_unknown:
            logger.warning("disk.space_unknown", extra={"error": str(error)})
        self._is_unknown = True

    def set_elsewhere(self, is_low: bool) -> None:
        """Whether so many replicas are low that those with room are no majority."""
        if is_low == self._is_low_elsewhere:
            return
        self._is_low_elsewhere = is_low
        if is_low:
            logger.warning("cluster.space_low")
        else:
            logger.info("cluster.space_enough")
