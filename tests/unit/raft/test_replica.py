"""Whole replicas, in simulated time: what the server is promised.

Goal: writes are one history, reads are as new as their question, leadership is what it says it is,
and every caller is answered. Method: `Simulation`; a counter's version tells how often increments
were applied. Faults are in test_replica_faults.py and test_replica_memory.py.
"""

from __future__ import annotations

from collections import Counter

import pytest

from coordsvc.core.commands import (
    DataSet,
    InitCluster,
    Refusal,
)
from coordsvc.errors import (
    ErrorCode,
    NoQuorumError,
    NotCaughtUpError,
    OutcomeUnknownError,
)
from coordsvc.raft.messages import AppendEntries, AppendReply, Message, ReadIndex
from coordsvc.raft.replica import Replica
from coordsvc.testing.raft_simulation import Simulation
from tests.unit.raft.replica_scene import (
    INCREMENT,
    REFUSED,
    Futures,
    assert_counted,
    ready,
    tally,
    version,
)

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


def count_turns(simulation: Simulation) -> Counter[int]:
    """How many turns each replica takes from now on. There are no timers any more."""
    turns: Counter[int] = Counter()

    def watch(replica: Replica) -> None:
        run_turn = replica._run_turn

        def counted(now: float) -> None:
            turns[replica.replica_id] += 1
            run_turn(now)

        replica._on_timer = lambda: None  # type: ignore[method-assign]
        replica._run_turn = counted  # type: ignore[method-assign]

    for process in simulation.up:
        watch(process.replica)
    simulation.run_for(0.5)
    # What was due meanwhile comes with it.
    simulation.done(simulation.write(simulation.leader_id))
    simulation.run_for(0.01)
    turns.clear()
    return turns


def test_a_single_write_takes_no_more_turns_than_have_work() -> None:
    """The replica asked: one to send it, one to apply it. The leader: one to append it, one to
    commit it. The third: one to apply it. Syncs, and acknowledgements that commit nothing, take
    none."""
    with ready() as simulation:
        asked, other = simulation.follower_ids
        simulation.disk_s[other] = 0.003
        turns = count_turns(simulation)
        simulation.done(simulation.write(asked))
        simulation.run_for(0.01)
        assert turns == {asked: 2, simulation.leader_id: 2, other: 1}


@pytest.mark.parametrize("slow", [0, 1, 2, 3])
def test_no_write_waits_for_a_timer(slow: int) -> None:
    """Whichever disk is the last of a majority, and wherever the client is."""
    with ready() as simulation:
        for process in simulation.up:
            process.replica._on_timer = lambda: None  # type: ignore[method-assign]
        simulation.run_for(0.1)
        if slow:
            # The other two decide; of these the slower one.
            simulation.disk_s[slow] = 0.5
            simulation.disk_s[slow % 3 + 1] = 0.003
        for replica_id in simulation.ids * 3:
            began = simulation.loop.time()
            simulation.done(simulation.write(replica_id), limit_s=0.006)
            assert simulation.loop.time() - began < 0.006


def test_a_promise_leaves_with_its_sync() -> None:
    """Not in a turn after it."""
    with ready() as simulation:
        follower = simulation.follower_ids[0]
        said: list[float] = []

        def on_frame(source: int, target: int, term: int, message: Message) -> None:
            if source == follower and isinstance(message, AppendReply):
                said.append(simulation.loop.time())

        simulation.held_disks.add(follower)
        simulation.done(simulation.write(simulation.leader_id))
        simulation.run_for(0.01)
        simulation.fabric.on_frame = on_frame
        replica = simulation.replica(follower)
        replica._run_turn = lambda now: None  # type: ignore[method-assign]
        simulation.release_disk(follower)
        simulation.run_until(lambda: bool(said), limit_s=0.05)


def test_a_writer_at_the_leader_is_answered_before_the_others_are_told() -> None:
    with ready() as simulation:
        leader = simulation.leader
        assert leader is not None
        simulation.run_for(0.5)
        order: list[str] = []

        def on_frame(source: int, target: int, term: int, message: Message) -> None:
            is_news = isinstance(message, AppendEntries) and message.commit_index > before
            if source == leader.replica_id and is_news:
                order.append("told")

        before = leader.commit_index
        simulation.fabric.on_frame = on_frame
        future = simulation.write(leader.replica_id)
        future.add_done_callback(lambda future: order.append("answered"))
        simulation.run_until(lambda: len(order) == 3)
        assert order == ["answered", "told", "told"]


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


def test_a_hand_over_under_load_stops_adding_and_succeeds() -> None:
    """The successor must hold everything, which it never would while more is added."""
    with ready() as simulation:
        first = simulation.leader_id
        replica = simulation.replica(first)
        futures = [simulation.write(first)]
        simulation.run_for(0.01)
        task = simulation.processes[first].loop.create_task(replica.hand_over())
        start = simulation.loop.now
        while not task.done():
            futures.append(simulation.write(first))
            simulation.run_for(0.0003)
        assert task.result() is True
        assert simulation.loop.now - start < 0.3
        simulation.run_until(lambda: all(future.done() for future in futures))
        assert tally(futures) == (len(futures), 0)
        assert simulation.leader_id != first


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
