"""What a session holds for its replica is bounded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from coordsvc.client.client import Client
from coordsvc.client.one_shot import OneShot
from coordsvc.client.options import ClientConfig
from coordsvc.client.records import WatchItem, WatchKind
from coordsvc.client.requests import Request, RequestQueue
from coordsvc.client.watching import SPEC_BYTES, SPECS_BYTES_MAX, Watches, Watching
from coordsvc.errors import (
    Applied,
    CoordError,
    ErrorCode,
    LimitExceededError,
    ThrottledError,
    error_from_code,
)
from coordsvc.v1 import coordination_pb2
from tests.unit.client.fake_replica import FakeReplica, event, refusal, reply
from tests.unit.client.opening import Connect, opened


async def test_an_operation_above_the_bound_is_refused_and_there_is_room_again_after_an_answer(
    replicas: list[FakeReplica],
) -> None:
    config = ClientConfig((replicas[0].endpoint,), requests_waiting_max=3)
    client = Client(config=config)
    stream = await opened(client, replicas[0])
    waiting = [client.nowait.set_data("/a", b"x") for _ in range(3)]
    with pytest.raises(ThrottledError, match="3 operations") as raised:
        client.nowait.set_data("/a", b"x")
    assert raised.value.applied is Applied.NO
    operations = await stream.operations(3)
    stream.send(reply(operations[0]))
    await waiting[0]
    client.nowait.exists("/a")
    with pytest.raises(ThrottledError):
        client.nowait.exists("/a")
    await client._shut()


async def test_their_bytes_are_bounded_too(replicas: list[FakeReplica]) -> None:
    config = ClientConfig((replicas[0].endpoint,), request_bytes_waiting_max=1_000_000)
    client = Client(config=config)
    stream = await opened(client, replicas[0])
    first = client.nowait.set_data("/a", b"x" * 600_000)
    with pytest.raises(ThrottledError):
        client.nowait.set_data("/a", b"x" * 600_000)
    client.nowait.set_data("/a", b"x" * 300_000)
    stream.send(reply((await stream.frame()).operations[0]))
    await first
    client.nowait.set_data("/a", b"x" * 600_000)
    await client._shut()


async def test_the_session_can_be_closed_however_much_waits(replicas: list[FakeReplica]) -> None:
    config = ClientConfig((replicas[0].endpoint,), requests_waiting_max=1)
    client = Client(config=config)
    stream = await opened(client, replicas[0])
    client.nowait.exists("/a")
    closing = asyncio.create_task(client.close())
    operations = await stream.operations(2)
    assert operations[1].HasField("close_session")
    stream.send(*(reply(each) for each in operations))
    await closing


async def test_no_more_watches_than_fit_into_a_hello(connect: Connect) -> None:
    client, stream = await connect()
    path = "/" + "a" * 4_000
    count = SPECS_BYTES_MAX // (len(path) + SPEC_BYTES)
    setting = [client.nowait.get_data(path, watch=OneShot()) for _ in range(count)]
    with pytest.raises(LimitExceededError, match="recursively"):
        client.nowait.get_data(path, watch=OneShot())
    with pytest.raises(LimitExceededError):
        async with client.watch(path):
            pass
    operations = await stream.operations(count)
    stream.send(*(reply(each) for each in operations[1:]))
    stream.send(refusal(operations[0], ErrorCode.NO_NODE, zxid=20))
    await asyncio.gather(*setting, return_exceptions=True)
    # The refused one has left room for one more, and so does one that fires.
    read = client.nowait.get_data(path, watch=OneShot())
    (operation,) = await stream.operations(1)
    stream.send(event([operations[1].get_data.watch_id], 30, path), reply(operation))
    await read
    client.nowait.add_watch(Watching(path, WatchKind.DATA, False, _Sink()), None)
    with pytest.raises(LimitExceededError):
        client.nowait.add_watch(Watching(path, WatchKind.DATA, False, _Sink()), None)


def test_all_watches_of_a_session_fit_into_its_hello() -> None:
    watches = Watches()
    path = "/\N{EURO SIGN}"
    with pytest.raises(LimitExceededError):
        for _ in range(SPECS_BYTES_MAX):
            watching = Watching(path, WatchKind.PERSISTENT_RECURSIVE, True, _Sink())
            watches.take_room(watching)
            watching.watch_id = (1 << 40) + watches.next_id()
            watches.add(watching)
    hello = coordination_pb2.SessionHello(watches=watches.specs())
    assert 2 * 1024 * 1024 < hello.ByteSize() < 4 * 1024 * 1024


class _Sink:
    def deliver(self, item: WatchItem) -> None:
        pass

    def fail(self, error: CoordError) -> None:
        pass


ANSWERS: list[Callable[[], CoordError | None]] = [
    lambda: None,
    lambda: None,
    lambda: error_from_code(int(ErrorCode.NO_NODE), "as told", zxid=5),
    lambda: error_from_code(int(ErrorCode.LIMIT_EXCEEDED), "as told"),
    lambda: error_from_code(int(ErrorCode.NO_QUORUM), "as told"),
    lambda: error_from_code(int(ErrorCode.OUTCOME_UNKNOWN), "as told"),
    lambda: error_from_code(int(ErrorCode.REQUEST_OUT_OF_ORDER), "as told"),
]


@pytest.mark.parametrize("seed", range(50))
async def test_the_bytes_are_those_of_what_waits_whatever_becomes_of_it(seed: int) -> None:
    chance = random.Random(seed)
    queue, now = RequestQueue(), 0.0
    in_flight: list[Request] = []

    def request() -> Request:
        operation: Any = coordination_pb2.SessionOperation()
        is_write = chance.random() < 0.6
        message = operation.set_data if is_write else operation.exists
        message.path = "/" + "a" * chance.randrange(50)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        if chance.random() < 0.1:
            future.cancel()
        context = message.context if is_write else None
        return Request(operation, lambda reply: None, future, now + chance.randrange(20), context)

    for _ in range(400):
        now += 0.1
        step = chance.random()
        if step < 0.4:
            queue.add(request())
        elif step < 0.6:
            in_flight.extend(queue.take(10, 1_000))
        elif step < 0.95 and in_flight:
            answered = in_flight.pop(chance.randrange(len(in_flight)))
            request_id = answered.operation.request_id
            error = chance.choice(ANSWERS)()
            queue.settle(coordination_pb2.SessionReply(request_id=request_id), error)
        elif step < 0.97:
            queue.fail_overdue(now)
        else:
            queue.rewind()
            in_flight.clear()
        assert queue.bytes == sum(each.size for each in queue._all())
        assert len(queue) == len(queue._all())
    queue.fail_all(error_from_code(int(ErrorCode.SESSION_EXPIRED), "as told"))
    assert queue.bytes == len(queue) == 0
