"""From records to operations: what is to be put in order, within which time, with which answer.

Time is the place in the history, so that what a client did after another, at the same instant of
a simulated clock, comes after it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coordsvc.paths import ROOT, parent_of
from coordsvc.testing.history import ERROR, OK, REFUSED, Invoke, Record, Return
from coordsvc.testing.znode_model import MODELLED_CODES, Answer

FOREVER = sys.maxsize

READS = frozenset({"exists", "get_data", "get_children"})
WRITES = frozenset({"create", "set_data", "delete", "multi"})

UNSETTLED_CODES = frozenset({"OUTCOME_UNKNOWN", "RESULT_FORGOTTEN", "SYSTEM_ERROR"})
"""Errors that leave open whether the write was applied, and with what answer."""

UNSEEN = "(data that nobody reads)"
"""Stands for every value that no read returned: one is then as good as another."""

_MODES = {
    # mode: (is ephemeral, is sequential)
    "persistent": (False, False),
    "ephemeral": (True, False),
    "persistent_sequential": (False, True),
    "ephemeral_sequential": (True, True),
}


class Part(NamedTuple):
    """One operation, or one of a multi."""

    name: str
    path: str
    """For a sequential create: without the number; `made` is the path with it, where known."""
    data: str | None = None
    version: int | None = None
    owner: str = ""
    is_sequential: bool = False
    is_ephemeral: bool = False
    made: str = ""

    @property
    def parent(self) -> str:
        """`path` may end in "/" before the number is put there."""
        return self.path[: self.path.rfind("/")] or ROOT


@dataclass(slots=True, eq=False)
class Operation:
    """`invoked` and `returned` bound the time at which it took effect; FOREVER: it may also never
    have. `answer` is None when any would do."""

    invoke: Invoke
    invoked: int
    returned: int
    answer: Answer | None
    result: Return | None
    is_write: bool
    """It changes something, or may."""
    parts: list[Part] = field(default_factory=list)
    made_inside: frozenset[str] = frozenset()
    """What a multi makes or deletes, also one that fails: its parts see that."""


@dataclass(slots=True, eq=False)
class _Attempts:
    """An invocation and its repetitions."""

    invoke: Invoke
    invoked: int
    returned: int = FOREVER
    result: Return | None = None
    """The first that tells the outcome."""
    pending: int = 0
    """Attempts that may have been applied, for all that is known."""
    is_counted: bool = True


def operations_of(records: Sequence[Record]) -> list[Operation]:
    """By the time of the invocation; without those that say nothing."""
    gathered = _gather(records)
    seen = {
        attempts.result.result.get("data")
        for attempts in gathered
        if attempts.invoke.name == "get_data" and attempts.result is not None
    }
    operations = []
    for attempts in gathered:
        name = attempts.invoke.name
        if attempts.result is None and (name in READS or not attempts.pending):
            continue
        try:
            operations.append(_operation(attempts, seen))
        except (KeyError, TypeError) as error:
            message = f"op {attempts.invoke.op}: a {name} with a part missing: {error!r}"
            raise ValueError(message) from error
    operations.sort(key=lambda operation: operation.invoked)
    return operations


def _gather(records: Sequence[Record]) -> list[_Attempts]:
    gathered: list[_Attempts] = []
    attempts_of: dict[int, _Attempts] = {}
    invoked_at: dict[int, int] = {}
    synced_at: dict[str, int] = {}
    for place, record in enumerate(sorted(records, key=lambda record: record.time)):
        if isinstance(record, Invoke):
            invoked_at[record.op] = place
            attempts = attempts_of.get(record.repeats)
            if attempts is None:
                attempts = _begun(record, place, synced_at)
                gathered.append(attempts)
            attempts.pending += 1
            attempts_of[record.op] = attempts
        elif isinstance(record, Return):
            if record.op not in invoked_at:
                raise ValueError(f"op {record.op} returned, and was not invoked before")
            attempts = attempts_of[record.op]
            invoke = attempts.invoke
            if invoke.name == "sync" and record.outcome == OK and invoke.session:
                began = invoked_at[record.op]
                synced_at[invoke.session] = max(synced_at.get(invoke.session, 0), began)
            _note_return(attempts, place, record)
    return [attempts for attempts in gathered if attempts.is_counted]


def _begun(invoke: Invoke, place: int, synced_at: dict[str, int]) -> _Attempts:
    if invoke.name not in READS:
        return _Attempts(invoke, place, is_counted=invoke.name in WRITES)
    if invoke.args.get("consistency") == "linearizable":
        return _Attempts(invoke, place)
    synced = synced_at.get(invoke.session)
    if synced is None:
        return _Attempts(invoke, place, is_counted=False)
    return _Attempts(invoke, synced)


def _note_return(attempts: _Attempts, place: int, result: Return) -> None:
    is_error = result.outcome == ERROR and result.code not in UNSETTLED_CODES
    if result.outcome == REFUSED or (is_error and result.code not in MODELLED_CODES):
        # Not applied, for a reason that is not in the znodes.
        attempts.pending -= 1
    elif attempts.result is None and (result.outcome == OK or is_error):
        attempts.result = result
        attempts.returned = place


def _operation(attempts: _Attempts, seen: set[str | None]) -> Operation:
    invoke, result = attempts.invoke, attempts.result
    is_write = invoke.name in WRITES and (result is None or result.outcome == OK)
    operation = Operation(invoke, attempts.invoked, attempts.returned, None, result, is_write)
    if invoke.name == "multi":
        asked = invoke.args["ops"]
    else:
        asked = [{"name": invoke.name, **invoke.args}]
    results: list[dict[str, Any]] = [{}] * len(asked)
    if result is not None and result.outcome == OK:
        results = result.result["results"] if invoke.name == "multi" else [result.result]
        if len(results) != len(asked):
            raise ValueError(f"op {invoke.op}: {len(asked)} operations, {len(results)} results")
        answers = [_answer(one["name"], got) for one, got in zip(asked, results, strict=True)]
        operation.answer = ("multi", tuple(answers)) if invoke.name == "multi" else answers[0]
    elif result is not None:
        index = result.result["index"] if invoke.name == "multi" else -1
        operation.answer = ("error", result.code, index)
    operation.parts = [
        _part(one, got, invoke, seen) for one, got in zip(asked, results, strict=True)
    ]
    return operation


def _answer(name: str, result: dict[str, Any]) -> Answer:
    if name == "create":
        return (name, result["path"])
    if name == "set_data":
        return (name, result["version"])
    if name == "exists":
        return (name, result["version"], result["owner"]) if result["exists"] else (name,)
    if name == "get_data":
        return (name, result["data"], result["version"])
    if name == "get_children":
        return (name, tuple(result["names"]))
    return (name,)


def _part(
    asked: dict[str, Any], result: dict[str, Any], invoke: Invoke, seen: set[str | None]
) -> Part:
    name, path, version = asked["name"], asked["path"], asked.get("version")
    if version == -1:
        version = None
    data = asked.get("data")
    if data not in seen:
        data = UNSEEN
    if name != "create":
        return Part(name, path, data, version)
    mode = asked["mode"]
    if mode not in _MODES:
        raise ValueError(f"op {invoke.op}: znodes that are {mode} are not modelled")
    is_ephemeral, is_sequential = _MODES[mode]
    owner = invoke.session if is_ephemeral else ""
    made = result.get("path", "") if is_sequential else path
    return Part(name, path, data, version, owner, is_sequential, is_ephemeral, made)


def is_numbered(path: str, prefix: str, parent: str) -> bool:
    """Whether a sequential create of `prefix` may be what made `path`."""
    number = path[len(prefix) :]
    return (
        path.startswith(prefix)
        and len(number) >= 10
        and number.isdecimal()
        and parent_of(path) == parent
    )
