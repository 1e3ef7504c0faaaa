"""A watch without a session: resumed by itself, without holes, and honest about what it missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from coordsvc.client.options import ClientConfig
from coordsvc.client.records import (
    WatchEvent,
    WatchEventType,
    WatchGap,
    WatchGapReason,
    WatchKind,
)
from coordsvc.client.watch_stream import PROGRESS_INTERVAL_MS, WatchStream
from coordsvc.errors import (
    BadArgumentsError,
    CoordError,
    ErrorCode,
    NoAuthError,
    NoNodeError,
    UnavailableError,
)
from coordsvc.testing.ports import free_port
from coordsvc.v1 import common_pb2, watch_pb2
from tests.unit.client.fake_replica import PATIENCE_SECONDS, FakeReplica, FakeStream, watch_event

Open = Callable[..., WatchStream]


def response(*items: watch_pb2.WatchItem, cluster_id: int = 5, zxid: int = 1) -> Any:
    header = common_pb2.ResponseHeader(cluster_id=cluster_id, zxid=zxid)
    return watch_pb2.WatchResponse(header=header, items=items)


def watches_set(zxid: int) -> watch_pb2.WatchItem:
    return watch_pb2.WatchItem(watches_set=watch_pb2.WatchesSet(watch_ids=[1], zxid=zxid))


def changed(zxid: int, path: str = "/a", *, last: bool = True) -> watch_pb2.WatchItem:
    return watch_pb2.WatchItem(event=watch_event([1], zxid, path, last=last))


def progress(zxid: int) -> watch_pb2.WatchItem:
    return watch_pb2.WatchItem(progress=watch_pb2.WatchProgress(zxid=zxid))


def event(zxid: int, path: str = "/a") -> WatchEvent:
    return WatchEvent(WatchEventType.DATA_CHANGED, path, zxid)


@pytest.fixture
def open_watch(replicas: list[FakeReplica]) -> Open:
    """A stream to the first replica, with the second one to go to."""

    def open_watch(path: str = "/a", **options: Any) -> WatchStream:
        return WatchStream(ClientConfig(tuple(each.endpoint for each in replicas)), path, **options)

    return open_watch


async def accept(replica: FakeReplica, *items: watch_pb2.WatchItem, **header: int) -> FakeStream:
    stream = await replica.accept()
    stream.send_message(response(*items, **header))
    return stream


def request_of(stream: FakeStream) -> watch_pb2.WatchRequest:
    assert isinstance(stream.first, watch_pb2.WatchRequest)
    return stream.first


async def take(watch: WatchStream, count: int) -> list[WatchEvent | WatchGap]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return [await anext(watch) for _ in range(count)]


async def entered(watch: WatchStream, replica: FakeReplica, zxid: int = 20) -> FakeStream:
    entering = asyncio.create_task(watch.__aenter__())
    stream = await accept(replica, watches_set(zxid))
    await entering
    return stream


async def test_events_come_as_they_are_told(open_watch: Open, replicas: list[FakeReplica]) -> None:
    watch = open_watch(recursive=True, include_data=True)
    stream = await entered(watch, replicas[0])
    (spec,) = request_of(stream).watches
    assert (spec.path, spec.kind, spec.include_data) == (
        "/a",
        watch_pb2.WATCH_KIND_PERSISTENT_RECURSIVE,
        True,
    )
    assert not request_of(stream).HasField("start_after_zxid")
    assert request_of(stream).progress_interval_ms == PROGRESS_INTERVAL_MS
    stream.send_message(response(changed(30, "/a/b"), changed(31)))
    assert await take(watch, 2) == [event(30, "/a/b"), event(31)]
    assert watch.position == 31
    await watch.close()
    await asyncio.wait_for(stream.gone(), PATIENCE_SECONDS)


async def test_it_goes_on_elsewhere_where_it_stood(
    open_watch: Open, replicas: list[FakeReplica]
) -> None:
    interruptions: list[CoordError] = []
    watch = open_watch(on_interrupted=interruptions.append)
    stream = await entered(watch, replicas[0], zxid=20)
    stream.cut()
    taking = asyncio.create_task(take(watch, 2))
    second = await accept(replicas[1], watches_set(20), changed(30))
    assert request_of(second).start_after_zxid == 20
    second.send_message(response(progress(77)))
    second.cut()
    third = await accept(replicas[0], watches_set(77), changed(80))
    assert request_of(third).start_after_zxid == 77
    assert await taking == [event(30), event(80)]
    assert len(interruptions) == 2
    await watch.close()


async def test_a_group_cut_in_the_middle_is_completed(
    open_watch: Open, replicas: list[FakeReplica]
) -> None:
    watch = open_watch()
    stream = await entered(watch, replicas[0], zxid=20)
    stream.send_message(response(changed(30, "/x", last=False)))
    stream.cut()
    taking = asyncio.create_task(take(watch, 2))
    second = await accept(
        replicas[1], watches_set(20), changed(30, "/x", last=False), changed(30, "/y")
    )
    assert request_of(second).start_after_zxid == 20
    first, other = await taking
    assert (first.path, other.path) == ("/x", "/y")  # type: ignore[union-attr]
    await watch.close()


async def test_a_gap_is_handed_on_and_not_jumped_over(
    open_watch: Open, replicas: list[FakeReplica]
) -> None:
    """The replica no longer remembers. The stream breaks before it has said so: it is asked once
    more from the same place."""
    watch = open_watch(start_after_zxid=7)
    stream = await entered(watch, replicas[0], zxid=90)
    assert request_of(stream).start_after_zxid == 7
    stream.cut()
    taking = asyncio.create_task(take(watch, 2))
    lost = watch_pb2.WatchGap(
        watch_ids=[1],
        after_zxid=7,
        resumed_at_zxid=90,
        reason=watch_pb2.WATCH_GAP_REASON_HISTORY_TOO_OLD,
    )
    second = await accept(replicas[1], watches_set(90), watch_pb2.WatchItem(gap=lost), changed(91))
    assert request_of(second).start_after_zxid == 7
    assert await taking == [WatchGap(7, 90, WatchGapReason.HISTORY_TOO_OLD), event(91)]
    await watch.close()


async def test_another_cluster_is_a_gap(open_watch: Open, replicas: list[FakeReplica]) -> None:
    watch = open_watch()
    stream = await entered(watch, replicas[0], zxid=500)
    stream.cut()
    taking = asyncio.create_task(take(watch, 2))
    await accept(replicas[1], watches_set(3), changed(4), cluster_id=6, zxid=3)
    assert await taking == [WatchGap(500, 3, WatchGapReason.OTHER_HISTORY), event(4)]
    await watch.close()


async def test_a_silent_replica_is_left(
    open_watch: Open, replicas: list[FakeReplica], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordsvc.client.watch_stream.SILENCE_SECONDS_MAX", 0.2)
    watch = open_watch()
    stream = await entered(watch, replicas[0])
    taking = asyncio.create_task(take(watch, 1))
    second = await accept(replicas[1], watches_set(20), changed(30))
    assert await taking == [event(30)]
    assert second is not stream
    await watch.close()


async def test_a_cancelled_wait_loses_nothing(
    open_watch: Open, replicas: list[FakeReplica]
) -> None:
    watch = open_watch()
    stream = await entered(watch, replicas[0], zxid=20)
    waiting = asyncio.create_task(anext(watch))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    waiting.cancel()
    await stream.gone()
    taking = asyncio.create_task(take(watch, 1))
    again = await accept(replicas[0], watches_set(20), changed(30))
    assert request_of(again).start_after_zxid == 20
    assert await taking == [event(30)]
    await watch.close()


async def test_a_kind_that_fires_once_ends(open_watch: Open, replicas: list[FakeReplica]) -> None:
    watch = open_watch(kind=WatchKind.DATA)
    stream = await entered(watch, replicas[0])
    stream.send_message(response(changed(30)))
    assert [each async for each in watch] == [event(30)]
    await watch.close()


async def test_a_refusal_is_raised(open_watch: Open, replicas: list[FakeReplica]) -> None:
    watch = open_watch(kind=WatchKind.DATA)
    entering = asyncio.create_task(watch.__aenter__())
    (await replicas[0].accept()).end(grpc.StatusCode.NOT_FOUND, ErrorCode.NO_NODE)
    with pytest.raises(NoNodeError):
        await entering
    assert not replicas[1].has_stream


async def test_the_right_to_read_is_lost(open_watch: Open, replicas: list[FakeReplica]) -> None:
    watch = open_watch()
    stream = await entered(watch, replicas[0])
    removed = watch_pb2.WatchRemoved(watch_ids=[1], reason=watch_pb2.WATCH_REMOVED_REASON_NO_AUTH)
    stream.send_message(response(changed(30), watch_pb2.WatchItem(removed=removed)))
    assert await take(watch, 1) == [event(30)]
    with pytest.raises(NoAuthError):
        await take(watch, 1)
    await watch.close()


async def test_nobody_there_is_said_in_time() -> None:
    config = ClientConfig((f"127.0.0.1:{free_port()}",), timeout_ms=200)
    with pytest.raises(UnavailableError):
        await WatchStream(config, "/a").__aenter__()


def test_bad_arguments() -> None:
    with pytest.raises(BadArgumentsError):
        WatchStream(ClientConfig(), "a")
    with pytest.raises(BadArgumentsError):
        WatchStream(ClientConfig(), "/a", start_after_zxid=-1)
