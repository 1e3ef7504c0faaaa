"""Multis: what they hold, what is answered to each operation, and what to a refused one."""

from __future__ import annotations

import pytest

from coordsvc.core.commands import (
    Acl,
    CheckOp,
    CreateOp,
    DeleteOp,
    MultiOp,
    Refusal,
    SetDataOp,
)
from coordsvc.errors import (
    BadArgumentsError,
    CoordError,
    ErrorCode,
    InvalidAclError,
    LimitExceededError,
    MarshallingError,
)
from coordsvc.server.zookeeper.jute import JuteError
from coordsvc.server.zookeeper.multi import OPERATIONS_MAX, decode, multi_refused
from coordsvc.testing import zookeeper_records as records
from coordsvc.testing.zookeeper_records import (
    OpCode,
    SubReply,
    SubRequest,
    boolean,
    check_of,
    create_of,
    create_ttl_of,
    decode_multi,
    delete_of,
    get_data_of,
    int32,
    multi_body,
    set_data_of,
    text,
)
from tests.unit.server.zookeeper.request_harness import LIMITS, Front, reader_of

EVERY_KIND = (
    create_of("/a", b"x"),
    create_of("/b", None, op=OpCode.CREATE2),
    create_of("/c", b"", flags=4, op=OpCode.CREATE_CONTAINER),
    create_ttl_of("/d-", b"", 1000, flags=6),
    set_data_of("/a", b"xyz", 0),
    check_of("/a", 1),
    delete_of("/b", 0),
)


@pytest.fixture
def front() -> Front:
    return Front()


def decoded(*operations: SubRequest) -> MultiOp:
    return decode(reader_of(multi_body(operations)), LIMITS)


# ---------------------------------------------------------------------------------------- decoding


def test_the_operations_are_those_of_their_own_types() -> None:
    assert decoded(*EVERY_KIND) == MultiOp(
        (
            CreateOp("/a", b"x"),
            CreateOp("/b", None),
            CreateOp("/c", b"", 4),
            CreateOp("/d-", b"", 6, 1000),
            SetDataOp("/a", b"xyz", 0),
            CheckOp("/a", 1),
            DeleteOp("/b", 0),
        )
    )
    assert decoded() == MultiOp(())


def test_it_ends_where_a_header_says_so() -> None:
    """Whatever else that header says, and whatever is behind it."""
    end = int32(OpCode.DELETE) + boolean(True) + int32(7) + b"more"
    assert decode(reader_of(end), LIMITS) == MultiOp(())


@pytest.mark.parametrize(
    "operation",
    [
        get_data_of("/a"),
        SubRequest(OpCode.GET_CHILDREN, text("/a") + boolean(False)),
        SubRequest(OpCode.SET_ACL, text("/a") + records.acls(records.WORLD) + int32(-1)),
        SubRequest(OpCode.MULTI, multi_body([])),
        SubRequest(-1, b""),
        SubRequest(0, b""),
        create_of("/a", flags=7),
        create_of("/a", flags=-1, op=OpCode.CREATE2),
        create_of("/a", flags=5),
        create_of("/a", flags=6, op=OpCode.CREATE2),
        SubRequest(OpCode.DELETE, text(None) + int32(-1)),
    ],
)
def test_what_zookeeper_cannot_read_is_answered_as_that(operation: SubRequest) -> None:
    with pytest.raises(MarshallingError):
        decoded(delete_of("/b"), operation)


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (delete_of("/" + "x" * 4096), BadArgumentsError),
        (create_of("/a", flags=0, op=OpCode.CREATE_CONTAINER), BadArgumentsError),
        (create_ttl_of("/a", b"", 7, flags=0), BadArgumentsError),
        (set_data_of("/a", b"x" * (2**20 + 1)), LimitExceededError),
        (create_of("/a", acl=[records.Acl(1, "ip", "::1")] * 257), InvalidAclError),
    ],
)
def test_what_is_too_large_is_refused_at_once(
    operation: SubRequest, error: type[CoordError]
) -> None:
    with pytest.raises(error) as raised:
        decoded(check_of("/b", 0), operation, delete_of("/c"))
    assert raised.value.operation_index == 1


def test_the_operations_are_bounded() -> None:
    most = [delete_of("/a")] * OPERATIONS_MAX
    assert len(decoded(*most).ops) == OPERATIONS_MAX == 4096
    with pytest.raises(LimitExceededError, match="4096") as raised:
        decoded(*most, delete_of("/a"))
    assert raised.value.limit == "multi"


def test_a_body_that_is_cut_anywhere_is_refused() -> None:
    body = multi_body(EVERY_KIND)
    for size in range(len(body)):
        with pytest.raises(JuteError):
            decode(reader_of(body[:size]), LIMITS)


# ----------------------------------------------------------------------------------------- results


def test_each_operation_has_a_result_of_the_form_that_clients_know(front: Front) -> None:
    """Those of containers and TTLs are answered as if they had been asked with CREATE2: the types
    they were asked with are none that clients know of results."""
    reply = front.write(OpCode.MULTI, multi_body(EVERY_KIND))
    a, b, c, d, set_data, check, delete = decode_multi(reply.rest)
    assert a == SubReply(OpCode.CREATE, path="/a")
    assert (b.op, b.path) == (OpCode.CREATE2, "/b") and b.stat is not None
    assert (b.stat.data_length, b.stat.version, b.stat.ephemeral_owner) == (0, 0, 0)
    assert c == SubReply(OpCode.CREATE2, path="/c", stat=front.stat("/c"))
    assert d == SubReply(OpCode.CREATE2, path="/d-0000000003", stat=front.stat("/d-0000000003"))
    assert set_data == SubReply(OpCode.SET_DATA, stat=front.stat("/a"))
    assert check == SubReply(OpCode.CHECK)
    assert delete == SubReply(OpCode.DELETE)


def test_a_container_asked_as_a_plain_create_is_answered_as_a_container(front: Front) -> None:
    reply = front.write(OpCode.MULTI, multi_body([create_of("/a", flags=4)]))
    assert decode_multi(reply.rest) == (SubReply(OpCode.CREATE2, path="/a", stat=front.stat("/a")),)


def test_plain_creates_of_every_kind_are_answered_by_their_path(front: Front) -> None:
    creates = [create_of(f"/n{flags}", flags=flags) for flags in range(4)]
    replies = decode_multi(front.write(OpCode.MULTI, multi_body(creates)).rest)
    assert [reply.op for reply in replies] == [OpCode.CREATE] * 4
    assert [reply.path for reply in replies] == ["/n0", "/n1", "/n20000000002", "/n30000000003"]


def test_nothing_asked_is_nothing_done(front: Front) -> None:
    reply = front.write(OpCode.MULTI, multi_body([]))
    assert reply.rest == multi_body([])
    assert decode_multi(reply.rest) == ()


# ---------------------------------------------------------------------------------------- refusals


def test_a_refused_one_tells_which_and_what_of_the_others(front: Front) -> None:
    front.create("/b")
    operations = (create_of("/a"), set_data_of("/b", b"x"), check_of("/b", 9), delete_of("/c"))
    body = front.refused_multi(OpCode.MULTI, multi_body((*operations, delete_of("/d"))))
    assert body is not None
    assert [(reply.op, reply.error) for reply in decode_multi(body)] == [
        (OpCode.ERROR, 0),
        (OpCode.ERROR, 0),
        (OpCode.ERROR, -103),
        (OpCode.ERROR, -2),
        (OpCode.ERROR, -2),
    ]
    assert "/a" not in front.state.znodes


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (create_of("/b"), -110),
        (create_of("/none/x"), -101),
        (create_of("/a/.."), -8),
        (create_of("/x", acl=[]), -114),
        (create_ttl_of("/x", b"", 0), -8),
        (delete_of("/"), -8),
        (delete_of("/b"), -111),
        (delete_of("/none"), -101),
        (delete_of("/b/c", -2), -103),
        (set_data_of("/b", b"", 7), -103),
        (set_data_of("/b", b"", -2), -103),
        (set_data_of("/none", b""), -101),
        (set_data_of("/closed", b""), -102),
        (check_of("/b", -2), -103),
        (check_of("/\x01", -1), -8),
    ],
)
def test_each_refusal_has_zookeepers_code(front: Front, operation: SubRequest, code: int) -> None:
    front.create("/b", "/b/c")
    front.harness.write(CreateOp("/closed", acl=(Acl(31, "digest", "a:b="),)))
    body = front.refused_multi(OpCode.MULTI, multi_body((create_of("/a"), operation)))
    assert body is not None
    assert [reply.error for reply in decode_multi(body)] == [0, code]


def test_a_refusal_of_none_of_them_is_the_headers() -> None:
    op = decoded(delete_of("/a"))
    moved = Refusal(int(ErrorCode.SESSION_MOVED))
    assert multi_refused(op, moved) is None
    assert multi_refused(op, Refusal(int(ErrorCode.NO_QUORUM), operation_index=0)) is None
    assert multi_refused(op, Refusal(int(ErrorCode.NO_NODE), operation_index=0)) is not None
