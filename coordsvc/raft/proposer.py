"""From callers to the log: the origin's batches go to the leader, the leader makes them entries.

On the leader the way is the same without the network in between, so that its own writes survive
its loss of leadership as those of any other origin do.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from coordsvc.core.commands import LeaderCommand
from coordsvc.raft.adapter import LEADER
from coordsvc.raft.clock import Clock
from coordsvc.raft.merge import MergeQueue, check_forwarded
from coordsvc.raft.messages import Forward
from coordsvc.raft.node import RaftNode
from coordsvc.raft.origin import Origin, SentBatch
from coordsvc.raft.outbox import Outbox
from coordsvc.raft.settings import ENTRY_OVERHEAD_BYTES

logger = logging.getLogger(__name__)

Target = tuple[int, int]
"""(leader, term) a batch is handed to."""

CLOCK_JUMP_MS = 1000
SLEW = 0.001
"""A clock that is being set right may run so much faster or slower without jumping."""


class WallClockWatch:
    """Notices that the wall clock jumped, by the monotonic one. Only the times in Stat depend on
    the wall clock, but people go by them."""

    def __init__(self) -> None:
        self._before: tuple[int, float] | None = None
        self.jumps = 0

    def stamped(self, wall_ms: int, monotonic_s: float) -> None:
        """A leader's entry was stamped so."""
        if self._before is not None:
            wall_before_ms, monotonic_before_s = self._before
            passed_ms = (monotonic_s - monotonic_before_s) * 1000
            jump_ms = wall_ms - wall_before_ms - passed_ms
            if abs(jump_ms) > CLOCK_JUMP_MS + SLEW * passed_ms:
                self.jumps += 1
                logger.warning("clock.jumped", extra={"by_ms": round(jump_ms)})
        self._before = (wall_ms, monotonic_s)

    def forget(self) -> None:
        self._before = None


class Proposer:
    """`applied_clock_ms` reads the cluster clock of the applied state."""

    def __init__(
        self,
        node: RaftNode,
        origin: Origin,
        outbox: Outbox,
        clock: Clock,
        applied_clock_ms: Callable[[], int],
    ) -> None:
        self._node = node
        self._settings = node.settings
        self._replica_id = node.settings.replica_id
        self._origin = origin
        self._outbox = outbox
        self._clock = clock
        self._applied_clock_ms = applied_clock_ms
        self._merge = MergeQueue(node.settings)
        self._registered_with: Target | None = None
        self._sent_to: Target | None = None
        self._clock_base: tuple[int, float] | None = None
        self._uncommitted: deque[tuple[int, int]] = deque()
        self._uncommitted_bytes = 0
        self.wall_clock = WallClockWatch()
        self.paused = False
        """A leader that hands over adds nothing more."""

    # ------------------------------------------------------------------ origin to leader

    def leader_reached(self) -> Target | None:
        """The leader, when something can be handed to it now."""
        leader = self._node.leader_id
        if leader is None:
            return None
        if leader == self._replica_id:
            return (leader, self._node.term) if self._node.role == LEADER else None
        return (leader, self._node.term) if leader in self._node.linked else None

    def leader_link_renewed(self) -> None:
        """What the old connection carried may be lost: all is sent again."""
        self._sent_to = self._registered_with = None

    def send_batches(self, now: float) -> None:
        """Registers once, then sends what waits; all again after a change of leader, term or
        connection, a gap, or an election timeout without progress."""
        if self._origin.stuck(now):
            self._origin.progress_at = now
            self._origin.resend_due = True
        target = self.leader_reached()
        if target is None:
            return
        if not self._origin.incarnation:
            self._register(target, now)
            return
        if target != self._sent_to or self._origin.resend_due:
            self._sent_to = target
            self._origin.resend_due = False
            for batch in self._origin.sent():
                self._hand_batch(target[0], batch)
        for batch in self._origin.cut(now):
            self._hand_batch(target[0], batch)

    def _register(self, target: Target, now: float) -> None:
        late = now - self._origin.progress_at >= self._settings.election_timeout_s_min
        if target != self._registered_with or late:
            self._registered_with = target
            self._origin.progress_at = now
            self._hand(target[0], 0, 0, 1, self._origin.registration)

    def _hand_batch(self, leader: int, batch: SentBatch) -> None:
        self._hand(leader, self._origin.incarnation, batch.seq, batch.commands, batch.raw)

    def _hand(self, leader: int, incarnation: int, seq: int, commands: int, raw: bytes) -> None:
        if leader == self._replica_id:
            self._merge.add(self._replica_id, incarnation, seq, commands, raw)
        else:
            self._outbox.send(leader, Forward(incarnation, seq, commands, raw))

    # ------------------------------------------------------------------ leader to log

    def on_forward(self, peer: int, message: Forward) -> None:
        """A batch of another origin. Who does not lead drops it: its origin sends it again to
        whoever does."""
        check_forwarded(peer, message, self._settings.entry_bytes_max + ENTRY_OVERHEAD_BYTES)
        if self._node.role == LEADER:
            self._merge.add(peer, message.incarnation, message.seq, message.commands, message.batch)

    def propose(self, command: LeaderCommand) -> None:
        self._merge.propose(command)

    def append_entries(self, digest: tuple[int, int]) -> None:
        """The leader: all that is queued becomes entries of this term, within the bounds."""
        if not self._merge or self._node.role != LEADER or self.paused:
            return
        if self._uncommitted_bytes > self._settings.uncommitted_bytes_max:
            return
        time_ms, clock_ms = self._clock.wall_ms(), self._cluster_clock_ms()
        self.wall_clock.stamped(time_ms, self._clock.monotonic())
        for payload in self._merge.entries(time_ms, clock_ms, digest):
            self._uncommitted.append((self._node.append(payload), len(payload)))
            self._uncommitted_bytes += len(payload)
            if self._uncommitted_bytes > self._settings.uncommitted_bytes_max:
                return

    def committed_to(self, index: int) -> None:
        while self._uncommitted and self._uncommitted[0][0] <= index:
            self._uncommitted_bytes -= self._uncommitted.popleft()[1]

    def _cluster_clock_ms(self) -> int:
        """The cluster's own clock stands still while nobody leads; a leader advances it by its
        monotonic time from where its first entry found it."""
        if self._clock_base is None:
            return self._applied_clock_ms()
        clock_ms, since = self._clock_base
        return clock_ms + int((self._clock.monotonic() - since) * 1000)

    # ------------------------------------------------------------------ terms

    def begin_term(self) -> None:
        self._merge.clear()

    def noop_applied(self) -> None:
        self._clock_base = (self._applied_clock_ms(), self._clock.monotonic())

    def end_term(self) -> None:
        self.wall_clock.forget()
        self._merge.clear()
        self._clock_base = None
        self._uncommitted.clear()
        self._uncommitted_bytes = 0
