"""Histories for the checks' tests, written down step by step; and tables of such.

A case builds one history twice: as it should be, and with one thing altered that breaks a rule.
Each step takes a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from coordsvc.testing.check_history import check_form, check_rules
from coordsvc.testing.history import (
    ERROR,
    OK,
    Applied,
    Change,
    Event,
    Fault,
    Gap,
    Held,
    Invoke,
    Progress,
    Record,
    Released,
    Return,
    Run,
    Session,
    WatchEnd,
    WatchSet,
)
from coordsvc.testing.violation import Violation

S1 = "0000000000000001"
S2 = "0000000000000002"


def created(path: str, data: str | None = None, owner: str = "") -> Change:
    return Change("created", path, data, owner)


def changed(path: str, data: str | None = None) -> Change:
    return Change("data_changed", path, data)


def deleted(path: str) -> Change:
    return Change("deleted", path)


class HistoryBuilder:
    """`has_truth` False: `applied` records nothing."""

    def __init__(self, *, has_truth: bool = True) -> None:
        self.records: list[Record] = [Run(0.0, "simulation", 3)]
        self.time = 0.0
        self._has_truth = has_truth
        self._ops = 0

    def add(self, record: Record) -> None:
        self.records.append(record)

    def _now(self) -> float:
        self.time = round(self.time + 0.1, 7)
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += seconds

    # --------------------------------------------------------------------------- operations

    def invoke(
        self, name: str, *, session: str = S1, number: int = 0, repeats: int = 0, **args: Any
    ) -> int:
        if name in ("exists", "get_data", "get_children"):
            args.setdefault("consistency", "local")
        elif name == "set_data" or name == "delete":
            args.setdefault("version", None)
        elif name == "create":
            args.setdefault("mode", "persistent")
            args.setdefault("data", None)
        self._ops += 1
        client = f"c{session[-1:]}"
        self.add(Invoke(self._now(), self._ops, client, name, args, session, number, repeats))
        return self._ops

    def answer(self, op: int, zxid: int, **result: Any) -> None:
        self.add(Return(self._now(), op, OK, zxid, result=result))

    def error(self, op: int, code: str, zxid: int) -> None:
        self.add(Return(self._now(), op, ERROR, zxid, code))

    def outcome(self, op: int, outcome: str) -> None:
        self.add(Return(self._now(), op, outcome))

    def done(self, zxid: int, name: str, *, session: str = S1, **args: Any) -> int:
        """An operation with its answer, but for a read's result."""
        result = args.pop("result", {})
        op = self.invoke(name, session=session, **args)
        self.answer(op, zxid, **result)
        return op

    def get(self, zxid: int, path: str, data: str, mzxid: int, **more: Any) -> int:
        result = {"data": data, "version": more.pop("version", 0), "mzxid": mzxid}
        return self.done(zxid, "get_data", path=path, result=result, **more)

    def applied(
        self,
        zxid: int,
        *changes: Change,
        opened: tuple[str, ...] = (),
        closed: tuple[str, ...] = (),
        expired: bool = False,
    ) -> None:
        if self._has_truth:
            record = Applied(self._now(), zxid, list(changes), list(opened), list(closed), expired)
            self.add(record)

    def create(
        self, zxid: int, path: str, data: str | None = None, *, session: str = S1, **more: Any
    ) -> int:
        """Invoked, applied and answered."""
        op = self.invoke("create", session=session, path=path, data=data, **more)
        is_ephemeral = more.get("mode", "").startswith("ephemeral")
        self.applied(zxid, created(path, data, session if is_ephemeral else ""))
        self.answer(op, zxid, path=path)
        return op

    def set(self, zxid: int, path: str, data: str, version: int, *, session: str = S1) -> int:
        op = self.invoke("set_data", session=session, path=path, data=data)
        self.applied(zxid, changed(path, data))
        self.answer(op, zxid, version=version)
        return op

    def delete(self, zxid: int, path: str, *, session: str = S1) -> int:
        op = self.invoke("delete", session=session, path=path)
        self.applied(zxid, deleted(path))
        self.answer(op, zxid)
        return op

    def multi(self, zxid: int, *changes: Change, session: str = S1) -> int:
        names = {"created": "create", "data_changed": "set_data", "deleted": "delete"}
        ops: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for change in changes:
            own = {"name": names[change.change], "path": change.path}
            if change.change != "deleted":
                own["data"] = change.data
            ops.append(own)
            results.append({"path": change.path} if change.change == "created" else {})
        op = self.invoke("multi", session=session, ops=ops)
        self.applied(zxid, *changes)
        self.answer(op, zxid, results=results)
        return op

    # ------------------------------------------------------------------- sessions and holds

    def session(self, state: str, session: str = S1, timeout: float = 0.0) -> None:
        self.add(Session(self._now(), f"c{session[-1:]}", session, state, timeout))

    def open(self, zxid: int, session: str = S1, timeout: float = 4.0) -> None:
        self.applied(zxid, opened=(session,))
        self.session("opened", session, timeout)

    def held(self, fence: int, client: str = "c1", resource: str = "/lock") -> None:
        self.add(Held(self._now(), client, S1, resource, fence))

    def released(self, client: str = "c1", resource: str = "/lock") -> None:
        self.add(Released(self._now(), client, S1, resource))

    def fault(self, fault: str) -> None:
        self.add(Fault(self._now(), fault))

    # ------------------------------------------------------------------------------ watches

    def watch(
        self, kind: str, path: str, zxid: int, *, watch: str = "w1", session: str = S1
    ) -> None:
        self.add(WatchSet(self._now(), f"c{session[-1:]}", watch, kind, path, zxid, session))

    def event(self, zxid: int, event: str, path: str, watch: str = "w1") -> None:
        self.add(Event(self._now(), "c1", watch, event, path, zxid))

    def gap(self, zxid: int, watch: str = "w1") -> None:
        self.add(Gap(self._now(), "c1", watch, zxid))

    def progress(self, zxid: int, watch: str = "w1") -> None:
        self.add(Progress(self._now(), "c1", watch, zxid))

    def watch_end(self, watch: str = "w1") -> None:
        self.add(WatchEnd(self._now(), "c1", watch))


def tree(h: HistoryBuilder) -> None:
    """/p with a child, up to zxid 2, made by another session."""
    h.create(1, "/p", session=S2)
    h.create(2, "/p/x", "0", session=S2)


def resumed(h: HistoryBuilder) -> None:
    """The session loses its replica, and finds one."""
    h.session("suspended")
    h.session("connected")


Build = Callable[[HistoryBuilder, bool], None]


@dataclass
class Case:
    name: str
    build: Build
    text: str
    has_truth: bool


@dataclass
class Cases:
    """`check` names the rules that the altered histories break."""

    check: str
    all: list[Case] = field(default_factory=list)

    def add(self, text: str, *, has_truth: bool = True) -> Callable[[Build], Build]:
        """For a function that builds a history, altered if its second argument is true. `text` is
        in the violation then, and nothing is violated otherwise."""

        def register(build: Build) -> Build:
            name = build.__name__.strip("_")
            self.all.append(Case(name, build, text, has_truth))
            return build

        return register

    def find(self, case: Case, *, is_altered: bool) -> list[Violation]:
        builder = HistoryBuilder(has_truth=case.has_truth)
        case.build(builder, is_altered)
        assert check_form(builder.records) == []
        return check_rules(builder.records)

    def require_caught(self, case: Case) -> None:
        violations = self.find(case, is_altered=True)
        texts = [f"{violation.check}: {violation.text}" for violation in violations]
        caught = [
            violation
            for violation in violations
            if violation.check == self.check and case.text in violation.text
        ]
        assert caught, texts or "nothing was found"
        assert all(violation.records for violation in caught)
