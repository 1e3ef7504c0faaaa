"""Mirrors of the znodes below one parent: read once, then kept by events alone.

A mirror knows up to which zxid it has everything. What a single page showed at some zxid is given
to it with `expect`, and held against the mirror at just that zxid.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Sequence

from grpc import aio

from coordsvc.client.channels import channel_options
from coordsvc.client.options import ClientConfig
from coordsvc.v1 import common_pb2, coordination_pb2_grpc, watch_pb2
from coordsvc.v1 import coordination_pb2 as pb
from tests.integration.raw_stream import RawStream

PARENT = "/m"
PAGE_SIZE = 50
PING_SECONDS = 2.0
PROGRESS_MS = 100

Item = watch_pb2.WatchEvent | watch_pb2.WatchGap
Known = tuple[int, int, bytes]
"""czxid, mzxid, data"""


class Mirror:
    def __init__(self) -> None:
        self.znodes: dict[str, Known] = {}
        self.position = 0
        """Every change up to here is in."""
        self.events = 0
        self.gaps = 0
        self.reads = 0
        self.connections = 0
        self.checks = 0
        self.interrupted = 0
        """Readings that a lost connection cut off."""
        self.is_read = asyncio.Event()
        self._exact_from = 0
        self._group: list[watch_pb2.WatchEvent] = []
        self._last: tuple[int, int] = (0, 0)
        self._expected: deque[tuple[int, dict[str, bytes]]] = deque()

    def watch(self) -> watch_pb2.WatchSpec:
        return watch_pb2.WatchSpec(
            watch_id=1,
            path=PARENT,
            kind=watch_pb2.WATCH_KIND_PERSISTENT_RECURSIVE,
            include_data=True,
        )

    def expect(self, zxid: int, znodes: dict[str, bytes]) -> None:
        """What was really there at `zxid`. Dropped if the mirror, or its pages, were past that."""
        last = max(self._exact_from - 1, self._expected[-1][0] if self._expected else 0)
        if self.is_read.is_set() and self.position <= zxid and zxid > last:
            self._expected.append((zxid, znodes))
            self.reach(self.position)

    def begin_read(self) -> None:
        self.reads += 1
        self.is_read.clear()
        self.znodes.clear()
        self._expected.clear()

    def take_page(self, page: pb.GetChildrenResponse, zxid: int) -> None:
        """Pages are of different zxids; with the events up to the last one's they are exact."""
        for child in page.children:
            stat = child.stat
            self.znodes[f"{PARENT}/{child.name}"] = (stat.czxid, stat.mzxid, child.data)
        self._exact_from = zxid
        if not page.next_page_token:
            self.is_read.set()

    @property
    def must_read(self) -> bool:
        return not self.is_read.is_set()

    def take_event(self, event: watch_pb2.WatchEvent) -> None:
        """Groups are taken whole: of one that is cut off nothing counts."""
        order = (event.zxid, len(self._group))
        assert order > self._last and event.zxid > self.position, "out of order, or told twice"
        self._last = order
        self._group.append(event)
        if not event.last_of_zxid:
            return
        self._check_before(event.zxid)
        for member in self._group:
            assert member.zxid == event.zxid, "a group of two zxids"
            self._apply(member)
        self._group.clear()
        self.reach(event.zxid)

    def cut(self) -> None:
        """The connection is gone, and with it what is left of a group."""
        self._group.clear()
        self._last = (0, 0)
        self.interrupted += self.reads > 0 and self.must_read

    def reach(self, zxid: int) -> None:
        """Everything up to `zxid` was told."""
        self._check_before(zxid)
        self.position = max(self.position, zxid)
        while self._expected and self._expected[0][0] == self.position:
            self._check_one()

    def _check_before(self, zxid: int) -> None:
        while self._expected and self._expected[0][0] < zxid:
            self._check_one()

    def _check_one(self) -> None:
        zxid, expected = self._expected.popleft()
        shown = {path: data for path, (_, _, data) in self.znodes.items() if path != PARENT}
        wrong = {path for path in {*shown, *expected} if shown.get(path) != expected.get(path)}
        assert not wrong, f"at zxid {zxid} the mirror is wrong about {sorted(wrong)[:5]}"
        self.checks += 1

    def _apply(self, event: watch_pb2.WatchEvent) -> None:
        """What a page showed may be newer than the event."""
        self.events += 1
        known = self.znodes.get(event.path)
        if event.type == watch_pb2.WATCH_EVENT_TYPE_DELETED:
            if known is not None and known[0] < event.zxid:
                del self.znodes[event.path]
        elif known is None or known[1] < event.zxid:
            assert event.HasField("stat"), event
            self.znodes[event.path] = (event.stat.czxid, event.stat.mzxid, event.data)


async def follow_by_watch(mirror: Mirror, endpoints: Sequence[str]) -> None:
    """From GetChildren pages and Watch streams, until cancelled."""
    for endpoint in itertools.cycle(endpoints):
        async with aio.insecure_channel(
            endpoint, options=channel_options(ClientConfig((endpoint,)))
        ) as channel:
            stub = coordination_pb2_grpc.CoordinationStub(channel)
            with contextlib.suppress(aio.AioRpcError):
                await _follow_one_watch(mirror, stub)
        mirror.cut()
        await asyncio.sleep(0.05)


async def _follow_one_watch(
    mirror: Mirror, stub: coordination_pb2_grpc.CoordinationAsyncStub
) -> None:
    call = stub.Watch(
        watch_pb2.WatchRequest(
            watches=[mirror.watch()],
            start_after_zxid=None if mirror.must_read else mirror.position,
            progress_interval_ms=PROGRESS_MS,
        )
    )
    try:
        async for response in call:
            for item in response.items:
                await _take_watch_item(mirror, stub, item)
    finally:
        call.cancel()


async def _take_watch_item(
    mirror: Mirror, stub: coordination_pb2_grpc.CoordinationAsyncStub, item: watch_pb2.WatchItem
) -> None:
    kind = item.WhichOneof("item")
    if kind == "watches_set":
        mirror.connections += 1
        if mirror.must_read:
            await _read_pages(mirror, stub, item.watches_set.zxid)
            mirror.reach(item.watches_set.zxid)
    elif kind == "event":
        mirror.take_event(item.event)
    elif kind == "progress":
        mirror.reach(item.progress.zxid)
    else:
        assert kind == "gap", item
        mirror.gaps += 1
        await _read_pages(mirror, stub, item.gap.resumed_at_zxid)
        mirror.reach(item.gap.resumed_at_zxid)


async def _read_pages(
    mirror: Mirror, stub: coordination_pb2_grpc.CoordinationAsyncStub, zxid: int
) -> None:
    mirror.begin_read()
    request = page_request(zxid)
    while True:
        page = await stub.GetChildren(request, timeout=10)
        mirror.take_page(page, page.header.zxid)
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def page_request(min_zxid: int = 0, page_size: int = PAGE_SIZE) -> pb.GetChildrenRequest:
    return pb.GetChildrenRequest(
        context=common_pb2.RequestContext(min_zxid=min_zxid),
        path=PARENT,
        page_size=page_size,
        include_stat=True,
        include_data=True,
    )


async def follow_by_session(mirror: Mirror, endpoints: Sequence[str]) -> None:
    """From the pages and events of Session streams that carry on one session, until cancelled."""
    hello = pb.SessionHello(timeout_ms=30_000, watches=[mirror.watch()])
    for endpoint in itertools.cycle(endpoints):
        hello.last_zxid = mirror.position
        if mirror.must_read:
            hello.ClearField("start_after_zxid")
        else:
            hello.start_after_zxid = mirror.position
        with contextlib.suppress(aio.AioRpcError):
            async with RawStream(endpoint, hello) as stream:
                mirror.connections += 1
                hello.credentials.CopyFrom(stream.welcome.credentials)
                await _follow_one_session(mirror, stream)
        mirror.cut()
        await asyncio.sleep(0.05)


async def _follow_one_session(mirror: Mirror, stream: RawStream) -> None:
    async def ping() -> None:
        while True:
            await stream.ping()
            await asyncio.sleep(PROGRESS_MS / 1000)

    pinging = asyncio.create_task(ping())
    try:
        if mirror.must_read:
            mirror.begin_read()
            mirror.reach(stream.welcome.watches_set.zxid)
            await stream.send(page_request())
        async for item in stream.items():
            await _take_session_item(mirror, stream, item)
    finally:
        pinging.cancel()
        with contextlib.suppress(
            asyncio.CancelledError, aio.AioRpcError, asyncio.InvalidStateError
        ):
            await pinging


async def _take_session_item(mirror: Mirror, stream: RawStream, item: pb.SessionItem) -> None:
    kind = item.WhichOneof("item")
    if kind == "event":
        mirror.take_event(item.event)
    elif kind == "pong":
        mirror.reach(item.pong.zxid)
    elif kind == "reply":
        page = item.reply.get_children
        assert item.reply.HasField("get_children"), item.reply
        mirror.take_page(page, item.reply.zxid)
        if page.next_page_token:
            request = page_request()
            request.page_token = page.next_page_token
            await stream.send(request)
    elif kind == "gap":
        mirror.gaps += 1
        mirror.begin_read()
        mirror.reach(item.gap.resumed_at_zxid)
        await stream.send(page_request(item.gap.resumed_at_zxid))
    else:
        assert kind == "go_away", item
