"""The library's hazards in consensus, one by one: the stock part does the wrong thing, ours the
right one.

Each test feeds the same story to a stock SyncObj and to this package's part. If a test fails in
its stock half, the library has changed: read it again before trusting what replaces it. (What a
hazard's remedy must do beyond the story is tested where the remedy lives.)
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from pysyncobj import FAIL_REASON, SyncObjConf
from pysyncobj.node import Node

from coordsvc.raft import adapter
from coordsvc.raft.clock import SystemClock
from coordsvc.raft.messages import (
    AppendReply,
    PeerProtocolError,
    PreVote,
    RequestVote,
    ResponseVote,
    TermNotice,
    decode_message,
)
from coordsvc.testing.raft_harness import ManualClock
from tests.unit.raft.stock_replica import Ours, Stock


@pytest.fixture(autouse=True)
def clock() -> Iterator[ManualClock]:
    """The library reads one clock per process."""
    clock = ManualClock()
    adapter.use_library_clock(clock)
    yield clock
    adapter.use_library_clock(SystemClock())


# ---------------------------------------------------------------------- 1 and 16


def test_01_a_late_copy_cuts_off_what_was_applied() -> None:
    stock = Stock()
    stock.append(1, 1, 0, [1] * 21, commit=22)
    stock.doTick(0)
    assert len(stock.applied) == 21
    stock.append(1, 1, 0, [1] * 4, commit=4)
    assert stock.log[-1][0] == 5, "seventeen applied entries are gone"

    ours = Ours()
    ours.append(1, 1, 0, [1] * 21, commit=22)
    ours.append(1, 1, 0, [1] * 4, commit=4)
    assert ours.host.journal.last_index == 22
    assert ours.host.node.commit_index == 22


def test_01_what_was_cut_off_can_be_lost_for_good() -> None:
    """The voter has forgotten entry 5, which it had acknowledged."""
    stock = Stock()
    stock.append(1, 1, 0, [1] * 4, commit=1)
    stock.append(1, 1, 0, [1], commit=1)
    stock.transport.said.clear()
    stock.hear(3, type="request_vote", term=2, last_log_index=2, last_log_term=1)
    assert stock.kinds_said() == ["response_vote"]

    ours = Ours()
    ours.append(1, 1, 0, [1] * 4, commit=1)
    ours.append(1, 1, 0, [1], commit=1)
    ours.said()
    ours.hear(3, 2, RequestVote(2, 1))
    assert not [message for message in ours.said() if isinstance(message, ResponseVote)]


# ---------------------------------------------------------------------- 2


def test_02_an_acknowledgement_sends_again_what_is_under_way(clock: ManualClock) -> None:
    stock = Stock()
    stock.lead(clock)
    for index in range(10):
        stock.get("raftLog").add(b"\x00x", 3 + index, 1)
    stock.put("raftNextIndex", dict.fromkeys(stock.transport.members.values(), 13))
    stock.hear(2, type="next_node_idx", next_node_idx=5, reset=False, success=True)
    assert stock.get("raftNextIndex")[stock.node(2)] == 5, "entries 5 to 12 go out again"

    ours = Ours()
    ours.lead()
    for _ in range(10):
        ours.host.node.append(b"\x00x")
    ours.host.node.send_entries()
    end = ours.host.journal.last_index + 1
    assert ours.host.node.next_index(2) == end
    ours.hear(2, ours.host.node.term, AppendReply(True, 5, False))
    assert ours.host.node.next_index(2) == end
    assert ours.host.node.match_index(2) == 4


# ---------------------------------------------------------------------- 3


def test_03_an_acknowledgement_of_an_earlier_term_counts(clock: ManualClock) -> None:
    """Said in term 1, about entries that have been replaced since."""
    stock = Stock()
    stock.lead(clock)
    stock.put("raftCurrentTerm", 3)
    stock.get("raftLog").add(b"\x00new", 3, 3)
    stock.get("raftLog").add(b"\x00new", 4, 3)
    stock.hear(2, type="next_node_idx", next_node_idx=5, reset=False, success=True)
    stock.doTick(0)
    assert stock.raftCommitIndex == 4, "on one disk only"

    ours = Ours()
    ours.lead()
    ours.host.node.append(b"\x00new")
    ours.host.wal.sync_all()
    committed = ours.host.node.commit_index
    ours.hear(2, ours.host.node.term - 1, AppendReply(True, 100, False))
    ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.commit_index == committed


# ---------------------------------------------------------------------- 5


def test_05_it_acknowledges_and_votes_before_anything_is_on_disk() -> None:
    stock = Stock()
    stock.append(1, 1, 0, [1], commit=1)
    stock.hear(3, type="request_vote", term=2, last_log_index=9, last_log_term=1)
    assert stock.kinds_said() == ["next_node_idx", "response_vote"]

    ours = Ours()
    ours.append(1, 1, 0, [1], commit=1)
    ours.hear(3, 2, RequestVote(9, 1))
    assert ours.cluster.frames == []
    assert [type(message) for message in ours.said()] == [AppendReply, ResponseVote]


def test_05_a_single_replica_answers_before_anything_is_on_disk(clock: ManualClock) -> None:
    stock = Stock(1)
    stock.lead(clock)
    answers: list[Any] = []
    stock._applyCommand(b"\x00x", lambda result, error: answers.append(error))
    for _ in range(2):
        stock.doTick(0)
    assert answers == [FAIL_REASON.SUCCESS]

    ours = Ours(1)
    ours.host.node.tick(ours.cluster.clock.now)
    index = ours.host.node.append(b"\x00x")
    for _ in range(5):
        ours.host.end_turn(ours.cluster.clock.now)
        ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.commit_index < index
    ours.host.wal.sync_all()
    ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.commit_index == index


# ---------------------------------------------------------------------- 8


def test_08_who_does_not_hear_the_leader_raises_its_term(clock: ManualClock) -> None:
    """It is connected to the third replica, which hears the leader well."""
    stock = Stock()
    stock.append(1, 1, 0, [], commit=1)
    stock.transport._onNodeConnected(stock.node(3))
    for _ in range(5):
        clock.now += 5.0
        stock.doTick(0)
    assert stock.raftCurrentTerm == 6, "it deposes the leader when it comes back"

    ours = Ours()
    ours.append(1, 1, 0, [], commit=1)
    for _ in range(500):
        ours.cluster.clock.now += 0.05
        ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.term == 1
    said = ours.said()
    assert [message for message in said if isinstance(message, PreVote)]
    assert not [message for message in said if isinstance(message, RequestVote)]


# ---------------------------------------------------------------------- 9


def test_09_a_leader_of_an_earlier_term_is_not_told() -> None:
    stock = Stock()
    stock.append(5, 1, 0, [], commit=1, peer=3)
    stock.transport.said.clear()
    for _ in range(50):
        stock.append(4, 1, 0, [], commit=1)
    assert stock.transport.said == []
    assert SyncObjConf().leaderFallbackTimeout == 30.0, "so long it believes to lead"

    ours = Ours()
    ours.append(5, 1, 0, [], commit=1, peer=3)
    ours.said()
    ours.append(4, 1, 0, [], commit=1)
    ours.host.wal.sync_all()
    assert [(f.target, f.term, f.message) for f in ours.cluster.frames] == [(2, 5, TermNotice())]
    assert ours.host.node.settings.leader_fallback_s < 2.0


# ---------------------------------------------------------------------- 14


def test_14_after_a_stall_it_campaigns_before_it_reads(clock: ManualClock) -> None:
    stock = Stock()
    stock.append(1, 1, 0, [], commit=1)
    stock.transport._onNodeConnected(stock.node(2))
    clock.now += 10.0  # The process stood still; its sockets are full of heartbeats.
    stock.doTick(0)
    assert stock.raftCurrentTerm == 2

    ours = Ours()
    ours.append(1, 1, 0, [], commit=1)
    ours.cluster.clock.now += 10.0
    ours.host.node.tick(ours.cluster.clock.now)
    assert ours.host.node.term == 1
    assert not [message for message in ours.said() if isinstance(message, PreVote)]


# ---------------------------------------------------------------------- 15


def test_15_a_part_of_a_snapshot_commits_what_was_never_committed() -> None:
    """A deposed leader's own entries, past the commit index the chunk carries."""
    stock = Stock()
    stock.append(1, 1, 0, [1] * 5, commit=1)
    stock.hear(
        3, type="append_entries", term=2, commit_index=50, serialized=(b"chunk", True, False)
    )
    assert stock.raftCommitIndex == 6
    stock.doTick(0)
    assert len(stock.applied) == 5

    ours = Ours()
    ours.append(1, 1, 0, [1] * 5, commit=1)
    # No message of ours moves the commit index without a matching beginning.
    ours.append(2, 40, 2, [], commit=50, peer=3)
    assert ours.host.node.commit_index == 1
    chunk = {"type": "append_entries", "term": 2, "serialized": (b"", True, False)}
    for body in (pickle.dumps(chunk, 2), zlib.compress(pickle.dumps(chunk, 2))):
        with pytest.raises(PeerProtocolError):
            decode_message(body)


# ---------------------------------------------------------------------- 20


def test_20_anybodys_vote_counts_and_as_often_as_it_comes(clock: ManualClock) -> None:
    stock = Stock(5)
    for node in stock.transport.members.values():
        stock.transport._onNodeConnected(node)
    clock.now += 5.0
    stock.doTick(0)
    vote = {"type": "response_vote", "term": stock.raftCurrentTerm}
    for _ in range(2):
        stock.transport._onMessageReceived(Node("stranger"), vote)
    assert stock._isLeader()

    ours = Ours(5)
    node = ours.host.node
    node.transfer_in_progress, node.election_deadline = True, 0.0
    node.tick(ours.cluster.clock.now)
    assert node.role == adapter.CANDIDATE
    for _ in range(3):
        with pytest.raises(PeerProtocolError):
            ours.hear(9, node.term, ResponseVote(False))
        ours.hear(2, node.term, ResponseVote(False))
    assert not node.is_leader
