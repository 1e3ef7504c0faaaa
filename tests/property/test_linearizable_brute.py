"""The checker of linearizability against one that tries every order, and against the core.

Goal: it finds an order exactly when there is one. Method: small histories, made by letting
operations take effect one after the other, and mutants of them, go to both. Where sessions end the
checker promises less than all there is (each component has its own end); so there the brute
force says twice what it thinks, with as much and with less strictness, and the checker is between.
"""

from __future__ import annotations

import copy
from collections import Counter
from random import Random
from typing import Any

import pytest

from coordsvc.core.commands import (
    EPHEMERAL,
    EPHEMERAL_SEQUENTIAL,
    NO_CALLER,
    PERSISTENT,
    PERSISTENT_SEQUENTIAL,
    Caller,
    CheckOp,
    Created,
    CreateOp,
    DataSet,
    DeleteOp,
    MultiDone,
    MultiOp,
    Refusal,
    SetDataOp,
)
from coordsvc.core.queries import exists, get_children, get_data
from coordsvc.errors import ErrorCode
from coordsvc.testing.linearizable import check_linearizable
from tests.property.linearizable_brute import (
    Op,
    is_linearizable,
    mutated,
    records_of,
    some_history,
    some_operation,
)
from tests.property.linearizable_long import long_history
from tests.unit.core.harness import Harness

# ------------------------------------------------------------- against every order there is


SMALL_ONES = 500


@pytest.mark.parametrize("seed", range(4))
def test_the_checker_agrees_with_trying_every_order(seed: int) -> None:
    verdicts: Counter[tuple[str, bool]] = Counter()
    for number in range(SMALL_ONES):
        rng = Random(1000 * seed + number)
        made = some_history(rng)
        assert is_linearizable(made, is_strict=True), f"the maker is wrong: {made}"
        for ops in (made, mutated(rng, made), mutated(rng, made)):
            verdicts[_compare(ops), ops is made] += 1
    assert verdicts["orderable", True] == SMALL_ONES
    assert verdicts["orderable", False] > SMALL_ONES * 0.9
    assert verdicts["not orderable", False] > SMALL_ONES * 0.5


def _compare(ops: list[Op]) -> str:
    violations = check_linearizable(records_of(ops))
    shown = "\n".join(map(str, [*sorted(ops, key=lambda op: op.invoked), *violations]))
    if is_linearizable(ops, is_strict=True):
        assert not violations, shown
        return "orderable"
    if not is_linearizable(ops, is_strict=False):
        assert violations, shown
        return "not orderable"
    return "undecided"


# -------------------------------------------------------------------------- long histories


@pytest.mark.parametrize("seed", range(8))
def test_long_histories_are_decided_in_few_steps(seed: int) -> None:
    """The limit is two hundred times fewer steps than the search may take by default. That there is
    no order takes longer to say."""
    rng = Random(seed)
    ops = long_history(rng)
    assert [str(one) for one in check_linearizable(records_of(ops), steps_max=10_000)] == []
    wrong = rng.choice([op for op in ops[100:] if op.name == "get_data" and op.outcome == "ok"])
    wrong.result["version"] += 1
    violations = check_linearizable(records_of(ops))
    assert len(violations) == 1
    assert "no order explains" in violations[0].text
    assert violations[0].time == wrong.returned


# ------------------------------------------------------------------------- against the core

MODES = {
    "persistent": PERSISTENT,
    "ephemeral": EPHEMERAL,
    "persistent_sequential": PERSISTENT_SEQUENTIAL,
    "ephemeral_sequential": EPHEMERAL_SEQUENTIAL,
}


class _Core:
    """Asks the core what a history would ask it, and answers as a history does."""

    def __init__(self) -> None:
        self._harness = Harness()
        self._sessions = {name: self._harness.open_session() for name in ("s1", "s2")}

    def ask(self, name: str, args: dict[str, Any], session: str) -> tuple[str, dict[str, Any]]:
        path = args.get("path", "")
        state = self._harness.state
        if name == "exists":
            stat = exists(state, path, ())
            assert not isinstance(stat, Refusal)
            if stat is None:
                return "", {"exists": False}
            owner = self._name(stat.ephemeral_owner)
            return "", {"exists": True, "version": stat.version, "owner": owner}
        if name == "get_data":
            found = get_data(state, path, ())
            if isinstance(found, Refusal):
                return ErrorCode(found.code).name, {}
            return "", {"data": _text(found[0]), "version": found[1].version}
        if name == "get_children":
            page = get_children(state, path, ())
            if isinstance(page, Refusal):
                return ErrorCode(page.code).name, {}
            return "", {"names": [child.name for child in page.children]}
        return self._write(name, args, session)

    def _write(self, name: str, args: dict[str, Any], session: str) -> tuple[str, dict[str, Any]]:
        caller = Caller(self._sessions[session]) if session else NO_CALLER
        result = self._harness.result(_core_op(name, args), caller)
        if isinstance(result, Refusal):
            is_multi = name == "multi"
            return ErrorCode(result.code).name, {
                "index": result.operation_index
            } if is_multi else {}
        if isinstance(result, MultiDone):
            return "", {"results": [_answered(one) for one in result.results]}
        return "", _answered(result)

    def _name(self, session_id: int) -> str:
        names = {number: name for name, number in self._sessions.items()}
        return names[session_id] if session_id else ""


def _text(data: bytes | None) -> str | None:
    return data.decode() if data is not None else None


def _answered(result: object) -> dict[str, Any]:
    if isinstance(result, Created):
        return {"path": result.path}
    return {"version": result.stat.version} if isinstance(result, DataSet) else {}


def _core_op(name: str, args: dict[str, Any]) -> Any:
    if name == "multi":
        return MultiOp(tuple(_core_op(one["name"], one) for one in args["ops"]))
    path, data = args["path"], args.get("data")
    version = -1 if args.get("version") is None else args["version"]
    if name == "create":
        encoded = data.encode() if data is not None else None
        return CreateOp(path, encoded, MODES[args["mode"]])
    if name == "set_data":
        return SetDataOp(path, data.encode() if data is not None else None, version)
    return DeleteOp(path, version) if name == "delete" else CheckOp(path, version)


def _answered_by_the_core(rng: Random, count: int) -> list[Op]:
    """One operation after the other."""
    core = _Core()
    ops = []
    for number in range(count):
        name, args = some_operation(rng)
        session = rng.choice(("", "s1", "s2"))
        if "ephemeral" in str(args):
            session = session or "s1"
        code, result = core.ask(name, args, session)
        outcome = "error" if code else "ok"
        time = 2 * number
        ops.append(Op(name, args, session, time, time + 1, outcome, code, result))
    return ops


def test_what_the_core_answers_is_what_the_checker_expects_and_nothing_else() -> None:
    """One after the other there is one order; so each answer but that of the core is a violation,
    at the latest where it was given."""
    answers: Counter[tuple[str, str]] = Counter()
    wrong_ones = 0
    for seed in range(40):
        rng = Random(seed)
        ops = _answered_by_the_core(rng, 60)
        assert [str(one) for one in check_linearizable(records_of(ops))] == []
        answers.update((op.name, op.code) for op in ops)
        for op in rng.sample(ops, 16):
            right = copy.deepcopy((op.outcome, op.code, op.result))
            if _is_made_wrong(op):
                violations = check_linearizable(records_of(ops))
                assert violations, f"op {ops.index(op) + 1} was not found: {op}"
                wrong_ones += 1
            op.outcome, op.code, op.result = right
    assert wrong_ones > 200
    for name in ("create", "set_data", "delete", "multi", "exists", "get_data", "get_children"):
        assert answers[name, ""] > 20, name
    for name, code in (
        ("create", "NO_NODE"),
        ("create", "NODE_EXISTS"),
        ("create", "NO_CHILDREN_FOR_EPHEMERALS"),
        ("set_data", "BAD_VERSION"),
        ("delete", "NOT_EMPTY"),
        ("multi", "BAD_VERSION"),
    ):
        assert answers[name, code] > 5, (name, code)


def _is_made_wrong(op: Op) -> bool:
    """The answer is another one, that no state explains which a session's end may lead to."""
    if "version" in op.result:
        op.result["version"] += 1
    elif "names" in op.result:
        op.result["names"] = [*op.result["names"], "zz"]
    elif "path" in op.result and op.result["path"][-1].isdigit():
        op.result["path"] = op.result["path"][:-1] + "x"
    elif op.name in ("create", "set_data", "delete") and op.outcome == "ok":
        op.outcome, op.code, op.result = "error", "NO_CHILDREN_FOR_EPHEMERALS", {}
    elif op.code == "NO_NODE" and op.name == "get_data":
        op.outcome, op.code, op.result = "ok", "", {"data": "never written", "version": 0}
    else:
        return False
    return True
