"""A cluster of whole replicas in one Python process, in simulated time, with a disk and lines that
fail on command.

    with World(Path(directory), replicas=3, rng=random.Random(7)) as world:
        world.start_all()
        world.run_until(world.is_serving, 20.0)

Real is everything a replica is made of, from the gRPC handlers down to the log's bytes and LMDB's
file (`ReplicaHost`). In place of the machine are simulated loops (`timeline.py`), disks
(`simulated_disk.py`), lines between the replicas (`raft_fabric.py`) and between them and clients
(`simulated_rpc.py`). Clients are processes of their own: `client_loop`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from unittest import mock

import lmdb
from grpc import aio

from coordsvc.core.commands import AppliedEntry
from coordsvc.errors import InternalError
from coordsvc.raft.replica import Replica
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.raft.transport import LinkEvents, Network
from coordsvc.server import grpc_door
from coordsvc.server.addresses import Address
from coordsvc.server.assembly import Parts, Surroundings
from coordsvc.server.config_model import LimitsConfig, ServerConfig, StorageConfig
from coordsvc.server.failures import is_vital
from coordsvc.server.host import ReplicaHost
from coordsvc.server.measurements import Measurements
from coordsvc.storage import checkpoint
from coordsvc.storage.checkpoint_check import read_checkpoint
from coordsvc.testing.raft_fabric import Fabric, SimulatedNetwork
from coordsvc.testing.sealed import sealed
from coordsvc.testing.simulated_disk import PlentyOfSpace, SimulatedDisk, SimulatedExecutor
from coordsvc.testing.simulated_rpc import RpcFabric
from coordsvc.testing.timeline import SimulatedLoop, Timeline

SEGMENT_BYTES = 64 * 1024


@dataclass(eq=False)
class Process:
    """One run of one replica."""

    replica_id: int
    loop: SimulatedLoop
    host: ReplicaHost
    executors: list[SimulatedExecutor] = field(default_factory=list)
    environments: list[lmdb.Environment] = field(default_factory=list)
    networks: list[SimulatedNetwork] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        return not self.loop.is_dead

    @property
    def replica(self) -> Replica | None:
        """None while it is being put together."""
        assembly = self.host.assembly
        if assembly is None or not hasattr(assembly, "replica"):
            return None
        return assembly.replica


class World:
    """`on_applied(replica, entry)` sees every entry as it is applied, `on_fault(text)` what went
    wrong that no fault explains. `expected_failures` are errors that may end a replica now."""

    def __init__(
        self,
        directory: Path,
        *,
        replicas: int,
        rng: random.Random,
        storage: StorageConfig | None = None,
        limits: LimitsConfig | None = None,
    ) -> None:
        self.ids = tuple(range(1, replicas + 1))
        self.rng = rng
        self.timeline = Timeline()
        self._sealed = ExitStack()
        self._storage = storage or StorageConfig(disk_free_bytes_min=0)
        self._limits = limits or LimitsConfig()
        self.loop = self._make_loop("world")
        self.fabric = Fabric(self.loop)
        self.rpc = RpcFabric(latency_s=self._rpc_latency_s, host_name=_running_name)
        self.disks = {
            i: SimulatedDisk(str(directory / str(i)), random.Random(rng.random())) for i in self.ids
        }
        self.processes: dict[int, Process] = {}
        self.client_loops: list[SimulatedLoop] = []
        self.starts = 0
        self._measurements: list[Measurements] = []
        self.expected_failures: dict[int, tuple[type[BaseException], ...]] = {}
        self.on_applied: Callable[[Process, Replica, AppliedEntry], None] = lambda *what: None
        self.on_start: Callable[[Process], None] = lambda process: None
        self.on_end: Callable[[int, BaseException], None] = lambda replica_id, error: None
        self.on_bug: Callable[[str, BaseException | None], None] = self._fail

    def __enter__(self) -> Self:
        enter = self._sealed.enter_context
        enter(sealed(self.timeline, random.Random(self.rng.random())))
        enter(self.rpc.serves_clients())
        open_environment = checkpoint.open_environment

        def open_tracked(*args: Any, **options: Any) -> lmdb.Environment:
            environment = open_environment(*args, **options)
            name = _running_name()
            for process in self.processes.values():
                if process.loop.name == name and process.is_up:
                    process.environments.append(environment)
            return environment

        enter(mock.patch.object(checkpoint, "open_environment", open_tracked))
        internal_error = grpc_door._internal_error

        def noticed(method: str, error: Exception) -> InternalError:
            """Clients are told INTERNAL, and go on; nobody else would be told."""
            self.on_bug(f"{method} at {_running_name()}", error)
            return internal_error(method, error)

        enter(mock.patch.object(grpc_door, "_internal_error", noticed))
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for replica_id in self.ids:
            if replica_id in self.processes and self.processes[replica_id].is_up:
                self.crash(replica_id)
        for loop in self.client_loops:
            loop.kill()
        self._sealed.close()

    def _make_loop(self, name: str) -> SimulatedLoop:
        def on_exception(context: dict[str, Any]) -> None:
            error = context.get("exception")
            if isinstance(error, Exception) and is_vital(error):
                self.on_bug(f"in {name}: {context.get('message', '')}", error)

        return SimulatedLoop(self.timeline, name, on_exception)

    def _fail(self, text: str, error: BaseException | None) -> None:
        self.timeline.failure = AssertionError(f"{text}: {error!r}")

    def _rpc_latency_s(self) -> float:
        return 0.0002 + self.rng.expovariate(1 / 0.0004)

    def client_loop(self, name: str) -> SimulatedLoop:
        loop = self._make_loop(name)
        self.client_loops.append(loop)
        return loop

    # -------------------------------------------------------------------------------- replicas

    def address(self, replica_id: int) -> str:
        return f"10.0.0.{replica_id}:7401"

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(self.address(i) for i in self.ids)

    def _config(self, replica_id: int) -> ServerConfig:
        peers = {i: Address(f"10.0.0.{i}", 7501) for i in self.ids}
        return ServerConfig(
            replica_id=replica_id,
            data_dir=self.disks[replica_id].directory,
            listen=Address(f"10.0.0.{replica_id}", 7401),
            peers=peers if len(peers) > 1 else {},
            storage=self._storage,
            limits=self._limits,
        )

    def start_all(self) -> None:
        for replica_id in self.ids:
            self.start(replica_id)

    def start(self, replica_id: int) -> Process:
        before = self.processes.get(replica_id)
        assert before is None or not before.is_up, f"replica {replica_id} runs"
        self.starts += 1
        loop = self._make_loop(f"replica {replica_id}")
        measurements = Measurements()
        self._measurements.append(measurements)
        process: Process

        def make_executor(owner: asyncio.AbstractEventLoop, name: str) -> SimulatedExecutor:
            executor = SimulatedExecutor(loop, self.disks[replica_id])
            process.executors.append(executor)
            return executor

        def make_network(settings: ReplicaSettings, link_events: LinkEvents, *_: Any) -> Network:
            network = SimulatedNetwork(self.fabric, link_events, loop, replica_id)
            process.networks.append(network)
            return network

        parts = Parts(
            executor=make_executor,
            network=make_network,
            grpc_server=lambda: cast(aio.Server, self.rpc.make_server()),
            disk_space=PlentyOfSpace,
            check_checkpoint=read_checkpoint,
        )
        surroundings = Surroundings(
            on_fatal=lambda error: self._ended(process, error),
            measurements=measurements,
            files=self.disks[replica_id],
            segment_bytes=SEGMENT_BYTES,
            on_applied=lambda replica, applied: self.on_applied(process, replica, applied),
            parts=parts,
        )
        process = Process(replica_id, loop, ReplicaHost(self._config(replica_id), surroundings))
        self.processes[replica_id] = process
        loop.call_soon(lambda: loop.create_task(self._run(process)))
        return process

    async def _run(self, process: Process) -> None:
        """As `serve` does. Whatever goes wrong ends the process."""
        host = process.host
        try:
            await host.open()
            await host.listen()
            await host.start()
        except Exception as error:
            self._ended(process, error)
            return
        self.on_start(process)

    def _ended(self, process: Process, error: BaseException) -> None:
        if not process.is_up:
            return
        replica_id = process.replica_id
        expected = self.expected_failures.get(replica_id, ())
        # What is on the disk is as it would be after any end of the process.
        self.loop.call_soon(self._crash_process, process, False)
        if isinstance(error, expected):
            self.on_end(replica_id, error)
        else:
            self.on_bug(f"replica {replica_id} ended", error)

    def crash(self, replica_id: int, *, is_power_cut: bool = False) -> None:
        """kill -9, or the machine without power: then its disk keeps what was synced, and nobody
        is told that its connections are gone."""
        self._crash_process(self.processes[replica_id], is_power_cut)

    def _crash_process(self, process: Process, is_power_cut: bool) -> None:
        if not process.is_up:
            return
        process.loop.kill()
        replica_id, disk = process.replica_id, self.disks[process.replica_id]
        for executor in process.executors:
            executor.tear()
        for environment in process.environments:
            environment.close()
        if is_power_cut:
            self.rpc.power_off(self.address(replica_id))
        else:
            self.rpc.server_died(self.address(replica_id))
            for network in process.networks:
                self.fabric.leave(network)
        disk.crash(is_power_cut=is_power_cut)
        disk.slow_until = 0.0

    def wipe(self, replica_id: int) -> None:
        """Of one that does not run: as if its disk had been replaced."""
        self.disks[replica_id].wipe()

    def pause(self, replica_id: int) -> None:
        self.processes[replica_id].loop.is_paused = True

    def resume(self, replica_id: int) -> None:
        self.processes[replica_id].loop.resume()

    # -------------------------------------------------------------------------------- facts

    @property
    def up(self) -> list[Process]:
        return [process for process in self.processes.values() if process.is_up]

    @property
    def replicas(self) -> list[Replica]:
        """Those that take part."""
        found = [process.replica for process in self.up]
        return [replica for replica in found if replica is not None]

    @property
    def leader(self) -> Replica | None:
        """The one of the highest term."""
        leading = [replica for replica in self.replicas if replica.is_leader]
        return max(leading, key=lambda replica: replica.term, default=None)

    @property
    def installs(self) -> int:
        """Snapshots that took the place of a replica's state."""
        return sum(each.snapshots_installed_total for each in self._measurements)

    def is_serving(self) -> bool:
        """All replicas are ready, and voters."""
        replicas = self.replicas
        return len(replicas) == len(self.ids) and all(
            replica.is_ready and replica.has_quorum and not replica.node.memoryless
            for replica in replicas
        )

    def run_until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        return self.timeline.run_until(condition, limit_s)

    def run_for(self, seconds: float) -> None:
        self.timeline.run_for(seconds)


def _running_name() -> str:
    loop: object = asyncio._get_running_loop()
    return loop.name if isinstance(loop, SimulatedLoop) else "nobody"
