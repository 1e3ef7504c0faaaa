"""The records of ZooKeeper's client protocol, as tests write and read them.

Written from the protocol's description and not from what the front door uses, whose numbers and
codecs are not imported here: a mistake made there is not made here as well.

Ref: ZooKeeper zookeeper.jute, ZooDefs, Watcher.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias, TypeVar

Item = TypeVar("Item")


class OpCode(IntEnum):
    """What is asked: the second field of a request."""

    NOTIFICATION = 0
    CREATE = 1
    DELETE = 2
    EXISTS = 3
    GET_DATA = 4
    SET_DATA = 5
    GET_ACL = 6
    SET_ACL = 7
    GET_CHILDREN = 8
    SYNC = 9
    PING = 11
    GET_CHILDREN2 = 12
    CHECK = 13
    MULTI = 14
    CREATE2 = 15
    RECONFIG = 16
    CHECK_WATCHES = 17
    REMOVE_WATCHES = 18
    CREATE_CONTAINER = 19
    DELETE_CONTAINER = 20
    CREATE_TTL = 21
    MULTI_READ = 22
    AUTH = 100
    SET_WATCHES = 101
    SASL = 102
    GET_EPHEMERALS = 103
    GET_ALL_CHILDREN_NUMBER = 104
    SET_WATCHES2 = 105
    ADD_WATCH = 106
    WHO_AM_I = 107
    CREATE_SESSION = -10
    CLOSE_SESSION = -11
    ERROR = -1


class EventType(IntEnum):
    CREATED = 1
    DELETED = 2
    DATA_CHANGED = 3
    CHILDREN_CHANGED = 4
    DATA_WATCH_REMOVED = 5
    CHILD_WATCH_REMOVED = 6
    PERSISTENT_WATCH_REMOVED = 7


class WatcherType(IntEnum):
    """Which watches are meant, where they are removed or asked for."""

    CHILDREN = 1
    DATA = 2
    ANY = 3
    PERSISTENT = 4
    PERSISTENT_RECURSIVE = 5


class WatchMode(IntEnum):
    PERSISTENT = 0
    PERSISTENT_RECURSIVE = 1


class Stat(NamedTuple):
    """In the order of the wire."""

    czxid: int
    mzxid: int
    ctime_ms: int
    mtime_ms: int
    version: int
    cversion: int
    aversion: int
    ephemeral_owner: int
    data_length: int
    num_children: int
    pzxid: int


class Acl(NamedTuple):
    permissions: int
    scheme: str
    id: str


WORLD = (Acl(31, "world", "anyone"),)

_STAT = struct.Struct(">qqqqiiiqiiq")


class TruncatedError(ValueError):
    """What came ends before the record does, or is not of its form."""


# ------------------------------------------------------------------------------------- writing


def int32(value: int) -> bytes:
    return struct.pack(">i", value)


def int64(value: int) -> bytes:
    return struct.pack(">q", value)


def boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def buffer(value: bytes | None) -> bytes:
    """None is length -1."""
    return int32(-1) if value is None else int32(len(value)) + value


def text(value: str | None) -> bytes:
    return buffer(None if value is None else value.encode())


def texts(values: Sequence[str]) -> bytes:
    return int32(len(values)) + b"".join(map(text, values))


def acls(values: Sequence[Acl]) -> bytes:
    parts = [int32(acl.permissions) + text(acl.scheme) + text(acl.id) for acl in values]
    return int32(len(parts)) + b"".join(parts)


def packet(body: bytes) -> bytes:
    return int32(len(body)) + body


def request(xid: int, op: int, body: bytes = b"") -> bytes:
    """A whole packet."""
    return packet(int32(xid) + int32(op) + body)


def connect_request(
    *,
    timeout_ms: int,
    session_id: int = 0,
    password: bytes = bytes(16),
    last_zxid: int = 0,
    read_only: bool | None = False,
) -> bytes:
    """A whole packet. `read_only` None: as clients from before 3.4 have it, without that byte."""
    body = int32(0) + int64(last_zxid) + int32(timeout_ms) + int64(session_id) + buffer(password)
    return packet(body if read_only is None else body + boolean(read_only))


# ------------------------------------------------------------------------------------- reading


class Decoder:
    """Takes one field after another from `data`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if size < 0 or len(piece) != size:
            raise TruncatedError(f"{size} bytes wanted at {self._at} of {len(self._data)}")
        self._at += size
        return piece

    @property
    def rest(self) -> bytes:
        return self._data[self._at :]

    def end(self) -> None:
        """Nothing may be left."""
        if self.rest:
            raise TruncatedError(f"{len(self.rest)} bytes too many: {self._data!r}")

    def int32(self) -> int:
        return int.from_bytes(self._take(4), "big", signed=True)

    def int64(self) -> int:
        return int.from_bytes(self._take(8), "big", signed=True)

    def boolean(self) -> bool:
        byte = self._take(1)
        if byte not in (b"\x00", b"\x01"):
            raise TruncatedError(f"a boolean of {byte!r}")
        return byte == b"\x01"

    def buffer(self) -> bytes | None:
        size = self.int32()
        return None if size == -1 else self._take(size)

    def text(self) -> str:
        value = self.buffer()
        if value is None:
            raise TruncatedError("null where a text is expected")
        return value.decode()

    def vector(self, item: Callable[[], Item]) -> tuple[Item, ...]:
        count = self.int32()
        if count < 0:
            raise TruncatedError(f"a vector of {count}")
        return tuple(item() for _ in range(count))

    def stat(self) -> Stat:
        return Stat(*_STAT.unpack(self._take(_STAT.size)))

    def acl(self) -> Acl:
        return Acl(self.int32(), self.text(), self.text())


# --------------------------------------------------------------------- operations of a multi


@dataclass(frozen=True)
class SubRequest:
    """One operation of a multi or a multiRead: its type and its body."""

    op: int
    body: bytes


def create_body(path: str, data: bytes | None, flags: int, acl: Sequence[Acl]) -> bytes:
    return text(path) + buffer(data) + acls(acl) + int32(flags)


def create_of(
    path: str,
    data: bytes | None = b"",
    *,
    flags: int = 0,
    acl: Sequence[Acl] = WORLD,
    op: int = OpCode.CREATE,
) -> SubRequest:
    return SubRequest(op, create_body(path, data, flags, acl))


def create_ttl_of(
    path: str, data: bytes | None, ttl_ms: int, *, flags: int = 5, acl: Sequence[Acl] = WORLD
) -> SubRequest:
    return SubRequest(OpCode.CREATE_TTL, create_body(path, data, flags, acl) + int64(ttl_ms))


def delete_of(path: str, version: int = -1) -> SubRequest:
    return SubRequest(OpCode.DELETE, text(path) + int32(version))


def set_data_of(path: str, data: bytes | None, version: int = -1) -> SubRequest:
    return SubRequest(OpCode.SET_DATA, text(path) + buffer(data) + int32(version))


def check_of(path: str, version: int) -> SubRequest:
    return SubRequest(OpCode.CHECK, text(path) + int32(version))


def get_data_of(path: str) -> SubRequest:
    return SubRequest(OpCode.GET_DATA, text(path) + boolean(False))


def get_children_of(path: str) -> SubRequest:
    return SubRequest(OpCode.GET_CHILDREN, text(path) + boolean(False))


def multi_body(operations: Sequence[SubRequest]) -> bytes:
    parts = [int32(each.op) + boolean(False) + int32(-1) + each.body for each in operations]
    return b"".join(parts) + int32(-1) + boolean(True) + int32(-1)


@dataclass(frozen=True)
class SubReply:
    """What became of one operation of a multi. `op` is ERROR where `error` says why nothing did;
    0 is then that of one before the refused one. Fields that do not apply are empty."""

    op: int
    error: int = 0
    path: str = ""
    stat: Stat | None = None
    data: bytes | None = None
    names: tuple[str, ...] = ()


SubReplies: TypeAlias = tuple[SubReply, ...]


def decode_multi(body: bytes) -> SubReplies:
    decoder = Decoder(body)
    replies: list[SubReply] = []
    while True:
        op, is_last, error = decoder.int32(), decoder.boolean(), decoder.int32()
        if is_last:
            if (op, error) != (-1, -1):
                raise TruncatedError(f"a multi that ends with {op}, {error}")
            decoder.end()
            return tuple(replies)
        replies.append(_sub_reply(op, error, decoder))


def _sub_reply(op: int, error: int, decoder: Decoder) -> SubReply:
    if op == OpCode.ERROR:
        code = decoder.int32()
        if code != error:
            raise TruncatedError(f"a result of {code} below a header of {error}")
        return SubReply(op, code)
    if error:
        raise TruncatedError(f"error {error} of a result of type {op}")
    if op == OpCode.CREATE:
        return SubReply(op, path=decoder.text())
    if op in (OpCode.CREATE2, OpCode.CREATE_CONTAINER, OpCode.CREATE_TTL):
        return SubReply(op, path=decoder.text(), stat=decoder.stat())
    if op == OpCode.SET_DATA:
        return SubReply(op, stat=decoder.stat())
    if op == OpCode.GET_DATA:
        return SubReply(op, data=decoder.buffer(), stat=decoder.stat())
    if op == OpCode.GET_CHILDREN:
        return SubReply(op, names=decoder.vector(decoder.text))
    if op in (OpCode.DELETE, OpCode.CHECK):
        return SubReply(op)
    raise TruncatedError(f"a result of type {op}")
