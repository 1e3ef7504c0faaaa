"""Does the loop turn? A timer on it measures by how much it comes late; a thread notices when it
does not come at all, and says where the loop is stuck.

The loop cannot tell on itself while it stands still, hence the thread. It only logs: a loop that is
stuck for good is ended by whoever watches /livez, which then does not answer.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

from coordsvc.server.histogram import Histogram

logger = logging.getLogger(__name__)

TURN_SECONDS = 0.1
STUCK_SECONDS = 2.0
"""Longer than any election timeout: by then the others have gone on without this replica."""

DEAD_SECONDS = 10.0
FRAMES_MAX = 12


class LoopMonitor:
    """`monotonic` is asked from two threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.lag_seconds = Histogram()
        self._turned_at = monotonic()
        self._due_at = self._turned_at
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._thread_id = 0
        self._ended = threading.Event()
        self._is_told = False

    def start(self) -> None:
        """Watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._turned_at = self._due_at = self._monotonic()
        self._turn()
        threading.Thread(target=self._watch, name="loop-monitor", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def fault(self) -> str:
        """Why the loop cannot be called alive; empty when it can."""
        silent = self._monotonic() - self._turned_at
        return f"the loop last turned {silent:.1f} s ago" if silent >= DEAD_SECONDS else ""

    def _turn(self) -> None:
        assert self._loop is not None
        now = self._monotonic()
        self.lag_seconds.observe(now - self._due_at)
        self._turned_at, self._due_at = now, now + TURN_SECONDS
        self._timer = self._loop.call_later(TURN_SECONDS, self._turn)

    def _watch(self) -> None:
        while not self._ended.wait(STUCK_SECONDS / 4):
            self.look()

    def look(self) -> None:
        """Called by the thread. One word for each time the loop is stuck."""
        silent = self._monotonic() - self._turned_at
        if silent < STUCK_SECONDS:
            self._is_told = False
        elif not self._is_told:
            self._is_told = True
            logger.warning(
                "loop.stuck",
                extra={"seconds": round(silent, 1), "where": where_is(self._thread_id)},
            )


def where_is(thread_id: int) -> str:
    """The innermost frames of a thread, as `file:line function`, outermost first."""
    frame = sys._current_frames().get(thread_id)
    if frame is None:
        return "nowhere"
    stack = traceback.extract_stack(frame)[-FRAMES_MAX:]
    return " > ".join(f"{each.filename}:{each.lineno} {each.name}" for each in stack)
