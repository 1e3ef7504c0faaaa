"""A write that a stream or a connection has submitted, and what becomes of it.

The slots of both doors are the waiters of their writes themselves, so that thousands of writes
under way cost no task and no future.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from coordsvc.core.commands import Reply, SessionClosed, Write
from coordsvc.errors import (
    CoordError,
    NotCaughtUpError,
    OutcomeUnknownError,
    ThrottledError,
    UnavailableError,
)

PASSING_ERRORS: Final = (UnavailableError, ThrottledError)
"""Certainly not applied, and not for a fault of the request: what is behind it must not run."""


class ReadBehind(Protocol):
    """A read that is done in the moment in which the write before it has run, so that what is
    behind it needs not wait for it. `is_ready`: there is no write to wait for."""

    is_ready: bool

    def done(self) -> bool: ...
    def read(self) -> None: ...
    def refuse(self, error: CoordError, /) -> None: ...


class WriteOwner(Protocol):
    """What a write tells the stream or connection it is of."""

    def wake(self) -> None:
        """Something may be ready to leave."""
        ...

    def write_decided(self) -> None:
        """A submitted write was answered."""
        ...

    def refuse_after(self, slot: WriteOutcome, error: CoordError) -> None:
        """`slot` was refused for a passing reason: nothing behind it may run either."""
        ...

    def place_behind(self, read: ReadBehind, write: WriteOutcome) -> None:
        """`write` has failed, and it is certain that it never runs: the read is to be done behind
        the write before that one."""
        ...


class WriteOutcome:
    """The waiter of a write. Whoever derives from it fills the fields in, `reply`, `error` and
    `_behind` with None: one more call for each write would be felt."""

    __slots__ = ("_behind", "command", "deadline", "error", "is_submitted", "owner", "reply")

    owner: WriteOwner
    command: Write
    deadline: float
    is_submitted: bool
    reply: Reply | None
    error: CoordError | None
    _behind: list[ReadBehind] | None

    @property
    def readers(self) -> Sequence[ReadBehind]:
        return self._behind or ()

    def add_reader(self, read: ReadBehind) -> None:
        """It is to be done right behind this write, which is not done."""
        if self._behind is None:
            self._behind = [read]
        else:
            self._behind.append(read)

    def done(self) -> bool:
        return self.reply is not None or self.error is not None

    def set_result(self, reply: Reply) -> None:
        self.reply = reply
        self.owner.write_decided()

    def set_exception(self, error: BaseException) -> None:
        assert isinstance(error, CoordError)
        self.fail(error)
        if isinstance(error, PASSING_ERRORS):
            self.owner.refuse_after(self, error)

    def fail(self, error: CoordError) -> None:
        """Answer with this, whatever becomes of it. One that was submitted and not yet sent is not
        sent then."""
        self.error = error
        if self._behind is not None:
            self._give_up_readers(error)
        if self.is_submitted:
            self.owner.write_decided()
        else:
            self.owner.wake()

    def _give_up_readers(self, error: CoordError) -> None:
        readers, self._behind = self.readers, None
        for read in readers:
            if read.done():
                continue
            if isinstance(error, PASSING_ERRORS):
                read.refuse(error)
            elif isinstance(error, OutcomeUnknownError):
                read.refuse(NotCaughtUpError("an earlier write of this session is not decided yet"))
            else:
                self.owner.place_behind(read, self)

    @property
    def zxid(self) -> int:
        """What its reply shows."""
        if self.reply is not None:
            return self.reply.zxid
        return self.error.zxid if self.error is not None else 0

    @property
    def has_closed(self) -> bool:
        """Whether it has ended the session."""
        return self.reply is not None and type(self.reply.result) is SessionClosed
