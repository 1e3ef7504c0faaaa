"""Calls and streams in memory are as gRPC's.

Goal: what our servicers and our client rely upon holds in a simulation as it holds in life. Method:
each test runs twice with the same body, over real grpc.aio on loopback and over the simulated one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grpc import StatusCode, aio

from tests.unit.testing.rpc_net import (
    PATIENCE_S,
    Net,
    SimulatedNet,
    closing,
    error_of,
    eventually,
    opened,
    talk,
    unary,
)


@pytest.fixture(params=[Net, SimulatedNet], ids=["real", "simulated"])
async def net(request: pytest.FixtureRequest) -> AsyncIterator[Net]:
    async with closing(request.param()) as net:
        yield net


# ------------------------------------------------------------------------------------ unary calls


async def test_an_answer(net: Net) -> None:
    _, channel = await opened(net)
    assert await unary(channel)(b"hello", timeout=PATIENCE_S) == b"HELLO"
    call = unary(channel)(b"hello")
    assert await call == b"HELLO" == await call
    assert await call.code() is StatusCode.OK
    assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)


async def test_what_a_handler_is_told(net: Net) -> None:
    service, channel = await opened(net)
    call = unary(channel)(b"wait", timeout=20.0, metadata=(("key", "value"), ("k-bin", b"\0")))
    await eventually(lambda: service.seen)
    (context,) = service.contexts
    metadata = dict(context.invocation_metadata())
    assert (metadata["key"], metadata["k-bin"]) == ("value", b"\0")
    assert 0 < context.time_remaining() <= 20.5
    assert context.peer().startswith("ipv4:")
    service.goes_on.set()
    assert await call == b"WAIT"
    await unary(channel)(b"no deadline")
    assert service.contexts[1].time_remaining() is None


async def test_a_refusal_brings_its_trailers(net: Net) -> None:
    _, channel = await opened(net)
    error = await error_of(unary(channel)(b"abort"))
    assert (error.code(), error.details()) == (StatusCode.ABORTED, "why")
    assert tuple(error.trailing_metadata() or ()) == (("k", "v"), ("k-bin", b"\0\xff"))


async def test_a_status_that_was_set(net: Net) -> None:
    _, channel = await opened(net)
    error = await error_of(unary(channel)(b"code"))
    assert (error.code(), error.details()) == (StatusCode.NOT_FOUND, "nothing there")
    assert dict(error.trailing_metadata() or ()) == {"seen": "yes"}


async def test_a_bug_in_a_handler(net: Net) -> None:
    _, channel = await opened(net)
    error = await error_of(unary(channel)(b"bug"))
    assert error.code() is StatusCode.UNKNOWN and "a bug" in (error.details() or "")


async def test_a_method_that_nobody_has(net: Net) -> None:
    _, channel = await opened(net)
    error = await error_of(channel.unary_unary("/test.Service/Other")(b""))
    assert error.code() is StatusCode.UNIMPLEMENTED


async def test_a_deadline_ends_the_call_at_both_sides(net: Net) -> None:
    service, channel = await opened(net)
    await channel.channel_ready()
    error = await error_of(unary(channel)(b"wait", timeout=0.2))
    assert error.code() is StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: service.seen == ["waits", "cancelled"])


async def test_cancelling_reaches_the_handler(net: Net) -> None:
    service, channel = await opened(net)
    call = unary(channel)(b"wait")
    await eventually(lambda: service.seen)
    assert call.cancel()
    assert (call.done(), call.cancelled()) == (True, True)
    assert await call.code() is StatusCode.CANCELLED
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: service.seen == ["waits", "cancelled"])


async def test_cancelling_the_one_who_waits_cancels_the_call(net: Net) -> None:
    service, channel = await opened(net)

    async def wait() -> None:
        await unary(channel)(b"wait")

    task = asyncio.create_task(wait())
    await eventually(lambda: service.seen)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    await eventually(lambda: service.seen == ["waits", "cancelled"])


# ---------------------------------------------------------------------------------------- streams


async def test_a_listing_in_order_and_its_status(net: Net) -> None:
    _, channel = await opened(net)
    call: Any = channel.unary_stream("/test.Service/List")(b"50")
    assert [await call.read() for _ in range(50)] == [b"%d" % number for number in range(50)]
    for _ in range(2):
        error = await error_of(call.read())
        assert (error.code(), error.details()) == (StatusCode.OUT_OF_RANGE, "no more")
        assert dict(error.trailing_metadata() or ()) == {"count": "50"}


async def test_the_status_waits_until_all_is_read(net: Net) -> None:
    _, channel = await opened(net)
    call: Any = channel.unary_stream("/test.Service/List")(b"3")
    ended: list[object] = []
    call.add_done_callback(ended.append)
    assert await call.read() == b"0"
    await unary(channel)(b"another call, so that all has come")
    assert not call.done() and not ended
    assert [await call.read(), await call.read()] == [b"1", b"2"]
    await error_of(call.read())
    assert ended == [call]


async def test_a_generator_as_a_handler(net: Net) -> None:
    _, channel = await opened(net)
    call: Any = channel.unary_stream("/test.Service/Generate")(b"3")
    assert [message async for message in call] == [b"0", b"1", b"2"]
    assert await call.code() is StatusCode.OK


async def test_a_conversation_and_its_half_close(net: Net) -> None:
    service, channel = await opened(net)
    call = talk(channel)
    for message in (b"a", b"b", b"c"):
        await call.write(message)
        assert await call.read() == message.upper()
    await call.done_writing()
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"more")
    assert await call.read() == b"bye"
    assert await call.read() is aio.EOF is await call.read()
    assert await call.code() is StatusCode.OK
    assert service.seen == ["half-closed"]


async def test_many_messages_keep_their_order(net: Net) -> None:
    _, channel = await opened(net)
    call = talk(channel)
    messages = [b"%d" % number * 500 for number in range(300)]

    async def write() -> None:
        for message in messages:
            await call.write(message)
        await call.done_writing()

    writer = asyncio.create_task(write())
    assert [await call.read() for _ in messages] == messages
    await writer
    assert await call.read() == b"bye"


async def test_a_refusal_in_the_middle(net: Net) -> None:
    _, channel = await opened(net)
    call = talk(channel)
    await call.write(b"refuse")
    error = await error_of(call.read())
    assert (error.code(), error.details()) == (StatusCode.FAILED_PRECONDITION, "refused")
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"more")
    await call.done_writing()
    assert not call.cancel() and not call.cancelled()


async def test_a_handler_that_goes_on_when_its_client_has_gone(net: Net) -> None:
    service, channel = await opened(net)
    call = talk(channel)
    await call.write(b"stubborn")
    await call.write(b"unread, and lost")
    await unary(channel)(b"another call, so that all has come")
    await eventually(lambda: service.seen)
    call.cancel()
    await eventually(lambda: len(service.seen) == 4)
    waits, cancelled, read, refusal = service.seen
    assert (waits, cancelled, read) == ("waits", "cancelled", aio.EOF)
    assert "execute_batch" in str(refusal) and "start_batch" not in str(refusal)


async def test_cancelling_a_stream(net: Net) -> None:
    service, channel = await opened(net)
    call = talk(channel)
    await call.write(b"a")
    assert await call.read() == b"A"
    await call.write(b"wait")
    await eventually(lambda: service.seen)
    reading = asyncio.create_task(call.read())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait((reading,))
    assert call.cancelled() and await call.code() is StatusCode.CANCELLED
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"b")
    await eventually(lambda: service.seen == ["waits", "cancelled"])
