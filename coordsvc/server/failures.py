"""What ends the process, and with which status.

A replica that has met something it cannot explain must not go on: it could acknowledge what is not
safe. So it ends at once, without the courtesies of a clean stop. Whatever it acknowledged is on a
majority's disks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import coordsvc
from coordsvc.errors import CoordError, InternalError
from coordsvc.exit_status import ExitStatus
from coordsvc.raft.applier import ClusterMismatchError, DigestMismatchError
from coordsvc.raft.replica_types import SilentDiskError
from coordsvc.storage.errors import CorruptionError, DataDirRefusedError, DiskError

logger = logging.getLogger(__name__)

_PACKAGE_DIR = Path(coordsvc.__file__).parent
_VITAL_DIRS = tuple(
    str(_PACKAGE_DIR / folder) + os.sep for folder in ("core", "raft", "server", "storage")
)


class StartRefusedError(Exception):
    """The replica cannot start; the message says what to do."""

    def __init__(self, status: ExitStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def status_of_failure(error: BaseException) -> ExitStatus:
    """The exit status of a process that `error` ends."""
    if isinstance(error, StartRefusedError):
        return error.status
    if isinstance(error, DigestMismatchError):
        return ExitStatus.DIVERGED
    if isinstance(error, CorruptionError | ClusterMismatchError):
        return ExitStatus.CORRUPTION
    if isinstance(error, DataDirRefusedError):
        return ExitStatus.DATA_DIR_REFUSED
    if isinstance(error, DiskError | SilentDiskError):
        return ExitStatus.DISK
    return ExitStatus.BUG


def end_process(status: int) -> NoReturn:
    """Now, whatever the loop or a thread is doing: a disk that hangs must not keep it alive."""
    for handler in logging.getLogger().handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class FatalErrors:
    """Turns what nobody caught into the end of the process; `end` is `end_process`. `data_dir` is
    for its messages alone."""

    def __init__(
        self, end: Callable[[int], object] = end_process, *, data_dir: str = "DATA_DIR"
    ) -> None:
        self._end = end
        self._data_dir = data_dir
        self.digest_mismatches_total = 0

    def on_fatal(self, error: BaseException) -> None:
        status = status_of_failure(error)
        if status == ExitStatus.DIVERGED:
            self.digest_mismatches_total += 1
        logger.critical(
            "process.failed",
            extra={"exit_status": int(status), "error": self.text_of(error)},
            exc_info=error if status == ExitStatus.BUG else None,
        )
        self._end(int(status))

    def text_of(self, error: BaseException) -> str:
        """With the directory where it says what to do about it."""
        return (str(error) or repr(error)).replace("rejoin DATA_DIR", f"rejoin {self._data_dir}")

    def on_loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The loop's exception handler. What passed through the replica's own parts is fatal.
        What a library's callback did, such as gRPC's after a client went away, is not; nor is a
        typed answer that nobody waited for any more."""
        error = context.get("exception")
        if isinstance(error, Exception) and is_vital(error):
            self.on_fatal(error)
            return
        logger.warning(
            "loop.exception",
            extra={"text": str(context.get("message", ""))},
            exc_info=error if isinstance(error, BaseException) else None,
        )


def is_vital(error: Exception) -> bool:
    """Whether `error` shows that the replica's own code did what it must not."""
    if isinstance(error, CoordError) and not isinstance(error, InternalError):
        return False
    return any(file_name.startswith(_VITAL_DIRS) for file_name in _file_names(error.__traceback__))


def _file_names(traceback: TracebackType | None) -> list[str]:
    names = []
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    return names
