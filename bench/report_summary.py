"""The first table of the page: every row, whoever measured it, in one form.

Rows come from `side_by_side`, from `scale` and from `failover`. What was never measured has a line,
too: a goal that is not reported on must not look as if there were none.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from bench import scale_results
from bench.failover_gaps import percentile
from bench.failover_results import FailoverResult, load_failover
from bench.report_table import head, line
from bench.scale_results import ScaleResult
from bench.scale_rows import ROWS as SCALE_ROWS
from bench.scale_rows import ScaleRow
from bench.side_by_side_results import RowResult, figure_of, ratio
from bench.side_by_side_results import load as load_row
from bench.side_by_side_rows import P50, P99, RATE, ROWS, Row
from bench.side_by_side_systems import COORDSVC

GOAL: Final = "goal"
FLOOR: Final = "floor"
BELOW: Final = "below the floor"
NOT_MEASURED: Final = "not measured"

ORDER: Final = (
    *("W1", "W2", "W3", "W4", "W5", "W6", "R1", "R2"),
    *("F1", "S1", "E1", "P1", "P2", "P3", "D1", "FLAT"),
)

OWN_GOALS: Final = ("D1",)
"""Rows of which the floor is of the ratio, the goal of our own figure."""

COLUMNS: Final = (
    *("row", "workload", "coordsvc", "the peer", "ratio", "of the pairs"),
    *("floor", "goal", "result", "repeat it with"),
)


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """`floor` and `goal` are bounds of the ratio (ours divided by the peer's), or, unless
    `floor_of_ratio` and `goal_of_ratio`, of our own figure in `unit`. None: not measured."""

    row_id: str
    text: str
    door: str
    measure: str
    unit: str
    less_is_better: bool
    peer: str
    peer_door: str
    floor: float
    floor_of_ratio: bool
    goal: float
    goal_of_ratio: bool
    command: str
    machine: str = ""
    ours: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    ratio_least: float | None = None
    ratio_most: float | None = None
    is_generator_bound: bool = False
    is_disturbed: bool = False

    @property
    def verdict(self) -> str:
        reached_goal = self._reaches(self.goal, self.goal_of_ratio)
        reached_floor = self._reaches(self.floor, self.floor_of_ratio)
        if reached_goal is None or reached_floor is None:
            return NOT_MEASURED
        if reached_goal and reached_floor:
            return GOAL
        return FLOOR if reached_floor else BELOW

    @property
    def is_lost(self) -> bool:
        """The peer does better."""
        if self.ratio is None:
            return False
        return self.ratio > 1 if self.less_is_better else self.ratio < 1

    def _reaches(self, bound: float, of_ratio: bool) -> bool | None:
        """None: not known."""
        figure = self.ratio if of_ratio else self.ours
        if figure is None:
            return None
        return figure <= bound if self.less_is_better else figure >= bound


def marks(is_generator_bound: bool, is_disturbed: bool) -> str:
    return " *" * is_generator_bound + " †" * is_disturbed


# -------------------------------------------------------------------------------- where from


def of_row(row: Row, result: RowResult | None) -> SummaryRow:
    is_rate = row.measure == RATE
    known = SummaryRow(
        row_id=row.row_id,
        text=row.text,
        door=row.door,
        measure=row.measure,
        unit="/s" if is_rate else "ms",
        less_is_better=not is_rate,
        peer=row.peer,
        peer_door=row.door_of(row.peer),
        floor=row.floor,
        floor_of_ratio=True,
        goal=row.goal,
        goal_of_ratio=True,
        command=f"make bench ROW={row.row_id}",
    )
    if result is None:
        return known
    found = ratio(row, result)
    scale = 1 if is_rate else 1000
    ours, theirs = (
        scale * statistics.median(result.figures(system, figure_of(row)))
        for system in (COORDSVC, row.peer)
    )
    return replace(
        known,
        machine=result.machine,
        ours=ours,
        theirs=theirs,
        ratio=found.median,
        ratio_least=found.least,
        ratio_most=found.most,
        is_generator_bound=any(run.is_generator_bound for run in result.runs),
        is_disturbed=any(run.is_disturbed for run in result.runs),
    )


def of_scale(result: ScaleResult) -> SummaryRow:
    ours, theirs = result.values(COORDSVC), []
    peer = next((each for each in result.systems if each != COORDSVC), "")
    if peer:
        theirs = result.values(peer)
    pairs = [our / their for our, their in zip(ours, theirs, strict=False) if their]
    has_ratio = bool(pairs) and statistics.median(theirs) > 0
    return SummaryRow(
        row_id=result.row_id,
        text=result.text,
        door=result.door,
        measure=result.measure,
        unit=result.unit,
        less_is_better=True,
        peer=peer,
        peer_door="",
        floor=result.floor,
        floor_of_ratio=result.of_ratio,
        goal=result.goal,
        goal_of_ratio=result.of_ratio and result.row_id not in OWN_GOALS,
        command=f"make bench ROW={result.row_id}",
        machine=result.machine,
        ours=statistics.median(ours) if ours else None,
        theirs=statistics.median(theirs) if theirs else None,
        ratio=statistics.median(ours) / statistics.median(theirs) if has_ratio else None,
        ratio_least=min(pairs) if has_ratio else None,
        ratio_most=max(pairs) if has_ratio else None,
    )


def of_failover(result: FailoverResult | None) -> SummaryRow:
    """Only of leaders that were killed; both clients' gaps."""
    gaps: dict[str, list[float]] = {}
    for each in result.rounds if result is not None else ():
        if each.fault == "kill":
            gaps.setdefault(each.system, []).extend(client.gap_s for client in each.clients)
    theirs = next((gap for system, gap in gaps.items() if system != COORDSVC), [])
    ours = gaps.get(COORDSVC, [])
    p99s = [percentile(each, 99) if each else None for each in (ours, theirs)]
    return SummaryRow(
        row_id="P3",
        text="leader killed -9: longest gap between acknowledged writes that a client sees, "
        f"p99 of {len(ours)} gaps",
        door="gRPC Session stream",
        measure="p99",
        unit="s",
        less_is_better=True,
        peer="ZooKeeper" if theirs else "",
        peer_door="its own client",
        floor=1.0,
        floor_of_ratio=False,
        goal=0.4,
        goal_of_ratio=False,
        command="make failover",
        machine=result.machine if result is not None else "",
        ours=p99s[0],
        theirs=p99s[1],
        ratio=p99s[0] / p99s[1] if p99s[0] and p99s[1] else None,
    )


def of_unmeasured(row: ScaleRow) -> SummaryRow:
    return SummaryRow(
        row_id=row.row_id,
        text=row.text,
        door=row.door,
        measure=row.measure,
        unit=row.unit,
        less_is_better=True,
        peer="",
        peer_door="",
        floor=row.floor,
        floor_of_ratio=row.of_ratio,
        goal=row.goal,
        goal_of_ratio=row.of_ratio and row.row_id not in OWN_GOALS,
        command=f"make bench ROW={row.row_id}",
    )


def all_rows() -> list[SummaryRow]:
    """In the order of ORDER; variants behind what they vary, anything else at the end."""
    rows = [of_row(row, load_row(row.row_id)) for row in ROWS]
    scale = {result.row_id: of_scale(result) for result in scale_results.load_all()}
    rows += [
        *scale.values(),
        *(of_unmeasured(row) for row in SCALE_ROWS if row.row_id not in scale),
    ]
    rows.append(of_failover(load_failover()))
    places = {row_id: place for place, row_id in enumerate(ORDER)}
    return sorted(rows, key=lambda row: places.get(row.row_id.partition("-")[0], len(places)))


# ------------------------------------------------------------------------------------- in words


def outcome_text(rows: Sequence[SummaryRow]) -> str:
    """What is reached and what is lost, before anything else."""
    by_verdict: dict[str, list[str]] = {GOAL: [], FLOOR: [], BELOW: [], NOT_MEASURED: []}
    for row in rows:
        by_verdict[row.verdict].append(row.row_id)
    words = {
        GOAL: "reach their goal",
        FLOOR: "reach their floor, not their goal",
        BELOW: "are **below their floor**",
        NOT_MEASURED: "are not measured",
    }
    lines = [f"Of {len(rows)} rows:", ""]
    for verdict, ids in by_verdict.items():
        if ids:
            lines.append(f"* {len(ids)} {words[verdict]}: {', '.join(ids)}")
    lost = [row for row in rows if row.is_lost]
    text = "none" if not lost else "; ".join(f"{row.row_id} ({_loss(row)})" for row in lost)
    return "\n".join([*lines, f"* **lost to the peer**: {text}", ""])


def _loss(row: SummaryRow) -> str:
    assert row.ratio is not None
    is_time = row.less_is_better
    return f"{row.ratio:.2f} times {row.peer}'s {row.measure if is_time else 'rate'}"


def table(rows: Iterable[SummaryRow]) -> list[str]:
    return [*head(COLUMNS), *(line(*_cells(row)) for row in rows)]


def _cells(row: SummaryRow) -> list[str]:
    is_known = row.ours is not None
    verdict = f"**{row.verdict}**" if row.verdict == BELOW else row.verdict
    return [
        row.row_id,
        f"{row.text} ({row.door})" if row.door else row.text,
        _figure(row, row.ours),
        f"{_figure(row, row.theirs)} {row.peer}" if row.theirs is not None else "-",
        _ratio(row) if is_known else NOT_MEASURED,
        f"{row.ratio_least:.2f} to {row.ratio_most:.2f}" if row.ratio_least is not None else "-",
        _bound(row, row.floor, row.floor_of_ratio),
        _bound(row, row.goal, row.goal_of_ratio),
        verdict,
        f"`{row.command}`",
    ]


def _ratio(row: SummaryRow) -> str:
    if row.ratio is None:
        return "-"
    return f"**{row.ratio:.2f}**{marks(row.is_generator_bound, row.is_disturbed)}"


def _bound(row: SummaryRow, bound: float, of_ratio: bool) -> str:
    unit = "" if of_ratio else f" {row.unit}"
    return f"{'at most' if row.less_is_better else 'at least'} {bound:g}{unit}"


def _figure(row: SummaryRow, value: float | None) -> str:
    if value is None:
        return "-"
    shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    if not row.less_is_better:
        return f"{shown}{row.unit}"
    percentile = f"{row.measure} " if row.measure in (P50, P99) else ""
    return f"{percentile}{shown} {row.unit}"


def as_json(rows: Iterable[SummaryRow]) -> list[Mapping[str, object]]:
    return [{**asdict(row), "verdict": row.verdict, "is_lost": row.is_lost} for row in rows]
