"""What clients saw of a fault, from the times at which their writes were acknowledged. Pure.

A client writes one thing after another. What passes from one acknowledgement to the next one is a
silence. The gap that a client sees of a fault lasts from the fault to the end of the longest of the
silences from then on: a reply that was under way when the fault came does not end it. If soon after
it there is another long one, the client had not gone on yet, and the gap ends with that.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Silence:
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


LONG_S = 0.25
"""More than a busy machine does to a client that goes on."""

SOON_S = 1.0


def silences(acked: Sequence[float], start: float, end: float) -> list[Silence]:
    """Those that end after `start` and begin before `end`. `acked` are times in ascending order.
    There must be acknowledgements on both sides: nobody knows how long the rest would last."""
    first = bisect.bisect_right(acked, start) - 1
    last = bisect.bisect_left(acked, end)
    if first < 0 or last >= len(acked):
        raise ValueError("no acknowledgement before the time looked at, or none after it")
    between = acked[first : last + 1]
    return [Silence(*pair) for pair in zip(between, between[1:], strict=False)]


def gap_end(acked: Sequence[float], fault_at: float, until: float) -> float:
    """When the gap ended. `until` is the end of the time to be looked at."""
    after = silences(acked, fault_at, until)
    longest = max(after, key=lambda each: each.seconds)
    end = longest.end
    for each in after[after.index(longest) + 1 :]:
        if each.seconds >= LONG_S and each.start <= end + SOON_S:
            end = each.end
    return end


def longest_silence_s(acked: Sequence[float], start: float, end: float) -> float:
    return max((each.seconds for each in silences(acked, start, end)), default=0.0)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: the least value that `percent` of all do not exceed. So it is one that was
    measured, and p99 of up to 100 values is the largest."""
    assert values and 0 < percent <= 100, (len(values), percent)
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]
