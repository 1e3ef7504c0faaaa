"""Who a caller is, and what that opens: each method with no, a wrong and the right identity."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha1
from typing import Any

import grpc
import pytest
from grpc import aio

from coordsvc.core.auth import SUPER_ID, check
from coordsvc.core.commands import ALL, Acl, AuthId
from coordsvc.errors import AuthFailedError
from coordsvc.server.identities import derive_ids, ids_of, ids_of_certificate, ids_of_peer
from coordsvc.testing.certificates import Authority, Pair
from coordsvc.v1 import (
    cluster_pb2,
    common_pb2,
    coordination_pb2,
    coordination_pb2_grpc,
    errors_pb2,
    watch_pb2,
)
from tests.unit.server.harness import Harness, local_server

SUPERUSER = b"super:secret"
SUPERUSER_DIGEST = "super:" + b64encode(sha1(SUPERUSER).digest()).decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority.make(tmp_path_factory.mktemp("identities"), "ca")
    for name in ("server", "alice", "bob"):
        authority.issue(name, f"/O=Example, Inc./CN={name}")
    return authority


ALICE = "CN=alice,O=Example\\, Inc."


def pair(authority: Authority, name: str) -> Pair:
    return Pair(authority.directory / f"{name}.pem", authority.directory / f"{name}.key")


@asynccontextmanager
async def serving(authority: Authority, **changes: Any) -> AsyncIterator[Harness]:
    """With TLS; the channel is Alice's."""
    server = pair(authority, "server")
    async with local_server(
        credentials(authority, "alice"),
        tls_cert=str(server.certificate),
        tls_key=str(server.key),
        tls_client_ca=str(authority.certificate),
        superuser_digest=SUPERUSER_DIGEST,
        **changes,
    ) as harness:
        yield harness


def credentials(authority: Authority, name: str) -> grpc.ChannelCredentials:
    files = pair(authority, name)
    return grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(),
        files.key.read_bytes(),
        files.certificate.read_bytes(),
    )


@asynccontextmanager
async def connected_as(server: Harness, authority: Authority, name: str) -> AsyncIterator[Harness]:
    channel = aio.secure_channel(
        str(server.server.address),
        credentials(authority, name),
        options=[("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)],
    )
    try:
        yield Harness(server.server, server.replica, channel)
    finally:
        await channel.close()


def acl(scheme: str, own: str, permissions: int = ALL) -> common_pb2.Acl:
    return common_pb2.Acl(permissions=permissions, scheme=scheme, id=own)


# ---------------------------------------------------------------------------- the pieces


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:10.0.0.7:1234", "10.0.0.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1234", "fe80::1"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:1234", "10.0.0.7"),
        ("unix:/run/x", ""),
        ("ipv4:what:1", ""),
    ],
)
def test_an_address_is_an_identity(peer: str, expected: str) -> None:
    assert ids_of_peer(peer) == ((AuthId("ip", expected),) if expected else ())


def test_a_certificate_is_its_subject(authority: Authority) -> None:
    pem = pair(authority, "alice").certificate.read_bytes()
    assert ids_of_certificate(pem) == (AuthId("x509", ALICE),)


class Connection:
    """As much of a call's context as identities are read from."""

    def __init__(self, peer: str, pem: bytes | None) -> None:
        self._peer, self._pem = peer, pem

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> dict[str, list[bytes]]:
        return {} if self._pem is None else {"x509_pem_cert": [self._pem]}


def test_the_next_connection_from_the_same_port_is_somebody_else(authority: Authority) -> None:
    address = AuthId("ip", "10.0.0.7")
    for name in ("alice", "bob", None, "alice"):
        pem = pair(authority, name).certificate.read_bytes() if name else None
        shown = (AuthId("x509", f"CN={name},O=Example\\, Inc."),) if name else ()
        assert ids_of(Connection("ipv4:10.0.0.7:1", pem)) == (address, *shown)  # type: ignore[arg-type]


def test_a_certificate_that_names_nobody_or_is_none_is_no_identity(authority: Authority) -> None:
    nobody = authority.issue("nobody", "/").certificate.read_bytes()
    assert ids_of_certificate(nobody) == ()
    many = "".join(f"/OU={'x' * 60}{i}" for i in range(80))
    assert ids_of_certificate(authority.issue("long", many).certificate.read_bytes()) == ()
    assert ids_of_certificate(b"nonsense") == ()


def test_a_digest_credential() -> None:
    (own,) = derive_ids("digest", b"user:password", superuser_digest="")
    assert own == AuthId("digest", "user:" + b64encode(sha1(b"user:password").digest()).decode())


@pytest.mark.parametrize("credential", [b"", b"user", b":password", b"\xff:x", b"u:" + b"x" * 4096])
def test_what_is_no_digest_credential_is_refused(credential: bytes) -> None:
    with pytest.raises(AuthFailedError):
        derive_ids("digest", credential, superuser_digest=SUPERUSER_DIGEST)


@pytest.mark.parametrize("scheme", ["super", "x509", "ip", "world", "auth", ""])
def test_other_identities_cannot_be_claimed(scheme: str) -> None:
    with pytest.raises(AuthFailedError):
        derive_ids(scheme, SUPERUSER, superuser_digest=SUPERUSER_DIGEST)


def test_the_superuser_is_who_has_exactly_that_digest() -> None:
    ids = derive_ids("digest", SUPERUSER, superuser_digest=SUPERUSER_DIGEST)
    assert ids == (SUPER_ID, AuthId("digest", SUPERUSER_DIGEST))
    for credential in (b"super:wrong", b"other:secret", b"super:secret "):
        (own,) = derive_ids("digest", credential, superuser_digest=SUPERUSER_DIGEST)
        assert own.scheme == "digest"


def test_without_the_setting_nobody_is_superuser() -> None:
    for credential in (SUPERUSER, b"super:x", b"x:"):
        ids = derive_ids("digest", credential, superuser_digest="")
        assert not check((Acl(ALL, "x509", "CN=nobody"),), ALL, ids)


# ------------------------------------------------------------------------------ every method

Step = Callable[[Harness, common_pb2.RequestContext], Awaitable[Any]]


def call(method: str, **fields: Any) -> Step:
    return lambda harness, context: harness.call(method, context=context, **fields)


def multi(**operation: Any) -> Step:
    return call("Multi", operations=[coordination_pb2.MultiOperation(**operation)])


GUARDED: dict[str, Step] = {
    # On a znode that only one identity may use. Each must be refused to everybody else.
    "Create": call("Create", path="/mine/child"),
    "Delete": call("Delete", path="/mine/old"),
    "Exists": call("Exists", path="/mine"),
    "GetData": call("GetData", path="/mine"),
    "SetData": call("SetData", path="/mine", data=b"x"),
    "GetChildren": call("GetChildren", path="/mine"),
    "GetAcl": call("GetAcl", path="/mine"),
    "SetAcl": call("SetAcl", path="/mine", acl=[acl("world", "anyone")]),
    "Multi": multi(set_data=coordination_pb2.SetDataOperation(path="/mine", data=b"x")),
    "Multi create": multi(create=coordination_pb2.CreateOperation(path="/mine/child")),
    "Multi delete": multi(delete=coordination_pb2.DeleteOperation(path="/mine/old")),
    "Multi check": multi(check=coordination_pb2.CheckOperation(path="/mine", expected_version=0)),
}

UNGUARDED = {
    # They show and change nothing that an ACL protects.
    *("Sync", "AddAuth", "Status", "Members", "TransferLeadership", "Digest"),
    # They take the session's own password.
    *("OpenSession", "Heartbeat", "CloseSession"),
    # Streams: see the end.
    *("Watch", "Session"),
}


def test_every_method_is_decided_upon() -> None:
    services = (
        coordination_pb2.DESCRIPTOR.services_by_name["Coordination"],
        cluster_pb2.DESCRIPTOR.services_by_name["Cluster"],
    )
    known = {method.name for service in services for method in service.methods}
    assert known == {name.split()[0] for name in GUARDED} | UNGUARDED


async def guarded_by(server: Harness, scheme: str, own: str) -> None:
    """/mine and /mine/old, for this identity alone."""
    await server.call("Create", path="/mine")
    await server.call("Create", path="/mine/old", acl=[acl(scheme, own)])
    await server.call("SetAcl", path="/mine", acl=[acl(scheme, own)])


@pytest.mark.parametrize("name", GUARDED)
async def test_x509_opens_to_its_subject_alone(authority: Authority, name: str) -> None:
    async with serving(authority) as alice, connected_as(alice, authority, "bob") as bob:
        await guarded_by(alice, "x509", ALICE)
        context = await bob.open_session()
        before = dict(alice.replica.machine.state.znodes)
        for attempt in (common_pb2.RequestContext(), context):
            with pytest.raises(Exception, match="NO_AUTH|PERMISSION_DENIED"):
                await GUARDED[name](bob, attempt)
        assert dict(alice.replica.machine.state.znodes) == before
        await GUARDED[name](alice, common_pb2.RequestContext())


@pytest.mark.parametrize("name", GUARDED)
async def test_an_identity_added_to_a_session_opens_to_that_session(
    authority: Authority, name: str
) -> None:
    async with serving(authority) as server:
        context = await server.open_session()
        added = await server.call(
            "AddAuth", context=context, scheme="digest", credential=b"user:password"
        )
        (own,) = added.ids
        await server.call("Create", path="/mine", context=context, acl=[acl("auth", "")])
        await server.call("SetAcl", path="/mine", context=context, acl=[acl("digest", own.id)])
        await server.call("Create", path="/mine/old", context=context, acl=[acl("digest", own.id)])
        other = await server.open_session()
        await server.call("AddAuth", context=other, scheme="digest", credential=b"user:other")
        for wrong in (common_pb2.RequestContext(), other):
            with pytest.raises(Exception, match="PERMISSION_DENIED"):
                await GUARDED[name](server, wrong)
        await GUARDED[name](server, context)


@pytest.mark.parametrize("name", GUARDED)
async def test_the_superuser_passes_every_acl(authority: Authority, name: str) -> None:
    async with serving(authority) as server:
        await guarded_by(server, "x509", "CN=somebody else")
        context = await server.open_session()
        await server.call("AddAuth", context=context, scheme="digest", credential=b"super:wrong")
        with pytest.raises(Exception, match="PERMISSION_DENIED"):
            await GUARDED[name](server, context)
        added = await server.call("AddAuth", context=context, scheme="digest", credential=SUPERUSER)
        assert [each.scheme for each in added.ids] == ["super", "digest"]
        with pytest.raises(Exception, match="PERMISSION_DENIED"):
            await GUARDED[name](server, common_pb2.RequestContext())
        await GUARDED[name](server, context)


async def test_auth_stands_for_the_certificate_too(authority: Authority) -> None:
    async with serving(authority) as server:
        await server.call("Create", path="/a", acl=[acl("auth", "")])
        (stored,) = (await server.call("GetAcl", path="/a")).acl
        assert (stored.scheme, stored.id) == ("x509", ALICE)


async def test_a_session_does_not_carry_a_certificate_to_another_connection(
    authority: Authority,
) -> None:
    """What a connection proves holds for what comes on it, not for who knows the session."""
    async with serving(authority) as alice, connected_as(alice, authority, "bob") as bob:
        await guarded_by(alice, "x509", ALICE)
        context = await alice.open_session()
        await alice.call("SetData", path="/mine", data=b"x", context=context)
        refused = await bob.refusal("SetData", path="/mine", data=b"y", context=context)
        assert refused.code == "NO_AUTH"


@pytest.mark.parametrize("scheme", ["super"])
async def test_no_acl_can_name_the_superuser(authority: Authority, scheme: str) -> None:
    async with serving(authority) as server:
        refused = await server.refusal("Create", path="/a", acl=[acl(scheme, "")])
        assert refused.code == "INVALID_ACL"


# ---------------------------------------------------------------------------------------- streams


async def replies(
    server: Harness, *operations: coordination_pb2.SessionOperation
) -> list[coordination_pb2.SessionReply]:
    """What a new Session stream answers to these, in order."""
    call = coordination_pb2_grpc.CoordinationStub(server.channel).Session()
    try:
        hello = coordination_pb2.SessionHello(timeout_ms=10_000)
        await call.write(coordination_pb2.SessionRequest(hello=hello, operations=operations))
        answered: list[coordination_pb2.SessionReply] = []
        async with asyncio.timeout(5):
            while len(answered) < len(operations):
                frame = await call.read()
                answered += [item.reply for item in frame.items if item.HasField("reply")]
        return answered
    finally:
        call.cancel()


def get_data(request_id: int) -> coordination_pb2.SessionOperation:
    return coordination_pb2.SessionOperation(
        request_id=request_id, get_data=coordination_pb2.GetDataRequest(path="/mine")
    )


def set_data(request_id: int) -> coordination_pb2.SessionOperation:
    return coordination_pb2.SessionOperation(
        request_id=request_id, set_data=coordination_pb2.SetDataRequest(path="/mine", data=b"x")
    )


def add_auth(request_id: int, credential: bytes) -> coordination_pb2.SessionOperation:
    request = coordination_pb2.AddAuthRequest(scheme="digest", credential=credential)
    return coordination_pb2.SessionOperation(request_id=request_id, add_auth=request)


def outcomes(answered: list[coordination_pb2.SessionReply]) -> list[str]:
    return [
        errors_pb2.ErrorCode.Name(reply.error.code) if reply.HasField("error") else "OK"
        for reply in answered
    ]


async def test_a_session_stream_knows_who_is_there(authority: Authority) -> None:
    """By the certificate, and by what is added on the stream, from the next request on."""
    refused = "ERROR_CODE_NO_AUTH"
    async with serving(authority) as alice, connected_as(alice, authority, "bob") as bob:
        await guarded_by(alice, "x509", ALICE)
        assert outcomes(await replies(alice, get_data(1), set_data(2))) == ["OK", "OK"]
        assert outcomes(await replies(bob, get_data(1), set_data(2))) == [refused, refused]
        requests = (
            add_auth(1, b"super:wrong"),
            get_data(2),
            set_data(3),
            add_auth(4, SUPERUSER),
            get_data(5),
            set_data(6),
        )
        expected = ["OK", refused, refused, "OK", "OK", "OK"]
        assert outcomes(await replies(bob, *requests)) == expected


async def watch(server: Harness, context: common_pb2.RequestContext) -> None:
    """Returns when the watch on /mine is set. AioRpcError: it is refused."""
    spec = watch_pb2.WatchSpec(watch_id=1, path="/mine", kind=watch_pb2.WATCH_KIND_DATA)
    request = watch_pb2.WatchRequest(context=context, watches=[spec])
    call = coordination_pb2_grpc.CoordinationStub(server.channel).Watch(request)
    try:
        async with asyncio.timeout(5):
            frame = await call.read()
            if frame is aio.EOF:
                raise AssertionError(await call.details())
        assert frame.items[0].HasField("watches_set")
    finally:
        call.cancel()


async def test_a_watch_stream_knows_who_is_there(authority: Authority) -> None:
    async with serving(authority) as alice, connected_as(alice, authority, "bob") as bob:
        await guarded_by(alice, "x509", ALICE)
        nobody = common_pb2.RequestContext()
        await watch(alice, nobody)
        context = await bob.open_session()
        for attempt in (nobody, context):
            with pytest.raises(aio.AioRpcError) as caught:
                await watch(bob, attempt)
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await bob.call("AddAuth", context=context, scheme="digest", credential=SUPERUSER)
        await watch(bob, context)
