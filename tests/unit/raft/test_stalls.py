"""A process that stood still judges nobody before it has read what waits in its sockets.

Goal: one's own stall is nobody else's silence; yet stalls put nothing off for ever. Method: real
nodes on a manual clock that jumps.
"""

from __future__ import annotations

from coordsvc.raft.messages import (
    AppendReply,
    PreVote,
)
from coordsvc.raft.node import STALL_S
from coordsvc.testing.raft_harness import RaftCluster
from tests.unit.raft.raft_scene import ask, heartbeat_of, settled


def test_a_follower_that_stood_still_reads_before_it_judges() -> None:
    cluster = settled()
    node = cluster.hosts[2].node
    cluster.clock.now += 10.0
    node.tick(cluster.clock.now)
    assert cluster.take(PreVote, source=2) == [], "its sockets may be full of heartbeats"
    node.receive(1, 1, heartbeat_of(cluster.hosts[1]), cluster.clock.now)
    for _ in range(50):
        cluster.clock.now += 0.02
        node.tick(cluster.clock.now)
    assert cluster.take(PreVote, source=2) == []


def test_a_follower_that_stood_still_judges_when_nothing_was_said() -> None:
    cluster = settled()
    node = cluster.hosts[2].node
    cluster.clock.now += 10.0
    node.tick(cluster.clock.now)
    for _ in range(10):
        cluster.clock.now += 0.02
        node.tick(cluster.clock.now)
    assert cluster.take(PreVote, source=2) != []


def test_a_leader_that_stood_still_hears_its_followers_first() -> None:
    cluster = settled()
    leader = cluster.hosts[1]
    cluster.clock.now += 10.0
    leader.node.tick(cluster.clock.now)
    assert leader.node.is_leader
    for peer in (2, 3):
        reply = AppendReply(True, leader.journal.last_index + 1, False)
        leader.node.receive(peer, 1, reply, cluster.clock.now)
    for _ in range(20):
        cluster.clock.now += 0.02
        leader.node.tick(cluster.clock.now)
    assert leader.node.is_leader


def test_a_leader_that_stood_still_and_hears_nobody_steps_down() -> None:
    cluster = settled()
    leader = cluster.hosts[1]
    cluster.clock.now += 10.0
    leader.node.tick(cluster.clock.now)
    for _ in range(10):
        cluster.clock.now += 0.02
        leader.node.tick(cluster.clock.now)
    assert not leader.node.is_leader


def test_ones_own_stall_is_not_the_leaders_silence() -> None:
    cluster = settled()
    cluster.clock.now += 5.0
    cluster.hosts[2].node.tick(cluster.clock.now)
    assert not ask(cluster, 2, 3)


def test_stalls_again_and_again_do_not_keep_a_dead_leader_alive() -> None:
    """All the forgiveness for one's own stalls adds up to one election timeout at most."""
    cluster = settled()
    node = cluster.hosts[2].node
    silent = 0.0
    while silent < 2 * node.settings.election_timeout_s_min + 1.0:
        for pause in (2 * STALL_S, 0.02, 0.02, 0.02):
            cluster.clock.now += pause
            silent += pause
            node.tick(cluster.clock.now)
    assert ask(cluster, 2, 3), f"the leader has said nothing for {silent:.1f} s"


def test_a_stall_at_the_start_postpones_nobodys_election() -> None:
    """Nobody has led yet, so nobody's silence is to be forgiven."""
    cluster = RaftCluster(3)
    for host in cluster.up:
        host.node.tick(cluster.clock.now)
    cluster.clock.now += 3 * STALL_S
    for host in cluster.up:
        host.node.tick(cluster.clock.now)
    assert cluster.run_until(lambda: bool(cluster.leaders)) < 0.8
