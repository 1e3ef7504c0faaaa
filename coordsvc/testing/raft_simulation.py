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
import selectors
from collections.abc import Callable, Coroutine
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
from coordsvc.raft.messages import (
    LENGTH,
    Hello,
    Message,
    PeerProtocolError,
    Ping,
    decode_message,
    encode_frame,
)
from coordsvc.raft.replica import Replica
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.raft.transport import PING_AFTER_S, SILENT_AFTER_S, LinkEvents, LinkInfo
from coordsvc.testing.raft_harness import NOWHERE, ManualWal

LATENCY_S = 0.0005
DISK_S = 0.001
RECONNECT_S = 0.05

Fate = Callable[[int, int, Message], list[float]]
"""(source, target, message) to the delays of its deliveries; empty loses it, more than one repeats
it, and those above 0 arrive out of order."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer instead of waiting for it."""

    now = 1000.0

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        assert events or timeout is not None, "nothing will ever happen again"
        if not events and timeout:
            self._loop.now += timeout
        return events


class SimulatedClock:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.now

    def wall_ms(self) -> int:
        return int(self._loop.now * 1000)


class ProcessLoop:
    """One process's view of the loop: while it is paused what falls due waits, once it is dead
    nothing of it runs."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.is_paused = False
        self.is_dead = False
        self._waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def call_soon(self, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        return self._loop.call_soon(self._run, callback, args)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any
    ) -> asyncio.TimerHandle:
        return self._loop.call_later(delay, self._run, callback, args)

    def create_future(self) -> asyncio.Future[Any]:
        return self._loop.create_future()

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.append(task)
        return task

    def time(self) -> float:
        return self._loop.time()

    def _run(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.is_paused:
            self._waiting.append((callback, args))
        elif not self.is_dead:
            callback(*args)

    def resume(self) -> None:
        self.is_paused = False
        waiting, self._waiting = self._waiting, []
        for callback, args in waiting:
            self.call_soon(callback, *args)

    def kill(self) -> None:
        self.is_dead = True
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()


# ------------------------------------------------------------------------------------ network


@dataclass
class _End:
    """One side's knowledge of a connection."""

    number: int
    heard_at: float
    said_at: float


class SimulatedNetwork:
    """What a replica believes to be its `PeerNetwork`."""

    def __init__(self, fabric: Fabric, events: LinkEvents, loop: ProcessLoop, own_id: int) -> None:
        self.fabric = fabric
        self.events = events
        self.loop = loop
        self.own_id = own_id
        self.ends: dict[int, _End] = {}
        self._out: list[tuple[int, bytes]] = []

    async def listen(self) -> None:
        pass

    def dial(self) -> None:
        self.fabric.join(self)

    async def close(self) -> None:
        self.flush()
        self.fabric.leave(self)

    def linked(self, peer: int) -> bool:
        return peer in self.ends

    def send(self, peer: int, frame: bytes) -> None:
        if peer in self.ends:
            self._out.append((peer, frame))

    def flush(self) -> None:
        out, self._out = self._out, []
        for peer, frame in out:
            if (end := self.ends.get(peer)) is not None:
                end.said_at = self.loop.time()
                self.fabric.carry(self.own_id, peer, end.number, frame)

    def check(self, now: float, term: int) -> None:
        for peer, end in list(self.ends.items()):
            if now - end.heard_at > SILENT_AFTER_S:
                self.fabric.disconnect(self.own_id, peer)
            elif now - end.said_at > PING_AFTER_S:
                self.send(peer, encode_frame(term, Ping()))
        self.flush()

    def forgive_stall(self, now: float) -> None:
        for end in self.ends.values():
            end.heard_at = max(end.heard_at, now - SILENT_AFTER_S / 2)


class Fabric:
    """Connects all networks that dial, unless a pair is cut."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.networks: dict[int, SimulatedNetwork] = {}
        self.cut: set[frozenset[int]] = set()
        """Pairs that cannot connect."""
        self.mute: set[tuple[int, int]] = set()
        """(source, target): the connection stands and carries nothing until it is mended, or
        broken for its silence; then what it held is lost."""
        self._stuck: list[tuple[int, int, int, bytes]] = []
        self.fate: Fate = lambda source, target, message: [0.0]
        self.refusals: list[str] = []
        self.carried = 0
        self._number = 0
        self._arrivals: dict[tuple[int, int], float] = {}

    def join(self, network: SimulatedNetwork) -> None:
        self.networks[network.own_id] = network
        for other in list(self.networks):
            self._connect_soon(network.own_id, other)

    def leave(self, network: SimulatedNetwork) -> None:
        """Its process ended, and the kernel closes its connections."""
        if self.networks.get(network.own_id) is network:
            for other in list(network.ends):
                self.disconnect(network.own_id, other)
            del self.networks[network.own_id]

    def isolate(self, replica_id: int, others: list[int]) -> None:
        """A cut that both sides notice."""
        for other in others:
            self.cut.add(frozenset((replica_id, other)))
            self.disconnect(replica_id, other)

    def mend(self) -> None:
        self.cut.clear()
        self.mute.clear()
        stuck, self._stuck = self._stuck, []
        for frame in stuck:
            self.carry(*frame)
        for one in self.networks:
            for other in self.networks:
                self._connect_soon(one, other)

    def _connect_soon(self, one: int, other: int, delay: float = RECONNECT_S) -> None:
        if one < other:
            self.loop.call_later(delay, self._connect, one, other)
        elif other < one:
            self.loop.call_later(delay, self._connect, other, one)

    def _connect(self, one: int, other: int) -> None:
        a, b = self.networks.get(one), self.networks.get(other)
        if a is None or b is None or other in a.ends or frozenset((one, other)) in self.cut:
            return
        if a.loop.is_paused or b.loop.is_paused:
            self._connect_soon(one, other)
            return
        hello_a, hello_b = a.events.hello(other), b.events.hello(one)
        reason_a, b_forgot = a.events.judge_hello(hello_b)
        reason_b, a_forgot = b.events.judge_hello(hello_a)
        if reason_a or reason_b:
            self.refusals.append(reason_a or reason_b)
            self._connect_soon(one, other, 10 * RECONNECT_S)
            return
        self._number += 1
        now = self.loop.time()
        for near, far, forgot in ((a, b, a_forgot), (b, a, b_forgot)):
            near.ends[far.own_id] = _End(self._number, now, now)
            if forgot:
                near.events.told_forgotten(far.own_id)
        a.events.link_up(other, _info(hello_b, b_forgot))
        b.events.link_up(one, _info(hello_a, a_forgot))

    def disconnect(self, one: int, other: int) -> None:
        for near, far in ((one, other), (other, one)):
            network = self.networks.get(near)
            if network is not None and network.ends.pop(far, None) is not None:
                network.loop.call_soon(network.events.link_down, far)
        self._connect_soon(one, other)

    def carry(self, source: int, target: int, number: int, frame: bytes) -> None:
        term, message = decode_message(frame[LENGTH.size :])
        if (source, target) in self.mute:
            self._stuck.append((source, target, number, frame))
            return
        now = self.loop.time()
        for delay in self.fate(source, target, message):
            self.carried += 1
            at = now + LATENCY_S + delay
            if not delay:
                # The loop does not keep the order of timers of one instant.
                at = max(at, self._arrivals.get((source, target), 0.0) + 1e-7)
                self._arrivals[source, target] = at
            network = self.networks.get(target)
            if network is not None:
                deliver = (source, target, 0 if delay else number, term, message)
                network.loop.call_later(at - now, self._deliver, network, *deliver)

    def _deliver(
        self,
        network: SimulatedNetwork,
        source: int,
        target: int,
        number: int,
        term: int,
        message: Message,
    ) -> None:
        end = network.ends.get(source)
        if end is None or number not in (0, end.number):
            return
        end.heard_at = self.loop.time()
        if isinstance(message, Ping):
            return
        try:
            network.events.received(source, term, message)
        except PeerProtocolError:
            self.disconnect(source, target)
        except Exception as error:
            network.events.failed(error)


def _info(hello: Hello, forgotten: bool) -> LinkInfo:
    return LinkInfo(hello.uuid, hello.process, forgotten)


# ------------------------------------------------------------------------------------ replicas


@dataclass(eq=False)
class Process:
    """One run of one replica."""

    replica: Replica
    machine: Machine
    wal: ManualWal
    loop: ProcessLoop
    network: SimulatedNetwork
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
    ) -> None:
        self.loop = VirtualLoop()
        self.clock = SimulatedClock(self.loop)
        self.rng = random.Random(seed)
        self.ids = tuple(range(1, size + 1))
        self.fabric = Fabric(self.loop)
        self.disk_s = dict.fromkeys(self.ids, DISK_S)
        self.held_disks: set[int] = set()
        """Replicas whose syncs complete only when `release_disk` says so."""
        self.processes: dict[int, Process] = {}
        self.unexpected: list[tuple[int, BaseException]] = []
        self.expected_faults: tuple[type[BaseException], ...] = ()
        self._settings = settings or {}
        self._machines = machines
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
        machine = self._machines()
        applied: list[AppliedEntry] = []
        leading: list[int] = []
        hooks = Hooks(
            on_applied=applied.append,
            on_leading=leading.append,
            on_cluster_id=lambda cluster_id: self._cluster_ids.update({replica_id: cluster_id}),
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
        process = Process(replica, machine, wal, process_loop, network, applied, leading)
        self.processes[replica_id] = process
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

    def restart(self, replica_id: int) -> Process:
        return self.start(replica_id, self.crash(replica_id))

    def wipe(self, replica_id: int) -> Process:
        """An empty data directory: another uuid, no memory."""
        self.crash(replica_id)
        self._uuids[replica_id] = self.rng.randbytes(16)
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
