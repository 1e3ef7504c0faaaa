"""Reads that once saw less than was acknowledged, and replicas once too sure of their leader.

Goal: a linearizable read sees every write acknowledged before it was asked for, also at a leader
that applies late; `has_quorum`, which local reads rely on, speaks of now and not of messages that
waited somewhere; and a long way between the replicas takes it from nobody. Method: `Simulation`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordsvc.raft.adapter import LEADER
from coordsvc.raft.messages import Message, ReadIndex
from coordsvc.testing import raft_fabric
from coordsvc.testing.raft_simulation import Process, Simulation
from tests.unit.raft.replica_scene import ready, version

# ---------------------------------------------------------------------- a leader that applies late


class LateApplier:
    """Lets a replica apply nothing, later one entry every 5 ms; its turns take half a millisecond.

    A replica with entries to apply takes turn after turn, and simulated time would stand still.
    """

    def __init__(self, process: Process) -> None:
        loop, applier = process.loop, process.replica._applier
        self._apply_slice = applier.apply_slice
        self._next_at = float("inf")
        applier.apply_slice = self.apply_slice  # type: ignore[method-assign]
        loop.call_soon = lambda callback, *args: loop.call_later(0.0005, callback, *args)  # type: ignore[method-assign]

    def apply_slice(self, now: float) -> bool:
        if now < self._next_at:
            return False
        self._next_at = now + 0.005
        return self._apply_slice(now)

    def begin(self) -> None:
        self._next_at = 0.0


def hand_leadership_to(simulation: Simulation, successor: int) -> None:
    """Asks for it; nobody has heard of it yet."""
    leader = simulation.leader
    assert leader is not None and leader.node.transfer_to(successor)
    leader.network.flush()


@pytest.mark.parametrize("seed", range(3))
def test_a_read_asked_before_a_leaders_first_entry_sees_what_was_acknowledged_by_then(
    seed: int,
) -> None:
    """Entries behind the new leader's first are committed and acknowledged by a follower before
    the leader itself has applied any of them."""
    with ready(seed=seed, settings={"apply_slice_s": 0.0}) as simulation:
        simulation.run_until_equal()
        new, follower = simulation.follower_ids
        leader = simulation.replica(new)
        late = LateApplier(simulation.processes[new])
        hand_leadership_to(simulation, new)
        simulation.run_until(
            lambda: leader.node.role == LEADER and simulation.replica(follower).leader_id == new
        )
        assert simulation.done(simulation.write(follower)).result.stat.version == 1
        assert not leader.is_leader and leader.applied_index < leader.node.noop_index
        read = leader.read_index(simulation.loop.now + 5.0)
        seen: list[int] = []
        read.add_done_callback(lambda _: seen.append(version(simulation, new)))
        simulation.run_for(0.02)
        assert not read.done()
        late.begin()
        simulation.done(read)
        simulation.run_until(lambda: bool(seen))
        assert seen == [1]


def test_a_read_whose_question_a_deposed_leader_never_heard_is_asked_of_the_next_at_once() -> None:
    with ready() as simulation:
        next_leader, reader = simulation.follower_ids
        replica = simulation.replica(reader)
        old_leader = simulation.leader_id
        simulation.fabric.fate = lambda source, target, message: (
            [] if target == old_leader and isinstance(message, ReadIndex) else [0.0]
        )
        read = replica.read_index(simulation.loop.now + 5.0)
        simulation.run_for(0.005)
        hand_leadership_to(simulation, next_leader)
        simulation.run_until(lambda: replica.leader_id == next_leader)
        simulation.run_until(read.done, limit_s=0.2)
        assert read.exception() is None


# ---------------------------------------------------------------------- messages that waited


def watch(process: Process, on_message: Callable[[int], None]) -> None:
    """Calls `on_message(peer)` after each message the process has handled."""
    events = process.network.events
    received = events.received

    def handle(peer: int, term: int, message: Message) -> None:
        received(peer, term, message)
        on_message(peer)

    events.received = handle  # type: ignore[method-assign]


class Doubter:
    """A follower that hears of a change of leader, and of the write after it, too late.

    Whenever it has handled a message of the old leader it must be as much in doubt as before: what
    it shows lacks a write acknowledged long ago.
    """

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.old, (self.new, self.follower) = simulation.leader_id, simulation.follower_ids
        self.replica = simulation.replica(self.follower)
        self.sure: list[float] = []
        """Ages at which it believed in a leader though it had heard the old one only."""
        self.heard_old = 0
        self.last_in_touch = simulation.loop.now
        watch(simulation.processes[self.follower], self._on_message)

    def _on_message(self, peer: int) -> None:
        if peer != self.old or version(self.simulation, self.follower) == 1:
            return
        self.heard_old += 1
        age = self.replica.leader_confirmed_age()
        # What it last heard in time came at most a few heartbeats before it lost touch.
        elapsed = self.simulation.loop.now - self.last_in_touch
        if self.replica.has_quorum or age < elapsed:
            self.sure.append(age)

    def change_of_leader(self) -> None:
        """Something the follower does not hear of, and a write under the new leader."""
        simulation = self.simulation
        simulation.run_for(0.35)
        hand_leadership_to(simulation, self.new)
        simulation.run_until(lambda: simulation.replica(self.new).is_leader)
        assert simulation.done(simulation.write(self.new)).result.stat.version == 1

    def assert_was_in_doubt(self) -> None:
        assert self.heard_old >= 3, "nothing waited"
        assert self.sure == []


def test_after_its_own_stall_a_follower_believes_no_old_message() -> None:
    with ready() as simulation:
        simulation.run_for(0.5)
        doubter = Doubter(simulation)
        simulation.pause(doubter.follower)
        doubter.change_of_leader()
        simulation.run_for(2.0)
        assert version(simulation, doubter.follower) == 0
        simulation.resume(doubter.follower)
        simulation.run_until(lambda: version(simulation, doubter.follower) == 1)
        doubter.assert_was_in_doubt()
        simulation.run_until(lambda: doubter.replica.has_quorum, limit_s=1.0)


def test_a_network_that_delivers_late_makes_nobody_sure_of_a_leader() -> None:
    with ready() as simulation:
        simulation.run_for(0.5)
        doubter = Doubter(simulation)
        # First what the old leader said.
        lateness = {doubter.old: 2.5, doubter.new: 2.7}
        simulation.fabric.fate = lambda source, target, message: [
            lateness[source] if target == doubter.follower else 0.0
        ]
        doubter.change_of_leader()
        simulation.run_until(lambda: doubter.heard_old > 3)
        simulation.run_until(lambda: version(simulation, doubter.follower) == 1)
        doubter.assert_was_in_doubt()
        assert not doubter.replica.has_quorum, "what it hears is too old to be sure of"
        simulation.fabric.fate = lambda source, target, message: [0.0]
        simulation.run_until(lambda: doubter.replica.has_quorum)


# ---------------------------------------------------------------------- a long way


def test_a_long_way_and_many_reads_leave_everybody_sure_of_the_leader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With 160 ms there and back, a round for each turn with a read makes hundreds under way."""
    with ready() as simulation:
        simulation.run_for(0.5)
        monkeypatch.setattr(raft_fabric, "LATENCY_S", 0.08)
        simulation.run_for(1.0)
        leader = simulation.replica(simulation.leader_id)
        reads = []
        doubts = 0
        for _ in range(5000):
            reads.append(leader.read_index(simulation.loop.now + 5.0))
            simulation.run_for(0.0004)
            doubts += not all(process.replica.has_quorum for process in simulation.up)
        assert doubts == 0
        simulation.run_for(0.5)
        assert all(read.done() and read.exception() is None for read in reads)
        for replica_id in simulation.ids:
            simulation.done(simulation.replica(replica_id).read_index(simulation.loop.now + 2.0))
        assert simulation.done(simulation.write(simulation.follower_ids[0])).zxid
