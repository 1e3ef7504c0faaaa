"""The order of a connection: one queue of requests, answered in the order they came.

* A write is submitted as it comes, unless a read before it still waits for its turn: a read must
  not see a write that was sent after it.
* A plain read of one znode is done in the moment in which the write before it has run. When every
  write before it is answered already, it is done when it is the first, or before that when another
  write follows. So nothing waits for it.
* Any other read is done when everything before it is answered, its watch in the same turn.
* Nothing behind a write that was refused before it was proposed, for a reason that will pass, is
  run: in order or not at all. The connection ends then.

Ref: ZooKeeper CommitProcessor, which keeps the same order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from coordsvc.core.commands import Caller, Op, Refusal, Write
from coordsvc.errors import CoordError, ShuttingDownError
from coordsvc.server.plain_reads import PlainReads, place_behind
from coordsvc.server.write_outcome import ReadBehind, WriteOutcome
from coordsvc.server.zookeeper.asking import Asker, Read
from coordsvc.server.zookeeper.outbox import Outbox
from coordsvc.server.zookeeper.protocol import OK, SET_WATCHES, SET_WATCHES2
from coordsvc.server.zookeeper.requests import WriteKind
from coordsvc.server.zookeeper.slots import (
    AnsweredSlot,
    BehindSlot,
    ReadSlot,
    Slot,
    WriteSlot,
    refused_as,
)
from coordsvc.server.zookeeper.statistics import Traffic

if TYPE_CHECKING:
    from coordsvc.server.zookeeper.door import Door

REQUEST_S_MAX: Final = 10.0
"""After which a write is not proposed any more, and a sync is given up."""

CHECK_TIME_EACH: Final = 16
"""Requests between two looks at the clock."""

_ABANDONED: Final = ShuttingDownError("the connection has ended")

_CATCHING_UP: Final = (SET_WATCHES, SET_WATCHES2)
"""Requests whose events come before their own reply, whatever the zxid."""


class RequestQueue:
    """`on_ready()`: something may be ready to leave. `on_broken(reason)`: nothing more is run, and
    the connection is to end when everything is answered."""

    def __init__(
        self,
        door: Door,
        asker: Asker,
        traffic: Traffic,
        on_ready: Callable[[], None],
        on_broken: Callable[[str], None],
    ) -> None:
        self._door = door
        self._pipeline = door.pipeline
        self._now = door.now
        self._asker = asker
        self._traffic = traffic
        self.wake = on_ready
        self._on_broken = on_broken
        self._slots: deque[Slot] = deque()
        self._behind = 0
        """BehindSlots in the queue."""
        self._plain = PlainReads()
        self._new: list[WriteSlot] = []
        """Writes that nothing holds, to be submitted together."""
        self._fresh_at = 0.0
        """When this replica was last seen to be fresh enough to be read."""
        self._at_once = 0
        """Reads answered as they came, since it was last counted."""
        self._reads = 0
        """ReadSlots in the queue: writes behind the first of them are held."""
        self.has_closed = False
        """The session's end, which this connection asked for, was answered."""

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def has_reads(self) -> bool:
        """Some wait, or are in progress."""
        return self._reads + self._behind > 0

    # ---------------------------------------------------------------------------------- arriving

    def add_write(self, xid: int, kind: WriteKind, caller: Caller, op: Op, now: float) -> None:
        slot = WriteSlot(self, xid, kind, Write(caller, op), now, now + REQUEST_S_MAX)
        self._plain.write_comes(slot)
        self._slots.append(slot)
        if not self._reads:
            self._new.append(slot)

    def submit_new(self) -> None:
        """Called when everything that has arrived was added."""
        if self._new:
            writes, self._new = self._new, []
            self._pipeline.submit_all(writes)

    def add_read(self, xid: int, op: int, read: Read, now: float, outbox: Outbox) -> None:
        """What needs not wait is answered at once. Raises ThrottledError when too many wait
        already, and an UnavailableError when this replica may show nothing."""
        if not self._slots and not read.needs_sync and op not in _CATCHING_UP:
            self._answer_at_once(xid, op, read, now, outbox)
            return
        self._pipeline.begin_read()
        if read.is_plain and not self._reads:
            self._add_plain(xid, read, now)
            return
        wait: asyncio.Future[None] | None = None
        if read.needs_sync:
            wait = self._door.replica.read_index(now + REQUEST_S_MAX)
            wait.add_done_callback(self._waited)
        self._slots.append(ReadSlot(xid, op, read, now, wait))
        self._reads += 1

    def _answer_at_once(self, xid: int, op: int, read: Read, now: float, outbox: Outbox) -> None:
        """Most reads: nothing is before it."""
        if self._fresh_at != now:
            self._pipeline.check_fresh()
            self._fresh_at = now
        zxid = self._asker.state.zxid
        answer = read.answer(self._asker)
        if isinstance(answer, bytes):
            outbox.put_reply(xid, zxid, OK, answer)
        elif isinstance(answer, Refusal):
            outbox.put_reply(xid, zxid, refused_as(answer))
        else:
            self._pipeline.begin_read()
            slot = ReadSlot(xid, op, read, now)
            slot.begun(zxid, answer)
            self._slots.append(slot)
            self._reads += 1
            return
        self._pipeline.count_read()
        self._at_once += 1

    def _add_plain(self, xid: int, read: Read, now: float) -> None:
        pipeline = self._pipeline
        slot = BehindSlot(xid, read, self._asker, now, pipeline.check_fresh, pipeline.end_read)
        self._slots.append(slot)
        self._behind += 1
        self._plain.read_comes(slot, self._slots)

    def place_behind(self, read: ReadBehind, write: WriteOutcome) -> None:
        place_behind(read, write, self._slots)

    def add_answer(self, xid: int, code: int, now: float) -> None:
        """Of a request that needs no turn: it only keeps its place."""
        self._slots.append(AnsweredSlot(xid, code, now))

    def _waited(self, wait: asyncio.Future[None]) -> None:
        if not wait.cancelled():
            wait.exception()  # Seen, also when its request is given up.
        self.wake()

    # ----------------------------------------------------------------------------------- running

    def write_decided(self) -> None:
        self._pipeline.decided()
        self.wake()

    def _submit_held(self) -> None:
        """A read was done: the writes up to the next one follow."""
        held: list[WriteSlot] = []
        for slot in self._slots:
            if isinstance(slot, ReadSlot):
                break
            if isinstance(slot, WriteSlot) and not slot.is_submitted and not slot.done():
                held.append(slot)
        if held:
            self._pipeline.submit_all(held)

    def answer_ready(self, outbox: Outbox, until: float) -> bool:
        """Answer what can be answered, in order. Whether there is more, and only time was short.
        Raises a CoordError when the first cannot be answered in this protocol's words."""
        latencies = [0.0] * self._at_once
        self._at_once = 0
        try:
            is_more = self._answer_ready(outbox, until, latencies)
        finally:
            if latencies:
                self._traffic.observe(latencies)
        if not is_more and not self.has_closed and not outbox.is_paused:
            outbox.put_events(self._shown_zxid)
        return is_more

    def _answer_ready(self, outbox: Outbox, until: float, latencies: list[float]) -> bool:
        slots, state, now = self._slots, self._asker.state, self._now()
        put_reply, is_fresh = outbox.put_reply, False
        while slots and not outbox.is_paused:
            slot = slots[0]
            if isinstance(slot, ReadSlot):
                if not slot.is_due:
                    break
                if not is_fresh:
                    self._pipeline.check_fresh()
                    is_fresh = True
                is_complete = slot.run(self._asker)
                if slot.op in _CATCHING_UP:
                    # Also between its pieces, so that what is found never piles up.
                    outbox.put_events(None)
                if not is_complete:
                    return True
                self._reads -= 1
                self._pipeline.end_read()
            elif not slot.done():
                if not (type(slot) is BehindSlot and slot.is_ready):
                    break
                self._plain.read_ready(slot)
            slots.popleft()
            code, body = slot.answer()
            put_reply(slot.xid, slot.zxid or state.zxid, code, body)
            latencies.append(now - slot.arrived)
            if isinstance(slot, ReadSlot):
                if slots:
                    self._submit_held()
            elif type(slot) is BehindSlot:
                self._behind -= 1
            elif slot.has_closed:
                self.has_closed = True
                return False
            if not len(latencies) % CHECK_TIME_EACH and self._now() >= until:
                return True
        if not slots:
            self._plain.all_answered()
        return False

    @property
    def _shown_zxid(self) -> int | None:
        """Events may leave up to here: a read in progress shows no later state. None: all."""
        first = self._slots[0] if self._slots else None
        if isinstance(first, ReadSlot) and first.has_begun and first.op not in _CATCHING_UP:
            return first.zxid
        return None

    # ---------------------------------------------------------------------------------- refusing

    def refuse_after(self, slot: WriteOutcome, error: CoordError) -> None:
        behind = False
        for other in tuple(self._slots):
            if behind:
                _refuse(other, error)
            behind = behind or other is slot
        self._on_broken(str(error))

    def refuse_waiting(self, error: CoordError) -> None:
        """Everything that was not submitted."""
        self.submit_new()
        for slot in tuple(self._slots):
            if not isinstance(slot, WriteSlot) or not slot.is_submitted:
                _refuse(slot, error)

    def refuse_all(self, error: CoordError) -> None:
        self.submit_new()
        for slot in tuple(self._slots):
            _refuse(slot, error)

    def abandon(self) -> None:
        """Nobody waits for answers any more. Writes that were submitted run, in order or not at
        all: they are kept until they are decided. Those held behind a read never will."""
        self.submit_new()
        for slot in self._slots:
            if isinstance(slot, ReadSlot):
                slot.give_up()
                self._pipeline.end_read()
            elif isinstance(slot, BehindSlot):
                slot.refuse(_ABANDONED)
        self._reads = self._behind = 0
        self._slots = deque(
            slot for slot in self._slots if isinstance(slot, WriteSlot) and slot.is_submitted
        )


def _refuse(slot: Slot, error: CoordError) -> None:
    if isinstance(slot, WriteSlot):
        if not slot.done():
            slot.fail(error)
    elif isinstance(slot, (ReadSlot, BehindSlot)):
        slot.refuse(error)
