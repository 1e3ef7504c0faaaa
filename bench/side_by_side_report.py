"""The page that tells what was measured, made from its results: docs/performance.md.

    .venv/bin/python -m bench.side_by_side_report docs/performance.md

Beside it, with the same table for programs, a file that ends in .json. The plots are drawn by
`plots`, which needs another library.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.report_model import model_json, model_section
from bench.report_scale import scale_section
from bench.report_summary import SummaryRow, all_rows, as_json, marks, of_row, outcome_text, table
from bench.report_sweeps import plots_section
from bench.report_table import head, line, spread
from bench.side_by_side_results import (
    GENERATOR_CORES_MAX,
    OTHERS_CORES_MAX,
    RowResult,
    Run,
    load,
)
from bench.side_by_side_rows import DATA_BYTES, ROWS, Row
from bench.side_by_side_systems import COORDSVC

COLUMNS = (
    *("system", "operations/s", "p50 ms", "p99 ms"),
    *("leader us", "follower us", "all servers us", "fsyncs/s", "generator", "others"),
)

TITLE = """\
# Performance

<!-- Do not edit: written by bench/side_by_side_report.py. -->

coordsvc beside {peers}. Three servers of each run on one machine, together with the program that
makes the load; both get the same load, in turns, in the same minutes; and both acknowledge a write
after a majority has synced it to disk. What counts is the **ratio**: our figure divided by the
peer's. The **floor** of a row is what must be reached, the **goal** what is aimed at.
"""

MACHINES = "Measured on: {machines}.\n"

LEGEND = f"""\
`make bench` measures all of it again, `make bench ROW=W2` one row. For programs:
[performance.json](performance.json).

*ratio* is of the medians: of operations/s more is better, of everything else less. *Of the pairs*:
the least and the most of the ratios of runs that followed each other. Behind a workload stands the
door that ours is measured through; the peer's is its own. **\\*** means that the program that makes
the load used over {GENERATOR_CORES_MAX:.0%} of a core, so that perhaps not the servers were
measured; **†** that something else on the machine used over {OTHERS_CORES_MAX:.0%} of a core: such
a row is to be measured again.
"""

METHOD = f"""\
## How it is measured

All of it shares one machine, so the figures themselves say little about machines of their own, and
they vary from run to run: only ratios of the same minutes compare.

* Every server is a process with its data on disk. There is no setting here that trades durability
  for speed, and the peers run with their own default of syncing. Values have {DATA_BYTES} bytes.
* Each has done 200,000 operations or more a server before it is measured. Then they take turns, and
  each run lasts some seconds after a second that is not counted. Given is the median of the runs,
  and from the least to the most of them.
* The generator sends as many requests as it has replies for, so that always as many are under
  way (a closed loop: latency is what that many cost). It is one process, beside the servers on the
  same cores.
* Every reply is checked: its order, that it is no error, that the version it tells counts every
  acknowledged set once. Afterwards every znode is read at every server. A run in which anything is
  missing, or too much, ends the measurement; so do replicas with different digests, a change of
  leader, and fewer syncs than the acknowledged writes need.

In the tables of the rows *us* is what servers use of a CPU for one operation, in microseconds: of
followers, the mean. *fsyncs/s* are those of all servers together. *others* is what everything else
on the machine used meanwhile, of a core; the other systems, which idle, are part of it.
"""

LOSSES = """\
## Where it loses, and why

* **One request at a time** (W3, W4, W6). Each request is a message to parse and answer, and each
  batch a round between three processes; in Python either takes longer than in Java or Go. With 64
  requests in flight on a connection, these costs are shared, and what is left for each is less than
  the peers'. Whoever has many requests should have them under way together.
* **The Session stream beside ZooKeeper's protocol** (W1, S1-stream). gRPC's messages cost more than
  bare packets, and writes of a session are numbered: their results are kept on every replica until
  the client has them, so that a retry is applied once. ZooKeeper's writes have no numbers.
* **Unary gRPC** (W5, R2). A server of grpc.aio that does nothing reaches less than three servers of
  etcd ([decision 14](decisions/0014-what-a-unary-call-costs.md)). Clients that want more than a few
  thousand operations a second use a stream.
* **Idle sessions** (S1). A ping is answered when the leader has the session's renewal on record
  ([decision 11](decisions/0011-the-door-for-zookeepers-clients.md)); ZooKeeper answers it at once.
* **Restart** (P2). Every page and every record of the checkpoint is checked before it is used
  ([decision 7](decisions/0007-checkpoints-and-snapshots.md)), and the tree is made of Python's
  objects.
"""

ROWS_TITLE = "## The rows side by side\n"

NOT_MEASURED = "Not measured yet: `make bench ROW={row_id}`.\n"


def write_page(page: Path) -> None:
    """And the JSON beside it."""
    rows = all_rows()
    results = {row.row_id: result for row in ROWS if (result := load(row.row_id)) is not None}
    parts = [
        TITLE.format(peers=_peers(results.values())),
        outcome_text(rows),
        "\n".join([*table(rows), ""]),
        *_machines(rows),
        LEGEND,
        METHOD,
        LOSSES,
        plots_section(),
        ROWS_TITLE,
        *(_section(row, results.get(row.row_id)) for row in ROWS),
        scale_section(),
        model_section(),
    ]
    page.write_text("\n".join(parts))
    content = {"rows": as_json(rows), "cost_model": model_json()}
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=1)
    page.with_suffix(".json").write_bytes(encoded + b"\n")


def _peers(results: Iterable[RowResult]) -> str:
    """With their versions, as far as they were measured."""
    found = {
        name: description.partition(" with ")[0]
        for result in results
        for name, description in result.systems.items()
        if name != COORDSVC
    }
    if not found:
        return "its peers"
    return " and ".join(f"**{description}**" for description in found.values())


def _machines(rows: Sequence[SummaryRow]) -> list[str]:
    """Without the day and what else it did then: that stands at the rows."""
    found = dict.fromkeys(row.machine.partition(";")[0] for row in rows if row.machine)
    return [MACHINES.format(machines="; ".join(found))] if found else []


def summary(rows: Sequence[Row], results: Mapping[str, RowResult]) -> list[str]:
    """A line for each of these rows, whether it was measured or not."""
    return table(of_row(row, results.get(row.row_id)) for row in rows)


def _section(row: Row, result: RowResult | None) -> str:
    title = f"### {row.row_id}: {row.text}\n"
    if result is None:
        return f"{title}\n{NOT_MEASURED.format(row_id=row.row_id)}"
    runs = len(result.runs) // len(result.systems)
    measured = result.runs[0].outcome.seconds
    lines = [title, "```sh", result.command, "```", "", f"{result.machine}."]
    lines += [f"{'; '.join(result.systems.values())}. {runs} runs of {measured:.0f} s each.", ""]
    return "\n".join([*lines, *row_table(result), ""])


def row_table(result: RowResult) -> list[str]:
    """A line for each system."""
    lines = head((f"{result.row_id}: {COLUMNS[0]}", *COLUMNS[1:]))
    for system in result.systems:

        def figure(measure: Callable[[Run], float], form: str, system: str = system) -> str:
            return spread(result.figures(system, measure), form)

        def median(measure: Callable[[Run], float], form: str, system: str = system) -> str:
            return f"{statistics.median(result.figures(system, measure)):{form}}"

        lines.append(
            line(
                system,
                figure(lambda run: run.outcome.rate, ",.0f") + _marks(result.of(system)),
                figure(lambda run: 1000 * run.outcome.latency_s(50.0), ".2f"),
                figure(lambda run: 1000 * run.outcome.latency_s(99.0), ".2f"),
                median(lambda run: run.leader_cpu_us, ".1f"),
                median(lambda run: run.follower_cpu_us, ".1f"),
                median(lambda run: sum(run.cpu_us.values()), ".1f"),
                median(lambda run: run.fsyncs_per_s, ",.0f"),
                median(lambda run: run.outcome.generator_cores, ".0%"),
                median(lambda run: run.others_cores, ".0%"),
            )
        )
    return lines


def _marks(runs: Sequence[Run]) -> str:
    is_bound = any(run.is_generator_bound for run in runs)
    return marks(is_bound, any(run.is_disturbed for run in runs))


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
