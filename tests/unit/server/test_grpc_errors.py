"""Bad input over a real channel: a clear typed error each time, nothing lost, nothing told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from grpc import aio

from coordsvc.server.grpc_door import RECEIVE_BYTES_MAX, seconds_left
from coordsvc.v1 import common_pb2, coordination_pb2, errors_pb2
from tests.unit.server.harness import Harness, Refused, local_server


@pytest.fixture
async def server() -> AsyncIterator[Harness]:
    async with local_server() as harness:
        yield harness


# ---------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    "path", ["", "a", "/a/", "//", "/a//b", "/a/./b", "/..", "/a\x00", "/\x7f"]
)
async def test_malformed_paths(server: Harness, path: str) -> None:
    methods = ("Create", "Delete", "SetData", "GetData", "Exists", "GetChildren", "GetAcl")
    for method in methods:
        refused = await server.refusal(method, path=path)
        assert refused.code == "BAD_ARGUMENTS", (method, path)
        assert refused.status == grpc.StatusCode.INVALID_ARGUMENT
        assert refused.detail.applied == errors_pb2.APPLIED_NO


async def test_unknown_enum_values(server: Harness) -> None:
    for method, fields in (
        ("Create", {"path": "/a", "mode": 99}),
        ("GetData", {"path": "/", "consistency": 99}),
        ("Exists", {"path": "/", "consistency": -1}),
    ):
        refused = await server.refusal(method, **fields)
        assert refused.code == "BAD_ARGUMENTS" and "unknown" in refused.message


async def test_a_path_of_4000_characters_that_is_not_there(server: Harness) -> None:
    path = "/" + "é" * 1000 + "a" * 2000
    refused = await server.refusal("GetData", path=path)
    assert refused.code == "NO_NODE" and refused.status == grpc.StatusCode.NOT_FOUND
    assert len(refused.detail.path.encode()) <= 1024 and refused.detail.path.endswith("...")
    assert path.startswith(refused.detail.path[:-3])
    assert len(refused.message.encode()) <= 256
    assert not (await server.call("Exists", path=path)).HasField("stat")


async def test_a_path_of_5000_bytes_is_a_bad_argument_and_no_exhausted_resource(
    server: Harness,
) -> None:
    """The trailers once outgrew what clients take, and the channel answered instead."""
    for method in ("Create", "Delete", "SetData", "GetData", "Exists", "GetChildren", "Sync"):
        refused = await server.refusal(method, path="/" + "x" * 5000)
        assert refused.code == "BAD_ARGUMENTS"
        assert refused.status == grpc.StatusCode.INVALID_ARGUMENT
        assert len(refused.detail.path) == 1024


async def test_a_path_of_characters_that_a_header_must_escape(server: Harness) -> None:
    path = "/" + "\U0001f600" * 1000
    refused = await server.refusal("GetData", path=path)
    assert refused.code == "NO_NODE" and refused.detail.path.endswith("\U0001f600...")


async def test_versions_numbers_and_watches_out_of_range(server: Harness) -> None:
    context = await server.open_session()
    numbered = common_pb2.RequestContext(request_number=1)
    for method, fields in (
        ("Delete", {"path": "/a", "expected_version": -2}),
        ("GetChildren", {"path": "/", "page_size": -1}),
        ("GetData", {"path": "/", "watch_id": 1}),
        ("Exists", {"path": "/", "watch_id": -1}),
        ("GetChildren", {"path": "/", "watch_id": 7}),
        ("OpenSession", {"timeout_ms": -1}),
        ("Create", {"path": "/a", "context": numbered}),
        ("Create", {"path": "/a", "ttl_ms": 1}),
        ("Create", {"path": "/e", "mode": "CREATE_MODE_EPHEMERAL"}),
        ("CloseSession", {}),
        ("Heartbeat", {}),
        ("AddAuth", {"scheme": "digest", "credential": b"a:b"}),
        ("Digest", {"min_zxid": -1}),
        ("TransferLeadership", {"to_replica_id": 9}),
        ("TransferLeadership", {"to_replica_id": -1}),
    ):
        refused = await server.refusal(method, **fields)
        assert refused.code == "BAD_ARGUMENTS", (method, refused.message)
    assert (await server.call("Exists", path="/", context=context)).HasField("stat")


@pytest.mark.parametrize(
    ("scheme", "credential"),
    [
        ("sasl", b"x"),
        ("", b""),
        ("ip", b"1.2.3.4"),
        ("super", b"super:secret"),
        ("digest", b"no colon"),
        ("digest", b":nobody"),
        ("digest", b"user:\xff"),
        ("digest", b"u:" + b"x" * 5000),
    ],
)
async def test_credentials_that_prove_nothing(
    server: Harness, scheme: str, credential: bytes
) -> None:
    context = await server.open_session()
    refused = await server.refusal("AddAuth", context=context, scheme=scheme, credential=credential)
    assert refused.code == "AUTH_FAILED" and refused.status == grpc.StatusCode.UNAUTHENTICATED
    assert "secret" not in str(refused.rpc_status)


async def test_acls_that_are_none(server: Harness) -> None:
    await server.call("Create", path="/a")
    for entry in (
        common_pb2.Acl(permissions=32, scheme="world", id="anyone"),
        common_pb2.Acl(permissions=-1, scheme="world", id="anyone"),
        common_pb2.Acl(permissions=1, scheme="world", id="everyone"),
        common_pb2.Acl(permissions=1, scheme="magic", id="x"),
        common_pb2.Acl(permissions=1, scheme="auth"),
    ):
        refused = await server.refusal("SetAcl", path="/a", acl=[entry])
        assert refused.code == "INVALID_ACL", entry
    assert (await server.refusal("SetAcl", path="/a")).code == "INVALID_ACL"


async def test_an_unknown_feature_is_refused_and_nothing_is_done(server: Harness) -> None:
    context = common_pb2.RequestContext(required_features=["teleport"])
    for method, fields in (
        ("Create", {"context": context, "path": "/a"}),
        ("Exists", {"context": context, "path": "/a"}),
        ("OpenSession", {"required_features": ["teleport"]}),
        ("Status", {"required_features": ["teleport"]}),
        ("Members", {"required_features": ["teleport"]}),
        ("Digest", {"required_features": ["teleport"]}),
        ("TransferLeadership", {"required_features": ["teleport"]}),
    ):
        refused = await server.refusal(method, **fields)
        assert refused.code == "UNSUPPORTED_FEATURE"
        assert refused.status == grpc.StatusCode.UNIMPLEMENTED
    assert not (await server.call("Exists", path="/a")).HasField("stat")


async def test_a_multi_with_a_bad_operation_names_it(server: Harness) -> None:
    good = coordination_pb2.MultiOperation(create=coordination_pb2.CreateOperation(path="/a"))
    for bad, code in (
        (coordination_pb2.MultiOperation(), "BAD_ARGUMENTS"),
        (
            coordination_pb2.MultiOperation(
                create=coordination_pb2.CreateOperation(path="/b", data=bytes(2**20 + 1))
            ),
            "LIMIT_EXCEEDED",
        ),
        (
            coordination_pb2.MultiOperation(create=coordination_pb2.CreateOperation(path="b")),
            "BAD_ARGUMENTS",
        ),
    ):
        refused = await server.refusal("Multi", operations=[good, bad])
        assert (refused.code, refused.detail.operation_index) == (code, 1)
    assert not (await server.call("Exists", path="/a")).HasField("stat")


# -------------------------------------------------------------------------------------- deadlines


@pytest.mark.parametrize(
    ("left", "given"), [(None, 10.0), (60.0, 59.9), (0.5, 0.45), (0.0, 0.0), (-1.0, -0.9)]
)
def test_the_server_gives_up_a_little_before_its_caller(left: float | None, given: float) -> None:
    class Context:
        def time_remaining(self) -> float | None:
            return left

    assert seconds_left(Context()) == pytest.approx(given)  # type: ignore[arg-type]


async def test_a_typed_answer_comes_before_the_callers_deadline(server: Harness) -> None:
    """Otherwise the channel answers itself, and nobody knows whether a write was applied."""
    waiting = common_pb2.RequestContext(min_zxid=10**15)
    refused = await server.refusal("Exists", path="/", context=waiting, timeout=0.5)
    assert refused.code == "NOT_CAUGHT_UP" and refused.status == grpc.StatusCode.UNAVAILABLE


# ----------------------------------------------------------------------------------------- sizes


async def test_data_at_its_limit_is_taken_and_above_it_refused(server: Harness) -> None:
    await server.call("Create", path="/a", data=bytes(2**20))
    assert len((await server.call("GetData", path="/a")).data) == 2**20
    for method in ("Create", "SetData"):
        refused = await server.refusal(method, path="/a", data=bytes(2**20 + 1))
        assert refused.code == "LIMIT_EXCEEDED" and refused.detail.path == "/a"
        assert refused.status == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.detail.applied == errors_pb2.APPLIED_NO


async def test_too_many_operations_and_too_long_a_name(server: Harness) -> None:
    operation = coordination_pb2.MultiOperation(check=coordination_pb2.CheckOperation(path="/"))
    assert len((await server.call("Multi", operations=[operation] * 128)).results) == 128
    refused = await server.refusal("Multi", operations=[operation] * 129)
    assert refused.code == "LIMIT_EXCEEDED"
    assert (await server.refusal("OpenSession", client_name="x" * 257)).code == "LIMIT_EXCEEDED"


async def test_a_request_above_four_mebibytes_is_refused_with_our_detail(server: Harness) -> None:
    for size in (4 * 2**20 + 1, RECEIVE_BYTES_MAX - 100):
        refused = await server.refusal("Create", path="/a", data=bytes(size))
        assert refused.code == "LIMIT_EXCEEDED" and "request" in refused.message


async def test_a_request_above_grpcs_own_limit_is_refused_by_it(server: Harness) -> None:
    with pytest.raises(aio.AioRpcError) as caught:
        await server.call("Create", path="/a", data=bytes(RECEIVE_BYTES_MAX + 1))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    await server.call("Exists", path="/")


# ---------------------------------------------------------------------------------------- the wire


async def raw_call(server: Harness, method: str, data: bytes) -> aio.AioRpcError:
    stub = server.channel.unary_unary(f"/coordsvc.v1.Coordination/{method}")
    with pytest.raises(aio.AioRpcError) as caught:
        await stub(data, timeout=5)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x12\x7f/a",  # a path that is cut off
        b"\x12\x02\xff\xfe",  # a path that is no UTF-8
        bytes(100),
    ],
)
async def test_a_request_that_cannot_be_decoded(server: Harness, data: bytes) -> None:
    refused = Refused(await raw_call(server, "GetData", data))
    assert refused.code == "MARSHALLING_ERROR"
    assert refused.status == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["Watch", "Session"])
async def test_a_stream_that_begins_with_nothing_is_refused_typed(
    server: Harness, method: str
) -> None:
    path = f"/coordsvc.v1.Coordination/{method}"
    if method == "Watch":
        call: Any = server.channel.unary_stream(path)(b"")
    else:
        call = server.channel.stream_stream(path)(iter([b""]))
    with pytest.raises(aio.AioRpcError) as caught:
        async for _ in call:
            pass
    refused = Refused(caught.value)
    assert refused.code == "BAD_ARGUMENTS"
    assert refused.status == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_method_that_does_not_exist_is_the_channels_to_refuse(server: Harness) -> None:
    error = await raw_call(server, "Teleport", b"")
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_bug_is_told_to_the_log_alone(
    server: Harness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("a secret of the implementation")

    monkeypatch.setattr(server.server.pipeline, "read", fail)
    refused = await server.refusal("GetData", path="/")
    assert refused.code == "SYSTEM_ERROR" and refused.status == grpc.StatusCode.INTERNAL
    assert refused.detail.applied == errors_pb2.APPLIED_NO, "it is a read"
    assert "secret" not in refused.message and "secret" not in str(refused.trailers)
    assert "secret of the implementation" in caplog.text
    incident = refused.message.rsplit(" ", 1)[1]
    assert any(getattr(record, "incident", "") == incident for record in caplog.records)
    monkeypatch.setattr(server.server.pipeline, "write", fail)
    refused = await server.refusal("Create", path="/a")
    assert refused.detail.applied == errors_pb2.APPLIED_UNKNOWN


async def test_the_detail_and_the_status_agree(server: Harness) -> None:
    refused = await server.refusal("GetData", path="/none")
    assert isinstance(refused.rpc_status, status_pb2.Status)
    assert refused.rpc_status.code == refused.status.value[0]
    assert refused.rpc_status.message == refused.message
    assert len(refused.rpc_status.details) == 1


async def test_no_secret_is_ever_logged(server: Harness, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: not even with debug logs, and not when calls fail."""
    caplog.set_level(logging.DEBUG)
    context = await server.open_session()
    password = bytes(context.session.password)
    await server.call("AddAuth", context=context, scheme="digest", credential=b"joe:hunter2")
    await server.refusal("AddAuth", context=context, scheme="sasl", credential=b"hunter2")
    context.session.password = b"wrong-hunter2"
    await server.refusal("Exists", context=context, path="/")
    logged = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "rpc.done" in logged
    for secret in ("hunter2", password.hex(), repr(password)[2:-1]):
        assert secret not in logged


async def test_calls_are_counted_by_method_and_code(server: Harness) -> None:
    await server.call("Exists", path="/")
    await server.refusal("GetData", path="/none")
    task = server.start("Exists", path="/", timeout=None)
    await task
    await asyncio.sleep(0)
    counted = server.server.door.calls_total
    assert counted["Exists", "OK"] == 2 and counted["GetData", "NO_NODE"] == 1
