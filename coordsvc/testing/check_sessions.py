"""The order of each session: what its answers say of when they were given.

A session is a stream that goes on at other replicas: its requests run in the order in which they
were invoked, and what it has seen it never unsees. Told by the zxids of answers alone:

* writes take growing zxids;
* nothing is answered of a state before the one that an earlier answer was of;
* an operation invoked after an answer came is evaluated after it.

A read that was under way when the session lost its replica is asked again, and may then show what
was written behind it: only there a later invocation may have the lower zxid. A repetition is
answered as the first time, so it is in no order (`check_retries`).
"""

from __future__ import annotations

from coordsvc.testing.indexed_history import IndexedHistory, Operation
from coordsvc.testing.violation import Violation

CHECK = "session order"


def check_sessions(history: IndexedHistory) -> list[Violation]:
    violations: list[Violation] = []
    highest: dict[str, Operation] = {}
    last_write: dict[str, Operation] = {}
    for operation in history.operations.values():
        session, zxid = operation.invoke.session, operation.zxid
        if not session or not zxid or operation.invoke.repeats:
            continue
        violation = (
            _check_writes(operation, last_write.get(session))
            or _check_seen(operation)
            or _check_order(history, operation, highest.get(session))
        )
        if violation is not None:
            violations.append(violation)
        if session not in highest or zxid > highest[session].zxid:
            highest[session] = operation
        if operation.is_write and operation.is_ok:
            last_write[session] = operation
    return violations


def _is_too_low(operation: Operation, zxid: int) -> bool:
    """After something answered at `zxid`: a write that was done has a zxid of its own."""
    is_write = operation.is_write and operation.is_ok
    return operation.zxid <= zxid if is_write else operation.zxid < zxid


def _check_writes(operation: Operation, before: Operation | None) -> Violation | None:
    is_write = operation.is_write and operation.is_ok
    if before is None or not is_write or operation.zxid > before.zxid:
        return None
    return _violation(operation, f"was applied before {_shown(before)}, invoked earlier", before)


def _check_seen(operation: Operation) -> Violation | None:
    if not _is_too_low(operation, operation.seen):
        return None
    return _violation(
        operation, f"the session had seen zxid {operation.seen} before it was invoked"
    )


def _check_order(
    history: IndexedHistory, operation: Operation, highest: Operation | None
) -> Violation | None:
    if highest is None or not _is_too_low(operation, highest.zxid):
        return None
    session = operation.invoke.session
    if not highest.is_write and history.has_reconnected(
        session, operation.place, highest.answer_place
    ):
        return None
    return _violation(
        operation, f"was evaluated before {_shown(highest)}, invoked earlier", highest
    )


def _shown(operation: Operation) -> str:
    invoke = operation.invoke
    return f"operation {invoke.op} ({invoke.name}) at zxid {operation.zxid}"


def _violation(operation: Operation, text: str, other: Operation | None = None) -> Violation:
    assert operation.answer is not None
    session = operation.invoke.session
    return Violation(
        CHECK,
        f"session {session}: {_shown(operation)}: {text}",
        operation.answer.time,
        [*(other.records() if other is not None else ()), *operation.records()],
    )
