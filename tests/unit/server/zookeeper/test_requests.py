"""Writes: bodies as operations, what is refused and where, and results as bodies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordsvc.core.commands import (
    OPEN_ACL,
    Acl,
    AuthId,
    CloseSessionOp,
    CreateOp,
    DeleteOp,
    SetAclOp,
    SetDataOp,
)
from coordsvc.errors import (
    BadArgumentsError,
    ErrorCode,
    InvalidAclError,
    LimitExceededError,
    MarshallingError,
)
from coordsvc.server.zookeeper import protocol
from coordsvc.server.zookeeper.jute import JuteError, Reader
from coordsvc.server.zookeeper.requests import READS, WRITES
from coordsvc.testing import zookeeper_records as records
from coordsvc.testing.zookeeper_records import WORLD, OpCode, create_body, int32, int64, text
from tests.unit.server.zookeeper.request_harness import LIMITS, Front, reader_of

CREATES = (OpCode.CREATE, OpCode.CREATE2)


@pytest.fixture
def front() -> Front:
    return Front()


def decode(op: int, body: bytes) -> object:
    return WRITES[op].decode(reader_of(body), LIMITS)


def set_data_body(path: str | None, data: bytes | None = b"", version: int = -1) -> bytes:
    return text(path) + records.buffer(data) + int32(version)


def set_acl_body(path: str, acl: object = WORLD, version: int = -1) -> bytes:
    return text(path) + records.acls(acl) + int32(version)  # type: ignore[arg-type]


def create_ttl_body(path: str, flags: int, ttl_ms: int) -> bytes:
    return create_body(path, b"", flags, WORLD) + int64(ttl_ms)


# ------------------------------------------------------------------------------------ the tables


def test_every_type_of_the_protocol_is_a_write_or_a_read_or_known_as_neither() -> None:
    elsewhere = {"NOTIFICATION", "PING", "AUTH", "CREATE_SESSION", "ERROR"}
    unknown = {"CHECK", "RECONFIG", "SASL", "DELETE_CONTAINER"}
    known = {op for op in OpCode if op.name not in elsewhere | unknown}
    assert not WRITES.keys() & READS.keys()
    assert WRITES.keys() | READS.keys() == known
    names = [kind.name for kind in (*WRITES.values(), *READS.values())]
    assert len(set(names)) == len(names)


def test_a_type_has_its_own_name() -> None:
    for op, kind in (*WRITES.items(), *READS.items()):
        assert kind.name.upper() == OpCode(op).name


# ---------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize("op", CREATES)
@pytest.mark.parametrize("flags", range(-1, 8))
def test_a_create_has_the_mode_of_its_flags(op: int, flags: int) -> None:
    body = create_body("/a", b"x", flags, WORLD)
    assert decode(op, body) == CreateOp("/a", b"x", flags, 0, OPEN_ACL)


def test_null_and_empty_data_are_two_things() -> None:
    for data in (None, b"", b"\0"):
        assert decode(OpCode.CREATE, create_body("/a", data, 0, WORLD)) == CreateOp("/a", data)
        assert decode(OpCode.SET_DATA, set_data_body("/a", data)) == SetDataOp("/a", data)


def test_versions() -> None:
    for version in (-1, 0, 7, 2**31 - 1):
        assert decode(OpCode.SET_DATA, set_data_body("/a", b"", version)) == SetDataOp(
            "/a", b"", version
        )
        assert decode(OpCode.DELETE, text("/a") + int32(version)) == DeleteOp("/a", version)
        acl_set = SetAclOp("/a", OPEN_ACL, version)
        assert decode(OpCode.SET_ACL, set_acl_body("/a", WORLD, version)) == acl_set


def test_the_open_acl_is_the_cores_own_object() -> None:
    for op in CREATES:
        made = decode(op, create_body("/a", b"", 0, WORLD))
        assert isinstance(made, CreateOp) and made.acl is OPEN_ACL
    changed = decode(OpCode.SET_ACL, set_acl_body("/a"))
    assert isinstance(changed, SetAclOp) and changed.acl is OPEN_ACL


def test_acls_come_as_they_are() -> None:
    for acl in (
        (records.Acl(31, "world", "anyone"), records.Acl(1, "ip", "::1")),
        (records.Acl(30, "world", "anyone"),),
        (records.Acl(31, "world", "anyonE"),),
        (records.Acl(-1, "", "ä"),),
        (),
    ):
        wanted = tuple(Acl(each.permissions, each.scheme, each.id) for each in acl)
        assert decode(OpCode.SET_ACL, set_acl_body("/a", acl)) == SetAclOp("/a", wanted)
    null = text("/a") + int32(-1) + int32(-1)
    assert decode(OpCode.SET_ACL, null) == SetAclOp("/a", ())
    nulls = text("/a") + int32(1) + int32(31) + text(None) + text(None) + int32(-1)
    assert decode(OpCode.SET_ACL, nulls) == SetAclOp("/a", (Acl(31, "", ""),))


def test_a_session_is_closed_without_a_body() -> None:
    for body in (b"", b"whatever"):
        assert decode(OpCode.CLOSE_SESSION, body) == CloseSessionOp()
    assert WRITES[OpCode.CLOSE_SESSION].encode(None, None) == b""


def test_fields_of_newer_clients_are_ignored() -> None:
    body = set_data_body("/a", b"x", 3) + b"more"
    assert decode(OpCode.SET_DATA, body) == SetDataOp("/a", b"x", 3)


@pytest.mark.parametrize("op", sorted(set(WRITES) - {OpCode.MULTI, OpCode.CLOSE_SESSION}))
def test_a_null_path_is_no_path(op: int) -> None:
    with pytest.raises(MarshallingError):
        decode(op, text(None) + bytes(64))


# --------------------------------------------------------------------------------- refused at once


def test_paths_and_data_are_bounded(front: Front) -> None:
    longest = "/" + "ä" * 2047 + "b"
    assert len(longest.encode()) == 4096
    assert decode(OpCode.DELETE, text(longest) + int32(-1)) == DeleteOp(longest)
    tails = {
        OpCode.CREATE: create_body("", b"", 0, WORLD)[4:],
        OpCode.DELETE: int32(-1),
        OpCode.SET_DATA: set_data_body("")[4:],
        OpCode.SET_ACL: set_acl_body("")[4:],
    }
    for op, tail in tails.items():
        with pytest.raises(BadArgumentsError, match="4097 bytes") as path_error:
            decode(op, text(longest + "c") + tail)
        assert path_error.value.limit == "path"
    limits = replace(LIMITS, data_size_bytes_max=10, path_size_bytes_max=5)
    set_data = WRITES[OpCode.SET_DATA].decode
    assert set_data(Reader(set_data_body("/abcd", b"x" * 10)), limits)
    with pytest.raises(LimitExceededError, match="11 bytes") as data_error:
        set_data(Reader(set_data_body("/abcd", b"x" * 11)), limits)
    assert data_error.value.limit == "data"
    with pytest.raises(LimitExceededError):
        WRITES[OpCode.CREATE].decode(Reader(create_body("/a", b"x" * 11, 0, WORLD)), limits)
    with pytest.raises(BadArgumentsError):
        set_data(Reader(set_data_body("/abcde")), limits)


def test_acls_are_bounded() -> None:
    entries = [records.Acl(1, "ip", f"10.0.{n // 256}.{n % 256}") for n in range(257)]
    longest = decode(OpCode.SET_ACL, set_acl_body("/a", entries[:256]))
    assert isinstance(longest, SetAclOp) and len(longest.acl) == 256
    with pytest.raises(InvalidAclError, match="256"):
        decode(OpCode.SET_ACL, set_acl_body("/a", entries))


def test_a_container_is_asked_as_such() -> None:
    op = decode(OpCode.CREATE_CONTAINER, create_body("/a", b"", 4, WORLD))
    assert op == CreateOp("/a", b"", 4)
    for flags in (-1, 0, 1, 2, 3, 5, 6, 7):
        with pytest.raises(BadArgumentsError):
            decode(OpCode.CREATE_CONTAINER, create_body("/a", b"", flags, WORLD))


def test_a_ttl_is_for_the_modes_that_have_one() -> None:
    for flags in (5, 6):
        op = decode(OpCode.CREATE_TTL, create_ttl_body("/a", flags, 70))
        assert op == CreateOp("/a", b"", flags, 70)
    for flags in (-1, 0, 1, 2, 3, 4, 7):
        for ttl_ms in (-1, 0, 70):
            with pytest.raises(BadArgumentsError):
                decode(OpCode.CREATE_TTL, create_ttl_body("/a", flags, ttl_ms))


def test_a_body_that_is_cut_anywhere_is_refused() -> None:
    bodies = {
        OpCode.CREATE: create_body("/ab", b"xy", 0, WORLD),
        OpCode.CREATE_TTL: create_ttl_body("/ab", 5, 9),
        OpCode.DELETE: text("/ab") + int32(3),
        OpCode.SET_DATA: set_data_body("/ab", b"xy", 3),
        OpCode.SET_ACL: set_acl_body("/ab", (records.Acl(1, "ip", "::1"),)),
    }
    for op, body in bodies.items():
        decode(op, body)
        for size in range(len(body)):
            with pytest.raises(JuteError):
                decode(op, body[:size])


# ------------------------------------------------------------------------- refused by the core


def test_modes_that_cannot_be(front: Front) -> None:
    """Unknown ones, and those with a TTL where there is none, or one out of bounds."""
    for op in CREATES:
        for flags in (-1, 5, 6, 7, 2**31 - 1):
            body = create_body("/a", b"", flags, WORLD)
            assert front.refused(op, body) is ErrorCode.BAD_ARGUMENTS
    for ttl_ms in (-(2**63), -1, 0, 2**40, 2**63 - 1):
        body = create_ttl_body("/a", 5, ttl_ms)
        assert front.refused(OpCode.CREATE_TTL, body) is ErrorCode.BAD_ARGUMENTS
    front.write(OpCode.CREATE_TTL, create_ttl_body("/a", 5, 2**40 - 1))


def test_an_acl_of_nothing_is_invalid(front: Front) -> None:
    front.create("/a")
    null = text("/b") + records.buffer(b"") + int32(-1) + int32(0)
    for body in (create_body("/b", b"", 0, ()), null):
        assert front.refused(OpCode.CREATE, body) is ErrorCode.INVALID_ACL
    assert front.refused(OpCode.SET_ACL, set_acl_body("/a", ())) is ErrorCode.INVALID_ACL
    nulls = text("/a") + int32(1) + int32(31) + text(None) + text(None) + int32(-1)
    assert front.refused(OpCode.SET_ACL, nulls) is ErrorCode.INVALID_ACL


@pytest.mark.parametrize("version", [-2, -77, -(2**31)])
def test_other_negative_versions_are_only_wrong_ones(front: Front, version: int) -> None:
    """Behind whatever ZooKeeper looks at before."""
    front.create("/a", "/b")
    closed = (Acl(31, "digest", "a:b="),)
    front.harness.write(CreateOp("/closed", acl=closed))
    for op, body in (
        (OpCode.SET_DATA, set_data_body),
        (OpCode.SET_ACL, lambda path, _, version: set_acl_body(path, WORLD, version)),
        (OpCode.DELETE, lambda path, _, version: text(path) + int32(version)),
    ):
        assert front.refused(op, body("/a", b"", version)) is ErrorCode.BAD_VERSION
        assert front.refused(op, body("/none", b"", version)) is ErrorCode.NO_NODE
        if op != OpCode.DELETE:
            assert front.refused(op, body("/closed", b"", version)) is ErrorCode.NO_AUTH
    assert front.state.znodes["/a"].stat.version == 0


def test_a_malformed_path_is_refused_in_zookeepers_order(front: Front) -> None:
    """Of a create after its parent was looked for, of a delete not at all."""
    front.create("/a")
    cases = {
        "a": ErrorCode.BAD_ARGUMENTS,
        "/a/\0": ErrorCode.BAD_ARGUMENTS,
        "/a/..": ErrorCode.BAD_ARGUMENTS,
        "/a//b": ErrorCode.NO_NODE,
        "/none/..": ErrorCode.NO_NODE,
        "": ErrorCode.BAD_ARGUMENTS,
    }
    for path, code in cases.items():
        assert front.refused(OpCode.CREATE, create_body(path, b"", 0, WORLD)) is code, path
    assert front.refused(OpCode.DELETE, text("/a/..") + int32(-1)) is ErrorCode.NO_NODE
    assert front.refused(OpCode.SET_DATA, set_data_body("/none/..")) is ErrorCode.BAD_ARGUMENTS


def test_bytes_that_are_no_utf_8_never_become_a_path(front: Front) -> None:
    paths = len(front.state.znodes)
    for name in (b"\xff", b"a\xed\xa0\x80", b"\xc0\x80"):
        path = records.buffer(b"/" + name)
        rest = create_body("", b"", 0, WORLD)[4:]
        assert front.refused(OpCode.CREATE, path + rest) is ErrorCode.BAD_ARGUMENTS
        assert front.refused(OpCode.SET_DATA, path + rest[4:]) is ErrorCode.BAD_ARGUMENTS
    assert len(front.state.znodes) == paths


# ----------------------------------------------------------------------------------------- results


def test_a_create_answers_its_path(front: Front) -> None:
    reply = front.write(OpCode.CREATE, create_body("/q-ä", b"x", 0, WORLD))
    assert reply.text() == "/q-ä"
    reply.end()
    front.create("/q")
    reply = front.write(OpCode.CREATE, create_body("/q/", b"x", 3, WORLD))
    assert reply.text() == "/q/0000000000"
    reply.end()
    assert front.state.znodes["/q/0000000000"].stat.ephemeral_owner == front.session_id


def test_the_other_creates_answer_path_and_stat(front: Front) -> None:
    for op, body, path in (
        (OpCode.CREATE2, create_body("/a", b"xyz", 1, WORLD), "/a"),
        (OpCode.CREATE_CONTAINER, create_body("/b", b"xyz", 4, WORLD), "/b"),
        (OpCode.CREATE_TTL, create_ttl_body("/c-", 6, 1000), "/c-0000000002"),
    ):
        reply = front.write(op, body)
        assert (reply.text(), reply.stat()) == (path, front.stat(path))
        reply.end()
    assert list(front.state.containers) == ["/b"]
    assert front.state.znodes["/c-0000000002"].ttl_ms == 1000


def test_changes_answer_the_stat(front: Front) -> None:
    front.create("/a")
    reply = front.write(OpCode.SET_DATA, set_data_body("/a", b"xyz", 0))
    stat = reply.stat()
    reply.end()
    assert stat == front.stat("/a") and (stat.version, stat.data_length) == (1, 3)
    acl = (records.Acl(31, "world", "anyone"), records.Acl(1, "ip", "10.0.0.0/8"))
    reply = front.write(OpCode.SET_ACL, set_acl_body("/a", acl, 0))
    stat = reply.stat()
    reply.end()
    assert stat == front.stat("/a") and stat.aversion == 1
    wanted = tuple(Acl(each.permissions, each.scheme, each.id) for each in acl)
    assert front.state.znodes["/a"].acl == wanted


def test_what_is_deleted_answers_nothing(front: Front) -> None:
    front.create("/a")
    front.write(OpCode.DELETE, text("/a") + int32(0)).end()
    assert "/a" not in front.state.znodes


def test_versions_beyond_the_protocols_are_told_as_its_largest(front: Front) -> None:
    front.create("/a")
    znode = front.state.znodes["/a"]
    fields = {name: getattr(znode.stat, name) for name in znode.stat.__struct_fields__}
    stat = type(znode.stat)(**fields | {"version": 2**31 + 5})
    znode_fields = {name: getattr(znode, name) for name in znode.__struct_fields__}
    front.state.znodes["/a"] = type(znode)(**znode_fields | {"stat": stat})
    told = front.write(OpCode.SET_DATA, set_data_body("/a", b"", -1)).stat()
    assert told.version == 2**31 - 1
    assert front.state.znodes["/a"].stat.version == 2**31 + 6


def test_auth_is_replaced_by_who_asks(front: Front) -> None:
    front.create("/a")
    front.ids = (AuthId("digest", "me:hash="), AuthId("ip", "10.0.0.1"))
    front.write(OpCode.SET_ACL, set_acl_body("/a", (records.Acl(31, "auth", ""),)))
    assert front.state.znodes["/a"].acl == (Acl(31, "digest", "me:hash="),)


def test_the_numbers_are_those_of_the_protocol() -> None:
    """The tests' own list of types was written apart from the door's."""
    for op in OpCode:
        if hasattr(protocol, op.name):
            assert getattr(protocol, op.name) == op
