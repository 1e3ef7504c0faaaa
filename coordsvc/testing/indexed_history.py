"""A history, looked through once for all checks: operations with their answers, and where they are.

Records that make no sense (an answer to nothing) are left out here; `check_history` tells of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from coordsvc.testing.history import (
    ERROR,
    OK,
    REFUSED,
    Applied,
    Invoke,
    Record,
    Return,
    Session,
)

WRITES = frozenset({"create", "set_data", "delete", "multi"})


@dataclass(slots=True)
class Operation:
    """`place`, `answer_place`: where the records are in the history. `seen`: the highest zxid that
    was answered on its session before it was invoked."""

    invoke: Invoke
    place: int
    seen: int
    answer: Return | None = None
    answer_place: int = -1

    @property
    def is_write(self) -> bool:
        return self.invoke.name in WRITES

    @property
    def is_ok(self) -> bool:
        return self.answer is not None and self.answer.outcome == OK

    @property
    def is_evaluated(self) -> bool:
        return self.answer is not None and self.answer.outcome in (OK, ERROR)

    @property
    def may_be_applied(self) -> bool:
        """As far as its own answer tells."""
        return self.answer is None or self.answer.outcome not in (ERROR, REFUSED)

    @property
    def zxid(self) -> int:
        """Of its answer; 0: not known."""
        return self.answer.zxid if self.answer is not None and self.is_evaluated else 0

    def records(self) -> list[Record]:
        return [self.invoke] if self.answer is None else [self.invoke, self.answer]


class IndexedHistory:
    """`operations` by number, in the order of their invocations; `sessions`: what was recorded of
    each, in order; `applied` is empty where the truth is not known."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.operations: dict[int, Operation] = {}
        self.sessions: dict[str, list[Session]] = {}
        self.applied: list[Applied] = []
        self._seen: dict[str, int] = {}
        self._reconnections: dict[str, list[int]] = {}
        for place, record in enumerate(records):
            self._add(place, record)

    def _add(self, place: int, record: Record) -> None:
        if isinstance(record, Invoke):
            self._add_invoke(place, record)
        elif isinstance(record, Return):
            self._add_return(place, record)
        elif isinstance(record, Applied):
            self.applied.append(record)
        elif isinstance(record, Session):
            self.sessions.setdefault(record.session, []).append(record)
            if record.state in ("suspended", "connected"):
                self._reconnections.setdefault(record.session, []).append(place)

    def _add_invoke(self, place: int, invoke: Invoke) -> None:
        seen = self._seen.get(invoke.session, 0) if invoke.session else 0
        self.operations.setdefault(invoke.op, Operation(invoke, place, seen))

    def _add_return(self, place: int, answer: Return) -> None:
        operation = self.operations.get(answer.op)
        if operation is None or operation.answer is not None:
            return
        operation.answer, operation.answer_place = answer, place
        session = operation.invoke.session
        if session and operation.zxid > self._seen.get(session, 0):
            self._seen[session] = operation.zxid

    def has_reconnected(self, session: str, after: int, before: int) -> bool:
        """Whether the session lost or found a replica between these places."""
        places = self._reconnections.get(session, [])
        at = bisect_right(places, after)
        return at < len(places) and places[at] < before
