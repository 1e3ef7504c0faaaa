"""Writes and their repetitions: each is done once, and answered as the first time.

Attempts are of one write when they have its session and request number. Told by answers alone:
attempts agree, a session's writes are done in the order of their numbers, each write has a zxid of
its own, and no sequential name is given to two. `check_writes` compares with the truth.
"""

from __future__ import annotations

from coordsvc.testing.history import ERROR, Record
from coordsvc.testing.indexed_history import IndexedHistory, Operation
from coordsvc.testing.violation import Violation

CHECK = "retries"

ZNODE_ERRORS = frozenset(
    {"NO_NODE", "NODE_EXISTS", "BAD_VERSION", "NOT_EMPTY", "NO_CHILDREN_FOR_EPHEMERALS"}
)
"""What a write is answered with when it was tried. The others are about the attempt."""

Write = list[Operation]
"""One write: its attempts, in the order of their invocations."""


def writes_of(history: IndexedHistory) -> list[Write]:
    by_first: dict[tuple[str, int, int], Write] = {}
    root: dict[int, int] = {}
    for number, operation in history.operations.items():
        invoke = operation.invoke
        if not operation.is_write:
            continue
        first = root[number] = root.get(invoke.repeats, number) if invoke.repeats else number
        request = invoke.request_number
        key = (invoke.session, request, 0) if request else ("", 0, first)
        by_first.setdefault(key, []).append(operation)
    return list(by_first.values())


def check_retries(writes: list[Write]) -> list[Violation]:
    return [
        *(violation for write in writes for violation in _disagreements(write)),
        *_out_of_order(writes),
        *_shared_zxids(writes),
        *_names_given_twice(writes),
    ]


def _disagreements(write: Write) -> list[Violation]:
    answered = [each for each in write if _is_verdict(each)]
    violations = []
    for operation in answered[1:]:
        first, answer = answered[0], operation.answer
        assert first.answer is not None and answer is not None
        was = (first.answer.outcome, first.answer.code, first.answer.result)
        now = (answer.outcome, answer.code, answer.result)
        if was != now:
            text = f"{_name(write)} was answered {_shown(first)} and then {_shown(operation)}"
        elif first.zxid and operation.zxid and first.zxid != operation.zxid:
            text = f"{_name(write)} was done at zxid {first.zxid}, and again at {operation.zxid}"
        else:
            continue
        records = [*first.records(), *operation.records()]
        violations.append(Violation(CHECK, text, answer.time, records))
    return violations


def _is_verdict(operation: Operation) -> bool:
    answer = operation.answer
    if answer is None or not operation.is_evaluated:
        return False
    return answer.outcome != ERROR or answer.code in ZNODE_ERRORS


def _shown(operation: Operation) -> str:
    assert operation.answer is not None
    answer = operation.answer
    return f"{answer.code or answer.outcome} {answer.result}"


def _name(write: Write) -> str:
    invoke = write[0].invoke
    number = f" (number {invoke.request_number})" if invoke.request_number else ""
    return f"{invoke.name} of session {invoke.session or 'none'}{number}"


def _first_verdict(write: Write) -> Operation | None:
    return next((each for each in write if _is_verdict(each) and each.zxid), None)


def _out_of_order(writes: list[Write]) -> list[Violation]:
    by_session: dict[str, list[tuple[int, Operation]]] = {}
    for write in writes:
        invoke, done = write[0].invoke, _first_verdict(write)
        if invoke.request_number and done is not None:
            numbered = by_session.setdefault(invoke.session, [])
            numbered.append((invoke.request_number, done))
    violations = []
    for session, numbered in by_session.items():
        numbered.sort(key=lambda each: each[0])
        for (number, done), (next_number, following) in zip(numbered, numbered[1:], strict=False):
            if following.zxid > done.zxid:
                continue
            text = (
                f"session {session}: number {next_number} was done at zxid {following.zxid}, "
                f"number {number} at {done.zxid}"
            )
            violations.append(_violation(text, done, following))
    return violations


def _shared_zxids(writes: list[Write]) -> list[Violation]:
    done_at: dict[int, Operation] = {}
    violations = []
    for write in writes:
        done = next((each for each in write if each.is_ok and each.zxid), None)
        if done is None:
            continue
        other = done_at.setdefault(done.zxid, done)
        if other is not done:
            text = f"{_name(write)} and {_name([other])} were both done at zxid {done.zxid}"
            violations.append(_violation(text, other, done))
    return violations


def _names_given_twice(writes: list[Write]) -> list[Violation]:
    given: dict[str, tuple[Write, Operation]] = {}
    violations = []
    for write in writes:
        for operation in write:
            for path in _sequential_paths(operation):
                other, first = given.setdefault(path, (write, operation))
                if other is not write:
                    violations.append(_violation(f"{path} was given twice", first, operation))
    return violations


def _sequential_paths(operation: Operation) -> list[str]:
    if not operation.is_ok or not operation.is_write or operation.answer is None:
        return []
    invoke, result = operation.invoke, operation.answer.result
    parts, results = [(invoke.args, result)], [result]
    if invoke.name == "multi":
        results = result.get("results", [])
        parts = list(zip(invoke.args["ops"], results, strict=False))
    return [
        own["path"]
        for args, own in parts
        if args.get("mode", "").endswith("sequential") and own and "path" in own
    ]


def _violation(text: str, other: Operation, operation: Operation) -> Violation:
    assert operation.answer is not None
    records: list[Record] = [*other.records(), *operation.records()]
    return Violation(CHECK, text, operation.answer.time, records)
