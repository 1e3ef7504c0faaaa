"""The requests of a Session stream, one slot each, from when they arrive until their replies leave.

A *write* is submitted as soon as no read before it is left to be answered, and the slot itself is
what the replica tells the outcome: thousands of writes cost no task and no future. A *turn* is what
must wait until everything before it is answered, and is then done at once, in one piece: reads with
their watches, sync, adding and removing watches. A plain read of one znode stands *behind* the last
write, and is done when that has run. What was refused as it came is *refused*.

Slots know nothing of order; `session_queue.py` keeps it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from coordsvc.core.commands import DataSet, Refusal, Write
from coordsvc.errors import CoordError, ErrorCode
from coordsvc.server.pipeline import refusal_error
from coordsvc.server.request_kinds import ReadKind, WriteKind
from coordsvc.server.session_frames import Frame
from coordsvc.server.write_outcome import WriteOutcome, WriteOwner


class WriteSlot(WriteOutcome):
    """A write, and the waiter of its outcome."""

    __slots__ = ("came_at", "kind", "request_id")

    def __init__(
        self,
        owner: WriteOwner,
        request_id: int,
        kind: WriteKind,
        command: Write,
        came_at: float,
        deadline: float,
    ) -> None:
        self.owner = owner
        self.request_id = request_id
        self.kind = kind
        self.command = command
        self.came_at = came_at
        self.deadline = deadline
        self.is_submitted = False
        self.reply = None
        self.error = None
        self._behind = None

    @property
    def name(self) -> str:
        return self.kind.name

    def put_into(self, frame: Frame) -> bool:
        """False: there is no room left."""
        reply = self.reply
        if reply is None:
            assert self.error is not None
            return frame.add_error(self.request_id, self.error)
        result = reply.result
        if type(result) is DataSet:
            return frame.add_set_reply(self.request_id, reply.zxid, result.stat)
        if type(result) is Refusal:
            return frame.add_error(self.request_id, refusal_error(result, reply.zxid))
        kind = self.kind
        message = frame.add_reply(self.request_id, reply.zxid, kind.size(result))
        if message is None:
            return False
        kind.fill(getattr(message, kind.name), result, self.command.op)
        return True


class TurnSlot:
    """`act()` does it and answers (result, zxid), or raises a CoordError. Before that all of
    `waits` must be done. `name` is the reply's field, `fill(part, result)` puts the result in.
    `sets_watches`: not while those of the hello are still being resumed."""

    __slots__ = (
        "act",
        "came_at",
        "error",
        "fill",
        "is_done",
        "name",
        "request_id",
        "result",
        "sets_watches",
        "size",
        "waits",
        "zxid",
    )

    def __init__(
        self,
        request_id: int,
        name: str,
        act: Callable[[], tuple[Any, int]],
        fill: Callable[[Any, Any], None],
        size: Callable[[Any], int],
        waits: tuple[asyncio.Future[None], ...] = (),
        *,
        came_at: float,
        sets_watches: bool = False,
    ) -> None:
        self.request_id = request_id
        self.name = name
        self.came_at = came_at
        self.act = act
        self.fill = fill
        self.size = size
        self.waits = waits
        self.sets_watches = sets_watches
        self.is_done = False
        self.result: Any = None
        self.error: CoordError | None = None
        self.zxid = 0

    def done(self) -> bool:
        return self.is_done

    @property
    def is_due(self) -> bool:
        """Whether nothing but its place in the order keeps it waiting."""
        return all(wait.done() for wait in self.waits)

    def run(self) -> None:
        try:
            for wait in self.waits:
                wait.result()
            self.result, self.zxid = self.act()
        except CoordError as error:
            self.error, self.zxid = error, error.zxid
        self.is_done = True

    def refuse(self, error: CoordError) -> None:
        self.error, self.zxid = error, error.zxid
        self.is_done = True
        for wait in self.waits:
            wait.cancel()

    def put_into(self, frame: Frame) -> bool:
        if self.error is not None:
            return frame.add_error(self.request_id, self.error)
        message = frame.add_reply(self.request_id, self.zxid, self.size(self.result))
        if message is None:
            return False
        self.fill(getattr(message, self.name), self.result)
        return True


class BehindSlot(TurnSlot):
    """A read that is done in the moment in which the write before it has run. `is_ready`: there is
    none to wait for. `on_done()`: it was done or refused."""

    __slots__ = ("_fault", "_on_done", "is_ready")

    def __init__(
        self,
        request_id: int,
        kind: ReadKind,
        act: Callable[[], tuple[Any, int]],
        on_done: Callable[[], None],
        came_at: float,
    ) -> None:
        super().__init__(request_id, kind.name, act, kind.fill, kind.size, came_at=came_at)
        self.is_ready = False
        self._on_done = on_done
        self._fault: Exception | None = None

    @property
    def is_due(self) -> bool:
        return self.is_ready

    def read(self) -> None:
        if self.is_done:
            return
        try:
            self.run()
        except Exception as fault:  # Its stream's, which raises it; whoever applies goes on.
            self._fault, self.is_done = fault, True
        self._on_done()

    def refuse(self, error: CoordError) -> None:
        if not self.is_done:
            super().refuse(error)
            self._on_done()

    def put_into(self, frame: Frame) -> bool:
        if self._fault is not None:
            raise self._fault
        return super().put_into(frame)


class GateSlot(TurnSlot):
    """Stands before a write that must not run before this replica has applied its min_zxid. It has
    no reply of its own; if it fails, the write behind it is refused."""

    __slots__ = ()

    def __init__(self, wait: asyncio.Future[None], came_at: float) -> None:
        super().__init__(
            0,
            "",
            lambda: (None, 0),
            lambda part, result: None,
            lambda result: 0,
            (wait,),
            came_at=came_at,
        )

    def put_into(self, frame: Frame) -> bool:
        return True


class RefusedSlot:
    """A request that was refused as it came: malformed, or too late."""

    __slots__ = ("came_at", "error", "name", "request_id")

    def __init__(self, request_id: int, name: str, error: CoordError, came_at: float) -> None:
        self.request_id = request_id
        self.name = name
        self.error = error
        self.came_at = came_at

    def done(self) -> bool:
        return True

    @property
    def zxid(self) -> int:
        return self.error.zxid

    def put_into(self, frame: Frame) -> bool:
        return frame.add_error(self.request_id, self.error)


Slot = WriteSlot | TurnSlot | RefusedSlot


def code_of(slot: Slot) -> str:
    """Of its answer, for measuring: an error's name, or OK."""
    if slot.error is not None:
        return slot.error.code.name
    if type(slot) is WriteSlot and slot.reply is not None:
        result = slot.reply.result
        if type(result) is Refusal:
            return ErrorCode(result.code).name
    return "OK"
