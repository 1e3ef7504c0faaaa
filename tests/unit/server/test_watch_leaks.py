"""Watch streams that come and go leave nothing: no task, no watch, no watcher, no memory."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
from pathlib import Path

import pytest
from grpc import aio

from coordsvc.core.commands import CreateOp, SetDataOp
from tests.unit.server.harness import eventually
from tests.unit.server.watch_harness import WatchHarness, spec, tasks_of_calls, watch_server

PER_CONNECTION = 500


async def open_and_drop(server: WatchHarness, count: int, seed: int) -> None:
    """Open `count` streams over several connections, tell them all something, and drop them:
    cancelled one by one, or cut off with their connection."""
    chance = random.Random(seed)
    channels = [server.open_channel(number) for number in range(-(-count // PER_CONNECTION))]
    calls = []
    for begin in range(0, count, 200):
        batch = [
            server.start(
                spec(1, "/p", "PERSISTENT", True),
                spec(2, f"/p/{number}", "EXISTS"),
                channel=channels[number // PER_CONNECTION],
                progress_interval_ms=10_000,
                timeout=300,
            )
            for number in range(begin, min(begin + 200, count))
        ]
        await asyncio.gather(*[call.take("watches_set") for call in batch])
        calls += batch
    assert server.service.open_streams == count and server.hub.watches == 2 * count
    server.write(SetDataOp("/p", b"x" * 100))
    for call in chance.sample(calls, count // 2):
        call.call.cancel()
    for channel in channels:
        await channel.close()
    await eventually(lambda: server.service.open_streams == 0, seconds=60)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


async def check_flat(count: int, rounds: int, tolerance_bytes: int) -> tuple[int, int]:
    """(what Python's own memory grew by, what the process grew by) after two rounds that filled
    caches and pools. Tolerated is what Python's memory grew by: it goes up and down by what
    gRPC has not given back yet."""
    async with watch_server(openings_per_s_max=10**6, openings_burst_max=10**6) as server:
        server.write(CreateOp("/p", b""))
        tracemalloc.start()
        for number in range(2):
            await open_and_drop(server, count, -number)
            await eventually(lambda: not tasks_of_calls(), seconds=60)
        tasks = len(asyncio.all_tasks())
        gc.collect()
        before, resident = tracemalloc.get_traced_memory()[0], resident_bytes()
        for number in range(1, rounds + 1):
            await open_and_drop(server, count, number)
            await eventually(lambda: not tasks_of_calls(), seconds=60)
        # gRPC has some of its own, which end a little later.
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks, seconds=60)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        statistics = server.hub.statistics()
        assert (statistics.watches, statistics.watchers, len(server.hub.table)) == (0, 0, 0)
        assert not server.service._of_session and server.service._timer is None
        assert server.server.door.active == 0
        assert grown < tolerance_bytes, f"{grown} bytes for {rounds * count} streams"
        return grown, resident_bytes() - resident


async def test_a_thousand_streams_leave_nothing() -> None:
    """A watcher that stays, with its stream, would be above 2 kB, and 4 MB here."""
    await check_flat(1_000, 2, tolerance_bytes=1_000_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_ten_thousand_streams_leave_nothing() -> None:
    grown, resident = await check_flat(10_000, 2, tolerance_bytes=4_000_000)
    # The tracing itself and gRPC's pools are in it; 20,000 streams of 3 kB would be more.
    assert resident < 60 * 2**20, (grown, resident)


async def test_dropped_while_they_are_being_set() -> None:
    """Cancelled before their first message, in the wait for a zxid."""
    async with watch_server() as server:
        server.write(CreateOp("/p", b""))
        calls = [
            server.start(spec(1, "/p", "DATA"), context={"min_zxid": 10**9}) for _ in range(50)
        ]
        await eventually(lambda: server.service.open_streams == 50)
        for call in calls:
            call.call.cancel()
            with pytest.raises((asyncio.CancelledError, aio.AioRpcError)):
                await call.item()
        await eventually(lambda: server.service.open_streams == 0)
        await eventually(lambda: not tasks_of_calls())
        assert server.hub.statistics().watchers == 0
