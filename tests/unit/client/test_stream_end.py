"""The reason that a replica gives for a stream's end reaches the client, though it was writing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest
from grpc import aio

from coordsvc.client.records import SessionState
from coordsvc.client.stream_end import OWN_DETAILS, StreamEnd
from coordsvc.errors import ErrorCode, SessionMovedError
from tests.unit.client.fake_replica import PATIENCE_SECONDS, FakeReplica
from tests.unit.client.opening import Connect

Status = tuple[grpc.StatusCode, str]

MOVED: Status = (grpc.StatusCode.FAILED_PRECONDITION, "as told")
OVERWRITTEN: Status = (grpc.StatusCode.INTERNAL, OWN_DETAILS)


class FakeCall:
    """A call whose status may come, and be replaced."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    def end(self, status: Status, *, is_told: bool = True) -> None:
        self._status = status
        for callback in self._callbacks if is_told else ():
            callback(self)

    async def _ended(self) -> Status:
        while self._status is None:
            await asyncio.sleep(0)
        return self._status

    async def code(self) -> grpc.StatusCode:
        return (await self._ended())[0]

    async def details(self) -> str:
        return (await self._ended())[1]

    async def trailing_metadata(self) -> aio.Metadata:
        await self._ended()
        return aio.Metadata(("coordsvc-error", "as told"))


def raised(status: Status) -> aio.AioRpcError:
    return aio.AioRpcError(status[0], aio.Metadata(), aio.Metadata(), status[1])


def end_of(call: FakeCall) -> StreamEnd:
    return StreamEnd(cast("aio.StreamStreamCall[Any, Any]", call))


async def test_a_status_that_was_overwritten_is_remembered() -> None:
    call = FakeCall()
    end = end_of(call)
    call.end(MOVED)
    call.end(OVERWRITTEN)
    error = await end.why(raised(OVERWRITTEN))
    assert (error.code(), error.details()) == MOVED
    assert dict(error.trailing_metadata()) == {"coordsvc-error": "as told"}


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_status_that_comes_after_the_failed_write_is_waited_for(is_told: bool) -> None:
    call = FakeCall()
    end = end_of(call)
    call.end(OVERWRITTEN)
    asyncio.get_running_loop().call_later(0.005, lambda: call.end(MOVED, is_told=is_told))
    assert (await end.why(raised(OVERWRITTEN))).code() is MOVED[0]


async def test_a_stream_of_which_nothing_is_known_broke_off() -> None:
    call = FakeCall()
    end = end_of(call)
    call.end(OVERWRITTEN)
    assert (await end.why(raised(OVERWRITTEN))).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_status_that_is_no_accident_is_taken_as_it_is() -> None:
    internal = (grpc.StatusCode.INTERNAL, "a proxy's own trouble")
    assert (await end_of(FakeCall()).why(raised(internal))).details() == internal[1]


@pytest.mark.parametrize("attempt", range(10))
async def test_who_writes_much_is_not_deaf_to_losing_the_session(
    connect: Connect, replicas: list[FakeReplica], attempt: int
) -> None:
    client, stream = await connect(outstanding=100_000)

    async def write() -> None:
        """Until the session is lost, or goes elsewhere."""
        while client.state is not SessionState.LOST and not replicas[1].has_stream:
            for _ in range(10):
                client.nowait.exists("/a").add_done_callback(lambda done: done.exception())
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    await stream.frame()
    stream.end(grpc.StatusCode.FAILED_PRECONDITION, ErrorCode.SESSION_MOVED)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(writing, return_exceptions=True)
    assert isinstance(client.failure, SessionMovedError)
