"""The log's front: what may go, what is kept, and that nobody waits for it.

Goal: the log in memory and on disk begins at the same entry or the disk's before it, nothing is
dropped that a checkpoint on disk does not cover or that somebody needs, and a leader does not go
round in circles with a follower that lacks what is gone.
"""

from __future__ import annotations

import pytest

from coordsvc.raft.adapter import NO_OP
from coordsvc.raft.compaction import ENTRIES_AT_ONCE, LogCompaction
from coordsvc.raft.journal import ENTRY_OVERHEAD_BYTES, WalJournal
from coordsvc.raft.messages import AppendEntries
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.testing.manual_wal import ManualWal
from coordsvc.testing.raft_harness import RaftCluster, RaftHost
from tests.unit.raft.raft_scene import settled

WEIGHT = 10 + ENTRY_OVERHEAD_BYTES
"""Of each entry of `log_of`."""


def log_of(entries: int, term: int = 3) -> tuple[WalJournal, ManualWal]:
    """Entries 2 and on, all on disk."""
    wal = ManualWal()
    journal = WalJournal(wal, 1, 0, [], 0, None)
    for index in range(2, entries + 2):
        journal.add(b"\x00" + b"x" * 9, index, term)
    wal.sync_all()
    journal.synced_to(wal.synced_lsn)
    return journal, wal


def compaction_of(
    journal: WalJournal, wal: ManualWal, reserved: int | None = None, **settings: int
) -> LogCompaction:
    return LogCompaction(ReplicaSettings(1, **settings), journal, wal, lambda: reserved)  # type: ignore[arg-type]


def finish(compaction: LogCompaction) -> int:
    """Steps until it is done; how many dropped something."""
    steps = 0
    while compaction.step():
        steps += 1
        assert steps < 10_000
    return steps


# ---------------------------------------------------------------------- the journal


def test_the_base_moves_up_and_the_rest_stays_what_it_was() -> None:
    journal, _ = log_of(20)
    before = [journal.record(index) for index in range(9, 22)]
    assert journal.drop_front(8, 0, 100) == 7
    assert journal[0] == (NO_OP, 8, 3), "a base has no payload"
    assert [journal.record(index) for index in range(9, 22)] == before
    assert (journal.base_index, journal.last_index, len(journal)) == (8, 21, 14)
    assert journal.bytes_held == 13 * 10
    assert journal.term_at(8) == 3
    with pytest.raises(AssertionError):
        journal.record(7)


def test_the_whole_log_may_go_and_goes_on() -> None:
    journal, _ = log_of(5)
    assert journal.drop_front(6, 0, 100) == 5
    assert (journal.base_index, journal.last_index, journal.last_term) == (6, 6, 3)
    assert journal.weight_bytes == 0
    journal.add(b"\x00", 7, 4)
    assert journal.term_at(7) == 4


def test_it_keeps_at_least_the_weight_it_is_told_to() -> None:
    journal, _ = log_of(20)
    assert journal.drop_front(21, 4 * WEIGHT, 100) == 16
    assert journal.weight_bytes == 4 * WEIGHT
    assert journal.drop_front(21, 4 * WEIGHT, 100) == 0
    assert journal.drop_front(21, 4 * WEIGHT - 1, 100) == 0, "at least, never a byte less"


def test_what_is_not_on_disk_is_not_dropped() -> None:
    journal, _ = log_of(5)
    journal.add(b"\x00", 7, 3)
    with pytest.raises(AssertionError, match="not on disk"):
        journal.drop_front(7, 0, 100)


def test_it_never_goes_back() -> None:
    journal, _ = log_of(20)
    journal.drop_front(10, 0, 100)
    assert journal.drop_front(5, 0, 100) == 0
    assert journal.base_index == 10


# ---------------------------------------------------------------------- what may go


def test_never_beyond_the_checkpoint() -> None:
    journal, wal = log_of(30)
    compaction = compaction_of(journal, wal, log_keep_bytes=0)
    compaction.cover(12)
    finish(compaction)
    assert journal.base_index == 12


def test_what_is_kept_is_counted_from_the_end() -> None:
    journal, wal = log_of(30)
    compaction = compaction_of(journal, wal, log_keep_bytes=10 * WEIGHT)
    compaction.cover(31)
    finish(compaction)
    assert journal.base_index == 21


def test_what_somebody_needs_is_kept_up_to_the_cap() -> None:
    journal, wal = log_of(30)
    kept = compaction_of(journal, wal, 7, log_keep_bytes=0, log_bytes_max=24 * WEIGHT)
    kept.cover(31)
    finish(kept)
    assert journal.base_index == 7, "24 entries after it fit"
    for index in range(32, 37):
        journal.add(b"\x00" + b"x" * 9, index, 3)
    wal.sync_all()
    journal.synced_to(wal.synced_lsn)
    kept.cover(36)
    finish(kept)
    assert journal.base_index == 12, "five more do not"


def test_it_goes_in_slices_and_tells_the_disk_once() -> None:
    journal, wal = log_of(3 * ENTRIES_AT_ONCE + 100)
    told: list[int] = []
    wal.drop_before = told.append  # type: ignore[method-assign]
    compaction = compaction_of(journal, wal, log_keep_bytes=0)
    compaction.cover(journal.last_index)
    bases = []
    while compaction.step():
        bases.append(journal.base_index)
        assert not told
    steps = [later - earlier for earlier, later in zip([1, *bases], bases, strict=False)]
    assert steps == [ENTRIES_AT_ONCE] * 3 + [100]
    assert told == [journal.last_index + 1]
    assert not compaction.step(), "nothing more to do"
    assert len(told) == 1


def test_the_disk_begins_where_the_log_does_or_before() -> None:
    for covered in range(2, 40):
        journal, wal = log_of(40)
        compaction = compaction_of(journal, wal, log_keep_bytes=0)
        compaction.cover(covered)
        finish(compaction)
        recovered = wal.crash().recovered
        assert recovered.base_index <= journal.base_index == covered
        assert covered - recovered.base_index <= 8, "but not all of it"
        first = recovered.entries[0][1] if recovered.entries else recovered.base_index + 1
        assert first == recovered.base_index + 1
        again = WalJournal(
            ManualWal(), recovered.base_index, recovered.base_term, recovered.entries, 3, None
        )
        assert again.record(41) == journal.record(41)


# ---------------------------------------------------------------------- a follower that lacks it


def compacted(keep: int = 0) -> RaftCluster:
    """Replica 1 leads 2; replica 3 was away for 30 entries, which 1 and 2 hold in their
    checkpoints, the last `keep` of them in the log too."""
    cluster = settled()
    cluster.isolate(3)
    for number in range(30):
        cluster.write(b"%d" % number)
    cluster.pump()
    for replica_id in (1, 2):
        journal = cluster.hosts[replica_id].journal
        assert cluster.hosts[replica_id].node.commit_index == journal.last_index
        journal.drop_front(journal.last_index - keep, 0, 1000)
    return cluster


def appends_to(cluster: RaftCluster, target: int, seconds: float) -> list[AppendEntries]:
    said: list[AppendEntries] = []
    before = cluster.on_frame

    def note(frame: object) -> None:
        message, to = frame.message, frame.target  # type: ignore[attr-defined]
        if isinstance(message, AppendEntries) and to == target:
            said.append(message)

    cluster.on_frame = note
    cluster.run(seconds)
    cluster.on_frame = before
    return said


def test_a_follower_slightly_behind_is_served_from_the_kept_log() -> None:
    cluster = compacted(keep=30)
    cluster.link(1, 3)
    cluster.run(0.3)
    assert cluster.hosts[1].node.needs_snapshot == set()
    assert cluster.hosts[3].log[-30:] == cluster.hosts[1].log


def test_a_follower_that_lacks_one_entry_that_is_gone_needs_a_snapshot() -> None:
    cluster = compacted(keep=29)
    cluster.link(1, 3)
    cluster.run(0.3)
    leader = cluster.hosts[1]
    assert leader.node.needs_snapshot == {3}
    assert cluster.hosts[3].journal.last_index == leader.journal.base_index - 1


def test_it_gets_heartbeats_and_no_ping_pong() -> None:
    cluster = compacted()
    cluster.link(1, 3)
    cluster.run(0.3)
    base = cluster.hosts[1].journal.base_index
    for number in range(5):
        cluster.write(b"more %d" % number)
    cluster.run(0.1)
    to_another = appends_to(cluster, 2, 2.0)
    said = appends_to(cluster, 3, 2.0)
    assert {(message.prev_index, message.entries) for message in said} == {(base, ())}
    heartbeats = 2.0 / cluster.hosts[1].node.settings.heartbeat_s
    assert heartbeats * 0.8 <= len(said) <= heartbeats * 1.2, "as many as are due"
    assert len(to_another) <= heartbeats * 1.2, "nor do the others hear more for it"
    assert not cluster.hosts[1].node.is_sending
    # It follows all the same, and does not disturb.
    assert cluster.hosts[3].node.leader_id == 1
    assert cluster.hosts[3].node.elections_started == 0
    assert cluster.leader.replica_id == 1


def test_a_log_that_went_while_it_was_being_sent_is_noticed() -> None:
    """The follower is linked, and the leader's log overtakes it."""
    cluster = settled()
    leader, slow = cluster.hosts[1], cluster.hosts[3]
    for number in range(30):
        cluster.write(b"%d" % number)
    for _ in range(4):  # Nothing reaches replica 3.
        cluster.tick()
        cluster.take(target=3)
        for frame in cluster.take():
            cluster.deliver(frame)
        for host in cluster.up:
            host.wal.sync_all()
    assert leader.node.commit_index == leader.journal.last_index
    leader.node.set_next_index(3, slow.journal.last_index + 1)
    leader.node._windows[3].clear()
    leader.journal.drop_front(leader.journal.last_index, 0, 1000)
    assert leader.node.next_index(3) < leader.journal.base_index
    cluster.run(0.5)
    assert leader.node.needs_snapshot == {3}


def install(cluster: RaftCluster, replica_id: int, leader: RaftHost) -> RaftHost:
    """As if it had got the state at the leader's base, and started anew from it."""
    base, term = leader.journal.base_index, leader.journal.term_at(leader.journal.base_index)
    wal = cluster.hosts[replica_id].wal
    wal.install(base, term)
    wal.sync_all()
    return cluster.restart(replica_id)


def test_with_the_snapshot_it_goes_on_from_the_log() -> None:
    cluster = compacted()
    cluster.link(1, 3)
    cluster.run(0.3)
    cluster.write(b"after")
    host = install(cluster, 3, cluster.hosts[1])
    cluster.link_all()
    cluster.run(0.3)
    assert cluster.hosts[1].node.needs_snapshot == set()
    assert host.log == cluster.hosts[1].log
    assert host.node.commit_index == cluster.hosts[1].node.commit_index


def test_a_log_of_other_entries_up_to_the_base_is_not_believed() -> None:
    """Replica 3 led once, and its log is longer than the leader's base, with other entries."""
    cluster = settled(leader=3)
    cluster.isolate(3)
    for number in range(60):
        cluster.hosts[3].node.append(b"\x00lost %d" % number)
    cluster.hosts[3].wal.sync_all()
    cluster.run_until(lambda: any(h.replica_id != 3 for h in cluster.leaders))
    cluster.run_until(lambda: cluster.leader.replica_id != 3)
    for number in range(20):
        cluster.write(b"%d" % number)
    cluster.run(0.3)
    leader = cluster.leader
    leader.journal.drop_front(leader.journal.last_index - 5, 0, 1000)
    assert cluster.hosts[3].journal.last_index > leader.journal.last_index
    cluster.link_all()
    cluster.run(0.5)
    assert leader.node.needs_snapshot == {3}
    assert cluster.hosts[3].node.commit_index < leader.journal.base_index
    host = install(cluster, 3, leader)
    cluster.link_all()
    cluster.run(0.5)
    assert host.log == leader.log


def test_the_same_entries_up_to_the_base_need_no_snapshot() -> None:
    """Its log agrees at the base, and only its end is another leader's: hints of whole terms reach
    below the base, where nothing is wrong."""
    cluster = settled()
    for number in range(20):
        cluster.write(b"%d" % number)
    cluster.run(0.3)
    disk = cluster.hosts[3].wal
    before = cluster.hosts[3].journal.last_index
    # A restart knows of no commit; the tail beyond is one that was never committed.
    cluster.crash(3)
    host = cluster.start(3, disk.crash())
    for number in range(10):
        host.journal.add(b"\x00tail %d" % number, before + 1 + number, host.journal.last_term)
    host.wal.sync_all()
    cluster.elect(2)  # Its entries are of a later term.
    leader = cluster.leader
    for number in range(20):
        cluster.write(b"late %d" % number)
    cluster.run(0.2)
    leader.journal.drop_front(before - 3, 0, 1000)
    assert host.node.commit_index < leader.journal.base_index
    flagged: set[int] = set()
    cluster.on_frame = lambda frame: flagged.update(leader.node.needs_snapshot)
    cluster.link_all()
    cluster.run(0.5)
    assert flagged == set(), "not even for a moment"
    assert host.journal.last_index == leader.journal.last_index
    assert host.log[-20:] == leader.log[-20:]


def test_leadership_is_not_handed_to_one_that_waits_for_a_snapshot() -> None:
    cluster = compacted()
    cluster.link(1, 3)
    cluster.unlink(1, 2)
    cluster.run(0.3)
    leader = cluster.hosts[1]
    assert leader.node.needs_snapshot == {3} and 3 in leader.node.linked
    assert leader.node.best_successor() is None
    assert not leader.node.transfer_to(3)


def test_a_new_leader_finds_out_for_itself() -> None:
    cluster = compacted()
    cluster.link_all()
    cluster.run(0.3)
    assert cluster.hosts[1].node.needs_snapshot == {3}
    node = cluster.hosts[2].node
    node.transfer_in_progress, node.election_deadline = True, cluster.clock.now
    cluster.run_until(lambda: cluster.leader.replica_id == 2)
    cluster.run(0.3)
    assert cluster.hosts[1].node.needs_snapshot == set(), "who leads no longer helps nobody"
    assert node.needs_snapshot == {3}
