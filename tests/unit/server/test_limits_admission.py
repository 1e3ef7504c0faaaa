"""Each limit, met by a client over a real channel: a typed refusal, counted, and nothing else hurt.

The limits of watches and of a stream's requests are tested where they are kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

from coordsvc.server.config_model import ClusterConfig, LimitsConfig
from coordsvc.v1 import common_pb2, coordination_pb2, errors_pb2
from coordsvc.v1.coordination_pb2_grpc import CoordinationStub
from tests.unit.server.harness import Harness, Refused, eventually, local_server


def counted(server: Harness) -> dict[str, int]:
    """The refusals so far, by limit."""
    statistics = server.server.admission.limits.statistics()
    return {each.name: each.refusals_total for each in statistics if each.refusals_total}


def current(server: Harness, name: str) -> float | None:
    statistics = server.server.admission.limits.statistics()
    return next(each.current for each in statistics if each.name == name)


def check(refused: Refused, label: str, value: int, *, code: str = "LIMIT_EXCEEDED") -> None:
    assert refused.code == code
    assert refused.detail.applied == errors_pb2.APPLIED_NO and refused.detail.zxid == 0
    assert f"; {label} is {value}: " in refused.message
    if code != "BAD_ARGUMENTS":
        assert refused.status == grpc.StatusCode.RESOURCE_EXHAUSTED


# ------------------------------------------------------------------------------------ one request


async def test_what_is_too_large_by_itself() -> None:
    """At the bound it is taken, above it refused, with the limit in the words."""
    cluster = ClusterConfig(
        data_size_bytes_max=100,
        path_size_bytes_max=20,
        multi_operations_max=2,
        message_size_bytes_max=70_000,
    )
    delete = coordination_pb2.MultiOperation(delete=coordination_pb2.DeleteOperation(path="/a"))
    async with local_server(cluster=cluster) as server:
        await server.call("Create", path="/a", data=b"x" * 100)
        check(
            await server.refusal("SetData", path="/a", data=b"x" * 101),
            "cluster.data_size_bytes_max",
            100,
        )
        await server.call("Exists", path="/" + "p" * 19)
        check(
            await server.refusal("Exists", path="/" + "é" * 10),
            "cluster.path_size_bytes_max",
            20,
            code="BAD_ARGUMENTS",
        )
        await server.refusal("Multi", operations=[delete, delete])
        check(
            await server.refusal("Multi", operations=[delete] * 3),
            "cluster.multi_operations_max",
            2,
        )
        large = await server.refusal("Create", path="/b", data=b"x" * 70_000)
        check(large, "cluster.message_size_bytes_max", 70_000)
        assert "the request has 700" in large.message
        assert counted(server) == {"data": 1, "path": 1, "multi": 1, "message": 1}


# --------------------------------------------------------------------------------------- sessions


async def test_no_new_session_above_the_limit_and_the_others_go_on() -> None:
    async with local_server(cluster=ClusterConfig(sessions_max=2)) as server:
        first, second = await server.open_session(), await server.open_session()
        refused = await server.refusal("OpenSession")
        check(refused, "cluster.sessions_max", 2)
        assert "the cluster has 2 sessions" in refused.message
        await server.call("Heartbeat", credentials=first.session)
        await server.call("Create", path="/a", context=first)
        await server.call("CloseSession", context=second)
        assert current(server, "sessions") == 1
        await server.open_session()
        assert counted(server) == {"sessions": 1}


async def test_sessions_being_opened_count_and_one_that_fails_does_not_stay() -> None:
    async with local_server(cluster=ClusterConfig(sessions_max=2)) as server:
        server.replica.is_automatic = False
        opening = [server.start("OpenSession") for _ in range(2)]
        await eventually(lambda: len(server.replica.submitted) == 2)
        check(await server.refusal("OpenSession"), "cluster.sessions_max", 2)
        server.replica.fail_submitted(RuntimeError("the replica lost them"))
        assert len(await asyncio.gather(*opening, return_exceptions=True)) == 2
        server.replica.is_automatic = True
        await server.open_session()
        await server.open_session()
        assert counted(server) == {"sessions": 1}


# ---------------------------------------------------------------------------------------- openings


@asynccontextmanager
async def few_openings(burst: int) -> AsyncIterator[Harness]:
    """So many at once, and one more a second at most."""
    limits = LimitsConfig(openings_per_s_max=1, openings_burst_max=burst)
    async with local_server(limits=limits) as server:
        fixed = server.replica.clock.monotonic()
        server.replica.clock.monotonic = lambda: fixed  # type: ignore[method-assign]
        yield server


async def test_too_many_new_sessions_are_told_when_to_come_back() -> None:
    async with few_openings(4) as server:
        contexts = [await server.open_session() for _ in range(3)]
        refused = await server.refusal("OpenSession")
        check(refused, "limits.openings_per_s_max", 1, code="THROTTLED")
        assert refused.detail.retry_after_ms >= 100
        assert current(server, "openings_burst") == 3
        # What is open is not held up.
        for context in contexts:
            await server.call("Heartbeat", credentials=context.session)
            await server.call("Create", path="/a-", context=context, mode=2)
        assert counted(server) == {"openings": 1}


async def test_a_session_that_comes_back_goes_before_new_ones() -> None:
    async with few_openings(4) as server:
        contexts = [await server.open_session() for _ in range(3)]
        await server.refusal("OpenSession")
        async with session_stream(server, contexts[0].session) as stream:
            assert (await items(stream))[0].HasField("welcome")
        with pytest.raises(aio.AioRpcError) as caught:
            async with session_stream(server, contexts[1].session) as stream:
                await items(stream)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "limits.openings_per_s_max" in (caught.value.details() or "")
        # It has lost nothing: it is alive, and may come again.
        await server.call("Heartbeat", credentials=contexts[1].session)
        assert counted(server) == {"openings": 2}


# ------------------------------------------------------------------------------------- connections


async def test_a_new_connection_above_the_limit_of_its_address() -> None:
    async with local_server(limits=LimitsConfig(connections_per_address_max=1)) as server:
        await server.call("Create", path="/a")
        server.replica.is_automatic = False
        held = server.start("Create", path="/held")
        await eventually(lambda: len(server.replica.submitted) == 2)
        async with another_connection(server) as other:
            refused = await other.refusal("Exists", path="/a")
            check(refused, "limits.connections_per_address_max", 1)
            assert current(server, "connections_per_address") == 1
            # The connection that is there goes on, and when it is idle its place is free.
            await server.call("Exists", path="/a")
            server.replica.apply()
            await held
            await other.call("Exists", path="/a")
        assert current(server, "connections_per_address") == 0
        assert counted(server) == {"connections_per_address": 1}


@asynccontextmanager
async def another_connection(server: Harness) -> AsyncIterator[Harness]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    channel = aio.insecure_channel(str(server.server.address), options=options)
    try:
        yield Harness(server.server, server.replica, channel)
    finally:
        await channel.close()


# ------------------------------------------------------------------------------------ what waits


async def test_reads_that_wait_are_bounded_and_writes_are_not_held_up_by_them() -> None:
    async with local_server(limits=LimitsConfig(reads_waiting_max=2)) as server:
        zxid = (await server.call("Create", path="/a")).header.zxid
        ahead = common_pb2.RequestContext(min_zxid=zxid + 2)
        waiting = [server.start("GetData", path="/a", context=ahead) for _ in range(2)]
        await eventually(lambda: current(server, "reads_waiting") == 2)
        refused = await server.refusal("GetData", path="/a")
        check(refused, "limits.reads_waiting_max", 2, code="THROTTLED")
        assert refused.detail.retry_after_ms > 0
        await server.call("Create", path="/b")
        await server.call("Create", path="/c")
        await asyncio.gather(*waiting)
        assert current(server, "reads_waiting") == 0
        await server.call("GetData", path="/a")
        assert counted(server) == {"reads_waiting": 1}


# --------------------------------------------------------------------------------------- the disk


async def test_with_a_full_disk_only_what_makes_room_is_taken_at_each_door() -> None:
    async with local_server() as server:
        context = await server.open_session()
        for path in ("/a", "/b", "/c", "/d"):
            await server.call("Create", path=path, context=context)
        server.server.disk_space.stop()
        server.server.disk_space.note_free(1)
        delete, check_op, create = (
            coordination_pb2.MultiOperation(delete=coordination_pb2.DeleteOperation(path="/a")),
            coordination_pb2.MultiOperation(check=coordination_pb2.CheckOperation(path="/b")),
            coordination_pb2.MultiOperation(create=coordination_pb2.CreateOperation(path="/x")),
        )
        least = server.server.config.storage.disk_free_bytes_min
        for method, fields in (
            ("Create", {"path": "/x", "context": context}),
            ("SetData", {"path": "/a", "data": b""}),
            ("SetAcl", {"path": "/a"}),
            ("Multi", {"operations": [delete, create]}),
            ("AddAuth", {"scheme": "digest", "credential": b"a:b", "context": context}),
            ("OpenSession", {}),
        ):
            if method == "SetAcl":
                fields["acl"] = [common_pb2.Acl(permissions=31, scheme="world", id="anyone")]
            refused = await server.refusal(method, **fields)
            check(refused, "storage.disk_free_bytes_min", least)
            assert "free space on the disk" in refused.message and refused.detail.retry_after_ms
        await server.call("Multi", operations=[delete, check_op])
        await server.call("Delete", path="/b", context=context)
        await server.call("Heartbeat", credentials=context.session)
        assert (await server.call("GetData", path="/c")).HasField("stat")
        await on_a_stream_with_a_full_disk(server, context)
        await server.call("CloseSession", context=context)
        server.server.disk_space.note_free(10 * least)
        await server.call("Create", path="/x")
        assert counted(server) == {"disk_free": 7}


async def on_a_stream_with_a_full_disk(server: Harness, context: common_pb2.RequestContext) -> None:
    async with session_stream(server, context.session) as stream:
        assert (await items(stream))[0].HasField("welcome")
        await stream.write(
            coordination_pb2.SessionRequest(
                operations=[
                    operation(1, create=coordination_pb2.CreateRequest(path="/x")),
                    operation(2, delete=coordination_pb2.DeleteRequest(path="/c")),
                    operation(3, get_data=coordination_pb2.GetDataRequest(path="/d")),
                ]
            )
        )
        replies = [item.reply for item in await items(stream, 3)]
    assert [reply.WhichOneof("result") for reply in replies] == ["error", "delete", "get_data"]
    assert replies[0].error.code == errors_pb2.ERROR_CODE_LIMIT_EXCEEDED
    assert replies[0].error.applied == errors_pb2.APPLIED_NO


# ------------------------------------------------------------------------------------------ streams


@asynccontextmanager
async def session_stream(
    server: Harness, credentials: common_pb2.SessionCredentials
) -> AsyncIterator[Any]:
    """A Session stream of a session that comes back; its hello is sent."""
    stream = CoordinationStub(server.channel).Session()  # type: ignore[no-untyped-call]
    try:
        hello = coordination_pb2.SessionHello(credentials=credentials)
        await stream.write(coordination_pb2.SessionRequest(hello=hello))
        yield stream
    finally:
        stream.cancel()


def operation(request_id: int, **request: Any) -> coordination_pb2.SessionOperation:
    return coordination_pb2.SessionOperation(request_id=request_id, **request)


async def items(stream: Any, count: int = 1) -> list[coordination_pb2.SessionItem]:
    """The next ones, at least `count`."""
    found: list[coordination_pb2.SessionItem] = []
    while len(found) < count:
        frame = await stream.read()
        assert frame is not aio.EOF, await stream.code()
        found.extend(frame.items)
    return found
