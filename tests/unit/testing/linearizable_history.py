"""Writes histories by hand: what was asked, from when to when, and what came back."""

from __future__ import annotations

from typing import Any

from coordsvc.testing.history import Invoke, Record, Return, Session
from coordsvc.testing.linearizable import check_linearizable
from coordsvc.testing.violation import Violation

SEQUENTIAL = "persistent_sequential"
S1 = "1000000000000001"
S2 = "1000000000000002"


class History:
    """Collects operations; `records` puts them in the order of time."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._ops = 0

    def add(
        self,
        name: str,
        when: tuple[float, float | None],
        args: dict[str, Any],
        result: dict[str, Any] | str | None,
        *,
        session: str = "",
        repeats: int = 0,
    ) -> int:
        """`result`: a dict is ok, a text an error's code, "refused" or "unknown". Without a second
        time there is no return. Gives the operation's number."""
        self._ops += 1
        began, ended = when
        client = session or f"c{self._ops}"
        invoke = Invoke(began, self._ops, client, name, args, session, repeats and 1, repeats)
        self._records.append(invoke)
        if ended is not None:
            self._records.append(self._returned(ended, result))
        return self._ops

    def _returned(self, time: float, result: dict[str, Any] | str | None) -> Return:
        if isinstance(result, dict):
            code = result.pop("code", "")
            outcome = "error" if code else "ok"
            return Return(time, self._ops, outcome, code=code, result=result)
        assert result is not None
        if result in ("refused", "unknown"):
            return Return(time, self._ops, result)
        return Return(time, self._ops, "error", code=result)

    def create(
        self,
        path: str,
        when: tuple[float, float | None],
        result: str | None = None,
        *,
        data: str = "0",
        mode: str = "persistent",
        session: str = "",
        made: str = "",
        repeats: int = 0,
    ) -> int:
        args = {"path": path, "data": data, "mode": mode}
        answer = result or {"path": made or path}
        return self.add("create", when, args, answer, session=session, repeats=repeats)

    def set(
        self,
        path: str,
        data: str,
        when: tuple[float, float | None],
        result: int | str,
        *,
        version: int | None = None,
        session: str = "",
        repeats: int = 0,
    ) -> int:
        args = {"path": path, "data": data, "version": version}
        answer: Any = {"version": result} if isinstance(result, int) else result
        return self.add("set_data", when, args, answer, session=session, repeats=repeats)

    def delete(self, path: str, when: tuple[float, float | None], result: str | None = None) -> int:
        return self.add("delete", when, {"path": path, "version": None}, result or {})

    def get(
        self,
        path: str,
        when: tuple[float, float | None],
        result: tuple[str, int] | str,
        *,
        consistency: str = "linearizable",
        session: str = "",
    ) -> int:
        answer: Any = result
        if isinstance(result, tuple):
            answer = {"data": result[0], "version": result[1], "mzxid": 1}
        args = {"path": path, "consistency": consistency}
        return self.add("get_data", when, args, answer, session=session)

    def exists(self, path: str, when: tuple[float, float], owner: str | None) -> int:
        answer: dict[str, Any] = {"exists": False}
        if owner is not None:
            answer = {"exists": True, "version": 0, "czxid": 1, "mzxid": 1, "owner": owner}
        return self.add("exists", when, {"path": path, "consistency": "linearizable"}, answer)

    def names(self, path: str, when: tuple[float, float], *names: str) -> int:
        args = {"path": path, "consistency": "linearizable"}
        return self.add("get_children", when, args, {"names": list(names)})

    def multi(
        self,
        when: tuple[float, float | None],
        ops: list[dict[str, Any]],
        result: dict[str, Any] | str,
        *,
        session: str = "",
    ) -> int:
        return self.add("multi", when, {"ops": ops}, result, session=session)

    def session(self, time: float, session: str, state: str) -> None:
        self._records.append(Session(time, session, session, state))

    def records(self) -> list[Record]:
        return sorted(self._records, key=lambda record: record.time)

    def check(self) -> list[Violation]:
        return check_linearizable(self.records())

    def assert_good(self) -> None:
        assert [str(violation) for violation in self.check()] == []

    def assert_bad(self, *, op: int, paths: str) -> Violation:
        """There is no order of the answers up to that of `op`, and it is said of these paths."""
        (violation,) = self.check()
        assert violation.check == "linearizability"
        assert violation.text.startswith(f"{paths}: no order explains the answers up to that of")
        assert f" op {op} of " in violation.text, violation.text
        shown = [record for record in violation.records if isinstance(record, Return)]
        assert op in [record.op for record in shown]
        assert violation.time == next(record.time for record in shown if record.op == op)
        return violation


def set_op(path: str, data: str) -> dict[str, Any]:
    return {"name": "set_data", "path": path, "data": data, "version": None}


def create_op(path: str, mode: str = "persistent") -> dict[str, Any]:
    return {"name": "create", "path": path, "data": "0", "mode": mode}
