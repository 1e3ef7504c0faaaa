"""Nothing that promises leaves before the disk keeps it.

Goal: no reply, vote or commit before its sync, also when more arrives while a sync is under way,
and whatever left is kept over a crash at that instant. Method: one replica under test in a
cluster whose other members are played by hand; its disk completes on command.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordsvc.raft.messages import (
    LENGTH,
    AppendEntries,
    AppendReply,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    ResponseVote,
    Round,
    TermNotice,
    decode_message,
)
from coordsvc.raft.outbox import Outbox
from coordsvc.testing.manual_wal import ManualWal
from coordsvc.testing.raft_harness import Frame, RaftCluster, RaftHost

Told = list[tuple[int, int, Message]]


def make(wal: ManualWal, term: Callable[[], int] = lambda: 7) -> tuple[Outbox, Told]:
    told: Told = []

    def send(peer: int, frame: bytes) -> None:
        told.append((peer, *decode_message(frame[LENGTH.size :])))

    outbox = Outbox(wal, term, send)
    wal.on_synced = outbox.synced_to
    return outbox, told


def append(wal: ManualWal) -> None:
    wal.set_voter(True)  # Any record will do.


REPLY = AppendReply(True, 3, False)


def test_a_promise_leaves_at_once_when_the_disk_has_everything() -> None:
    outbox, told = make(ManualWal())
    outbox.send(2, REPLY)
    assert told == [(2, 7, REPLY)]


def test_a_promise_waits_for_what_was_appended_before_it_and_no_more() -> None:
    wal = ManualWal()
    outbox, told = make(wal)
    append(wal)
    outbox.send(2, REPLY)
    wal.flush()
    append(wal)
    assert told == []
    wal.sync()
    assert told == [(2, 7, REPLY)]


def test_a_promise_said_during_a_sync_waits_for_the_next() -> None:
    wal = ManualWal()
    outbox, told = make(wal)
    append(wal)
    wal.flush()
    append(wal)
    outbox.send(2, REPLY)
    wal.sync()
    assert told == []
    wal.flush()
    wal.sync()
    assert told == [(2, 7, REPLY)]


def test_promises_to_one_peer_keep_their_order() -> None:
    wal = ManualWal()
    outbox, told = make(wal)
    append(wal)
    outbox.send(2, ResponseVote(False))
    outbox.send(2, REPLY)
    outbox.send(3, TermNotice())
    wal.sync_all()
    assert [message for peer, _, message in told if peer == 2] == [ResponseVote(False), REPLY]
    assert len(told) == 3


@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(1, 0, 1, ()),
        PreVote(1, 8, 1, 0),
        PreVoteReply(1, True, False),
        Round(1, 0),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_promises_nothing_overtakes(message: Message) -> None:
    """Heartbeats and liveness never wait for a disk: a slow one is not a dead replica."""
    wal = ManualWal()
    outbox, told = make(wal)
    append(wal)
    outbox.send(2, REPLY)
    outbox.send(2, message)
    assert told == [(2, 7, message)]


@pytest.mark.parametrize(
    "message",
    [REPLY, RequestVote(1, 0), ResponseVote(False), TermNotice()],
    ids=lambda message: type(message).__name__,
)
def test_what_promises_waits(message: Message) -> None:
    wal = ManualWal()
    outbox, told = make(wal)
    append(wal)
    outbox.send(2, message)
    assert told == []


def test_the_term_is_the_one_of_the_moment_it_was_said() -> None:
    wal, term = ManualWal(), 4
    outbox, told = make(wal, lambda: term)
    append(wal)
    outbox.send(2, REPLY)
    term = 5
    wal.sync_all()
    assert told == [(2, 4, REPLY)]


def test_one_message_to_several_peers_is_encoded_once() -> None:
    frames: list[bytes] = []
    term = 4
    outbox = Outbox(ManualWal(), lambda: term, lambda peer, frame: frames.append(frame))
    message = AppendEntries(1, 0, 1, ((1, b"\x00" * 100),))
    outbox.send(2, message)
    outbox.send(3, message)
    assert frames[0] is frames[1]
    term = 5
    outbox.send(3, message)
    assert frames[2] != frames[0], "the envelope has another term now"


def test_what_was_held_for_a_connection_goes_with_it() -> None:
    wal = ManualWal()
    outbox, told = make(wal)
    append(wal)
    outbox.send(2, REPLY)
    outbox.send(3, REPLY)
    outbox.forget(2)
    wal.sync_all()
    assert [peer for peer, _, _ in told] == [3]


# ------------------------------------------------------- one replica, its disk standing still

LEADER, FOLLOWER, OTHER = 1, 2, 3


class Scene:
    """Replica 2 follows replica 1 in term 1 and holds entries 2 and 3; its disk is idle."""

    def __init__(self) -> None:
        self.cluster = RaftCluster(3)
        self.told: list[Frame] = []
        self.cluster.on_frame = self._note
        self.hear(LEADER, 1, AppendEntries(1, 0, 1, ((1, b"\x01"), (1, b"\x00a"))))
        self.host.wal.sync_all()
        self.told.clear()

    def _note(self, frame: Frame) -> None:
        if frame.source == FOLLOWER:
            self.told.append(frame)

    @property
    def host(self) -> RaftHost:
        return self.cluster.hosts[FOLLOWER]

    def hear(self, source: int, term: int, message: Message) -> None:
        self.host.node.receive(source, term, message, self.cluster.clock.now)

    def promises(self) -> list[Message]:
        kinds = (AppendReply, ResponseVote, RequestVote)
        return [f.message for f in self.told if isinstance(f.message, kinds)]

    def hold_first_sync(self) -> None:
        self.hear(LEADER, 1, AppendEntries(3, 1, 1, ((1, b"\x00b"),)))
        self.host.wal.flush()
        assert self.promises() == []


def test_an_acknowledgement_waits_for_its_sync() -> None:
    scene = Scene()
    scene.hold_first_sync()
    scene.host.wal.sync()
    assert scene.promises() == [AppendReply(True, 5, False)]


def test_a_vote_during_a_sync_waits_for_its_own() -> None:
    scene = Scene()
    scene.hold_first_sync()
    scene.hear(OTHER, 2, RequestVote(9, 1))
    scene.host.wal.flush()
    scene.host.wal.sync()
    assert scene.promises() == [AppendReply(True, 5, False)]
    forgot = scene.host.wal.crash().recovered
    assert forgot.voted_for is None, "the vote was not on disk, so it must not have been told"
    scene.host.wal.sync()
    assert scene.promises()[1:] == [ResponseVote(False)]
    kept = scene.host.wal.crash().recovered
    assert (kept.term, kept.voted_for) == (2, str(OTHER))


def test_a_conflicting_append_during_a_sync_is_acknowledged_after_its_own() -> None:
    scene = Scene()
    scene.hold_first_sync()
    scene.hear(OTHER, 2, AppendEntries(3, 1, 1, ((2, b"\x00c"), (2, b"\x00d"))))
    scene.host.wal.flush()
    assert scene.host.log == [(2, 1), (3, 1), (4, 2), (5, 2)]
    assert scene.host.journal.durable_index == 3, "entry 4 is another one than the disk will have"
    scene.host.wal.sync()
    assert scene.promises() == [AppendReply(True, 5, False)], "the one of term 1"
    assert scene.told[-1].term == 1
    assert scene.host.journal.durable_index == 3
    assert scene.host.wal.crash().recovered.entries[-1] == (b"\x00b", 4, 1)
    scene.host.wal.sync()
    assert scene.promises()[1:] == [AppendReply(True, 6, False)]
    assert scene.host.wal.crash().recovered.entries[2:] == [(b"\x00c", 4, 2), (b"\x00d", 5, 2)]


def test_a_heartbeat_during_a_sync_acknowledges_nothing_early() -> None:
    scene = Scene()
    scene.hold_first_sync()
    scene.hear(LEADER, 1, AppendEntries(4, 1, 4, ()))
    assert scene.promises() == []
    assert scene.host.node.commit_index == 4, "the others' disks decided it"
    scene.hear(LEADER, 1, AppendEntries(4, 1, 4, ()))
    assert scene.promises() == []
    scene.host.wal.sync()
    assert scene.promises() == [AppendReply(True, 5, False)] * 2, "the news needs no answer"


def test_a_higher_term_during_a_sync_is_on_disk_before_anybody_hears_of_it() -> None:
    scene = Scene()
    scene.hold_first_sync()
    scene.hear(OTHER, 5, RequestVote(1, 0))
    assert scene.host.node.term == 5
    scene.host.wal.sync()
    assert all(frame.term == 1 for frame in scene.told)


def test_a_candidacy_waits_for_the_candidates_own_vote() -> None:
    scene = Scene()
    node = scene.host.node
    node.transfer_in_progress = True
    node.election_deadline = scene.cluster.clock.now
    node.tick(scene.cluster.clock.now)
    scene.host.wal.flush()
    assert scene.promises() == []
    scene.host.wal.sync()
    assert scene.promises() == [RequestVote(3, 1)] * 2
    assert scene.host.wal.crash().recovered.voted_for == str(FOLLOWER)


@pytest.mark.parametrize("size", [1, 3])
def test_a_leader_counts_itself_when_its_disk_has_it(size: int) -> None:
    cluster = RaftCluster(size)
    leader = cluster.elect()
    for host in cluster.up:
        host.wal.sync_all()
    committed = leader.node.commit_index
    cluster.write()
    leader.end_turn(cluster.clock.now)
    for frame in cluster.take(AppendEntries):
        cluster.deliver(frame)
        # One follower of two has it on disk: with the leader's it would be a majority.
        if frame.target == max(i for i in cluster.ids if i != leader.replica_id):
            cluster.hosts[frame.target].wal.sync_all()
    for frame in cluster.take(AppendReply):
        cluster.deliver(frame)
    leader.node.tick(cluster.clock.now)
    assert leader.node.commit_index == committed
    assert leader.wal.sync()
    leader.node.tick(cluster.clock.now)
    assert leader.node.commit_index == committed + 1
