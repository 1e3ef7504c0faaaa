"""The leader's verdict on silent sessions: who has expired, and which reports it may acknowledge.

What it promises: a session ends not before its timeout has passed since any replica last heard it,
and at most two ticks later; and a heartbeat that was answered is good for a whole timeout from when
it was sent, whichever replica leads then. How:

* A deadline is when a report came, less the age it gives, plus the timeout. It is never lowered.
  Both sides count on their own clock, so clocks need not agree.
* A session is judged GRACE_TICKS after its deadline: a replica may just have heard it, and its
  report is up to half a tick under way, a whole one if one is lost.
* A new leader gives every session its full timeout from when it leads: it cannot know whom the
  others have heard. Therefore a report is acknowledged only after a majority confirmed, in a round
  begun after it came, that this leader still leads: a later leader then starts later still.
* Once a session's expiry is proposed it may happen at any moment. A report that lists such a
  session, or one that is gone, is not acknowledged until the replica that sent it has seen that
  session end and leaves it out.
* If this loop stood still, what is in its sockets was not looked at. Every deadline moves by that
  span, for each session by at most one timeout since it was heard; and nobody is judged until the
  sockets have been served again and a majority has confirmed the leader. For a paused *follower*
  nothing moves: to its clients it looks dead, and they go elsewhere.

Reads no clock and touches no socket: it is told the time and given what to call.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from coordsvc.core.commands import ExpireSession
from coordsvc.core.records import Session
from coordsvc.server.session_reports import Heard
from coordsvc.server.stall import StallMeter

logger = logging.getLogger(__name__)

GRACE_TICKS = 1.25
"""One lost report (a tick until the next arrives) and a quarter for the way. With the turn of the
timer and the commit of the expiry this stays below the two ticks promised."""

PROPOSE_AGAIN_TICKS = 2.0
EXPIRIES_PER_TURN_MAX = 1000
"""So that ten thousand sessions lost at once neither make a huge entry nor stop the loop."""


@dataclass(frozen=True)
class SessionClockStatistics:
    is_judging: bool
    sessions: int
    expiries_proposed: int
    expiries_proposed_total: int
    reports_withheld: int
    stalls_total: int
    stalled_seconds_total: float


@dataclass(slots=True)
class _Deadline:
    at: float
    stalled_before: float
    """The sum of all stalls at the time it was set: only later ones move it."""


@dataclass(slots=True)
class _Proposed:
    attach_epoch: int
    at: float


@dataclass(frozen=True, slots=True)
class _Withheld:
    term: int
    report_id: int
    sessions: Heard


class SessionClock:
    """`sessions` is the replicated table. `confirm` calls back with True after a round of the
    present term, with False when this replica stops leading. `acknowledge(replica_id, term,
    report_id)` answers a report."""

    def __init__(
        self,
        *,
        tick_s: float,
        sessions: Callable[[], Mapping[int, Session]],
        propose: Callable[[ExpireSession], bool],
        confirm: Callable[[Callable[[bool], None]], None],
        acknowledge: Callable[[int, int, int], None],
    ) -> None:
        self._grace_s = GRACE_TICKS * tick_s
        self._propose_again_s = PROPOSE_AGAIN_TICKS * tick_s
        self._sessions = sessions
        self._propose = propose
        self._confirm = confirm
        self._acknowledge = acknowledge
        self._stall = StallMeter()
        self._term: int | None = None
        """The term this replica leads in; None while it does not."""
        self._suspended = False
        self._suspension = 0
        self._deadlines: dict[int, _Deadline] = {}
        self._queue: list[tuple[float, int]] = []
        """One entry a session, by a time at or before its deadline: raising one needs no search."""
        self._proposed: dict[int, _Proposed] = {}
        self._withheld: dict[int, _Withheld] = {}
        self._proposed_total = 0

    # --------------------------------------------------------------------------------- leadership

    def on_leading(self, term: int, now: float) -> None:
        """This replica leads and has applied everything from before its term."""
        self._clear()
        self._term = term
        for session in self._sessions().values():
            self._watch(session, now)

    def on_not_leading(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._term = None
        self._suspended = False
        self._suspension += 1
        self._deadlines.clear()
        self._queue.clear()
        self._proposed.clear()
        self._withheld.clear()

    # ------------------------------------------------------------------------------ what is applied

    def on_applied(
        self,
        opened: Iterable[int],
        closed: Iterable[int],
        now: float,
        *,
        attached: Iterable[int] = (),
        heard: Iterable[int] = (),
    ) -> None:
        """`attached`: sessions that were attached anew, perhaps with another timeout. Their client
        counts a whole one from when it asked, so the deadline is raised before it next pings.
        `heard`: those that wrote. The replica that they are attached to would report them, too,
        unless it ends before."""
        if self._term is None:
            return
        sessions = self._sessions()
        for session_id in chain(attached, heard):
            session = sessions.get(session_id)
            if session is not None:
                self._raise(session, now)
        for session_id in opened:
            session = sessions.get(session_id)
            if session is not None:
                self._watch(session, now)
        for session_id in closed:
            self._deadlines.pop(session_id, None)
            self._proposed.pop(session_id, None)
        self._answer_withheld()

    def _watch(self, session: Session, now: float) -> None:
        at = now + session.timeout_ms / 1000
        self._deadlines[session.session_id] = _Deadline(at, self._stall.stalled_seconds_total)
        heapq.heappush(self._queue, (at, session.session_id))

    # ----------------------------------------------------------------------------------- reports

    def on_report(
        self, replica_id: int, term: int, report_id: int, sessions: Heard, now: float
    ) -> None:
        """A report of `replica_id`, which may be this one. Dropped unless it is for the term this
        replica leads in; it is sent again until it is acknowledged."""
        self._observe(now)
        if term != self._term:
            return
        table = self._sessions()
        for session_id, age_ms in sessions:
            session = table.get(session_id)
            if session is not None:
                self._raise(session, now - max(0, age_ms) / 1000)
        report = _Withheld(term, report_id, sessions)
        self._confirm(lambda confirmed: self._on_confirmed(replica_id, report, confirmed))

    def _raise(self, session: Session, heard_at: float) -> None:
        deadline = self._deadlines.get(session.session_id)
        if deadline is None:
            return
        at = max(self._moved(deadline, session), heard_at + session.timeout_ms / 1000)
        deadline.at, deadline.stalled_before = at, self._stall.stalled_seconds_total

    def _moved(self, deadline: _Deadline, session: Session) -> float:
        """The deadline with the stalls since it was set."""
        stalled = self._stall.stalled_seconds_total - deadline.stalled_before
        return deadline.at + min(stalled, session.timeout_ms / 1000)

    def _on_confirmed(self, replica_id: int, report: _Withheld, confirmed: bool) -> None:
        if not confirmed or report.term != self._term:
            return
        # The latest that came, not the one of the highest number: the replica may have restarted.
        self._withheld.pop(replica_id, None)
        if self._may_acknowledge(report):
            self._acknowledge(replica_id, report.term, report.report_id)
        else:
            self._withheld[replica_id] = report

    def _may_acknowledge(self, report: _Withheld) -> bool:
        table = self._sessions()
        for session_id, _ in report.sessions:
            session = table.get(session_id)
            if session is None:
                return False
            proposed = self._proposed.get(session_id)
            if proposed is not None and proposed.attach_epoch == session.attach_epoch:
                return False
        return True

    def _answer_withheld(self) -> None:
        for replica_id, report in list(self._withheld.items()):
            if self._may_acknowledge(report):
                del self._withheld[replica_id]
                self._acknowledge(replica_id, report.term, report.report_id)

    # ----------------------------------------------------------------------------------- judging

    def turn(self, now: float) -> None:
        """Called by a timer every `stall.TURN_SECONDS`, whether this replica leads or not."""
        if self._observe(now) or self._term is None or self._suspended:
            return
        self._propose_again(now)
        self._judge(now)
        self._answer_withheld()

    def _observe(self, now: float) -> bool:
        """Whether the loop stood still until now. Asked before anything the time matters to, so
        that what came after a stall is not taken for what came before it."""
        excess = self._stall.turn(now)
        if not excess:
            return False
        logger.warning("loop.stalled", extra={"stalled_ms": int(excess * 1000)})
        if self._term is not None:
            self._suspend()
        return True

    def _suspend(self) -> None:
        """Judge nobody until a majority has confirmed this leader, in a round begun now, and then
        not before the next turn: meanwhile the sockets are served, and a leader that was deposed
        learns it."""
        self._suspension += 1
        suspension, self._suspended = self._suspension, True

        def resume(confirmed: bool) -> None:
            if confirmed and suspension == self._suspension:
                self._suspended = False

        self._confirm(resume)

    def _judge(self, now: float) -> None:
        sessions = self._sessions()
        for _ in range(EXPIRIES_PER_TURN_MAX):
            if not self._queue or self._queue[0][0] + self._grace_s > now:
                return
            _, session_id = heapq.heappop(self._queue)
            session, deadline = sessions.get(session_id), self._deadlines.get(session_id)
            if session is None or deadline is None:
                continue
            at = self._moved(deadline, session)
            if at + self._grace_s > now:
                heapq.heappush(self._queue, (at, session_id))
            elif not self._expire(session, now, at):
                heapq.heappush(self._queue, (at, session_id))
                return

    def _expire(self, session: Session, now: float, deadline: float) -> bool:
        assert self._term is not None
        command = ExpireSession(self._term, session.session_id, session.attach_epoch)
        if not self._propose(command):
            return False
        self._proposed[session.session_id] = _Proposed(session.attach_epoch, now)
        self._proposed_total += 1
        logger.info(
            "session.expiring",
            extra={
                "session_id": session.session_id,
                "timeout_ms": session.timeout_ms,
                "late_ms": int((now - deadline) * 1000),
                "term": self._term,
            },
        )
        return True

    def _propose_again(self, now: float) -> None:
        """An expiry comes to nothing if the session was attached meanwhile: it is alive then. One
        that is merely not decided for long is proposed once more; the second has no effect."""
        sessions = self._sessions()
        for session_id, proposed in list(self._proposed.items()):
            session = sessions.get(session_id)
            if session is None:
                del self._proposed[session_id]
            elif session.attach_epoch != proposed.attach_epoch:
                del self._proposed[session_id]
                self._watch(session, now)
            elif now - proposed.at >= self._propose_again_s:
                del self._proposed[session_id]
                if not self._expire(session, now, proposed.at):
                    self._proposed[session_id] = proposed
                    return

    def statistics(self) -> SessionClockStatistics:
        return SessionClockStatistics(
            is_judging=self._term is not None and not self._suspended,
            sessions=len(self._deadlines),
            expiries_proposed=len(self._proposed),
            expiries_proposed_total=self._proposed_total,
            reports_withheld=len(self._withheld),
            stalls_total=self._stall.stalls_total,
            stalled_seconds_total=self._stall.stalled_seconds_total,
        )
