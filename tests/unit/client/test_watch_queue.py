"""Events that nobody has taken yet."""

from __future__ import annotations

import asyncio

import pytest

from coordsvc.client.records import (
    WatchEvent,
    WatchEventType,
    WatchGap,
    WatchGapReason,
    WatchRemoved,
)
from coordsvc.client.watch_queue import WatchQueue
from coordsvc.errors import NoAuthError, SessionExpiredError

OVERFLOW = WatchGapReason.BUFFER_OVERFLOW


def change(zxid: int, data: bytes | None = None) -> WatchEvent:
    return WatchEvent(WatchEventType.DATA_CHANGED, "/a", zxid, data=data)


async def test_events_are_taken_in_order_and_waited_for() -> None:
    queue = WatchQueue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.deliver(change(1))
    queue.deliver(change(2))
    assert await taking == change(1)
    assert await queue.take() == change(2)


async def test_a_full_queue_becomes_a_gap_and_goes_on_after_it() -> None:
    queue = WatchQueue(events_max=2)
    for zxid in range(11, 17):
        queue.deliver(change(zxid))
    assert [await queue.take() for _ in range(2)] == [change(11), change(12)]
    queue.deliver(change(17))  # The gap was not taken yet: this one would come before it.
    assert await queue.take() == WatchGap(12, 17, OVERFLOW)
    queue.deliver(change(18))
    assert await queue.take() == change(18)


async def test_a_group_cut_by_a_full_queue_is_within_the_gap() -> None:
    """Two of three events of zxid 11 are kept: not every event up to 11 is."""
    queue = WatchQueue(events_max=2)
    for _ in range(3):
        queue.deliver(change(11))
    assert [await queue.take() for _ in range(2)] == [change(11), change(11)]
    assert await queue.take() == WatchGap(10, 11, OVERFLOW)


async def test_data_counts_by_its_bytes() -> None:
    queue = WatchQueue(bytes_max=1_000)
    queue.deliver(change(1, b"x" * 2_000))
    queue.deliver(change(2, b"x"))
    assert await queue.take() == change(1, b"x" * 2_000)
    assert await queue.take() == WatchGap(1, 2, OVERFLOW)
    queue.deliver(change(3, b"x"))
    assert await queue.take() == change(3, b"x")


async def test_a_gap_that_falls_into_a_gap_widens_it() -> None:
    queue = WatchQueue(events_max=1)
    queue.deliver(change(1))
    queue.deliver(change(2))
    queue.deliver(WatchGap(2, 50, WatchGapReason.HISTORY_TOO_OLD))
    await queue.take()
    assert await queue.take() == WatchGap(1, 50, OVERFLOW)


async def test_another_history_is_not_lost_in_a_gap() -> None:
    queue = WatchQueue(events_max=1)
    queue.deliver(change(1))
    queue.deliver(change(2))
    other = WatchGap(2, 1, WatchGapReason.OTHER_HISTORY)
    queue.deliver(other)
    await queue.take()
    assert await queue.take() == other


async def test_the_end_comes_after_what_is_left() -> None:
    queue = WatchQueue()
    queue.deliver(change(1))
    queue.fail(SessionExpiredError("gone"))
    queue.deliver(change(2))
    assert await queue.take() == change(1)
    with pytest.raises(SessionExpiredError):
        await queue.take()


async def test_a_removed_watch_ends() -> None:
    queue = WatchQueue()
    queue.deliver(WatchRemoved(is_refused=False))
    assert await queue.take() is None
    refused = WatchQueue()
    refused.deliver(WatchRemoved(is_refused=True))
    with pytest.raises(NoAuthError):
        await refused.take()


async def test_who_waits_is_told_of_the_end() -> None:
    queue = WatchQueue()
    taking = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.end()
    assert await taking is None
