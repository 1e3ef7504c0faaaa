"""A replica that says what a test tells it to, over real Session and Watch streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc import aio

from coordsvc.client import methods
from coordsvc.errors import Applied, ErrorCode
from coordsvc.v1 import cluster_pb2, common_pb2, coordination_pb2, errors_pb2, watch_pb2

PATIENCE_SECONDS = 20.0
"""Never a judgement: only so that a test that hangs ends."""

SESSION_ID = 77
PASSWORD = b"p" * 16

Item = coordination_pb2.SessionItem
Frame = coordination_pb2.SessionRequest


def detail(code: ErrorCode, applied: Applied = Applied.NO, **more: Any) -> errors_pb2.ErrorDetail:
    return errors_pb2.ErrorDetail(code=int(code), applied=int(applied), **more)


class _End(Exception):
    def __init__(self, status: grpc.StatusCode | None, trailer: bytes) -> None:
        self.status = status
        self.trailer = trailer


class FakeStream:
    """One stream that a client opened. `first` is its request, for a Watch."""

    def __init__(self, replica: FakeReplica, first: Message | None = None) -> None:
        self.replica = replica
        self.first = first
        self.frames: asyncio.Queue[Any] = asyncio.Queue()
        self.is_broken = asyncio.Event()
        """The client is gone."""
        self._out: asyncio.Queue[Message | _End] = asyncio.Queue()

    # ------------------------------------------------------------------------ what the client said

    async def frame(self) -> Frame:
        """The next frame that is not only a ping."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                frame: Frame = await self.frames.get()
                if frame.operations or frame.HasField("hello"):
                    return frame

    async def ping(self) -> int:
        """The nonce of the next ping; what comes before it is passed over."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                frame: Frame = await self.frames.get()
                if frame.HasField("ping"):
                    return frame.ping.nonce

    async def hello(self) -> coordination_pb2.SessionHello:
        frame = await self.frame()
        assert frame.HasField("hello") and not frame.operations
        return frame.hello

    async def operations(self, count: int) -> list[coordination_pb2.SessionOperation]:
        """The next `count` operations, in as many frames as it takes."""
        found: list[coordination_pb2.SessionOperation] = []
        while len(found) < count:
            found.extend((await self.frame()).operations)
        assert len(found) == count, "more than expected"
        return found

    async def gone(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.is_broken.wait()

    # ---------------------------------------------------------------------------- what it is told

    def send(self, *items: Item) -> None:
        """One frame."""
        self._out.put_nowait(coordination_pb2.SessionResponse(items=items))

    def send_message(self, message: Message) -> None:
        self._out.put_nowait(message)

    def end(self, status: grpc.StatusCode | None, code: ErrorCode | None = None) -> None:
        """`status` None: OK. Without `code` it has no detail, as when a connection breaks."""
        trailer = b""
        if code is not None:
            packed = PackedAny()
            packed.Pack(detail(code))
            trailer = status_pb2.Status(details=[packed]).SerializeToString()
        self._out.put_nowait(_End(status, trailer))

    def cut(self) -> None:
        self.end(grpc.StatusCode.UNAVAILABLE)

    async def welcome(
        self,
        *,
        timeout_ms: int = 60_000,
        outstanding: int = 1_000,
        zxid: int = 10,
        cluster_id: int = 5,
        also: tuple[Item, ...] = (),
    ) -> coordination_pb2.SessionHello:
        """Take the hello and answer it, with `also` in the same frame."""
        hello = await self.hello()
        welcome = coordination_pb2.SessionWelcome(
            header=common_pb2.ResponseHeader(zxid=zxid, cluster_id=cluster_id, replica_id=1),
            credentials=common_pb2.SessionCredentials(session_id=SESSION_ID, password=PASSWORD),
            timeout_ms=timeout_ms,
            attach_number=1,
            outstanding_requests_max=outstanding,
        )
        self.send(Item(welcome=welcome), *also)
        return hello

    # --------------------------------------------------------------------------------- inner life

    async def run(self, requests: AsyncIterator[Frame] | None, context: Any) -> None:
        reader = asyncio.create_task(self._read(requests)) if requests is not None else None
        try:
            while True:
                message = await self._out.get()
                if not isinstance(message, _End):
                    await context.write(message)
                    continue
                if message.trailer:
                    context.set_trailing_metadata((("grpc-status-details-bin", message.trailer),))
                if message.status is not None:
                    await context.abort(message.status, "as told")
                return
        finally:
            self.is_broken.set()
            if reader is not None:
                reader.cancel()

    async def _read(self, requests: AsyncIterator[Frame]) -> None:
        async for frame in requests:
            self.frames.put_nowait(frame)


class FakeReplica(grpc.GenericRpcHandler):
    """`accept` gives the streams in the order in which they were opened."""

    def __init__(self) -> None:
        self.cluster_id = 5
        self._streams: asyncio.Queue[FakeStream] = asyncio.Queue()
        self._server = aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"127.0.0.1:{port}"

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(grace=None)

    async def accept(self) -> FakeStream:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._streams.get()

    @property
    def has_stream(self) -> bool:
        """One that was not accepted yet."""
        return not self._streams.empty()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        if handler_call_details.method == methods.SESSION_STREAM:
            return grpc.stream_stream_rpc_method_handler(
                self._session,
                request_deserializer=coordination_pb2.SessionRequest.FromString,
                response_serializer=coordination_pb2.SessionResponse.SerializeToString,
            )
        if handler_call_details.method == methods.WATCH_STREAM:
            return grpc.unary_stream_rpc_method_handler(
                self._watch,
                request_deserializer=watch_pb2.WatchRequest.FromString,
                response_serializer=watch_pb2.WatchResponse.SerializeToString,
            )
        if handler_call_details.method == methods.STATUS.name:
            return grpc.unary_unary_rpc_method_handler(
                self._status,
                request_deserializer=cluster_pb2.StatusRequest.FromString,
                response_serializer=cluster_pb2.StatusResponse.SerializeToString,
            )
        return None

    async def _session(self, requests: Any, context: Any) -> None:
        stream = FakeStream(self)
        self._streams.put_nowait(stream)
        await stream.run(requests, context)

    async def _watch(self, request: watch_pb2.WatchRequest, context: Any) -> None:
        stream = FakeStream(self, request)
        self._streams.put_nowait(stream)
        await stream.run(None, context)

    async def _status(self, request: Message, context: Any) -> cluster_pb2.StatusResponse:
        header = common_pb2.ResponseHeader(cluster_id=self.cluster_id)
        return cluster_pb2.StatusResponse(header=header)


# ------------------------------------------------------------------------------------------ items


def reply(operation: coordination_pb2.SessionOperation, zxid: int = 20, **result: Any) -> Item:
    """To `operation`; without `result` an empty one of the right kind."""
    if not result:
        kind = operation.WhichOneof("operation")
        assert kind is not None
        answer = coordination_pb2.SessionReply(request_id=operation.request_id, zxid=zxid)
        getattr(answer, kind).SetInParent()
        return Item(reply=answer)
    return Item(
        reply=coordination_pb2.SessionReply(request_id=operation.request_id, zxid=zxid, **result)
    )


def refusal(
    operation: coordination_pb2.SessionOperation,
    code: ErrorCode,
    *,
    zxid: int = 0,
    applied: Applied = Applied.NO,
) -> Item:
    error = detail(code, applied, zxid=zxid, message="as told")
    return reply(operation, zxid, error=error)


def event(
    watch_ids: list[int],
    zxid: int,
    path: str = "/a",
    type: watch_pb2.WatchEventType.ValueType = watch_pb2.WATCH_EVENT_TYPE_DATA_CHANGED,
    *,
    last: bool = True,
) -> Item:
    return Item(event=watch_event(watch_ids, zxid, path, type, last=last))


def watch_event(
    watch_ids: list[int],
    zxid: int,
    path: str = "/a",
    type: watch_pb2.WatchEventType.ValueType = watch_pb2.WATCH_EVENT_TYPE_DATA_CHANGED,
    *,
    last: bool = True,
) -> watch_pb2.WatchEvent:
    return watch_pb2.WatchEvent(
        watch_ids=watch_ids, type=type, path=path, zxid=zxid, last_of_zxid=last
    )


def gap(watch_ids: list[int], after_zxid: int, resumed_at_zxid: int) -> Item:
    return Item(
        gap=watch_pb2.WatchGap(
            watch_ids=watch_ids,
            after_zxid=after_zxid,
            resumed_at_zxid=resumed_at_zxid,
            reason=watch_pb2.WATCH_GAP_REASON_HISTORY_TOO_OLD,
        )
    )


def pong(nonce: int, zxid: int = 20) -> Item:
    return Item(pong=coordination_pb2.SessionPong(nonce=nonce, zxid=zxid))


def go_away(grace_ms: int = 60_000) -> Item:
    return Item(
        go_away=coordination_pb2.SessionGoAway(
            reason=coordination_pb2.GO_AWAY_REASON_SHUTTING_DOWN, grace_ms=grace_ms
        )
    )


def numbers(operations: list[coordination_pb2.SessionOperation]) -> list[int]:
    """The request numbers of writes."""
    found = []
    for operation in operations:
        kind = operation.WhichOneof("operation")
        assert kind is not None
        found.append(getattr(operation, kind).context.request_number)
    return found


def paths(operations: list[coordination_pb2.SessionOperation]) -> list[str]:
    found = []
    for operation in operations:
        kind = operation.WhichOneof("operation")
        assert kind is not None
        found.append(getattr(operation, kind).path)
    return found
