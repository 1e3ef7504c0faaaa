"""One watch, while a history is gone through: what it has told of so far, and still has to.

The first thing that is wrong with a watch is told of; what follows from that is not.
"""

from __future__ import annotations

from typing import Protocol

from coordsvc.testing.history import Event, Gap, Record, WatchSet
from coordsvc.testing.truth import Truth
from coordsvc.testing.violation import Violation
from coordsvc.testing.watch_expectations import Expectations, Expected, is_watched

CHECK = "watches"


class Watched(Protocol):
    """`has_resumed`: its session has lost or found a replica since it was set. `is_over`: it has
    nothing more to tell."""

    watch: WatchSet
    has_resumed: bool
    is_over: bool

    def event(self, record: Event) -> Violation | None: ...

    def gap(self, record: Gap) -> None: ...

    def progress(self, zxid: int, record: Record, *, is_now: bool = True) -> Violation | None:
        """`record` shows what has happened up to `zxid`. `is_now`: and that is all that was
        applied where it came from."""
        ...


class Lasting:
    """Tells of every change, until it is removed."""

    def __init__(self, watch: WatchSet, truth: Truth, expectations: Expectations) -> None:
        self.watch = watch
        self.has_resumed = False
        self.is_over = False
        self._truth = truth
        self._expected = expectations.after(watch)
        self._next = 0
        self._excused_up_to = 0
        self._last: Expected | None = None
        self._is_broken = False

    def event(self, record: Event) -> Violation | None:
        if self._is_broken:
            return None
        told = Expected(record.zxid, record.event, record.path)
        fault = _fault_of_its_own(self.watch, record, self.is_over) or self._take(told)
        self._last = told
        return self._broken(fault, record) if fault else None

    def _take(self, told: Expected) -> str:
        expected, begin = self._expected, self._next
        at = begin
        while at < len(expected) and expected[at].zxid <= told.zxid and expected[at] != told:
            at += 1
        is_found = at < len(expected) and expected[at] == told
        if not is_found and self._is_known(told.zxid):
            if told in expected[:begin]:
                return f"{_shown(told)} is told of twice, or too late"
            return f"{_shown(told)} never happened"
        if not is_found and self._last is not None and not _may_follow(self._last, told):
            return f"{_shown(told)} is told of after {_shown(self._last)}"
        for missing in expected[begin:at]:
            if missing.zxid > self._excused_up_to:
                return f"{_shown(told)} is told of, and {_shown(missing)} before it was not"
        self._next = at + 1 if is_found else at
        return ""

    def _is_known(self, zxid: int) -> bool:
        return self._truth.is_complete or zxid in self._truth.applied

    def gap(self, record: Gap) -> None:
        self._excused_up_to = max(self._excused_up_to, record.zxid)

    def progress(self, zxid: int, record: Record, *, is_now: bool = True) -> Violation | None:
        del is_now
        expected = self._expected
        while self._next < len(expected) and expected[self._next].zxid <= zxid:
            missing = expected[self._next]
            if missing.zxid > self._excused_up_to and not (self._is_broken or self.is_over):
                return self._broken(_missing(missing, zxid), record)
            self._next += 1
        return None

    def _broken(self, fault: str, record: Record) -> Violation:
        self._is_broken = True
        return _violation(self.watch, fault, record)


class OneShot:
    """Tells of one change, and is used up by it."""

    def __init__(self, watch: WatchSet, truth: Truth, expectations: Expectations) -> None:
        self.watch = watch
        self.has_resumed = not watch.session
        self.is_over = False
        self._truth = truth
        self._expectations = expectations
        self._expected = expectations.after(watch)
        self._has_gap = False

    def event(self, record: Event) -> Violation | None:
        told = Expected(record.zxid, record.event, record.path)
        fault = _fault_of_its_own(self.watch, record, self.is_over) or self._fault(told, record)
        self.is_over = True
        return _violation(self.watch, fault, record) if fault else None

    def _fault(self, told: Expected, record: Event) -> str:
        expected, truth = self._expected, self._truth
        if (expected and told == expected[0]) or (self._has_gap and told in expected):
            return ""
        if not truth.is_complete:
            if self.has_resumed:
                return ""
            if told.zxid not in truth.applied:
                is_first = not expected or told.zxid < expected[0].zxid
                return "" if is_first else f"{_shown(told)} comes after {_shown(expected[0])}"
        elif self.has_resumed and self._expectations.may_resume_with(self.watch, record):
            return ""
        if told in expected:
            return f"{_shown(told)} is told of; {_shown(expected[0])} came first"
        return f"{_shown(told)} never happened"

    def gap(self, record: Gap) -> None:
        del record
        self._has_gap = True

    def progress(self, zxid: int, record: Record, *, is_now: bool = True) -> Violation | None:
        expected = self._expected
        if self.is_over or self._has_gap or not expected or expected[0].zxid > zxid:
            return None
        if self.has_resumed and not is_now:
            # What it missed may be told of as a later change.
            return None
        self.is_over = True
        return _violation(self.watch, _missing(expected[0], zxid), record)


def _fault_of_its_own(watch: WatchSet, event: Event, is_over: bool) -> str:
    if is_over:
        return f"{event.event} {event.path} at zxid {event.zxid} is told of after its end"
    if not is_watched(watch, event):
        return f"{event.event} {event.path} is not what it watches"
    # Of a znode that was gone when it was set it may say so, with that zxid.
    is_late_news = event.event == "deleted" and event.zxid == watch.zxid and not watch.session
    if event.zxid <= watch.zxid and not is_late_news:
        return f"{event.event} {event.path} at zxid {event.zxid} was before it was set"
    return ""


def _may_follow(last: Expected, told: Expected) -> bool:
    """Of what no acknowledged write tells: a multi may change a znode's children twice."""
    if told.zxid != last.zxid:
        return told.zxid > last.zxid
    return told != last or told.event == "children_changed"


def _missing(missing: Expected, zxid: int) -> str:
    return f"zxid {zxid} was reached, and {_shown(missing)} not told of"


def _shown(expected: Expected) -> str:
    return f"{expected.event} {expected.path} at zxid {expected.zxid}"


def _violation(watch: WatchSet, fault: str, record: Record) -> Violation:
    where = f" of session {watch.session}" if watch.session else ""
    text = f"{watch.watch}{where} ({watch.kind} on {watch.path} after {watch.zxid}): {fault}"
    return Violation(CHECK, text, record.time, [watch, record])
