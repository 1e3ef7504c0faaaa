"""One simulated run: a cluster, clients, faults, and everything checked. All of it from one seed.

    result = simulate(7, Path(directory))
    assert not result.violations

The clients work while things go wrong for `seconds` of simulated time; then everything is mended,
and the cluster must be whole again within CONVERGE_S: all replicas serve, hold the same, and take a
write. What the clients saw and what the replicas did is held against what is promised
(`check_history.py`, `simulated_truth.py`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordsvc.core.commands import AppliedEntry
from coordsvc.raft.replica import Replica
from coordsvc.server.config_model import LimitsConfig, StorageConfig
from coordsvc.testing import check_history
from coordsvc.testing.history import Record, Recorder, Run
from coordsvc.testing.recorded_client import RecordedClient
from coordsvc.testing.simulated_faults import CRASHES, PARTITIONS, Faults
from coordsvc.testing.simulated_truth import Truth
from coordsvc.testing.timeline import SimulatedLoop
from coordsvc.testing.violation import Violation
from coordsvc.testing.workload import Workload, WorkloadSettings
from coordsvc.testing.world import Process, World

SECONDS = 20.0
OPERATIONS_MIN = 500
LATE_S = 60.0
"""For the operations that are missing then, still under faults."""

READY_S = 30.0
CONVERGE_S = 30.0
QUIET_EVERY = 3
QUIET_S = 10.0
"""How long every third run goes on after it was mended: more than a session's timeout."""
CLIENTS_END_S = 60.0
SAMPLE_S = 0.2
RATE = 34.0
"""Operations a second, of all clients."""


@dataclass
class Result:
    """`trace` is equal in two runs that did the same. `cpu_s` is what it took."""

    seed: int
    replicas: int
    violations: list[Violation] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)
    elections: int = 0
    installs: int = 0
    seconds: float = 0.0
    trace: int = 0
    cpu_s: float = 0.0
    history: list[Record] = field(default_factory=list)

    @property
    def crashes(self) -> int:
        return sum(self.faults.get(name, 0) for name in CRASHES)

    @property
    def partitions(self) -> int:
        return sum(self.faults.get(name, 0) for name in PARTITIONS)


def simulate(seed: int, directory: Path, *, seconds: float = SECONDS) -> Result:
    """`directory` is for files that are worth nothing afterwards."""
    cpu_s = time.process_time()
    rng = random.Random(seed)
    result = Result(seed, replicas=5 if seed % 4 == 0 else 3)
    world = World(
        directory, replicas=result.replicas, rng=rng, storage=_storage(rng), limits=_limits(rng)
    )
    with world:
        run = _SimulatedRun(world, random.Random(rng.random()), result)
        with run.truth.watching():
            run.run(seconds)
    result.cpu_s = time.process_time() - cpu_s
    return result


def _storage(rng: random.Random) -> StorageConfig:
    """Small, so that checkpoints and snapshots matter."""
    keep = rng.choice((0, 2_000, 20_000))
    return StorageConfig(
        checkpoint_interval_s=rng.choice((1, 3, 60)),
        checkpoint_entries=rng.choice((15, 60, 300)),
        checkpoint_log_bytes=rng.choice((8_192, 65_536, 1 << 20)),
        log_keep_bytes=keep,
        log_bytes_max=max(keep, rng.choice((20_000, 1 << 20))),
        disk_free_bytes_min=0,
    )


def _limits(rng: random.Random) -> LimitsConfig:
    """Small, so that slow readers and late ones meet them."""
    return LimitsConfig(
        watch_buffer_bytes_max=rng.choice((4_096, 1 << 20)),
        watch_buffer_events_max=rng.choice((10, 1_000)),
        watch_history_bytes_max=rng.choice((8_192, 1 << 20)),
    )


class _SimulatedRun:
    def __init__(self, world: World, rng: random.Random, result: Result) -> None:
        self.world = world
        self.result = result
        self.recorder = Recorder(lambda: world.timeline.now)
        self.recorder.add(Run(0.0, "simulation", result.replicas, result.seed))
        self.truth = Truth(self.recorder, self._replica)
        settings = WorkloadSettings(clients=rng.choice((4, 5, 6)), rate=RATE)
        self.clients = [world.client_loop(f"c{i + 1}") for i in range(settings.clients)]
        self.workload = Workload(
            world.endpoints, self.recorder, random.Random(rng.random()), settings
        )
        self.faults = Faults(world, random.Random(rng.random()), self.recorder, self.clients)
        self.manager = world.client_loop("manager")
        world.on_applied = self._on_applied
        world.on_bug = self._on_bug
        world.fabric.on_frame = self.truth.on_frame

    def _replica(self, replica_id: int) -> Replica | None:
        process = self.world.processes.get(replica_id)
        return process.replica if process is not None and process.is_up else None

    def _on_applied(self, process: Process, replica: Replica, applied: AppliedEntry) -> None:
        self.truth.on_applied(replica, applied)

    def _on_bug(self, text: str, error: BaseException | None) -> None:
        self.truth.broken("no bug", f"{text}: {error!r}")
        self.world.timeline.failure = BugError(text)

    # -------------------------------------------------------------------------------- the course

    def run(self, seconds: float) -> None:
        try:
            self._run(seconds)
        except BugError:
            self.result.violations += self.truth.violations  # What follows it means nothing.
        else:
            self.result.violations += self.truth.violations
            self.result.violations += check_history.check(self.recorder.records)
        self._note_result()

    def _run(self, seconds: float) -> None:
        world = self.world
        world.start_all()
        if not world.run_until(world.is_serving, READY_S):
            self.truth.broken("liveness", f"not serving {READY_S:.0f} s after the first start")
            return
        self._sample()
        self._finish(self._spawn(self.manager, self.workload.setup()), READY_S, "the setup")
        tasks = [
            self._spawn(loop, self.workload.run_client(number))
            for number, loop in enumerate(self.clients, 1)
        ]
        self.faults.begin()
        world.run_for(seconds)
        if not world.run_until(self._has_done_enough, LATE_S):
            done = self.workload.operations.total()
            self.truth.broken("floor", f"{done} operations, at least {OPERATIONS_MIN} are wanted")
        self.faults.heal()
        if not world.run_until(self._is_whole, CONVERGE_S):
            self.truth.broken("liveness", self._why_not_whole())
            return
        if self.result.seed % QUIET_EVERY == 0:
            world.run_for(QUIET_S)  # Nobody may be late to expire now.
        self.workload.stop()
        for task in tasks:
            self._finish(task, CLIENTS_END_S, "a client")
        self._finish(self._spawn(self.manager, self._write_once()), 5.0, "the last write")
        if not world.run_until(self._is_equal, CONVERGE_S):
            self.truth.broken("convergence", "the replicas do not come to hold the same")
            return
        digests = {each.replica_id: each.machine.digest() for each in world.replicas}
        if len(set(digests.values())) > 1:
            self.truth.broken("equal digests", f"at the end: {digests}")

    def _has_done_enough(self) -> bool:
        return self.workload.operations.total() >= OPERATIONS_MIN

    def _spawn(
        self, loop: SimulatedLoop, coroutine: Coroutine[Any, Any, None]
    ) -> Callable[[], asyncio.Task[None] | None]:
        """The task, once it has begun."""
        begun: list[asyncio.Task[None]] = []
        loop.call_soon(lambda: begun.append(loop.create_task(coroutine)))
        return lambda: begun[0] if begun else None

    def _finish(
        self, get_task: Callable[[], asyncio.Task[None] | None], limit_s: float, what: str
    ) -> None:
        def is_done() -> bool:
            task = get_task()
            return task is not None and task.done()

        if not self.world.run_until(is_done, limit_s):
            self.truth.broken("liveness", f"{what} is not done after {limit_s:.0f} s")
            return
        task = get_task()
        error = task.exception() if task is not None and not task.cancelled() else None
        if error is not None:
            self._on_bug(f"{what} failed", error)
            raise BugError(what)

    async def _write_once(self) -> None:
        client = RecordedClient(self.world.endpoints, self.recorder, "last")
        await client.open()
        await client.create("/last", "last")
        await client.close()

    def _sample(self) -> None:
        self.truth.check_logs(self.world.replicas)
        self.world.loop.call_later(SAMPLE_S, self._sample)

    # -------------------------------------------------------------------------------- the end

    def _is_whole(self) -> bool:
        return self.world.is_serving() and self.world.leader is not None

    def _is_equal(self) -> bool:
        leader = self.world.leader
        return (
            self._is_whole()
            and leader is not None
            and all(each.applied_index == leader.journal.last_index for each in self.world.replicas)
        )

    def _why_not_whole(self) -> str:
        parts = [f"not whole {CONVERGE_S:.0f} s after everything was mended"]
        for replica_id, process in sorted(self.world.processes.items()):
            replica = process.replica
            if not process.is_up or replica is None:
                parts.append(f"{replica_id}: {'starting' if process.is_up else 'down'}")
            else:
                about = replica.statistics()
                parts.append(
                    f"{replica_id}: term {about.term} leader {about.leader_id} commit"
                    f" {about.commit_index} applied {about.applied_index} last {about.last_index}"
                    f" ready {about.ready} memoryless {about.memoryless} linked {about.linked}"
                )
        return "; ".join(parts)

    def _note_result(self) -> None:
        result, world = self.result, self.world
        result.faults = dict(self.faults.counts)
        result.operations = dict(self.workload.operations)
        result.elections = len(self.truth.leaders)
        result.installs = world.installs
        result.seconds = self.recorder.time
        result.trace = world.timeline.trace
        result.history = self.recorder.records


class BugError(Exception):
    """The run cannot go on."""
