"""One replica of `coordsvc dev`: a child process, its output, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence

from coordsvc.cli.local_layout import LocalReplica, serve_arguments
from coordsvc.exit_status import ExitStatus

CHUNK_BYTES = 65_536

OF_ONE_REPLICA = (
    "COORDSVC_PEERS",
    "COORDSVC_PEER_LISTEN",
    "COORDSVC_ADVERTISE",
    "COORDSVC_ZOOKEEPER_ADVERTISE",
)
"""Settings that cannot be meant for each of several replicas."""

DEFAULTS = {"COORDSVC_LOG_FORMAT": "console", "COORDSVC_ZOOKEEPER_FOUR_LETTER_WORDS": "*"}
"""Settings for somebody who tries things out, unless the environment has others."""


class DevChild:
    """A running replica. Make it with `start`, on the main thread (see `_child`)."""

    def __init__(
        self, replica: LocalReplica, process: asyncio.subprocess.Process, pipe_fd: int
    ) -> None:
        self.replica = replica
        self._process = process
        self._pipe_fd = pipe_fd

    @classmethod
    async def start(cls, replica: LocalReplica, replicas: Sequence[LocalReplica]) -> DevChild:
        read_fd, write_fd = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "coordsvc.cli._child", str(read_fd)),
                *serve_arguments(replica, replicas),
                env=environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(read_fd,),
                # A Ctrl-C at the terminal is for the parent, which then stops all in order.
                process_group=0,
            )
        except BaseException:
            os.close(write_fd)
            raise
        finally:
            os.close(read_fd)
        return cls(replica, process, write_fd)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.returncode is None

    @property
    def status(self) -> int:
        """Its exit status, once it has ended; negative: the signal that ended it."""
        assert self._process.returncode is not None
        return self._process.returncode

    async def pump(self, on_line: Callable[[int, str], None]) -> None:
        """Hand over each line of output until there is no more."""
        assert self._process.stdout is not None
        rest = b""
        while chunk := await self._process.stdout.read(CHUNK_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > CHUNK_BYTES:
                lines, rest = [*lines, rest], b""
            for line in lines:
                on_line(self.replica.replica_id, line.decode(errors="backslashreplace"))
        if rest:
            on_line(self.replica.replica_id, rest.decode(errors="backslashreplace"))

    async def wait(self) -> int:
        """Its exit status; negative: the signal that ended it."""
        status = await self._process.wait()
        self._release()
        return status

    def terminate(self) -> None:
        """Ask it to stop; one that was paused wakes up to do so."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.is_running:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                return  # It ended a moment ago; wait() has the status.

    def _release(self) -> None:
        if self._pipe_fd >= 0:
            os.close(self._pipe_fd)
            self._pipe_fd = -1


def environment() -> dict[str, str]:
    """Of a child."""
    given = {**DEFAULTS, **os.environ}
    return {name: value for name, value in given.items() if name not in OF_ONE_REPLICA}


def describe_end(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    try:
        meaning = ExitStatus(status).name.lower().replace("_", " ")
    except ValueError:
        return f"ended with status {status}"
    return f"ended with status {status} ({meaning})"
