"""Reads that may be long: what they answer, in one piece or in many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coordsvc.core.children import Children
from coordsvc.core.commands import EPHEMERAL, Acl, Caller, CreateOp, DeleteOp
from coordsvc.core.watches import CHILDREN
from coordsvc.errors import BadArgumentsError, LimitExceededError, MarshallingError
from coordsvc.server.zookeeper import lists
from coordsvc.server.zookeeper.jute import JuteError
from coordsvc.server.zookeeper.multi import OPERATIONS_MAX
from coordsvc.server.zookeeper.requests import READS
from coordsvc.testing.zookeeper_records import (
    Decoder,
    OpCode,
    SubReply,
    SubRequest,
    boolean,
    check_of,
    decode_multi,
    get_children_of,
    get_data_of,
    multi_body,
    text,
)
from tests.unit.server.zookeeper.request_harness import Front, reader_of

BOTH = (OpCode.GET_CHILDREN, OpCode.GET_CHILDREN2)


@pytest.fixture
def front() -> Front:
    front = Front()
    front.create("/p", "/p/b", "/p/ä", "/p/a", "/p/a/x", "/p/a/x/y", "/pq", "/pq/z")
    return front


def asked(path: str, watch: bool = False) -> bytes:
    return text(path) + boolean(watch)


def give_children(front: Front, path: str, count: int) -> list[str]:
    """Names alone, as many as take too long to create."""
    names = [f"n{number:06d}" for number in range(count)]
    children = front.state.children[path] = Children()
    for name in names:
        children.add(name)
    return names


# ------------------------------------------------------------------------------------ children


def test_children_are_told_in_order(front: Front) -> None:
    reply = front.read(OpCode.GET_CHILDREN, asked("/p"))
    assert reply.vector(reply.text) == ("a", "b", "ä")
    reply.end()
    reply = front.read(OpCode.GET_CHILDREN2, asked("/p"))
    assert (reply.vector(reply.text), reply.stat()) == (("a", "b", "ä"), front.stat("/p"))
    reply.end()


def test_a_leaf_has_none(front: Front) -> None:
    reply = front.read(OpCode.GET_CHILDREN2, asked("/p/b"))
    assert (reply.vector(reply.text), reply.stat()) == ((), front.stat("/p/b"))


@pytest.mark.parametrize("op", BOTH)
def test_children_are_watched(front: Front, op: int) -> None:
    front.read(op, asked("/p"))
    assert front.watches.added == []
    front.read(op, asked("/p", True))
    assert front.watches.added == [("/p", CHILDREN)]


@pytest.mark.parametrize("count", [8192, 8193, 20_000])
def test_many_children_are_told_in_pieces(front: Front, count: int) -> None:
    """All of the moment at which they were asked for, and their watch is set at that moment too."""
    names = give_children(front, "/p", count)
    answer = front.answer(OpCode.GET_CHILDREN2, asked("/p", True))
    stat = front.stat("/p")
    assert front.watches.added == [("/p", CHILDREN)]
    if count <= 8192:
        assert isinstance(answer, bytes)
        return
    assert isinstance(answer, Iterator)
    front.state.children["/p"].add("later")
    pieces = list(answer)
    assert max(map(len, pieces)) == 8192 * (4 + 7)
    reply = Decoder(b"".join(pieces))
    assert (list(reply.vector(reply.text)), reply.stat()) == (names, stat)
    reply.end()


# ---------------------------------------------------------------------------------- ephemerals


@pytest.fixture
def ephemerals(front: Front) -> Front:
    other = Caller(session_id=front.harness.open_session())
    own = Caller(session_id=front.session_id)
    for path in ("/p/e", "/p/a/f", "/pq/g", "/h"):
        front.harness.write(CreateOp(path, mode=EPHEMERAL), own)
        front.harness.write(CreateOp(f"{path}-other", mode=EPHEMERAL), other)
    return front


@pytest.mark.parametrize(
    ("prefix", "paths"),
    [
        (None, ("/h", "/p/a/f", "/p/e", "/pq/g")),
        ("", ("/h", "/p/a/f", "/p/e", "/pq/g")),
        (" / ", ("/h", "/p/a/f", "/p/e", "/pq/g")),
        ("/p", ("/p/a/f", "/p/e")),
        ("/p/", ("/p/a/f", "/p/e")),
        ("/p/e", ("/p/e",)),
        ("/none", ()),
        ("p", ()),
    ],
)
def test_a_sessions_own_ephemerals(
    ephemerals: Front, prefix: str | None, paths: tuple[str, ...]
) -> None:
    reply = ephemerals.read(OpCode.GET_EPHEMERALS, text(prefix))
    assert reply.vector(reply.text) == paths
    reply.end()


def test_many_ephemerals_are_told_in_pieces(front: Front) -> None:
    paths = {f"/p/{number:05d}": None for number in range(8193)}
    front.state.ephemerals[front.session_id] = paths
    answer = front.answer(OpCode.GET_EPHEMERALS, text(None))
    assert isinstance(answer, Iterator)
    reply = front.read(OpCode.GET_EPHEMERALS, text("/p"))
    assert reply.vector(reply.text) == tuple(paths)
    reply.end()


# ------------------------------------------------------------------------- number of descendants


@pytest.mark.parametrize(
    ("path", "number"), [("/p", 5), ("/p/a", 2), ("/p/a/x/y", 0), ("/pq", 1), ("/zookeeper", 2)]
)
def test_descendants_are_counted(front: Front, path: str, number: int) -> None:
    reply = front.read(OpCode.GET_ALL_CHILDREN_NUMBER, text(path))
    assert reply.int32() == number
    reply.end()


def test_the_roots_descendants_are_all_other_znodes(front: Front) -> None:
    assert front.read(OpCode.GET_ALL_CHILDREN_NUMBER, text("/")).int32() == 8 + 3


def test_in_a_large_tree_they_are_counted_in_pieces(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes and goes meanwhile."""
    monkeypatch.setattr(lists, "PATHS_AT_ONCE", 2)
    assert front.read(OpCode.GET_ALL_CHILDREN_NUMBER, text("/p")).int32() == 5
    assert front.read(OpCode.GET_ALL_CHILDREN_NUMBER, text("/")).int32() == 11
    answer = front.answer(OpCode.GET_ALL_CHILDREN_NUMBER, text("/p"))
    assert isinstance(answer, Iterator)
    pieces = [next(answer)]
    for path in ("/p/a/x/y", "/p/a/x"):
        front.harness.write(DeleteOp(path))
    front.create("/p/new", "/p/new/below")
    pieces += answer
    assert pieces[:-1] == [b""] * (len(pieces) - 1) and len(pieces) > 2
    assert 3 <= int.from_bytes(pieces[-1], "big") <= 7


# ----------------------------------------------------------------------------------- multi read


def test_several_reads_in_one(front: Front) -> None:
    front.create("/data", data=b"xyz")
    front.create("/null", data=None)
    front.harness.write(CreateOp("/closed", acl=(Acl(2, "world", "anyone"),)))
    operations = (
        get_data_of("/data"),
        get_children_of("/p"),
        get_data_of("/none"),
        get_children_of("/closed"),
        get_data_of("/null"),
        get_data_of("/zookeeper/config"),
        get_children_of("/a//b"),
    )
    replies = decode_multi(front.read(OpCode.MULTI_READ, multi_body(operations)).rest)
    config = front.stat("/zookeeper/config")._replace(data_length=len(front.config))
    assert replies == (
        SubReply(OpCode.GET_DATA, data=b"xyz", stat=front.stat("/data")),
        SubReply(OpCode.GET_CHILDREN, names=("a", "b", "ä")),
        SubReply(OpCode.ERROR, -101),
        SubReply(OpCode.ERROR, -102),
        SubReply(OpCode.GET_DATA, data=None, stat=front.stat("/null")),
        SubReply(OpCode.GET_DATA, data=front.config, stat=config),
        SubReply(OpCode.ERROR, -101),
    )


def test_no_reads_at_all(front: Front) -> None:
    answer = front.answer(OpCode.MULTI_READ, multi_body([]))
    assert answer == multi_body([])


def test_several_reads_set_no_watches(front: Front) -> None:
    watching = [SubRequest(op, asked("/p", True)) for op in (OpCode.GET_DATA, OpCode.GET_CHILDREN)]
    replies = decode_multi(front.read(OpCode.MULTI_READ, multi_body(watching)).rest)
    assert [reply.op for reply in replies] == [OpCode.GET_DATA, OpCode.GET_CHILDREN]
    assert front.watches.added == []


def test_what_zookeeper_does_not_read_so() -> None:
    decode = READS[OpCode.MULTI_READ].decode
    for other in (check_of("/a", 0), SubRequest(OpCode.EXISTS, asked("/a"))):
        with pytest.raises(MarshallingError):
            decode(reader_of(multi_body((get_data_of("/a"), other))))
    with pytest.raises(BadArgumentsError):
        decode(reader_of(multi_body([get_data_of("/" + "x" * 4096)])))
    most = [get_data_of("/a")] * OPERATIONS_MAX
    decode(reader_of(multi_body(most)))
    with pytest.raises(LimitExceededError):
        decode(reader_of(multi_body([*most, get_data_of("/a")])))
    body = multi_body((get_data_of("/ab"), get_children_of("/c")))
    for size in range(len(body)):
        with pytest.raises(JuteError):
            decode(reader_of(body[:size]))


def test_many_reads_are_answered_in_pieces(front: Front) -> None:
    front.create("/data", data=b"x" * 1000)
    names = give_children(front, "/p", 20_000)
    operations = [get_data_of("/data")] * 200 + [get_children_of("/p"), get_data_of("/data")]
    answer = front.answer(OpCode.MULTI_READ, multi_body(operations))
    assert isinstance(answer, Iterator)
    pieces = list(answer)
    assert len(pieces) > 5 and max(map(len, pieces)) < 200_000
    replies = decode_multi(b"".join(pieces))
    assert len(replies) == 202
    assert list(replies[200].names) == names
    assert {reply.data for reply in (*replies[:200], replies[201])} == {b"x" * 1000}


def test_what_is_read_in_one_is_bounded(front: Front) -> None:
    """A megabyte, asked for a thousand times, is refused after the sixteenth."""
    front.create("/large", data=bytes(2**20))
    operations = [get_data_of("/none")] + [get_data_of("/large")] * 20 + [get_data_of("/p/a")]
    answer = front.answer(OpCode.MULTI_READ, multi_body(operations))
    assert isinstance(answer, Iterator)
    replies = decode_multi(b"".join(answer))
    codes = [reply.error for reply in replies]
    assert codes == [-101] + [0] * 16 + [-125] * 5
