"""Requests of the API as commands of the core, and results as responses.

Every path, number, enum value and size that comes from outside is checked here, at the door, so
that the log holds only what every replica can apply, and a malformed path is BAD_ARGUMENTS whatever
is in the tree. What a request *means* is not decided here. A write refused here takes no zxid and
does not use up its request number: the detail's zxid is 0.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from coordsvc.core.commands import (
    ANY_VERSION,
    EPHEMERAL,
    OPEN_ACL,
    PERSISTENT,
    PERSISTENT_SEQUENTIAL_WITH_TTL,
    PERSISTENT_WITH_TTL,
    Acl,
    Caller,
    CheckOp,
    CreateOp,
    DeleteOp,
    MultiOp,
    SetAclOp,
    SetDataOp,
    Stat,
    SubOp,
)
from coordsvc.core.records import MODES
from coordsvc.errors import (
    BadArgumentsError,
    LimitExceededError,
    UnsupportedFeatureError,
)
from coordsvc.paths import path_fault, validate_path
from coordsvc.server.config_model import ClusterConfig
from coordsvc.server.limits import refusal
from coordsvc.v1 import common_pb2, coordination_pb2

FEATURES: tuple[str, ...] = ()
"""What this version does beyond the first one: names a request may require."""

PASSWORD_BYTES_MAX = 64
_BYTES_PER_CHARACTER_MAX = 4
SESSION_TIMEOUT_MS_DEFAULT = 10_000
CLIENT_NAME_BYTES_MAX = 256
NAME_END = "/"
LEAST_SUFFIX = "0" * 10
TTL_MS_MAX = 2**40 - 1
"""Ref: ZooKeeper EphemeralType, whose TTL has 40 bits."""


class RequestContext(msgspec.Struct, frozen=True, gc=False):
    """A request's context, checked. `session_id` 0: none. See common.proto for the fields."""

    session_id: int = 0
    password: bytes = b""
    min_zxid: int = 0
    request_number: int = 0
    done_below: int = 0
    guard_path: str = ""
    guard_czxid: int = 0


def check_features(names: Iterable[str]) -> None:
    for name in names:
        if name not in FEATURES:
            raise UnsupportedFeatureError(f"this replica does not know the feature {name[:64]!r}")


def _not_negative(name: str, value: int) -> int:
    if value < 0:
        raise BadArgumentsError(f"{name} is {value}; it must not be negative")
    return value


def credentials(message: common_pb2.SessionCredentials) -> tuple[int, bytes]:
    """(session id, password); BAD_ARGUMENTS unless the id could be one."""
    if message.session_id <= 0:
        raise BadArgumentsError(f"session_id is {message.session_id}; it must be positive")
    if len(message.password) > PASSWORD_BYTES_MAX:
        raise BadArgumentsError("a session's password is 16 bytes")
    return message.session_id, message.password


def read_context(message: common_pb2.RequestContext) -> RequestContext:
    """Of a read, which ignores what is for writes: numbers and guard."""
    check_features(message.required_features)
    session_id, password = 0, b""
    if message.HasField("session"):
        session_id, password = credentials(message.session)
    min_zxid = _not_negative("min_zxid", message.min_zxid)
    return RequestContext(session_id=session_id, password=password, min_zxid=min_zxid)


def request_context(message: common_pb2.RequestContext, limits: ClusterConfig) -> RequestContext:
    """Of a write."""
    check_features(message.required_features)
    session_id, password = 0, b""
    if message.HasField("session"):
        session_id, password = credentials(message.session)
    return _write_context(message, limits, session_id, password)


def stream_min_zxid(message: common_pb2.RequestContext) -> int:
    """Of a read on a stream, which has a session of its own: what is left of its context."""
    _check_on_stream(message)
    return _not_negative("min_zxid", message.min_zxid)


def stream_caller(
    message: common_pb2.RequestContext, limits: ClusterConfig, caller: Caller
) -> tuple[Caller, int]:
    """Of a write on a stream of `caller`'s session: (who asks for it, min_zxid)."""
    _check_on_stream(message)
    number, done_below, min_zxid = message.request_number, message.done_below, message.min_zxid
    guard_path, guard_czxid = "", 0
    if number < 0 or done_below < 0 or min_zxid < 0 or message.HasField("guard"):
        # What is not usual is told apart there.
        context = _write_context(message, limits, caller.session_id, b"")
        guard_path, guard_czxid = context.guard_path, context.guard_czxid
    return Caller(
        caller.session_id,
        caller.attach_epoch,
        number,
        done_below,
        caller.ids,
        guard_path,
        guard_czxid,
    ), min_zxid


def _check_on_stream(message: common_pb2.RequestContext) -> None:
    if message.HasField("session"):
        raise BadArgumentsError("a stream has its own session: leave context.session out")
    if message.required_features:
        check_features(message.required_features)


def _write_context(
    message: common_pb2.RequestContext, limits: ClusterConfig, session_id: int, password: bytes
) -> RequestContext:
    min_zxid = _not_negative("min_zxid", message.min_zxid)
    request_number = _not_negative("request_number", message.request_number)
    if request_number and not session_id:
        raise BadArgumentsError("request_number needs a session: numbers are counted within one")
    guard_path, guard_czxid = "", 0
    if message.HasField("guard"):
        guard_path, guard_czxid = message.guard.path, message.guard.czxid
        check_path(guard_path, limits)
        if guard_czxid <= 0:
            raise BadArgumentsError(f"a guard's czxid is {guard_czxid}; it must be positive")
    done_below = _not_negative("done_below", message.done_below)
    return RequestContext(
        session_id, password, min_zxid, request_number, done_below, guard_path, guard_czxid
    )


# ------------------------------------------------------------------------------------- checks


def check_path_size(path: str, limits: ClusterConfig) -> None:
    size = len(path) if path.isascii() else len(path.encode())
    if size > limits.path_size_bytes_max:
        raise refusal("path", f"the path has {size} bytes", limits.path_size_bytes_max, path=path)


def check_path(path: str, limits: ClusterConfig) -> None:
    if len(path) * _BYTES_PER_CHARACTER_MAX > limits.path_size_bytes_max:
        check_path_size(path, limits)
    validate_path(path)


def check_data_size(data: bytes, path: str, limits: ClusterConfig) -> None:
    if len(data) > limits.data_size_bytes_max:
        maximum = limits.data_size_bytes_max
        raise refusal("data", f"the data has {len(data)} bytes", maximum, path=path)


def is_linearizable(consistency: int) -> bool:
    if consistency == common_pb2.READ_CONSISTENCY_LINEARIZABLE:
        return True
    if consistency in (
        common_pb2.READ_CONSISTENCY_UNSPECIFIED,
        common_pb2.READ_CONSISTENCY_LOCAL,
    ):
        return False
    raise BadArgumentsError(f"unknown consistency {consistency}")


def page_token(token: str) -> str:
    """Where a page of children goes on: the name of the last child of the page before."""
    if token and (NAME_END in token or path_fault(NAME_END + token) is not None):
        raise BadArgumentsError("page_token is not the next_page_token of a page before")
    return token


def check_no_watch(watch_id: int) -> None:
    if watch_id:
        raise BadArgumentsError("watch_id is for Session streams; use Watch beside unary calls")


def page_size(value: int) -> int:
    return _not_negative("page_size", value)


def timeout_ms(value: int, limits: ClusterConfig) -> int:
    """What a session gets that asks for `value`."""
    wanted = _not_negative("timeout_ms", value) or SESSION_TIMEOUT_MS_DEFAULT
    return max(limits.session_timeout_ms_min, min(wanted, limits.session_timeout_ms_max))


def client_name(value: str) -> str:
    if len(value.encode()) > CLIENT_NAME_BYTES_MAX:
        raise LimitExceededError(f"client_name has more than {CLIENT_NAME_BYTES_MAX} bytes")
    return value


# --------------------------------------------------------------------------------- operations


def create_op(
    message: coordination_pb2.CreateRequest | coordination_pb2.CreateOperation,
    limits: ClusterConfig,
) -> CreateOp:
    mode = _create_mode(message.mode)
    if MODES[mode][1]:
        # The suffix makes a path of it: "/queue/" is one then, and its length counts.
        check_path_size(message.path, limits)
        validate_path(message.path + LEAST_SUFFIX)
    else:
        check_path(message.path, limits)
    check_data_size(message.data, message.path, limits)
    has_ttl = mode in (PERSISTENT_WITH_TTL, PERSISTENT_SEQUENTIAL_WITH_TTL)
    if has_ttl and not 1 <= message.ttl_ms <= TTL_MS_MAX:
        raise BadArgumentsError(
            f"ttl_ms is {message.ttl_ms}; this mode needs 1 to {TTL_MS_MAX}", path=message.path
        )
    if not has_ttl and message.ttl_ms:
        raise BadArgumentsError(
            f"ttl_ms is {message.ttl_ms}; it is for the TTL modes only", path=message.path
        )
    return CreateOp(
        path=message.path,
        data=message.data if message.HasField("data") else None,
        mode=mode,
        ttl_ms=message.ttl_ms,
        acl=_acl(message.acl) if message.acl else OPEN_ACL,
    )


def delete_op(
    message: coordination_pb2.DeleteRequest | coordination_pb2.DeleteOperation,
    limits: ClusterConfig,
) -> DeleteOp:
    check_path(message.path, limits)
    return DeleteOp(path=message.path, version=_expected_version(message))


def set_data_op(
    message: coordination_pb2.SetDataRequest | coordination_pb2.SetDataOperation,
    limits: ClusterConfig,
) -> SetDataOp:
    path = message.path
    data: bytes | None = message.data
    check_path(path, limits)
    if not data:
        data = data if message.HasField("data") else None
    elif len(data) > limits.data_size_bytes_max:
        check_data_size(data, path, limits)
    version = _expected_version(message) if message.HasField("expected_version") else ANY_VERSION
    return SetDataOp(path, data, version)


def check_op(message: coordination_pb2.CheckOperation, limits: ClusterConfig) -> CheckOp:
    check_path(message.path, limits)
    return CheckOp(path=message.path, version=_expected_version(message))


def set_acl_op(message: coordination_pb2.SetAclRequest, limits: ClusterConfig) -> SetAclOp:
    check_path(message.path, limits)
    version = message.expected_aversion if message.HasField("expected_aversion") else ANY_VERSION
    return SetAclOp(
        path=message.path,
        acl=_acl(message.acl),
        version=_version("expected_aversion", version, message.path),
    )


def multi_op(message: coordination_pb2.MultiRequest, limits: ClusterConfig) -> MultiOp:
    """A fault of one operation names it by its index, as a refusal by the core does."""
    count = len(message.operations)
    if count > limits.multi_operations_max:
        maximum = limits.multi_operations_max
        raise refusal("multi", f"the multi has {count} operations", maximum)
    ops: list[SubOp] = []
    for index, operation in enumerate(message.operations):
        try:
            ops.append(_sub_op(operation, limits))
        except (BadArgumentsError, LimitExceededError) as error:
            error.operation_index = index
            raise
    return MultiOp(tuple(ops))


def _sub_op(operation: coordination_pb2.MultiOperation, limits: ClusterConfig) -> SubOp:
    kind = operation.WhichOneof("operation")
    if kind == "create":
        return create_op(operation.create, limits)
    if kind == "delete":
        return delete_op(operation.delete, limits)
    if kind == "set_data":
        return set_data_op(operation.set_data, limits)
    if kind == "check":
        return check_op(operation.check, limits)
    raise BadArgumentsError("an operation of the multi is empty, or of a kind this version lacks")


def _create_mode(value: int) -> int:
    if value in (common_pb2.CREATE_MODE_UNSPECIFIED, common_pb2.CREATE_MODE_PERSISTENT):
        return PERSISTENT
    if EPHEMERAL <= value <= PERSISTENT_SEQUENTIAL_WITH_TTL:
        return value
    raise BadArgumentsError(f"unknown create mode {value}")


def _expected_version(
    message: coordination_pb2.DeleteRequest
    | coordination_pb2.DeleteOperation
    | coordination_pb2.SetDataRequest
    | coordination_pb2.SetDataOperation
    | coordination_pb2.CheckOperation,
) -> int:
    if not message.HasField("expected_version"):
        return ANY_VERSION
    return _version("expected_version", message.expected_version, message.path)


def _version(name: str, value: int, path: str) -> int:
    if value < ANY_VERSION:
        raise BadArgumentsError(
            f"{name} is {value}; it is a version, or {ANY_VERSION} for any", path=path
        )
    return value


def _acl(entries: Iterable[common_pb2.Acl]) -> tuple[Acl, ...]:
    """As it came: the core bounds and judges ACLs, for their meaning is its own."""
    return tuple(Acl(entry.permissions, entry.scheme, entry.id) for entry in entries)


# ------------------------------------------------------------------------------------ records


def fill_stat(message: common_pb2.Stat, stat: Stat) -> None:
    """Fields are set where they are: a message made apart and put in is copied, which takes three
    times as long. What is mostly 0 is left alone then."""
    message.czxid = stat.czxid
    message.mzxid = stat.mzxid
    message.pzxid = stat.pzxid
    message.ctime_ms = stat.ctime_ms
    message.mtime_ms = stat.mtime_ms
    if stat.version:
        message.version = stat.version
    if stat.data_length:
        message.data_length = stat.data_length
    if stat.cversion:
        message.cversion = stat.cversion
    if stat.num_children:
        message.num_children = stat.num_children
    if stat.aversion:
        message.aversion = stat.aversion
    if stat.ephemeral_owner:
        message.ephemeral_owner = stat.ephemeral_owner


def fill_acl(messages: RepeatedCompositeFieldContainer[common_pb2.Acl], acl: Iterable[Acl]) -> None:
    for entry in acl:
        messages.add(permissions=entry.permissions, scheme=entry.scheme, id=entry.id)
