"""Whole replicas, in simulated time: what the server is promised, with and without faults.

Goal: an acknowledged write is there, once, whatever happens between replicas; what cannot be
confirmed is refused in time; nothing waits for ever. Method: `Simulation`; a counter's version
tells how often increments were applied.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordsvc.core.commands import (
    APPLIED,
    NO_CALLER,
    Created,
    CreateOp,
    DataSet,
    InitCluster,
    Refusal,
    Reply,
    SetDataOp,
    Write,
)
from coordsvc.errors import (
    ErrorCode,
    NoQuorumError,
    NotCaughtUpError,
    OutcomeUnknownError,
    ShuttingDownError,
)
from coordsvc.raft.messages import Forward, Message, ReadIndex, ReadIndexReply, Round, Touch
from coordsvc.testing.raft_simulation import Simulation

Futures = list["asyncio.Future[Reply]"]

INCREMENT = Write(NO_CALLER, SetDataOp("/counter"))
REFUSED = (ShuttingDownError, NoQuorumError)


def ready(size: int = 3, **changes: Any) -> Simulation:
    simulation = Simulation(size, **changes)
    simulation.run_until_ready()
    simulation.done(simulation.create(1, "/counter"))
    return simulation


def version(simulation: Simulation, replica_id: int) -> int:
    return simulation.processes[replica_id].machine.state.znodes["/counter"].stat.version


def tally(futures: Futures) -> tuple[int, int]:
    """(acknowledged, perhaps applied); every increment must have been answered one way."""
    acknowledged = unknown = 0
    versions = []
    for future in futures:
        assert future.done(), "somebody was never answered"
        if future.cancelled() or isinstance(future.exception(), OutcomeUnknownError):
            unknown += 1
        elif future.exception() is None:
            result = future.result().result
            assert isinstance(result, DataSet), result
            versions.append(result.stat.version)
            acknowledged += 1
        else:
            assert isinstance(future.exception(), NoQuorumError | ShuttingDownError)
    assert len(set(versions)) == len(versions), "two increments made the same version"
    return acknowledged, unknown


def assert_counted(simulation: Simulation, futures: Futures) -> None:
    simulation.run_until_equal()
    acknowledged, unknown = tally(futures)
    counted = version(simulation, simulation.leader_id)
    assert acknowledged <= counted <= acknowledged + unknown


# ---------------------------------------------------------------------- without faults


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_writes_through_every_replica_are_one_history(size: int) -> None:
    with ready(size) as simulation:
        futures = [simulation.write(1 + n % size) for n in range(300)]
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert tally(futures) == (300, 0)
        simulation.run_until_equal()
        histories = [process.applied for process in simulation.up]
        assert all(history == histories[0] for history in histories)
        assert len({process.machine.state.cluster_id for process in simulation.up}) == 1
        assert simulation.leader is not None
        assert simulation.leader.statistics().writes_undecided == 0


def test_a_turns_writes_share_one_entry() -> None:
    with ready() as simulation:
        before = simulation.replica(1).journal.last_index
        futures = [simulation.write(1) for _ in range(200)]
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert simulation.replica(1).journal.last_index == before + 1


def test_a_refusal_is_an_answer() -> None:
    with ready() as simulation:
        reply = simulation.done(simulation.create(2, "/counter"))
        assert isinstance(reply.result, Refusal)
        assert reply.result.code == ErrorCode.NODE_EXISTS


@pytest.mark.parametrize("size", [1, 3])
def test_a_write_is_answered_when_a_majority_has_it_on_disk(size: int) -> None:
    with ready(size) as simulation:
        leader = simulation.leader_id
        held = [leader, *simulation.follower_ids][: size // 2 + 1]
        simulation.held_disks.update(held)
        future = simulation.write(leader, timeout_s=60.0)
        simulation.run_for(2.0)
        assert not future.done()
        simulation.release_disk(held[-1])
        assert simulation.done(future).result.stat.version == 1


def test_a_new_cluster_waits_for_all_its_members() -> None:
    simulation = Simulation(3)
    with simulation:
        simulation.crash(3)
        simulation.run_for(10.0)
        assert simulation.leader is None
        assert simulation.processes[1].machine.state.cluster_id == b""
        assert isinstance(simulation.write(1).exception(), NoQuorumError)
        simulation.restart(3)
        simulation.run_until_ready()
        names = {process.machine.state.cluster_id for process in simulation.up}
        assert len(names) == 1 and len(names.pop()) == 16


def test_a_cluster_keeps_its_name_over_restarts() -> None:
    with ready() as simulation:
        name = simulation.processes[1].machine.state.cluster_id
        for replica_id in simulation.ids:
            simulation.restart(replica_id)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert {process.machine.state.cluster_id for process in simulation.up} == {name}


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
        kinds = (Forward, ReadIndex, ReadIndexReply, Round)

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


def test_copies_released_under_the_next_leader_change_nothing() -> None:
    with ready() as simulation:
        simulation.fabric.fate = lambda source, target, message: (
            [0.0, 4.0] if isinstance(message, Forward) else [0.0]
        )
        futures = [simulation.write(i) for i in simulation.ids for _ in range(3)]
        simulation.run_for(0.1)
        simulation.restart(simulation.leader_id)
        simulation.run_for(10.0)
        simulation.run_until_ready()
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
        for n in range(100):
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


# ---------------------------------------------------------------------- reads


def test_a_read_sees_what_was_written_anywhere_before_it() -> None:
    with ready() as simulation:
        for n in range(1, 60):
            writer, reader = 1 + n % 3, 1 + (n // 3) % 3
            simulation.done(simulation.write(writer))
            simulation.done(simulation.replica(reader).read_index(simulation.loop.now + 5.0))
            assert version(simulation, reader) == n


def test_of_reads_queued_at_a_paused_leader_none_sees_the_old_state() -> None:
    with ready() as simulation:
        first, others = simulation.leader_id, simulation.follower_ids
        simulation.pause(first)
        reads = [
            simulation.replica(first).read_index(simulation.loop.now + 30.0) for _ in range(50)
        ]
        seen: list[int] = []
        for read in reads:
            read.add_done_callback(
                lambda done: done.exception() or seen.append(version(simulation, first))
            )
        simulation.run_until(
            lambda: simulation.leader is not None and simulation.leader_id in others
        )
        simulation.done(simulation.write(simulation.leader_id))
        simulation.resume(first)
        simulation.run_until(lambda: all(read.done() for read in reads))
        assert all(each == 1 for each in seen)
        assert isinstance(simulation.done(simulation.write(first)).result, DataSet)


def test_a_new_leader_answers_no_read_before_its_own_first_entry() -> None:
    """Until then it does not know what its predecessor had committed."""
    with ready() as simulation:
        first, (second, third) = simulation.leader_id, simulation.follower_ids
        futures = [simulation.write(first) for _ in range(10)]
        simulation.run_until(lambda: all(future.done() for future in futures))
        simulation.crash(first)
        simulation.run_until(
            lambda: any(simulation.replica(i).node.is_leader for i in (second, third))
        )
        leader = next(i for i in (second, third) if simulation.replica(i).node.is_leader)
        replica = simulation.replica(leader)
        assert not replica.is_leader
        read = replica.read_index(simulation.loop.now + 5.0)
        simulation.run_until(read.done)
        assert replica.is_leader and version(simulation, leader) == 10


def test_a_reads_deadline_is_kept() -> None:
    with ready() as simulation:
        follower = simulation.follower_ids[0]
        simulation.fabric.fate = lambda source, target, message: (
            [] if isinstance(message, ReadIndex) else [0.0]
        )
        start = simulation.loop.now
        read = simulation.replica(follower).read_index(start + 1.0)
        simulation.run_until(read.done)
        assert isinstance(read.exception(), NoQuorumError)
        assert 1.0 <= simulation.loop.now - start <= 1.2


def test_an_answer_to_an_earlier_process_is_no_answer_to_this_one() -> None:
    """The process before asked, and died before the leader could prove that it leads. The answer
    may reach the process after it, which must not have a question of that number."""
    with ready() as simulation:
        reader = simulation.follower_ids[0]
        asked: list[int] = []

        def note(source: int, target: int, message: Message) -> list[float]:
            if isinstance(message, ReadIndex) and source == reader:
                asked.append(message.request)
            return [0.0]

        simulation.fabric.fate = note
        for _ in range(2):
            for _ in range(30):
                simulation.done(simulation.replica(reader).read_index(simulation.loop.now + 5.0))
            simulation.restart(reader)
            simulation.run_until_ready()
        assert len(asked) >= 60
        assert len(set(asked)) == len(asked)


def test_waiting_for_a_zxid() -> None:
    with ready() as simulation:
        follower = simulation.follower_ids[0]
        replica = simulation.replica(follower)
        zxid = simulation.processes[follower].machine.state.zxid
        assert replica.wait_applied(zxid, simulation.loop.now + 1.0).done()
        waiting = replica.wait_applied(zxid + 1, simulation.loop.now + 1.0)
        late = replica.wait_applied(zxid + 9, simulation.loop.now + 1.0)
        gone = replica.wait_applied(zxid + 1, simulation.loop.now + 1.0)
        gone.cancel()
        simulation.done(simulation.write(simulation.leader_id))
        simulation.run_until(waiting.done, limit_s=0.5)
        assert waiting.exception() is None and not late.done()
        simulation.run_until(late.done, limit_s=2.0)
        assert isinstance(late.exception(), NotCaughtUpError)


# ---------------------------------------------------------------------- leadership


def test_leadership_is_confirmed_by_a_round_begun_afterwards() -> None:
    with ready() as simulation:
        told: list[tuple[str, bool]] = []
        for replica_id in simulation.follower_ids:
            simulation.replica(replica_id).confirm_leadership(
                lambda leads: told.append(("follower", leads))
            )
        assert told == [("follower", False)] * 2
        simulation.replica(simulation.leader_id).confirm_leadership(
            lambda leads: told.append(("leader", leads))
        )
        simulation.run_until(lambda: ("leader", True) in told, limit_s=0.2)


def test_a_leader_that_loses_its_majority_is_told_so() -> None:
    with ready() as simulation:
        first = simulation.leader_id
        told: list[bool] = []
        simulation.fabric.isolate(first, simulation.follower_ids)
        simulation.replica(first).confirm_leadership(told.append)
        simulation.run_until(lambda: bool(told), limit_s=3.0)
        assert told == [False]
        assert not simulation.replica(first).is_leader


def test_a_leaders_command_is_taken_in_its_own_term_only() -> None:
    with ready() as simulation:
        leader = simulation.replica(simulation.leader_id)
        follower = simulation.replica(simulation.follower_ids[0])
        assert leader.propose(InitCluster(leader.term, b"x" * 16))
        assert not leader.propose(InitCluster(leader.term - 1, b"x" * 16))
        assert not follower.propose(InitCluster(follower.term, b"x" * 16))


def test_stopping_a_leader_hands_over_with_a_short_gap() -> None:
    with ready() as simulation:
        first = simulation.leader_id
        survivors = simulation.follower_ids
        futures: Futures = []
        stopping = simulation.processes[first].loop.create_task(simulation.replica(first).stop())
        answered_at: list[float] = []
        while not stopping.done() or len(futures) < 300:
            future = simulation.write(survivors[len(futures) % 2])
            future.add_done_callback(lambda _: answered_at.append(simulation.loop.now))
            futures.append(future)
            simulation.run_for(0.002)
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert tally(futures) == (len(futures), 0)
        gaps = [after - before for before, after in zip(answered_at, answered_at[1:], strict=False)]
        assert max(gaps) < 0.2
        assert simulation.leader_id != first
        assert stopping.exception() is None


def test_stopping_answers_everybody() -> None:
    with ready() as simulation:
        first = simulation.leader_id
        replica = simulation.replica(first)
        until = simulation.loop.now + 60.0
        simulation.fabric.isolate(first, simulation.follower_ids)
        proposed = simulation.write(first, timeout_s=60.0)
        simulation.run_for(0.1)
        read = replica.read_index(until)
        waiting = replica.wait_applied(10_000, until)
        stopping = simulation.processes[first].loop.create_task(replica.stop(hand_over=False))
        simulation.run_until(stopping.done, limit_s=5.0)
        simulation.run_for(0.1)
        assert isinstance(replica.submit(INCREMENT, until).exception(), REFUSED)
        assert isinstance(replica.read_index(until).exception(), REFUSED)
        assert isinstance(read.exception(), REFUSED)
        assert isinstance(waiting.exception(), (*REFUSED, NotCaughtUpError))
        assert isinstance(proposed.exception(), OutcomeUnknownError)


def test_a_hand_over_to_nobody_is_given_up() -> None:
    with ready() as simulation:
        first = simulation.leader_id
        replica = simulation.replica(first)
        simulation.fabric.fate = lambda source, target, message: (
            [] if type(message).__name__ == "TimeoutNow" else [0.0]
        )
        task = simulation.processes[first].loop.create_task(replica.hand_over())
        simulation.run_until(task.done, limit_s=3.0)
        assert task.result() is False
        assert simulation.leader_id == first
        assert isinstance(simulation.done(simulation.write(first)).result, DataSet)


# ---------------------------------------------------------------------- callers


def test_half_of_the_callers_may_go_away() -> None:
    with ready() as simulation:
        futures: Futures = []
        for n in range(1000):
            futures.append(simulation.write(1 + n % 3))
            if n % 10 == 0:
                simulation.run_for(0.0005)
            if n % 2:
                futures[simulation.rng.randrange(len(futures) // 2) * 2].cancel()
        kept = [future for future in futures if not future.cancelled()]
        simulation.run_until(lambda: all(future.done() for future in kept))
        assert len(kept) > 400
        assert tally(kept) == (len(kept), 0)
        assert_counted(simulation, futures)


def test_a_deadline_in_the_past_is_certainly_not_applied() -> None:
    with ready() as simulation:
        future = simulation.write(1, timeout_s=-1.0)
        assert isinstance(future.exception(), NoQuorumError)


# ---------------------------------------------------------------------- memory


def test_a_wiped_replica_comes_back_and_becomes_a_voter() -> None:
    with ready() as simulation:
        for _ in range(20):
            simulation.done(simulation.write(1))
        wiped = simulation.follower_ids[0]
        simulation.wipe(wiped)
        assert simulation.replica(wiped).node.memoryless
        simulation.run_until_ready(limit_s=5.0)
        assert simulation.processes[wiped].wal.crash().recovered.voter, "it is on disk"
        simulation.run_until_equal()
        assert version(simulation, wiped) == 20
        future = simulation.write(wiped)
        assert isinstance(simulation.done(future).result, DataSet)
        # As a voter it makes a majority with one other.
        simulation.crash(next(i for i in simulation.follower_ids if i != wiped))
        simulation.done(simulation.write(wiped))


def test_a_wiped_leader_comes_back_as_a_follower() -> None:
    with ready() as simulation:
        simulation.done(simulation.write(1))
        wiped = simulation.leader_id
        simulation.wipe(wiped)
        simulation.run_until_ready(limit_s=5.0)
        simulation.run_until_equal()
        assert version(simulation, wiped) == 1


def test_wiped_one_and_killed_another_stands_still_until_it_is_back() -> None:
    """An entry on 1 and 2 only; 2 is wiped, 1 dies: without 1 nobody knows the entry."""
    with ready() as simulation:
        simulation.run_until_equal()
        leader, (second, third) = simulation.leader_id, simulation.follower_ids
        simulation.fabric.isolate(third, [leader, second])
        assert simulation.done(simulation.write(leader)).result.stat.version == 1
        simulation.wipe(second)
        disk = simulation.crash(leader)
        simulation.fabric.mend()
        simulation.run_for(30.0)
        assert simulation.leader is None
        assert simulation.replica(second).node.memoryless
        assert not simulation.replica(second).is_ready
        simulation.start(leader, disk)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, third) == 1


def test_a_disk_of_a_moment_ago_is_noticed_by_its_peers() -> None:
    """Its data directory was restored from a copy: same uuid, less in it."""
    with ready() as simulation:
        leader, (second, third) = simulation.leader_id, simulation.follower_ids
        simulation.run_until_equal()
        old_disk = simulation.processes[second].wal.crash()
        simulation.fabric.isolate(third, [leader, second])
        assert simulation.done(simulation.write(leader)).result.stat.version == 1
        simulation.crash(second)
        simulation.fabric.cut.add(frozenset((second, third)))
        simulation.start(second, old_disk)
        replica = simulation.replica(second)
        assert not replica.node.memoryless, "its disk says it is a voter"
        simulation.run_until(lambda: replica.node.memoryless, limit_s=1.0)
        simulation.run_for(1.0)
        assert replica.node.memoryless, "one other member is no majority with it in doubt"
        simulation.fabric.mend()
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, third) == 1


def test_all_that_remember_nothing_for_sure_elect_together() -> None:
    """The last batch was torn on all three at once."""
    with ready() as simulation:
        simulation.done(simulation.write(1))
        disks = {i: simulation.crash(i) for i in simulation.ids}
        for replica_id, disk in disks.items():
            disk.recovered.ambiguous_cut = True
            simulation.start(replica_id, disk)
        assert all(process.replica.node.memoryless for process in simulation.up)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert version(simulation, 1) == 1


def test_a_replica_is_ready_when_it_has_what_was_committed_before_it_came() -> None:
    with ready() as simulation:
        follower = simulation.follower_ids[0]
        simulation.crash(follower)
        for _ in range(20):
            simulation.done(simulation.write(simulation.leader_id))
        simulation.start(follower, simulation.processes[follower].wal.crash())
        replica = simulation.replica(follower)
        assert not replica.is_ready
        simulation.run_until(lambda: replica.is_ready, limit_s=3.0)
        assert version(simulation, follower) == 20


# ---------------------------------------------------------------------- disks


@pytest.mark.parametrize("who", ["leader", "followers", "all"])
def test_a_disk_that_hesitates_for_three_seconds_elects_nobody(who: str) -> None:
    with ready() as simulation:
        leader, followers = simulation.leader_id, simulation.follower_ids
        slow = {"leader": [leader], "followers": followers, "all": [leader, *followers]}[who]
        term = simulation.replica(leader).term
        simulation.held_disks.update(slow)
        futures = [simulation.write(i, timeout_s=30.0) for i in simulation.ids]
        simulation.run_for(3.0)
        for replica_id in slow:
            simulation.release_disk(replica_id)
        simulation.run_until(lambda: all(future.done() for future in futures), limit_s=3.0)
        assert tally(futures) == (3, 0)
        assert (simulation.leader_id, simulation.replica(leader).term) == (leader, term)


def test_a_leader_whose_disk_is_silent_hands_over() -> None:
    with ready() as simulation:
        first = simulation.leader_id
        simulation.held_disks.add(first)
        future = simulation.write(first, timeout_s=60.0)
        assert isinstance(simulation.done(future).result, DataSet), "the others' disks suffice"
        simulation.run_until(
            lambda: simulation.leader is not None and simulation.leader_id != first, limit_s=8.0
        )


def test_a_disk_that_is_silent_for_long_ends_the_process() -> None:
    with ready() as simulation:
        simulation.expected_faults = (OSError,)
        follower = simulation.follower_ids[0]
        simulation.held_disks.add(follower)
        simulation.done(simulation.write(simulation.leader_id))
        simulation.run_for(29.0)
        assert simulation.processes[follower].is_up
        simulation.run_for(2.0)
        assert not simulation.processes[follower].is_up
        assert "30 s" in str(simulation.processes[follower].fault)


def test_after_a_failed_write_nothing_is_acknowledged() -> None:
    with ready(1) as simulation:
        simulation.expected_faults = (OSError,)
        simulation.held_disks.add(1)
        future = simulation.write(1, timeout_s=60.0)
        simulation.run_for(0.1)
        simulation.replica(1).on_wal_failed(OSError("the disk is gone"))
        assert not simulation.processes[1].is_up
        simulation.run_for(1.0)
        assert not future.done() or future.exception() is not None


# ---------------------------------------------------------------------- faults that end a process


def test_an_entry_that_cannot_be_applied_ends_the_process_once() -> None:
    with ready() as simulation:
        simulation.expected_faults = (ZeroDivisionError,)
        broken = simulation.follower_ids[0]
        process = simulation.processes[broken]
        calls = 0

        def explode(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            raise ZeroDivisionError("a bug in apply")

        process.machine.apply_entry = explode  # type: ignore[method-assign]
        applied = process.replica.applied_index
        simulation.done(simulation.write(simulation.leader_id))
        simulation.run_for(2.0)
        assert calls == 1, "an entry is not tried again"
        assert isinstance(process.fault, ZeroDivisionError)
        assert process.replica.applied_index == applied, "nor skipped"
        assert isinstance(simulation.done(simulation.write(simulation.leader_id)).result, DataSet)


def test_a_damaged_entry_ends_the_process() -> None:
    with ready(1) as simulation:
        simulation.expected_faults = (Exception,)
        simulation.replica(1).node.append(b"\x00\xc1 no entry")
        simulation.run_for(0.5)
        assert type(simulation.processes[1].fault).__name__ == "UndecodableEntryError"


def test_a_state_that_differs_from_the_leaders_ends_the_process() -> None:
    with ready() as simulation:
        simulation.expected_faults = (AssertionError,)
        strange = simulation.follower_ids[0]
        machine = simulation.processes[strange].machine
        digest = machine.digest
        machine.digest = lambda: digest() ^ 1  # type: ignore[method-assign]
        leader = simulation.leader_id
        for _ in range(50):
            futures = [simulation.write(leader) for _ in range(100)]
            simulation.run_until(lambda f=futures: all(each.done() for each in f))  # type: ignore[misc]
        assert type(simulation.processes[strange].fault).__name__ == "DigestMismatchError"
        assert [process.replica.replica_id for process in simulation.up] == [
            i for i in simulation.ids if i != strange
        ]


def test_two_leaders_in_one_term_end_the_process() -> None:
    with ready() as simulation:
        simulation.expected_faults = (AssertionError,)
        leader, (second, _) = simulation.leader_id, simulation.follower_ids
        replica = simulation.replica(leader)
        process = simulation.processes[leader]
        network = process.network
        simulation.fabric._deliver(network, second, leader, 0, replica.term, Round(1, 0))
        assert type(process.fault).__name__ == "TwoLeadersError"


# ---------------------------------------------------------------------- peers


def test_side_messages_reach_their_handler() -> None:
    with ready() as simulation:
        heard: list[tuple[int, Message]] = []
        simulation.replica(2).set_handler(
            Touch, lambda peer, message: heard.append((peer, message))
        )
        simulation.replica(1).send_peer(2, Touch(1, 1, ((7, 0),)))
        simulation.replica(1).send_peer(3, Touch(1, 2, ()))
        simulation.run_for(0.1)
        assert heard == [(1, Touch(1, 1, ((7, 0),)))]


def test_a_replica_of_another_cluster_is_refused() -> None:
    with ready() as simulation:
        stranger = simulation.follower_ids[0]
        disk = simulation.crash(stranger)
        simulation._cluster_ids[stranger] = b"another cluster!"
        simulation.start(stranger, disk)
        simulation.run_for(2.0)
        assert simulation.replica(stranger).node.linked == set()
        assert any("cluster" in reason for reason in simulation.fabric.refusals)


def test_the_history_is_the_same_on_all() -> None:
    """Faults of every kind in one run; what each applied is a beginning of the longest."""
    with ready(seed=5) as simulation:
        for n in range(200):
            simulation.write(1 + n % 3)
            simulation.run_for(0.004)
            if n == 50:
                simulation.restart(simulation.leader_id)
            if n == 120:
                simulation.fabric.isolate(1, [2, 3])
            if n == 160:
                simulation.fabric.mend()
        simulation.run_until_ready()
        simulation.run_until_equal()
        outcomes = [
            [
                (batch.replica_id, batch.seq, batch.replies)
                for entry in process.applied
                for batch in entry.batches
                if batch.status == APPLIED
            ]
            for process in simulation.up
        ]
        assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_write_larger_than_an_entry_is_refused_and_a_large_one_passes() -> None:
    with ready(settings={"entry_bytes_max": 4096, "append_bytes_max": 8192}) as simulation:
        large = Write(NO_CALLER, CreateOp("/large", b"x" * 3900))
        assert isinstance(simulation.done(simulation.submit(2, large)).result, Created)
        simulation.run_until_equal()
        too_large = simulation.submit(2, Write(NO_CALLER, CreateOp("/too", b"x" * 4200)))
        assert too_large.exception() is not None
