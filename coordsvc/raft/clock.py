"""Time as the replica sees it, so that a simulation can supply its own."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds, never running back; for timeouts and deadlines."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since 1970; for Stat times only, may jump."""
        ...


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
