"""Is this replica alive, and is it ready: the checks behind /livez, /readyz and grpc.health.v1.

*Alive* asks for this process alone: a restart would help one that is not. It never depends on other
replicas, or an outage of one would restart the rest. *Ready* asks whether requests sent here are
answered: balancers go by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordsvc.storage.wal import WalStatistics

DISK_SILENT_SECONDS_MAX = 5.0
"""A write of the log that takes longer than this is not a slow one. A leader hands over then."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question; `fault` is empty when all is well."""

    name: str
    fault: str = ""

    @property
    def is_ok(self) -> bool:
        return not self.fault

    def __str__(self) -> str:
        return f"[+] {self.name}" if self.is_ok else f"[-] {self.name}: {self.fault}"


NOT_LOADED = (Check("loaded", "the data is being read from disk"),)


def is_ready(checks: Sequence[Check]) -> bool:
    return all(check.is_ok for check in checks)


def disk_fault(wal: WalStatistics, now: float) -> str:
    """Why the log cannot be written; empty when it can. `now` on the log's monotonic clock."""
    if wal.pending_since is not None:
        silent = now - wal.pending_since
        if silent >= DISK_SILENT_SECONDS_MAX:
            return f"a write of the log has taken {silent:.0f} s so far"
    if wal.is_space_low:
        return "no room for another segment of the log; free some space"
    return ""
