"""A Session stream as it is on the wire, for tests that must see each item and its place."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

from grpc import aio

from coordsvc.client.channels import channel_options
from coordsvc.client.options import ClientConfig
from coordsvc.v1 import coordination_pb2 as pb
from coordsvc.v1 import coordination_pb2_grpc


class RawStream:
    """`async with RawStream(endpoint) as stream:`; `items()` gives what arrives, one by one."""

    def __init__(
        self,
        endpoint: str,
        hello: pb.SessionHello | None = None,
        *,
        options: list[tuple[str, int]] | None = None,
    ) -> None:
        self._channel = aio.insecure_channel(
            endpoint, options=options or channel_options(ClientConfig((endpoint,)))
        )
        self._hello = hello or pb.SessionHello(timeout_ms=30_000)
        self._request_ids = 0
        self.call: Any = None
        self.welcome = pb.SessionWelcome()
        self._buffer: deque[pb.SessionItem] = deque()

    async def __aenter__(self) -> RawStream:
        stub = coordination_pb2_grpc.CoordinationStub(self._channel)
        self.call = stub.Session()
        await self.call.write(pb.SessionRequest(hello=self._hello))
        frame = await self.call.read()
        assert frame is not aio.EOF, await self.call.details()
        self.welcome = frame.items[0].welcome
        self._buffer.extend(frame.items[1:])
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.call.cancel()
        await self._channel.close()

    async def send(self, *requests: Any) -> list[int]:
        """One frame of these requests; their request ids."""
        operations = []
        for request in requests:
            self._request_ids += 1
            field = FIELD_OF[type(request)]
            operations.append(pb.SessionOperation(request_id=self._request_ids, **{field: request}))
        await self.call.write(pb.SessionRequest(operations=operations))
        return [operation.request_id for operation in operations]

    async def ping(self, nonce: int = 1) -> None:
        await self.call.write(pb.SessionRequest(ping=pb.SessionPing(nonce=nonce)))

    async def items(self) -> AsyncIterator[pb.SessionItem]:
        """Until the stream ends; AioRpcError unless it ends well."""
        while True:
            while self._buffer:
                yield self._buffer.popleft()
            frame = await self.call.read()
            if frame is aio.EOF:
                return
            self._buffer.extend(frame.items)

    async def replies(self, count: int) -> list[pb.SessionReply]:
        """The next so many; what else arrives is passed over."""
        taken: list[pb.SessionReply] = []
        async for item in self.items():
            if item.HasField("reply"):
                taken.append(item.reply)
                if len(taken) == count:
                    return taken
        raise AssertionError(f"the stream ended after {len(taken)} of {count} replies")


FIELD_OF: dict[type[Any], str] = {
    field.message_type._concrete_class: field.name  # type: ignore[attr-defined]
    for field in pb.SessionOperation.DESCRIPTOR.oneofs_by_name["operation"].fields
}
