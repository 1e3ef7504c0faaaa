"""Session streams to three replicas as a driver: frames as they are on the wire, no client library.

Each client has one stream. Nothing is sent that a test does not ask for, no ping either, so that a
silent client is silent.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from grpc import aio

from coordsvc.client.rpc_errors import typed_detail, typed_error
from coordsvc.client.stream_end import StreamEnd
from coordsvc.errors import CoordError
from coordsvc.v1 import common_pb2, coordination_pb2, watch_pb2
from tests.semantics.drivers import GAP, Answer, Client, Event
from tests.semantics.unary_driver import UnaryClient, UnaryDriver

ANSWER_SECONDS = 10

FIELDS = {
    "CloseSession": "close_session",
    "Create": "create",
    "Delete": "delete",
    "Exists": "exists",
    "GetData": "get_data",
    "SetData": "set_data",
    "GetChildren": "get_children",
    "Sync": "sync",
    "GetAcl": "get_acl",
    "SetAcl": "set_acl",
    "AddAuth": "add_auth",
    "Multi": "multi",
    "AddWatches": "add_watches",
    "RemoveWatches": "remove_watches",
}
"""An operation's name as a call, and as a field of a frame."""


class StreamDriver(UnaryDriver):
    name = "stream"
    capabilities = UnaryDriver.capabilities | {
        "watches",
        "order",
        "watch_ids",
        "groups",
        "resume",
        "history",
        "one_shot_history",
        "moves",
    }

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[StreamClient] = []

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for client in self.clients:
            await client.disconnect()
        await super().__aexit__(error_type, error, traceback)

    async def open_at(self, replica_id: int, timeout_ms: int = 10_000) -> UnaryClient:
        client = StreamClient(self, replica_id)
        await client.open(timeout_ms)
        return client


class StreamClient(UnaryClient):
    """`_items` has what arrived, in its order: events, and the request ids of replies."""

    def __init__(self, driver: StreamDriver, replica_id: int) -> None:
        self._driver: StreamDriver = driver
        self._replica_id = replica_id
        self._stub = driver.stub(replica_id)
        self._credentials = common_pb2.SessionCredentials()
        self._items: list[Event | int] = []
        self._answers: dict[int, Answer] = {}
        self._taken = 0
        self._watch_ids = 0
        self._request_ids = 0
        self._last_request_id = 0
        self._resuming: tuple[int, list[watch_pb2.WatchSpec]] = (0, [])
        self._stream: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ended: CoordError | None = None
        driver.clients.append(self)

    @property
    def inbox(self) -> list[Event | Answer]:  # type: ignore[override]
        answers = self._answers
        return [
            item if isinstance(item, Event) else answers[item]
            for item in self._items
            if isinstance(item, Event) or item in answers
        ]

    # ----------------------------------------------------------------- the stream

    async def open(self, timeout_ms: int) -> None:
        welcome = await self._connect(coordination_pb2.SessionHello(timeout_ms=timeout_ms))
        self._credentials = welcome.credentials
        self.session_id = welcome.credentials.session_id
        self.timeout_ms = welcome.timeout_ms

    async def attach(self) -> Client:
        """At another replica."""
        ids = sorted(self._driver.local.servers)
        other = ids[(ids.index(self._replica_id) + 1) % len(ids)]
        newer = StreamClient(self._driver, other)
        newer._credentials = self._credentials
        newer.session_id, newer.timeout_ms = self.session_id, self.timeout_ms
        await newer._connect(newer._hello())
        return newer

    def _hello(self) -> coordination_pb2.SessionHello:
        after_zxid, specs = self._resuming
        return coordination_pb2.SessionHello(
            credentials=self._credentials,
            last_zxid=self._driver.zxid_seen,
            watches=specs,
            start_after_zxid=after_zxid if specs else None,
        )

    async def _connect(self, hello: coordination_pb2.SessionHello) -> Any:
        call = self._stream = self._stub.Session()
        self._ended = None
        try:
            await call.write(coordination_pb2.SessionRequest(hello=hello))
            first = await asyncio.wait_for(call.read(), ANSWER_SECONDS)
            if first is aio.EOF:
                raise await self._error_of(call)
        except aio.AioRpcError as error:
            raise typed_error(error, "the replica", is_write=True) from error
        welcome = first.items[0].welcome
        assert welcome.credentials.session_id
        self._note_zxid(welcome.header.zxid)
        self._take(first.items[1:])
        self._reader = asyncio.create_task(self._read(call, StreamEnd(call)))
        return welcome

    async def _error_of(self, call: Any) -> CoordError:
        error = aio.AioRpcError(
            await call.code(),
            await call.initial_metadata(),
            await call.trailing_metadata(),
            await call.details(),
        )
        return typed_error(error, "the replica", is_write=True)

    async def _read(self, call: Any, end: StreamEnd) -> None:
        try:
            while (frame := await call.read()) is not aio.EOF:
                self._take(frame.items)
            ended = await self._error_of(call)
        except aio.AioRpcError as error:
            ended = typed_error(await end.why(error), "the replica", is_write=True)
        self._ended = ended
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ended)

    def _take(self, items: Any) -> None:
        for item in items:
            kind = item.WhichOneof("item")
            if kind == "reply":
                self._note_zxid(item.reply.zxid)
                self._items.append(item.reply.request_id)
                future = self._waiting.pop(item.reply.request_id)
                if not future.done():
                    future.set_result(item.reply)
            elif kind == "event":
                event = item.event
                self._items.append(
                    Event(
                        event.type,
                        event.path,
                        event.zxid,
                        tuple(event.watch_ids),
                        event.last_of_zxid,
                    )
                )
            elif kind == "gap":
                self._take_gap(item.gap)
            else:
                assert kind in ("pong", "removed", "go_away"), kind

    def _take_gap(self, gap: Any) -> None:
        for watch_id in gap.watch_ids:
            path = next(spec.path for spec in self._resuming[1] if spec.watch_id == watch_id)
            self._items.append(Event(GAP, path, gap.resumed_at_zxid, (watch_id,)))

    def _note_zxid(self, zxid: int) -> None:
        self._driver.zxid_seen = max(self._driver.zxid_seen, zxid)

    # ----------------------------------------------------------------- requests

    def _context(self, min_zxid: int = 0) -> common_pb2.RequestContext:
        return common_pb2.RequestContext(min_zxid=max(min_zxid, self._driver.zxid_seen))

    async def _call(self, method: str, request: Any) -> Any:
        if self._reader is None:
            await self._connect(self._hello())
        if self._ended is not None:
            raise self._ended
        self._request_ids += 1
        request_id = self._request_ids
        future = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        operation = coordination_pb2.SessionOperation(
            request_id=request_id, **{FIELDS[method]: request}
        )
        try:
            await self._stream.write(coordination_pb2.SessionRequest(operations=[operation]))
        except (aio.AioRpcError, asyncio.InvalidStateError):
            pass  # The stream has ended: the reader tells why.
        async with asyncio.timeout(ANSWER_SECONDS):
            reply = await future
        self._last_request_id = request_id
        if reply.HasField("error"):
            raise typed_detail(reply.error)
        response = getattr(reply, FIELDS[method])
        if "header" in response.DESCRIPTOR.fields_by_name:
            assert not response.HasField("header")
            response.header.zxid = reply.zxid
        return response

    def _answer(self, answer: Answer) -> Answer:
        self._answers[self._last_request_id] = answer
        return answer

    def _watch_id(self, watch: bool) -> int:
        if not watch:
            return 0
        self._watch_ids += 1
        return self._watch_ids

    async def heartbeat(self) -> None:
        ping = coordination_pb2.SessionPing(nonce=1)
        await self._stream.write(coordination_pb2.SessionRequest(ping=ping))

    # ----------------------------------------------------------------- watches

    async def watch(self, path: str, kind: int) -> int:
        spec = watch_pb2.WatchSpec(watch_id=self._watch_id(True), path=path, kind=kind)  # type: ignore[arg-type]
        request = coordination_pb2.AddWatchesRequest(watches=[spec])
        await self._call("AddWatches", request)
        return spec.watch_id

    async def take_events(self) -> list[Event]:
        """A sync comes after the events of everything that was applied anywhere before it."""
        await self.sync()
        new, self._taken = self._items[self._taken :], len(self._items)
        return [item for item in new if isinstance(item, Event)]

    async def disconnect(self) -> None:
        if self._reader is not None:
            self._stream.cancel()
            self._reader.cancel()
            await asyncio.wait({self._reader})
            self._reader = None
        self._resuming = (0, [])

    async def resume(self, path: str, kind: int, after_zxid: int) -> None:
        """All that are resumed come with the hello of the next stream."""
        known, specs = self._resuming
        assert self._reader is None and known in (0, after_zxid)
        spec = watch_pb2.WatchSpec(watch_id=self._watch_id(True), path=path, kind=kind)  # type: ignore[arg-type]
        self._resuming = (after_zxid, [*specs, spec])


assert set(FIELDS.values()) == {
    field.name
    for field in coordination_pb2.SessionOperation.DESCRIPTOR.oneofs_by_name["operation"].fields
}
