"""No reply is newer than the last event before it: statement 19, under load, between replicas.

Ref: ZooKeeper Programmer's Guide, "What ZooKeeper Guarantees about Watches".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from coordsvc.testing.cluster import LocalCluster
from coordsvc.v1 import coordination_pb2 as pb
from coordsvc.v1 import watch_pb2
from tests.integration.raw_stream import RawStream

WRITES_MIN = 20_000
WRITES_PER_FRAME = 50
FRAMES_AHEAD = 8
READS_IN_FLIGHT = 16
READS_MIN = 500
SECONDS_MAX = 90


async def write_until(endpoint: str, is_enough: Callable[[int], bool]) -> tuple[int, int]:
    """Set /k, some frames ahead, until so many are enough; how many, and the last zxid."""
    async with RawStream(endpoint) as stream:
        window = asyncio.Semaphore(FRAMES_AHEAD)
        sent = answered = last_zxid = 0

        async def take_replies() -> None:
            nonlocal answered, last_zxid
            async for item in stream.items():
                assert item.reply.HasField("set_data"), item
                answered, last_zxid = answered + 1, item.reply.zxid
                if answered % WRITES_PER_FRAME == 0:
                    window.release()

        async with asyncio.TaskGroup() as group:
            replies = group.create_task(take_replies())
            while not is_enough(sent):
                await window.acquire()
                values = range(sent, sent + WRITES_PER_FRAME)
                await stream.send(*(pb.SetDataRequest(path="/k", data=b"%d" % n) for n in values))
                sent += WRITES_PER_FRAME
            for _ in range(FRAMES_AHEAD):
                await window.acquire()
            replies.cancel()
        return sent, last_zxid


class ReaderWatcher:
    """Watches /k and reads it all the time, on one stream."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.reads = 0
        self.reads_between = 0
        """Reads answered since the first event."""

    async def run(self, endpoint: str, ready: asyncio.Event, end: asyncio.Future[int]) -> None:
        hello = pb.SessionHello(
            timeout_ms=30_000,
            watches=[
                watch_pb2.WatchSpec(
                    watch_id=1, path="/k", kind=watch_pb2.WATCH_KIND_PERSISTENT, include_data=True
                )
            ],
        )
        async with RawStream(endpoint, hello) as stream:
            base = stream.welcome.watches_set.zxid
            ready.set()
            for _ in range(READS_IN_FLIGHT):
                await stream.send(pb.GetDataRequest(path="/k"))
            async for item in stream.items():
                kind = item.WhichOneof("item")
                assert kind in ("event", "reply"), item
                if kind == "event":
                    assert item.event.zxid > (self.events[-1] if self.events else base)
                    self.events.append(item.event.zxid)
                    continue
                self._check(item.reply, base)
                if end.done() and item.reply.zxid >= end.result():
                    return
                await stream.send(pb.GetDataRequest(path="/k"))

    def _check(self, reply: pb.SessionReply, base: int) -> None:
        last_event = self.events[-1] if self.events else base
        shown = reply.get_data.stat.mzxid
        assert shown <= last_event, f"a reply shows {shown} after the event of {last_event}"
        assert shown == last_event or not self.events, "a reply is older than the event before it"
        self.reads += 1
        self.reads_between += bool(self.events)


@pytest.mark.timeout(SECONDS_MAX + 60)
async def test_no_reply_is_newer_than_the_last_event(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(3)
    await asyncio.to_thread(cluster.start)
    leader = await asyncio.to_thread(cluster.wait_leader)
    first, second = [i for i in cluster.ids if i != leader]
    async with RawStream(cluster.replicas[first].endpoint) as stream:
        await stream.send(pb.CreateRequest(path="/k", data=b""))
        (created,) = await stream.replies(1)
    watcher, ready = ReaderWatcher(), asyncio.Event()

    def is_enough(writes: int) -> bool:
        return writes >= WRITES_MIN and watcher.reads_between >= READS_MIN

    end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        # Its replica has applied the create before it sets the watch.
        async with RawStream(
            cluster.replicas[second].endpoint, pb.SessionHello(last_zxid=created.zxid)
        ):
            group.create_task(watcher.run(cluster.replicas[second].endpoint, ready, end))
            await ready.wait()
        writes, zxid = await write_until(cluster.replicas[first].endpoint, is_enough)
        end.set_result(zxid)
    assert len(watcher.events) == writes >= WRITES_MIN
    assert watcher.reads_between >= READS_MIN
    print(f"{writes} writes, {watcher.reads} reads, {watcher.reads_between} of them in between")
