"""Sessions and their ephemerals, where the truth is known.

* An ephemeral goes with its session, or because a client deleted it; and it does go: at the zxid
  that ends the session none is left, and none is made for a session that has ended.
* A session expires not before its timeout has passed since it was certainly alive: since it was
  opened, since the invocation of its last write that was answered, since it began to look for the
  replica it found. An answered read proves nothing: any replica gives it, also one that is cut off.
* A session that its client has given up is gone soon. How soon depends on the replicas, so that is
  judged only where nothing was wrong with them (any more), and they went on working, long enough.
* What has ended stays so: it is not opened again, and answers nothing of later zxids. Whom a client
  was told to be closed has ended.
"""

from __future__ import annotations

from coordsvc.testing.history import Applied, Fault, Record, Session
from coordsvc.testing.indexed_history import IndexedHistory, Operation
from coordsvc.testing.truth import Truth, parts_of
from coordsvc.testing.violation import Violation

CHECK = "ephemerals"

HEALED = "healed"
"""Recorded as a fault when all faults are over."""

ROUNDING_S = 0.01
"""The truth's times may be those of another clock, in milliseconds."""

LATE_S = 5.0
"""For an expiry to be noticed and committed, and for an election in between."""

QUIET_S_MAX = 2.0
"""Between two changes: while the replicas work, clients write more often."""


def check_ephemerals(history: IndexedHistory, truth: Truth) -> list[Violation]:
    if not truth.is_complete:
        return []
    return [
        *_Sweep(history).run(),
        *_early_expiries(history, truth),
        *_late_expiries(history, truth),
        *_answers_after_the_end(history, truth),
        *_closed_in_vain(history, truth),
    ]


# ---------------------------------------------------------------------------------- the znodes


class _Sweep:
    """Through what was applied."""

    def __init__(self, history: IndexedHistory) -> None:
        self._history = history
        self._owners: dict[str, str] = {}
        self._owned: dict[str, dict[str, None]] = {}
        self._ended: dict[str, Applied] = {}
        self._opened: dict[str, Applied] = {}
        self._deletes: dict[str, list[Operation]] = {}
        for operation in history.operations.values():
            for name, args in parts_of(operation.invoke) if operation.is_write else ():
                if name == "delete":
                    self._deletes.setdefault(args["path"], []).append(operation)

    def run(self) -> list[Violation]:
        violations: list[Violation] = []
        for applied in self._history.applied:
            violations += self._sessions(applied)
            violations += self._znodes(applied)
            violations += self._left_behind(applied)
        return violations

    def _sessions(self, applied: Applied) -> list[Violation]:
        violations = []
        for session in applied.opened:
            earlier = self._opened.get(session)
            if earlier is not None:
                text = f"session {session} is opened a second time"
                violations.append(_violation(applied, text, earlier))
            self._opened[session] = applied
        for session in applied.closed:
            earlier = self._ended.get(session)
            if earlier is not None:
                text = f"session {session} ends a second time"
                violations.append(_violation(applied, text, earlier))
            self._ended[session] = applied
        return violations

    def _znodes(self, applied: Applied) -> list[Violation]:
        violations = []
        for change in applied.changes:
            path = change.path
            if change.change == "created" and change.owner:
                self._owners[path] = change.owner
                self._owned.setdefault(change.owner, {})[path] = None
                if change.owner in self._ended:
                    text = f"{path} is made for session {change.owner}, which has ended"
                    violations.append(_violation(applied, text, self._ended[change.owner]))
            elif change.change == "deleted" and path in self._owners:
                owner = self._owners.pop(path)
                del self._owned[owner][path]
                if owner not in applied.closed and not self._is_asked_for(path, applied):
                    text = f"{path} is deleted; session {owner} lives, and nobody asked for it"
                    violations.append(_violation(applied, text))
        return violations

    def _is_asked_for(self, path: str, applied: Applied) -> bool:
        return any(
            operation.zxid == applied.zxid
            if operation.is_ok and operation.zxid
            else operation.may_be_applied and operation.invoke.time <= applied.time + ROUNDING_S
            for operation in self._deletes.get(path, ())
        )

    def _left_behind(self, applied: Applied) -> list[Violation]:
        return [
            _violation(applied, f"session {session} ends, and leaves {', '.join(left)} behind")
            for session in applied.closed
            if (left := self._owned.get(session))
        ]


# --------------------------------------------------------------------------------- the sessions


def _early_expiries(history: IndexedHistory, truth: Truth) -> list[Violation]:
    opened = {session: each for each in history.applied for session in each.opened}
    writes: dict[str, list[Operation]] = {}
    for operation in history.operations.values():
        if operation.is_write and operation.is_evaluated and operation.zxid:
            writes.setdefault(operation.invoke.session, []).append(operation)
    violations = []
    for session, closed in truth.closed.items():
        timeout_s = _timeout_s(history, session)
        if not closed.expired or not timeout_s:
            continue
        proofs: list[tuple[float, Record]] = [
            (each.invoke.time, each.invoke) for each in writes.get(session, ())
        ]
        proofs += _attachments(history.sessions.get(session, []))
        if session in opened:
            proofs.append((opened[session].time, opened[session]))
        proofs = [proof for proof in proofs if proof[0] <= closed.time]
        alive_at, proof = max(proofs, key=lambda proof: proof[0], default=(-timeout_s, closed))
        if closed.time < alive_at + timeout_s - ROUNDING_S:
            after_s = closed.time - alive_at
            text = (
                f"session {session} expires {after_s:.3f} s after it was alive; its timeout is "
                f"{timeout_s:.3f} s"
            )
            violations.append(_violation(closed, text, proof))
    return violations


def _timeout_s(history: IndexedHistory, session: str) -> float:
    records = history.sessions.get(session, ())
    return next((each.timeout for each in records if each.state == "opened"), 0.0)


def _attachments(records: list[Session]) -> list[tuple[float, Record]]:
    """It was attached some time between the loss of one replica and the finding of another."""
    return [
        (before.time, before)
        for before, record in zip(records, records[1:], strict=False)
        if (before.state, record.state) == ("suspended", "connected")
    ]


def _late_expiries(history: IndexedHistory, truth: Truth) -> list[Violation]:
    """Of sessions that are still there at the end."""
    faults = [each for each in history.records if isinstance(each, Fault)]
    if faults and faults[-1].fault != HEALED:
        return []
    sound_since = faults[-1].time if faults else 0.0
    times = [each.time for each in history.applied]
    violations = []
    for session, records in history.sessions.items():
        given_up = next((each for each in records if each.state == "lost"), None)
        if given_up is None or session in truth.closed:
            continue
        since = max(given_up.time, sound_since)
        due = since + _timeout_s(history, session) + LATE_S
        if _is_at_work(times, since, due):
            text = f"session {session} is still there {due - since:.1f} s after its client gave up"
            violations.append(Violation(CHECK, text, due, [given_up]))
    return violations


def _is_at_work(times: list[float], since: float, until: float) -> bool:
    at = since
    for each in times:
        if each < since:
            continue
        if each - at > QUIET_S_MAX:
            return False
        at = each
        if at > until:
            return True
    return False


def _answers_after_the_end(history: IndexedHistory, truth: Truth) -> list[Violation]:
    violations = []
    for operation in history.operations.values():
        closed = truth.closed.get(operation.invoke.session)
        if closed is None or not operation.is_ok or operation.zxid < closed.zxid:
            continue
        assert operation.answer is not None
        text = (
            f"session {operation.invoke.session} ended at zxid {closed.zxid}, and operation "
            f"{operation.invoke.op} ({operation.invoke.name}) of it was done at {operation.zxid}"
        )
        records: list[Record] = [closed, *operation.records()]
        violations.append(Violation(CHECK, text, operation.answer.time, records))
    return violations


def _closed_in_vain(history: IndexedHistory, truth: Truth) -> list[Violation]:
    violations = []
    for session, records in history.sessions.items():
        for record in records:
            if record.state != "closed":
                continue
            closed = truth.closed.get(session)
            if closed is None or closed.time > record.time + ROUNDING_S:
                text = f"session {session} has not ended, and its client was told so"
                violations.append(Violation(CHECK, text, record.time, [record]))
    return violations


def _violation(applied: Applied, text: str, other: Record | None = None) -> Violation:
    records: list[Record] = [applied] if other is None else [other, applied]
    return Violation(CHECK, f"zxid {applied.zxid}: {text}", applied.time, records)
