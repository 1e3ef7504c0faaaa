"""The page that tells what `failover` and `stability` measured, made from their results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.failover_clients import DATA_BYTES, INTERVAL_MS, SESSION_TIMEOUT_MS
from bench.failover_gaps import LONG_S, SOON_S, percentile
from bench.failover_results import (
    FailoverResult,
    Phase,
    StabilityResult,
    load_failover,
    load_stability,
)
from bench.failover_rounds import ACKS_BEFORE, FAULTS, ClientGap, Round

COLUMNS = (
    *("the leader is", "client at", "service", "gaps"),
    *("least", "p50", "p99", "most", "then", "on return", "errors", "sessions lost"),
)

INTRODUCTION = f"""\
# Failover and stability

<!-- Do not edit: written by bench/failover.py and bench/stability.py (`--report`). -->

How long a client waits for a write when the leader fails, and whether anybody is elected without
need. All servers and clients of a measurement share one machine, which makes everything slower than
on machines of their own, and the figures vary from run to run.

## What clients see when the leader fails

Three servers, each a process with its data on disk; every write is synced by a majority before it
is acknowledged. Two clients, each a process, one attached to the leader and one to a follower, know
all three servers. Each writes {DATA_BYTES} bytes to a znode of its own, one setData after another,
one every {INTERVAL_MS} ms, in a session with a timeout of {SESSION_TIMEOUT_MS // 1000} s. After
{ACKS_BEFORE} writes of each the leader fails. When both clients have gone on, another server leads,
and the failed one comes back. The next round begins, with new clients, when all serve again.

A *silence* is what passes from one acknowledgement to the next. The *gap* is the time from the
fault to the end of the longest silence; and if within {SOON_S:g} s after it there was another one
of {LONG_S} s or more, to the end of that. Times in seconds. Percentiles are by nearest rank, so
**p99 of up to 100 gaps is the largest of them**: 20 rounds say little about the worst of a hundred.

* *then*: the longest silence after the gap, while the failed server was still away.
* *on return*: the longest silence while it came back.
* *errors*: what writes were refused with, all rounds together. Our client repeats a write by itself
  under its request number; ZooKeeper's tells the application, and the next write follows at once.

At the end of each round every client's znode is held against what the client was told: as many
writes as were acknowledged, at least, and no more than were asked for. A round in which that fails
ends the measurement.
"""

ZOOKEEPER = """\
ZooKeeper is {zookeeper}.
Its client is its own for Java; all else is the same program, and the same faults. A paused or cut
off leader is missed after `syncLimit` ticks there, and after 1 to 1.6 s here: those rows compare
defaults more than designs. A client of ZooKeeper whose server is gone waits up to a second, at
random, before it tries another one.
"""

STABILITY_TEXT = """\
## Elections without need

Three replicas and one client on the same machine, nothing fails. *Idle*: a session is kept alive.
*Half load*: one client writes {data_bytes} bytes at half the rate that it reached just before
({maximum:,.0f} setData/s, the median of three runs of `bench.pipelined_sets`), never more than it
is due. Changes are the most that any replica counted (`coordsvc_term`,
`coordsvc_leader_changes_total`); all should be 0. `bench.stability` ends with status 1 if they are
not. A rate below the wanted one means that the machine was busy with other things, and that this
was its full load.
"""

NOT_MEASURED = "Not measured yet: `{command}`.\n"


def write_page(page: Path) -> None:
    parts = [INTRODUCTION, _failover(load_failover()), _stability(load_stability())]
    page.write_text("\n".join(parts))


def _failover(result: FailoverResult | None) -> str:
    if result is None:
        command = ".venv/bin/python -m bench.failover --zookeeper --report docs/failover.md"
        return NOT_MEASURED.format(command=command)
    lines = [*_origin(result.command, result.machine), "", *table(result.rounds), ""]
    if result.zookeeper:
        lines.append(ZOOKEEPER.format(zookeeper=result.zookeeper))
    return "\n".join(lines)


def _stability(result: StabilityResult | None) -> str:
    if result is None:
        command = ".venv/bin/python -m bench.stability --report docs/failover.md"
        return "## Elections without need\n\n" + NOT_MEASURED.format(command=command)
    text = STABILITY_TEXT.format(data_bytes=DATA_BYTES, maximum=result.maximum)
    lines = [*_origin(result.command, result.machine), "", *phase_table(result.phases), ""]
    return text + "\n" + "\n".join(lines)


def _origin(command: str, machine: str) -> list[str]:
    return ["```sh", command, "```", "", f"{machine}."]


def table(rounds: Sequence[Round]) -> list[str]:
    """A row for each fault, place of the client, and service."""
    lines = _head(COLUMNS)
    systems = list(dict.fromkeys(each.system for each in rounds))
    for fault, text in FAULTS.items():
        for is_at_leader in (True, False):
            for system in systems:
                clients = [
                    client
                    for each in rounds
                    if (each.system, each.fault) == (system, fault)
                    for client in each.clients
                    if client.is_at_leader == is_at_leader
                ]
                if clients:
                    place = "the leader" if is_at_leader else "a follower"
                    lines.append(_row(text, place, system, *_cells(clients)))
    return lines


def _cells(clients: Sequence[ClientGap]) -> list[str]:
    gaps = [each.gap_s for each in clients]
    errors: Counter[str] = Counter()
    for each in clients:
        errors.update(each.errors)
    return [
        str(len(gaps)),
        f"{min(gaps):.2f}",
        *(f"{percentile(gaps, percent):.2f}" for percent in (50, 99)),
        f"{max(gaps):.2f}",
        f"{max(each.later_silence_s for each in clients):.2f}",
        f"{max(each.return_silence_s for each in clients):.2f}",
        counted(errors),
        str(sum(each.sessions_lost for each in clients)),
    ]


def counted(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(errors.items())) or "0"


def phase_table(phases: Sequence[Phase]) -> list[str]:
    lines = _head(
        (
            *("phase", "minutes", "term changes", "leader changes", "same leader"),
            *(
                "session interrupted",
                "errors",
                "setData/s (wanted)",
                "p50 ms",
                "p99 ms",
                "most ms",
            ),
        )
    )
    for each in phases:
        times = (each.p50_s, each.p99_s, each.longest_s)
        written = [f"{each.rate:,.0f} ({each.rate_wanted:,.0f})"]
        written += [f"{1000 * seconds:.1f}" for seconds in times]
        lines.append(
            _row(
                each.name,
                f"{each.seconds / 60:.1f}",
                str(each.term_changes),
                str(each.leader_changes),
                "yes" if each.has_same_leader else "no",
                str(each.session_changes),
                counted(each.errors),
                *(written if each.rate_wanted else ["-"] * 4),
            )
        )
    return lines


def _head(columns: Sequence[str]) -> list[str]:
    return [_row(*columns), "|" + "---|" * len(columns)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
