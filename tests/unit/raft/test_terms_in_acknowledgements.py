"""An acknowledgement counts in the term it was said in, and in no other: one story, told in full.

Goal: an acknowledgement that is under way while the log it speaks of is replaced, twice, must not
pass for one of what stands at the same indexes now. Only the term tells the two apart.

Method: five replicas whose links are cut and mended by hand; one frame is kept back. x3 is an entry
at index 3 of the first leader; index 2 is its no-op, which all have.

    term 1   1 leads, cut off with 2. Both hold x3 x4 x5; 2's acknowledgement is late.
    term 2   3 leads, with 4 and 5. All five hold y3 in place of what 1 and 2 had.
    term 3   1 leads again, with 4 and 5, which hold y3 z4. It adds w5, and only 4 takes it.
             Now 2's acknowledgement of term 1 arrives: "everything up to 5". 2 has never seen w5.
             1 and 4 die.
    term 4   2, 3 and 5 elect, and none of them has w5. It may not have been committed.
"""

from __future__ import annotations

from coordsvc.raft.messages import AppendEntries, AppendReply
from coordsvc.testing.raft_harness import PAYLOAD, Frame, RaftCluster

FIVE = (1, 2, 3, 4, 5)


def only_links(cluster: RaftCluster, *pairs: tuple[int, int]) -> None:
    """These connections stand, and no other; what others carried is lost."""
    for pair in set(cluster.links) - set(pairs):
        cluster.unlink(*pair)
    for pair in pairs:
        if pair not in cluster.links:
            cluster.link(*pair)
    cluster.frames.clear()


def append(cluster: RaftCluster, leader: int, *names: str) -> None:
    """Entries on the leader's own disk; the messages with them are under way."""
    host = cluster.hosts[leader]
    for name in names:
        host.node.append(PAYLOAD + name.encode())
    host.end_turn(cluster.clock.now)
    host.wal.sync_all()


def pass_entries(cluster: RaftCluster, leader: int, follower: int) -> list[Frame]:
    """The follower takes what is under way to it, on disk; its acknowledgements, not delivered."""
    for frame in cluster.take(AppendEntries, source=leader, target=follower):
        cluster.deliver(frame)
    cluster.hosts[follower].wal.sync_all()
    return cluster.take(AppendReply, source=follower, target=leader)


def deliver(cluster: RaftCluster, acknowledgements: list[Frame], leader: int) -> None:
    """The leader hears them, and commits what it then believes to be on a majority."""
    for frame in acknowledgements:
        cluster.deliver(frame)
    cluster.hosts[leader].node.tick(cluster.clock.now)


def names_of(cluster: RaftCluster, replica_id: int, up_to: int | None = None) -> list[str]:
    """The entries of a log, from index 3 on, by name; a leader's no-op has the name of its term."""
    records = cluster.hosts[replica_id].journal[2:]
    return [
        payload[1:].decode() if payload[:1] == PAYLOAD else f"leader{term}"
        for payload, index, term in records
        if up_to is None or index <= up_to
    ]


def tell_up_to_the_last_entry() -> tuple[RaftCluster, list[Frame]]:
    """The story until 4 has taken w5; and the acknowledgement of term 1, still under way."""
    cluster = RaftCluster(5)
    cluster.elect(1)
    assert [cluster.hosts[i].log for i in FIVE] == [[(2, 1)]] * 5

    # Term 1: three entries on 1 and 2 alone. The connection breaks with the answer on it.
    only_links(cluster, (1, 2))
    append(cluster, 1, "x3", "x4", "x5")
    late = pass_entries(cluster, 1, 2)
    assert names_of(cluster, 1) == names_of(cluster, 2) == ["x3", "x4", "x5"]
    assert [(f.term, f.message) for f in late] == [(1, AppendReply(True, 6, False))]

    # Term 2: 3 leads the other three, and in the end everybody.
    only_links(cluster, (3, 4), (3, 5))
    cluster.elect(3)
    only_links(cluster, (1, 3), (2, 3), (3, 4), (3, 5))
    cluster.run_until(lambda: all(names_of(cluster, i) == ["leader2"] for i in FIVE))
    assert cluster.hosts[2].node.truncated_entries == 3

    # Term 3: 1 leads again, without 2 and 3; its first entry is committed, on 1, 4 and 5.
    only_links(cluster, (1, 4), (1, 5))
    cluster.elect(1)
    assert cluster.leader.node.term == 3
    assert names_of(cluster, 1) == names_of(cluster, 5) == ["leader2", "leader3"]
    assert names_of(cluster, 2) == names_of(cluster, 3) == ["leader2"]

    # w5 reaches 4 only, which says so: two of five have it.
    only_links(cluster, (1, 4))
    append(cluster, 1, "w5")
    deliver(cluster, pass_entries(cluster, 1, 4), leader=1)
    assert cluster.hosts[1].node.match_index(4) == 5
    assert cluster.hosts[1].node.commit_index == 4
    return cluster, late


def lose_1_and_4(cluster: RaftCluster) -> list[str]:
    """What of that which 1 took for committed those who are left do not know."""
    committed = names_of(cluster, 1, up_to=cluster.hosts[1].node.commit_index)
    cluster.crash(1)
    cluster.crash(4)
    only_links(cluster, (2, 3), (2, 5), (3, 5))
    cluster.run_until(lambda: bool(cluster.leaders) and cluster.settled)
    assert cluster.leader.node.term >= 4 and cluster.leader.replica_id in (2, 3, 5)
    kept = names_of(cluster, cluster.leader.replica_id)
    return [name for name in committed if name not in kept]


def test_an_acknowledgement_of_an_earlier_term_commits_nothing() -> None:
    cluster, late = tell_up_to_the_last_entry()
    deliver(cluster, late, leader=1)
    lost = lose_1_and_4(cluster)
    assert not lost, f"committed entry lost: {lost}, on the word of replica 2 about x5"


def test_the_same_acknowledgement_of_the_present_term_commits() -> None:
    """So that the story does not end well for a reason of its own."""
    cluster, _ = tell_up_to_the_last_entry()
    only_links(cluster, (1, 2))
    cluster.run_until(lambda: names_of(cluster, 2) == names_of(cluster, 1))
    assert cluster.hosts[1].node.commit_index == 5
    lost = lose_1_and_4(cluster)
    assert not lost, f"committed entry lost: {lost}"
    assert "w5" in names_of(cluster, cluster.leader.replica_id)
