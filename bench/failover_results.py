"""What was measured, kept as JSON in `bench/results`, so that the page can be written again."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.failover_rounds import Round

RESULTS = Path(__file__).resolve().parent / "results"
FAILOVER = RESULTS / "failover.json"
STABILITY = RESULTS / "stability.json"


@dataclass(frozen=True, slots=True)
class FailoverResult:
    command: str
    machine: str
    zookeeper: str
    """Its version and settings; empty: it was not measured."""

    rounds: list[Round]


@dataclass(frozen=True, slots=True)
class Phase:
    """Some minutes in which no election was needed. `term_changes` and `leader_changes` are the
    most that any replica saw; times in seconds."""

    name: str
    seconds: float
    term_changes: int
    leader_changes: int
    has_same_leader: bool
    session_changes: int
    errors: dict[str, int]
    """What writes were refused with."""

    rate_wanted: float = 0.0
    rate: float = 0.0
    p50_s: float = 0.0
    p99_s: float = 0.0
    longest_s: float = 0.0

    @property
    def is_stable(self) -> bool:
        counts = (self.term_changes, self.leader_changes, self.session_changes)
        return self.has_same_leader and not any(counts) and not self.errors


@dataclass(frozen=True, slots=True)
class StabilityResult:
    command: str
    machine: str
    maximum: float
    """setData a second that one client got through just before."""

    phases: list[Phase]


def save(path: Path, result: FailoverResult | StabilityResult) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def load_failover() -> FailoverResult | None:
    """None: never measured."""
    if not FAILOVER.exists():
        return None
    return msgspec.json.decode(FAILOVER.read_bytes(), type=FailoverResult)


def load_stability() -> StabilityResult | None:
    if not STABILITY.exists():
        return None
    return msgspec.json.decode(STABILITY.read_bytes(), type=StabilityResult)


def this_command(module: str) -> str:
    return shlex.join([".venv/bin/python", "-m", module, *sys.argv[1:]])


def this_machine() -> str:
    """To be asked before anything runs: what else the machine does shows in its load."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}; {time.strftime('%Y-%m-%d', time.gmtime())}; "
        f"load average before: {os.getloadavg()[0]:.1f}"
    )
