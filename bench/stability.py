"""Whether anybody is elected without need: three replicas that are idle, and under half load.

    .venv/bin/python -m bench.stability [--idle-minutes 10] [--load-minutes 10] [--report PAGE]

Three replicas and the client share this machine. Half load is half of what one client gets through
(`pipelined_sets`), measured at the beginning, or `--rate`. Ends with status 1 if a term, a leader
or the client's session changed. `--report` writes the page, and `bench/results/stability.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import coordsvc
from bench.failover_gaps import percentile
from bench.failover_report import phase_table, write_page
from bench.failover_results import (
    STABILITY,
    Phase,
    StabilityResult,
    save,
    this_command,
    this_machine,
)
from bench.pipelined_sets import DATA_BYTES
from bench.pipelined_sets import run as run_pipelined
from coordsvc.testing.cluster import LocalCluster

RUNS = 3
WRITES, IN_FLIGHT = 20_000, 1_000
"""Of each of the runs that find the maximum."""

PACE_S = 0.005
OUTSTANDING_MAX = 10_000
"""A client that is so far behind submits no more until it has caught up."""


@dataclass(frozen=True, slots=True)
class Elections:
    """What the replicas have counted so far, by replica id."""

    leader: int
    terms: dict[int, int]
    leader_changes: dict[int, int]

    @classmethod
    def of(cls, cluster: LocalCluster) -> Elections:
        def metric(name: str) -> dict[int, int]:
            return {each: int(cluster.metric(each, name)) for each in cluster.ids}

        leader = cluster.wait_leader()
        return cls(leader, metric("coordsvc_term"), metric("coordsvc_leader_changes_total"))


class Load:
    """Writes at a steady rate, whatever the answers take."""

    def __init__(self, client: coordsvc.Client, path: str, rate: float) -> None:
        self._client, self._path, self._rate = client, path, rate
        self._outstanding = 0
        self.errors: Counter[str] = Counter()
        self.seconds = array("d")
        """How long each took that was acknowledged."""

    async def run(self, seconds: float) -> None:
        await self._client.create(self._path)
        data = bytes(DATA_BYTES)
        submitted = 0
        began = time.perf_counter()
        while (now := time.perf_counter()) < began + seconds:
            due = int((now - began) * self._rate) - submitted
            for _ in range(min(due, OUTSTANDING_MAX - self._outstanding)):
                future = self._client.nowait.set_data(self._path, data)
                future.add_done_callback(self._answered(now))
                self._outstanding += 1
                submitted += 1
            await asyncio.sleep(PACE_S)
        # Behind all writes, so after their answers.
        found = await self._client.get_data(self._path)
        acknowledged = len(self.seconds)
        assert acknowledged + self.errors.total() == submitted, (acknowledged, submitted)
        assert acknowledged <= found.stat.version <= submitted, (acknowledged, found.stat.version)

    def _answered(self, since: float) -> Callable[[asyncio.Future[coordsvc.Stat]], None]:
        def answered(future: asyncio.Future[coordsvc.Stat]) -> None:
            self._outstanding -= 1
            error = future.exception()
            if error is None:
                self.seconds.append(time.perf_counter() - since)
            else:
                self.errors[type(error).__name__] += 1

        return answered


async def live(endpoints: str, seconds: float, rate: float) -> tuple[int, Load]:
    """A client's life; how often its session was interrupted, and what it wrote."""
    interruptions = 0

    def changed(state: coordsvc.SessionState) -> None:
        nonlocal interruptions
        interruptions += state is not coordsvc.SessionState.CONNECTED

    async with coordsvc.Client(endpoints) as client:
        client.add_listener(changed)
        load = Load(client, "/load", rate)
        if rate:
            await load.run(seconds)
        else:
            await asyncio.sleep(seconds)
        client.remove_listener(changed)
    return interruptions, load


async def run_phase(cluster: LocalCluster, name: str, minutes: float, rate: float = 0) -> Phase:
    before = await asyncio.to_thread(Elections.of, cluster)
    began = time.monotonic()
    interruptions, load = await live(cluster.endpoints_text, 60 * minutes, rate)
    seconds = time.monotonic() - began
    after = await asyncio.to_thread(Elections.of, cluster)
    taken = sorted(load.seconds) or [0.0]
    return Phase(
        name=name,
        seconds=seconds,
        term_changes=_most(before.terms, after.terms),
        leader_changes=_most(before.leader_changes, after.leader_changes),
        has_same_leader=before.leader == after.leader,
        session_changes=interruptions,
        errors=dict(load.errors),
        rate_wanted=rate,
        rate=len(load.seconds) / seconds,
        p50_s=percentile(taken, 50),
        p99_s=percentile(taken, 99),
        longest_s=taken[-1],
    )


def _most(before: dict[int, int], after: dict[int, int]) -> int:
    return max(after[each] - before[each] for each in before)


async def find_maximum(endpoints: str) -> float:
    """setData a second: the median of some runs."""
    rates = [
        await run_pipelined(endpoints, f"/maximum{number}", WRITES, IN_FLIGHT)
        for number in range(RUNS)
    ]
    return statistics.median(rates)


async def measure(
    cluster: LocalCluster, arguments: argparse.Namespace
) -> tuple[float, list[Phase]]:
    maximum = await find_maximum(cluster.endpoints_text)
    rate = arguments.rate or maximum / 2
    print(f"maximum {maximum:,.0f} setData/s; half load: {rate:,.0f}/s")
    phases = []
    if arguments.idle_minutes:
        phases.append(await run_phase(cluster, "idle", arguments.idle_minutes))
    if arguments.load_minutes:
        phases.append(await run_phase(cluster, "half load", arguments.load_minutes, rate))
    return maximum, phases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--idle-minutes", type=float, default=10)
    parser.add_argument("--load-minutes", type=float, default=10)
    parser.add_argument("--rate", type=float, default=0, help="setData/s; 0: half the maximum")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to use")
    parser.add_argument("--report", type=Path, default=None, help="write the page")
    arguments = parser.parse_args()
    machine = this_machine()
    print(machine)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        with LocalCluster(Path(directory)) as cluster:
            cluster.start()
            maximum, phases = asyncio.run(measure(cluster, arguments))
            is_stable = all(phase.is_stable for phase in phases)
            if not is_stable:
                print(cluster.log_tails())
    print("\n".join(phase_table(phases)))
    if arguments.report is not None:
        command = this_command("bench.stability")
        save(STABILITY, StabilityResult(command, machine, maximum, phases))
        write_page(arguments.report)
    sys.exit(not is_stable)


if __name__ == "__main__":
    main()
