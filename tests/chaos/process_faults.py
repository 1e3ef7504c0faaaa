"""Faults of processes: stopped, killed, robbed of their data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from coordsvc.testing.cluster import wait_for
from tests.chaos.world import World

SMALL_LOG = {"checkpoint_entries": 200, "checkpoint_interval_s": 1, "log_keep_bytes": 4096}
"""Checkpoints so often that a replica with nothing can only come back by a snapshot."""


@contextlib.contextmanager
def paused_leader(world: World) -> Iterator[str]:
    """SIGSTOP until another one leads; then it runs on, and believes that it leads."""
    leader = world.leader()
    term = world.term(leader)
    with world.told("paused", leader) as what:
        world.cluster.pause(leader)
        try:
            world.wait_new_leader(world.others(leader), term)
            yield what
            world.wait_served()
        finally:
            world.cluster.resume(leader)
        wait_for(lambda: world.term(leader) > term, "it to follow")


@contextlib.contextmanager
def paused_follower(world: World) -> Iterator[str]:
    """SIGSTOP; its clients find another one."""
    leader, follower = world.leader(), world.follower()
    with world.told("paused", follower) as what:
        world.cluster.pause(follower)
        try:
            yield what
            world.wait_served()
            assert world.cluster.is_leader(leader)
        finally:
            world.cluster.resume(follower)


@contextlib.contextmanager
def killed_leader(world: World) -> Iterator[str]:
    leader = world.leader()
    term = world.term(leader)
    with world.told("killed", leader) as what:
        world.cluster.kill(leader)
        world.wait_new_leader(world.others(leader), term)
        yield what
        world.wait_served()
        world.cluster.start_replica(leader)


@contextlib.contextmanager
def killed_follower(world: World) -> Iterator[str]:
    follower = world.follower()
    with world.told("killed", follower) as what:
        world.cluster.kill(follower)
        yield what
        world.wait_served()
        world.cluster.start_replica(follower)


@contextlib.contextmanager
def all_killed(world: World) -> Iterator[str]:
    """At once, and all are started again."""
    ids = world.cluster.ids
    with world.told("killed", *ids) as what:
        world.cluster.kill_all()
        assert not any(world.cluster.is_running(i) for i in ids)
        yield what
        world.cluster.start()


@contextlib.contextmanager
def wiped_follower(world: World) -> Iterator[str]:
    """Killed, its data directory deleted; it is given everything anew, by a snapshot."""
    follower = world.follower()
    with world.told("wiped", follower) as what:
        world.cluster.kill(follower)
        world.cluster.wipe(follower)
        yield what
        world.wait_served()
        _wait_log_let_go(world)
        rebuilt = len(world.cluster.events(follower, "replica.rebuilt"))
        world.cluster.start_replica(follower)
        _wait_rebuilt(world, follower, rebuilt + 1)


@contextlib.contextmanager
def rejoined_leader(world: World) -> Iterator[str]:
    """As before, but its data is set aside by `coordsvc rejoin`."""
    leader = world.leader()
    with world.told("rejoined", leader) as what:
        world.cluster.kill(leader)
        said = world.cluster.rejoin(leader)
        assert "set aside" in said, said
        yield what
        world.wait_served()
        _wait_log_let_go(world)
        rebuilt = len(world.cluster.events(leader, "replica.rebuilt"))
        world.cluster.start_replica(leader)
        _wait_rebuilt(world, leader, rebuilt + 1)


def _wait_rebuilt(world: World, replica_id: int, times: int) -> None:
    wait_for(
        lambda: len(world.cluster.events(replica_id, "replica.rebuilt")) >= times,
        f"replica {replica_id} to be rebuilt",
        40.0,
    )


def _wait_log_let_go(world: World) -> None:
    """Until the leader has a checkpoint, and not the log from the beginning on."""
    leader = world.leader()
    wait_for(lambda: world.cluster.metric(leader, "coordsvc_checkpoint_index") > 1, "a checkpoint")
