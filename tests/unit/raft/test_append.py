"""A follower's answer to an append, and what its leader makes of the answer, case by case.

The general promise is held by tests/property/test_raft_rules.py; here each rule by itself.
"""

from __future__ import annotations

import pytest

from coordsvc.raft.messages import AppendEntries, AppendReply, Forward, PeerProtocolError
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.testing.raft_harness import NOWHERE, RaftCluster, RaftHost

LEADER, ME = 1, 2


class Follower:
    """Replica 2, in term 4, with entries 2 to 6 of the terms given."""

    def __init__(self, *terms: int, commit: int = 1) -> None:
        self.cluster = RaftCluster(3)
        self.host: RaftHost = self.cluster.hosts[ME]
        self.host.node.set_term(4, None)
        for index, term in enumerate(terms, 2):
            self.host.journal.add(b"\x00%d" % index, index, term)
        self.host.wal.sync_all()
        self.host.node.commit_index = commit

    def hear(
        self, prev: int, prev_term: int, *terms: int, commit: int = 0, term: int = 4
    ) -> AppendReply:
        entries = tuple((each, b"\x00new") for each in terms)
        message = AppendEntries(prev, prev_term, commit, entries)
        (reply,) = self.answers(message, term)
        return reply

    def answers(self, message: AppendEntries, term: int = 4) -> list[AppendReply]:
        self.host.node.receive(LEADER, term, message, self.cluster.clock.now)
        self.host.wal.sync_all()
        frames = self.cluster.take(AppendReply, source=ME, target=LEADER)
        return [frame.message for frame in frames if isinstance(frame.message, AppendReply)]

    @property
    def terms(self) -> list[int]:
        return [term for _, term in self.host.log]

    @property
    def commit(self) -> int:
        return self.host.node.commit_index


def test_entries_follow_the_log() -> None:
    follower = Follower(1, 1)
    assert follower.hear(3, 1, 4, 4) == AppendReply(True, 6, False)
    assert follower.terms == [1, 1, 4, 4]


def test_a_copy_changes_nothing_and_is_acknowledged() -> None:
    follower = Follower(1, 1, 4, 4)
    assert follower.hear(3, 1, 4, 4) == AppendReply(True, 6, False)
    assert follower.host.journal.record(4)[0] == b"\x004", "the entry that was there"


def test_what_lies_beyond_a_match_stays_and_is_not_acknowledged() -> None:
    follower = Follower(1, 1, 4, 4, 4)
    assert follower.hear(3, 1, 4) == AppendReply(True, 5, False)
    assert follower.hear(2, 1) == AppendReply(True, 3, False)
    assert follower.terms == [1, 1, 4, 4, 4]


def test_the_first_conflict_truncates_and_no_earlier_entry() -> None:
    follower = Follower(1, 2, 2, 3, 3)
    assert follower.hear(2, 1, 2, 4) == AppendReply(True, 5, False)
    assert follower.terms == [1, 2, 4]
    assert follower.host.node.truncated_entries == 3
    assert follower.host.journal.record(3)[0] == b"\x003"


def test_that_what_it_acknowledged_is_committed_needs_no_answer() -> None:
    follower = Follower(1, 1)
    follower.hear(3, 1, 4, 4)
    assert follower.answers(AppendEntries(5, 4, 4, ())) == []
    assert follower.commit == 4
    assert follower.answers(AppendEntries(5, 4, 5, ())) == []
    assert follower.commit == 5


def test_that_its_memory_is_no_longer_in_doubt_is_told_at_once() -> None:
    """Else a leader with nothing to write would not know whom to hand over to."""
    follower = Follower(1, 1)
    node = follower.host.node
    node.memoryless = True
    assert follower.hear(3, 1, 4, 4) == AppendReply(True, 6, True)
    node.become_voter()
    told = [frame.message for frame in follower.cluster.take(AppendReply, source=ME)]
    assert told == [AppendReply(True, 6, False)] and not node.memoryless


def test_nothing_is_told_that_was_not_told_before() -> None:
    """What it holds may not be what this leader holds."""
    follower = Follower(1, 1, 4, 4)
    assert not follower.hear(9, 4).success
    follower.host.node.become_voter()
    assert follower.cluster.take(AppendReply, source=ME) == []


def test_a_heartbeat_is_answered() -> None:
    """It moves nothing, and may be the leader's question where the logs match."""
    follower = Follower(1, 1)
    follower.hear(3, 1, 4, commit=4)
    assert follower.hear(4, 4, commit=4) == AppendReply(True, 5, False)


def test_news_of_what_it_has_not_acknowledged_is_answered() -> None:
    follower = Follower(1, 1, 4, 4)
    assert follower.hear(4, 4, commit=3) == AppendReply(True, 5, False), "nothing was yet"
    assert follower.hear(5, 4, commit=4) == AppendReply(True, 6, False), "not so far"


@pytest.mark.parametrize("how", ["connection", "refusal", "term"])
def test_what_was_acknowledged_before_may_not_have_been_heard(how: str) -> None:
    """On an earlier connection, before a refusal that made the leader go back, in another term: the
    leader waits for an answer before it sends more than one append."""
    follower = Follower(1, 1)
    follower.hear(3, 1, 4, 4)
    term = 4
    if how == "connection":
        follower.cluster.unlink(LEADER, ME)
        follower.cluster.link(LEADER, ME)
        follower.cluster.frames.clear()
    elif how == "refusal":
        assert not follower.hear(9, 4).success
    else:
        term = 5
    assert follower.hear(5, 4, commit=4, term=term) == AppendReply(True, 6, False)


def test_only_what_moves_nothing_is_quiet() -> None:
    """What waits for a leader is to be sent to it; what is committed is to be applied."""
    follower = Follower(1, 1)
    quiet = []
    for prev, terms, commit in [(3, (), 0), (3, (), 0), (3, (4,), 0), (4, (), 4), (4, (), 4)]:
        entries = tuple((term, b"\x00new") for term in terms)
        message = AppendEntries(prev, follower.terms[prev - 2], commit, entries)
        follower.answers(message)
        quiet.append(follower.host.node.take_is_quiet())
    assert quiet == [False, True, True, False, True]
    assert not follower.host.node.take_is_quiet(), "asked once for each"


def test_a_gap_is_answered_with_the_logs_end() -> None:
    follower = Follower(1, 1)
    assert follower.hear(7, 4, 4) == AppendReply(False, 4, False)
    assert follower.terms == [1, 1]


def test_a_conflict_before_the_entries_is_answered_with_the_terms_beginning() -> None:
    follower = Follower(1, 2, 2, 2, 2)
    assert follower.hear(6, 4, 4) == AppendReply(False, 3, False)
    assert follower.terms == [1, 2, 2, 2, 2], "a mismatch is not a proof of a conflict beyond"


def test_the_hint_does_not_go_below_what_is_committed() -> None:
    follower = Follower(2, 2, 2, 2, 2, commit=4)
    assert follower.hear(6, 4, 4) == AppendReply(False, 5, False)
    assert follower.hear(4, 1, 4) == AppendReply(False, 5, False), "a leader that cannot be"


def test_an_append_below_the_commit_index_is_compared_from_there_on() -> None:
    follower = Follower(1, 1, 1, 3, commit=4)
    assert follower.hear(1, 0, 1, 1, 1, 4) == AppendReply(True, 6, False)
    assert follower.terms == [1, 1, 1, 4]


def test_an_append_wholly_below_the_commit_index_acknowledges_that_much() -> None:
    follower = Follower(1, 1, 1, 1, commit=4)
    assert follower.hear(1, 0, 1) == AppendReply(True, 5, False)
    assert follower.terms == [1, 1, 1, 1]


def test_an_append_from_before_the_base_is_understood() -> None:
    follower = Follower(1, 1, commit=3)
    assert follower.hear(0, 0, 0, 1, 1, 4) == AppendReply(True, 5, False)
    assert follower.terms == [1, 1, 4]


def test_the_commit_index_moves_to_the_end_of_the_message_at_most() -> None:
    follower = Follower(1, 1, 3, 3)
    follower.hear(2, 1, 1, commit=5)
    assert follower.commit == 3
    follower.hear(3, 1, 4, 4, commit=4)
    assert follower.commit == 4


def test_the_commit_index_does_not_fall() -> None:
    follower = Follower(1, 1, 1, 1, commit=5)
    follower.hear(3, 1, commit=2)
    assert follower.commit == 5


def test_a_refused_append_commits_nothing() -> None:
    follower = Follower(1, 2, 2)
    follower.hear(4, 3, commit=4)
    assert follower.commit == 1


@pytest.mark.parametrize("terms", [(4, 3), (5,), (0,)], ids=str)
def test_terms_that_cannot_be_break_the_connection(terms: tuple[int, ...]) -> None:
    follower = Follower(1, 1)
    with pytest.raises(PeerProtocolError):
        follower.hear(3, 1, *terms)
    assert follower.terms == [1, 1]


def test_an_empty_payload_breaks_the_connection() -> None:
    follower = Follower(1, 1)
    message = AppendEntries(3, 1, 1, ((4, b""),))
    with pytest.raises(PeerProtocolError):
        follower.host.node.receive(LEADER, 4, message, follower.cluster.clock.now)


def test_committed_entries_are_never_truncated() -> None:
    """Another leader's word against what is known to be committed: the process must end."""
    follower = Follower(1, 1, 1, commit=3)
    follower.host.node.commit_index = 4
    message = AppendEntries(3, 1, 1, ((4, b"\x00other"),))
    follower.host.node.receive(LEADER, 4, message, follower.cluster.clock.now)
    assert follower.terms == [1, 1, 1], "below the commit index nothing is even looked at"


# ------------------------------------------------------------------------- the leader's side


class Leader:
    """Replica 1 leads and has entries up to 12, none of them known to be held by anybody."""

    def __init__(self, **settings: int) -> None:
        def make(replica_id: int) -> ReplicaSettings:
            return ReplicaSettings(replica_id, dict.fromkeys((1, 2, 3), NOWHERE), **settings)

        self.cluster = RaftCluster(3, settings=make)
        self.cluster.elect(1)
        self.host = self.cluster.hosts[1]
        self.node = self.host.node
        self.first = self.host.journal.last_index
        for _ in range(10):
            self.node.append(b"\x00" + b"x" * 99)

    def answer(self, reply: AppendReply, peer: int = 2, term: int = 1) -> None:
        self.node.receive(peer, term, reply, self.cluster.clock.now)

    def sent(self, peer: int = 2) -> list[tuple[int, int]]:
        """(previous index, entries) of each append that has left since the last look."""
        frames = self.cluster.take(AppendEntries, source=1, target=peer)
        messages = [f.message for f in frames if isinstance(f.message, AppendEntries)]
        return [(message.prev_index, len(message.entries)) for message in messages]


def test_an_acknowledgement_never_moves_back_what_is_sent_next() -> None:
    leader = Leader(append_bytes_soft=100)
    leader.node.send_entries()
    assert leader.sent() == [(leader.first + i, 1) for i in range(10)]
    leader.answer(AppendReply(True, leader.first + 2, False))
    assert leader.node.match_index(2) == leader.first + 1
    leader.node.send_entries()
    assert leader.sent() == [(leader.first + 10, 0)], "a heartbeat, and nothing again"


def test_acknowledgements_out_of_order_only_raise() -> None:
    leader = Leader()
    leader.answer(AppendReply(True, leader.first + 5, False))
    leader.answer(AppendReply(True, leader.first + 3, False))
    assert leader.node.match_index(2) == leader.first + 4


def test_an_acknowledgement_beyond_the_log_counts_to_its_end() -> None:
    leader = Leader()
    leader.answer(AppendReply(True, 1 << 40, False))
    assert leader.node.match_index(2) == leader.host.journal.last_index


def test_a_refusal_lowers_to_the_hint_and_sends_at_once_one_message() -> None:
    leader = Leader(append_bytes_soft=100)
    leader.node.set_match_index(2, 0)
    leader.node.set_next_index(2, leader.first + 8)
    leader.answer(AppendReply(False, leader.first + 1, False))
    assert leader.node.next_index(2) == leader.first + 1
    leader.node.send_due(leader.cluster.clock.now)
    assert leader.sent() == [(leader.first, 1)], "what is sent ahead would be refused as well"


def test_a_late_refusal_does_not_go_below_what_is_acknowledged() -> None:
    leader = Leader()
    leader.answer(AppendReply(True, leader.first + 5, False))
    leader.answer(AppendReply(False, 2, False))
    assert leader.node.next_index(2) == leader.first + 5


def test_a_refusal_never_raises_what_is_sent_next() -> None:
    leader = Leader()
    leader.node.set_match_index(2, 0)
    leader.node.set_next_index(2, 3)
    leader.answer(AppendReply(False, leader.first + 9, False))
    assert leader.node.next_index(2) == 3


def test_replies_of_another_term_do_not_count() -> None:
    leader = Leader()
    before = leader.node.match_index(2)
    leader.answer(AppendReply(True, leader.first + 5, False), term=0)
    assert leader.node.match_index(2) == before


def test_the_window_bounds_what_is_under_way() -> None:
    leader = Leader(append_bytes_soft=100, append_window_messages=3)
    leader.node.send_entries()
    assert leader.sent() == [(leader.first, 1), (leader.first + 1, 1), (leader.first + 2, 1)]
    leader.node.send_entries()
    assert leader.sent() == []
    leader.answer(AppendReply(True, leader.first + 2, False))
    leader.node.send_due(leader.cluster.clock.now)
    assert leader.sent() == [(leader.first + 3, 1)]


def test_the_window_is_bounded_in_bytes_too() -> None:
    leader = Leader(append_bytes_soft=100, append_window_bytes=250)
    leader.node.send_entries()
    assert len(leader.sent()) == 3


@pytest.mark.parametrize("is_end_noticed", [True, False])
def test_a_new_connection_begins_with_one_message_from_what_is_acknowledged(
    is_end_noticed: bool,
) -> None:
    """Also when it takes the place of one whose end nobody has noticed."""
    leader = Leader(append_bytes_soft=100)
    leader.node.send_entries()
    leader.sent()
    if is_end_noticed:
        leader.cluster.unlink(1, 2)
    leader.cluster.link(1, 2)
    leader.node.send_due(leader.cluster.clock.now)
    assert leader.sent() == [(leader.first, 1)]


def test_the_commit_index_leaves_at_once() -> None:
    """Followers answer their own clients by it; they must not wait for a heartbeat."""
    leader = Leader()
    leader.host.wal.sync_all()
    leader.node.send_due(leader.cluster.clock.now)
    leader.sent(2), leader.sent(3)
    leader.answer(AppendReply(True, leader.host.journal.last_index + 1, False))
    leader.node.tick(leader.cluster.clock.now)
    assert leader.node.commit_index == leader.host.journal.last_index
    leader.node.send_due(leader.cluster.clock.now)
    frames = leader.cluster.take(AppendEntries, source=1, target=2)
    assert [f.message.commit_index for f in frames] == [leader.node.commit_index]  # type: ignore[union-attr]


def test_the_commit_index_is_told_as_soon_as_there_is_room_for_it() -> None:
    """It moved while the window of 3 was full; the acknowledgement that empties it is the moment,
    not the next heartbeat."""
    leader = Leader(append_window_messages=1)
    leader.host.wal.sync_all()
    leader.node.send_due(leader.cluster.clock.now)
    last = leader.host.journal.last_index
    leader.answer(AppendReply(True, last + 1, False), peer=2)
    leader.node.tick(leader.cluster.clock.now)
    leader.node.send_due(leader.cluster.clock.now)
    leader.cluster.frames.clear()
    leader.answer(AppendReply(True, last + 1, False), peer=3)
    leader.node.tick(leader.cluster.clock.now)
    leader.node.send_due(leader.cluster.clock.now)
    frames = leader.cluster.take(AppendEntries, source=1, target=3)
    assert [f.message.commit_index for f in frames] == [last]  # type: ignore[union-attr]


def test_who_lacks_nothing_is_sent_nothing() -> None:
    leader = Leader()
    leader.node.send_due(leader.cluster.clock.now)
    leader.cluster.frames.clear()
    leader.answer(AppendReply(False, leader.first + 1, False), peer=2)
    leader.node.send_due(leader.cluster.clock.now)
    assert {frame.target for frame in leader.cluster.take(AppendEntries)} == {2}


def test_whose_clients_wait_is_told_first() -> None:
    leader = Leader()
    leader.host.wal.sync_all()
    leader.node.send_due(leader.cluster.clock.now)
    leader.cluster.frames.clear()
    now, node = leader.cluster.clock.now, leader.node
    node.admit(3, node.term, Forward(9, 1, 1, b""), now)
    leader.answer(AppendReply(True, leader.host.journal.last_index + 1, False), peer=2)
    leader.answer(AppendReply(True, leader.host.journal.last_index + 1, False), peer=3)
    leader.node.send_due(now)
    assert [frame.target for frame in leader.cluster.take(AppendEntries)] == [3, 2]
