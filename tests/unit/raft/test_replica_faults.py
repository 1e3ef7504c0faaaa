"""Whole replicas, in simulated time: what the server is promised, with and without faults.

Goal: an acknowledged write is there, once, whatever happens between replicas; what cannot be
confirmed is refused in time; nothing waits for ever. Method: `Simulation`; a counter's version
tells how often increments were applied.
"""

from __future__ import annotations

import pytest

from coordsvc.core.commands import (
    Created,
    DataSet,
)
from coordsvc.errors import (
    NoQuorumError,
    OutcomeUnknownError,
)
from coordsvc.raft.messages import Forward, Message, ReadIndex, ReadIndexReply
from coordsvc.testing.raft_simulation import Simulation
from tests.unit.raft.replica_scene import (
    Futures,
    assert_counted,
    ready,
    tally,
    version,
)

# ---------------------------------------------------------------------- loss between replicas


def test_forwarded_batches_lost_inside_a_stable_term_are_applied_once() -> None:
    with ready() as simulation:
        term = simulation.replica(1).term
        lost = 0

        def lose(source: int, target: int, message: Message) -> list[float]:
            nonlocal lost
            if isinstance(message, Forward) and lost < 40:
                lost += 1
                return []
            return [0.0]

        simulation.fabric.fate = lose
        futures: Futures = []
        for n in range(100):
            futures += [simulation.write(replica_id) for replica_id in simulation.ids]
            simulation.run_for(0.003 if n % 2 else 0.0)
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert lost == 40
        assert tally(futures) == (300, 0)
        assert_counted(simulation, futures)
        assert simulation.replica(1).term == term, "nobody was elected for it"


@pytest.mark.parametrize("one_in", [2, 3, 7])
def test_one_in_so_many_messages_may_be_lost(one_in: int) -> None:
    """Of those that nothing repeats by itself; for the others a connection never loses one."""
    with ready(settings={"unknown_outcome_after_s": 200.0}) as simulation:
        kinds = (Forward, ReadIndex, ReadIndexReply)

        def lose(source: int, target: int, message: Message) -> list[float]:
            is_lost = isinstance(message, kinds) and not simulation.rng.randrange(one_in)
            return [] if is_lost else [0.0]

        simulation.fabric.fate = lose
        futures: Futures = []
        for _ in range(20):
            futures += [simulation.write(i, timeout_s=200.0) for i in simulation.ids]
            simulation.run_for(0.02)
        until = simulation.loop.now + 60.0
        reads = [simulation.replica(i).read_index(until) for i in simulation.ids]
        simulation.run_until(lambda: all(read.done() for read in reads), limit_s=60.0)
        assert [read.exception() for read in reads] == [None, None, None]
        simulation.run_until(lambda: all(future.done() for future in futures), limit_s=100.0)
        assert tally(futures) == (60, 0)
        assert_counted(simulation, futures)


def test_a_lost_registration_is_sent_again() -> None:
    simulation = Simulation(3)
    with simulation:
        lost: list[Message] = []

        def lose(source: int, target: int, message: Message) -> list[float]:
            if isinstance(message, Forward) and message.seq == 0 and len(lost) < 4:
                lost.append(message)
                return []
            return [0.0]

        simulation.fabric.fate = lose
        simulation.run_until_ready()
        futures = [simulation.create(i, f"/{i}") for i in simulation.ids]
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert [type(future.result().result) for future in futures] == [Created] * 3
        assert len(lost) == 4


def test_a_write_lost_with_its_connection_is_sent_again_on_the_next() -> None:
    """At once, in the same term: not when its lack of progress is noticed."""
    with ready() as simulation:
        leader, follower = simulation.leader_id, simulation.follower_ids[0]
        term = simulation.replica(leader).term
        futures = [simulation.write(follower) for _ in range(3)]
        simulation.run_for(0.0002)  # They are under way.
        simulation.fabric.disconnect(leader, follower)
        took = simulation.run_until(lambda: all(future.done() for future in futures))
        assert took < 0.5, f"{took:.3f} s"
        assert tally(futures) == (3, 0)
        assert simulation.replica(leader).term == term


def test_copies_released_a_thousand_numbers_later_change_nothing() -> None:
    with ready() as simulation:

        def copy(source: int, target: int, message: Message) -> list[float]:
            return [0.0, 5.0, 20.0] if isinstance(message, Forward) else [0.0]

        simulation.fabric.fate = copy
        futures = [simulation.write(i) for i in simulation.ids for _ in range(3)]
        simulation.run_for(0.1)
        simulation.fabric.fate = lambda source, target, message: [0.0]
        for _ in range(1000):
            futures += [simulation.write(replica_id) for replica_id in simulation.ids]
            simulation.run_for(0.002)
        simulation.run_for(25.0)
        assert tally(futures) == (3009, 0)
        assert_counted(simulation, futures)
        assert version(simulation, 1) == 3009


def test_copies_released_in_a_later_term_of_the_same_leader_change_nothing() -> None:
    with ready() as simulation:
        simulation.fabric.fate = lambda source, target, message: (
            [0.0, 4.0] if isinstance(message, Forward) else [0.0]
        )
        first = simulation.leader_id
        futures = [simulation.write(i) for i in simulation.ids for _ in range(3)]
        simulation.run_for(0.1)
        for _ in range(5):
            replica = simulation.replica(simulation.leader_id)
            task = simulation.processes[replica.replica_id].loop.create_task(replica.hand_over())
            simulation.run_until(task.done)
            simulation.run_until_ready()
            if simulation.leader_id == first:
                break
        assert simulation.leader_id == first
        simulation.run_for(6.0)
        assert tally(futures) == (9, 0)
        assert_counted(simulation, futures)


def test_a_full_merge_queue_loses_nothing() -> None:
    limits = {
        "merge_bytes_max": 700,
        "entry_commands_max": 4,
        "uncommitted_bytes_max": 200,
        "unknown_outcome_after_s": 200.0,
    }
    with ready(settings=limits) as simulation:
        futures: Futures = []
        for n in range(40):
            count = 1 + n * 7 % 9
            for replica_id in simulation.ids:
                futures += [simulation.write(replica_id, timeout_s=200.0) for _ in range(count)]
            simulation.run_for(0.001)
        simulation.run_until(lambda: all(future.done() for future in futures), limit_s=200.0)
        assert tally(futures) == (len(futures), 0)
        assert_counted(simulation, futures)


# ---------------------------------------------------------------------- a leader is lost


def test_a_killed_leader_is_replaced_in_a_fraction_of_a_second() -> None:
    for seed in range(10):
        with ready(seed=seed) as simulation:
            first = simulation.leader_id
            simulation.crash(first)
            survivor = next(i for i in simulation.ids if i != first)
            future = simulation.write(survivor)
            took = simulation.run_until(future.done)
            assert took < 0.5, f"seed {seed}: {took:.3f} s"
            assert future.result().result.stat.version == 1  # type: ignore[union-attr]


def test_ten_thousand_increments_equal_their_acknowledgements() -> None:
    """While leaders are killed and come back."""
    with ready() as simulation:
        futures: Futures = []
        for n in range(500):
            running = [process.replica.replica_id for process in simulation.up]
            futures += [simulation.write(running[k % len(running)]) for k in range(20)]
            simulation.run_for(0.005)
            if n % 100 == 50:
                simulation.crash(simulation.leader_id if simulation.leader else running[0])
            if n % 100 == 90:
                down = next(i for i in simulation.ids if not simulation.processes[i].is_up)
                simulation.start(down, simulation.processes[down].wal.crash())
        # Those who waited at a killed replica are answered by nobody: perhaps applied.
        simulation.run_until_ready()
        simulation.run_for(6.0)
        for future in futures:
            future.cancel()
        assert_counted(simulation, futures)
        assert tally(futures)[0] > 6000


def test_writes_at_survivors_are_not_lost_with_the_leader() -> None:
    """What they had sent to the dead one they send to the next, and it is applied once."""
    with ready() as simulation:
        first = simulation.leader_id
        survivors = simulation.follower_ids
        futures: Futures = []
        for _ in range(50):
            futures += [simulation.write(replica_id) for replica_id in survivors]
            simulation.run_for(0.0004)
        simulation.crash(first)
        for _ in range(50):
            futures += [simulation.write(replica_id) for replica_id in survivors]
            simulation.run_for(0.002)
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert tally(futures) == (200, 0)
        assert_counted(simulation, futures)


def test_a_deposed_leaders_own_writes_are_applied_once() -> None:
    with ready() as simulation:
        first = simulation.leader_id
        simulation.fabric.isolate(first, simulation.follower_ids)
        futures = [simulation.write(first, timeout_s=30.0) for _ in range(20)]
        simulation.run_until(
            lambda: simulation.leader is not None and simulation.leader_id != first
        )
        futures += [simulation.write(simulation.leader_id) for _ in range(20)]
        simulation.run_for(0.5)
        simulation.fabric.mend()
        simulation.run_until_ready()
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert tally(futures) == (40, 0)
        assert_counted(simulation, futures)


def test_a_machine_that_vanishes_is_replaced_after_the_election_timeout() -> None:
    """Nobody closes its connections; only its silence tells."""
    with ready() as simulation:
        first = simulation.leader_id
        simulation.crash(first, is_silent=True)
        took = simulation.run_until(lambda: simulation.leader is not None)
        assert 0.8 < took < 3.0


def test_a_power_cut_of_all_keeps_every_acknowledged_write() -> None:
    for seed in range(10):
        with ready(seed=seed) as simulation:
            futures: Futures = []
            for _ in range(30):
                futures += [simulation.write(i, timeout_s=60.0) for i in simulation.ids]
                simulation.run_for(0.0007)
            disks = {i: simulation.crash(i) for i in simulation.ids}
            for replica_id, disk in disks.items():
                simulation.start(replica_id, disk)
            simulation.run_until_ready()
            for future in futures:
                future.cancel()
            assert_counted(simulation, futures)
            assert tally(futures)[0] > 10


# ---------------------------------------------------------------------- no majority


def test_a_leader_whose_followers_are_paused_refuses_within_two_seconds() -> None:
    with ready() as simulation:
        leader, followers = simulation.leader_id, simulation.follower_ids
        for replica_id in followers:
            simulation.pause(replica_id)
        early = simulation.write(leader, timeout_s=30.0)
        early_read = simulation.replica(leader).read_index(simulation.loop.now + 30.0)
        simulation.run_for(2.0)
        late = simulation.write(leader, timeout_s=30.0)
        late_read = simulation.replica(leader).read_index(simulation.loop.now + 30.0)
        assert isinstance(late.exception(), NoQuorumError), "certainly not applied"
        assert not simulation.replica(leader).has_quorum
        simulation.run_for(0.2)
        for read in (early_read, late_read):
            assert isinstance(read.exception(), NoQuorumError)
        simulation.run_for(4.0)
        assert isinstance(early.exception(), OutcomeUnknownError), "it was proposed"
        for replica_id in followers:
            simulation.resume(replica_id)
        simulation.run_until_ready(limit_s=5.0)
        futures = [simulation.write(replica_id) for replica_id in simulation.ids]
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert tally(futures) == (3, 0)


def test_a_cut_off_follower_refuses_and_the_others_serve() -> None:
    with ready() as simulation:
        alone, other = simulation.follower_ids
        simulation.fabric.isolate(alone, [i for i in simulation.ids if i != alone])
        simulation.run_for(2.0)
        assert isinstance(simulation.write(alone).exception(), NoQuorumError)
        assert isinstance(simulation.done(simulation.write(other)).result, DataSet)
        simulation.fabric.mend()
        simulation.run_until_ready(limit_s=5.0)
        assert isinstance(simulation.done(simulation.write(alone)).result, DataSet)


def test_a_leader_that_is_heard_by_nobody_gives_way() -> None:
    """A one-way cut: it hears the others, they do not hear it."""
    with ready() as simulation:
        first, others = simulation.leader_id, simulation.follower_ids
        simulation.fabric.mute = {(first, other) for other in others}
        simulation.run_until(
            lambda: simulation.leader is not None and simulation.leader_id != first, limit_s=8.0
        )
        future = simulation.write(simulation.leader_id)
        assert isinstance(simulation.done(future).result, DataSet)


def test_a_leader_that_hears_nobody_gives_way() -> None:
    """The other way round: it speaks and gets no answer, so it confirms nothing."""
    with ready() as simulation:
        first, others = simulation.leader_id, simulation.follower_ids
        simulation.fabric.mute = {(other, first) for other in others}
        simulation.run_for(2.0)
        assert isinstance(simulation.write(first).exception(), NoQuorumError)
        simulation.run_until(
            lambda: simulation.leader is not None and simulation.leader_id != first, limit_s=8.0
        )
