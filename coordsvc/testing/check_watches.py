"""What watches tell: what they were set for, all of it, once, in order, before anything shows it.

* An event is of the watch's path and kind, and of a change that happened at its zxid.
* A watch that lasts tells of every matching change after the zxid it was set at, in the order in
  which they were made, several of one zxid too; over reconnects nothing is missing or doubled. What
  is not told is covered by a gap. How far it has told is known by its events and its progress.
* A one-shot watch tells of the first matching change, and of nothing after that. Only after its
  session has lost its replica may that be what the watch missed meanwhile: see
  `Expectations.may_resume_with`. What is recorded of a watch outside of a session does not say
  whether it resumed.
* Before an answer on a session come all events of the session's watches up to the answer's zxid.
* Events of one session's watches have growing zxids, as far as their records tell: each watch may
  be read by a task of its own, which makes its records a moment later than another's.

Without the truth in the history, the changes are those that acknowledged writes have made.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from coordsvc.testing.history import (
    Event,
    Gap,
    Progress,
    Record,
    Return,
    Session,
    WatchEnd,
    WatchSet,
)
from coordsvc.testing.indexed_history import IndexedHistory
from coordsvc.testing.truth import Truth
from coordsvc.testing.violation import Violation
from coordsvc.testing.watch_expectations import ONE_SHOT, Expectations
from coordsvc.testing.watched import CHECK, Lasting, OneShot, Watched

RECORDED_LATE_S = 0.02
"""By so much the records of two watches may be out of order."""

_OfWatch: TypeAlias = Event | Gap | Progress | WatchEnd


def check_watches(history: IndexedHistory, truth: Truth) -> list[Violation]:
    sweep = _Sweep(history, truth)
    for record in history.records:
        sweep.take(record)
    return sweep.violations


class _Sweep:
    """Through the records in their order."""

    def __init__(self, history: IndexedHistory, truth: Truth) -> None:
        self.violations: list[Violation] = []
        self._history = history
        self._truth = truth
        self._expectations = Expectations(truth)
        self._watches: dict[str, Watched] = {}
        self._of_session: dict[str, dict[str, Watched]] = {}
        self._orders: dict[str, _Order] = {}

    def take(self, record: Record) -> None:
        if isinstance(record, Return):
            self._answer(record)
        elif isinstance(record, Event | Gap | Progress | WatchEnd):
            self._tell(record)
        elif isinstance(record, WatchSet):
            self._set(record)
        elif isinstance(record, Session) and record.state in ("suspended", "connected"):
            for watched in self._of_session.get(record.session, {}).values():
                watched.has_resumed = True

    def _set(self, record: WatchSet) -> None:
        make = OneShot if record.kind in ONE_SHOT else Lasting
        watched = make(record, self._truth, self._expectations)
        self._watches[record.watch] = watched
        if record.session:
            self._of_session.setdefault(record.session, {})[record.watch] = watched

    def _tell(self, record: _OfWatch) -> None:
        watched = self._watches.get(record.watch)
        if watched is None:
            text = f"{record.watch} is no watch that was set"
            self.violations.append(Violation(CHECK, text, record.time, [record]))
            return
        if isinstance(record, Event):
            self._note(watched.event(record))
            self._check_session_order(watched.watch, record)
        elif isinstance(record, Gap):
            watched.gap(record)
        elif isinstance(record, Progress):
            self._note(watched.progress(record.zxid, record))
        else:
            watched.is_over = True
        if watched.is_over:
            self._of_session.get(watched.watch.session, {}).pop(record.watch, None)

    def _answer(self, record: Return) -> None:
        operation = self._history.operations.get(record.op)
        if operation is None or operation.answer is not record or not operation.zxid:
            return
        watches = self._of_session.get(operation.invoke.session)
        if not watches:
            return
        # The answer to a write that is sent again is older than what its replica has applied.
        is_now = not operation.is_write
        for watched in list(watches.values()):
            self._note(watched.progress(operation.zxid, record, is_now=is_now))

    def _check_session_order(self, watch: WatchSet, record: Event) -> None:
        if not watch.session:
            return
        order = self._orders.setdefault(watch.session, _Order())
        earlier = order.take(record)
        if earlier is not None:
            text = f"session {watch.session}: zxid {record.zxid} is told after {earlier.zxid}"
            self.violations.append(Violation(CHECK, text, record.time, [earlier, record]))

    def _note(self, violation: Violation | None) -> None:
        if violation is not None:
            self.violations.append(violation)


class _Order:
    """Of the events of one session."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque()
        self._highest: Event | None = None

    def take(self, event: Event) -> Event | None:
        """One of a higher zxid that was certainly told before this one."""
        recent = self._recent
        while recent and recent[0].time < event.time - RECORDED_LATE_S:
            earlier = recent.popleft()
            if self._highest is None or earlier.zxid > self._highest.zxid:
                self._highest = earlier
        recent.append(event)
        highest = self._highest
        return highest if highest is not None and highest.zxid > event.zxid else None
