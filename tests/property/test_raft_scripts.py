"""The rare ways to lose an entry, step by step, and the mutants that fall into them.

Goal: what `test_raft_rules.py` meets once in thousands of runs is met here each time. Method: a
few frames delivered by hand, the rest lost or kept for later, under the same checker.
Notation: x3 is an entry at index 3; index 2 is the first leader's no-op, known to all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coordsvc.raft.journal import WalJournal
from coordsvc.raft.messages import (
    AppendEntries,
    AppendReply,
    Message,
    RequestVote,
    ResponseVote,
    TermNotice,
)
from coordsvc.raft.node import RaftNode
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.testing.raft_checker import BrokenPromise, Checker
from coordsvc.testing.raft_harness import NOWHERE, Frame, RaftCluster, RaftHost


class Play:
    """A cluster whose first leader is settled, and short ways to say what happens to it."""

    def __init__(self, size: int, leader: int) -> None:
        def one_entry_per_message(replica_id: int) -> ReplicaSettings:
            peers = dict.fromkeys(range(1, size + 1), NOWHERE)
            return ReplicaSettings(replica_id, peers, append_bytes_soft=1)

        self.cluster = RaftCluster(size, settings=one_entry_per_message)
        self.checker = Checker(self.cluster)
        self.cluster.elect(leader)
        self.check()

    def check(self) -> None:
        self.checker.check()

    def host(self, replica_id: int) -> RaftHost:
        return self.cluster.hosts[replica_id]

    def only_links(self, *pairs: tuple[int, int]) -> None:
        """On new connections; all others are cut, and what was under way is lost."""
        for pair in list(self.cluster.links):
            self.cluster.unlink(*pair)
        for pair in pairs:
            self.cluster.link(*pair)
        self.cluster.frames.clear()

    def sync(self, replica_id: int) -> None:
        self.host(replica_id).wal.sync_all()

    def write(self, replica_id: int, count: int) -> None:
        """Entries of that leader, on its own disk alone."""
        for _ in range(count):
            self.host(replica_id).node.append(b"\x00%d" % self.cluster.rng.getrandbits(32))
        self.sync(replica_id)
        self.turn(replica_id)

    def turn(self, replica_id: int) -> None:
        host = self.host(replica_id)
        host.node.tick(self.cluster.clock.now)
        host.end_turn(self.cluster.clock.now)
        self.check()

    def elect(self, replica_id: int, *voters: int) -> None:
        """It wins with these votes, in a term above all others; its first entry stays with it."""
        node, now = self.host(replica_id).node, self.cluster.clock.now
        highest = max(host.node.term for host in self.cluster.up)
        node.receive(voters[0], highest, TermNotice(), now)
        node.transfer_in_progress = True
        node.election_deadline = now
        self.turn(replica_id)
        self.sync(replica_id)
        for voter in voters:
            self.pass_on(RequestVote, replica_id, voter)
            self.pass_on(ResponseVote, voter, replica_id)
        assert node.is_leader, f"replica {replica_id} was not elected"
        self.sync(replica_id)
        self.only_links(*self.cluster.links)
        self.check()

    def pass_on(self, kind: type[Any], source: int, target: int) -> None:
        for frame in self.cluster.take(kind, source=source, target=target):
            self.deliver(frame)

    def deliver(self, frame: Frame) -> None:
        self.cluster.deliver(frame)
        self.sync(frame.target)
        self.check()

    def append_until(self, leader: int, follower: int, done: Callable[[], bool]) -> None:
        """Appends and replies between two, until it is so."""
        for _ in range(50):
            if done():
                return
            self.host(leader).node.send_entries()
            self.pass_on(AppendEntries, leader, follower)
            if done():
                return
            self.pass_on(AppendReply, follower, leader)
            self.turn(leader)
        raise AssertionError("it did not come about")

    def entry(self, replica_id: int, index: int) -> tuple[int, int]:
        """(index, term), or (0, 0) when the log ends before it."""
        journal = self.host(replica_id).journal
        return (index, journal.term_at(index)) if index <= journal.last_index else (0, 0)


def commit_of_an_earlier_term(patch: pytest.MonkeyPatch) -> None:
    def advance(self: RaftNode) -> bool:
        held = [self.journal.durable_index, *(self.match_index(peer) for peer in self._peers)]
        index = sorted(held, reverse=True)[len(held) // 2]
        self.commit_index = max(self.commit_index, index)
        return False

    patch.setattr(RaftNode, "advance_commit", advance)


def script_figure_8() -> None:
    """Ref: Raft, figure 8. x3 of term 1 is on a majority, and still must not be committed."""
    play = Play(3, leader=1)
    play.only_links()
    play.write(1, 1)
    play.only_links((2, 3))
    play.elect(3, 2)
    play.cluster.restart(1)
    play.only_links((1, 2))
    play.elect(1, 2)
    play.append_until(1, 2, lambda: play.entry(2, 3) == play.entry(1, 3))
    play.pass_on(AppendReply, 2, 1)
    play.turn(1)
    play.only_links((2, 3))
    play.cluster.restart(3)
    play.only_links((2, 3))
    play.elect(3, 2)
    play.append_until(3, 2, lambda: play.host(2).log == play.host(3).log)
    play.check()


def count_replies_of_any_term(patch: pytest.MonkeyPatch) -> None:
    original = RaftNode.admit

    def admit(self: RaftNode, peer: int, term: int, message: Message, now: float) -> bool:
        return isinstance(message, AppendReply) or original(self, peer, term, message, now)

    patch.setattr(RaftNode, "admit", admit)


def script_late_acknowledgement() -> None:
    """2 acknowledged x3 to x6 of 1's first term; both lost them to 3; 1 leads again and writes
    other entries there. The old acknowledgement must not count for those."""
    play = Play(5, leader=1)
    play.only_links((1, 2))
    play.write(1, 4)
    late: list[Frame] = []
    for _ in range(8):
        play.host(1).node.send_entries()
        play.pass_on(AppendEntries, 1, 2)
        late = play.cluster.take(AppendReply, source=2, target=1)
        if any(f.message.next_index == 7 for f in late):  # type: ignore[union-attr]
            break
        for frame in late:
            play.deliver(frame)
    assert play.host(2).log == play.host(1).log and len(play.host(1).log) == 5
    play.only_links((3, 4), (3, 5))
    play.elect(3, 4, 5)
    play.only_links((1, 3), (2, 3))
    play.append_until(3, 1, lambda: play.host(1).log == play.host(3).log)
    play.append_until(3, 2, lambda: play.host(2).log == play.host(3).log)
    play.only_links((1, 4), (1, 5))
    play.elect(1, 4, 5)
    play.write(1, 2)
    for frame in late:
        play.deliver(frame)
    play.turn(1)
    play.append_until(1, 4, lambda: play.host(4).log == play.host(1).log)
    play.pass_on(AppendReply, 4, 1)
    play.turn(1)
    play.check()


def acknowledge_the_logs_end(patch: pytest.MonkeyPatch) -> None:
    def reply(self: RaftNode, leader: int, *, success: bool, next_index: int) -> None:
        end = self.journal.last_index + 1 if success else next_index
        self._send(leader, AppendReply(success, end, self.memoryless))

    patch.setattr(RaftNode, "_reply", reply)


def commit_to_the_logs_end(patch: pytest.MonkeyPatch) -> None:
    original = RaftNode._on_append_entries

    def on_append(self: RaftNode, leader: int, message: AppendEntries, now: float) -> None:
        original(self, leader, message, now)
        beyond = min(message.commit_index, self.journal.last_index)
        self.commit_index = max(self.commit_index, beyond)

    patch.setattr(RaftNode, "_on_append_entries", on_append)


def stale_tail() -> Play:
    """2 keeps u4 and u5 of its own term behind x3, which it shares with the new leader 1: a message
    that matches up to x3 says nothing about them, neither that they are held nor committed."""
    play = Play(3, leader=2)
    play.only_links((1, 2))
    play.write(2, 1)
    play.append_until(2, 1, lambda: play.host(1).log == play.host(2).log)
    play.only_links()
    play.write(2, 2)
    play.only_links((1, 3))
    play.elect(1, 3)
    play.write(1, 2)
    return play


def script_stale_tail_acknowledged() -> None:
    play = stale_tail()
    play.only_links((1, 2))
    for _ in range(12):
        play.host(1).node.send_entries()
        play.pass_on(AppendEntries, 1, 2)
        play.pass_on(AppendReply, 2, 1)
        play.turn(1)
    assert play.host(2).log == play.host(1).log
    assert play.host(2).node.truncated_entries == 2


def script_stale_tail_committed() -> None:
    play = stale_tail()
    play.append_until(1, 3, lambda: play.host(3).log == play.host(1).log)
    play.pass_on(AppendReply, 3, 1)
    play.turn(1)
    assert play.host(1).node.commit_index == play.host(1).journal.last_index
    play.only_links((1, 2))
    play.append_until(1, 2, lambda: play.host(2).log == play.host(1).log)
    play.check()


def forget_the_vote(patch: pytest.MonkeyPatch) -> None:
    """The term is kept, whom it was given to is not."""
    original = WalJournal.setCurrentTerm

    def set_current_term(self: WalJournal, term: int, voted_for: str | None) -> None:
        original(self, term, None)
        self._voted_for = voted_for

    patch.setattr(WalJournal, "setCurrentTerm", set_current_term)


def script_second_candidate() -> None:
    """2 gave its vote to 1, restarts, and is asked by 3 in the same term."""
    play = Play(3, leader=1)
    play.only_links((1, 2), (1, 3), (2, 3))
    for replica_id in (1, 3):
        host = play.cluster.restart(replica_id)
        host.node.transfer_in_progress = True
        host.node.election_deadline = play.cluster.clock.now
    play.only_links((1, 2), (2, 3))
    for replica_id in (1, 3):
        play.turn(replica_id)
        play.sync(replica_id)
    play.pass_on(RequestVote, 1, 2)
    play.pass_on(ResponseVote, 2, 1)
    assert play.host(1).node.is_leader
    second = play.cluster.take(RequestVote, source=3, target=2)
    play.cluster.restart(2)
    play.only_links((2, 3))
    for frame in second:
        play.deliver(frame)
    play.pass_on(ResponseVote, 2, 3)
    play.check()


SCRIPTS: list[tuple[Callable[[], None], Callable[[pytest.MonkeyPatch], None]]] = [
    (script_figure_8, commit_of_an_earlier_term),
    (script_late_acknowledgement, count_replies_of_any_term),
    (script_stale_tail_acknowledged, acknowledge_the_logs_end),
    (script_stale_tail_committed, commit_to_the_logs_end),
    (script_second_candidate, forget_the_vote),
]


@pytest.mark.parametrize("script", sorted({s for s, _ in SCRIPTS}, key=lambda s: s.__name__))
def test_no_promise_is_broken(script: Callable[[], None]) -> None:
    script()


@pytest.mark.parametrize(("script", "mutant"), SCRIPTS)
def test_the_mutant_breaks_one(
    script: Callable[[], None],
    mutant: Callable[[pytest.MonkeyPatch], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mutant(monkeypatch)
    with pytest.raises(BrokenPromise):
        script()
