"""From a failed gRPC call to a typed error: by the code in its detail, never by its text."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc import StatusCode, aio

from coordsvc.client.retry import ConnectionFailedError, ForeignAnswerError
from coordsvc.errors import (
    Applied,
    CoordError,
    OutcomeUnknownError,
    error_from_code,
)
from coordsvc.v1 import errors_pb2

DETAILS_KEY = "grpc-status-details-bin"

CHANNEL_STATUSES = frozenset(
    {StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.CANCELLED}
)
"""What a channel says when no answer came, whatever the server did."""


def typed_error(error: aio.AioRpcError, endpoint: str, *, is_write: bool) -> CoordError:
    """The error that `endpoint` answered with; without our detail nobody knows whether a write
    that was sent took effect."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            detail = _find_detail(value)
            if detail is not None:
                return _from_detail(detail, error.details() or "")
    reason = f"{endpoint}: {error.code().name}: {_first_line(error.details() or '')}"
    if is_write:
        return OutcomeUnknownError(f"no answer from {reason}")
    if error.code() in CHANNEL_STATUSES:
        return ConnectionFailedError(f"no answer from {reason}")
    return ForeignAnswerError(f"not an answer of coordsvc, from {reason}")


def typed_detail(detail: errors_pb2.ErrorDetail) -> CoordError:
    """The error that an item of a Session stream says."""
    return _from_detail(detail, detail.message)


def _find_detail(trailer: bytes) -> errors_pb2.ErrorDetail | None:
    try:
        for packed in status_pb2.Status.FromString(trailer).details:
            if packed.Is(errors_pb2.ErrorDetail.DESCRIPTOR):
                return errors_pb2.ErrorDetail.FromString(packed.value)
    except DecodeError:
        # Somebody else's trailer, such as a proxy's: as good as none.
        return None
    return None


def _from_detail(detail: errors_pb2.ErrorDetail, message: str) -> CoordError:
    error = error_from_code(
        int(detail.code),
        message,
        path=detail.path or None,
        zxid=detail.zxid,
        operation_index=detail.operation_index if detail.HasField("operation_index") else None,
        retry_after_ms=detail.retry_after_ms,
    )
    if detail.applied in (errors_pb2.APPLIED_NO, errors_pb2.APPLIED_YES):
        error.applied = Applied(int(detail.applied))
    return error


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else "(no message)"
