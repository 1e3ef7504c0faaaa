"""Replicas that have forgotten, when the log they would need is gone.

Goal: what a snapshot brings does not make a voter of one that may have forgotten before a majority
of those who remember has confirmed what it holds; with too few who remember the cluster stands
still rather than lose something, and goes on when they are back. Method: `Simulation`.
"""

from __future__ import annotations

from coordsvc.core.commands import DataSet
from coordsvc.raft.messages import SnapshotAck
from coordsvc.testing.raft_simulation import Simulation
from tests.unit.raft.replica_scene import ready, version
from tests.unit.raft.snapshot_scene import (
    SLOW,
    SMALL,
    compact,
    fill,
    filled,
    leader,
    until_halfway,
    until_installed,
)


def nobody_leads_for(simulation: Simulation, seconds: float) -> None:
    end = simulation.loop.now + seconds
    while simulation.loop.now < end:
        simulation.run_for(0.05)
        assert simulation.leader is None, f"replica {simulation.leader_id} leads"


def test_an_entry_on_two_of_three_survives_one_wiped_and_one_killed() -> None:
    """The entry on 1 and 2 only, the log before it compacted on all three. 2 is wiped, 1 killed:
    3 would take part in an election without the entry, and 2 has forgotten it."""
    with filled() as simulation:
        first, (second, third) = simulation.leader_id, simulation.follower_ids
        simulation.fabric.isolate(third, [first, second])
        assert simulation.done(simulation.write(first)).result.stat.version == 1
        simulation.wipe(second)
        disk = simulation.crash(first)
        simulation.fabric.mend()
        nobody_leads_for(simulation, 20.0)
        assert simulation.replica(second).node.memoryless
        assert simulation.installs == 0, "nobody leads, so nobody sends a snapshot"
        simulation.start(first, disk)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, third) == version(simulation, second) == 1


def test_the_same_when_the_entry_itself_was_compacted() -> None:
    """1 and 2 have the entry in their checkpoints only."""
    with filled() as simulation:
        first, (second, third) = simulation.leader_id, simulation.follower_ids
        simulation.fabric.isolate(third, [first, second])
        simulation.done(simulation.write(first))
        simulation.run_for(0.3)
        for replica_id in (first, second):
            assert simulation.checkpoint(replica_id) is not None
        simulation.run_for(0.1)
        assert not simulation.replica(first).journal[1:]
        simulation.wipe(second)
        disk = simulation.crash(first)
        simulation.fabric.mend()
        nobody_leads_for(simulation, 20.0)
        simulation.start(first, disk)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, third) == version(simulation, second) == 1


def test_a_snapshot_does_not_make_a_voter() -> None:
    """It has the state, and its leader has lost its majority before it confirmed anything: what it
    may have promised before it forgot may be more than the state holds."""
    with filled() as simulation:
        first, (wiped, other) = simulation.leader_id, simulation.follower_ids
        simulation.wipe(wiped)
        until_installed(simulation)
        disk = simulation.crash(other)
        simulation.run_for(20.0)
        node = simulation.replica(wiped).node
        assert simulation.replica(wiped).applied_index > 5, "it has the state"
        assert node.memoryless and not simulation.replica(wiped).is_ready
        assert simulation.leader is None, "replica 1 and one that has forgotten are no majority"
        assert simulation.replica(first).leader_confirmed_age() > 10.0
        simulation.start(other, disk)
        simulation.run_until_ready()
        assert not node.memoryless
        assert isinstance(simulation.done(simulation.write(wiped)).result, DataSet)


def test_one_of_three_dead_and_one_wiped_come_back_when_the_dead_one_does() -> None:
    """The survivor leads, and its majority was the wiped one: it steps down at once, for with one
    that has forgotten it is no majority. It sends no snapshot then either."""
    with filled() as simulation:
        first, (wiped, dead) = simulation.leader_id, simulation.follower_ids
        for _ in range(5):
            simulation.done(simulation.write(first))
        disk = simulation.crash(dead)
        simulation.done(simulation.write(first))
        for replica_id in (first, wiped):
            simulation.checkpoint(replica_id)
        simulation.run_for(3.0)
        assert simulation.leader_id == first
        simulation.wipe(wiped)
        simulation.run_until(lambda: simulation.leader is None, 0.3)
        nobody_leads_for(simulation, 10.0)
        assert simulation.installs == 0
        assert simulation.replica(wiped).node.memoryless
        simulation.start(dead, disk)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, wiped) == 6
        assert simulation.leader_id == first, "nobody else holds all"


def test_a_transfer_ends_with_its_leaders_majority() -> None:
    """The third one dies meanwhile: with the receiver, which has forgotten, the leader is none."""
    with filled(settings=SLOW | {"snapshot_bytes_per_s": 4096}) as simulation:
        first, (wiped, dies) = simulation.leader_id, simulation.follower_ids
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        disk = simulation.crash(dies)
        simulation.run_until(lambda: simulation.leader is None, 3.0)
        nobody_leads_for(simulation, 10.0)
        assert simulation.installs == 0
        assert not simulation.processes[first].port.outgoing.held
        simulation.start(dies, disk)
        until_installed(simulation)
        simulation.run_until_ready()
        simulation.run_until_equal()


def test_one_that_was_confirmed_before_the_other_died_is_a_voter() -> None:
    with filled() as simulation:
        first, (wiped, dies) = simulation.leader_id, simulation.follower_ids
        simulation.wipe(wiped)
        simulation.run_until_ready()
        simulation.crash(dies)
        assert isinstance(simulation.done(simulation.write(first)).result, DataSet)
        simulation.crash(first)
        nobody_leads_for(simulation, 3.0)
        simulation.start(first, simulation.processes[first].wal.crash())
        simulation.run_until_ready()
        assert isinstance(simulation.done(simulation.write(wiped)).result, DataSet)


def test_acknowledgements_of_chunks_keep_a_leader_with_its_majority() -> None:
    """Nothing else that the receiver says arrives; it is a voter that was away for long, and the
    third one is dead. Its leader must not step down while the snapshot goes there."""
    with filled(settings=SLOW | {"snapshot_bytes_per_s": 4096}) as simulation:
        away, third = simulation.follower_ids
        disk = simulation.crash(away)
        for _ in range(20):
            simulation.done(simulation.write(simulation.leader_id))
        compact(simulation)
        first, term = simulation.leader_id, leader(simulation).term
        simulation.start(away, disk)
        until_halfway(simulation, away)

        def fate(source: int, target: int, message: object) -> list[float]:
            is_said = isinstance(message, SnapshotAck) or (source, target) != (away, first)
            return [0.0] if is_said else []

        simulation.fabric.fate = fate
        simulation.crash(third)
        start = simulation.loop.now
        until_installed(simulation)
        assert simulation.loop.now - start > 2.5, "longer than a leader waits for its majority"
        assert (simulation.leader_id, leader(simulation).term) == (first, term)


def test_a_receiver_that_has_forgotten_is_no_majority_by_its_acknowledgements() -> None:
    with filled(settings=SLOW | {"snapshot_bytes_per_s": 2048}) as simulation:
        wiped, third = simulation.follower_ids
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        simulation.crash(third)
        simulation.run_until(lambda: simulation.leader is None, 3.0)
        assert simulation.replica(wiped).statistics().snapshot_receiving is not None


def test_an_acknowledgement_says_whether_its_sender_remembers() -> None:
    with filled(settings=SLOW) as simulation:
        wiped = simulation.follower_ids[0]
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        replica = leader(simulation)
        for memoryless in (False, True):
            ack = SnapshotAck(bytes(16), 0, 0, 0, memoryless)
            replica._events.received(wiped, replica.term, ack)
            assert (wiped in replica.node.peer_memoryless) is memoryless


def test_rejoining_with_ten_thousand_stale_entries() -> None:
    """A leader that was cut off goes on adding; the others compact beyond its last common entry."""
    with ready(settings=SMALL) as simulation:
        old = simulation.leader_id
        others = simulation.follower_ids
        simulation.run_until_equal()
        simulation.fabric.isolate(old, others)
        node = simulation.replica(old).node
        for number in range(10_000):
            node.append(b"\x00stale %d" % number)
        simulation.run_until(lambda: simulation.leader is not None and simulation.leader_id != old)
        fill(simulation)
        for _ in range(20):
            simulation.done(simulation.write(simulation.leader_id))
        simulation.run_for(0.3)
        for other in others:
            assert simulation.checkpoint(other) is not None
        simulation.run_for(0.1)
        simulation.fabric.mend()
        start = simulation.loop.now
        until_installed(simulation)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert simulation.loop.now - start < 1.0
        assert version(simulation, old) == 20
        assert simulation.replica(old).journal.last_index < 1_000, "none of the stale is left"
        assert not simulation.replica(old).node.memoryless, "it has forgotten nothing"
