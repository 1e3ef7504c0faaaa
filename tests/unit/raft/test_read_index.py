"""What a leader knows is committed, and when it may say so to a reader.

`test_reads.py` holds the asking side; here are whole replicas whose disks the test holds.
"""

from __future__ import annotations

from tests.unit.raft.replica_scene import ready, version


def test_a_new_leader_that_cannot_commit_yet_answers_no_read() -> None:
    """Its followers confirm that it leads without any disk; what its predecessor had committed it
    learns only with its own first entry, which waits for the disks."""
    with ready() as simulation:
        first, others = simulation.leader_id, simulation.follower_ids
        writes = [simulation.write(first) for _ in range(10)]
        simulation.run_until(lambda: all(write.done() for write in writes))
        assert all(write.exception() is None for write in writes)
        simulation.crash(first)
        simulation.run_until(lambda: any(simulation.replica(i).node.is_leader for i in others))
        simulation.held_disks.update(others)
        leader = next(i for i in others if simulation.replica(i).node.is_leader)
        known = simulation.replica(leader).commit_index
        read = simulation.replica(leader).read_index(simulation.loop.now + 5.0)
        simulation.run_for(0.2)
        assert simulation.replica(leader).leader_confirmed_age() < 0.2
        assert simulation.replica(leader).commit_index == known
        assert not read.done(), f"a read sees {version(simulation, leader)} of 10 writes answered"
        for replica_id in others:
            simulation.release_disk(replica_id)
        simulation.done(read)
        assert version(simulation, leader) == 10
