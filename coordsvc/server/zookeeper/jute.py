"""Jute, the encoding of ZooKeeper's records: one field after another, big-endian, without names.

Whatever has a length begins with it; -1 stands for null. A record does not say how long it is: what
follows its last known field is ignored, as ZooKeeper does, so that newer clients may append some.
Ref: ZooKeeper zookeeper.jute, BinaryInputArchive, BinaryOutputArchive.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from struct import error as StructError
from typing import Final

from coordsvc.core.commands import OPEN_ACL, Acl, Stat

INT32_MAX: Final = 2**31 - 1

_INT32: Final = Struct(">i")
_INT64: Final = Struct(">q")
_STAT: Final = Struct(">qqqqiiiqiiq")
unpack_int32: Final = _INT32.unpack_from
"""Checks only that `data` does not end before."""
_unpack_int64: Final = _INT64.unpack_from
_pack_int32: Final = _INT32.pack
_pack_stat: Final = _STAT.pack

_NULL: Final = _pack_int32(-1)
_ELEMENT_BYTES_MIN: Final = 4
"""Of a vector's element: every kind of element begins with a length or a number."""


class JuteError(ValueError):
    """The bytes are not of the record that was expected."""


class Reader:
    """Takes one field after another of `data`, from `at` up to `end`, which is within `data` (None:
    all of it). Every method raises JuteError for what does not fit in there; nothing is ever
    allocated by a length that is only claimed.
    """

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = at
        self.end = len(data) if end is None else end

    @property
    def at_end(self) -> bool:
        return self.at >= self.end

    def int32(self) -> int:
        at = self.at
        self.at = at + 4
        if self.at > self.end:
            raise _cut(at, self.end)
        value: int = unpack_int32(self.data, at)[0]
        return value

    def int64(self) -> int:
        at = self.at
        self.at = at + 8
        if self.at > self.end:
            raise _cut(at, self.end)
        value: int = _unpack_int64(self.data, at)[0]
        return value

    def boolean(self) -> bool:
        """Whatever is not 0 is true, as in Java's DataInput."""
        at = self.at
        self.at = at + 1
        if at >= self.end:
            raise _cut(at, self.end)
        return self.data[at] != 0

    def buffer(self) -> bytes | None:
        at = self.at + 4
        if at > self.end:
            raise _cut(self.at, self.end)
        size = unpack_int32(self.data, at - 4)[0]
        after = at + size
        if size < 0 or after > self.end:
            if size != -1:
                raise _bad_length(size, at, self.end)
            self.at = at
            return None
        self.at = after
        return self.data[at:after]

    def text(self) -> str | None:
        """What is not UTF-8 becomes U+FFFD, as in ZooKeeper: no path may hold that, so such a path
        is refused, or found missing, and never stored."""
        at = self.at + 4
        if at > self.end:
            raise _cut(self.at, self.end)
        size = unpack_int32(self.data, at - 4)[0]
        after = at + size
        if size < 0 or after > self.end:
            if size != -1:
                raise _bad_length(size, at, self.end)
            self.at = at
            return None
        self.at = after
        return self.data[at:after].decode("utf-8", "replace")

    def count(self) -> int:
        """How many elements a vector has. Null, and any other negative number, is none."""
        count = self.int32()
        if count * _ELEMENT_BYTES_MIN > self.end - self.at:
            raise JuteError(f"a vector of {count} elements in {self.end - self.at} bytes")
        return max(count, 0)


def _cut(at: int, end: int) -> JuteError:
    return JuteError(f"it ends at {end}, in the field that begins at {at}")


def _bad_length(size: int, at: int, end: int) -> JuteError:
    return JuteError(f"a length of {size}, where {end - at} bytes are left")


# ------------------------------------------------------------------------------------- writing


def int32(value: int) -> bytes:
    return _pack_int32(value)


def int64(value: int) -> bytes:
    return _INT64.pack(value)


def boolean(value: bool) -> bytes:
    return b"\1" if value else b"\0"


def buffer(data: bytes | None) -> bytes:
    return _NULL if data is None else _pack_int32(len(data)) + data


def text(value: str | None) -> bytes:
    return _NULL if value is None else buffer(value.encode())


def texts(values: list[str]) -> bytes:
    return _pack_int32(len(values)) + elements(values)


def elements(values: Iterable[str]) -> bytes:
    """Some of a vector's texts, without how many there are."""
    return b"".join([_pack_int32(len(data)) + data for data in map(str.encode, values)])


def acls(acl: tuple[Acl, ...]) -> bytes:
    return OPEN_ACL_BYTES if acl is OPEN_ACL else _acls(acl)


def _acls(acl: tuple[Acl, ...]) -> bytes:
    parts = [_pack_int32(len(acl))]
    for entry in acl:
        parts += _pack_int32(entry.permissions), text(entry.scheme), text(entry.id)
    return b"".join(parts)


OPEN_ACL_BYTES: Final = _acls(OPEN_ACL)
"""What nearly all clients send with a create."""


def stat(value: Stat) -> bytes:
    """Ours are numbers of 64 bits. Versions and counts that are larger than the protocol's are told
    as its largest."""
    try:
        return _pack_stat(
            value.czxid,
            value.mzxid,
            value.ctime_ms,
            value.mtime_ms,
            value.version,
            value.cversion,
            value.aversion,
            value.ephemeral_owner,
            value.data_length,
            value.num_children,
            value.pzxid,
        )
    except StructError:
        return _saturated(value)


def _saturated(value: Stat) -> bytes:
    return _pack_stat(
        value.czxid,
        value.mzxid,
        value.ctime_ms,
        value.mtime_ms,
        min(value.version, INT32_MAX),
        min(value.cversion, INT32_MAX),
        min(value.aversion, INT32_MAX),
        value.ephemeral_owner,
        min(value.data_length, INT32_MAX),
        min(value.num_children, INT32_MAX),
        value.pzxid,
    )
