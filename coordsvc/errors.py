"""Errors: one tree, one table of codes.

The tree says whether a write was applied, so that a caller can decide to retry by type alone::

    CoordError
    +-- RequestError         a definite answer: the request was refused, nothing was applied
    |   +-- NoNodeError, NodeExistsError, BadVersionError, NotEmptyError,
    |   |   NoChildrenForEphemeralsError, BadArgumentsError, InvalidAclError, NoAuthError,
    |   |   AuthFailedError, UnimplementedError, LimitExceededError, QuotaExceededError,
    |   |   ThrottledError, GuardFailedError, ResultForgottenError, RequestOutOfOrderError,
    |   |   UnsupportedFeatureError, RuntimeInconsistencyError, MarshallingError, NoWatcherError
    |   +-- SessionError     the session cannot be used (any more)
    |       +-- SessionExpiredError, SessionMovedError
    +-- UnavailableError     certainly not applied: retry, here or at another replica
    |   +-- NoQuorumError, NotCaughtUpError, ShuttingDownError
    +-- OutcomeUnknownError  perhaps applied: retry only under the same request number
    +-- InternalError        a bug, or a fault of the replica; details are in its log only

A code's number is ZooKeeper's, negated (so positive); codes of our own start at 1001. They are
part of the wire contract and never change meaning. Ref: ZooKeeper KeeperException.Code.

This module imports the standard library only. How a code becomes a gRPC status is
`server/status_map.py`; a client rebuilds the class from the code, never from the text.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ErrorCode(IntEnum):
    """Why a request was refused. The numbers are wire format."""

    OK = 0
    SYSTEM_ERROR = 1
    RUNTIME_INCONSISTENCY = 2
    MARSHALLING_ERROR = 5
    UNIMPLEMENTED = 6
    BAD_ARGUMENTS = 8
    NO_NODE = 101
    NO_AUTH = 102
    BAD_VERSION = 103
    NO_CHILDREN_FOR_EPHEMERALS = 108
    NODE_EXISTS = 110
    NOT_EMPTY = 111
    SESSION_EXPIRED = 112
    INVALID_ACL = 114
    AUTH_FAILED = 115
    SESSION_MOVED = 118
    NO_WATCHER = 121
    QUOTA_EXCEEDED = 125
    THROTTLED = 127
    NO_QUORUM = 1001
    NOT_CAUGHT_UP = 1002
    OUTCOME_UNKNOWN = 1003
    RESULT_FORGOTTEN = 1004
    REQUEST_OUT_OF_ORDER = 1005
    LIMIT_EXCEEDED = 1006
    GUARD_FAILED = 1007
    UNSUPPORTED_FEATURE = 1008
    SHUTTING_DOWN = 1009


class Applied(IntEnum):
    """Whether the write a request asked for took effect."""

    NO = 1
    UNKNOWN = 2
    YES = 3


class CoordError(Exception):
    """Base of every error this package raises on purpose.

    `code` is the wire code, `path` the znode's path the error is about (None: none),
    `applied` whether the write took effect, `zxid` the position at which the refusal was
    decided (0: it never reached the state machine), `operation_index` the failing operation of a
    multi (None: not a multi), `retry_after_ms` a hint (0: none). `limit` is the name of the
    replica's limit that refused it, for counting there (empty: none); it is not sent.
    """

    code: ErrorCode = ErrorCode.SYSTEM_ERROR
    applied: Applied = Applied.UNKNOWN
    limit: str = ""
    by_code: ClassVar[dict[ErrorCode, type[CoordError]]] = {}

    def __init__(
        self,
        message: str = "",
        *,
        path: str | None = None,
        zxid: int = 0,
        operation_index: int | None = None,
        retry_after_ms: int = 0,
    ) -> None:
        super().__init__(message or self.code.name)
        self.message = message or self.code.name
        self.path = path
        self.zxid = zxid
        self.operation_index = operation_index
        self.retry_after_ms = retry_after_ms

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "code" in cls.__dict__:
            CoordError.by_code[cls.code] = cls


class RequestError(CoordError):
    """A definite refusal: nothing was applied, and the same request will be refused again
    unless the state changes."""

    applied = Applied.NO


class SessionError(RequestError):
    """The session cannot be used (any more)."""


class UnavailableError(CoordError):
    """Certainly not applied; try again, here or at another replica."""

    applied = Applied.NO


class OutcomeUnknownError(CoordError):
    """The write was proposed and its outcome was not learnt in time: perhaps applied. Retry it
    only under the same request number; that answers as the first time if it was applied."""

    code = ErrorCode.OUTCOME_UNKNOWN
    applied = Applied.UNKNOWN


class InternalError(CoordError):
    """A bug, or a fault of the replica. Its log has the details."""

    code = ErrorCode.SYSTEM_ERROR


class NoNodeError(RequestError):
    code = ErrorCode.NO_NODE


class NodeExistsError(RequestError):
    code = ErrorCode.NODE_EXISTS


class BadVersionError(RequestError):
    code = ErrorCode.BAD_VERSION


class NotEmptyError(RequestError):
    code = ErrorCode.NOT_EMPTY


class NoChildrenForEphemeralsError(RequestError):
    code = ErrorCode.NO_CHILDREN_FOR_EPHEMERALS


class BadArgumentsError(RequestError):
    code = ErrorCode.BAD_ARGUMENTS


class InvalidAclError(RequestError):
    code = ErrorCode.INVALID_ACL


class NoAuthError(RequestError):
    code = ErrorCode.NO_AUTH


class AuthFailedError(RequestError):
    code = ErrorCode.AUTH_FAILED


class UnimplementedError(RequestError):
    code = ErrorCode.UNIMPLEMENTED


class LimitExceededError(RequestError):
    code = ErrorCode.LIMIT_EXCEEDED


class QuotaExceededError(RequestError):
    code = ErrorCode.QUOTA_EXCEEDED


class ThrottledError(RequestError):
    code = ErrorCode.THROTTLED


class GuardFailedError(RequestError):
    code = ErrorCode.GUARD_FAILED


class ResultForgottenError(RequestError):
    """The request number was done, and its result has been dropped since (`done_below`): the
    write was applied or refused then, and is not run again."""

    code = ErrorCode.RESULT_FORGOTTEN
    applied = Applied.UNKNOWN


class RequestOutOfOrderError(RequestError):
    code = ErrorCode.REQUEST_OUT_OF_ORDER


class UnsupportedFeatureError(RequestError):
    code = ErrorCode.UNSUPPORTED_FEATURE


class RuntimeInconsistencyError(RequestError):
    """An operation of a multi that was not tried because one before it was refused."""

    code = ErrorCode.RUNTIME_INCONSISTENCY


class MarshallingError(RequestError):
    code = ErrorCode.MARSHALLING_ERROR


class NoWatcherError(RequestError):
    code = ErrorCode.NO_WATCHER


class SessionExpiredError(SessionError):
    """The session is closed, expired or unknown, or the password is not its own."""

    code = ErrorCode.SESSION_EXPIRED


class SessionMovedError(SessionError):
    """The session was attached elsewhere since; this request had no effect."""

    code = ErrorCode.SESSION_MOVED


class NoQuorumError(UnavailableError):
    """No leader confirmed by a majority is in reach."""

    code = ErrorCode.NO_QUORUM


class NotCaughtUpError(UnavailableError):
    """This replica has not applied the zxid that was asked for."""

    code = ErrorCode.NOT_CAUGHT_UP


class ShuttingDownError(UnavailableError):
    code = ErrorCode.SHUTTING_DOWN


def error_from_code(
    code: int,
    message: str = "",
    *,
    path: str | None = None,
    zxid: int = 0,
    operation_index: int | None = None,
    retry_after_ms: int = 0,
) -> CoordError:
    """Rebuild the typed error of `code`; a code this version does not know is an InternalError."""
    try:
        error_class = CoordError.by_code[ErrorCode(code)]
    except (ValueError, KeyError):
        error_class, message = InternalError, f"unknown error code {code}: {message}"
    return error_class(
        message,
        path=path,
        zxid=zxid,
        operation_index=operation_index,
        retry_after_ms=retry_after_ms,
    )
