"""Calls over a real channel: what is asked arrives, what is answered comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordsvc.core.commands import CollectContainer, Write
from coordsvc.errors import OutcomeUnknownError
from coordsvc.server.identities import ids_of_peer
from coordsvc.v1 import common_pb2, coordination_pb2, errors_pb2
from tests.unit.server.harness import Harness, eventually, local_server


@pytest.fixture
async def server() -> AsyncIterator[Harness]:
    async with local_server() as harness:
        yield harness


def acl(permissions: int, scheme: str, own: str) -> common_pb2.Acl:
    return common_pb2.Acl(permissions=permissions, scheme=scheme, id=own)


# ------------------------------------------------------------------------------ what is answered


async def test_a_znode_from_create_to_delete(server: Harness) -> None:
    created = await server.call("Create", path="/a", data=b"1")
    assert created.path == "/a" and created.header.replica_id == 1
    assert created.header.zxid == created.stat.czxid > 0
    assert created.header.cluster_id == 0x0707070707070707 and created.header.term == 1
    written = await server.call("SetData", path="/a", data=b"22", expected_version=0)
    assert (written.stat.version, written.stat.data_length) == (1, 2)
    read = await server.call("GetData", path="/a")
    assert (read.data, read.stat) == (b"22", written.stat)
    assert read.header.zxid == written.header.zxid
    assert (await server.call("Exists", path="/a")).stat == written.stat
    await server.call("Delete", path="/a", expected_version=1)
    assert not (await server.call("Exists", path="/a")).HasField("stat")


async def test_null_data_is_not_empty_data(server: Harness) -> None:
    await server.call("Create", path="/null")
    await server.call("Create", path="/empty", data=b"")
    assert not (await server.call("GetData", path="/null")).HasField("data")
    empty = await server.call("GetData", path="/empty")
    assert empty.HasField("data") and empty.data == b""
    await server.call("SetData", path="/empty")
    assert not (await server.call("GetData", path="/empty")).HasField("data")
    page = await server.call("GetChildren", path="/", include_data=True)
    with_data = {child.name for child in page.children if child.HasField("data")}
    assert {"null", "empty"} & with_data == set()


async def test_children_come_sorted_in_pages(server: Harness) -> None:
    await server.call("Create", path="/p", data=b"parent")
    for name in "cadb":
        await server.call("Create", path=f"/p/{name}", data=name.encode())
    page = await server.call(
        "GetChildren", path="/p", page_size=3, include_stat=True, include_data=True
    )
    assert [(child.name, child.data) for child in page.children] == [
        ("a", b"a"),
        ("b", b"b"),
        ("c", b"c"),
    ]
    assert all(child.stat.czxid for child in page.children) and page.stat.num_children == 4
    rest = await server.call("GetChildren", path="/p", page_token=page.next_page_token)
    assert [child.name for child in rest.children] == ["d"]
    assert rest.next_page_token == "" and not rest.children[0].HasField("stat")


async def test_no_page_is_larger_than_a_default_client_takes(server: Harness) -> None:
    await server.call("Create", path="/p")
    for i in range(5):
        await server.call("Create", path=f"/p/{i}", data=bytes(1024 * 1024))
    names, token, pages = [], "", 0
    while not pages or token:
        page = await server.call("GetChildren", path="/p", page_token=token, include_data=True)
        assert page.ByteSize() <= 3 * 1024 * 1024
        names += [child.name for child in page.children]
        token, pages = page.next_page_token, pages + 1
    assert names == ["0", "1", "2", "3", "4"] and pages >= 2


async def test_a_multi_does_all_or_nothing(server: Harness) -> None:
    operations = [
        coordination_pb2.MultiOperation(create=coordination_pb2.CreateOperation(path="/m")),
        coordination_pb2.MultiOperation(
            set_data=coordination_pb2.SetDataOperation(path="/m", data=b"x")
        ),
        coordination_pb2.MultiOperation(
            check=coordination_pb2.CheckOperation(path="/m", expected_version=1)
        ),
        coordination_pb2.MultiOperation(delete=coordination_pb2.DeleteOperation(path="/m")),
    ]
    done = await server.call("Multi", operations=operations)
    kinds = [result.WhichOneof("result") for result in done.results]
    assert kinds == ["create", "set_data", "check", "delete"]
    assert done.results[0].create.path == "/m" and done.results[1].set_data.stat.version == 1
    operations[2].check.expected_version = 7
    refused = await server.refusal("Multi", operations=operations)
    assert refused.code == "BAD_VERSION" and refused.detail.operation_index == 2
    assert not (await server.call("Exists", path="/m")).HasField("stat")


async def test_an_empty_multi_is_done(server: Harness) -> None:
    assert (await server.call("Multi")).header.zxid > 0


async def test_sync_echoes_its_path(server: Harness) -> None:
    assert (await server.call("Sync", path="/not/there")).path == "/not/there"


async def test_acls_are_set_read_and_kept(server: Harness) -> None:
    context = await server.open_session()
    added = await server.call(
        "AddAuth", context=context, scheme="digest", credential=b"user:secret"
    )
    (own,) = added.ids
    assert own.scheme == "digest" and own.id.startswith("user:") and "secret" not in own.id
    mine = [acl(31, "auth", "")]
    await server.call("Create", context=context, path="/mine", data=b"x", acl=mine)
    refused = await server.refusal("GetData", path="/mine")
    assert refused.code == "NO_AUTH" and refused.status == grpc.StatusCode.PERMISSION_DENIED
    assert (await server.call("GetData", context=context, path="/mine")).data == b"x"
    seen = await server.call("GetAcl", context=context, path="/mine")
    assert list(seen.acl) == [acl(31, "digest", own.id)]
    world = [acl(1, "world", "anyone"), acl(30, "digest", own.id)]
    stat = (await server.call("SetAcl", context=context, path="/mine", acl=world)).stat
    assert stat.aversion == 1
    hidden = await server.call("GetAcl", path="/mine")
    assert [entry.id for entry in hidden.acl] == ["anyone", "user:x"]


async def test_the_connections_address_is_an_identity(server: Harness) -> None:
    await server.call("Create", path="/near", data=b"x", acl=[acl(31, "ip", "127.0.0.0/8")])
    await server.call("Create", path="/far", acl=[acl(31, "ip", "10.0.0.0/8")])
    assert (await server.call("GetData", path="/near")).data == b"x"
    assert (await server.refusal("GetData", path="/far")).code == "NO_AUTH"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[2001:db8::1]:4711", "2001:db8::1"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:4711", "10.0.0.1"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::1"),
        ("unix:/run/x.sock", None),
        ("unix:", None),
        ("", None),
        ("ipv4:nonsense", None),
    ],
)
def test_addresses_of_connections(peer: str, address: str | None) -> None:
    assert [auth_id.id for auth_id in ids_of_peer(peer)] == ([address] if address else [])


# ------------------------------------------------------------------------------------- sessions


async def test_a_session_from_opening_to_its_end(server: Harness) -> None:
    opened = await server.call("OpenSession", timeout_ms=1, client_name="test")
    assert opened.timeout_ms == 1_000
    assert opened.header.zxid == opened.credentials.session_id
    assert len(opened.credentials.password) == 16
    assert (await server.call("Heartbeat", credentials=opened.credentials)).timeout_ms == 1_000
    context = common_pb2.RequestContext(session=opened.credentials)
    made = await server.call("Create", context=context, path="/e", mode="CREATE_MODE_EPHEMERAL")
    assert made.stat.ephemeral_owner == opened.credentials.session_id
    await server.call("CloseSession", context=context)
    assert not (await server.call("Exists", path="/e")).HasField("stat")
    for method, fields in (
        ("Heartbeat", {"credentials": opened.credentials}),
        ("Exists", {"context": context, "path": "/"}),
        ("Create", {"context": context, "path": "/x"}),
        ("CloseSession", {"context": context}),
    ):
        refused = await server.refusal(method, **fields)
        assert refused.code == "SESSION_EXPIRED"
        assert refused.status == grpc.StatusCode.FAILED_PRECONDITION


async def test_who_reads_or_sends_heartbeats_lives_and_who_is_silent_expires(
    server: Harness,
) -> None:
    loop = asyncio.get_running_loop()
    reader, beater, silent = [await server.open_session(timeout_ms=1_000) for _ in range(3)]
    for name, context in (("reader", reader), ("beater", beater), ("silent", silent)):
        path = f"/{name}"
        await server.call("Create", context=context, path=path, mode="CREATE_MODE_EPHEMERAL")
    heard_at, silent_s = loop.time(), 0.0
    for _ in range(25):
        await asyncio.sleep(0.1)
        await server.call("Exists", context=reader, path="/")
        await server.call("Heartbeat", credentials=beater.session)
        if not silent_s and "/silent" not in server.replica.machine.state.znodes:
            silent_s = loop.time() - heard_at
    # A busy machine may stop the loop, and that much is owed; and it is looked at now and then.
    stalled_s = server.server.clock.statistics().stalled_seconds_total
    assert 1.0 <= silent_s <= 1.0 + 2 * 0.5 + stalled_s + 0.15
    assert {"/reader", "/beater"} <= set(server.replica.machine.state.znodes)
    assert (await server.refusal("Exists", context=silent, path="/")).code == "SESSION_EXPIRED"


async def test_a_wrong_password_is_answered_as_an_unknown_session(server: Harness) -> None:
    context = await server.open_session()
    context.session.password = b"wrong"
    wrong = await server.refusal("Heartbeat", credentials=context.session)
    context.session.session_id = 10**12
    unknown = await server.refusal("Heartbeat", credentials=context.session)
    assert wrong.code == unknown.code == "SESSION_EXPIRED"
    assert wrong.message.split(" ", 2)[2] == unknown.message.split(" ", 2)[2]


async def test_a_retry_under_its_number_answers_as_the_first_time(server: Harness) -> None:
    context = await server.open_session()
    context.request_number = 1
    fields: dict[str, Any] = {"path": "/s-", "mode": "CREATE_MODE_PERSISTENT_SEQUENTIAL"}
    first = await server.call("Create", context=context, **fields)
    again = await server.call("Create", context=context, **fields)
    assert first == again and first.path == "/s-0000000000"
    context.request_number = 3
    assert (await server.refusal("Create", context=context, **fields)).code == (
        "REQUEST_OUT_OF_ORDER"
    )
    context.request_number = 2
    context.done_below = 2
    refused = await server.refusal("Delete", context=context, path="/none")
    assert (refused.code, refused.detail.zxid) == ("NO_NODE", first.header.zxid + 1)
    repeated = await server.refusal("Delete", context=context, path="/none")
    assert repeated.detail == refused.detail
    context.request_number, context.done_below = 1, 0
    forgotten = await server.refusal("Create", context=context, **fields)
    assert forgotten.code == "RESULT_FORGOTTEN"
    assert forgotten.detail.applied == errors_pb2.APPLIED_UNKNOWN


async def test_a_guard_refuses_the_write_when_its_znode_is_gone(server: Harness) -> None:
    lock = await server.call("Create", path="/lock")
    guard = common_pb2.Guard(path="/lock", czxid=lock.stat.czxid)
    context = common_pb2.RequestContext(guard=guard)
    await server.call("Create", context=context, path="/a")
    await server.call("Delete", path="/lock")
    await server.call("Create", path="/lock")
    refused = await server.refusal("Create", context=context, path="/b")
    assert refused.code == "GUARD_FAILED" and refused.detail.path == "/lock"


async def test_containers_and_ttl_znodes_are_made(server: Harness) -> None:
    await server.call("Create", path="/c", mode="CREATE_MODE_CONTAINER")
    await server.call("Create", path="/c/child")
    await server.call("Delete", path="/c/child")
    await server.call("Create", path="/t", mode="CREATE_MODE_PERSISTENT_WITH_TTL", ttl_ms=1)
    await eventually(lambda: "/t" not in server.replica.machine.state.znodes)
    assert "/c" in server.replica.machine.state.znodes, "it waits for its turn"
    assert not any(isinstance(each, CollectContainer) for each in server.replica.proposals)


# -------------------------------------------------------------------------- cancelled, unanswered


async def test_half_of_a_thousand_writes_in_flight_cancelled(server: Harness) -> None:
    """Goal: the other half are all answered, and each write happens at most once."""
    server.replica.is_automatic = False
    tasks = [server.start("Create", path=f"/n{i}", timeout=30) for i in range(1000)]
    await eventually(lambda: server.server.pipeline.statistics().writes_pending >= 900)
    for i, task in enumerate(tasks):
        if i % 2:
            task.cancel()
    server.replica.is_automatic = True
    server.replica.apply()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for i, answer in enumerate(answers):
        if i % 2:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer.path == f"/n{i}", answer  # type: ignore[union-attr]
    names = server.replica.machine.state.child_names("/")
    assert {f"n{i}" for i in range(0, 1000, 2)} <= set(names)
    submitted = [
        command.op.path for command in server.replica.submitted if isinstance(command, Write)
    ]  # type: ignore[union-attr]
    assert len(submitted) == len(set(submitted)) <= 1000
    await eventually(lambda: server.server.door.active == 0)


async def test_an_undecided_write_ends_as_unknown_and_not_as_unavailable(server: Harness) -> None:
    server.replica.is_automatic = False
    task = server.start("Create", path="/a")
    await eventually(lambda: server.server.pipeline.statistics().writes_pending == 1)
    server.replica.fail_submitted(OutcomeUnknownError("undecided"))
    with pytest.raises(Exception) as caught:
        await task
    refused: Any = caught.value
    assert refused.code == "OUTCOME_UNKNOWN"
    assert refused.status == grpc.StatusCode.DEADLINE_EXCEEDED
    assert refused.detail.applied == errors_pb2.APPLIED_UNKNOWN
    assert refused.trailers["coordsvc-applied"] == "unknown"


async def test_without_a_quorum_the_answer_is_unavailable_and_surely_not_applied(
    server: Harness,
) -> None:
    context = await server.open_session()
    server.replica.has_quorum = False
    for method, fields in (
        ("Create", {"path": "/a"}),
        ("GetData", {"path": "/"}),
        ("GetData", {"path": "/", "consistency": "READ_CONSISTENCY_LINEARIZABLE"}),
        ("Sync", {}),
        ("OpenSession", {}),
        ("Heartbeat", {"credentials": context.session}),
        ("CloseSession", {"context": context}),
    ):
        refused = await server.refusal(method, **fields)
        assert refused.code == "NO_QUORUM" and refused.status == grpc.StatusCode.UNAVAILABLE
        assert refused.detail.applied == errors_pb2.APPLIED_NO
        assert refused.trailers["coordsvc-error"] == "NO_QUORUM"
        assert refused.trailers["coordsvc-applied"] == "no"


async def test_a_heartbeat_without_the_leaders_word_fails_within_about_a_tick(
    server: Harness,
) -> None:
    """The leader cannot confirm itself, but nobody has noticed yet."""
    context = await server.open_session()
    server.replica.hold_confirmations = True
    loop = asyncio.get_running_loop()
    began = loop.time()
    refused = await server.refusal("Heartbeat", credentials=context.session)
    assert refused.code == "NO_QUORUM" and 0.4 <= loop.time() - began <= 1.5
    server.replica.hold_confirmations = False
    server.replica.confirm()
    await server.call("Heartbeat", credentials=context.session)


# ------------------------------------------------------------------------- health and reflection


async def test_health_is_serving_exactly_while_ready(server: Harness) -> None:
    health = health_pb2_grpc.HealthStub(server.channel)
    for name in ("", "coordsvc.v1.Coordination"):
        request = health_pb2.HealthCheckRequest(service=name)
        watch = health.Watch(request)
        states = [(await watch.read()).status]
        server.replica.has_quorum = False
        states.append((await watch.read()).status)
        server.replica.has_quorum = True
        states.append((await watch.read()).status)
        watch.cancel()
        assert states == [1, 2, 1]
        assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
    server.server.begin_stop()
    await asyncio.sleep(0)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_knows_the_services(server: Harness) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="coordsvc.v1.Coordination"),
    ]
    answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {"coordsvc.v1.Coordination", "coordsvc.v1.Cluster", "grpc.health.v1.Health"} <= names
    assert answers[1].file_descriptor_response.file_descriptor_proto


async def test_a_second_server_cannot_share_the_port(server: Harness) -> None:
    """Two clusters once shared a port silently, and each got half of the calls."""
    from coordsvc.server.grpc_door import SERVER_OPTIONS

    other = aio.server(options=SERVER_OPTIONS)
    with pytest.raises(RuntimeError):
        other.add_insecure_port(str(server.server.address))
