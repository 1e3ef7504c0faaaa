"""`coordsvc dev` as a newcomer runs it: a program in a folder, with a terminal's Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from coordsvc.cli.local_layout import LocalReplica, dev_replicas
from coordsvc.testing.cluster import wait_for
from coordsvc.testing.ports import FIRST, LAST, free_port, is_free


def free_base_port(count: int) -> int:
    """A base port with all the ports of `count` replicas free."""
    for _ in range(200):
        base = min(max(free_port(), FIRST), LAST - 400)
        if all(is_free(port) for port in ports_of(dev_replicas(count, Path(), base))):
            return base
    raise AssertionError("no free range of ports")


def ports_of(replicas: tuple[LocalReplica, ...]) -> list[int]:
    return [port for replica in replicas for port in replica.ports().values()]


def children_of(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # It ended meanwhile.
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class DevRun:
    """`coordsvc dev` in `folder`, in a session of its own, its output read all the time."""

    def __init__(self, folder: Path, base_port: int, replicas: int = 3) -> None:
        self.replicas = dev_replicas(replicas, Path("data"), base_port)
        self.lines: list[str] = []
        self._started_at = time.monotonic()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "coordsvc", "dev", "--replicas", str(replicas)),
                *("--data-dir", "data", "--base-port", str(base_port)),
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> DevRun:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        children = children_of(self.process.pid)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pid in children:
            wait_for(lambda pid=pid: not is_alive(pid), f"child {pid} to end")  # type: ignore[misc]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_line(self, text: str, timeout_seconds: float = 20.0) -> str:
        """The first line with `text` in it, once there is one."""

        def find() -> str | None:
            return next((line for line in self.lines if text in line), None)

        def is_there() -> bool:
            ended = self.process.poll() is not None and not self._reader.is_alive()
            assert find() or not ended, f"ended without {text!r}:\n{self.output}"
            return find() is not None

        wait_for(is_there, f"{text!r} in:\n{self.output}", timeout_seconds)
        line = find()
        assert line is not None
        return line

    def wait_ready(self) -> float:
        """The seconds from its start until it said so."""
        self.wait_line("Endpoints:")
        return time.monotonic() - self._started_at

    def line_to_paste(self) -> str:
        return self.wait_line("/hello world")

    def interrupt(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """As Ctrl-C at the terminal: the exit status, and the seconds it took."""
        started = time.monotonic()
        os.killpg(self.process.pid, number)
        status = self.process.wait(20)
        self._reader.join(5)
        return status, time.monotonic() - started

    def busy_ports(self) -> list[int]:
        return [port for port in ports_of(self.replicas) if not is_free(port)]
