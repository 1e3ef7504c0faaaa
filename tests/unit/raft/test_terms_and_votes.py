"""Terms, votes and the transfer of leadership, on a manual clock."""

from __future__ import annotations

import pytest

from coordsvc.raft.adapter import CANDIDATE, FOLLOWER
from coordsvc.raft.messages import (
    AppendEntries,
    AppendReply,
    Message,
    PeerProtocolError,
    PreVote,
    PreVoteReply,
    RequestVote,
    ResponseVote,
    Round,
    TermNotice,
    TimeoutNow,
)
from coordsvc.raft.node import RETRY_S, TwoLeadersError
from coordsvc.testing.manual_wal import voter_wal
from coordsvc.testing.raft_harness import RaftCluster, RaftHost
from tests.unit.raft.raft_scene import heartbeat_of, settled, silence

# ---------------------------------------------------------------------- terms


@pytest.mark.parametrize("size", [3, 5])
def test_a_leader_that_sees_a_higher_term_is_replaced_at_once(size: int) -> None:
    """3 campaigned while nobody heard it. It refuses the leader's messages from then on, and
    pre-vote keeps it from leading: so the leader gives way, and somebody leads in its term. Those
    who heard the old leader a moment ago need not wait: nobody can follow it any more."""
    for seed in range(10):
        cluster = settled(size, seed=seed)
        cluster.hosts[3].node.set_term(5, "3")
        took = cluster.run_until(
            lambda c=cluster: any(h.node.term > 5 for h in c.leaders)  # type: ignore[misc]
        )
        assert took < 0.5, f"seed {seed}: nobody led for {took:.2f} s"
        cluster.run(0.2)
        assert cluster.settled and len(cluster.leaders) == 1


def test_a_deposed_leader_campaigns_soon_but_not_at_the_same_instant_as_others() -> None:
    cluster = settled()
    node = cluster.hosts[1].node
    node.receive(2, 9, TermNotice(), cluster.clock.now)
    assert not node.is_leader
    assert RETRY_S[0] <= node.election_deadline - cluster.clock.now <= RETRY_S[1]


@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(1, 0, 1, ()),
        RequestVote(9, 9),
        PreVote(1, 9, 9, 9),
        TimeoutNow(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_of_a_lower_term_is_answered_with_ones_own(message: Message) -> None:
    cluster = settled()
    node = cluster.hosts[2].node
    node.set_term(4, None)
    cluster.hosts[2].wal.sync_all()
    cluster.frames.clear()
    node.receive(3, 3, message, cluster.clock.now)
    assert [(f.target, f.term, f.message) for f in cluster.frames] == [(3, 4, TermNotice())]
    assert node.term == 4 and cluster.hosts[2].journal.getVotedForNodeId() is None


@pytest.mark.parametrize(
    "message",
    [
        TermNotice(),
        AppendReply(True, 9, False),
        ResponseVote(False),
        PreVoteReply(1, True, False),
    ],
    ids=lambda message: type(message).__name__,
)
def test_an_answer_of_a_lower_term_is_not_answered(message: Message) -> None:
    """Two replicas would go on telling each other."""
    cluster = settled()
    leader = cluster.hosts[1]
    leader.node.set_term(4, None)
    leader.wal.sync_all()
    cluster.frames.clear()
    before = [leader.node.match_index(peer) for peer in (2, 3)]
    leader.node.receive(2, 3, message, cluster.clock.now)
    assert cluster.frames == []
    assert [leader.node.match_index(peer) for peer in (2, 3)] == before


def test_a_second_leader_in_ones_own_term_is_fatal() -> None:
    cluster = settled()
    leader = cluster.hosts[1]
    with pytest.raises(TwoLeadersError, match="replicas 1 and 2 both lead in term 1"):
        leader.node.receive(2, 1, heartbeat_of(leader), cluster.clock.now)


def test_a_candidate_gives_way_to_the_leader_of_its_term() -> None:
    cluster = settled()
    host = cluster.hosts[2]
    host.node.set_term(2, "2")
    host.node.role = CANDIDATE
    host.node.receive(3, 2, heartbeat_of(cluster.hosts[3]), cluster.clock.now)
    assert (host.node.role, host.node.leader_id) == (FOLLOWER, 3)


# ---------------------------------------------------------------------- votes
def candidate(size: int) -> tuple[RaftCluster, RaftHost]:
    """Replica 1 has asked all for their votes in term 1; none has answered."""
    cluster = RaftCluster(size)
    host = cluster.hosts[1]
    host.node.transfer_in_progress = True
    host.node.election_deadline = cluster.clock.now
    host.node.tick(cluster.clock.now)
    host.wal.sync_all()
    assert host.node.role == CANDIDATE
    return cluster, host


def test_a_voter_counts_once() -> None:
    cluster, host = candidate(5)
    for _ in range(3):
        host.node.receive(2, 1, ResponseVote(False), cluster.clock.now)
    assert not host.node.is_leader
    host.node.receive(3, 1, ResponseVote(False), cluster.clock.now)
    assert host.node.is_leader


def test_a_stranger_has_no_vote() -> None:
    cluster, host = candidate(3)
    with pytest.raises(PeerProtocolError, match="replica 9 is no member"):
        host.node.receive(9, 1, ResponseVote(False), cluster.clock.now)
    assert not host.node.is_leader


def test_the_vote_of_one_in_doubt_counts_only_with_everybodys() -> None:
    cluster, host = candidate(3)
    host.node.receive(2, 1, ResponseVote(True), cluster.clock.now)
    assert not host.node.is_leader
    host.node.receive(3, 1, ResponseVote(False), cluster.clock.now)
    assert host.node.is_leader


# ---------------------------------------------------------------------- leadership transfer


def test_a_transfer_needs_no_pre_vote() -> None:
    cluster = settled()
    assert cluster.leader.node.transfer_to(2)
    cluster.frames = [f for f in cluster.frames if isinstance(f.message, TimeoutNow)]
    took = cluster.run_until(lambda: cluster.leader.replica_id == 2)
    assert took < 0.1
    assert cluster.leader.node.term == 2


def test_a_transfer_goes_to_one_that_holds_everything_only() -> None:
    cluster = settled()
    cluster.unlink(1, 3)
    cluster.write()
    cluster.pump()
    leader = cluster.leader.node
    assert not leader.transfer_to(3)
    assert leader.best_successor() == 2
    leader.peer_memoryless.add(2)
    assert leader.best_successor() is None
    assert not cluster.hosts[2].node.transfer_to(1), "only a leader hands over"


def test_only_the_leader_can_ask_one_to_take_over() -> None:
    cluster = settled()
    cluster.hosts[2].node.receive(3, 1, TimeoutNow(), cluster.clock.now)
    assert not cluster.hosts[2].node.transfer_in_progress


def test_a_transfer_is_worth_one_attempt() -> None:
    cluster = settled()
    host = cluster.hosts[2]
    host.node.receive(1, 1, TimeoutNow(), cluster.clock.now)
    cluster.isolate(2)
    host.node.tick(cluster.clock.now)
    assert host.node.term == 2
    silence(cluster, 10.0)
    assert host.node.term == 2, "the next attempts ask first"


def test_a_transfer_to_one_in_doubt_leaves_no_mark() -> None:
    """It may not campaign unless all are linked; when they are, it must ask like anybody."""
    cluster = settled()
    host = cluster.hosts[2]
    host.node.memoryless = True
    cluster.unlink(2, 3)
    host.node.receive(1, 1, TimeoutNow(), cluster.clock.now)
    cluster.run(1.0)
    cluster.link(2, 3)
    cluster.run(5.0)
    assert (cluster.leader.replica_id, cluster.leader.node.term) == (1, 1)


# ---------------------------------------------------------------------- the rest of a life


def test_rounds_count_as_the_leaders_voice() -> None:
    """A leader whose log is stuck behind a full window still leads."""
    cluster = settled()
    host = cluster.hosts[2]
    for _ in range(100):
        cluster.clock.now += 0.05
        assert host.node.admit(1, 1, Round(1, 0), cluster.clock.now)
        host.node.follow(1, cluster.clock.now)
        host.node.tick(cluster.clock.now)
    assert cluster.take(PreVote, source=2) == []


def test_terms_and_votes_outlive_a_restart() -> None:
    cluster = settled()
    cluster.hosts[2].node.receive(3, 7, RequestVote(50, 7), cluster.clock.now)
    cluster.hosts[2].wal.sync_all()
    host = cluster.restart(2)
    assert host.node.term == 7
    assert host.journal.getVotedForNodeId() == "3"
    cluster.link_all()
    cluster.frames.clear()
    host.node.receive(1, 7, RequestVote(60, 7), cluster.clock.now)
    host.wal.sync_all()
    assert cluster.take(ResponseVote, source=2) == []


def test_a_new_disk_begins_in_doubt() -> None:
    cluster = RaftCluster(3, memoryless=(2,))
    assert [host.node.memoryless for host in cluster.up] == [False, True, False]
    assert voter_wal().recovered.voter
