"""Confirmations: rounds a leader proves itself with, and the reads that wait for them.

Both ends of a read-index meet here: the reader's question and the leader's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordsvc.errors import CoordError
from coordsvc.raft.adapter import LEADER
from coordsvc.raft.messages import ReadIndex, ReadIndexReply, Round, RoundReply
from coordsvc.raft.node import RaftNode
from coordsvc.raft.outbox import Outbox
from coordsvc.raft.proposer import Target
from coordsvc.raft.reads import ReadIndexes
from coordsvc.raft.rounds import NEVER, LeaderRounds


class Confirmations:
    """`leader_reached` says whom to ask now."""

    def __init__(
        self,
        node: RaftNode,
        outbox: Outbox,
        loop: asyncio.AbstractEventLoop,
        leader_reached: Callable[[], Target | None],
    ) -> None:
        settings = node.settings
        self._node = node
        self._outbox = outbox
        self._replica_id = settings.replica_id
        self._leader_reached = leader_reached
        self._rounds = LeaderRounds(settings.replica_id, settings.peer_ids, settings.heartbeat_s)
        self._followed_at = NEVER
        self.reads = ReadIndexes(loop, self._ask)
        self._asked: Target | None = None
        self._before_noop: list[tuple[int, int]] = []
        self._knows_commit = False

    @property
    def leader_confirmed_at(self) -> float:
        """When a leader is known to have had a majority."""
        return max(self._rounds.confirmed_at, self._followed_at)

    # ------------------------------------------------------------------ rounds

    def confirm(self, done: Callable[[bool], None]) -> None:
        self._rounds.confirm(done)

    def link_up(self, peer: int) -> None:
        """What the old connection carried may be lost."""
        self._rounds.link_up(peer)
        self.reads.ask_again()

    def begin_round(self, now: float) -> None:
        """The leader, at a turn's end: one round serves all who asked in this turn."""
        if self._node.role != LEADER:
            return
        if self._rounds.begin_due(now, self._node.memoryless):
            for peer in self._node.settings.peer_ids:
                if peer in self._node.linked:
                    self._outbox.send(peer, self._rounds.message(peer))
            self._rounds.begun()

    def on_round(self, peer: int, message: Round, now: float) -> None:
        self._node.follow(peer, now)
        if message.echo <= now:  # Else it is of a clock that has started anew since.
            self._followed_at = max(self._followed_at, message.echo)
        self._outbox.send(peer, RoundReply(message.number, self._node.memoryless, now))

    def on_round_reply(self, peer: int, message: RoundReply, now: float) -> None:
        if self._node.role == LEADER:
            self._node.heard_follower(peer, message.memoryless, now)
            self._rounds.on_reply(peer, message.number, message.memoryless, message.said_at)

    # ------------------------------------------------------------------ reads

    def ask(self, now: float) -> None:
        """Asks for all who came in this turn; for all who wait, when another leads now."""
        target = self._leader_reached()
        if target != self._asked:
            self._asked = target
            self.reads.ask_again()
        self.reads.turn(now)

    def _ask(self, request: int) -> bool:
        target = self._leader_reached()
        if target is None:
            return False
        if target[0] == self._replica_id:
            self.on_read_index(self._replica_id, request)
        else:
            self._outbox.send(target[0], ReadIndex(request))
        return True

    def on_read_index(self, peer: int, request: int) -> None:
        if self._node.role != LEADER:
            return
        if self._knows_commit:
            self._answer(peer, request, self._node.commit_index)
        else:
            self._before_noop.append((peer, request))

    def _answer(self, peer: int, request: int, index: int) -> None:
        term = self._node.term

        def confirmed(leads: bool) -> None:
            if peer != self._replica_id:
                if leads and self._node.term == term:
                    self._outbox.send(peer, ReadIndexReply(request, index))
            elif leads:
                self.reads.on_index(request, index, self._node.applied_index)
            else:
                self.reads.on_failed(request)

        self._rounds.confirm(confirmed)

    def on_read_index_reply(self, message: ReadIndexReply) -> None:
        asked_at = self.reads.asked_at(message.request)
        if asked_at is not None:
            # The leader had a majority in a round that began after the question.
            self._followed_at = max(self._followed_at, asked_at)
        self.reads.on_index(message.request, message.index, self._node.applied_index)

    def refuse_all(self, error: CoordError) -> None:
        self.reads.refuse_all(error)

    # ------------------------------------------------------------------ terms

    def begin_term(self) -> None:
        self._rounds.begin_term()

    def noop_applied(self) -> None:
        """Before its own first entry is applied a leader does not know what is committed. Entries
        after that one may be committed, and acknowledged elsewhere, by now: they count too."""
        self._knows_commit = True
        waiting, self._before_noop = self._before_noop, []
        for peer, request in waiting:
            self._answer(peer, request, self._node.commit_index)

    def end_term(self) -> None:
        self._knows_commit = False
        self._before_noop.clear()
        self._rounds.end_term()
        self.reads.ask_again()
