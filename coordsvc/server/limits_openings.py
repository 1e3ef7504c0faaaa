"""How many sessions and streams may be opened: a token bucket that a lagging loop makes smaller.

Opening one costs a thousand times what a heartbeat does, and after a replica's failure all of its
clients come to the others at once. If they were all let in, the loop would do nothing else, the
sessions already here would miss their heartbeats, and their clients would come back, too. So those
that are too many are refused, each with another time to try again: they come back evenly.

Heartbeats, and whatever else a session or stream that is here asks for, never pass this way.
Sessions that come back go before new ones: a part of the bucket is theirs alone, because they have
something to lose. However much the loop lags a few are let in every second, so that a machine
that is merely slow still serves.
"""

from __future__ import annotations

from coordsvc.server.config_model import LimitsConfig
from coordsvc.server.limits import refusal
from coordsvc.server.stall import TURN_SECONDS

LAG_FREE_S = 0.1
"""Two late turns: garbage collection, or a large list. No reason to refuse anybody."""

LAG_CLOSED_S = 0.5
"""From here only the floor is left: heartbeats wait for half a second by now."""

LAG_KEPT_SHARE = 0.8
"""Of the worst lag, from turn to turn, so that one good turn does not open the gates."""

FLOOR_PER_S = 50.0
FLOOR_BURST = 50.0

RETURNING_SHARE = 0.25
"""Of the bucket, for sessions and watches that come back."""

RETRY_MS_MIN = 100
RETRY_SPREAD_S = 2.0
"""Those refused come back over this span: short beside the default session timeout of 10 s."""


class Openings:
    """`turn(now)` is called every TURN_SECONDS; the lag is what that is late."""

    def __init__(self, limits: LimitsConfig) -> None:
        self._rate_max = limits.openings_per_s_max
        self._burst_max = limits.openings_burst_max
        self._tokens = float(self._burst_max)
        self._filled_at: float | None = None
        self._turned_at: float | None = None
        self._lag_s = 0.0
        self._refused_in_row = 0
        self._refused_at = 0.0

    @property
    def lag_s(self) -> float:
        """The lag that counts at present, in seconds."""
        return self._lag_s

    @property
    def burst_used(self) -> float:
        """Sessions and streams opened lately, as far as they still count."""
        return max(0.0, self._burst_max - self._tokens)

    def turn(self, now: float) -> None:
        last, self._turned_at = self._turned_at, now
        if last is not None:
            self._fill(now)
            late_s = max(0.0, now - last - TURN_SECONDS)
            self._lag_s = max(late_s, self._lag_s * LAG_KEPT_SHARE)
            self._tokens = min(self._tokens, self._burst)

    def admit(self, now: float, *, is_returning: bool = False) -> None:
        """Let one in. Raises ThrottledError with the time after which to try again."""
        self._fill(now)
        reserve = 0 if is_returning else int(self._burst * RETURNING_SHARE)
        if self._tokens < 1 + reserve:
            raise self._refusal(now)
        self._tokens -= 1.0

    @property
    def _opening(self) -> float:
        """How far open it is: 1 without lag, 0 for the floor alone."""
        too_late = (self._lag_s - LAG_FREE_S) / (LAG_CLOSED_S - LAG_FREE_S)
        return 1.0 - min(1.0, max(0.0, too_late))

    @property
    def _rate(self) -> float:
        return max(min(FLOOR_PER_S, self._rate_max), self._rate_max * self._opening)

    @property
    def _burst(self) -> float:
        return max(min(FLOOR_BURST, self._burst_max), self._burst_max * self._opening)

    def _fill(self, now: float) -> None:
        elapsed_s = now - self._filled_at if self._filled_at is not None else 0.0
        self._filled_at = now
        self._tokens = min(self._burst, self._tokens + max(0.0, elapsed_s) * self._rate)

    def _refusal(self, now: float) -> Exception:
        if now - self._refused_at > RETRY_SPREAD_S:
            self._refused_in_row = 0
        self._refused_in_row, self._refused_at = self._refused_in_row + 1, now
        wait_s = self._refused_in_row / self._rate % RETRY_SPREAD_S
        return refusal(
            "openings",
            "too many sessions and streams are being opened here",
            self._rate_max,
            retry_after_ms=RETRY_MS_MIN + int(wait_s * 1000),
        )
