"""How long the loop stood still: told the time each turn, it says what was too much.

A process that was stopped, or a loop that was busy, has not looked at its sockets meanwhile. What
waits there counts as heard in time, so whoever judges silence must not count that span. Measured
per turn, because only one long gap means that nobody looked; many short ones do not.
"""

from __future__ import annotations

TURN_SECONDS = 0.05
GAP_SECONDS_MAX = 0.15
"""A gap between turns above this is a stall: three turns, which a busy but sound loop keeps."""


class StallMeter:
    """`turn(now)` is called every TURN_SECONDS."""

    def __init__(self) -> None:
        self._last: float | None = None
        self.stalls_total = 0
        self.stalled_seconds_total = 0.0

    def turn(self, now: float) -> float:
        """Seconds by which this turn is late; 0.0 unless the loop was stalled."""
        last, self._last = self._last, now
        if last is None or now - last <= GAP_SECONDS_MAX:
            return 0.0
        excess = now - last - TURN_SECONDS
        self.stalls_total += 1
        self.stalled_seconds_total += excess
        return excess
