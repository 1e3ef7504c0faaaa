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

WRITES = 20_000
WRITES_PER_FRAME = 50
FRAMES_AHEAD = 8
READS_IN_FLIGHT = 16
READS_MIN = 500
SECONDS_MAX = 90


async def write_all(endpoint: str) -> int:
    """Set /k so often, some frames ahead; the last zxid."""
    async with RawStream(endpoint) as stream:
        window = asyncio.Semaphore(FRAMES_AHEAD)
        last_zxid = 0

        async def take_replies() -> None:
            nonlocal last_zxid
            for answered in range(1, WRITES + 1):
                (reply,) = await stream.replies(1)
                assert reply.HasField("set_data"), reply
                last_zxid = reply.zxid
                if answered % WRITES_PER_FRAME == 0:
                    window.release()

        replies = asyncio.create_task(take_replies())
        for number in range(0, WRITES, WRITES_PER_FRAME):
            await window.acquire()
            frame = [
                pb.SetDataRequest(path="/k", data=b"%d" % (number + further))
                for further in range(WRITES_PER_FRAME)
            ]
            await stream.send(*frame)
        await replies
        return last_zxid


class ReaderWatcher:
    """Watches /k and reads it all the time, on one stream."""

    def __init__(self) -> None:
        self.events: list[int] = []
        self.reads = 0
        self.reads_between = 0
        """Reads answered while the writes were under way."""

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
        self.reads_between += 0 < len(self.events) < WRITES


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
    end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as group:
        # Its replica has applied the create before it sets the watch.
        async with RawStream(
            cluster.replicas[second].endpoint, pb.SessionHello(last_zxid=created.zxid)
        ):
            group.create_task(watcher.run(cluster.replicas[second].endpoint, ready, end))
            await ready.wait()
        end.set_result(await write_all(cluster.replicas[first].endpoint))
    assert len(watcher.events) == WRITES
    assert watcher.reads_between >= READS_MIN
    print(f"{WRITES} writes, {watcher.reads} reads, {watcher.reads_between} of them in between")
