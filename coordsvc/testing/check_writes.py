"""Writes against the truth: done as they were answered, whole, and once.

A write that was answered "ok" is there, at its zxid, with its paths and data, and nothing else is
at that zxid. One that certainly was not applied is nowhere. One that perhaps was is there once and
whole, or not at all. Where it is, is told by what it wrote: values that no other write has. A
refusal is true of the tree at the zxid of its answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coordsvc.paths import parent_of
from coordsvc.testing.check_retries import Write
from coordsvc.testing.history import ERROR, Applied, Change, Invoke, Record
from coordsvc.testing.indexed_history import IndexedHistory, Operation
from coordsvc.testing.truth import Truth, changes_of, parts_of
from coordsvc.testing.violation import Violation

CHECK = "writes"


def check_writes(history: IndexedHistory, truth: Truth, writes: list[Write]) -> list[Violation]:
    if not truth.is_complete:
        return []
    found_at = _where_found(truth, writes)
    violations = []
    for number, write in enumerate(writes):
        fault = _fault(truth, write, found_at.get(number, []))
        if fault:
            zxids = sorted({*found_at.get(number, ()), *(each.zxid for each in write)})
            found = [truth.applied[zxid] for zxid in zxids if zxid in truth.applied]
            violations.append(_violation(write, found, fault))
    for operation in history.operations.values():
        fault = _refusal_fault(truth, operation)
        if fault:
            assert operation.answer is not None
            text = f"{_name(operation)} at zxid {operation.zxid}: {fault}"
            violations.append(Violation(CHECK, text, operation.answer.time, operation.records()))
    return violations


def _where_found(truth: Truth, writes: list[Write]) -> dict[int, list[int]]:
    """Zxids at which there is a value of this write (its number in the list) and of no other; as
    often as the value is there."""
    writer: dict[str, int] = {}
    shared: set[str] = set()
    for number, write in enumerate(writes):
        for value in _values(write[0]):
            if writer.setdefault(value, number) != number:
                shared.add(value)
    found: dict[int, list[int]] = {}
    for effect in truth.effects:
        data = effect.data
        if effect.change != "deleted" and data in writer and data not in shared:
            found.setdefault(writer[data], []).append(effect.zxid)
    return found


def _values(operation: Operation) -> list[str]:
    values = [args.get("data") for _, args in parts_of(operation.invoke)]
    return [value for value in values if value is not None]


def _fault(truth: Truth, write: Write, found_at: list[int]) -> str:
    """Why the truth contradicts the answers; empty: it does not."""
    done = next((each for each in write if each.is_ok), None)
    if done is None and not any(each.may_be_applied for each in write):
        return f"it was not applied, and is found at zxid {found_at[0]}" if found_at else ""
    if len(set(found_at)) > 1 or len(found_at) > len(_values(write[0])):
        return f"it was done more than once, at zxids {found_at}"
    zxid = found_at[0] if found_at else 0
    if done is None:
        return _difference(truth, write[0].invoke, {}, zxid) if zxid else ""
    zxid = done.zxid or zxid
    if not zxid:
        return ""
    assert done.answer is not None
    result = done.answer.result
    return _difference(truth, done.invoke, result, zxid) or _version_fault(truth, done, zxid)


def _difference(truth: Truth, invoke: Invoke, result: Mapping[str, Any], zxid: int) -> str:
    """Between what the write was to change and what its zxid did change. Without a result the
    names of sequential znodes are not known."""
    applied = truth.applied.get(zxid)
    found = applied.changes if applied is not None else []
    expected = changes_of(invoke, result)
    is_same = len(expected) == len(found) and all(
        _is_same(wanted, change, is_prefix=not result)
        for wanted, change in zip(expected, found, strict=True)
    )
    if is_same:
        return ""
    return f"it was to change {_shown(expected)}; zxid {zxid} changed {_shown(found)}"


def _is_same(wanted: Change, found: Change, *, is_prefix: bool) -> bool:
    is_path = found.path == wanted.path or (is_prefix and found.path.startswith(wanted.path))
    if not is_path or found.change != wanted.change:
        return False
    if found.change == "deleted":
        return True
    return found.data == wanted.data and (
        found.owner == wanted.owner or found.change == "data_changed"
    )


def _shown(changes: Sequence[Change]) -> str:
    if not changes:
        return "nothing"
    return ", ".join(f"{each.path} ({each.change}, {each.data!r})" for each in changes)


def _version_fault(truth: Truth, done: Operation, zxid: int) -> str:
    assert done.answer is not None
    result = done.answer.result
    results = result.get("results", []) if done.invoke.name == "multi" else [result]
    parts = parts_of(done.invoke)
    paths = [args["path"] for _, args in parts]
    for (name, args), own in zip(parts, results, strict=False):
        if name != "set_data" or not own or "version" not in own or paths.count(args["path"]) > 1:
            continue
        point = truth.at(args["path"], zxid)
        if point is not None and point.version != own["version"]:
            return f"it was answered version {own['version']}, which is {point.version}"
    return ""


def _refusal_fault(truth: Truth, operation: Operation) -> str:
    answer, zxid = operation.answer, operation.zxid
    name, args = operation.invoke.name, operation.invoke.args
    if answer is None or answer.outcome != ERROR or not zxid or not operation.is_write:
        return ""
    path = args.get("path", "")
    if answer.code == "NODE_EXISTS" and name == "create":
        return "" if truth.is_there(path, zxid) else f"there is no {path}"
    if answer.code == "NO_NODE" and name != "multi":
        wanted = parent_of(path) if name == "create" else path
        return f"there is {wanted}" if truth.is_there(wanted, zxid) else ""
    if answer.code == "BAD_VERSION" and name != "multi":
        point = truth.at(path, zxid)
        is_right = point is not None and point.version == args.get("version")
        return f"version {args.get('version')} is the one it has" if is_right else ""
    return ""


def _violation(write: Write, found: Sequence[Applied], fault: str) -> Violation:
    last = next((each for each in reversed(write) if each.answer is not None), write[-1])
    time = last.answer.time if last.answer is not None else last.invoke.time
    records: list[Record] = [record for each in write for record in each.records()]
    text = f"{_name(last)}: {fault}"
    return Violation(CHECK, text, time, [*records, *found])


def _name(operation: Operation) -> str:
    invoke = operation.invoke
    path = f" {invoke.args['path']}" if "path" in invoke.args else ""
    return f"operation {invoke.op} ({invoke.name}{path})"
