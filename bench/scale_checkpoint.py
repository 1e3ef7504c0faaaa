"""P1: what writes notice of checkpoints of a large tree.

An open loop: so many writes a second, each from when it was due, of znodes all over the tree, for
at least so many seconds and until every server has completed a checkpoint meanwhile. Each
connection writes znodes of its own, so the version in each reply is known. In the end every znode
that was written is read at every server.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.load import percentiles
from bench.scale_pipe import ANSWER_S_MAX, Pipe, PipeError, Reply, within
from bench.scale_results import ScaleRun
from bench.scale_systems import ScaleSystem, zookeeper_endpoints
from bench.scale_tree import Tree, path_of, written
from coordsvc.testing.zookeeper_records import Decoder, OpCode, buffer, int32, text

CONNECTIONS: Final = 12
IN_FLIGHT_MAX: Final = 256
"""On each connection: a second of writes may wait together, and that is seen."""

TICK_S: Final = 0.002
LOOK_S: Final = 2.0
EXTRA_S_MAX: Final = 90.0
"""To wait for a checkpoint at every server."""

NAMES: Final = ("p50 ms", "p99 ms", "p99.9 ms", "most ms")


@dataclass(frozen=True, slots=True)
class WriteOptions:
    rate: float
    seconds: float


class Writes:
    """What all connections have done. Versions are those of the znodes since they were created, so
    they outlive a run."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.versions: dict[int, int] = {}
        self._random = random.Random(5)

    def next_of(self, connection: int) -> tuple[int, int]:
        """(znode, version) that the next write of this connection makes."""
        most = (self.tree.size - 1 - connection) // CONNECTIONS
        number = connection + CONNECTIONS * self._random.randint(0, most)
        version = self.versions.get(number, 0) + 1
        self.versions[number] = version
        return number, version


class OpenLoop:
    def __init__(self, writes: Writes, pipes: list[Pipe]) -> None:
        self._writes = writes
        self._pipes = pipes
        self.samples = array("d")
        self.begun = 0

    def due(self, at: float) -> None:
        """A write that is due now, on the next connection."""
        connection = self.begun % len(self._pipes)
        pipe = self._pipes[connection]
        pipe.check()
        if len(pipe.waiting) >= IN_FLIGHT_MAX:
            raise PipeError(f"{IN_FLIGHT_MAX} writes wait on one connection: it cannot follow")
        self.begun += 1
        number, version = self._writes.next_of(connection)
        body = text(path_of(number)) + buffer(written(number, version)) + int32(-1)

        def acked(reply: Reply) -> None:
            self.samples.append(time.perf_counter() - at)
            if reply.error or Decoder(reply.body).stat().version != version:
                raise PipeError(f"{reply} to write {version} of {path_of(number)}")

        pipe.send(OpCode.SET_DATA, body, acked)

    async def run(self, rate: float, is_over: Callable[[float], bool]) -> float:
        """Until `is_over(seconds)`, and everything is answered. The seconds it took."""
        began, tick = time.perf_counter(), 0
        while not is_over(tick * TICK_S):
            tick += 1
            at = began + tick * TICK_S
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            for _ in range(int(tick * TICK_S * rate) - self.begun):
                self.due(at)
        seconds = time.perf_counter() - began
        await within(ANSWER_S_MAX, self._answered(), "the last replies")
        return seconds

    async def _answered(self) -> None:
        while any(pipe.waiting for pipe in self._pipes):
            for pipe in self._pipes:
                pipe.check()
            await asyncio.sleep(TICK_S)


async def measure(
    system: ScaleSystem, writes: Writes, options: WriteOptions, say: Callable[[str], None]
) -> ScaleRun:
    """One run. PipeError: a server took no checkpoint, or a write is not there."""
    endpoints = list(zookeeper_endpoints(system).values())
    pipes = [await Pipe.open(endpoints[each % len(endpoints)]) for each in range(CONNECTIONS)]
    before = await _checkpoints(system)
    taken = dict.fromkeys(before, 0)

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for server, count in (await _checkpoints(system)).items():
                taken[server] = count - before[server]

    def is_over(seconds: float) -> bool:
        enough = seconds >= options.seconds and all(taken.values())
        return enough or seconds >= options.seconds + EXTRA_S_MAX

    loop = OpenLoop(writes, pipes)
    looking = asyncio.create_task(look())
    gc.collect()
    gc.disable()
    try:
        seconds = await loop.run(options.rate, is_over)
    finally:
        gc.enable()
        looking.cancel()
    if not all(taken.values()):
        raise PipeError(f"no checkpoint at every server in {seconds:.0f} s: {taken}")
    say(f"{loop.begun:,} writes in {seconds:.0f} s; checkpoints: {taken}")
    for pipe in pipes:
        await pipe.close()
    await verify(system, writes)
    found = percentiles(loop.samples, (50.0, 99.0, 99.9, 100.0))
    details = {name: 1e3 * value for name, value in zip(NAMES, found, strict=True)}
    return ScaleRun(
        system=system.name,
        value=details.pop("p99.9 ms"),
        details={
            **details,
            "writes": loop.begun,
            "seconds": seconds,
            "checkpoints, least of a server": min(taken.values()),
        },
    )


async def _checkpoints(system: ScaleSystem) -> dict[int, int]:
    """Not in this thread, where writes are due."""
    return {server: await asyncio.to_thread(system.checkpoints, server) for server in system.pids()}


async def verify(system: ScaleSystem, writes: Writes) -> None:
    """PipeError: at a server a znode is not as its last write left it."""
    numbers = list(writes.versions)
    for server, endpoint in zookeeper_endpoints(system).items():
        pipe = await Pipe.open(endpoint)
        await pipe.stat(text(path_of(0)))
        bodies = (text(path_of(number)) + b"\0" for number in numbers)
        replies = await pipe.ask_each(OpCode.GET_DATA, bodies, in_flight=64)
        for number, reply in zip(numbers, replies, strict=True):
            decoder, version = Decoder(reply.body), writes.versions[number]
            found = decoder.buffer(), decoder.stat().version
            if found != (written(number, version), version):
                raise PipeError(f"server {server}: {path_of(number)} has {found}, not {version}")
        await pipe.close()
