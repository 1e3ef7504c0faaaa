"""What a load generator is asked to do, and what it says of it: JSON, whatever it is written in.

A generator is a process of its own. It reads a `Load` from its input, and prints one line when it
begins to measure, one when it has ended that, and one with an `Outcome`. So who started it can look
at the servers over the very time that was measured.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

MEASURING, MEASURED = "measuring", "measured"

SET, GET, LINEARIZABLE_GET = "set", "get", "linearizable_get"
"""A get is answered by the server that was asked, as it has it; a linearizable one is no older than
anything that was acknowledged before, by whichever server."""

PERCENTS = (1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)


@dataclass(frozen=True, slots=True)
class Load:
    """`connections`, dealt out over `endpoints`, each with a session and a znode `path`-N of its
    own, have `in_flight` requests under way each. With `rate`, so many requests a second are begun
    on all together, whatever the answers take, up to `in_flight` of each connection."""

    endpoints: list[str]
    """host:port"""

    all_endpoints: list[str]
    """Of every server: what was written is looked for at each of them afterwards."""

    path: str
    operation: str
    connections: int
    in_flight: int
    data_bytes: int
    ramp_s: float
    """What passes before anything is counted."""

    seconds: float
    rate: float = 0.0
    reads: float = 0.0
    """Of sets: the share of the requests, in whole percent, that are gets instead, spread evenly;
    each finds what the sets before it on its connection have written."""

    def __post_init__(self) -> None:
        assert self.reads == 0.0 or (self.operation == SET and 0 < self.reads < 1), self.reads
        assert math.isclose(100 * self.reads, round(100 * self.reads)), self.reads
        assert self.operation in (SET, GET, LINEARIZABLE_GET), self.operation
        assert self.connections > 0 and self.in_flight > 0 and self.endpoints, self


@dataclass(frozen=True, slots=True)
class Outcome:
    operations: int
    """Acknowledged while it was measured, in `seconds`."""

    seconds: float
    total: int
    """Acknowledged in all. Of sets it is what the znodes' versions add up to, at every server."""

    verified: int
    """Replies of which the data was compared, here and afterwards."""

    generator_cpu_s: float
    """What the generator itself used while it was measured."""

    latencies_s: list[float]
    """At each of PERCENTS."""

    late: int = 0
    """With a rate: requests that could not begin when they were due, because `in_flight` were under
    way. They are counted from when they were due."""

    messages: int = 0
    """In how many pieces the replies came while it was measured; 0: that was not counted."""

    @property
    def rate(self) -> float:
        return self.operations / self.seconds

    @property
    def generator_cores(self) -> float:
        return self.generator_cpu_s / self.seconds

    def latency_s(self, percent: float) -> float:
        return self.latencies_s[PERCENTS.index(percent)]


def percentiles(samples: array[float], percents: Sequence[float] = PERCENTS) -> list[float]:
    """By nearest rank, so each is one that was measured. Sorts only once."""
    assert samples
    ordered = sorted(samples)
    # Rounded, for 99.9 % of 1,000 is a little more than 999 in floating point.
    ranks = [math.ceil(round(percent * len(ordered) / 100, 6)) for percent in percents]
    return [ordered[rank - 1] for rank in ranks]
