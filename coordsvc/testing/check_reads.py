"""What reads show, against what is known to have happened.

A read is of one state, and the zxid of its answer says which: everything up to that zxid, and
nothing after it, whatever consistency was asked for. With the truth in the history that is checked
to the letter; without it, that no acknowledged write up to that zxid is missing. So a session reads
what it wrote: `check_sessions` sees to the zxids, this to what is shown at them.

An answer without a zxid shows some state that the session had not left behind when it asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coordsvc.paths import name_of
from coordsvc.testing.history import ERROR
from coordsvc.testing.indexed_history import IndexedHistory, Operation
from coordsvc.testing.truth import CHILDREN_AT_FIRST, NEVER, Point, Truth, parts_of
from coordsvc.testing.violation import Violation

CHECK = "reads"


def check_reads(history: IndexedHistory, truth: Truth) -> list[Violation]:
    reads = [
        each for each in history.operations.values() if each.is_evaluated and not each.is_write
    ]
    if truth.is_complete:
        judge: Callable[[Truth, Operation], str] = _against_everything
        faults = [(each, judge(truth, each)) for each in reads]
        lists = [each for each in reads if each.is_ok and each.invoke.name == "get_children"]
        faults += _children_faults(truth, lists)
    else:
        deletable = _perhaps_deleted(history)
        faults = [(each, _against_known(truth, deletable, each)) for each in reads]
    return [_violation(operation, fault) for operation, fault in faults if fault]


# ------------------------------------------------------------------------------ with the truth


def _against_everything(truth: Truth, operation: Operation) -> str:
    """Why the answer is false; empty: it is true, or says nothing."""
    assert operation.answer is not None
    name, path = operation.invoke.name, operation.invoke.args.get("path", "/")
    if operation.answer.outcome == ERROR:
        if operation.answer.code != "NO_NODE":
            return ""
        shown: Mapping[str, Any] = {"exists": False}
    elif name in ("exists", "get_data"):
        shown = {"exists": True, **operation.answer.result}
    else:
        return ""
    if not truth.points(path):
        is_there = path in CHILDREN_AT_FIRST
        return "" if shown["exists"] == is_there else f"{path} was never created"
    if operation.zxid:
        return _difference(shown, truth.at(path, operation.zxid))
    return _fits_nowhere(truth, path, operation.seen, shown)


def _difference(shown: Mapping[str, Any], point: Point | None) -> str:
    if point is None or not point.exists:
        return "it shows a znode where there is none" if shown["exists"] else ""
    if not shown["exists"]:
        return f"it shows none, and there is one since zxid {point.czxid}"
    was = {
        "version": point.version,
        "czxid": point.czxid,
        "mzxid": point.zxid,
        "owner": point.owner,
        "data": point.data,
    }
    for field, value in was.items():
        if field in shown and shown[field] != value:
            return f"it shows {field} {shown[field]!r}; at that zxid it is {value!r}"
    return ""


def _fits_nowhere(truth: Truth, path: str, seen: int, shown: Mapping[str, Any]) -> str:
    """Without a zxid: there must be such a state that was not over when the session had seen
    `seen`."""
    if not shown["exists"] and not truth.is_there(path, seen):
        return ""
    for point in reversed(truth.points(path)):
        if truth.next_after(path, point.zxid) <= seen:
            break
        if not _difference(shown, point):
            return ""
    return f"it shows {_shown(shown)}, which was over at zxid {seen}, or never was"


def _shown(shown: Mapping[str, Any]) -> str:
    if not shown["exists"]:
        return "no znode"
    return ", ".join(f"{name} {value!r}" for name, value in shown.items() if name != "exists")


def _children_faults(truth: Truth, reads: list[Operation]) -> list[tuple[Operation, str]]:
    by_path: dict[str, list[Operation]] = {}
    for operation in reads:
        if operation.zxid:
            by_path.setdefault(operation.invoke.args["path"], []).append(operation)
    faults = []
    for path, of_path in by_path.items():
        of_path.sort(key=lambda each: each.zxid)
        faults += _children_faults_of(truth, path, of_path)
    return faults


def _children_faults_of(
    truth: Truth, path: str, reads: list[Operation]
) -> list[tuple[Operation, str]]:
    """`reads` in the order of their zxids."""
    faults = []
    names = set(CHILDREN_AT_FIRST.get(path, ()))
    effects, at = truth.children.get(path, []), 0
    for operation in reads:
        while at < len(effects) and effects[at].zxid <= operation.zxid:
            name = name_of(effects[at].path)
            if effects[at].change == "created":
                names.add(name)
            else:
                names.discard(name)
            at += 1
        assert operation.answer is not None
        shown = operation.answer.result["names"]
        if not truth.is_there(path, operation.zxid):
            faults.append((operation, "it shows a znode where there is none"))
        elif shown != (expected := sorted(names)):
            missing, added = sorted(names - set(shown)), sorted(set(shown) - names)
            fault = f"missing are {missing}, too many {added}"
            if not missing and not added:
                fault = f"it shows {shown}, which is not {expected}"
            faults.append((operation, fault))
    return faults


# --------------------------------------------------------------------------- without the truth


def _perhaps_deleted(history: IndexedHistory) -> set[str]:
    """Paths that may have gone without anybody having been told."""
    paths: set[str] = set()
    for operation in history.operations.values():
        for name, args in parts_of(operation.invoke) if operation.is_write else ():
            if name == "delete" and not operation.is_ok and operation.may_be_applied:
                paths.add(args["path"])
            elif name == "create" and args.get("mode", "persistent") != "persistent":
                paths.add(args["path"])
    return paths


def _against_known(truth: Truth, perhaps_deleted: set[str], operation: Operation) -> str:
    assert operation.answer is not None
    answer, zxid = operation.answer, operation.zxid or operation.seen
    name, path = operation.invoke.name, operation.invoke.args.get("path", "/")
    if answer.outcome == ERROR and answer.code != "NO_NODE":
        return ""
    known = truth.at(path, zxid)
    if known is None or name not in ("exists", "get_data"):
        return ""
    is_shown = answer.outcome != ERROR and answer.result.get("exists", True)
    if not is_shown:
        is_missing = known.exists and path not in perhaps_deleted and not known.owner
        if is_missing and (operation.zxid or truth.next_after(path, known.zxid) == NEVER):
            return f"it shows none, and there is one since zxid {known.zxid}"
        return ""
    mzxid = answer.result["mzxid"]
    if mzxid < known.zxid:
        return f"it shows what was there at zxid {mzxid}; zxid {known.zxid} has changed it"
    if operation.zxid and mzxid > operation.zxid:
        return f"it shows a write of zxid {mzxid}, which is beyond its own"
    written = truth.at(path, mzxid)
    if written is None or written.zxid != mzxid:
        return ""
    if not written.exists:
        return f"it shows a znode that zxid {mzxid} has deleted"
    shown = answer.result.get("data", written.data)
    return (
        "" if shown == written.data else f"it shows {shown!r}; zxid {mzxid} wrote {written.data!r}"
    )


def _violation(operation: Operation, fault: str) -> Violation:
    assert operation.answer is not None
    invoke = operation.invoke
    path = invoke.args.get("path", "/")
    at = f"at zxid {operation.zxid}" if operation.zxid else f"after zxid {operation.seen}"
    return Violation(
        CHECK,
        f"operation {invoke.op} ({invoke.name} {path}) {at}: {fault}",
        operation.answer.time,
        operation.records(),
    )
