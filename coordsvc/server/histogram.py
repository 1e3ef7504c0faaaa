"""Counts of durations in buckets, cheap enough for every request.

One observation is a bisection and two additions. `metrics.py` makes Prometheus families of them
when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

SECONDS_BOUNDS = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""From a sync of a fast disk to a deadline. They are part of the metrics' promise: a series with
other bounds cannot be added to it."""


class Histogram:
    """Values in seconds, by the least bound that they do not exceed."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS_BOUNDS) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """`count` events took `value` each. A clock that ran back counts as no time at all."""
        if value < 0.0:
            value = 0.0
        self._counts[bisect_left(self._bounds, value)] += count
        self.sum += value * count

    @property
    def count(self) -> int:
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        return cumulative(self._bounds, self._counts)


def cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """(upper bound as Prometheus writes it, how many did not exceed it), ascending. `counts` are
    those of each bucket alone, and one more for what exceeds all bounds."""
    made, total = [], 0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        made.append((bound, float(total)))
    return made
