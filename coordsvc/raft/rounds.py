"""Does this leader still lead? Numbered rounds of question and answer, apart from the log.

A round that a majority answered proves that when it began nobody of a higher term had been elected
with their votes. Reads and session verdicts wait for a round begun after they arrived. Rounds never
wait for a disk, so a slow one does not look like a dead replica.

A follower wants to know how lately its leader had a majority. When a message arrives says nothing
of that: it may have waited in a socket while this process, or the network, stood still, and the
leader be deposed since. So each answer says the time by the follower's own clock, and the leader
echoes the last one that came before the latest confirmed round began: the majority is later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from coordsvc.raft.messages import Round
from coordsvc.raft.quorum import is_quorum

NEVER = -1e9
UNDER_WAY_MAX = 64
"""Rounds under way at once, but for the periodic ones: with a long way to the peers, a round a turn
would pile up, and what asked in between can share the next."""
KEPT = 4 * UNDER_WAY_MAX
"""Rounds whose beginning is remembered until they are confirmed."""


class LeaderRounds:
    """The leader's side."""

    def __init__(self, replica_id: int, peer_ids: tuple[int, ...], period_s: float) -> None:
        self._replica_id = replica_id
        self._peers = peer_ids
        self._period_s = period_s
        self._number = 0
        self._wanted = False
        self._next_at = 0.0
        self._began: dict[int, tuple[float, dict[int, float]]] = {}
        """When each round began, and what had been heard of each peer's clock by then."""
        self._answers: dict[int, int] = {}
        self._said_at: dict[int, float] = {}
        self._echoes: dict[int, float] = {}
        self._waiting: deque[tuple[int, Callable[[bool], None]]] = deque()
        self._memoryless: set[int] = set()
        self.confirmed = 0
        self.confirmed_at = NEVER
        """When the latest confirmed round began."""

    def begin_term(self) -> None:
        self.end_term()
        self._next_at = 0.0

    def end_term(self) -> None:
        """What is waiting fails: only a round of the term it was asked in counts."""
        waiting, self._waiting = self._waiting, deque()
        self._answers.clear()
        self._said_at.clear()
        self._echoes.clear()
        self._began.clear()
        self._wanted = False
        self.confirmed = self._number
        for _, done in waiting:
            done(False)

    def confirm(self, done: Callable[[bool], None]) -> None:
        """Calls done(True) when a round begun after this call has a majority."""
        self._waiting.append((self._number + 1, done))
        self._wanted = True

    def begin_due(self, now: float, memoryless: bool) -> bool:
        """Begins the next round when somebody waits for one, or it is time. Say `message(peer)` to
        all, then call `begun`."""
        is_wanted = self._wanted and self._number - self.confirmed < UNDER_WAY_MAX
        if not is_wanted and now < self._next_at:
            return False
        self._wanted = False
        self._next_at = now + self._period_s
        self._number += 1
        self._began[self._number] = (now, dict(self._said_at))
        if len(self._began) > KEPT:
            del self._began[next(iter(self._began))]
        if memoryless:
            self._memoryless.add(self._replica_id)
        else:
            self._memoryless.discard(self._replica_id)
        return True

    def link_up(self, peer: int) -> None:
        """Its process may be another one, on another clock."""
        self._said_at.pop(peer, None)
        self._echoes.pop(peer, None)
        for _, said_at in self._began.values():
            said_at.pop(peer, None)

    def message(self, peer: int) -> Round:
        return Round(self._number, self._echoes.get(peer, 0.0))

    def begun(self) -> None:
        """The round's messages are on their way; a cluster of one has its majority already."""
        self._answers[self._replica_id] = self._number
        self._count()

    def on_reply(self, peer: int, number: int, memoryless: bool, said_at: float = 0.0) -> None:
        if number > self._number:
            return
        self._said_at[peer] = said_at
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
        if number in self._began:
            began_at, said_at = self._began[number]
            self.confirmed_at = max(self.confirmed_at, began_at)
            self._echoes.update(said_at)
        for old in [n for n in self._began if n <= number]:
            del self._began[old]
        while self._waiting and self._waiting[0][0] <= number:
            self._waiting.popleft()[1](True)
