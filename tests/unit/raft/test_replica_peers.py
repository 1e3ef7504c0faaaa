"""Whole replicas, in simulated time: what they tell each other, and what they all hold.

Method: `Simulation`.
"""

from __future__ import annotations

from typing import Any

from coordsvc.core.commands import (
    APPLIED,
    NO_CALLER,
    Created,
    CreateOp,
    Write,
)
from coordsvc.raft.messages import Message, Touch
from tests.unit.raft.replica_scene import (
    ready,
    version,
)


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


def test_a_long_backlog_is_applied_in_slices() -> None:
    """Peers and timers are served in between: no turn takes more than a few milliseconds."""
    with ready() as simulation:
        follower = simulation.follower_ids[0]
        disk = simulation.crash(follower)
        for _ in range(100):
            simulation.done(simulation.write(simulation.leader_id))
        process = simulation.start(follower, disk)
        apply_entry, turns = process.machine.apply_entry, []

        def apply_slowly(*args: Any) -> Any:
            simulation.loop.now += 0.001
            return apply_entry(*args)

        process.machine.apply_entry = apply_slowly  # type: ignore[method-assign]
        process.replica.hooks.on_turn = lambda now: turns.append(process.replica.applied_index)
        simulation.run_until(lambda: process.replica.is_ready)
        steps = [after - before for before, after in zip(turns, turns[1:], strict=False)]
        assert sum(steps) >= 100 and max(steps) <= 6
        assert version(simulation, follower) == 100


def test_a_write_larger_than_an_entry_is_refused_and_a_large_one_passes() -> None:
    sizes = {"entry_bytes_max": 4096, "append_bytes_max": 8192, "snapshot_chunk_bytes": 8192}
    with ready(settings=sizes) as simulation:
        large = Write(NO_CALLER, CreateOp("/large", b"x" * 3900))
        assert isinstance(simulation.done(simulation.submit(2, large)).result, Created)
        simulation.run_until_equal()
        too_large = simulation.submit(2, Write(NO_CALLER, CreateOp("/too", b"x" * 4200)))
        assert too_large.exception() is not None
