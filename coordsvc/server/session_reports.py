"""Whom this replica has heard, and telling the leader, who alone decides which session expires.

Every replica, the leader's own included, does this the same way. A *report* lists the sessions
heard and how long ago, and is cumulative: a session stays in it until the leader has acknowledged
one that contains it, so a report that is lost costs nothing but time. The leader acknowledges a
report only after a majority confirmed, in a round begun after it came, that it still leads. Only
then may a heartbeat be answered: a replica that is cut off, or that asks a deposed leader, vouches
for nobody.

Reports leave at once for a heartbeat, those of one turn of the loop together, and every half tick
for what else was heard. Reads no clock and no socket: it is told the time, and given `send`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from coordsvc.errors import NoQuorumError, SessionExpiredError

Heard = tuple[tuple[int, int], ...]
"""(session id, milliseconds since it was heard)."""


class SendReport(Protocol):
    def __call__(self, report_id: int, sessions: Heard) -> bool:
        """Send it to the leader of the present term; False when none is known."""
        ...


@dataclass(frozen=True)
class SessionReportsStatistics:
    reports_total: int
    sessions_heard: int
    """Sessions last heard of here, as far as this replica knows."""
    sessions_unacknowledged: int
    heartbeats_waiting: int


@dataclass(slots=True)
class _Unacknowledged:
    heard_at: float
    first_report: int
    """Every report from this one on contains it, until one of them is acknowledged."""


@dataclass(slots=True)
class _Heartbeat:
    future: asyncio.Future[None]
    session_id: int
    first_report: int
    deadline: float


class SessionReports:
    """One replica's reports. `call_soon` runs a callback in the loop's next turn. `first_report`
    must be above the numbers that earlier processes of this replica used: a late acknowledgement
    of theirs must not count for a report of this one. The wall clock will do."""

    def __init__(
        self,
        *,
        tick_s: float,
        send: SendReport,
        call_soon: Callable[[Callable[[], None]], object],
        monotonic: Callable[[], float],
        first_report: int = 1,
    ) -> None:
        self._period_s = tick_s / 2
        self._patience_s = tick_s
        self._send = send
        self._call_soon = call_soon
        self._monotonic = monotonic
        self._unacknowledged: dict[int, _Unacknowledged] = {}
        self._heard_here: set[int] = set()
        self._heartbeats: list[_Heartbeat] = []
        self._first_report = self._next_report = first_report
        self._sent_at = -1e9
        self._unanswered_since: float | None = None
        self._flush_scheduled = False
        self._leader: tuple[int, int | None] = (0, None)

    # ------------------------------------------------------------------------------- what is heard

    def heard(self, session_id: int, now: float) -> None:
        """A request of this session, with its password proven, arrived at `now`."""
        self._heard(session_id, now)

    def _heard(self, session_id: int, now: float) -> int:
        """The first report that says so."""
        self._heard_here.add(session_id)
        entry = self._unacknowledged.get(session_id)
        if entry is None:
            entry = self._unacknowledged[session_id] = _Unacknowledged(now, self._next_report)
        elif now >= entry.heard_at:
            # What was reported of it is out of date, and only a later report counts for this.
            entry.heard_at, entry.first_report = now, self._next_report
        return entry.first_report

    def heartbeat(self, session_id: int, now: float) -> asyncio.Future[None]:
        """Done when the leader has taken a report with it; fails with NoQuorumError after about a
        tick, or SessionExpiredError if the session is seen to end meanwhile."""
        first_report = self._heard(session_id, now)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heartbeats.append(
            _Heartbeat(future, session_id, first_report, now + self._patience_s)
        )
        self._schedule_flush()
        return future

    def closed(self, session_ids: Iterable[int]) -> None:
        """These sessions were seen to end. The leader withholds its acknowledgement from a report
        that lists one of them, so what else waits is reported again without them."""
        ended = set(session_ids)
        self._heard_here -= ended
        for session_id in ended:
            self._unacknowledged.pop(session_id, None)
        kept: list[_Heartbeat] = []
        for heartbeat in self._heartbeats:
            if heartbeat.session_id not in ended:
                kept.append(heartbeat)
            elif not heartbeat.future.done():
                heartbeat.future.set_exception(
                    SessionExpiredError(f"session {heartbeat.session_id:#x} has ended")
                )
        self._heartbeats = kept
        if ended and kept:
            self._schedule_flush()

    # ------------------------------------------------------------------------------------ sending

    def turn(self, now: float, term: int, leader_id: int | None) -> None:
        """Called every turn of the timer."""
        if (term, leader_id) != self._leader:
            self._leader = (term, leader_id)
            self._sent_at, self._unanswered_since = -1e9, None
        if self._has_news and now - self._sent_at >= self._period_s:
            self._report(now)
        self._give_up(now)

    def on_acknowledged(self, report_id: int, now: float) -> None:
        """The leader of the present term took this report, and so all before it."""
        if not self._first_report <= report_id < self._next_report:
            return
        self._unanswered_since = None if report_id >= self._next_report - 1 else now
        done = [
            session_id
            for session_id, entry in self._unacknowledged.items()
            if entry.first_report <= report_id
        ]
        for session_id in done:
            del self._unacknowledged[session_id]
        waiting, self._heartbeats = self._heartbeats, []
        for heartbeat in waiting:
            if heartbeat.first_report > report_id:
                self._heartbeats.append(heartbeat)
            elif not heartbeat.future.done():
                heartbeat.future.set_result(None)

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        """All heartbeats of one turn of the loop in one report. While reports go unanswered they
        only grow, so they are then left to the timer."""
        self._flush_scheduled = False
        now = self._monotonic()
        since = self._unanswered_since
        if self._has_news and (since is None or now - since < self._period_s):
            self._report(now)

    @property
    def _has_news(self) -> bool:
        """And somebody to tell them to."""
        return bool(self._unacknowledged) and self._leader[1] is not None

    def _report(self, now: float) -> None:
        sessions = tuple(
            (session_id, max(0, int((now - entry.heard_at) * 1000)))
            for session_id, entry in self._unacknowledged.items()
        )
        before = (self._sent_at, self._unanswered_since)
        # All of this first: a leader that is a cluster of one acknowledges before `send` returns.
        report_id = self._next_report
        self._next_report += 1
        self._sent_at = now
        if self._unanswered_since is None:
            self._unanswered_since = now
        if not self._send(report_id, sessions):
            self._sent_at, self._unanswered_since = before

    def _give_up(self, now: float) -> None:
        kept: list[_Heartbeat] = []
        for heartbeat in self._heartbeats:
            if heartbeat.future.done():
                continue
            if heartbeat.deadline <= now:
                heartbeat.future.set_exception(
                    NoQuorumError("no leader confirmed by a majority has taken the heartbeat")
                )
            else:
                kept.append(heartbeat)
        self._heartbeats = kept

    def statistics(self) -> SessionReportsStatistics:
        return SessionReportsStatistics(
            reports_total=self._next_report - self._first_report,
            sessions_heard=len(self._heard_here),
            sessions_unacknowledged=len(self._unacknowledged),
            heartbeats_waiting=len(self._heartbeats),
        )
