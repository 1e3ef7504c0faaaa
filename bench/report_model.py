"""The section of the page about the cost model: the fit, its misses, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bench import sweep_results
from bench.cost_model import DoorCost, Model, fit_model
from bench.cost_predictions import (
    MISS_MAX,
    Check,
    Cluster,
    Doors,
    bound,
    check_row,
    check_sweep,
    fit_doors,
    front_end_us,
    leader_us,
)
from bench.report_table import head, line
from bench.side_by_side_results import RowResult, load
from bench.side_by_side_rows import ROWS
from bench.sweep_results import SweepResult

FITTED_TO = ("clients", "reads", "model")

TITLE = "## The cost model\n"

TOO_LITTLE = "Needs the sweeps: `make bench ROW=clients,reads,model`.\n"

INTRODUCTION = """\
Throughput is bound by processor time as long as enough is in flight, and processor time is saved by
doing things once for many operations. In its simplest form, for a machine whose cores are all busy:

    operations/s = cores x 1,000,000 / (c + C / B)

*c* is what an operation costs in microseconds, at all three replicas together; *C* what each batch
costs besides, whatever is in it; *B* how many operations share a batch. Fitted by least squares of
the relative errors to every run of the sweeps (ours, closed loops, sets alone or gets alone), with
the operations of one sync of the leader as B for sets, and those that one read of a connection
brings for gets:

| | c | C | B is counted in |
|---|---|---|---|
| set | {sets.operation:.1f} us | {sets.batch:,.0f} us | turns (syncs of the leader's log) |
| local get | {gets.operation:.1f} us | {gets.batch:.1f} us | messages (reads of a connection) |

One B is not enough for sets: 128 clients with one request each fill a turn of the log, but each
request is still a message of its own. So a set's costs are fitted apart, for each replica by what
it does (all through ZooKeeper's protocol; `bench/cost_model.py`):

| microseconds of CPU | for each operation | for each batch | B |
|---|---|---|---|
| serving the client (the replica it is connected to) | {model.sets.door.operation:.2f} | \
{model.sets.door.message:.1f} | message |
| log, sync and apply (every replica) | {model.sets.apply:.2f} | {model.sets.turn:.0f} | turn |
| leading (the leader, besides) | {model.sets.lead:.2f} | {model.sets.lead_turn:.0f} | turn |
| a local get (the replica it is asked of) | {model.gets.operation:.2f} | \
{model.gets.message:.1f} | message |

How large batches get follows from what is in flight. In closed loops {model.turns_under_way:.1f}
turns were under way at a time (the median), so B = requests in flight / {model.turns_under_way:.1f}
for turns; and a message brought {model.message_share:.0%} of what its connection had in flight.
"""

CHECKS = """\
### Prediction and measurement

The model was fitted to the sweeps. The rows below are longer runs and were not used for it, nor
were mixed loads. *Cost* is of all three replicas, with the batches that were seen. The rate is what
the model says if every core that was free had been busy; *busy* is how much of them was.
"""

DOORS = """\
Other doors replace the line of serving the client, fitted to their rows alone:

"""

NO_MISS = "No row's cost is missed by more than {most:.0%}.\n"

MISSES = "**Cost missed by more than {most:.0%}**: {names}.\n"

RATES = """\
**Rate missed by more than {most:.0%}**: {names}. A rate is missed with its cost, or because cores
idled: replicas wait for disks and for each other, all the more the less is in flight. What bounds
the rate then is the time one request takes, of which this model says nothing.
"""

MIXED = """\
Mixed loads cost more than their parts: a get that waits for the sets before it on its connection
costs more than one that is answered as it comes.
"""

PAPER = """\
### Other machines, on paper

Nothing in this part was measured. A replica's loop is one thread: of a machine with many cores it
uses one, and its disk threads part of another. So with **one replica per machine the leader's loop
is the bound, and 4 cores or 16 make no difference**. Taken for it is all CPU of the leader's
process, disk threads included, which understates what the loop could do; not counted are the
network's own latency, which makes turns longer and batches larger, and interrupts. For five
replicas everything that the leader does more than a follower is taken to be done once per follower,
which overstates it. Clients are dealt out evenly; batches follow from what is in flight, as above.

"""

FRONT_ENDS = """\
### What would be built next for many cores

Of the {leader:.1f} us that a set costs the leader's loop with 12 x 64 in flight, {door:.1f} are for
its own clients; reads compete with writes for the same loop, a thing the table above leaves out.
*Front-ends* would take both away: processes beside the replica's own that own the doors. Each
parses, keeps its clients' order, answers reads from a tree of its own that follows the log in
shared memory as a follower does, and hands batches of encoded writes to the loop, which only
replicates, syncs and leads. The log, the snapshots and what is promised stay as they are. On paper,
with one core for the loop, one for the disk threads, and a front-end on each of the others:

"""

FRONT_ENDS_END = """\
A front-end applies every write ({apply:.1f} us of its own), so sets gain little once the leader's
loop is left with {core_us:.1f} us; the gain is in reads, which grow with the cores, and in that
neither waits for the other. Assumed: following the log costs a front-end what it costs a follower,
and taking batches from front-ends costs the loop no more than taking them from followers does now.
Beyond that, the leader's own work per operation is the bound, and only doing less for each, or
several trees with a log each, would move it; compiling the core was tried, and made it slower
([decision 13](decisions/0013-no-compiled-core.md)).
"""


def model_section() -> str:
    sweeps = [sweep for name in FITTED_TO if (sweep := sweep_results.load(name)) is not None]
    model = fit_model(sweeps)
    if model is None:
        return f"{TITLE}\n{TOO_LITTLE}"
    return section(model, sweeps, measured_rows())


def measured_rows() -> dict[str, RowResult]:
    """In closed loops; what is begun at a rate tells of no bound."""
    closed = [row for row in ROWS if not row.half_of]
    return {row.row_id: found for row in closed if (found := load(row.row_id)) is not None}


def section(model: Model, sweeps: Sequence[SweepResult], rows: Mapping[str, RowResult]) -> str:
    measured = [(row, rows[row.row_id]) for row in ROWS if row.row_id in rows]
    doors = fit_doors(model, measured)
    checks = [check_row(model, doors, row, result) for row, result in measured]
    known = [check for check in checks if check is not None]
    mixed = [check for sweep in sweeps for check in check_sweep(model, sweep)]
    parts = [
        TITLE,
        INTRODUCTION.format(sets=model.simple_sets, gets=model.simple_gets, model=model),
        CHECKS,
        *_door_lines(doors),
        *_check_lines([*known, *mixed]),
        *([MIXED] if any(check.miss < -MISS_MAX for check in mixed) else []),
        PAPER + "\n".join([*_paper_table(model), ""]),
        _front_ends(model),
    ]
    return "\n".join(parts)


def _door_lines(doors: Doors) -> list[str]:
    if not doors:
        return []
    lines = head(("door", "of", "for each operation", "for each message"))
    for (door, is_read), cost in doors.items():
        kind = "gets" if is_read else "sets"
        lines.append(line(door, kind, *_door_cells(cost)))
    return [DOORS + "\n".join([*lines, ""])]


def _door_cells(cost: DoorCost | None) -> tuple[str, str]:
    if cost is None:
        return "too few rows to tell", "-"
    return f"{cost.operation:.1f} us", f"{cost.message:.1f} us"


def _check_lines(checks: Sequence[Check]) -> list[str]:
    lines = head(
        (
            *("row", "operations a message", "a turn", "cost us", "predicted", "missed by"),
            *("operations/s", "predicted", "missed by", "busy"),
        )
    )
    for each in checks:
        lines.append(
            line(
                each.name,
                f"{each.batches.message:.1f}",
                "-" if each.name.startswith("R") else f"{each.batches.turn:.1f}",
                f"{each.us:.1f}",
                f"{each.predicted_us:.1f}",
                f"{each.miss:+.0%}",
                f"{each.rate:,.0f}",
                f"{each.predicted_rate:,.0f}",
                f"{each.rate_miss:+.0%}",
                f"{each.busy:.0%}",
            )
        )
    return ["\n".join([*lines, ""]), *_misses(checks)]


def _misses(checks: Sequence[Check]) -> list[str]:
    costs = [f"{each.name} ({each.miss:+.0%})" for each in checks if abs(each.miss) > MISS_MAX]
    rates = [
        f"{each.name} ({each.rate_miss:+.0%}, {each.busy:.0%} busy)"
        for each in checks
        if abs(each.rate_miss) > MISS_MAX
    ]
    said = MISSES if costs else NO_MISS
    lines = [said.format(most=MISS_MAX, names=", ".join(costs))]
    if rates:
        lines.append(RATES.format(most=MISS_MAX, names=", ".join(rates)))
    return lines


LOADS = ((12, 64), (128, 1), (1024, 16))
"""Connections, in flight on each."""


def _paper_table(model: Model) -> list[str]:
    lines = head(("cluster", "load", "leader, us a set", "sets/s", "local gets/s"))
    for replicas in (3, 5):
        for connections, in_flight in LOADS:
            cluster = Cluster(replicas)
            batches = model.batches(connections, in_flight)
            found = bound(model, cluster, connections, in_flight)
            lines.append(
                line(
                    f"{replicas} replicas, 4 or 16 cores each",
                    f"{connections:,} x {in_flight}",
                    f"{leader_us(model, cluster, batches):.1f}",
                    f"{found.sets:,.0f}",
                    f"{found.gets:,.0f}",
                )
            )
    return lines


def _front_ends(model: Model) -> str:
    connections, in_flight = LOADS[0]
    batches = model.batches(connections, in_flight)
    lines = head(
        (
            *("machines", "load", "leader, us a set", "front-end, us a set"),
            *("sets/s", "bound by", "local gets/s"),
        )
    )
    for cores, front_ends in ((4, 2), (16, 14)):
        cluster = Cluster(3, front_ends)
        for clients, each in LOADS:
            size = model.batches(clients, each)
            found = bound(model, cluster, clients, each)
            lines.append(
                line(
                    f"3 of {cores} cores, {front_ends} front-ends each",
                    f"{clients:,} x {each}",
                    f"{leader_us(model, cluster, size):.1f}",
                    f"{front_end_us(model, cluster, size):.1f}",
                    f"{found.sets:,.0f}",
                    found.sets_bound_by,
                    f"{found.gets:,.0f}",
                )
            )
    text = FRONT_ENDS.format(
        leader=leader_us(model, Cluster(3), batches), door=model.sets.door.us(batches) / 3
    )
    end = FRONT_ENDS_END.format(
        apply=model.sets.apply + model.sets.turn / batches.turn,
        core_us=leader_us(model, Cluster(3, 1), batches),
    )
    return text + "\n".join([*lines, "", end])


def model_json() -> Mapping[str, object] | None:
    sweeps = [sweep for name in FITTED_TO if (sweep := sweep_results.load(name)) is not None]
    model = fit_model(sweeps)
    return None if model is None else asdict(model)
