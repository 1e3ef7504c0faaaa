"""Whether a failed attempt may be repeated: pure decisions, apart from doing it.

What decides is the error's type, never its text. A read, or a call that does nothing twice, may
always be repeated. A write only when it was certainly not applied, or when it carries a request
number, under which the cluster answers a repetition as the first time.
"""

from __future__ import annotations

import time
from enum import Enum

from coordsvc.client.options import ClientConfig
from coordsvc.errors import (
    Applied,
    CoordError,
    InternalError,
    OutcomeUnknownError,
    RequestOutOfOrderError,
    ResultForgottenError,
    SessionError,
    SessionMovedError,
    ThrottledError,
    UnavailableError,
)


class Repeatable(Enum):
    """What happens when a call is made twice."""

    ALWAYS = "always"
    """Nothing else than the first time: a read, a heartbeat, a numbered write."""

    IF_NOT_APPLIED = "if not applied"
    """A second effect, or a misleading refusal: a write without a request number."""


class ConnectionFailedError(UnavailableError):
    """No replica answered. The request was certainly not applied (it may have been a read)."""


class ForeignAnswerError(InternalError):
    """What answered is no replica: another service, or a proxy."""


class UnreachableError(ConnectionFailedError):
    """There was not even a connection, so nothing was sent. `reason`: why, if that is known."""

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        super().__init__(f"{message}: {reason}" if reason else message)
        self.reason = reason


def may_retry(error: CoordError, repeatable: Repeatable) -> bool:
    """Whether the same request may be sent again after `error`."""
    if isinstance(error, UnavailableError):
        return True
    return isinstance(error, OutcomeUnknownError) and repeatable is Repeatable.ALWAYS


def is_passing(error: CoordError) -> bool:
    """Whether the reason of this refusal will go away: nothing was applied, ask again later."""
    return isinstance(error, UnavailableError | ThrottledError)


def is_number_used(error: CoordError) -> bool:
    """Whether the state machine has done the number of the write that was refused, rather than a
    front door refused it."""
    if isinstance(error, RequestOutOfOrderError | SessionMovedError):
        return False
    return error.zxid > 0 or isinstance(error, ResultForgottenError)


def is_endpoint_to_blame(error: CoordError) -> bool:
    """Whether another replica is more likely to answer. Without a quorum none may; but the one
    that says so may be the one that is cut off."""
    return isinstance(error, UnavailableError | OutcomeUnknownError)


class Failures:
    """The failed attempts of one call, and what follows from all of them."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._give_up_at = time.monotonic() + config.unreachable_timeout_ms / 1000
        self._count = 0
        self._last: CoordError | None = None
        self._answer: CoordError | None = None
        """The last that a replica was reached for."""
        self._unknown: CoordError | None = None
        self._reason = ""

    def add(self, error: CoordError) -> None:
        self._count += 1
        self._last = error
        if not isinstance(error, UnreachableError):
            self._answer = error
        elif error.reason:
            self._reason = error.reason
        if isinstance(error, OutcomeUnknownError):
            self._unknown = error

    def pause_seconds(self) -> float:
        """How long to wait before the next attempt."""
        assert self._last is not None
        config = self._config
        least, most = config.retry_delay_ms_min, config.retry_delay_ms_max
        pause_ms = delay_ms(self._count, len(config.endpoints), least, most)
        return max(pause_ms, self._last.retry_after_ms) / 1000

    def is_hopeless(self) -> bool:
        """Nobody could be connected to for so long that the endpoints are probably wrong."""
        return self._answer is None and time.monotonic() >= self._give_up_at

    def verdict(self) -> CoordError:
        """What the caller is told. An attempt whose outcome is unknown stays so: a later one that
        was refused at the door, or came after the session's end, proves nothing about it. What a
        replica said is worth more than that another one cannot be reached."""
        assert self._last is not None
        answer = self._answer
        if answer is None:
            message = f"cannot connect to {' or '.join(self._config.endpoints)}"
            return UnreachableError(message, reason=self._reason)
        if self._unknown is None:
            return answer
        if is_passing(answer):
            return self._unknown
        if isinstance(answer, SessionError) or not answer.zxid:
            answer.applied = Applied.UNKNOWN
        return answer


def delay_ms(failures: int, endpoint_count: int, least: int, most: int) -> int:
    """How long to wait after the n-th failure in a row: not at all until each endpoint was tried
    once, then twice as long from round to round."""
    assert failures > 0
    rounds = failures // endpoint_count
    if rounds == 0:
        return 0
    doublings = min(rounds - 1, 16)
    return min(most, least << doublings)
