"""What this door counts, for those who watch over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Counts since the start, or of one connection since it was made. Latency is from a request's
    arrival to its reply, in milliseconds."""

    received: int = 0
    sent: int = 0
    answered: int = 0
    latency_ms_min: float = 0.0
    latency_ms_max: float = 0.0
    latency_ms_total: float = 0.0
    latency_ms_last: float = 0.0

    def observe(self, latencies_s: Sequence[float]) -> None:
        """Of requests answered together; in seconds."""
        least, most = 1000 * min(latencies_s), 1000 * max(latencies_s)
        if not self.answered or least < self.latency_ms_min:
            self.latency_ms_min = least
        if most > self.latency_ms_max:
            self.latency_ms_max = most
        self.answered += len(latencies_s)
        self.latency_ms_total += 1000 * sum(latencies_s)
        self.latency_ms_last = 1000 * latencies_s[-1]

    def add(self, other: Traffic) -> None:
        self.received += other.received
        self.sent += other.sent
        if other.answered:
            least = other.latency_ms_min
            if self.answered:
                least = min(least, self.latency_ms_min)
            self.latency_ms_min = least
            self.latency_ms_max = max(self.latency_ms_max, other.latency_ms_max)
        self.answered += other.answered
        self.latency_ms_total += other.latency_ms_total

    @property
    def latency_ms_average(self) -> float:
        return self.latency_ms_total / self.answered if self.answered else 0.0


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """One connection, as `cons` shows it. `session_id` 0: none yet. Times are wall clock, ms."""

    host: str
    port: int
    session_id: int
    timeout_ms: int
    outstanding: int
    established_ms: int
    last_operation: str
    last_xid: int
    last_zxid: int
    last_response_ms: int
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class DoorFacts:
    """The door as a whole."""

    connections: tuple[ConnectionFacts, ...]
    outstanding: int
    traffic: Traffic
    started_ms: int
