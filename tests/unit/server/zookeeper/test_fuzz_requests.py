"""Whatever is sent is an operation, a read, or a refusal; never a fault of ours, and never much
memory for what is only claimed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coordsvc.core.commands import Caller, Refusal, Write
from coordsvc.errors import CoordError, RequestError
from coordsvc.server.zookeeper import writes
from coordsvc.server.zookeeper.asking import Read
from coordsvc.server.zookeeper.jute import JuteError
from coordsvc.server.zookeeper.multi import multi_refused
from coordsvc.server.zookeeper.requests import READS, WRITES
from coordsvc.testing.zookeeper_records import (
    WORLD,
    Acl,
    OpCode,
    boolean,
    buffer,
    check_of,
    create_body,
    create_of,
    create_ttl_of,
    delete_of,
    get_children_of,
    get_data_of,
    int32,
    int64,
    multi_body,
    set_data_of,
    text,
    texts,
)
from coordsvc.testing.zookeeper_records import acls as acls_body
from tests.unit.server.zookeeper.request_harness import LIMITS, Front, reader_of

INT32 = st.integers(-(2**31), 2**31 - 1)
SMALL = st.integers(-3, 8)
PATHS = st.sampled_from(["/a", "/a/b", "/q/", "/", "", "x", "/a\0", "/a/../b", "/\ufffd", "/ä"])
DATA = st.none() | st.binary(max_size=20)
SOME_ACL = (Acl(31, "digest", "a:b="), Acl(-1, "", ""))
ACLS = st.sampled_from([WORLD, (), SOME_ACL, (Acl(31, "auth", ""),)])
SUB_WRITES = st.one_of(
    st.builds(create_of, PATHS, DATA, flags=SMALL, acl=ACLS),
    st.builds(create_ttl_of, PATHS, DATA, SMALL, flags=SMALL),
    st.builds(delete_of, PATHS, SMALL),
    st.builds(set_data_of, PATHS, DATA, SMALL),
    st.builds(check_of, PATHS, SMALL),
)
SUB_READS = st.builds(get_data_of, PATHS) | st.builds(get_children_of, PATHS)
LISTS = st.builds(texts, st.lists(PATHS, max_size=3))
WATCHED = st.builds(lambda path, watch: text(path) + boolean(watch), PATHS, st.booleans())
NUMBERED = st.builds(lambda path, number: text(path) + int32(number), PATHS, SMALL)
CREATES = st.builds(create_body, PATHS, DATA, SMALL, ACLS)

BODIES: dict[int, st.SearchStrategy[bytes]] = {
    OpCode.CREATE: CREATES,
    OpCode.CREATE2: CREATES,
    OpCode.CREATE_CONTAINER: CREATES,
    OpCode.CREATE_TTL: st.builds(lambda body, ttl_ms: body + int64(ttl_ms), CREATES, SMALL),
    OpCode.DELETE: NUMBERED,
    OpCode.SET_DATA: st.builds(
        lambda path, data, version: text(path) + buffer(data) + int32(version), PATHS, DATA, SMALL
    ),
    OpCode.SET_ACL: st.builds(
        lambda path, acl, version: text(path) + acls_body(acl) + int32(version), PATHS, ACLS, SMALL
    ),
    OpCode.MULTI: st.builds(multi_body, st.lists(SUB_WRITES | SUB_READS, max_size=4)),
    OpCode.CLOSE_SESSION: st.just(b""),
    OpCode.EXISTS: WATCHED,
    OpCode.GET_DATA: WATCHED,
    OpCode.GET_ACL: st.builds(text, PATHS),
    OpCode.GET_CHILDREN: WATCHED,
    OpCode.GET_CHILDREN2: WATCHED,
    OpCode.SYNC: st.builds(text, PATHS),
    OpCode.GET_EPHEMERALS: st.builds(text, PATHS),
    OpCode.GET_ALL_CHILDREN_NUMBER: st.builds(text, PATHS),
    OpCode.WHO_AM_I: st.just(b""),
    OpCode.MULTI_READ: st.builds(multi_body, st.lists(SUB_READS | SUB_WRITES, max_size=4)),
    OpCode.ADD_WATCH: NUMBERED,
    OpCode.CHECK_WATCHES: NUMBERED,
    OpCode.REMOVE_WATCHES: NUMBERED,
    OpCode.SET_WATCHES: st.builds(lambda *lists: int64(5) + b"".join(lists), *[LISTS] * 3),
    OpCode.SET_WATCHES2: st.builds(lambda *lists: int64(5) + b"".join(lists), *[LISTS] * 5),
}
OPS = sorted(BODIES)


def take(op: int, body: bytes) -> Any:
    """What it is, or None for what is refused."""
    try:
        if op in READS:
            return READS[op].decode(reader_of(body))
        return WRITES[op].decode(reader_of(body), LIMITS)
    except JuteError:
        return None
    except CoordError as error:
        assert isinstance(error, RequestError)
        return None


def run(front: Front, op: int, body: bytes) -> None:
    """As far as it goes: read, answered or applied, and told."""
    taken = take(op, body)
    if isinstance(taken, Read):
        answer = taken.answer(front)  # type: ignore[arg-type]
        if isinstance(answer, Iterator):
            answer = b"".join(answer)
        assert isinstance(answer, bytes | Refusal)
    elif taken is not None:
        caller = Caller(session_id=front.session_id)
        command = Write(caller, taken)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(command), type=Write) == command
        result = front.harness.write(taken, caller).result
        if not isinstance(result, Refusal):
            assert isinstance(WRITES[op].encode(result, taken), bytes)
        elif op == OpCode.MULTI:
            assert isinstance(multi_refused(taken, result), bytes)


@given(st.data())
def test_a_set_is_the_same_read_at_once_and_field_by_field(data: st.DataObject) -> None:
    """Also behind it: a multi goes on from there."""
    path, value = data.draw(PATHS), data.draw(DATA)
    body = mutated(text(path) + buffer(value) + int32(data.draw(SMALL)), data)
    found = []
    for decode in (writes.set_data, writes._set_data):
        reader = reader_of(body)
        try:
            found.append((decode(reader, LIMITS), reader.at))
        except (JuteError, RequestError) as error:
            found.append((type(error), str(error)))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("path", "size"),
    [
        (b"/" * LIMITS.path_size_bytes_max, 1),
        (b"/" * (LIMITS.path_size_bytes_max + 1), 1),
        (b"\xff" * (LIMITS.path_size_bytes_max // 2), 1),
        (b"/a", LIMITS.data_size_bytes_max),
        (b"/a", LIMITS.data_size_bytes_max + 1),
    ],
)
def test_a_set_at_its_limits(path: bytes, size: int) -> None:
    body = int32(len(path)) + path + buffer(bytes(size)) + int32(-1)
    found: list[object] = []
    for decode in (writes.set_data, writes._set_data):
        try:
            found.append(decode(reader_of(body), LIMITS))
        except RequestError as error:
            found.append((type(error), str(error)))
    assert found[0] == found[1]
    is_refused = size > LIMITS.data_size_bytes_max or len(path) > 100 and path[:1] == b"\xff"
    is_refused = is_refused or len(path) > LIMITS.path_size_bytes_max
    assert isinstance(found[0], tuple) == is_refused


def mutated(body: bytes, data: st.DataObject) -> bytes:
    """Cut, with some bytes replaced, some put in, and perhaps a length that is not one."""
    some = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(some)))
        how = data.draw(st.sampled_from(["cut", "byte", "insert", "length"]))
        if how == "cut":
            del some[at:]
        elif how == "byte":
            some[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
        elif how == "insert":
            some[at:at] = data.draw(st.binary(max_size=6))
        else:
            some[at : at + 4] = int32(data.draw(INT32 | SMALL))
    return bytes(some)


def test_every_type_is_tried() -> None:
    assert set(OPS) == READS.keys() | WRITES.keys()


@pytest.mark.parametrize("op", OPS)
@given(data=st.data())
def test_what_is_well_formed_is_taken_and_answered(op: int, data: st.DataObject) -> None:
    front = Front()
    front.create("/a")
    for _ in range(data.draw(st.integers(1, 3))):
        run(front, op, data.draw(BODIES[op]))


@pytest.mark.parametrize("op", OPS)
@given(data=st.data())
def test_what_is_nearly_well_formed(op: int, data: st.DataObject) -> None:
    front = Front()
    front.create("/a")
    run(front, op, mutated(data.draw(BODIES[op]), data))


@pytest.mark.parametrize("op", OPS)
@given(body=st.binary(max_size=200))
@example(b"\xff" * 100)
@example(bytes(100))
@example(b"\x7f\xff\xff\xff" * 30)
def test_garbage(op: int, body: bytes) -> None:
    run(Front(), op, body)


@pytest.mark.parametrize("op", OPS)
def test_claimed_lengths_take_no_memory(op: int) -> None:
    """Each field of a body in turn claims as much as it can, and somewhat less."""
    bodies = {
        OpCode.SET_WATCHES: int64(5) + texts(["/a"]) * 3,
        OpCode.SET_WATCHES2: int64(5) + texts(["/a"]) * 5,
        OpCode.MULTI: multi_body([create_of("/a", b"x"), set_data_of("/a", b"x", 0)]),
        OpCode.MULTI_READ: multi_body([get_data_of("/a"), get_children_of("/a")]),
    }
    body = bodies.get(op, create_body("/a", b"x", 0, SOME_ACL) + int64(5))
    claims = [int32(claim) for claim in (2**31 - 1, 2**30, 2**24, 100_000)]
    tracemalloc.start()
    try:
        for at in range(len(body) - 3):
            for claim in claims:
                take(op, body[:at] + claim + body[at + 4 :])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
