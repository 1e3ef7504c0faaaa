"""Who leads, when, and who must not.

Goal: elections start when they must and only then, and a replica in doubt about its memory decides
nothing alone. Method: real nodes on a manual clock; links and disks behave unless told otherwise.
"""

from __future__ import annotations

import statistics

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
from coordsvc.raft.node import AFTER_STALL_S, STALL_S, TwoLeadersError
from coordsvc.testing.raft_harness import RaftCluster, RaftHost, voter_wal


def settled(size: int = 3, leader: int = 1, seed: int = 0) -> RaftCluster:
    cluster = RaftCluster(size, seed=seed)
    cluster.elect(leader)
    cluster.run(0.5)
    return cluster


def heartbeat_of(host: RaftHost) -> AppendEntries:
    journal = host.journal
    return AppendEntries(journal.last_index, journal.last_term, host.node.commit_index, ())


# ---------------------------------------------------------------------- first election


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_a_new_cluster_elects_soon(size: int, seed: int) -> None:
    cluster = RaftCluster(size, seed=seed, memoryless=range(1, size + 1))
    assert cluster.run_until(lambda: bool(cluster.leaders)) < 3.0
    cluster.run(0.1)
    assert cluster.settled
    assert len(cluster.leaders) == 1


def test_a_new_cluster_needs_all_its_members() -> None:
    """The first entry names the cluster: two halves must not both begin one."""
    cluster = RaftCluster(3, memoryless=(1, 2, 3), is_linked=False)
    cluster.link(1, 2)
    cluster.run(20.0)
    assert [host.node.term for host in cluster.up] == [0, 0, 0]
    cluster.link_all()
    assert cluster.run_until(lambda: bool(cluster.leaders)) < 4.0


def test_a_single_replica_leads_at_once() -> None:
    cluster = RaftCluster(1)
    cluster.tick()
    assert cluster.leader.node.is_leader


# ---------------------------------------------------------------------- a leader is lost


def test_a_broken_connection_to_the_leader_elects_in_tens_of_milliseconds() -> None:
    times = []
    for seed in range(30):
        cluster = settled(seed=seed)
        cluster.crash(1)
        times.append(cluster.run_until(lambda c=cluster: bool(c.leaders)))  # type: ignore[misc]
    assert statistics.median(times) < 0.1
    assert max(times) < 1.0, "a split vote costs another attempt, not a timeout"


def test_a_silent_leader_is_replaced_after_the_election_timeout() -> None:
    cluster = settled()
    cluster.hosts[1].is_up = False  # Its connections stand, it says nothing.
    took = cluster.run_until(lambda: any(h.node.is_leader for h in cluster.up))
    low, high = 1.0, 1.6
    assert low - 0.1 <= took <= high + 1.0


def test_a_follower_that_alone_lost_the_leader_changes_nothing() -> None:
    cluster = settled()
    cluster.unlink(1, 3)
    cluster.run(10.0)
    assert [host.node.term for host in cluster.up] == [1, 1, 1]
    assert cluster.leader.replica_id == 1
    cluster.link(1, 3)
    cluster.run(0.3)
    assert cluster.hosts[3].node.leader_id == 1


def test_who_was_cut_off_comes_back_without_deposing_anybody() -> None:
    cluster = settled()
    cluster.isolate(3)
    cluster.run(20.0)
    assert cluster.hosts[3].node.term == 1, "it asked first, and nobody answered"
    cluster.link_all()
    cluster.run(3.0)
    assert (cluster.leader.replica_id, cluster.leader.node.term) == (1, 1)
    assert cluster.hosts[1].roles[-1][1] != FOLLOWER


def test_who_is_alone_for_hours_keeps_asking() -> None:
    """Every attempt doubles the wait up to the election timeout, however many there were."""
    cluster = settled()
    cluster.isolate(3)
    node = cluster.hosts[3].node
    for _ in range(3000):
        cluster.clock.now = max(node.election_deadline, cluster.clock.now)
        node.tick(cluster.clock.now)  # Late ticks look like stalls and judge nobody,
        cluster.clock.now += AFTER_STALL_S
        node.tick(cluster.clock.now)  # so a second one follows.
        wait = node.election_deadline - cluster.clock.now
        assert 0.0 < wait <= node.settings.election_timeout_s_max


def test_a_leader_without_majority_steps_down_and_draws_a_new_deadline() -> None:
    cluster = settled()
    leader = cluster.hosts[1]
    cluster.isolate(1)
    start = cluster.clock.now
    cluster.run_until(lambda: not leader.node.is_leader)
    settings = leader.node.settings
    assert cluster.clock.now - start <= settings.leader_fallback_s + 0.2
    assert leader.node.leader_id is None
    wait = leader.node.election_deadline - cluster.clock.now
    assert settings.election_timeout_s_min - 0.02 <= wait <= settings.election_timeout_s_max


def test_a_leader_with_a_majority_stays() -> None:
    cluster = settled(5)
    cluster.isolate(4)
    cluster.isolate(5)
    cluster.run(10.0)
    assert (cluster.leader.replica_id, cluster.leader.node.term) == (1, 1)


# ---------------------------------------------------------------------- pre-vote


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


def test_who_hears_the_leader_would_not_vote() -> None:
    cluster = settled()
    assert not ask(cluster, 2, 3)
    assert not ask(cluster, 1, 3), "nor would the leader"


def test_who_has_not_heard_the_leader_for_the_timeout_would_vote() -> None:
    cluster = settled()
    silence(cluster, 0.8)
    assert not ask(cluster, 2, 3)
    silence(cluster, 0.3)
    assert ask(cluster, 2, 3)


def test_who_lost_its_connection_to_the_leader_would_vote_at_once() -> None:
    cluster = settled()
    assert not ask(cluster, 2, 3)
    cluster.unlink(1, 2)
    assert ask(cluster, 2, 3)


def test_nobody_would_vote_for_a_log_that_is_behind() -> None:
    cluster = settled()
    cluster.unlink(1, 2)
    last = cluster.hosts[3].journal.last_index
    assert not ask(cluster, 2, 3, last_index=last - 1)
    assert not ask(cluster, 2, 3, last_term=0, last_index=last + 5)
    assert ask(cluster, 2, 3, last_index=last)


def test_asking_changes_nobodys_term() -> None:
    cluster = settled()
    cluster.unlink(1, 2)
    ask(cluster, 2, 3)
    assert cluster.hosts[2].node.term == 1
    assert cluster.hosts[2].journal.getVotedForNodeId() == "1"


def test_answers_to_an_earlier_question_do_not_count() -> None:
    cluster = settled()
    cluster.isolate(1)
    node = cluster.hosts[2].node
    while not cluster.take(PreVote, source=2):
        cluster.clock.now += 0.005
        node.tick(cluster.clock.now)
    node.receive(3, node.term, PreVoteReply(0, True, False), cluster.clock.now)
    assert node.role == FOLLOWER


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


# ---------------------------------------------------------------------- memory in doubt


def test_a_wiped_replica_does_not_elect_what_lost_an_entry() -> None:
    """An entry is on 1 and 2; 2 is wiped; 1 dies. 3 and an empty 2 must not go on without it."""
    cluster = settled()
    cluster.isolate(3)
    index = cluster.write(b"precious")
    cluster.run(0.2)
    assert cluster.hosts[2].node.commit_index == index
    cluster.wipe(2)
    disk = cluster.crash(1)
    cluster.link_all(forgotten=[2])
    cluster.run(30.0)
    assert cluster.leaders == []
    assert max(cluster.hosts[i].node.term for i in (2, 3)) == 1, "it stands still"
    cluster.start(1, disk)
    cluster.link_all()
    cluster.run_until(lambda: bool(cluster.leaders) and cluster.settled)
    for host in cluster.up:
        assert host.journal.record(index)[0].endswith(b"precious")


def test_one_in_doubt_never_campaigns_while_a_member_is_missing() -> None:
    cluster = settled()
    cluster.hosts[2].node.memoryless = True
    cluster.isolate(2)
    cluster.link(2, 3)
    silence(cluster, 10.0)
    assert cluster.hosts[2].node.elections_started == 0
    assert cluster.hosts[2].node.term == 1


def test_one_in_doubt_does_not_make_a_majority_for_commits() -> None:
    cluster = settled()
    cluster.wipe(2)
    cluster.link_all(forgotten=[2])
    cluster.run(0.3)
    assert cluster.leader.node.match_index(2) == cluster.leader.journal.last_index
    cluster.isolate(3)
    before = cluster.leader.node.commit_index
    cluster.write()
    cluster.run(0.5)
    assert cluster.hosts[1].node.commit_index == before
    cluster.hosts[2].node.memoryless = False
    cluster.run(0.5)
    assert cluster.hosts[1].node.commit_index == before + 1


def test_a_leader_does_not_count_one_in_doubt_as_its_majority() -> None:
    cluster = settled()
    cluster.wipe(2)
    cluster.link_all(forgotten=[2])
    cluster.run(0.3)
    cluster.isolate(3)
    leader = cluster.hosts[1]
    cluster.run_until(lambda: not leader.node.is_leader, limit_s=2.0)


def test_a_leader_forgets_what_a_forgetful_peer_acknowledged() -> None:
    cluster = settled()
    assert cluster.leader.node.match_index(2) == cluster.leader.journal.last_index
    cluster.wipe(2)
    cluster.link(1, 2, forgotten=[2])
    assert cluster.leader.node.match_index(2) == 0
    assert 2 in cluster.leader.node.peer_memoryless


def test_all_in_doubt_at_once_elect_and_keep_what_they_hold() -> None:
    """A power cut tore the last batch on all three disks."""
    cluster = settled()
    index = cluster.write(b"kept")
    cluster.run(0.2)
    for replica_id in cluster.ids:
        cluster.restart(replica_id)
        cluster.hosts[replica_id].node.memoryless = True
    cluster.link_all()
    cluster.run_until(lambda: bool(cluster.leaders) and cluster.settled)
    assert all(host.node.commit_index > index for host in cluster.up)
    assert cluster.leader.journal.record(index)[0].endswith(b"kept")


def test_an_empty_replica_does_not_lead_those_that_hold_something() -> None:
    cluster = settled()
    cluster.write()
    cluster.run(0.2)
    disks = {i: cluster.crash(i) for i in (1, 2)}
    cluster.wipe(3)
    for replica_id, disk in disks.items():
        cluster.start(replica_id, disk)
    cluster.link_all(forgotten=[3])
    cluster.run_until(lambda: bool(cluster.leaders) and cluster.settled)
    assert cluster.leader.replica_id != 3
    assert cluster.hosts[3].log == cluster.leader.log


# ---------------------------------------------------------------------- stalls


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
