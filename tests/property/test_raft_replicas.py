"""Whole replicas under faults drawn from a seed, as their callers see them.

Goal: an acknowledged increment is applied once, what is refused as certainly not applied is not
applied, a read shows all that was acknowledged before it was asked, and when the faults end the
cluster serves again and all replicas hold the same. Method: `Simulation`; kills, power cuts,
pauses, cuts of either direction, wiped disks, slow disks, lost and late copies of what may be
lost. In some runs the replicas make checkpoints and drop nearly all of their logs, so that whoever
was away comes back by a snapshot.
A failure names its seed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from coordsvc.core.commands import DataSet, Reply
from coordsvc.errors import NoQuorumError, OutcomeUnknownError
from coordsvc.raft.messages import (
    Forward,
    Message,
    ReadIndex,
    ReadIndexReply,
    Round,
    RoundReply,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
)
from coordsvc.testing.manual_wal import ManualWal
from coordsvc.testing.raft_simulation import DISK_S, Simulation

LOSABLE = (
    Forward,
    ReadIndex,
    ReadIndexReply,
    Round,
    RoundReply,
    SnapshotOffer,
    SnapshotChunk,
    SnapshotAck,
)
"""Nothing but a new connection repeats the others, and a connection loses nothing."""


class Clients:
    """Increments and reads at random replicas, and what they were told."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.acknowledged = 0
        self.unknown = 0
        self.refused = 0
        self.reads = 0
        self.submitted = 0
        self.versions: set[int] = set()
        self.waiting: set[asyncio.Future[Any]] = set()

    def act(self) -> None:
        rng = self.simulation.rng
        process = rng.choice(self.simulation.up)
        if process.loop.is_paused:
            return
        replica_id = process.replica.replica_id
        if rng.random() < 0.7:
            self.submitted += 1
            future = self.simulation.write(replica_id, timeout_s=rng.choice((0.5, 4.0)))
            self.waiting.add(future)
            future.add_done_callback(self._wrote)
        else:
            self._read(replica_id)

    def _wrote(self, future: asyncio.Future[Reply]) -> None:
        self.waiting.discard(future)
        if future.cancelled() or isinstance(future.exception(), OutcomeUnknownError):
            self.unknown += 1
        elif future.exception() is None:
            result = future.result().result
            assert isinstance(result, DataSet), result
            assert result.stat.version not in self.versions, "two increments made one version"
            self.versions.add(result.stat.version)
            self.acknowledged += 1
        else:
            assert isinstance(future.exception(), NoQuorumError)
            self.refused += 1

    def _read(self, replica_id: int) -> None:
        simulation, before = self.simulation, max(self.versions, default=0)
        process = simulation.processes[replica_id]
        future = process.replica.read_index(simulation.loop.now + 2.0)
        self.waiting.add(future)

        def done(future: asyncio.Future[None]) -> None:
            self.waiting.discard(future)
            if future.cancelled() or future.exception() is not None:
                return
            self.reads += 1
            seen = process.machine.state.znodes["/counter"].stat.version
            assert seen >= before, f"a read saw version {seen} after {before} was acknowledged"

        future.add_done_callback(done)

    def give_up(self) -> None:
        for future in list(self.waiting):
            future.cancel()


class Faults:
    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.happened: Counter[str] = Counter()
        self.disks: dict[int, ManualWal] = {}
        self.doubtful: set[int] = set()
        self.choices: list[Callable[[], None]] = [
            *[self.kill] * 3,
            *[self.start] * 4,
            *[self.pause] * 2,
            *[self.resume] * 4,
            *[self.cut] * 2,
            self.mute,
            *[self.mend] * 4,
            *[self.slow_disk] * 2,
            self.hold_disk,
            *[self.good_disk] * 3,
            self.lossy,
            self.late_copies,
            self.wipe,
        ]

    def act(self) -> None:
        choice = self.simulation.rng.choice(self.choices)
        choice()
        self.happened[choice.__name__] += 1

    def anyone(self) -> int:
        """Often the leader."""
        simulation = self.simulation
        if simulation.leader is not None and simulation.rng.random() < 0.5:
            return simulation.leader_id
        return simulation.rng.choice(simulation.ids)

    def kill(self) -> None:
        replica_id = self.anyone()
        if replica_id not in self.disks and len(self.disks) < len(self.simulation.ids) - 1:
            wal = self.simulation.processes[replica_id].wal
            kept = self.simulation.rng.randint(0, wal.unsynced)
            self.disks[replica_id] = self.simulation.crash(replica_id, kept=kept)

    def start(self) -> None:
        for replica_id, disk in self.disks.items():
            self.simulation.start(replica_id, disk)
        self.disks.clear()

    def pause(self) -> None:
        self.simulation.pause(self.anyone())

    def resume(self) -> None:
        for process in self.simulation.up:
            process.loop.resume()

    def cut(self) -> None:
        replica_id = self.anyone()
        others = [other for other in self.simulation.ids if other != replica_id]
        if self.simulation.rng.random() < 0.4:
            others = others[:1]
        self.simulation.fabric.isolate(replica_id, others)

    def mute(self) -> None:
        source, target = self.simulation.rng.sample(self.simulation.ids, 2)
        self.simulation.fabric.mute.add((source, target))

    def mend(self) -> None:
        self.simulation.fabric.mend()
        self.simulation.fabric.fate = lambda source, target, message: [0.0]

    def slow_disk(self) -> None:
        self.simulation.disk_s[self.anyone()] = self.simulation.rng.choice((0.01, 0.2, 1.0))

    def hold_disk(self) -> None:
        self.simulation.held_disks.add(self.anyone())

    def good_disk(self) -> None:
        self.simulation.disk_s = dict.fromkeys(self.simulation.ids, DISK_S)
        for process in self.simulation.up:
            self.simulation.release_disk(process.replica.replica_id)
        self.simulation.held_disks.clear()

    def lossy(self) -> None:
        rng = self.simulation.rng

        def fate(source: int, target: int, message: Message) -> list[float]:
            return [] if isinstance(message, LOSABLE) and rng.random() < 0.2 else [0.0]

        self.simulation.fabric.fate = fate

    def late_copies(self) -> None:
        rng = self.simulation.rng

        def fate(source: int, target: int, message: Message) -> list[float]:
            return [0.0, rng.random() * 3.0] if rng.random() < 0.1 else [0.0]

        self.simulation.fabric.fate = fate

    def wipe(self) -> None:
        """One at a time, and only when all others remember: more would be a loss for good."""
        simulation = self.simulation
        remember = [p for p in simulation.up if not p.replica.node.memoryless]
        if not self.disks and len(remember) == len(simulation.ids):
            simulation.fabric.fate = lambda source, target, message: [0.0]
            simulation.wipe(simulation.rng.choice(simulation.ids))

    def end(self) -> None:
        self.start()
        self.mend()
        self.resume()
        self.good_disk()


COMPACTED = {
    "log_keep_bytes": 300,
    "log_bytes_max": 20_000,
    "snapshot_chunk_bytes": 100,
    "snapshot_window_bytes": 300,
    "snapshot_bytes_per_s": 20_000,
}
"""A log of an entry or two, and snapshots that take about as long as a fault lasts."""


def run(size: int, seed: int, *, checkpoint_s: float = 0.0) -> tuple[Clients, Counter[str]]:
    # A disk that is held for long must not end its process here.
    settings: dict[str, Any] = {"disk_silent_exit_s": 1000.0}
    if checkpoint_s:
        settings |= COMPACTED
    with Simulation(size, seed=seed, settings=settings, checkpoint_s=checkpoint_s) as simulation:
        simulation.run_until_ready()
        simulation.done(simulation.create(1, "/counter"))
        clients, faults = Clients(simulation), Faults(simulation)
        simulation.loop.set_exception_handler(_raise)
        for _ in range(120):
            if simulation.rng.random() < 0.25:
                faults.act()
            for _ in range(simulation.rng.randint(0, 6)):
                clients.act()
            simulation.run_for(simulation.rng.choice((0.0004, 0.005, 0.05, 0.3)))
        faults.end()
        simulation.run_until_ready(limit_s=15.0)
        simulation.run_for(6.0)
        assert all(process.is_up for process in simulation.processes.values())
        clients.give_up()
        simulation.run_for(0.1)
        simulation.run_until_equal()
        counted = simulation.processes[1].machine.state.znodes["/counter"].stat.version
        most = clients.acknowledged + clients.unknown
        assert clients.acknowledged <= counted <= most, (clients.acknowledged, counted, most)
        assert not failures, failures.pop()
        faults.happened["snapshots"] = simulation.installs
        return clients, faults.happened


failures: list[BaseException] = []


def _raise(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if error is not None and not isinstance(error, NoQuorumError | OutcomeUnknownError):
        failures.append(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "seeds", "checkpoint_s"),
    [
        (3, range(30), 0.0),
        (3, range(30, 60), 0.0),
        (5, range(100, 125), 0.0),
        (3, range(200, 240), 0.3),
        (3, range(240, 270), 0.05),
        (5, range(300, 320), 0.3),
    ],
    ids=str,
)
def test_callers_can_rely_on_what_they_are_told(
    size: int, seeds: range, checkpoint_s: float
) -> None:
    acknowledged = reads = refused = unknown = 0
    happened: Counter[str] = Counter()
    for seed in seeds:
        failures.clear()
        try:
            clients, faults = run(size, seed, checkpoint_s=checkpoint_s)
        except AssertionError as error:
            call = f"run({size}, {seed}, checkpoint_s={checkpoint_s})"
            raise AssertionError(f"{call}: {error}") from error
        acknowledged += clients.acknowledged
        reads += clients.reads
        refused += clients.refused
        unknown += clients.unknown
        happened += faults
    assert acknowledged > 50 * len(seeds) and reads > 20 * len(seeds)
    assert refused > 100 and unknown > 50
    assert min(happened[name] for name in ("kill", "pause", "cut", "mute", "wipe", "lossy")) > 5
    assert happened["snapshots"] > (len(seeds) if checkpoint_s else -1)
