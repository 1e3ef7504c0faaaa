"""The bodies of writes as operations of the core, and results as bodies.

Only what would burden the log is refused here: what is larger than the limits. Everything else is
judged where the write is applied, in ZooKeeper's order, which this door follows to the letter: a
create below a missing parent is NO_NODE, however malformed the rest of its path. (The gRPC door
refuses malformed paths at once, whatever is in the tree.)
Ref: ZooKeeper PrepRequestProcessor, FinalRequestProcessor.
"""

from __future__ import annotations

from typing import Final

from coordsvc.core.commands import (
    ANY_VERSION,
    CONTAINER,
    OPEN_ACL,
    Acl,
    AclSet,
    CheckOp,
    CloseSessionOp,
    Created,
    CreateOp,
    DataSet,
    DeleteOp,
    Op,
    Result,
    SetAclOp,
    SetDataOp,
)
from coordsvc.core.records import ACL_ENTRIES_MAX, INT64_MAX, KIND_TTL, MODES
from coordsvc.errors import BadArgumentsError, InvalidAclError, MarshallingError
from coordsvc.server.config_model import ClusterConfig
from coordsvc.server.limits import refusal
from coordsvc.server.zookeeper import jute
from coordsvc.server.zookeeper.jute import OPEN_ACL_BYTES, Reader, unpack_int32

IMPOSSIBLE_VERSION: Final = INT64_MAX
"""What no znode's version is. Here a negative version other than -1 is only one that never matches;
the core, as the gRPC door, takes it for a mistake."""

_BYTES_PER_CHARACTER_MAX: Final = 4

# ------------------------------------------------------------------------------------ decoding


def create(reader: Reader, limits: ClusterConfig) -> CreateOp:
    """Of CREATE and CREATE2. The mode is the core's to judge: it refuses one that needs a TTL, for
    none is given here."""
    path = _path(reader, limits)
    data = _data(reader, path, limits)
    acl = _acl(reader, path)
    return CreateOp(path, data, reader.int32(), 0, acl)


def create_container(reader: Reader, limits: ClusterConfig) -> CreateOp:
    op = create(reader, limits)
    if op.mode != CONTAINER:
        raise BadArgumentsError(f"create mode {op.mode} is no container's", path=op.path)
    return op


def create_ttl(reader: Reader, limits: ClusterConfig) -> CreateOp:
    """The core bounds the TTL."""
    path = _path(reader, limits)
    data = _data(reader, path, limits)
    acl = _acl(reader, path)
    mode, ttl_ms = reader.int32(), reader.int64()
    if not has_ttl(mode):
        raise BadArgumentsError(f"create mode {mode} has no TTL", path=path)
    return CreateOp(path, data, mode, ttl_ms, acl)


def has_ttl(mode: int) -> bool:
    """Whether this is one of the modes that need a TTL."""
    return mode in MODES and MODES[mode][0] == KIND_TTL


def delete(reader: Reader, limits: ClusterConfig) -> DeleteOp:
    path = _path(reader, limits)
    return DeleteOp(path, _version(reader))


def set_data(reader: Reader, limits: ClusterConfig) -> SetDataOp:
    """Most writes are this: what is not unusual is read at once."""
    data, at, end = reader.data, reader.at + 4, reader.end
    if at <= end:
        path_end = at + unpack_int32(data, at - 4)[0]
        # A third: what is no UTF-8 takes three times the room once it is read.
        if at < path_end <= at + limits.path_size_bytes_max // 3 and path_end + 4 <= end:
            begin = path_end + 4
            data_end = begin + unpack_int32(data, path_end)[0]
            if begin <= data_end <= begin + limits.data_size_bytes_max and data_end + 4 <= end:
                version = unpack_int32(data, data_end)[0]
                if version >= ANY_VERSION:
                    reader.at = data_end + 4
                    path = data[at:path_end].decode("utf-8", "replace")
                    return SetDataOp(path, data[begin:data_end], version)
    return _set_data(reader, limits)


def _set_data(reader: Reader, limits: ClusterConfig) -> SetDataOp:
    path = _path(reader, limits)
    data = _data(reader, path, limits)
    return SetDataOp(path, data, _version(reader))


def check(reader: Reader, limits: ClusterConfig) -> CheckOp:
    """Of a multi only."""
    path = _path(reader, limits)
    return CheckOp(path, _version(reader))


def set_acl(reader: Reader, limits: ClusterConfig) -> SetAclOp:
    path = _path(reader, limits)
    acl = _acl(reader, path)
    return SetAclOp(path, acl, _version(reader))


def close_session(reader: Reader, limits: ClusterConfig) -> CloseSessionOp:
    """It has no body, and what there is of one is ignored."""
    del reader, limits
    return CloseSessionOp()


def _path(reader: Reader, limits: ClusterConfig) -> str:
    path = reader.text()
    if path is None:
        raise MarshallingError("the path is null")
    if len(path) * _BYTES_PER_CHARACTER_MAX > limits.path_size_bytes_max:
        size, maximum = len(path.encode()), limits.path_size_bytes_max
        if size > maximum:
            raise refusal("path", f"the path has {size} bytes", maximum, path=path)
    return path


def _data(reader: Reader, path: str, limits: ClusterConfig) -> bytes | None:
    data = reader.buffer()
    if data is not None and len(data) > limits.data_size_bytes_max:
        maximum = limits.data_size_bytes_max
        raise refusal("data", f"the data has {len(data)} bytes", maximum, path=path)
    return data


def _version(reader: Reader) -> int:
    version = reader.int32()
    return version if version >= ANY_VERSION else IMPOSSIBLE_VERSION


def _acl(reader: Reader, path: str) -> tuple[Acl, ...]:
    """As it came: null is empty, which the core refuses, and null texts are empty too. The open one
    is the core's own object, by which it knows it fastest."""
    if reader.data.startswith(OPEN_ACL_BYTES, reader.at, reader.end):
        reader.at += len(OPEN_ACL_BYTES)
        return OPEN_ACL
    count = reader.count()
    if count > ACL_ENTRIES_MAX:
        raise InvalidAclError(f"an ACL has at most {ACL_ENTRIES_MAX} entries", path=path)
    return tuple([_acl_entry(reader) for _ in range(count)])


def _acl_entry(reader: Reader) -> Acl:
    permissions = reader.int32()
    scheme = reader.text() or ""
    return Acl(permissions, scheme, reader.text() or "")


# ------------------------------------------------------------------------------------ encoding


def encode_path(result: Created, op: Op) -> bytes:
    del op
    return jute.buffer(result.path.encode())


def encode_path_and_stat(result: Created, op: Op) -> bytes:
    del op
    return jute.buffer(result.path.encode()) + jute.stat(result.stat)


def encode_stat(result: DataSet | AclSet, op: Op) -> bytes:
    del op
    return jute.stat(result.stat)


def encode_nothing(result: Result, op: Op) -> bytes:
    del result, op
    return b""
