"""Methods whose answer is a stream, at the front door: errors typed and once, nothing left over."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

from coordsvc.errors import NoNodeError, ShuttingDownError
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.grpc_door import SERVER_OPTIONS, FrontDoor, StreamHandler
from coordsvc.server.limits_admission import Admission
from coordsvc.v1 import coordination_pb2, watch_pb2
from tests.unit.server.harness import Refused, eventually

WATCH = "/coordsvc.v1.Coordination/Watch"
SESSION = "/coordsvc.v1.Coordination/Session"


class Door:
    def __init__(self, door: FrontDoor, server: aio.Server, channel: aio.Channel) -> None:
        self.door = door
        self.server = server
        self.channel = channel

    def watch(self, request: watch_pb2.WatchRequest | None = None) -> Any:
        method = self.channel.unary_stream(
            WATCH,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=watch_pb2.WatchResponse.FromString,
        )
        return method(request or watch_pb2.WatchRequest(), timeout=20)

    def session(self) -> Any:
        method = self.channel.stream_stream(
            SESSION, response_deserializer=coordination_pb2.SessionResponse.FromString
        )
        return method(timeout=20)

    def counted(self, method: str) -> dict[str, int]:
        return {code: n for (name, code), n in self.door.calls_total.items() if name == method}


@asynccontextmanager
async def door(**streams: StreamHandler) -> AsyncIterator[Door]:
    front = FrontDoor(Admission(ServerConfig()))
    server = aio.server(options=SERVER_OPTIONS)
    service = coordination_pb2.DESCRIPTOR.services_by_name["Coordination"]
    server.add_generic_rpc_handlers((front.handlers(service, {}, streams=streams),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = aio.insecure_channel(
        f"127.0.0.1:{port}",
        options=[("grpc.enable_http_proxy", 0), ("grpc.max_send_message_length", 16 << 20)],
    )
    try:
        yield Door(front, server, channel)
    finally:
        await channel.close()
        await server.stop(0)


async def refusal_of(call: Any) -> tuple[list[Any], Refused]:
    """What came before it, and the error the stream ended with."""
    came = []
    try:
        while (message := await call.read()) is not aio.EOF:
            came.append(message)
    except aio.AioRpcError as error:
        return came, Refused(error)
    raise AssertionError(f"not refused, after {len(came)} messages")


async def test_answers_leave_as_they_are_written() -> None:
    go_on = asyncio.Event()

    async def watch(request: watch_pb2.WatchRequest, context: Any) -> None:
        for number in range(3):
            response = watch_pb2.WatchResponse()
            response.header.zxid = request.progress_interval_ms + number
            await context.write(response)
            await go_on.wait()

    async with door(Watch=watch) as opened:
        call = opened.watch(watch_pb2.WatchRequest(progress_interval_ms=7))
        assert (await call.read()).header.zxid == 7
        assert opened.door.active == 1
        go_on.set()
        assert [(await call.read()).header.zxid for _ in range(2)] == [8, 9]
        assert await call.read() is aio.EOF
        await eventually(lambda: opened.door.active == 0)
        assert opened.counted("Watch") == {"OK": 1}


@pytest.mark.parametrize("written", [0, 2])
async def test_an_error_ends_the_stream_with_its_status_and_detail(written: int) -> None:
    """Before the first message and after it."""

    async def watch(request: Any, context: Any) -> None:
        for _ in range(written):
            await context.write(watch_pb2.WatchResponse())
        raise NoNodeError("/a does not exist", path="/a", zxid=5)

    async with door(Watch=watch) as opened:
        came, refused = await refusal_of(opened.watch())
        assert len(came) == written
        assert refused.code == "NO_NODE" and refused.status == grpc.StatusCode.NOT_FOUND
        assert (refused.detail.path, refused.detail.zxid) == ("/a", 5)
        assert refused.trailers["coordsvc-applied"] == "no"
        assert opened.counted("Watch") == {"NO_NODE": 1} and opened.door.active == 0


async def test_a_bug_is_an_incident(caplog: pytest.LogCaptureFixture) -> None:
    async def watch(request: Any, context: Any) -> None:
        await context.write(watch_pb2.WatchResponse())
        raise RuntimeError("a secret of the implementation")

    async with door(Watch=watch) as opened:
        _, refused = await refusal_of(opened.watch())
        assert refused.code == "SYSTEM_ERROR" and refused.status == grpc.StatusCode.INTERNAL
        assert refused.trailers["coordsvc-applied"] == "no", "a watch applies nothing"
        assert "secret" not in refused.message and "secret" not in str(refused.trailers)
        incident = refused.message.rsplit(" ", 1)[1]
        assert [record for record in caplog.records if getattr(record, "incident", "") == incident]
        assert opened.counted("Watch") == {"SYSTEM_ERROR": 1}


async def test_two_writes_at_once_are_a_bug_and_not_a_client_that_has_gone() -> None:
    """gRPC refuses the second. Taken for a cancelled call, it would leave the client waiting."""

    async def watch(request: Any, context: Any) -> None:
        await context.write(watch_pb2.WatchResponse())
        large = watch_pb2.WatchResponse()
        large.items.add().event.data = bytes(2**20)
        await asyncio.gather(*[context.write(large) for _ in range(40)])

    async with door(Watch=watch) as opened:
        _, refused = await refusal_of(opened.watch())
        assert refused.code == "SYSTEM_ERROR"


async def test_a_stream_that_is_not_served_says_so() -> None:
    async with door() as opened:
        _, refused = await refusal_of(opened.watch())
        assert refused.code == "UNIMPLEMENTED"
        _, refused = await refusal_of(opened.session())
        assert refused.code == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    ("data", "code"), [(b"\xff", "MARSHALLING_ERROR"), (bytes(4 * 2**20 + 1), "LIMIT_EXCEEDED")]
)
async def test_a_request_that_cannot_be_read_never_reaches_the_handler(
    data: bytes, code: str
) -> None:
    reached = []

    async def watch(request: Any, context: Any) -> None:
        reached.append(request)

    async with door(Watch=watch) as opened:
        _, refused = await refusal_of(opened.channel.unary_stream(WATCH)(data, timeout=20))
        assert refused.code == code and not reached


# ------------------------------------------------------------------------------- both directions


async def echo(frames: AsyncIterator[coordination_pb2.SessionRequest], context: Any) -> None:
    async for frame in frames:
        response = coordination_pb2.SessionResponse()
        response.items.add().pong.nonce = frame.ping.nonce
        await context.write(response)


def ping(nonce: int) -> bytes:
    return coordination_pb2.SessionRequest(
        ping=coordination_pb2.SessionPing(nonce=nonce)
    ).SerializeToString()


async def test_frames_come_one_by_one_and_end_with_the_clients_half() -> None:
    async with door(Session=echo) as opened:
        call = opened.session()
        for nonce in (1, 2):
            await call.write(ping(nonce))
            assert (await call.read()).items[0].pong.nonce == nonce
        await call.done_writing()
        assert await call.read() is aio.EOF
        await eventually(lambda: opened.counted("Session") == {"OK": 1})


@pytest.mark.parametrize(
    ("data", "code"), [(b"\xff", "MARSHALLING_ERROR"), (bytes(4 * 2**20 + 1), "LIMIT_EXCEEDED")]
)
async def test_a_frame_that_cannot_be_read_ends_the_stream(data: bytes, code: str) -> None:
    async with door(Session=echo) as opened:
        call = opened.session()
        await call.write(ping(1))
        assert (await call.read()).items[0].pong.nonce == 1
        await call.write(data)
        _, refused = await refusal_of(call)
        assert refused.code == code
        assert opened.counted("Session") == {code: 1}


async def test_the_end_of_the_iteration_may_be_the_handlers_choice() -> None:
    """It stops in the middle; nothing of the iteration is left to be closed by somebody."""

    async def first_only(frames: Any, context: Any) -> None:
        async for _ in frames:
            raise ShuttingDownError("enough")

    async with door(Session=first_only) as opened:
        call = opened.session()
        await call.write(ping(1))
        _, refused = await refusal_of(call)
        assert refused.code == "SHUTTING_DOWN"
    gc.collect()
    left = [each for each in gc.get_objects() if type(each).__name__ == "async_generator"]
    assert not [each for each in left if "message_receiver" in repr(each)]


# ------------------------------------------------------------------------------------ going away


def tasks_of_calls() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "HandleExceptions" in task.get_name()]


async def cancelled_when(leave: Callable[[Any], Any], handler: StreamHandler) -> Door:
    async with door(Watch=handler) as opened:
        call = opened.watch()
        await call.read()
        leave(call)
        await eventually(lambda: opened.door.active == 0)
        await eventually(lambda: not tasks_of_calls())
        assert opened.counted("Watch") == {"CANCELLED": 1}
        return opened


async def test_a_client_that_goes_cancels_its_handler_and_leaves_nothing() -> None:
    ended = []

    async def watch(request: Any, context: Any) -> None:
        try:
            await context.write(watch_pb2.WatchResponse())
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    await cancelled_when(lambda call: call.cancel(), watch)
    assert ended == [True]


async def test_cancelling_goes_through() -> None:
    """gRPC gives a cancelled call's memory back only when it gets its CancelledError back; whether
    it did, nothing but its own books show, so the door is asked without it."""

    class Context:
        def peer(self) -> str:
            return "ipv4:127.0.0.1:1"

    async def watch(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    front = FrontDoor(Admission(ServerConfig()))
    serving: Any = front._serve("Watch", watch, watch_pb2.WatchRequest(), Context())  # type: ignore[arg-type]
    call = asyncio.create_task(serving)
    await eventually(lambda: front.active == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert front.calls_total == {("Watch", "CANCELLED"): 1} and front.active == 0


async def test_a_client_that_goes_amid_a_write_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    """The writer is held up by a client that does not read, and then the client goes."""
    caplog.set_level(logging.WARNING)
    written = []

    async def watch(request: Any, context: Any) -> None:
        response = watch_pb2.WatchResponse()
        response.items.add().event.data = bytes(2**20)
        while True:
            await context.write(response)
            written.append(True)

    async with door(Watch=watch) as opened:
        call = opened.watch()
        await call.read()
        so_far = -1
        while so_far != len(written):
            so_far = len(written)
            await asyncio.sleep(0.2)
        assert so_far < 40, "a client that does not read holds its writer up"
        call.cancel()
        await eventually(lambda: opened.counted("Watch") == {"CANCELLED": 1})
        await eventually(lambda: not tasks_of_calls())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_error_for_a_client_that_has_gone_is_no_bug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The handler ends with an error at the moment at which its client goes."""

    async def watch(request: Any, context: Any) -> None:
        try:
            # The client may have it, and go, before this returns.
            await context.write(watch_pb2.WatchResponse())
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ShuttingDownError("too late") from None

    async with door(Watch=watch) as opened:
        call = opened.watch()
        await call.read()
        call.cancel()
        await eventually(lambda: opened.counted("Watch") == {"SHUTTING_DOWN": 1})
        await eventually(lambda: not tasks_of_calls())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_server_that_stops_ends_open_streams() -> None:
    async def watch(request: Any, context: Any) -> None:
        await context.write(watch_pb2.WatchResponse())
        await asyncio.Event().wait()

    async with door(Watch=watch) as opened:
        call = opened.watch()
        await call.read()
        await opened.server.stop(0)
        with pytest.raises(aio.AioRpcError):
            await call.read()
        await eventually(lambda: opened.counted("Watch") == {"CANCELLED": 1})
        await eventually(lambda: not tasks_of_calls())


async def test_a_handler_for_the_wrong_kind_of_method_is_refused_at_once() -> None:
    async def handler(request: Any, context: Any) -> Any: ...

    front = FrontDoor(Admission(ServerConfig()))
    service = coordination_pb2.DESCRIPTOR.services_by_name["Coordination"]
    for methods, streams in (({"Watch": handler}, {}), ({}, {"Create": handler})):
        with pytest.raises(AssertionError):
            front.handlers(service, methods, streams=streams)
    with pytest.raises(AssertionError):
        front.handlers(service, {"Teleport": handler})
