"""How much a Session stream takes at once: frames, clients that do not read or do not stop."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from math import ceil

import pytest
from grpc import aio

from coordsvc.server import session_queue, session_stream
from coordsvc.server.session_queue import SessionQueue
from coordsvc.v1 import coordination_pb2
from tests.unit.server.harness import Harness, eventually, local_server
from tests.unit.server.stream_harness import (
    Operation,
    Stream,
    code_of,
    greet,
    start,
    streams,
    watch,
)

MIB = 1 << 20


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    async with local_server() as harness:
        yield harness


@pytest.fixture
async def stream(harness: Harness) -> AsyncIterator[Stream]:
    async with streams(harness) as (stream,):
        yield stream


async def test_what_is_ready_leaves_in_one_frame(harness: Harness, stream: Stream) -> None:
    await stream.ask("create", path="/a")
    harness.replica.is_automatic = False
    before = len(stream.frames)
    ids = await stream.send(*(stream.operation("set_data", path="/a") for _ in range(300)))
    await eventually(lambda: len(harness.replica.submitted) == 302)
    harness.replica.apply()
    await stream.replies(ids)
    # A slice of time may cut it; it must not be one frame for each.
    assert len(stream.frames) - before <= 5


async def test_sixteen_reads_of_a_mebibyte_reach_a_client_of_default_limits(
    harness: Harness, stream: Stream
) -> None:
    async with aio.insecure_channel(
        str(harness.server.address), options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        for number in range(16):
            data = bytes([number]) * MIB
            await stream.ask("create", path=f"/{number}", data=data)
        reader = start(harness, channel)
        await greet(reader)
        ids = await reader.send(
            *(reader.operation("get_data", path=f"/{number}") for number in range(16)),
            reader.operation("exists", path="/0"),
        )
        for number, reply in enumerate((await reader.replies(ids))[:16]):
            assert reply.get_data.data == bytes([number]) * MIB
        assert all(frame.ByteSize() <= MIB + 1024 for frame in reader.frames)
        reader.cancel()


async def test_events_with_data_are_cut_into_frames(harness: Harness, stream: Stream) -> None:
    await stream.ask("add_watches", watches=[watch(1, "/a", include_data=True)])
    await stream.ask("create", path="/a")
    async with streams(harness) as (writer,):
        harness.replica.is_automatic = False
        await writer.send(
            *(
                writer.operation("set_data", path="/a", data=bytes([number]) * (MIB // 3))
                for number in range(8)
            )
        )
        await eventually(lambda: len(harness.replica.submitted) == 11)
        harness.replica.apply()
    await stream.ask("exists", path="/a")
    assert [event.data[:1] for event in stream.events[1:]] == [bytes([n]) for n in range(8)]
    assert all(frame.ByteSize() < 1.5 * MIB for frame in stream.frames)


async def test_children_come_in_pages_that_fit(harness: Harness, stream: Stream) -> None:
    names = [f"{number:06d}" + "n" * 200 for number in range(15_000)]
    operations = [stream.operation("create", path=f"/{name}") for name in names]
    for first in range(0, len(operations), 1_000):
        await stream.replies(await stream.send(*operations[first : first + 1_000]))
        stream.items.clear()
    found: list[str] = []
    token, pages = "", 0
    while True:
        reply = await stream.ask("get_children", path="/", page_token=token, include_stat=True)
        found += [child.name for child in reply.get_children.children]
        token = reply.get_children.next_page_token
        pages += 1
        if not token:
            break
    assert found == [*names, "zookeeper"]
    assert pages > 1
    assert all(frame.ByteSize() <= 3 * MIB for frame in stream.frames)


async def test_a_client_that_does_not_read_stops_its_own_reads_only(
    harness: Harness, stream: Stream
) -> None:
    """A hundred mebibytes asked for and not taken: most of them are not even looked up."""
    await stream.ask("create", path="/big", data=b"x" * MIB)
    async with streams(harness) as (other,):
        ids = await stream.send(*(stream.operation("get_data", path="/big") for _ in range(100)))
        for _ in range(50):
            assert code_of(await other.ask("exists", path="/big")) == "OK"
        waiting = harness.server.pipeline.statistics().reads_waiting
        assert waiting > 80
        assert harness.server.sessions.statistics().requests_unanswered >= waiting
    assert all(code_of(reply) == "OK" for reply in await stream.replies(ids))


async def test_a_session_whose_client_does_not_read_is_not_kept_alive_by_it(
    harness: Harness, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests under way count as a sign of life only while they wait for the replicas."""
    await stream.ask("create", path="/big", data=b"x" * MIB)
    await stream.send(*(stream.operation("get_data", path="/big") for _ in range(100)))
    sessions = harness.server.sessions
    await eventually(lambda: 80 < sessions.statistics().requests_unanswered < 100)
    heard: list[int] = []
    monkeypatch.setattr(harness.server.reports, "heard", lambda sid, now: heard.append(sid))
    turns = 0

    original = sessions._on_timer

    def on_timer() -> None:
        nonlocal turns
        turns += 1
        original()

    monkeypatch.setattr(sessions, "_on_timer", on_timer)
    await eventually(lambda: turns >= 2)
    assert not heard


class Counted(deque[int]):
    """Knows how many there were at most."""

    most = 0

    def append(self, nonce: int) -> None:
        super().append(nonce)
        self.most = max(self.most, len(self))


async def test_pongs_of_a_client_that_does_not_read_are_bounded(
    harness: Harness, stream: Stream
) -> None:
    await stream.ask("create", path="/big", data=b"x" * MIB)
    ids = await stream.send(*(stream.operation("get_data", path="/big") for _ in range(100)))
    sessions = harness.server.sessions
    await eventually(lambda: 80 < sessions.statistics().requests_unanswered < 100)
    (served,) = sessions._all()
    served._pongs = pongs_waiting = Counted()
    for nonce in range(1, 5_001):
        await stream.send(ping=nonce)
    await eventually(lambda: len(pongs_waiting) >= 1_000)
    await stream.replies(ids)
    await stream.pong(5_000)
    # As many again may have been under way to the leader when the stream ceased to be read.
    assert pongs_waiting.most <= 2_000
    pongs = [item.pong.nonce for item in stream.items if item.HasField("pong")]
    assert pongs == list(range(1, 5_001))


async def test_above_outstanding_requests_the_stream_is_not_read(
    harness: Harness, stream: Stream
) -> None:
    """The first write is never decided until all is sent; then everything is answered, in order."""
    await stream.ask("create", path="/a")
    harness.replica.is_automatic = False
    ids: list[int] = []

    async def send() -> None:
        for _ in range(50):
            operations = [stream.operation("set_data", path="/a") for _ in range(100)]
            ids.extend(operation.request_id for operation in operations)
            await stream.send(*operations)

    sending = asyncio.create_task(send())
    await eventually(lambda: len(harness.replica.submitted) == 1_002)
    assert harness.server.sessions.statistics().requests_unanswered == 1_000
    harness.replica.is_automatic = True
    harness.replica.apply()
    await sending
    await stream.replies(ids)
    assert stream.answered[1:] == ids


async def test_a_hundred_thousand_requests_at_once_are_answered_in_order(
    harness: Harness, stream: Stream
) -> None:
    """Nothing is read before all of it is sent, as far as the transport takes it."""
    await stream.ask("create", path="/a")
    count, size = 100_000, 20_000
    sessions = harness.server.sessions

    async def send() -> None:
        for _ in range(count // size):
            await stream.send(*(stream.operation("exists", path="/a") for _ in range(size)))

    async with streams(harness) as (other,):
        sending = asyncio.create_task(send())
        for _ in range(20):
            assert code_of(await other.ask("exists", path="/a")) == "OK"
            assert sessions.statistics().requests_unanswered <= 1_000
    last = 0
    answered = 0
    while answered < count:
        stream.items.clear()
        stream.frames.clear()
        assert await stream.read()
        for item in stream.items:
            assert item.reply.request_id > last
            last = item.reply.request_id
            answered += 1
            assert item.reply.HasField("exists")
    await sending


async def test_a_long_frame_is_queued_in_slices(
    harness: Harness, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With slices of no time at all, each look at the clock ends one."""
    monkeypatch.setattr("coordsvc.server.session_stream.SLICE_S", 0.0)
    turn = 0
    turns: Counter[int] = Counter()
    accept = SessionQueue.accept

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    def counting(queue: SessionQueue, operation: Operation, now: float) -> None:
        turns[turn] += 1
        accept(queue, operation, now)

    monkeypatch.setattr(SessionQueue, "accept", counting)
    counter = asyncio.create_task(count_turns())
    ids = await stream.send(*(stream.operation("exists", path="/") for _ in range(900)))
    await stream.replies(ids)
    counter.cancel()
    assert turns.total() == 900
    assert max(turns.values()) <= session_stream.CHECK_TIME_EACH < 900


async def test_many_replies_leave_in_slices(
    harness: Harness, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordsvc.server.session_stream.SLICE_S", 0.0)
    harness.replica.is_automatic = False
    ids = await stream.send(*(stream.operation("create", path=f"/{n}") for n in range(320)))
    await eventually(lambda: len(harness.replica.submitted) == 321)
    before = len(stream.frames)
    harness.replica.apply()
    await stream.replies(ids)
    assert stream.answered == ids
    assert len(stream.frames) - before == ceil(320 / session_queue.CHECK_TIME_EACH) > 1


async def test_large_replies_leave_in_slices_too(
    harness: Harness, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few may take as long as many: their size tells."""
    monkeypatch.setattr("coordsvc.server.session_stream.SLICE_S", 0.0)
    data = bytes(session_queue.CHECK_TIME_BYTES // 4)
    await stream.ask("create", path="/a", data=data)
    before = len(stream.frames)
    ids = await stream.send(*(stream.operation("get_data", path="/a") for _ in range(16)))
    await stream.replies(ids)
    assert stream.answered[-16:] == ids
    assert len(stream.frames) - before == 4


async def test_an_oversize_frame_ends_the_stream_typed(harness: Harness, stream: Stream) -> None:
    operations = [stream.operation("create", path=f"/{n}", data=b"x" * MIB) for n in range(5)]
    await stream.send(*operations)
    refused = await stream.end()
    assert refused is not None
    assert refused.code == "LIMIT_EXCEEDED"
    assert "/0" not in harness.replica.machine.state.znodes


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x7f", b"\x12\x02\x08"])
async def test_a_malformed_frame_ends_the_stream_typed(harness: Harness, garbage: bytes) -> None:
    stub = harness.channel.stream_stream(
        "/coordsvc.v1.Coordination/Session",
        request_serializer=lambda data: data,
        response_deserializer=coordination_pb2.SessionResponse.FromString,
    )
    for first in (garbage, None):
        stream = Stream(stub())
        if first is None:
            hello = coordination_pb2.SessionRequest(hello=coordination_pb2.SessionHello())
            await stream.call.write(hello.SerializeToString())
            assert await stream.read()
        await stream.call.write(garbage)
        refused = await stream.end()
        assert refused is not None
        assert refused.code == "MARSHALLING_ERROR"
