"""Reads of one znode and of the connection: what is told, to whom, and which watches are set."""

from __future__ import annotations

import pytest

from coordsvc.core.commands import Acl, AuthId, CreateOp, Refusal
from coordsvc.core.watches import EXISTS
from coordsvc.errors import BadArgumentsError, ErrorCode, MarshallingError
from coordsvc.server.zookeeper.jute import JuteError
from coordsvc.server.zookeeper.requests import READS
from coordsvc.testing import zookeeper_records as records
from coordsvc.testing.zookeeper_records import OpCode, boolean, int32, text
from tests.unit.server.zookeeper.request_harness import Front, reader_of

WITH_PATH = (
    OpCode.EXISTS,
    OpCode.GET_DATA,
    OpCode.GET_ACL,
    OpCode.GET_CHILDREN,
    OpCode.GET_CHILDREN2,
    OpCode.GET_ALL_CHILDREN_NUMBER,
)
WATCHING = (OpCode.EXISTS, OpCode.GET_DATA, OpCode.GET_CHILDREN, OpCode.GET_CHILDREN2)
CONFIG = "/zookeeper/config"
OWNER = (AuthId("digest", "owner:hash="),)


@pytest.fixture
def front() -> Front:
    front = Front()
    front.create("/a", data=b"xyz")
    closed = (Acl(31, "digest", "owner:hash="), Acl(2, "world", "anyone"))
    front.harness.write(CreateOp("/closed", b"secret", acl=closed))
    return front


def asked(path: str | None, watch: bool = False) -> bytes:
    return text(path) + boolean(watch)


# ---------------------------------------------------------------------------------- one znode


def test_exists_answers_the_stat(front: Front) -> None:
    reply = front.read(OpCode.EXISTS, asked("/a"))
    assert reply.stat() == front.stat("/a")
    reply.end()
    assert front.refusal(OpCode.EXISTS, asked("/none")) is ErrorCode.NO_NODE


def test_get_data_answers_data_and_stat(front: Front) -> None:
    front.create("/null", data=None)
    front.create("/empty", data=b"")
    for path, data in (("/a", b"xyz"), ("/null", None), ("/empty", b"")):
        reply = front.read(OpCode.GET_DATA, asked(path))
        assert (reply.buffer(), reply.stat()) == (data, front.stat(path))
        reply.end()


def test_get_acl_answers_acl_and_stat(front: Front) -> None:
    reply = front.read(OpCode.GET_ACL, text("/a"))
    assert reply.vector(reply.acl) == records.WORLD
    assert reply.stat() == front.stat("/a")
    reply.end()
    front.ids = OWNER
    reply = front.read(OpCode.GET_ACL, text("/closed"))
    owner = records.Acl(31, "digest", "owner:hash=")
    assert reply.vector(reply.acl) == (owner, records.Acl(2, "world", "anyone"))


def test_hashes_are_hidden_from_those_who_may_only_read(front: Front) -> None:
    acl = (Acl(31, "digest", "owner:hash="), Acl(1, "world", "anyone"))
    front.harness.write(CreateOp("/read", acl=acl))
    reply = front.read(OpCode.GET_ACL, text("/read"))
    hidden = records.Acl(31, "digest", "owner:x")
    assert reply.vector(reply.acl) == (hidden, records.Acl(1, "world", "anyone"))


@pytest.mark.parametrize("op", WITH_PATH)
def test_read_is_needed(front: Front, op: int) -> None:
    assert front.refusal(op, asked("/closed", True)) is ErrorCode.NO_AUTH
    assert front.watches.added == []
    front.ids = OWNER
    front.read(op, asked("/closed"))


@pytest.mark.parametrize("op", WITH_PATH)
@pytest.mark.parametrize("path", ["/none", "", "a", "/a/", "/a/..", "//", "/\x01", "/\ufffd"])
def test_a_malformed_path_is_one_where_nothing_is(front: Front, op: int, path: str) -> None:
    assert front.refusal(op, asked(path)) is ErrorCode.NO_NODE


def test_exists_refuses_what_ends_a_text_in_c(front: Front) -> None:
    assert front.refusal(OpCode.EXISTS, asked("/a\0", True)) is ErrorCode.BAD_ARGUMENTS
    assert front.watches.added == []
    assert front.refusal(OpCode.GET_DATA, asked("/a\0")) is ErrorCode.NO_NODE


@pytest.mark.parametrize("op", WITH_PATH)
def test_paths_are_bounded(op: int) -> None:
    """For they can be watched."""
    READS[op].decode(reader_of(asked("/" + "ä" * 2047 + "b")))
    with pytest.raises(BadArgumentsError, match="4097"):
        READS[op].decode(reader_of(asked("/" + "ä" * 2048)))


@pytest.mark.parametrize("op", WITH_PATH)
def test_a_body_that_is_cut_anywhere_is_refused(op: int) -> None:
    body = asked("/ab") if op in WATCHING else text("/ab")
    READS[op].decode(reader_of(body))
    for size in range(len(body)):
        with pytest.raises(JuteError):
            READS[op].decode(reader_of(body[:size]))
    with pytest.raises(MarshallingError):
        READS[op].decode(reader_of(asked(None)))


# ------------------------------------------------------------------------------------- watches


@pytest.mark.parametrize("op", [OpCode.EXISTS, OpCode.GET_DATA])
def test_a_read_that_watches_is_told_what_it_was(front: Front, op: int) -> None:
    front.read(op, asked("/a"))
    assert front.watches.added == []
    front.read(op, asked("/a", True))
    assert front.watches.added == [("/a", EXISTS)]


def test_only_exists_watches_where_nothing_is(front: Front) -> None:
    for op in (OpCode.GET_DATA, OpCode.GET_CHILDREN, OpCode.GET_CHILDREN2):
        assert front.refusal(op, asked("/none", True)) is ErrorCode.NO_NODE
    assert front.watches.added == []
    assert front.refusal(OpCode.EXISTS, asked("/none", False)) is ErrorCode.NO_NODE
    assert front.watches.added == []
    assert front.refusal(OpCode.EXISTS, asked("/none", True)) is ErrorCode.NO_NODE
    assert front.watches.added == [("/none", EXISTS)]


@pytest.mark.parametrize("op", WATCHING)
def test_a_read_whose_watch_is_refused_is_refused(front: Front, op: int) -> None:
    front.watches.refusal = Refusal(int(ErrorCode.LIMIT_EXCEEDED))
    assert front.refusal(op, asked("/a", True)) is ErrorCode.LIMIT_EXCEEDED
    front.read(op, asked("/a", False))


# ------------------------------------------------------------------------------------- members


def test_the_members_are_told_as_data(front: Front) -> None:
    wanted = front.stat(CONFIG)._replace(data_length=len(front.config))
    assert front.stat(CONFIG).data_length == 0 < wanted.data_length
    reply = front.read(OpCode.GET_DATA, asked(CONFIG))
    assert (reply.buffer(), reply.stat()) == (front.config, wanted)
    assert front.read(OpCode.EXISTS, asked(CONFIG)).stat() == wanted
    reply = front.read(OpCode.GET_CHILDREN2, asked(CONFIG))
    assert (reply.vector(reply.text), reply.stat()) == ((), wanted)
    reply = front.read(OpCode.GET_ACL, text(CONFIG))
    assert (reply.vector(reply.acl), reply.stat()) == ((records.Acl(1, "world", "anyone"),), wanted)
    front.config = b""
    reply = front.read(OpCode.GET_DATA, asked(CONFIG))
    assert (reply.buffer(), reply.stat()) == (b"", front.stat(CONFIG))


# ------------------------------------------------------------------------------- the connection


@pytest.mark.parametrize("path", ["/a", "", "no path at all", "/" + "x" * 5000, None])
def test_sync_tells_the_path_back_after_a_read_index(front: Front, path: str | None) -> None:
    body = text(path)
    assert READS[OpCode.SYNC].decode(reader_of(body)).needs_sync
    assert front.read(OpCode.SYNC, body).rest == body


def test_no_other_read_waits_for_a_read_index() -> None:
    for op in WITH_PATH:
        assert not READS[op].decode(reader_of(asked("/a"))).needs_sync


def test_who_am_i(front: Front) -> None:
    """Users, without their hashes."""
    assert front.read(OpCode.WHO_AM_I, b"").rest == int32(0)
    front.ids = (
        AuthId("ip", "::1"),
        AuthId("digest", "me:hash="),
        AuthId("x509", "CN=a:b"),
        AuthId("super", ""),
    )
    reply = front.read(OpCode.WHO_AM_I, b"")
    assert reply.vector(lambda: (reply.text(), reply.text())) == (
        ("ip", "::1"),
        ("digest", "me"),
        ("x509", "CN=a:b"),
        ("super", ""),
    )
    reply.end()
