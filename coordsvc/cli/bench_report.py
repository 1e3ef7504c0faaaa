"""What `coordsvc bench` shows: how it goes, and what came of it."""

from __future__ import annotations

import sys
from typing import TextIO

from coordsvc.cli.bench_load import Outcome, Plan, Tally
from coordsvc.cli.output import note, print_json, print_line

BAR_WIDTH = 24
LINE_EVERY_S = 1.0
"""Where nothing can be written over: a line each."""

CLIENT_CORES_MAX = 0.8
"""Of a client that uses more it is not known that the cluster, not it, was measured."""

PERCENTS = (50.0, 99.0, 99.9)


class Progress:
    """On a terminal a bar that is written over; else a line a second. On standard error, out of
    the way of the result."""

    def __init__(self, seconds: float, stream: TextIO | None = None) -> None:
        self._seconds = seconds
        self._stream = stream if stream is not None else sys.stderr
        self._is_terminal = self._stream.isatty()
        self._before = (0.0, 0)
        self._line_at = LINE_EVERY_S

    def __call__(self, passed: float, tally: Tally) -> None:
        if not self._is_terminal:
            if passed < self._line_at:
                return
            self._line_at += LINE_EVERY_S
        since, operations = self._before
        rate = (tally.operations - operations) / (passed - since) if passed > since else 0.0
        self._before = (passed, tally.operations)
        text = f"{passed:5.1f} of {self._seconds:g} s  {rate:10,.0f} operations/s"
        if errors := sum(tally.errors.values()):
            text += f"  {errors:,} errors"
        if self._is_terminal:
            done = round(BAR_WIDTH * passed / self._seconds)
            bar = "#" * done + "-" * (BAR_WIDTH - done)
            # Erase to the end of the line: what was there may have been longer.
            text = f"\r[{bar}] {text}\x1b[K"
        else:
            text += "\n"
        self._stream.write(text)
        self._stream.flush()

    def close(self) -> None:
        """The terminal's line is left empty."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def print_outcome(plan: Plan, outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(plan, outcome))
    else:
        for name, value in _lines(plan, outcome):
            print_line(f"{name:<13} {value}")
    if outcome.client_cores > CLIENT_CORES_MAX:
        text = (
            f"This program used {outcome.client_cores:.0%} of a core: it, and not the cluster, may "
            "be what was measured. Run several at once, on other machines."
        )
        note(text)


def _lines(plan: Plan, outcome: Outcome) -> list[tuple[str, str]]:
    errors = ", ".join(f"{count:,} {code}" for code, count in outcome.errors.most_common())
    latencies = (f"p{each:g} {1000 * outcome.latency_s(each):.2f} ms" for each in PERCENTS)
    load = (
        f"{_operation(plan)}, {plan.clients:,} clients, {plan.in_flight:,} in flight on each, "
        f"{plan.data_bytes:,} bytes, {outcome.seconds:.1f} s"
    )
    return [
        ("load", load),
        ("operations/s", f"{outcome.rate:,.0f}"),
        ("latency", "   ".join(latencies)),
        ("errors", errors or "0"),
        ("checked", f"{outcome.acknowledged_sets:,} acknowledged sets, all are there"),
        ("client's CPU", f"{outcome.client_cores:.0%} of a core"),
    ]


def _operation(plan: Plan) -> str:
    return f"linearizable {plan.operation}" if plan.linearizable else plan.operation


def _as_json(plan: Plan, outcome: Outcome) -> dict[str, object]:
    return {
        "operation": plan.operation,
        "linearizable": plan.linearizable,
        "clients": plan.clients,
        "in_flight": plan.in_flight,
        "data_bytes": plan.data_bytes,
        "seconds": round(outcome.seconds, 3),
        "operations": outcome.operations,
        "operations_per_s": round(outcome.rate, 1),
        "latency_ms": {f"p{each:g}": round(1000 * outcome.latency_s(each), 3) for each in PERCENTS},
        "errors": dict(outcome.errors),
        "acknowledged_sets": outcome.acknowledged_sets,
        "client_cores": round(outcome.client_cores, 3),
        "client_bound": outcome.client_cores > CLIENT_CORES_MAX,
    }
