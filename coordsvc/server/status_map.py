"""Typed errors as gRPC says them: the one table of codes, and the trailers that carry the detail.

A client rebuilds the error from the detail's code. The gRPC status is for proxies, metrics and
clients that know no better.
"""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import status_pb2

from coordsvc.errors import Applied, CoordError, ErrorCode
from coordsvc.v1 import errors_pb2

STATUS_OF_CODE: dict[ErrorCode, grpc.StatusCode] = {
    ErrorCode.SYSTEM_ERROR: grpc.StatusCode.INTERNAL,
    ErrorCode.RUNTIME_INCONSISTENCY: grpc.StatusCode.INTERNAL,
    ErrorCode.MARSHALLING_ERROR: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorCode.BAD_ARGUMENTS: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.NO_NODE: grpc.StatusCode.NOT_FOUND,
    ErrorCode.NO_AUTH: grpc.StatusCode.PERMISSION_DENIED,
    ErrorCode.BAD_VERSION: grpc.StatusCode.ABORTED,
    ErrorCode.NO_CHILDREN_FOR_EPHEMERALS: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.NODE_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    ErrorCode.NOT_EMPTY: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.SESSION_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.INVALID_ACL: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.AUTH_FAILED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.SESSION_MOVED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.NO_WATCHER: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.QUOTA_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.THROTTLED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.NO_QUORUM: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.NOT_CAUGHT_UP: grpc.StatusCode.UNAVAILABLE,
    # Never UNAVAILABLE: generic retry policies take that for "not done" and would do it twice.
    ErrorCode.OUTCOME_UNKNOWN: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.RESULT_FORGOTTEN: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.REQUEST_OUT_OF_ORDER: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.LIMIT_EXCEEDED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.GUARD_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.UNSUPPORTED_FEATURE: grpc.StatusCode.UNIMPLEMENTED,
    ErrorCode.SHUTTING_DOWN: grpc.StatusCode.UNAVAILABLE,
}

MESSAGE_BYTES_MAX = 256
PATH_BYTES_MAX = 1024
"""Trailers share the 8 KiB that clients take as headers at most by default: a longer path turned a
NOT_FOUND into the channel's own RESOURCE_EXHAUSTED."""

CUT_MARK = "..."

DETAILS_TRAILER = "grpc-status-details-bin"
ERROR_TRAILER = "coordsvc-error"
APPLIED_TRAILER = "coordsvc-applied"

Trailers = tuple[tuple[str, str | bytes], ...]


def status_of(error: CoordError) -> grpc.StatusCode:
    return STATUS_OF_CODE[error.code]


def cut(text: str, bytes_max: int) -> str:
    """`text`, or as much of it as fits into `bytes_max` of UTF-8 together with the mark."""
    if len(text) <= bytes_max // 4:
        return text
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= bytes_max:
        return encoded.decode("utf-8")
    return encoded[: bytes_max - len(CUT_MARK)].decode("utf-8", "ignore") + CUT_MARK


def status_message(error: CoordError) -> str:
    return cut(error.message, MESSAGE_BYTES_MAX)


def error_detail(error: CoordError) -> errors_pb2.ErrorDetail:
    """Without the text: a unary call has that as the message of its status."""
    detail = errors_pb2.ErrorDetail(
        code=errors_pb2.ErrorCode.ValueType(error.code),
        applied=errors_pb2.Applied.ValueType(error.applied),
        path=cut(error.path or "", PATH_BYTES_MAX),
        zxid=error.zxid,
        retry_after_ms=error.retry_after_ms,
    )
    if error.operation_index is not None:
        detail.operation_index = error.operation_index
    return detail


_APPLIED_TEXT = {Applied.NO: "no", Applied.UNKNOWN: "unknown", Applied.YES: "yes"}


def trailers_of(error: CoordError) -> Trailers:
    """The error for clients that read google.rpc.Status, and once more in plain text for those
    whose library hands out only raw bytes of that."""
    packed = any_pb2.Any()
    packed.Pack(error_detail(error))
    status = status_pb2.Status(
        code=status_of(error).value[0], message=status_message(error), details=[packed]
    )
    return (
        (DETAILS_TRAILER, status.SerializeToString()),
        (ERROR_TRAILER, error.code.name),
        (APPLIED_TRAILER, _APPLIED_TEXT[error.applied]),
    )
