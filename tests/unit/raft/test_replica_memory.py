"""Whole replicas, in simulated time: disks that forget, hesitate and fail; faults that end one.

Goal: what was acknowledged survives what a replica forgets; a slow disk is no dead replica; what
cannot go on ends once, by the way of `on_fatal`. Method: `Simulation`.
"""

from __future__ import annotations

from typing import Any

import pytest

from coordsvc.core.commands import (
    DataSet,
)
from coordsvc.raft.adapter import LEADER
from coordsvc.raft.messages import Round
from coordsvc.testing.manual_wal import ManualWal
from coordsvc.testing.raft_simulation import Simulation
from tests.unit.raft.replica_scene import (
    ready,
    tally,
    version,
)

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


def test_a_disk_of_a_moment_ago_is_noticed_by_who_was_not_acknowledged_to() -> None:
    """An entry on 1 and 2 only; 1 dies, 2 is restored from a copy. 3, which 2 never answered, must
    not make a majority with it."""
    with ready() as simulation:
        leader, (second, third) = simulation.leader_id, simulation.follower_ids
        simulation.run_until_equal()
        old_disk = simulation.processes[second].wal.crash()
        simulation.fabric.isolate(third, [leader])
        assert simulation.done(simulation.write(leader)).result.stat.version == 1
        simulation.run_for(0.3)
        disk = simulation.crash(leader)
        simulation.crash(second)
        simulation.start(second, old_disk)
        replica = simulation.replica(second)
        simulation.run_until(lambda: replica.node.memoryless, limit_s=1.0)
        simulation.run_for(10.0)
        assert simulation.leader is None, "without 1 nobody knows the entry"
        simulation.fabric.mend()
        simulation.start(leader, disk)
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
        fault = simulation.processes[strange].fault
        assert type(fault).__name__ == "DigestMismatchError"
        assert "stops" in str(fault) and "`coordsvc rejoin DATA_DIR`" in str(fault)
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
        origin = simulation.processes[second].network
        simulation.fabric._deliver(origin, network, 0, replica.term, Round(1, 0))
        assert type(process.fault).__name__ == "TwoLeadersError"


# ---------------------------------------------------------------------- all have given it up


def rejoin(simulation: Simulation, replica_ids: tuple[int, ...]) -> dict[int, ManualWal]:
    """What `coordsvc rejoin` does: nothing is left but the cluster's id. Returns what was there."""
    disks = {replica_id: simulation.crash(replica_id) for replica_id in replica_ids}
    for replica_id in replica_ids:
        simulation.start(replica_id, ManualWal())
    return disks


def test_a_cluster_whose_state_is_gone_does_not_begin_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ready() as simulation:
        simulation.done(simulation.write(1))
        simulation.run_until_equal()
        disks = rejoin(simulation, simulation.ids)
        simulation.run_for(60.0)
        assert simulation.leader is None
        assert not any(p.replica.is_ready or p.replica.term for p in simulation.processes.values())
        told = [r for r in caplog.records if r.message == "replica.nothing_left"]
        assert len(told) == 3, "each says so once"
        # One's folder is put back: all is there again.
        simulation.crash(2)
        simulation.start(2, disks[2])
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert [version(simulation, i) for i in simulation.ids] == [1, 1, 1]


def test_nor_with_one_that_knows_of_no_cluster() -> None:
    """The empty log of a new disk gets no vote from those that know better."""
    with ready() as simulation:
        simulation.done(simulation.write(1))
        rejoin(simulation, (1, 2))
        simulation.wipe(3)
        simulation.run_for(30.0)
        assert simulation.leader is None
        assert {p.replica.term for p in simulation.processes.values()} == {0}, "not even asked"
        # A vote that is asked for without asking whether it would be given is not given either.
        asker, asked = simulation.replica(3), simulation.replica(1)
        asker.node._campaign(simulation.clock.monotonic())
        simulation.run_until(lambda: asked.term == asker.term)
        simulation.run_for(0.5)
        assert asker.node.role != LEADER
        assert simulation.processes[1].wal.crash().recovered.voted_for is None


def test_two_that_gave_it_up_elect_the_one_that_has_it() -> None:
    with ready() as simulation:
        simulation.done(simulation.write(1))
        simulation.run_until_equal()
        rejoin(simulation, (1, 2))
        disk = simulation.crash(3)
        simulation.start(3, disk)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert [version(simulation, i) for i in simulation.ids] == [1, 1, 1]
