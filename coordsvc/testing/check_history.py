"""Everything a history can be judged by: what it contradicts of what is promised.

    python -m coordsvc.testing.check_history FILE...

prints what contradicts it, with the records that show it, and ends with 1 if there is anything.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from coordsvc.testing.check_ephemerals import check_ephemerals
from coordsvc.testing.check_holds import check_holds
from coordsvc.testing.check_reads import check_reads
from coordsvc.testing.check_retries import check_retries, writes_of
from coordsvc.testing.check_sessions import check_sessions
from coordsvc.testing.check_watches import check_watches
from coordsvc.testing.check_writes import check_writes
from coordsvc.testing.history import (
    ERROR,
    FORMAT,
    OK,
    REFUSED,
    UNKNOWN,
    Applied,
    Invoke,
    Record,
    Return,
    Run,
    WatchSet,
    encode,
    load,
)
from coordsvc.testing.indexed_history import IndexedHistory
from coordsvc.testing.linearizable import check_linearizable
from coordsvc.testing.truth import truth_of
from coordsvc.testing.violation import Violation

CHECK = "history"

_OUTCOMES = frozenset({OK, ERROR, REFUSED, UNKNOWN})


def check(records: Sequence[Record]) -> list[Violation]:
    """In the order of their times."""
    faults = check_form(records)
    if faults:
        return faults  # What does not fit together proves nothing.
    violations = check_rules(records)
    violations += check_linearizable(records)
    return sorted(violations, key=lambda violation: violation.time)


def check_rules(records: Sequence[Record]) -> list[Violation]:
    """All but linearizability, which takes longer than all others."""
    history = IndexedHistory(records)
    truth = truth_of(history)
    writes = writes_of(history)
    return [
        *check_sessions(history),
        *check_reads(history, truth),
        *check_watches(history, truth),
        *check_holds(history),
        *check_ephemerals(history, truth),
        *check_retries(writes),
        *check_writes(history, truth, writes),
    ]


# ------------------------------------------------------------------------------------ the form


def check_form(records: Sequence[Record]) -> list[Violation]:
    """Whether it is a history at all."""
    if not records or not isinstance(records[0], Run):
        return [Violation(CHECK, "it does not begin with a run", 0.0, list(records[:1]))]
    form = _Form(records[0])
    return [
        Violation(CHECK, fault, record.time, [record])
        for record in records[1:]
        if (fault := form.fault(record))
    ] + form.faults_of_run


class _Form:
    """`fault(record)` for one record after the other; empty: there is none."""

    def __init__(self, run: Run) -> None:
        self.faults_of_run: list[Violation] = []
        if run.format != FORMAT:
            text = f"its format is {run.format}; this version reads {FORMAT}"
            self.faults_of_run.append(Violation(CHECK, text, run.time, [run]))
        self._time = run.time
        self._zxid = 0
        self._invoked: dict[int, Invoke] = {}
        self._returned: set[int] = set()
        self._watches: set[str] = set()

    def fault(self, record: Record) -> str:
        before, self._time = self._time, record.time
        if record.time < before:
            return f"time goes back from {before} to {record.time}"
        if isinstance(record, Return):
            return self._return_fault(record)
        if isinstance(record, Invoke):
            return self._invoke_fault(record)
        if isinstance(record, Applied):
            last, self._zxid = self._zxid, record.zxid
            return "" if record.zxid > last else f"zxid {record.zxid} is applied after {last}"
        if isinstance(record, WatchSet):
            is_new = record.watch not in self._watches
            self._watches.add(record.watch)
            return "" if is_new else f"watch {record.watch} is set twice"
        return "a second run" if isinstance(record, Run) else ""

    def _return_fault(self, record: Return) -> str:
        if record.op not in self._invoked:
            return f"operation {record.op} returns, and was not invoked"
        if record.op in self._returned:
            return f"operation {record.op} returns twice"
        self._returned.add(record.op)
        return "" if record.outcome in _OUTCOMES else f"{record.outcome!r} is no outcome"

    def _invoke_fault(self, record: Invoke) -> str:
        if record.op in self._invoked:
            return f"operation {record.op} is invoked twice"
        self._invoked[record.op] = record
        if not record.repeats:
            return ""
        first = self._invoked.get(record.repeats)
        if first is None:
            return f"it repeats operation {record.repeats}, which was not invoked"
        is_same = (first.name, first.args, first.session, first.request_number) == (
            record.name,
            record.args,
            record.session,
            record.request_number,
        )
        return "" if is_same else f"it is not what operation {record.repeats} was"


# --------------------------------------------------------------------------------- the command


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        sys.stderr.write("which files?\n")
        return 2
    found = 0
    for name in arguments:
        try:
            records = load(Path(name))
        except (OSError, ValueError) as error:
            sys.stderr.write(f"{name}: {error}\n")
            return 2
        violations = check(records)
        found += len(violations)
        sys.stdout.write(f"{name}: {len(records)} records, {len(violations)} violations\n")
        for violation in violations:
            sys.stdout.write(report(violation))
    return 1 if found else 0


def report(violation: Violation) -> str:
    """The sentence, and the records that show it."""
    lines = encode(violation.records).decode().splitlines()
    return "".join([f"\n{violation}\n", *(f"    {line}\n" for line in lines)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
