"""A settled cluster, and how tests of elections ask, silence and speak for a leader."""

from __future__ import annotations

from coordsvc.raft.messages import (
    AppendEntries,
    PreVote,
    PreVoteReply,
)
from coordsvc.testing.raft_harness import RaftCluster, RaftHost


def settled(size: int = 3, leader: int = 1, seed: int = 0) -> RaftCluster:
    cluster = RaftCluster(size, seed=seed)
    cluster.elect(leader)
    cluster.run(0.5)
    return cluster


def heartbeat_of(host: RaftHost) -> AppendEntries:
    journal = host.journal
    return AppendEntries(journal.last_index, journal.last_term, host.node.commit_index, ())


def ask(cluster: RaftCluster, voter: int, candidate: int, **changes: int) -> bool:
    """Whether `voter` would vote for `candidate`."""
    journal = cluster.hosts[candidate].journal
    question = {
        "attempt": 1,
        "next_term": cluster.hosts[candidate].node.term + 1,
        "last_index": journal.last_index,
        "last_term": journal.last_term,
    }
    cluster.frames.clear()
    host = cluster.hosts[voter]
    term = cluster.hosts[candidate].node.term
    host.node.receive(candidate, term, PreVote(**(question | changes)), cluster.clock.now)
    (frame,) = cluster.take(PreVoteReply, source=voter, target=candidate)
    assert isinstance(frame.message, PreVoteReply)
    return frame.message.granted


def silence(cluster: RaftCluster, seconds: float) -> None:
    """Nobody hears anything, and no replica stands still."""
    end = cluster.clock.now + seconds
    while cluster.clock.now < end:
        cluster.clock.now += 0.05
        for host in cluster.up:
            host.node.tick(cluster.clock.now)
        cluster.frames.clear()
