"""Does this leader still lead? Numbered rounds of question and answer, apart from the log.

A round that a majority answered proves that when it began nobody of a higher term had been elected
with their votes. Reads and session verdicts wait for a round begun after they arrived. Rounds never
wait for a disk, so a slow one does not look like a dead replica.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from coordsvc.raft.messages import Round
from coordsvc.raft.quorum import is_quorum

KEPT = 256
"""Rounds whose beginning is remembered; an older one is confirmed with the oldest kept."""


class LeaderRounds:
    """The leader's side."""

    def __init__(self, replica_id: int, peer_ids: tuple[int, ...], period_s: float) -> None:
        self._replica_id = replica_id
        self._peers = peer_ids
        self._period_s = period_s
        self._number = 0
        self._wanted = False
        self._next_at = 0.0
        self._began: dict[int, float] = {}
        self._answers: dict[int, int] = {}
        self._waiting: deque[tuple[int, Callable[[bool], None]]] = deque()
        self._memoryless: set[int] = set()
        self.confirmed = 0
        self.confirmed_at = -1e9
        """When the latest confirmed round began."""

    def begin_term(self) -> None:
        self.end_term()
        self._next_at = 0.0

    def end_term(self) -> None:
        """What is waiting fails: only a round of the term it was asked in counts."""
        waiting, self._waiting = self._waiting, deque()
        self._answers.clear()
        self._began.clear()
        self._wanted = False
        self.confirmed = self._number
        for _, done in waiting:
            done(False)

    def confirm(self, done: Callable[[bool], None]) -> None:
        """Calls done(True) when a round begun after this call has a majority."""
        self._waiting.append((self._number + 1, done))
        self._wanted = True

    def begin_due(self, now: float, memoryless: bool) -> Round | None:
        """The next round's message, when somebody waits for one or it is time."""
        if not self._wanted and now < self._next_at:
            return None
        self._wanted = False
        self._next_at = now + self._period_s
        self._number += 1
        self._began[self._number] = now
        if len(self._began) > KEPT:
            del self._began[next(iter(self._began))]
        if memoryless:
            self._memoryless.add(self._replica_id)
        else:
            self._memoryless.discard(self._replica_id)
        return Round(self._number, self.confirmed)

    def begun(self) -> None:
        """The round's messages are on their way; a cluster of one has its majority already."""
        self._answers[self._replica_id] = self._number
        self._count()

    def on_reply(self, peer: int, number: int, memoryless: bool) -> None:
        if number > self._number:
            return
        if memoryless:
            self._memoryless.add(peer)
        else:
            self._memoryless.discard(peer)
        self._answers[peer] = max(self._answers.get(peer, 0), number)
        self._count()

    def _count(self) -> None:
        for number in sorted(set(self._answers.values()), reverse=True):
            if number <= self.confirmed:
                return
            agreeing = {peer for peer, answered in self._answers.items() if answered >= number}
            if is_quorum(len(self._peers) + 1, agreeing, self._memoryless):
                self._confirmed_to(number)
                return

    def _confirmed_to(self, number: int) -> None:
        self.confirmed = number
        self.confirmed_at = max(self.confirmed_at, self._began.get(number, self.confirmed_at))
        for old in [n for n in self._began if n <= number]:
            del self._began[old]
        while self._waiting and self._waiting[0][0] <= number:
            self._waiting.popleft()[1](True)


class FollowedRounds:
    """A follower's side: when is the leader known to have had a majority?"""

    def __init__(self) -> None:
        self._leader: tuple[int, int] = (0, 0)
        self._heard: dict[int, float] = {}
        self.confirmed_at = -1e9
        """When the latest round known to be confirmed was first heard here: the leader began it
        earlier, and had its majority later."""

    def on_round(self, leader: int, term: int, message: Round, now: float) -> None:
        if (leader, term) != self._leader:
            self._leader = (leader, term)
            self._heard.clear()
        confirmed = [n for n in self._heard if n <= message.confirmed]
        if confirmed:
            self.confirmed_at = max(self.confirmed_at, self._heard[max(confirmed)])
            for number in confirmed:
                del self._heard[number]
        self._heard[message.number] = now
        if len(self._heard) > KEPT:
            del self._heard[next(iter(self._heard))]
