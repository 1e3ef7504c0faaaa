"""A Session stream as frames on the wire, without a client library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from grpc import aio

from coordsvc.v1 import common_pb2, coordination_pb2, errors_pb2, watch_pb2
from tests.unit.server.harness import Harness, Refused

Item = coordination_pb2.SessionItem
Reply = coordination_pb2.SessionReply
Operation = coordination_pb2.SessionOperation

READ_SECONDS = 10.0

FIRST_ID = 1


def code_of(reply: Reply) -> str:
    """The error's code, or OK."""
    if not reply.HasField("error"):
        return "OK"
    return errors_pb2.ErrorCode.Name(reply.error.code).removeprefix("ERROR_CODE_")


class Stream:
    """`items` is everything that arrived, in its order. Reads only when it is asked for something:
    a test that asks for nothing is a client that does not read."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.items: list[Item] = []
        self.frames: list[coordination_pb2.SessionResponse] = []
        self.has_ended = False
        self._next_id = FIRST_ID

    # ------------------------------------------------------------------------------------ sending

    def operation(self, kind: str, request_id: int = 0, **fields: Any) -> Operation:
        operation = Operation(request_id=request_id or self._next_id)
        self._next_id = max(self._next_id, operation.request_id) + 1
        part = getattr(operation, kind)
        part.CopyFrom(type(part)(**fields))
        part.SetInParent()
        return operation

    async def send(self, *operations: Operation, ping: int = 0) -> list[int]:
        """One frame of these; their request ids."""
        frame = coordination_pb2.SessionRequest(operations=operations)
        if ping:
            frame.ping.nonce = ping
        await self.call.write(frame)
        return [operation.request_id for operation in operations]

    async def ask(self, kind: str, **fields: Any) -> Reply:
        """Send one request, and read until its reply is here."""
        (request_id,) = await self.send(self.operation(kind, **fields))
        return await self.reply(request_id)

    # ------------------------------------------------------------------------------------ reading

    async def read(self) -> bool:
        """One frame more; False at the end."""
        if self.has_ended:
            return False
        async with asyncio.timeout(READ_SECONDS):
            frame = await self.call.read()
        if frame is aio.EOF:
            self.has_ended = True
            return False
        self.frames.append(frame)
        self.items.extend(frame.items)
        return True

    async def until(self, condition: Callable[[Item], bool]) -> Item:
        """Read until an item meets it; the first that does, of all that ever arrived."""
        checked = 0
        while True:
            for item in self.items[checked:]:
                if condition(item):
                    return item
            checked = len(self.items)
            assert await self.read(), f"the stream ended first: {await self.call.code()}"

    async def reply(self, request_id: int) -> Reply:
        return (await self.until(lambda item: item.reply.request_id == request_id)).reply

    async def replies(self, request_ids: list[int]) -> list[Reply]:
        return [await self.reply(request_id) for request_id in request_ids]

    async def pong(self, nonce: int) -> coordination_pb2.SessionPong:
        return (await self.until(lambda item: item.pong.nonce == nonce)).pong

    async def event(self, watch_id: int) -> watch_pb2.WatchEvent:
        """The first one of this watch."""
        return (await self.until(lambda item: watch_id in item.event.watch_ids)).event

    async def end(self) -> Refused | None:
        """Read to the end; what the stream ended with, None when it ended well."""
        try:
            while await self.read():
                pass
        except aio.AioRpcError as error:
            self.has_ended = True
            if "grpc-status-details-bin" not in dict(error.trailing_metadata() or ()):
                raise
            return Refused(error)
        return None

    # ------------------------------------------------------------------------------------ arrived

    @property
    def welcome(self) -> coordination_pb2.SessionWelcome:
        return self.items[0].welcome

    @property
    def credentials(self) -> common_pb2.SessionCredentials:
        return self.welcome.credentials

    @property
    def session_id(self) -> int:
        return self.credentials.session_id

    @property
    def events(self) -> list[watch_pb2.WatchEvent]:
        return [item.event for item in self.items if item.HasField("event")]

    @property
    def answered(self) -> list[int]:
        """Request ids, in the order of their replies."""
        return [item.reply.request_id for item in self.items if item.HasField("reply")]

    def position(self, condition: Callable[[Item], bool]) -> int:
        """The place of the one item that meets it."""
        (index,) = [index for index, item in enumerate(self.items) if condition(item)]
        return index

    def cancel(self) -> None:
        self.call.cancel()


def start(harness: Harness, channel: aio.Channel | None = None) -> Stream:
    """A stream on which nothing was said yet."""
    stub = (channel or harness.channel).stream_stream(
        "/coordsvc.v1.Coordination/Session",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=coordination_pb2.SessionResponse.FromString,
    )
    return Stream(stub())


async def greet(stream: Stream, **hello: Any) -> None:
    """Say hello, and read the welcome."""
    await stream.call.write(
        coordination_pb2.SessionRequest(hello=coordination_pb2.SessionHello(**hello))
    )
    assert await stream.read()
    assert stream.items[0].HasField("welcome")


async def opened(harness: Harness, **hello: Any) -> Stream:
    """A welcomed stream. With `credentials` it is attached to that session."""
    stream = start(harness)
    await greet(stream, **hello)
    return stream


@asynccontextmanager
async def streams(harness: Harness, count: int = 1, **hello: Any) -> AsyncIterator[list[Stream]]:
    """Streams of sessions of their own, cancelled in the end."""
    made = [await opened(harness, **hello) for _ in range(count)]
    try:
        yield made
    finally:
        for stream in made:
            stream.cancel()


async def refused_hello(harness: Harness, **hello: Any) -> Refused:
    stream = start(harness)
    await stream.call.write(
        coordination_pb2.SessionRequest(hello=coordination_pb2.SessionHello(**hello))
    )
    refused = await stream.end()
    assert refused is not None
    assert not stream.items
    return refused


def watch(
    watch_id: int,
    path: str,
    kind: watch_pb2.WatchKind.ValueType = watch_pb2.WATCH_KIND_PERSISTENT,
    *,
    include_data: bool = False,
) -> watch_pb2.WatchSpec:
    return watch_pb2.WatchSpec(watch_id=watch_id, path=path, kind=kind, include_data=include_data)
