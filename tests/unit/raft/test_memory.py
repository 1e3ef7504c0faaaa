"""Replicas that may have forgotten what they promised: wiped, rolled back, torn.

Goal: what they lost decides nothing, and they come back. Method: real nodes on a manual clock.
"""

from __future__ import annotations

from tests.unit.raft.raft_scene import settled, silence


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
