"""Faults of the network."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from coordsvc.testing.namespaces import HUB
from tests.chaos.lone_client import LoneClient
from tests.chaos.world import World

SILENT_SECONDS_MAX = 2.0
"""After this a leader without its followers answers nothing that takes a majority."""


@contextlib.contextmanager
def isolated_leader(world: World, *, from_clients: bool = True) -> Iterator[str]:
    """From the others, and from the clients; it leads nobody soon, and another one leads."""
    leader = world.leader()
    others = world.others(leader)
    term = world.term(leader)
    endpoint = world.cluster.replicas[leader].endpoint
    with LoneClient(world.network, leader, endpoint) as client:
        client.wait_answered(time.monotonic() - SILENT_SECONDS_MAX)
        with _healed_after(world), world.told("isolated leader", leader) as what:
            world.network.cut_groups([leader], [*others, HUB] if from_clients else others)
            cut_at = time.monotonic()
            world.wait_new_leader(others, term)
            world.wait_no_quorum(leader)
            for other in others:
                world.wait_dropped((leader, other), (other, leader))
            if from_clients:
                world.wait_dropped((HUB, leader))
            yield what
            world.wait_served()
            client.wait_refused(cut_at + SILENT_SECONDS_MAX)
            silent_after = client.last_answered() - cut_at
            assert silent_after <= SILENT_SECONDS_MAX, silent_after
            print(f"it answered for {max(silent_after, 0.0):.2f} s")
        client.wait_answered(time.monotonic())


def isolated_from_peers(world: World) -> contextlib.AbstractContextManager[str]:
    """As before, but the clients go on to reach it."""
    return isolated_leader(world, from_clients=False)


@contextlib.contextmanager
def minority(world: World) -> Iterator[str]:
    """The leader and, of five, one more are parted from the others. Clients reach all."""
    leader = world.leader()
    few = [leader, *world.others(leader)][: (len(world.cluster.ids) - 1) // 2]
    many = world.others(*few)
    term = world.term(leader)
    with _healed_after(world), world.told("minority", *few) as what:
        world.network.cut_groups(few, many)
        world.wait_new_leader(many, term)
        for one in few:
            world.wait_no_quorum(one)
        world.wait_dropped(*((leader, other) for other in many))
        yield what
        world.wait_served()


@contextlib.contextmanager
def bridge(world: World) -> Iterator[str]:
    """Two halves that only one replica, in both of them, sees. The leader is in one half: those of
    the other do not hear it, and are not to take the lead for nothing again and again."""
    leader = world.leader()
    middle, *rest = world.others(leader)
    half = (len(rest) - 1) // 2 + 1 if len(rest) > 1 else len(rest)
    left, right = [leader, *rest[half:]], rest[:half]
    term = world.term(leader)
    with _healed_after(world), world.told("bridge", middle, left=left, right=right) as what:
        world.network.cut_groups(left, right)
        world.wait_dropped(*((leader, other) for other in right))
        for one in right:
            world.wait_no_quorum(one)
        yield what
        world.wait_served()
        terms = [world.term(replica_id) for replica_id in world.cluster.ids]
        assert world.cluster.is_leader(leader) and set(terms) == {term}, terms


@contextlib.contextmanager
def mute_leader(world: World) -> Iterator[str]:
    """What it sends to the others does not arrive; what they send does."""
    leader = world.leader()
    others = world.others(leader)
    term = world.term(leader)
    with _healed_after(world), world.told("mute leader", leader) as what:
        for other in others:
            world.network.block(leader, other)
        world.wait_dropped(*((leader, other) for other in others))
        world.wait_new_leader(others, term)
        world.wait_no_quorum(leader)
        yield what
        world.wait_served()


@contextlib.contextmanager
def deaf_leader(world: World) -> Iterator[str]:
    """What the others send to it does not arrive; what it sends does, as far as TCP goes on
    without acknowledgements."""
    leader = world.leader()
    others = world.others(leader)
    term = world.term(leader)
    with _healed_after(world), world.told("deaf leader", leader) as what:
        for other in others:
            world.network.block(other, leader)
        world.wait_dropped(*((other, leader) for other in others))
        world.wait_new_leader(others, term)
        world.wait_no_quorum(leader)
        yield what
        world.wait_served()


@contextlib.contextmanager
def half_heard_follower(world: World) -> Iterator[str]:
    """The leader does not hear one follower; its clients, and the other one, do. It is not to
    bring the leader down."""
    leader = world.leader()
    follower = world.follower()
    term = world.term(leader)
    with _healed_after(world), world.told("half heard follower", follower) as what:
        world.network.block(follower, leader)
        world.wait_dropped((follower, leader))
        world.wait_no_quorum(follower)
        yield what
        world.wait_served()
        assert world.cluster.is_leader(leader) and world.term(leader) == term, world.leader()


@contextlib.contextmanager
def _healed_after(world: World) -> Iterator[None]:
    try:
        yield
    finally:
        world.network.heal()
