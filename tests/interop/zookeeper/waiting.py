"""Waiting for what other threads and processes do."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.02

T = TypeVar("T")


def wait_until(
    condition: Callable[[], object], what: str, timeout_seconds: float = PATIENCE_SECONDS
) -> None:
    """Poll until it holds. AssertionError names `what` when it does not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_seconds} s in vain for {what}"
        time.sleep(POLL_SECONDS)


def next_of(events: queue.Queue[T], what: str = "an event") -> T:
    """The next one that arrives."""
    try:
        return events.get(timeout=PATIENCE_SECONDS)
    except queue.Empty:
        raise AssertionError(f"waited {PATIENCE_SECONDS} s in vain for {what}") from None
