"""Runs a command as a child that cannot outlive its parent: `python -m coordsvc.cli._child FD ...`.

FD is the read end of a pipe whose only write end the parent holds: end of file means that the
parent is gone, however it went. On Linux the kernel is asked to help too, because a child that is
stopped (SIGSTOP) reads no pipe. SIGKILL is safe for a replica: whatever it acknowledged is on disk.

This is a module of its own, run by the child itself, because code between fork and exec
(`preexec_fn`) may deadlock in a parent that has threads. The kernel's signal comes when the
*thread* that started the child ends, so start children from a thread that lives as long as they.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 4.0
"""How long an orphan may take to stop cleanly; a user who closed the parent waits no longer."""


def die_with_parent(pipe_fd: int) -> None:
    """Arrange that this process ends when the other end of `pipe_fd` is closed."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            error_number = ctypes.get_errno()
            raise OSError(error_number, f"prctl: {os.strerror(error_number)}")
    threading.Thread(target=_watch, args=(pipe_fd,), name="parent-watch", daemon=True).start()


def _watch(pipe_fd: int) -> None:
    while os.read(pipe_fd, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    die_with_parent(int(sys.argv[1]))
    from coordsvc.cli.main import main as run_command

    sys.argv = ["coordsvc", *sys.argv[2:]]
    run_command()


if __name__ == "__main__":
    main()
