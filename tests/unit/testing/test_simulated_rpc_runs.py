"""Windows, order and repeatability of gRPC in memory.

Method: as test_simulated_rpc_faults.py.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest
from grpc import StatusCode

from coordsvc.testing.simulated_rpc_streams import WINDOW_BYTES
from tests.unit.testing.rpc_world import (
    ADDRESS,
    LATENCY_S,
    OPTIONS,
    World,
    call,
    give,
    outcome,
    running,
)


@pytest.fixture
def world() -> Iterator[World]:
    with running(World()) as world:
        yield world


# ------------------------------------------------------------------------------------- streams


def test_a_reader_that_does_not_read_holds_the_writer_up(world: World) -> None:
    server = world.serve()
    channel = world.open()
    begun: list[Any] = []
    world.run(
        world.client,
        give(lambda: begun.append(channel.stream_stream("/test.Service/Flood")())),
    )
    (stream,) = begun
    world.timeline.run_for(10.0)
    assert len(world.told()) == WINDOW_BYTES // 1024

    async def read_all() -> int:
        return sum([len(await stream.read()) for _ in range(1000)])

    assert world.run(world.client, read_all()) == 1000 * 1019
    assert len(world.told()) == 1000
    server.kill()


def test_a_server_that_does_not_read_holds_the_client_up_until_the_end(world: World) -> None:
    server = world.serve()
    channel = world.open()
    stream = world.talk(channel)
    server.is_paused = True
    written: list[int] = []

    async def write_all() -> object:
        while True:
            await stream.write(bytes(1019))
            written.append(1)

    writing = world.start(world.client, outcome(write_all()))
    world.timeline.run_for(10.0)
    assert len(written) == WINDOW_BYTES // 1024 and not writing.done()
    server.kill()
    world.fabric.server_died(ADDRESS)
    assert world.finish(writing, 1.0) is StatusCode.UNAVAILABLE


def test_a_fast_message_waits_for_a_slow_one_before_it(world: World) -> None:
    world.serve()
    stream = world.talk(world.open())
    world.latencies.extend([LATENCY_S, 0.5])

    async def write_two() -> None:
        await stream.write(b"slow")
        await stream.write(b"fast")

    world.run(world.client, write_two())
    world.timeline.run_for(0.49)
    assert world.told() == [b"first"]
    world.timeline.run_for(0.02)
    assert world.told() == [b"first", b"slow", b"fast"]


def test_what_travels_are_bytes(world: World) -> None:
    world.serve()
    channel = world.open()
    message = bytearray(b"one")

    async def ask() -> object:
        asked: Any = channel.unary_unary("/test.Service/Unary", request_serializer=bytes)(message)
        message[:] = b"two"
        return await asked

    assert world.run(world.client, ask()) == b"one"
    assert world.told() == [b"one"]


# --------------------------------------------------------------------------------- repeatability


def trace(seed: int) -> tuple[list[object], float, int]:
    """A run with three clients and with faults."""
    rng = random.Random(seed)
    with running(World(lambda: rng.uniform(0.0002, 0.01))) as world:
        return trace_of(world)


def trace_of(world: World) -> tuple[list[object], float, int]:
    world.serve()
    clients = [world.process(f"client{number}") for number in range(3)]
    log: list[object] = []

    async def work(name: str) -> None:
        channel = world.fabric.open_channel(ADDRESS, options=OPTIONS)
        for number in range(30):
            answer = await call(channel, b"%s %d" % (name.encode(), number), 0.5)
            log.append((name, number, answer, round(world.timeline.now, 9)))
            await asyncio.sleep(0.01)

    done = [world.start(loop, work(loop.name)) for loop in clients]
    world.timeline.run_for(0.1)
    world.fabric.cut("client1", ADDRESS, up=False)
    world.fabric.break_connections("client2")
    world.timeline.run_for(0.2)
    world.fabric.mend_all()
    for each in done:
        world.finish(each)
    return [*log, *world.seen], world.timeline.now, world.timeline.steps


def test_the_same_latencies_give_the_same_run() -> None:
    assert trace(7) == trace(7)
    assert trace(7) != trace(8)
