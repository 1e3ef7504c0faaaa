"""FLAT: what operations cost in trees of different sizes.

Sets under the load of W2; the listing of a znode with few and with many children; the end of a
session with few and with many ephemerals. What many are is as many as the middle tree has, so they
are asked for only from that size on.
"""

from __future__ import annotations

import statistics
import time
from typing import Final

from bench.scale_pipe import Pipe, PipeError
from bench.scale_results import ScaleRun
from bench.scale_systems import ScaleSystem, zookeeper_endpoints
from bench.scale_tree import CREATES_AT_ONCE, batches
from bench.side_by_side import Bench
from bench.side_by_side_rows import ROWS
from coordsvc.testing.zookeeper_records import (
    WORLD,
    OpCode,
    create_body,
    create_of,
    multi_body,
    text,
)

FEW: Final = 10
MANY: Final = 10_000
CALLS: Final = {FEW: 1_000, MANY: 50}
CLOSES: Final = {FEW: 30, MANY: 3}
EPHEMERAL: Final = 1

RATE: Final = "operations/s"
_SETS: Final = next(row for row in ROWS if row.row_id == "W2")


def sizes(znodes: int) -> list[int]:
    return [size for size in (FEW, MANY) if size < znodes] + [znodes]


async def prepare(system: ScaleSystem, count: int) -> None:
    """A znode with so many children, unless there is one."""
    pipe = await _pipe(system)
    parent = _parent(count)
    reply = await pipe.ask(OpCode.CREATE, create_body(parent, b"", 0, WORLD), allowed=(-110,))
    if not reply.error:
        await _create(pipe, [f"{parent}/child-{each:06}" for each in range(count)], 0)
    await pipe.close()


def _parent(count: int) -> str:
    return f"/scale-flat-{count}"


async def _pipe(system: ScaleSystem) -> Pipe:
    return await Pipe.open(next(iter(zookeeper_endpoints(system).values())))


async def _create(pipe: Pipe, paths: list[str], flags: int) -> None:
    bodies = [
        multi_body([create_of(path, b"", flags=flags) for path in batch])
        for batch in batches(paths, CREATES_AT_ONCE)
    ]
    await pipe.ask_each(OpCode.MULTI, bodies, in_flight=2)


def sets(bench: Bench, system: ScaleSystem, seconds: float) -> dict[str, float]:
    """Under the load of W2. ClusterError: what was acknowledged is not there."""
    run = bench.run(_SETS, system, seconds)
    return {RATE: run.outcome.rate, "us of CPU a set, all servers": sum(run.cpu_us.values())}


async def listing(system: ScaleSystem, count: int) -> dict[str, float]:
    """Of a znode with so many children, one call at a time."""
    pipe = await _pipe(system)
    body = text(_parent(count)) + b"\0"
    await pipe.stat(text(_parent(count)))
    taken = []
    for _ in range(CALLS[count]):
        began = time.perf_counter()
        reply = await pipe.ask(OpCode.GET_CHILDREN, body)
        taken.append(time.perf_counter() - began)
        if (found := int.from_bytes(reply.body[:4], "big")) != count:
            raise PipeError(f"{found} children of {_parent(count)}")
    await pipe.close()
    return {f"us getChildren of {count:,}": 1e6 * statistics.median(taken)}


async def closing(system: ScaleSystem, count: int) -> dict[str, float]:
    """Of a session with so many ephemerals, as one that expires."""
    pipe = await _pipe(system)
    parent = f"/scale-flat-closing-{count}"
    await pipe.ask(OpCode.CREATE, create_body(parent, b"", 0, WORLD), allowed=(-110,))
    taken = []
    for _ in range(CLOSES[count]):
        dying = await _pipe(system)
        await _create(dying, [f"{parent}/{each:06}" for each in range(count)], EPHEMERAL)
        began = time.perf_counter()
        await dying.close()
        taken.append(time.perf_counter() - began)
        if (left := (await pipe.stat(text(parent))).num_children) != 0:
            raise PipeError(f"{left} ephemerals are left below {parent}")
    await pipe.close()
    return {f"ms ending a session with {count:,} ephemerals": 1e3 * statistics.median(taken)}


def named(size: int, found: dict[str, float]) -> dict[str, float]:
    """As they stand in a run's details: the size before what was measured."""
    return {f"{size:,} znodes {what}": value for what, value in found.items()}


def run_of(system: str, details: dict[str, float], of_sizes: list[int]) -> ScaleRun:
    small, large = (details[f"{size:,} znodes {RATE}"] for size in (of_sizes[0], of_sizes[-1]))
    return ScaleRun(system=system, value=small / large, details=details)
