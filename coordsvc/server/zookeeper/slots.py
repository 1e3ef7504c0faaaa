"""The requests of one connection, one slot each, from when they arrive until their replies leave.

A *write* is submitted as soon as no read before it is left to be answered, and is itself what the
replica tells the outcome. A *read* is done when it is the first; a plain one stands *behind* the
last write, and is done when that has run. Slots know nothing of order; `queue.py` keeps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from coordsvc.core.commands import MultiOp, Refusal, Write
from coordsvc.errors import CoordError
from coordsvc.server.pipeline import refusal_error
from coordsvc.server.write_outcome import PASSING_ERRORS, WriteOutcome, WriteOwner
from coordsvc.server.zookeeper.asking import Asker, Read
from coordsvc.server.zookeeper.multi import multi_refused
from coordsvc.server.zookeeper.protocol import OK, SET_WATCHES, SET_WATCHES2, code_of
from coordsvc.server.zookeeper.requests import WriteKind


class WriteSlot(WriteOutcome):
    """A write, and the waiter of its outcome."""

    __slots__ = ("arrived", "kind", "xid")

    def __init__(
        self,
        owner: WriteOwner,
        xid: int,
        kind: WriteKind,
        command: Write,
        arrived: float,
        deadline: float,
    ) -> None:
        self.owner = owner
        self.xid = xid
        self.kind = kind
        self.command = command
        self.arrived = arrived
        self.deadline = deadline
        self.is_submitted = False
        self.reply = None
        self.error = None
        self._behind = None

    def answer(self) -> tuple[int, bytes]:
        """(code, body) of one that is done. Raises its error when there is no word for it."""
        reply = self.reply
        if reply is None:
            assert self.error is not None
            if isinstance(self.error, PASSING_ERRORS):
                raise self.error
            return told_as(self.error), b""
        result, op = reply.result, self.command.op
        if type(result) is not Refusal:
            return OK, self.kind.encode(result, op)
        if type(op) is MultiOp:
            body = multi_refused(op, result)
            if body is not None:
                return OK, body
        code = code_of(result.code)
        if code is None:
            raise refusal_error(result, reply.zxid)
        return code, b""


class ReadSlot:
    """A read. `wait`: what must be done before, apart from what is before it. `zxid`, once it was
    begun: of the state it shows."""

    __slots__ = ("_body", "_code", "_error", "_parts", "_pieces", "arrived", "op", "read", "wait",
                 "xid", "zxid")  # fmt: skip

    def __init__(
        self,
        xid: int,
        op: int,
        read: Read,
        arrived: float,
        wait: asyncio.Future[None] | None = None,
    ) -> None:
        self.xid = xid
        self.op = op
        self.read = read
        self.arrived = arrived
        self.wait = wait
        self.zxid = 0
        self._error: CoordError | None = None
        self._code = OK
        self._body = b""
        self._pieces: Iterator[bytes] | None = None
        self._parts: list[bytes] = []

    @property
    def is_due(self) -> bool:
        return self.wait is None or self.wait.done() or self._error is not None

    @property
    def has_begun(self) -> bool:
        return self._pieces is not None

    def run(self, asker: Asker) -> bool:
        """False: it is not complete, and to be run again in another turn."""
        if self._error is not None:
            return True
        if self._pieces is None:
            self._begin(asker)
        if self._pieces is None:
            return True
        piece = next(self._pieces, None)
        if piece is not None:
            self._parts.append(piece)
            return False
        self._body = b"".join(self._parts)
        if self.op in (SET_WATCHES, SET_WATCHES2):
            self.zxid = asker.state.zxid
        return True

    def _begin(self, asker: Asker) -> None:
        try:
            if self.wait is not None:
                self.wait.result()
        except CoordError as error:
            self._error = error
            return
        self.zxid = asker.state.zxid
        answer = self.read.answer(asker)
        if isinstance(answer, bytes):
            self._body = answer
        elif isinstance(answer, Refusal):
            self._code = refused_as(answer)
        else:
            self._pieces = answer

    def begun(self, zxid: int, pieces: Iterator[bytes]) -> None:
        """It was asked already, at `zxid`."""
        self.zxid, self._pieces = zxid, pieces

    def answer(self) -> tuple[int, bytes]:
        """(code, body) of one that was run. Raises its error when there is no word for it."""
        if self._error is not None:
            return told_as(self._error), b""
        return self._code, self._body

    def refuse(self, error: CoordError) -> None:
        self._error = error
        self.give_up()

    def give_up(self) -> None:
        if self.wait is not None:
            self.wait.cancel()


class BehindSlot:
    """A read that is done in the moment in which the write before it has run. `is_ready`: there is
    none to wait for. `check()` raises a CoordError when this replica may show nothing; `on_done()`:
    it was done or refused."""

    __slots__ = (
        "_asker",
        "_body",
        "_check",
        "_code",
        "_error",
        "_on_done",
        "_read",
        "arrived",
        "is_ready",
        "xid",
        "zxid",
    )

    has_closed = False

    def __init__(
        self,
        xid: int,
        read: Read,
        asker: Asker,
        arrived: float,
        check: Callable[[], None],
        on_done: Callable[[], None],
    ) -> None:
        self.xid = xid
        self.arrived = arrived
        self.zxid = 0
        self._read = read
        self._asker = asker
        self.is_ready = False
        self._check = check
        self._on_done = on_done
        self._error: Exception | None = None
        self._code = OK
        self._body: bytes | None = None

    def done(self) -> bool:
        return self._body is not None

    def read(self) -> None:
        if self._body is not None:
            return
        try:
            self._check()
            self.zxid = self._asker.state.zxid
            answer = self._read.answer(self._asker)
        except Exception as error:  # Its connection's, which raises it; whoever applies goes on.
            self._error, answer = error, b""
        if isinstance(answer, Refusal):
            self._code, answer = refused_as(answer), b""
        assert isinstance(answer, bytes), "a plain read comes in one piece"
        self._body = answer
        self._on_done()

    def refuse(self, error: CoordError) -> None:
        if self._body is None:
            self._error, self._body = error, b""
            self._on_done()

    def answer(self) -> tuple[int, bytes]:
        """(code, body) of one that is done. Raises its error when there is no word for it."""
        if self._error is not None:
            if isinstance(self._error, CoordError):
                return told_as(self._error), b""
            raise self._error
        assert self._body is not None
        return self._code, self._body


class AnsweredSlot:
    """A request that was answered as it came: refused, or of a kind that needs no turn."""

    __slots__ = ("_code", "arrived", "xid")

    zxid = 0
    has_closed = False

    def __init__(self, xid: int, code: int, arrived: float) -> None:
        self.xid = xid
        self._code = code
        self.arrived = arrived

    def done(self) -> bool:
        return True

    def answer(self) -> tuple[int, bytes]:
        return self._code, b""


Slot = WriteSlot | ReadSlot | BehindSlot | AnsweredSlot


def refused_as(refusal: Refusal) -> int:
    """The code of a read's refusal."""
    code = code_of(refusal.code)
    assert code is not None, refusal
    return code


def told_as(error: CoordError) -> int:
    """Its code. Raises the error itself when there is no word for it."""
    code = code_of(error.code)
    if code is None:
        raise error
    return code
