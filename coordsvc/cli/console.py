"""Lines for a terminal that may stand still.

A user who presses Ctrl-S, or pipes into `less`, stops whoever writes to the terminal. Replicas
must not be stopped by that, nor by a full pipe to their parent: lines go through a bounded queue
to a thread, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import TextIO

import click

LINES_MAX = 10_000
"""About a megabyte of text: several seconds of a very talkative cluster."""

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_red")


class Console:
    """Announcements on stdout, the children's lines, prefixed, on stderr; neither ever blocks."""

    def __init__(self, out: TextIO | None = None, log: TextIO | None = None) -> None:
        self._out = out if out is not None else sys.stdout
        self._log = log if log is not None else sys.stderr
        self._has_colour = self._log.isatty() and "NO_COLOR" not in os.environ
        self._lines: queue.Queue[tuple[TextIO, str] | None] = queue.Queue(LINES_MAX)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="console", daemon=True)
        self._thread.start()

    def say(self, text: str = "") -> None:
        """One announcement, on stdout."""
        self._put(self._out, text)

    def child_line(self, replica_id: int, line: str) -> None:
        """One line that replica `replica_id` wrote."""
        prefix = f"[{replica_id}]"
        if self._has_colour:
            prefix = click.style(prefix, fg=COLOURS[(replica_id - 1) % len(COLOURS)])
        self._put(self._log, f"{prefix} {line}")

    def close(self, timeout_seconds: float = 0.5) -> None:
        """Write what is queued, but wait no longer than this for a terminal that stands still."""
        try:
            self._lines.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _put(self, stream: TextIO, text: str) -> None:
        try:
            self._lines.put_nowait((stream, text))
        except queue.Full:
            self._dropped += 1

    def _write(self) -> None:
        closed: set[int] = set()
        while (item := self._lines.get()) is not None:
            stream, text = item
            if id(stream) in closed:
                continue
            dropped, self._dropped = self._dropped, 0
            if dropped:
                text = f"({dropped} lines dropped: the terminal stood still)\n{text}"
            try:
                stream.write(text + "\n")
                if self._lines.empty():
                    stream.flush()
            except (OSError, ValueError):
                # Whoever read this is gone. The cluster is not: it goes on without being heard.
                closed.add(id(stream))
