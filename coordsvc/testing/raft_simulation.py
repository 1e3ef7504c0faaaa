"""Whole replicas in one process, in simulated time: seconds pass in milliseconds, and every run of
a seed is the same.

    with Simulation(3, seed=7) as simulation:
        simulation.run_until_ready()
        future = simulation.write(1)
        simulation.run_until(future.done)

Real are the replicas with all their parts and the state machine; in place of sockets is a
`Fabric` that carries frames with a latency and loses, repeats and delays on demand, in place of the
disk a `ManualWal` whose syncs take a while. A process can be crashed, paused and wiped. Leaving the
block fails if a replica ended by a fault that the test did not expect.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, cast
from unittest import mock

from coordsvc.core.commands import (
    NO_CALLER,
    AppliedEntry,
    ClientCommand,
    CreateOp,
    Reply,
    SetDataOp,
    Write,
)
from coordsvc.core.machine import Machine
from coordsvc.raft import replica as replica_module
from coordsvc.raft.hooks import Hooks
from coordsvc.raft.replica import Replica
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.raft.transport import LinkEvents
from coordsvc.testing.manual_wal import ManualWal
from coordsvc.testing.raft_fabric import Fabric, SimulatedNetwork
from coordsvc.testing.raft_harness import NOWHERE
from coordsvc.testing.raft_snapshots import CheckpointDisk, FakePort, make_port
from coordsvc.testing.virtual_loop import ProcessLoop, SimulatedClock, VirtualLoop

DISK_S = 0.001
LOAD_S = 0.05
"""From the end of an install until the replica is back with its new state."""


@dataclass(eq=False)
class Process:
    """One run of one replica."""

    replica: Replica
    machine: Machine
    wal: ManualWal
    loop: ProcessLoop
    network: SimulatedNetwork
    port: FakePort
    applied: list[AppliedEntry] = field(default_factory=list)
    leading: list[int] = field(default_factory=list)
    """Terms in which it was told to lead."""
    fault: BaseException | None = None

    @property
    def is_up(self) -> bool:
        return not self.loop.is_dead


class Simulation:
    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 0,
        settings: dict[str, Any] | None = None,
        machines: Callable[[], Machine] = Machine,
        checkpoint_s: float = 0.0,
    ) -> None:
        """`checkpoint_s`: how often each replica makes a checkpoint and compacts its log; 0:
        never, unless told."""
        self.loop = VirtualLoop()
        self.clock = SimulatedClock(self.loop)
        self.rng = random.Random(seed)
        self.ids = tuple(range(1, size + 1))
        self.fabric = Fabric(self.loop)
        self.disk_s = dict.fromkeys(self.ids, DISK_S)
        self.held_disks: set[int] = set()
        """Replicas whose syncs complete only when `release_disk` says so."""
        self.processes: dict[int, Process] = {}
        self.installs = 0
        """Snapshots that took the place of a replica's state."""
        self.unexpected: list[tuple[int, BaseException]] = []
        self.expected_faults: tuple[type[BaseException], ...] = ()
        self._settings = settings or {}
        self._machines = machines
        self.checkpoint_s = checkpoint_s
        self.disks: dict[int, CheckpointDisk] = {i: CheckpointDisk() for i in self.ids}
        """What each replica has on disk besides its WAL."""
        self.on_start: Callable[[Process], None] = lambda process: None
        """Sees each process before it takes part."""
        self._cluster_ids: dict[int, bytes] = {}
        self._uuids = {replica_id: self.rng.randbytes(16) for replica_id in self.ids}
        for replica_id in self.ids:
            self.start(replica_id, ManualWal())

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            process.loop.kill()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        if exception is None and self.unexpected:
            replica_id, fault = self.unexpected[0]
            raise AssertionError(f"replica {replica_id} ended: {fault!r}") from fault

    # ------------------------------------------------------------------------- processes

    def start(self, replica_id: int, wal: ManualWal) -> Process:
        process_loop = ProcessLoop(self.loop)
        loaded, applied_to = self.disks[replica_id].load(wal)
        machine = loaded or self._machines()
        port = make_port(self.disks[replica_id], wal, process_loop)
        applied: list[AppliedEntry] = []
        leading: list[int] = []
        hooks = Hooks(
            on_applied=applied.append,
            on_leading=leading.append,
            on_cluster_id=lambda cluster_id: self._cluster_ids.update({replica_id: cluster_id}),
            on_installed=lambda: self._installed(replica_id),
            on_fatal=lambda error: self._ended(replica_id, error),
        )
        peers = dict.fromkeys(self.ids, NOWHERE) if len(self.ids) > 1 else {}

        def make_network(settings: ReplicaSettings, events: LinkEvents, *_: Any) -> Any:
            return SimulatedNetwork(self.fabric, events, process_loop, replica_id)

        with mock.patch.object(replica_module, "PeerNetwork", make_network):
            replica = Replica(
                ReplicaSettings(replica_id, peers, **self._settings),
                machine,
                wal,
                uuid=self._uuids[replica_id],
                cluster_id=self._cluster_ids.get(replica_id, b""),
                applied=applied_to,
                snapshots=port.port(),
                loop=cast(asyncio.AbstractEventLoop, process_loop),
                hooks=hooks,
                clock=self.clock,
                rng=random.Random(self.rng.random()),
                random_bytes=self.rng.randbytes,
            )

        def sync_later(sync: Callable[[], bool]) -> None:
            if replica_id not in self.held_disks:
                process_loop.call_later(self.disk_s[replica_id], sync)

        wal.schedule = sync_later
        wal.on_synced = replica.on_synced
        network = cast(SimulatedNetwork, replica.network)
        process = Process(replica, machine, wal, process_loop, network, port, applied, leading)
        self.processes[replica_id] = process
        self.on_start(process)
        if self.checkpoint_s:
            process_loop.call_later(self.checkpoint_s, self._checkpoint_again, process)
        process_loop.create_task(replica.start())
        return process

    def _ended(self, replica_id: int, error: BaseException) -> None:
        self.processes[replica_id].fault = error
        if not isinstance(error, self.expected_faults):
            self.unexpected.append((replica_id, error))
        self.crash(replica_id)

    def crash(self, replica_id: int, *, kept: int = 0, is_silent: bool = False) -> ManualWal:
        """kill -9; the disk as a power cut would leave it. `is_silent`: the machine is gone with
        it, so nobody closes its connections."""
        process = self.processes[replica_id]
        process.loop.kill()
        if is_silent:
            self.fabric.mute |= {(replica_id, other) for other in self.ids}
        else:
            self.fabric.leave(process.network)
        return process.wal.crash(kept=kept)

    def _installed(self, replica_id: int) -> None:
        """A real one would load its state from disk now; it comes back as another process."""
        self.installs += 1
        self.processes[replica_id].loop.call_later(LOAD_S, self.restart, replica_id)

    def checkpoint(self, replica_id: int) -> int | None:
        """Makes a checkpoint and lets the replica compact its log; the index it covers, None when
        what is applied is not on disk yet. On disk after `disk_s`."""
        process = self.processes[replica_id]
        point = process.replica.checkpoint_point()
        if point is None:
            return None
        write = self.disks[replica_id].write(process.machine, point)

        def written() -> None:
            process.replica.compact_log(write())

        process.loop.call_later(self.disk_s[replica_id], written)
        return point[0]

    def _checkpoint_again(self, process: Process) -> None:
        self.checkpoint(process.replica.replica_id)
        process.loop.call_later(self.checkpoint_s, self._checkpoint_again, process)

    def restart(self, replica_id: int) -> Process:
        return self.start(replica_id, self.crash(replica_id))

    def wipe(self, replica_id: int) -> Process:
        """An empty data directory: another uuid, no memory."""
        self.crash(replica_id)
        self._uuids[replica_id] = self.rng.randbytes(16)
        self.disks[replica_id] = CheckpointDisk()
        self._cluster_ids.pop(replica_id, None)
        return self.start(replica_id, ManualWal())

    def pause(self, replica_id: int) -> None:
        self.processes[replica_id].loop.is_paused = True

    def resume(self, replica_id: int) -> None:
        self.processes[replica_id].loop.resume()

    def release_disk(self, replica_id: int) -> None:
        self.held_disks.discard(replica_id)
        if self.processes[replica_id].wal.is_busy:
            self.processes[replica_id].loop.call_soon(self.processes[replica_id].wal.sync)

    def replica(self, replica_id: int) -> Replica:
        return self.processes[replica_id].replica

    @property
    def up(self) -> list[Process]:
        return [process for process in self.processes.values() if process.is_up]

    @property
    def leader(self) -> Replica | None:
        """The one of the highest term, of those that run."""
        leaders = [process.replica for process in self.up if process.replica.is_leader]
        return max(leaders, key=lambda replica: replica.term, default=None)

    @property
    def leader_id(self) -> int:
        assert self.leader is not None, "nobody leads"
        return self.leader.replica_id

    @property
    def follower_ids(self) -> list[int]:
        return [replica_id for replica_id in self.ids if replica_id != self.leader_id]

    # ------------------------------------------------------------------------- time

    def run_for(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def run_until(
        self, condition: Callable[[], bool], limit_s: float = 20.0, step_s: float = 0.002
    ) -> float:
        """How long it took. Fails after `limit_s`."""
        start = self.loop.now
        while not condition():
            assert self.loop.now - start < limit_s, "it did not come about"
            self.run_for(step_s)
        return self.loop.now - start

    def run_until_ready(self, limit_s: float = 20.0) -> float:
        """Every replica that runs is ready, a voter, and knows the leader."""
        return self.run_until(
            lambda: (
                self.leader is not None
                and all(p.replica.is_ready and not p.replica.node.memoryless for p in self.up)
                and all(p.replica.leader_id == self.leader_id for p in self.up)
                and all(p.replica.has_quorum for p in self.up)
            ),
            limit_s,
        )

    def run_until_equal(self, limit_s: float = 20.0) -> None:
        """Every replica that runs has applied all that the leader has."""

        def are_equal() -> bool:
            if self.leader is None:
                return False
            index = self.leader.journal.last_index
            return all(process.replica.applied_index == index for process in self.up)

        self.run_until(are_equal, limit_s)
        digests = {process.machine.digest() for process in self.up}
        assert len(digests) == 1, "the replicas' states differ"

    # ------------------------------------------------------------------------- requests

    def submit(
        self, replica_id: int, command: ClientCommand, timeout_s: float = 4.0
    ) -> asyncio.Future[Reply]:
        return self.replica(replica_id).submit(command, self.loop.now + timeout_s)

    def create(self, replica_id: int, path: str, timeout_s: float = 4.0) -> asyncio.Future[Reply]:
        return self.submit(replica_id, Write(NO_CALLER, CreateOp(path)), timeout_s)

    def write(
        self, replica_id: int, path: str = "/counter", timeout_s: float = 4.0
    ) -> asyncio.Future[Reply]:
        """An increment: the version of what it sets counts how often it was done."""
        return self.submit(replica_id, Write(NO_CALLER, SetDataOp(path)), timeout_s)

    def done(self, future: asyncio.Future[Any], limit_s: float = 20.0) -> Any:
        """Its result, or the error it failed with raised."""
        self.run_until(future.done, limit_s)
        return future.result()
