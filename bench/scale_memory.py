"""D1: what a znode takes in memory, by what a server's process grows.

Of each server the resident bytes with the tree, less those without it, divided by its znodes; the
figure is the median of the servers. A Java server is asked to collect its garbage before each look.
What our server keeps of the latest writes is of a fixed size, and is full before the first look;
the second is after a checkpoint has taken what had changed.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from typing import Final

from bench.scale_pipe import Pipe, PipeError
from bench.scale_results import ScaleRun
from bench.scale_systems import Memory, ScaleSystem, zookeeper_endpoints
from bench.side_by_side_systems import COORDSVC
from coordsvc.testing.zookeeper_records import WORLD, OpCode, buffer, create_body, int32, text

TOUCHED: Final = "/scale-memory"
CHECKPOINT_S_MAX: Final = 240.0


def look(system: ScaleSystem) -> dict[int, Memory]:
    """By server."""
    return {server: system.memory(server) for server in system.pids()}


async def wait_checkpoints(system: ScaleSystem, say: Callable[[str], None]) -> None:
    """Until each of our replicas has taken a checkpoint that it began from now on: two more, for
    one may be under way. ZooKeeper's servers keep nothing for one. A write now and then, without
    which there is nothing to take."""
    if system.name != COORDSVC:
        return
    before = {server: system.checkpoints(server) for server in system.pids()}
    endpoint = zookeeper_endpoints(system)[next(iter(before))]
    pipe = await Pipe.open(endpoint)
    await pipe.ask(OpCode.CREATE, create_body(TOUCHED, b"", 0, WORLD), allowed=(-110,))
    for _ in range(int(CHECKPOINT_S_MAX)):
        await pipe.ask(OpCode.SET_DATA, text(TOUCHED) + buffer(b"") + int32(-1))
        if all(system.checkpoints(each) >= count + 2 for each, count in before.items()):
            await pipe.close()
            return
        await asyncio.sleep(1.0)
    raise PipeError(f"no checkpoints in {CHECKPOINT_S_MAX:g} s")


def run_of(
    system: ScaleSystem, empty: dict[int, Memory], full: dict[int, Memory], znodes: int
) -> ScaleRun:
    """`znodes`: how many more there are when it is full."""
    value = median_growth(empty, full, lambda memory: memory.resident) / znodes
    details = {
        "anonymous bytes": median_growth(empty, full, lambda each: each.anonymous) / znodes,
        "MB resident, empty": statistics.median(each.resident for each in empty.values()) / 2**20,
        "MB resident, full": statistics.median(each.resident for each in full.values()) / 2**20,
    }
    if any(each.heap for each in full.values()):
        details["bytes of heap in use after a collection"] = (
            median_growth(empty, full, lambda each: each.heap) / znodes
        )
    return ScaleRun(system=system.name, value=value, details=details)


def median_growth(
    empty: dict[int, Memory], full: dict[int, Memory], part: Callable[[Memory], int]
) -> float:
    return statistics.median(part(full[each]) - part(empty[each]) for each in empty)
