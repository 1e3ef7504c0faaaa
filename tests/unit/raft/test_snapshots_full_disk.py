"""Disks that do not take a snapshot: the leader's its copy, or the follower's what it is sent.

Goal: nobody stops for it, what was begun is let go of, and with room again the follower comes back.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from coordsvc.core.commands import DataSet
from coordsvc.raft.messages import SNAPSHOT_REFUSED, SnapshotAck, SnapshotOffer
from coordsvc.raft.snapshot_sender import RETRY_S_MAX
from coordsvc.testing.raft_simulation import Simulation
from tests.unit.raft.snapshot_scene import (
    SLOW,
    Traffic,
    filled,
    leader,
    receiving,
    until_halfway,
    until_installed,
)


def check_serving(simulation: Simulation, wiped: int) -> None:
    """The others go on, the log is not kept for the one that cannot be helped."""
    assert isinstance(simulation.done(simulation.write(simulation.leader_id)).result, DataSet)
    simulation.run_for(0.1)  # What was being tried is over.
    simulation.checkpoint(simulation.leader_id)
    simulation.run_for(0.1)
    assert leader(simulation).journal.base_index == leader(simulation).applied_index
    assert receiving(simulation, wiped) == 0


def test_a_leader_without_room_for_a_copy_tries_again_later() -> None:
    with filled() as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        outgoing = simulation.processes[first].port.outgoing
        outgoing.is_full = True
        simulation.wipe(wiped)
        simulation.run_until(lambda: len(outgoing.refused_at) >= 4)
        check_serving(simulation, wiped)
        waits = [b - a for a, b in itertools.pairwise(outgoing.refused_at[:4])]
        assert waits == pytest.approx([1.0, 2.0, 4.0], abs=0.1), "it gives the disk time"
        assert not outgoing.held
        outgoing.is_full = False
        until_installed(simulation)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert simulation.leader_id == first
        assert leader(simulation).statistics().leader_changes == 1


def test_it_never_waits_for_longer_than_a_minute() -> None:
    with filled() as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        outgoing = simulation.processes[first].port.outgoing
        outgoing.is_full = True
        simulation.wipe(wiped)
        simulation.run_until(lambda: len(outgoing.refused_at) >= 9, 400.0)
        waits = [b - a for a, b in itertools.pairwise(outgoing.refused_at)]
        assert waits[-1] == pytest.approx(RETRY_S_MAX, abs=0.1)


def test_after_a_copy_was_made_the_next_failure_is_a_first_one_again() -> None:
    with filled(settings=SLOW) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        outgoing = simulation.processes[first].port.outgoing
        outgoing.is_full = True
        simulation.wipe(wiped)
        simulation.run_until(lambda: len(outgoing.refused_at) >= 4)
        outgoing.is_full = False
        until_installed(simulation)
        simulation.run_until_ready()
        outgoing.is_full = True
        simulation.done(simulation.write(first))
        simulation.checkpoint(first)
        simulation.run_for(0.1)
        simulation.wipe(wiped)
        before = len(outgoing.refused_at)
        simulation.run_until(lambda: len(outgoing.refused_at) >= before + 2)
        first_wait = outgoing.refused_at[before + 1] - outgoing.refused_at[before]
        assert first_wait == pytest.approx(1.0, abs=0.1)


def test_a_copy_that_cannot_be_read_is_made_again() -> None:
    with filled(settings=SLOW) as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        outgoing = simulation.processes[first].port.outgoing
        simulation.wipe(wiped)
        until_halfway(simulation, wiped)
        outgoing.is_unreadable = True
        simulation.run_until(lambda: not outgoing.held)
        outgoing.is_unreadable = False
        assert simulation.disks[first].dropped == 1
        until_installed(simulation)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert (simulation.disks[first].made, simulation.leader_id) == (2, first)


@pytest.mark.parametrize("step", ["begin", "write", "verify"])
def test_a_follower_without_room_refuses_follows_on_and_is_sent_it_again(
    step: str, caplog: pytest.LogCaptureFixture
) -> None:
    with filled() as simulation:
        wiped, first = simulation.follower_ids[0], simulation.leader_id
        traffic = Traffic(simulation)

        def fill_up(process: Any) -> None:
            if process.replica.replica_id == wiped:
                process.port.incoming.full_at = {step}

        simulation.on_start = fill_up
        simulation.wipe(wiped)
        process = simulation.processes[wiped]
        steps = process.port.incoming.steps
        simulation.run_until(lambda: steps.count("refused") >= 3)
        check_serving(simulation, wiped)
        assert simulation.processes[wiped] is process, "it runs on"
        assert process.replica.has_quorum and process.replica.node.elections_started == 0
        refusals = [ack for ack in traffic.of(SnapshotAck) if ack.status == SNAPSHOT_REFUSED]
        assert len(refusals) == len(traffic.of(SnapshotOffer)) == 3, "one offer for each try"
        assert [r.message for r in caplog.records].count("snapshot.refused") == 3
        assert not simulation.processes[first].port.outgoing.held, "no room is taken for it"
        assert leader(simulation).statistics().snapshots_sent == 0
        process.port.incoming.full_at.clear()
        until_installed(simulation)
        simulation.run_until_ready()
        simulation.run_until_equal()
        assert simulation.leader_id == first


def test_one_without_room_does_not_keep_another_one_waiting() -> None:
    with filled(5) as simulation:
        full, other = simulation.follower_ids[:2]

        def fill_up(process: Any) -> None:
            if process.replica.replica_id == full:
                process.port.incoming.full_at = {"write"}

        simulation.on_start = fill_up
        simulation.wipe(full)
        steps = simulation.processes[full].port.incoming.steps
        simulation.run_until(lambda: steps.count("refused") >= 4)
        simulation.wipe(other)
        start = simulation.loop.now
        until_installed(simulation)
        assert simulation.loop.now - start < 2.0
        simulation.run_until(lambda: simulation.replica(other).is_ready)
        assert not simulation.replica(full).is_ready
