"""What goes wrong in a simulated cluster: drawn from a seed, one after the other, many at once.

Everything may happen at any time, with one exception: replicas forget (an empty disk, a disk of
some seconds ago) one at a time, and only while the others run and remember. More is not promised
to be survived by anybody.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.storage.errors import StorageError
from coordsvc.testing.history import Fault, Recorder
from coordsvc.testing.simulated_disk import DiskImage
from coordsvc.testing.simulated_lines import Lines
from coordsvc.testing.timeline import SimulatedLoop
from coordsvc.testing.world import Process, World

PAUSE_S_MEAN = 1.3
"""Between two faults."""

WEIGHTS = {
    "kill": 2.5,
    "power_cut": 1.2,
    "power_cut_all": 0.25,
    "stop": 0.6,
    "pause": 1.5,
    "isolate": 1.3,
    "silence": 1.0,
    "one_way": 0.7,
    "bridge": 0.5,
    "ring": 0.3,
    "noise": 1.2,
    "break_lines": 0.8,
    "slow_disk": 1.0,
    "disk_error": 0.4,
    "disk_full": 0.4,
    "wipe": 0.45,
    "roll_back": 0.5,
    "clock_jump": 0.4,
    "client_cut": 0.8,
    "client_break": 0.8,
    "client_pause": 0.5,
}
CRASHES = ("kill", "power_cut", "power_cut_all", "stop", "disk_error", "disk_full", "wipe")
PARTITIONS = ("isolate", "silence", "one_way", "bridge", "ring")

ROLL_BACK_S = 0.5
"""Least age of the copy that comes back: peers tell each other all the time what they hold."""


@dataclass
class _Backup:
    """A copy of a replica's disk. `processes`: those that ran when it was taken."""

    image: DiskImage
    taken_at: float
    processes: dict[int, Process]


class Faults:
    """`begin` draws the first; `heal` ends them all. `counts` are by name. `clients` are the loops
    of processes that may be paused."""

    def __init__(
        self,
        world: World,
        rng: random.Random,
        recorder: Recorder,
        clients: list[SimulatedLoop],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._world = world
        self._rng = rng
        self._recorder = recorder
        self._clients = clients
        self._is_on = False
        self._pause_s = PAUSE_S_MEAN * rng.uniform(0.6, 1.6)
        self._weights = {name: each * rng.uniform(0.2, 1.8) for name, each in WEIGHTS.items()}
        self._leader_share = rng.uniform(0.2, 0.8)
        self._lines = Lines(world, rng, clients, self._pick, self._later)
        self._backup: tuple[int, _Backup] | None = None
        self._down: set[int] = set()
        """Replicas that are brought back later."""
        self._stopping: set[int] = set()
        own = {name: getattr(self, f"_do_{name}", None) for name in WEIGHTS}
        self._acts = {name: act or getattr(self._lines, name) for name, act in own.items()}
        world.on_end = self._on_end

    # -------------------------------------------------------------------------------- the course

    def begin(self) -> None:
        self._is_on = True
        self._later(self._rng.expovariate(1 / self._pause_s), self._next)

    def _next(self) -> None:
        names = list(self._weights)
        name = self._rng.choices(names, [self._weights[each] for each in names])[0]
        did = self._acts[name]()
        if did is not None:
            self.counts[name] += 1
            self._recorder.add(Fault(self._recorder.time, name, did))
        self._later(self._rng.expovariate(1 / self._pause_s), self._next)

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        def act() -> None:
            if self._is_on:
                action()

        self._world.loop.call_later(seconds, act)

    def heal(self) -> None:
        """Everything runs, is connected, and has room."""
        self._is_on = False
        self._recorder.add(Fault(self._recorder.time, "healed"))
        world = self._world
        self._lines.heal()
        for replica_id in world.ids:
            self._repair_disk(replica_id)
            process = world.processes[replica_id]
            if process.is_up and process.loop.is_paused:
                process.loop.resume()
        for client in self._clients:
            client.resume()
        for replica_id in sorted(self._down):
            self._start(replica_id)

    # -------------------------------------------------------------------------------- choices

    def _pick(self) -> int | None:
        """A replica that runs, often the leader."""
        world, rng = self._world, self._rng
        up = [p.replica_id for p in world.up if p.replica_id not in self._stopping]
        if not up:
            return None
        leader = world.leader
        if leader is not None and leader.replica_id in up and rng.random() < self._leader_share:
            return leader.replica_id
        return rng.choice(sorted(up))

    def _all_remember(self) -> bool:
        return self._world.is_serving() and not self._lines.has_partition and not self._stopping

    # -------------------------------------------------------------------------------- processes

    def _start(self, replica_id: int) -> None:
        self._down.discard(replica_id)
        process = self._world.processes[replica_id]
        if not process.is_up:
            self._world.start(replica_id)

    def _start_later(self, replica_id: int, seconds: float) -> None:
        self._down.add(replica_id)
        self._later(seconds, lambda: self._start(replica_id))

    def _on_end(self, replica_id: int, error: BaseException) -> None:
        """A replica ended by itself, for a fault of its disk."""
        seconds = self._rng.uniform(0.2, 1.5)

        def again() -> None:
            self._repair_disk(replica_id)
            self._start(replica_id)

        self._down.add(replica_id)
        if self._is_on:
            self._later(seconds, again)
        else:
            self._world.loop.call_later(seconds, again)

    def _down_s(self) -> float:
        return self._rng.choice((0.05, 0.3, 1.0, 2.0)) * self._rng.uniform(0.5, 1.5)

    def _do_kill(self) -> list[int] | None:
        target = self._pick()
        if target is None:
            return None
        self._world.crash(target)
        self._start_later(target, self._down_s())
        return [target]

    def _do_power_cut(self) -> list[int] | None:
        target = self._pick()
        if target is None:
            return None
        self._world.crash(target, is_power_cut=True)
        self._start_later(target, self._down_s())
        return [target]

    def _do_power_cut_all(self) -> list[int] | None:
        for process in self._world.up:
            self._world.crash(process.replica_id, is_power_cut=True)
            self._start_later(process.replica_id, self._down_s())
        return list(self._world.ids)

    def _do_stop(self) -> list[int] | None:
        """As SIGTERM does."""
        target = self._pick()
        if target is None:
            return None
        process = self._world.processes[target]
        if process.host.assembly is None or process.replica is None or process.loop.is_paused:
            return None
        self._stopping.add(target)

        def ended(task: object) -> None:
            self._stopping.discard(target)
            if process.is_up:
                self._world.loop.call_soon(self._world.crash, target)
                self._down.add(target)
                self._world.loop.call_later(self._down_s(), self._start, target)

        def stop() -> None:
            process.loop.create_task(process.host.stop()).add_done_callback(ended)

        process.loop.call_soon(stop)
        # It may be killed before it has stopped.
        self._world.loop.call_later(10.0, self._stopping.discard, target)
        return [target]

    def _do_pause(self) -> list[int] | None:
        target = self._pick()
        if target is None or self._world.processes[target].loop.is_paused:
            return None
        process = self._world.processes[target]
        self._world.pause(target)
        seconds = self._rng.choice((0.3, 1.0, 2.5, 5.0)) * self._rng.uniform(0.5, 1.2)
        self._later(seconds, lambda: process.loop.resume() if process.is_up else None)
        return [target]

    def _do_clock_jump(self) -> list[int] | None:
        target = self._pick()
        if target is None:
            return None
        self._world.processes[target].loop.wall_offset_s = self._rng.choice((-3600.0, 5.0, 3600.0))
        return [target]

    # -------------------------------------------------------------------------------- disks

    def _repair_disk(self, replica_id: int) -> None:
        disk = self._world.disks[replica_id]
        disk.fake.capacity_bytes = None
        disk.slow_until = 0.0
        disk.write_s = 0.001

    def _do_slow_disk(self) -> list[int] | None:
        target = self._pick()
        if target is None:
            return None
        disk, rng = self._world.disks[target], self._rng
        if rng.random() < 0.5:
            disk.slow_until = self._world.timeline.now + rng.uniform(0.2, 4.0)
        else:
            disk.write_s = rng.choice((0.005, 0.02, 0.06))
            self._later(rng.uniform(1.0, 4.0), lambda: self._repair_disk(target))
        return [target]

    def _do_disk_error(self) -> list[int] | None:
        """A sync fails, and all after it: the replica must end."""
        target = self._pick()
        if target is None:
            return None
        self._world.expected_failures[target] = (StorageError,)
        self._world.disks[target].fake.fail("fdatasync", self._rng.randint(1, 3))
        return [target]

    def _do_disk_full(self) -> list[int] | None:
        target = self._pick()
        if target is None:
            return None
        self._world.expected_failures[target] = (StorageError,)
        self._world.disks[target].fill(self._rng.choice((0, 20_000, 100_000)))
        self._later(self._rng.uniform(1.0, 5.0), lambda: self._repair_disk(target))
        return [target]

    def _do_wipe(self) -> list[int] | None:
        """It comes back with an empty disk."""
        target = self._pick()
        if target is None or not self._all_remember():
            return None
        self._world.crash(target)
        self._world.wipe(target)
        self._start_later(target, self._down_s())
        return [target]

    def _do_roll_back(self) -> list[int] | None:
        """It comes back with the disk of some seconds ago."""
        world = self._world
        if not self._all_remember():
            return None
        target = self._pick()
        if self._backup is None or target is None:
            target = self._rng.choice(world.ids)
            image = world.disks[target].image()
            backup = _Backup(image, world.timeline.now, dict(world.processes))
            self._backup = target, backup
            self._later(ROLL_BACK_S + self._rng.uniform(0.0, 2.0), self._do_restore)
        return None

    def _do_restore(self) -> None:
        """Unless one of the others has started anew: it would not remember what this one had."""
        assert self._backup is not None
        (target, backup), self._backup = self._backup, None
        world = self._world
        if not self._all_remember() or world.processes != backup.processes:
            self._later(0.2, self._do_roll_back_again)
            return
        world.crash(target)
        world.disks[target].restore(backup.image)
        self._start_later(target, self._down_s())
        self.counts["roll_back"] += 1
        self._recorder.add(Fault(self._recorder.time, "roll_back", [target]))

    def _do_roll_back_again(self) -> None:
        if self._backup is None:
            self._do_roll_back()

    # -------------------------------------------------------------------------------- clients

    def _do_client_cut(self) -> list[int] | None:
        """One client and one replica do not hear each other, or one of them not the other."""
        rng, world = self._rng, self._world
        client, replica_id = rng.choice(self._clients), rng.choice(world.ids)
        up, down = rng.choice(((True, True), (True, False), (False, True)))
        world.rpc.cut(client.name, world.address(replica_id), up=up, down=down)
        self._later(
            rng.uniform(0.3, 4.0), lambda: world.rpc.mend(client.name, world.address(replica_id))
        )
        return [replica_id]

    def _do_client_break(self) -> list[int] | None:
        client = self._rng.choice(self._clients)
        self._world.rpc.break_connections(client.name)
        return []

    def _do_client_pause(self) -> list[int] | None:
        client = self._rng.choice(self._clients)
        if client.is_paused:
            return None
        client.is_paused = True
        seconds = self._rng.choice((0.5, 2.0, 6.0)) * self._rng.uniform(0.5, 1.5)
        self._later(seconds, client.resume)
        return []
