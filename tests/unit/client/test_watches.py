"""Watches over a session: order, one-shot or not, resumed without holes, gaps handed on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import grpc
import pytest

from coordsvc.client.client import Client
from coordsvc.client.one_shot import OneShot
from coordsvc.client.records import (
    WatchEvent,
    WatchEventType,
    WatchGap,
    WatchGapReason,
    WatchItem,
    WatchKind,
    WatchRemoved,
)
from coordsvc.client.watch import Watch
from coordsvc.errors import ErrorCode, NoAuthError, NoNodeError, SessionMovedError
from coordsvc.v1 import common_pb2, coordination_pb2, watch_pb2
from tests.unit.client.fake_replica import (
    PATIENCE_SECONDS,
    FakeReplica,
    FakeStream,
    Item,
    event,
    gap,
    refusal,
    reply,
    watch_event,
)
from tests.unit.client.opening import Connect

DELETED = watch_pb2.WATCH_EVENT_TYPE_DELETED


async def soon(waited: Awaitable[object]) -> object:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await waited


async def entered(
    client: Client, stream: FakeStream, *, zxid: int = 20, **options: object
) -> tuple[Watch, int]:
    """A watch on /a that is set, and its id."""
    watch = client.watch("/a", **options)  # type: ignore[arg-type]
    entering = asyncio.create_task(watch.__aenter__())
    (operation,) = await stream.operations(1)
    (spec,) = operation.add_watches.watches
    assert spec.path == "/a"
    watches_set = watch_pb2.WatchesSet(watch_ids=[spec.watch_id], zxid=zxid)
    answer = coordination_pb2.AddWatchesResponse(watches_set=watches_set)
    stream.send(reply(operation, zxid, add_watches=answer))
    await entering
    return watch, spec.watch_id


async def test_a_watch_reports_events_until_it_is_left(connect: Connect) -> None:
    client, stream = await connect()
    watch, watch_id = await entered(client, stream, recursive=True, zxid=33)
    assert watch.zxid == 33
    stream.send(event([watch_id], 40, "/a/b"), event([watch_id, 99], 41, "/a", DELETED))
    stream.send(event([99], 42), event([watch_id], 43))
    seen = [await soon(anext(watch)) for _ in range(3)]
    assert seen == [
        WatchEvent(WatchEventType.DATA_CHANGED, "/a/b", 40),
        WatchEvent(WatchEventType.DELETED, "/a", 41),
        WatchEvent(WatchEventType.DATA_CHANGED, "/a", 43),
    ]
    await watch.__aexit__(None, None, None)
    (operation,) = await stream.operations(1)
    assert list(operation.remove_watches.watch_ids) == [watch_id]
    stream.send(event([watch_id], 44))
    with pytest.raises(StopAsyncIteration):
        await soon(anext(watch))


async def test_kind_and_data_are_passed_on(connect: Connect) -> None:
    client, stream = await connect()
    for options, kind, has_data in (
        ({}, watch_pb2.WATCH_KIND_PERSISTENT, False),
        ({"recursive": True}, watch_pb2.WATCH_KIND_PERSISTENT_RECURSIVE, False),
        ({"kind": WatchKind.CHILDREN, "include_data": True}, watch_pb2.WATCH_KIND_CHILDREN, True),
    ):
        entering = asyncio.create_task(client.watch("/a", **options).__aenter__())  # type: ignore[arg-type]
        (operation,) = await stream.operations(1)
        (spec,) = operation.add_watches.watches
        assert (spec.kind, spec.include_data) == (kind, has_data)
        entering.cancel()


async def test_data_comes_with_its_stat(connect: Connect) -> None:
    client, stream = await connect()
    watch, watch_id = await entered(client, stream, include_data=True)
    null = watch_event([watch_id], 40)
    null.stat.version = 3
    full = watch_event([watch_id], 41)
    full.stat.version, full.data = 4, b""
    stream.send(Item(event=null), Item(event=full), event([watch_id], 42))
    first, second, third = [await soon(anext(watch)) for _ in range(3)]
    assert isinstance(first, WatchEvent) and isinstance(second, WatchEvent)
    assert isinstance(third, WatchEvent)
    assert (first.data, first.stat and first.stat.version) == (None, 3)
    assert (second.data, second.stat and second.stat.version) == (b"", 4)
    assert third.stat is None


async def test_a_refused_watch_raises(connect: Connect) -> None:
    client, stream = await connect()
    entering = asyncio.create_task(client.watch("/a", WatchKind.DATA).__aenter__())
    (operation,) = await stream.operations(1)
    stream.send(refusal(operation, ErrorCode.NO_NODE, zxid=9))
    with pytest.raises(NoNodeError):
        await entering


async def test_a_watch_given_up_while_it_is_set_is_removed(connect: Connect) -> None:
    client, stream = await connect()
    entering = asyncio.create_task(client.watch("/a").__aenter__())
    (operation,) = await stream.operations(1)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    stream.send(reply(operation))
    (removal,) = await stream.operations(1)
    watch_id = operation.add_watches.watches[0].watch_id
    assert list(removal.remove_watches.watch_ids) == [watch_id]


# --------------------------------------------------------------------------------- one-shot ones


async def read_with(
    client: Client, stream: FakeStream, watch: object, *, zxid: int = 20
) -> tuple[int, asyncio.Future[object]]:
    read = client.nowait.get_data("/a", watch=watch)  # type: ignore[arg-type]
    (operation,) = await stream.operations(1)
    assert operation.get_data.watch_id > 0
    answer = coordination_pb2.GetDataResponse(data=b"x", stat=common_pb2.Stat(version=1))
    stream.send(reply(operation, zxid, get_data=answer))
    await read
    return operation.get_data.watch_id, read  # type: ignore[return-value]


async def test_a_read_leaves_a_watch_that_fires_once(connect: Connect) -> None:
    client, stream = await connect()
    changed = OneShot()
    watch_id, _ = await read_with(client, stream, changed)
    assert not changed.has_fired
    stream.send(event([watch_id], 40))
    assert await soon(changed) == WatchEvent(WatchEventType.DATA_CHANGED, "/a", 40)
    assert await soon(changed) == WatchEvent(WatchEventType.DATA_CHANGED, "/a", 40)


async def test_a_callback_is_called_before_the_reply_that_shows_the_change(
    connect: Connect,
) -> None:
    client, stream = await connect()
    order: list[object] = []
    watch_id, _ = await read_with(client, stream, order.append)
    read = client.nowait.exists("/a")
    read.add_done_callback(lambda future: order.append("reply"))
    (operation,) = await stream.operations(1)
    stream.send(event([watch_id], 40), reply(operation, 40))
    await read
    await asyncio.sleep(0)
    assert order == [WatchEvent(WatchEventType.DATA_CHANGED, "/a", 40), "reply"]


async def test_a_taker_is_woken_before_whoever_waits_for_the_reply(connect: Connect) -> None:
    client, stream = await connect()
    watch, watch_id = await entered(client, stream)
    order: list[str] = []

    async def take() -> None:
        await anext(watch)
        order.append("event")

    async def read() -> None:
        await client.exists("/a")
        order.append("reply")

    tasks = [asyncio.create_task(take()), asyncio.create_task(read())]
    (operation,) = await stream.operations(1)
    stream.send(event([watch_id], 40), reply(operation, 40))
    await soon(asyncio.gather(*tasks))
    assert order == ["event", "reply"]


async def test_a_callback_that_fails_disturbs_nobody(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client, stream = await connect()

    def fail(item: WatchItem) -> None:
        raise ValueError("oops")

    watch_id, _ = await read_with(client, stream, fail)
    read = client.nowait.exists("/a")
    (operation,) = await stream.operations(1)
    stream.send(event([watch_id], 40), reply(operation, 40))
    await soon(read)
    assert "oops" in caplog.text


async def test_a_refused_read_leaves_no_watch(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    read = client.nowait.get_data("/a", watch=OneShot())
    (operation,) = await stream.operations(1)
    stream.send(refusal(operation, ErrorCode.NO_NODE, zxid=9))
    with pytest.raises(NoNodeError):
        await read
    stream.cut()
    hello = await (await replicas[1].accept()).welcome()
    assert not hello.watches


async def test_a_gap_ends_a_one_shot_watch_here_and_there(connect: Connect) -> None:
    client, stream = await connect()
    changed = OneShot()
    watch_id, _ = await read_with(client, stream, changed)
    stream.send(gap([watch_id], 20, 90))
    assert await soon(changed) == WatchGap(20, 90, WatchGapReason.HISTORY_TOO_OLD)
    (removal,) = await stream.operations(1)
    assert list(removal.remove_watches.watch_ids) == [watch_id]


async def test_the_right_to_read_is_lost(connect: Connect) -> None:
    client, stream = await connect()
    changed, called = OneShot(), list[WatchItem]()
    first, _ = await read_with(client, stream, changed)
    second, _ = await read_with(client, stream, called.append)
    watch, third = await entered(client, stream)
    stream.send(
        Item(
            removed=watch_pb2.WatchRemoved(
                watch_ids=[first, second, third],
                reason=watch_pb2.WATCH_REMOVED_REASON_NO_AUTH,
            )
        )
    )
    with pytest.raises(NoAuthError):
        await soon(changed)
    with pytest.raises(NoAuthError):
        await soon(anext(watch))
    assert called == [WatchRemoved(is_refused=True)]


async def test_a_lost_session_is_told_to_whoever_waits(connect: Connect) -> None:
    client, stream = await connect()
    changed = OneShot()
    await read_with(client, stream, changed)
    watch, _ = await entered(client, stream)
    stream.end(grpc.StatusCode.FAILED_PRECONDITION, ErrorCode.SESSION_MOVED)
    for waiting in (changed, anext(watch)):
        with pytest.raises(SessionMovedError):
            await soon(waiting)


# -------------------------------------------------------------------------------------- resuming


async def test_watches_are_set_again_where_they_stood(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    watch, watch_id = await entered(client, stream, include_data=True)
    one_shot, _ = await read_with(client, stream, OneShot(), zxid=25)
    stream.send(event([watch_id], 40))
    await soon(anext(watch))
    stream.cut()
    hello = await (await replicas[1].accept()).welcome()
    assert hello.start_after_zxid == 40
    assert [(each.watch_id, each.path, each.include_data) for each in hello.watches] == [
        (watch_id, "/a", True),
        (one_shot, "/a", False),
    ]
    assert [each.kind for each in hello.watches] == [
        watch_pb2.WATCH_KIND_PERSISTENT,
        watch_pb2.WATCH_KIND_DATA,
    ]


async def test_replies_and_pongs_move_the_position(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """Events come before whatever shows them, so up to there nothing is missing."""
    client, stream = await connect()
    await entered(client, stream, zxid=20)
    read = client.nowait.exists("/a")
    (operation,) = await stream.operations(1)
    stream.send(reply(operation, 57))
    await read
    stream.cut()
    other = await replicas[1].accept()
    hello = await other.welcome(zxid=99)
    assert hello.start_after_zxid == 57
    other.send(Item(pong=coordination_pb2.SessionPong(nonce=1, zxid=88)))
    other.cut()
    assert (await (await replicas[0].accept()).welcome()).start_after_zxid == 88


async def test_the_welcome_itself_moves_no_position(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """What the watches missed is told after it."""
    client, stream = await connect()
    await entered(client, stream, zxid=20)
    stream.cut()
    other = await replicas[1].accept()
    await other.welcome(zxid=99)
    other.cut()
    assert (await (await replicas[0].accept()).welcome()).start_after_zxid == 20


async def test_a_watch_that_fired_is_not_set_again(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    fired, waiting = OneShot(), OneShot()
    first, _ = await read_with(client, stream, fired)
    second, _ = await read_with(client, stream, waiting)
    stream.send(event([first], 40))
    await soon(fired)
    stream.cut()
    hello = await (await replicas[1].accept()).welcome()
    assert [each.watch_id for each in hello.watches] == [second]


async def test_a_group_cut_in_the_middle_is_completed_and_nothing_comes_twice(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """A multi wrote /x twice, then /y: of the three events two came before the cut."""
    client, stream = await connect()
    watch, watch_id = await entered(client, stream, recursive=True)
    ids = [watch_id]
    stream.send(event(ids, 30, "/w"))
    stream.send(event(ids, 40, "/x", last=False), event(ids, 40, "/y", last=False))
    seen = [await soon(anext(watch)) for _ in range(3)]
    stream.cut()
    other = await replicas[1].accept()
    replayed = (event(ids, 40, "/x", last=False),)
    hello = await other.welcome(also=replayed)
    assert hello.start_after_zxid == 30
    other.cut()
    third = await replicas[0].accept()
    assert (await third.welcome()).start_after_zxid == 30
    third.send(
        event(ids, 40, "/x", last=False),
        event(ids, 40, "/y", last=False),
        event(ids, 40, "/x"),
        event(ids, 41, "/x"),
    )
    seen += [await soon(anext(watch)) for _ in range(2)]
    assert [(each.zxid, each.path) for each in seen] == [  # type: ignore[attr-defined]
        (30, "/w"),
        (40, "/x"),
        (40, "/y"),
        (40, "/x"),
        (41, "/x"),
    ]


async def test_a_gap_is_handed_on(connect: Connect, replicas: list[FakeReplica]) -> None:
    client, stream = await connect()
    watch, watch_id = await entered(client, stream)
    stream.cut()
    other = await replicas[1].accept()
    await other.welcome(also=(gap([watch_id], 20, 90), event([watch_id], 91)))
    assert await soon(anext(watch)) == WatchGap(20, 90, WatchGapReason.HISTORY_TOO_OLD)
    assert await soon(anext(watch)) == WatchEvent(WatchEventType.DATA_CHANGED, "/a", 91)


async def test_another_cluster_is_a_gap(connect: Connect, replicas: list[FakeReplica]) -> None:
    client, stream = await connect(zxid=500, cluster_id=5)
    watch, watch_id = await entered(client, stream, zxid=500)
    stream.cut()
    other = await replicas[1].accept()
    await other.welcome(zxid=7, cluster_id=6, also=(event([watch_id], 8),))
    assert await soon(anext(watch)) == WatchGap(500, 7, WatchGapReason.OTHER_HISTORY)
    assert await soon(anext(watch)) == WatchEvent(WatchEventType.DATA_CHANGED, "/a", 8)
    assert client.zxid == 7


async def test_a_position_in_another_clusters_history_is_not_asked_for(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    """No replica of a restored cluster will ever have it."""
    client, stream = await connect(zxid=500, cluster_id=5)
    watch, _ = await entered(client, stream, zxid=500)
    replicas[1].cluster_id = 6
    stream.cut()
    restored = await replicas[1].accept()
    assert (await restored.hello()).start_after_zxid == 500
    restored.end(grpc.StatusCode.UNAVAILABLE, ErrorCode.NOT_CAUGHT_UP)
    hello = await (await replicas[0].accept()).welcome(zxid=7, cluster_id=6)
    assert hello.watches and not hello.HasField("start_after_zxid")
    assert await soon(anext(watch)) == WatchGap(500, 7, WatchGapReason.OTHER_HISTORY)


async def test_a_watch_whose_setting_was_not_answered_is_set_again(
    connect: Connect, replicas: list[FakeReplica]
) -> None:
    client, stream = await connect()
    entering = asyncio.create_task(client.watch("/a").__aenter__())
    await stream.operations(1)
    stream.cut()
    other = await replicas[1].accept()
    assert not (await other.welcome()).watches
    (operation,) = await other.operations(1)
    other.send(reply(operation))
    await soon(entering)
