"""Watches over a connection where there is too much of them: what may be answered, and when."""

from __future__ import annotations

import asyncio

import pytest

from coordsvc.testing.zookeeper_connection import ConnectionEndedError
from coordsvc.testing.zookeeper_records import WatchMode, create_of, set_data_of
from tests.unit.server.zookeeper.door_harness import SECONDS, door_replica, limits


async def test_no_answer_behind_events_that_were_dropped() -> None:
    """Goal: a client that has seen an answer takes everything up to its zxid for told, and never
    asks for it again. Method: a client whose own multi makes more events than may wait."""
    async with door_replica(limits=limits(watch_buffer_bytes_max=1_000)) as replica:
        client = await replica.open(timeout_ms=120_000)
        await client.create("/a")
        await client.add_watch("/a", WatchMode.PERSISTENT)
        async with asyncio.timeout(SECONDS):
            with pytest.raises(ConnectionEndedError):
                await client.multi(*[set_data_of("/a", b"") for _ in range(100)])
        assert client.events == []


async def test_who_missed_much_catches_up() -> None:
    """Goal: more than may wait is told while it is found; it does not end the connection, which
    would end the next one, too."""
    async with door_replica(limits=limits(watch_buffer_bytes_max=50_000)) as replica:
        client, other = [await replica.open(timeout_ms=120_000) for _ in range(2)]
        await client.create("/a")
        known = replica.state.zxid
        client.abort()
        count = 4_000
        for begin in range(0, count, 1_000):
            paths = [f"/a/{number}" for number in range(begin, begin + 1_000)]
            await other.multi(*[create_of(path) for path in paths])
        again = await replica.attach(client, last_zxid=known)
        async with asyncio.timeout(SECONDS):
            await again.set_watches2(known, recursive=["/a"])
        assert len(again.events) == count
        (connection,) = [each for each in replica.door._connections if len(each.watches)]
        assert not connection.watches.is_overflowing


async def test_no_room_for_watches_that_are_set_again() -> None:
    """Goal: no client goes on without a watch that it takes for set."""
    async with door_replica(limits=limits(watches_max=5)) as replica:
        client = await replica.open(timeout_ms=120_000)
        async with asyncio.timeout(SECONDS):
            with pytest.raises(ConnectionEndedError):
                await client.set_watches(0, exist=[f"/{number}" for number in range(6)])
        again = await replica.attach(client)
        async with asyncio.timeout(SECONDS):
            await again.set_watches(0, exist=[f"/{number}" for number in range(5)])
