"""Who leads, when, and who must not.

Goal: elections start when they must and only then, and a replica in doubt about its memory decides
nothing alone. Method: real nodes on a manual clock; links and disks behave unless told otherwise.
"""

from __future__ import annotations

import statistics

import pytest

from coordsvc.raft.adapter import FOLLOWER
from coordsvc.raft.messages import (
    PreVote,
    PreVoteReply,
)
from coordsvc.raft.node import AFTER_STALL_S
from coordsvc.testing.raft_harness import RaftCluster
from tests.unit.raft.raft_scene import ask, settled, silence

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
