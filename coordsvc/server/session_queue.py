"""The order of a Session stream: one queue of requests, answered in the order they came.

* A write is submitted as it comes, unless something before it still waits for its turn: a read
  must not see a write that was sent after it.
* A plain read of one znode is done in the moment in which the write before it has run. When every
  write before it is answered already, it is done when it is the first, or before that when another
  write follows. So nothing waits for it.
* Any other read is done when it is the first in the queue, its watch in the same turn. By then
  every write before it is answered. So it sees exactly what was sent before it, and perhaps what
  others wrote.
* Nothing behind a write that was refused before it was proposed, for a reason that will pass, is
  run: in order or not at all. The stream ends then.
* Before a reply leaves, all events up to its zxid leave.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from coordsvc.core.commands import AuthId, Caller, Refusal, Write
from coordsvc.core.queries import effective_ids
from coordsvc.errors import BadArgumentsError, CoordError
from coordsvc.server import convert
from coordsvc.server.config_model import ClusterConfig, LimitsConfig
from coordsvc.server.grpc_door import DEADLINE_S_DEFAULT
from coordsvc.server.measurements import Measurements
from coordsvc.server.pipeline import MIN_ZXID_WAIT_S_MAX, Pipeline, refusal_error
from coordsvc.server.plain_reads import PlainReads, place_behind
from coordsvc.server.replica_port import ReplicaPort
from coordsvc.server.request_kinds import (
    CLOSE_SESSION,
    PLAIN_READS,
    READS,
    ReadKind,
    WriteKind,
    is_linearizable,
)
from coordsvc.server.session_frames import Frame, SetReply
from coordsvc.server.session_reports import SessionReports
from coordsvc.server.session_slots import (
    BehindSlot,
    GateSlot,
    RefusedSlot,
    Slot,
    TurnSlot,
    WriteSlot,
    code_of,
)
from coordsvc.server.watch_hub import Spec, Watcher, specs_from_messages
from coordsvc.server.write_outcome import PASSING_ERRORS, ReadBehind, WriteOutcome
from coordsvc.v1 import common_pb2, coordination_pb2

CHECK_TIME_EACH = 128
CHECK_TIME_BYTES = 32 * 1024
"""Replies between two looks at the clock, and what they take: less than half a millisecond. A
process that shares its core may find its slice gone at any look, and each frame more is dear."""


@dataclass(frozen=True)
class StreamParts:
    """What all streams of a replica share. `header(zxid)` as for unary calls."""

    pipeline: Pipeline
    replica: ReplicaPort
    reports: SessionReports
    cluster: ClusterConfig
    limits: LimitsConfig
    writes: dict[str, WriteKind]
    header: Callable[[int], common_pb2.ResponseHeader]
    measurements: Measurements = field(default_factory=Measurements)
    set_reply: SetReply = field(default_factory=SetReply)

    def now(self) -> float:
        return self.replica.clock.monotonic()


@dataclass(frozen=True)
class Attached:
    """What a stream is of. `ids` are the connection's identities."""

    session_id: int
    attach_epoch: int
    ids: tuple[AuthId, ...]


class SessionQueue:
    """`on_ready()`: something may be ready to leave. `on_broken(error)`: the order was broken off
    because of `error`; what comes from now on is refused with it."""

    def __init__(
        self,
        parts: StreamParts,
        attached: Attached,
        watcher: Watcher,
        on_ready: Callable[[], None],
        on_broken: Callable[[CoordError], None],
    ) -> None:
        self._parts = parts
        self._writes = parts.writes
        self._attached = attached
        self._watcher = watcher
        self.wake = on_ready
        self._on_broken = on_broken
        self._state = parts.replica.machine.state
        self._caller = Caller(attached.session_id, attached.attach_epoch, ids=attached.ids)
        self._slots: deque[Slot] = deque()
        self._plain = PlainReads()
        self._new: list[WriteSlot] = []
        """Writes that nothing holds, to be submitted together."""
        self._request_ids: set[int] = set()
        """Of those not answered."""
        self._turns = 0
        """TurnSlots not done: writes behind the first of them are held."""
        self._refusing: CoordError | None = None
        self._closes = 0
        """Requests to end the session that ever came."""
        self.has_closed = False
        """The session's end, which this stream asked for, was answered."""

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def waits_for_service(self) -> bool:
        """Whether the first request waits for the replicas, and not for its client to read."""
        if not self._slots:
            return False
        slot = self._slots[0]
        if isinstance(slot, TurnSlot):
            return not slot.is_done and not slot.is_due
        return not slot.done()

    @property
    def may_fill(self) -> bool:
        """Whether `fill` may find anything to do: not while a write that is under way is the first,
        and there are no events. It wakes whoever fills when it is decided."""
        slots = self._slots
        if slots:
            slot = slots[0]
            if type(slot) is not WriteSlot or slot.reply is not None or slot.error is not None:
                return True
        return self._watcher.has_items

    # ------------------------------------------------------------------------------------ arriving

    def accept(self, operation: coordination_pb2.SessionOperation, now: float) -> None:
        """Queue a request; `submit_new` follows, in the same turn of the loop. Raises
        BadArgumentsError when the protocol is broken; a request's own faults are its reply."""
        request_id = operation.request_id
        if request_id <= 0 or request_id in self._request_ids:
            raise BadArgumentsError(
                f"request_id is {request_id}; it must be positive, and of no request that is not "
                "answered yet"
            )
        name = operation.WhichOneof("operation") or ""
        self._request_ids.add(request_id)
        if self._refusing is not None:
            self._slots.append(RefusedSlot(request_id, name, self._refusing, now))
            return
        write = self._writes.get(name)
        try:
            if write is not None:
                self._accept_write(request_id, write, getattr(operation, name), now)
            else:
                self._accept_turn(request_id, name, operation, now)
        except CoordError as error:
            self._slots.append(RefusedSlot(request_id, name, error, now))
            if write is not None and isinstance(error, PASSING_ERRORS):
                self._break_off(error)

    def _accept_write(self, request_id: int, kind: WriteKind, request: Any, now: float) -> None:
        limits = self._parts.cluster
        op = kind.to_op(request, limits)
        caller = self._caller
        if request.HasField("context"):
            caller, min_zxid = convert.stream_caller(request.context, limits, caller)
            if min_zxid > self._state.zxid:
                self._add_turn(GateSlot(self._wait_applied(min_zxid, now), now))
        command = Write(caller, op)
        slot = WriteSlot(self, request_id, kind, command, now, now + DEADLINE_S_DEFAULT)
        self._plain.write_comes(slot)
        self._slots.append(slot)
        if kind is CLOSE_SESSION:
            self._closes += 1
        if not self._turns:
            self._new.append(slot)

    def submit_new(self) -> None:
        """Called when everything that has arrived was accepted."""
        if self._new:
            writes, self._new = self._new, []
            self._parts.pipeline.submit_all(writes)

    def _accept_turn(
        self,
        request_id: int,
        name: str,
        operation: coordination_pb2.SessionOperation,
        now: float,
    ) -> None:
        read = READS.get(name)
        if read is not None:
            self._accept_read(request_id, read, getattr(operation, name), now)
        elif name == "add_watches":
            specs = specs_from_messages(operation.add_watches.watches)
            self._add_turn(
                TurnSlot(
                    request_id,
                    name,
                    lambda: self._add_watches(specs),
                    _fill_watches_set,
                    lambda result: 64 + 10 * len(result[0]),
                    came_at=now,
                    sets_watches=True,
                )
            )
        elif name == "remove_watches":
            watch_ids = tuple(operation.remove_watches.watch_ids)
            self._add_turn(
                TurnSlot(
                    request_id,
                    name,
                    lambda: self._remove_watches(watch_ids),
                    lambda part, result: part.SetInParent(),
                    lambda result: 0,
                    came_at=now,
                )
            )
        else:
            raise BadArgumentsError("the operation is empty, or of a kind this version lacks")

    def _accept_read(self, request_id: int, kind: ReadKind, request: Any, now: float) -> None:
        parts = self._parts
        query = kind.prepare(request, parts.cluster)
        linearizable = is_linearizable(kind, request)
        min_zxid = 0
        if request.HasField("context"):
            min_zxid = convert.stream_min_zxid(request.context)
        watch: tuple[Spec, ...] = ()
        if kind.watch_kind and request.watch_id:
            if request.watch_id < 0:
                raise BadArgumentsError(
                    f"watch_id is {request.watch_id}; it must be positive", path=request.path
                )
            watch = (Spec(request.watch_id, request.path, kind.watch_kind, False),)

        def act() -> tuple[Any, int]:
            if not linearizable:
                parts.pipeline.check_fresh()
            state = self._state
            attached = self._attached
            result = query(state, effective_ids(state, attached.session_id, attached.ids))
            if type(result) is Refusal:
                raise refusal_error(result, state.zxid)
            if watch:
                self._watcher.add(watch)
            return result, state.zxid

        if not (
            linearizable
            or watch
            or kind not in PLAIN_READS
            or self._turns
            or self._closes
            or min_zxid > self._state.zxid
        ):
            self._add_plain_read(BehindSlot(request_id, kind, act, self._end_read, now))
            return
        waits: tuple[asyncio.Future[None], ...] = ()
        if min_zxid > self._state.zxid:
            waits += (self._wait_applied(min_zxid, now),)
        if linearizable:
            waits += (self._watched(parts.replica.read_index(now + DEADLINE_S_DEFAULT)),)
        self._add_turn(
            TurnSlot(
                request_id,
                kind.name,
                act,
                kind.fill,
                kind.size,
                waits,
                came_at=now,
                sets_watches=bool(watch),
            )
        )

    def _add_plain_read(self, slot: BehindSlot) -> None:
        self._parts.pipeline.begin_read()
        self._slots.append(slot)
        self._plain.read_comes(slot, self._slots)

    def place_behind(self, read: ReadBehind, write: WriteOutcome) -> None:
        place_behind(read, write, self._slots)

    def _end_read(self) -> None:
        self._parts.pipeline.end_read()

    def _add_turn(self, slot: TurnSlot) -> None:
        try:
            self._parts.pipeline.begin_read()
        except CoordError:
            for wait in slot.waits:
                wait.cancel()
            raise
        self._slots.append(slot)
        self._turns += 1

    def _wait_applied(self, zxid: int, now: float) -> asyncio.Future[None]:
        return self._watched(self._parts.replica.wait_applied(zxid, now + MIN_ZXID_WAIT_S_MAX))

    def _watched(self, wait: asyncio.Future[None]) -> asyncio.Future[None]:
        def done(wait: asyncio.Future[None]) -> None:
            if not wait.cancelled():
                wait.exception()  # seen, also when its request is given up
            self.wake()

        wait.add_done_callback(done)
        return wait

    # ------------------------------------------------------------------------------------- running

    def write_decided(self) -> None:
        self._parts.pipeline.decided()
        self.wake()

    def _submit_held(self) -> None:
        """The first slot has had its turn: the writes up to the next one follow."""
        held: list[WriteSlot] = []
        for slot in islice(self._slots, 1, None):
            if isinstance(slot, TurnSlot):
                break
            if isinstance(slot, WriteSlot) and not slot.done():
                held.append(slot)
        if held:
            self._parts.pipeline.submit_all(held)

    def _take_turn(self, slot: TurnSlot) -> bool:
        """The slot is the first. False: it still has something to wait for."""
        if not slot.is_due or (slot.sets_watches and self._watcher.is_resuming):
            return False
        slot.run()
        self._end_turn()
        if slot.error is not None and isinstance(slot, GateSlot):
            held = self._slots[1]
            assert isinstance(held, WriteSlot)
            if not held.done():
                held.set_exception(slot.error)
        self._submit_held()
        return True

    def _end_turn(self) -> None:
        self._turns -= 1
        self._parts.pipeline.end_read()

    def _add_watches(self, specs: Sequence[Spec]) -> tuple[tuple[Sequence[Spec], int], int]:
        zxid = self._watcher.add(specs)
        return (specs, zxid), self._state.zxid

    def _remove_watches(self, watch_ids: Sequence[int]) -> tuple[None, int]:
        self._watcher.remove(watch_ids)
        return None, self._state.zxid

    # ------------------------------------------------------------------------------------ refusing

    def refuse_after(self, slot: WriteOutcome, error: CoordError) -> None:
        """`slot` was refused before it was proposed: nothing behind it may run, also what waits
        to be sent."""
        if self._refusing is not None:
            return
        behind = False
        for other in tuple(self._slots):
            if behind:
                self._refuse(other, error)
            behind = behind or other is slot
        self._break_off(error)

    def refuse_rest(self, error: CoordError, undecided: CoordError | None = None) -> None:
        """Run nothing more. What was submitted is still answered, or with `undecided` if that is
        given: at once."""
        self.submit_new()
        for slot in tuple(self._slots):
            if not isinstance(slot, WriteSlot) or not slot.is_submitted:
                self._refuse(slot, error)
            elif undecided is not None:
                self._refuse(slot, undecided)
        self._break_off(error)

    def _break_off(self, error: CoordError) -> None:
        if self._refusing is None:
            self._refusing = error
            self._on_broken(error)
        self.wake()

    def _refuse(self, slot: Slot, error: CoordError) -> None:
        if slot.done():
            return
        if isinstance(slot, WriteSlot):
            slot.fail(error)
        elif isinstance(slot, BehindSlot):
            slot.refuse(error)
        elif isinstance(slot, TurnSlot):
            slot.refuse(error)
            self._end_turn()

    def abandon(self) -> None:
        """Nobody waits for answers any more. Writes that were submitted run, in order or not at
        all: they are kept until they are decided."""
        self.submit_new()
        for slot in self._slots:
            if isinstance(slot, TurnSlot):
                self._refuse(slot, BadArgumentsError("the stream has ended"))
        self._slots = deque(
            slot for slot in self._slots if isinstance(slot, WriteSlot) and slot.is_submitted
        )
        self._request_ids.clear()

    def has_answered_close(self) -> bool:
        """Whether the session's end, asked for here, is among what is ready to leave."""
        return self._closes > 0 and any(
            isinstance(slot, WriteSlot) and slot.has_closed for slot in self._slots
        )

    # ------------------------------------------------------------------------------------- leaving

    def fill(self, frame: Frame, until: float) -> bool:
        """Put what is ready into the frame. False: the frame is to be sent before more is put in,
        because it is full, it is `until`, or the last reply was put in."""
        slots, watcher, note = self._slots, self._watcher, self._note_answered
        now = self._parts.now()
        count, looked_at_size = 0, frame.size
        has_items = watcher.has_items
        while slots:
            slot = slots[0]
            if type(slot) is WriteSlot:
                if slot.reply is None and slot.error is None:
                    break
            elif not slot.done():
                if type(slot) is BehindSlot:
                    if not slot.is_ready:
                        break
                    self._plain.read_ready(slot)
                elif not (isinstance(slot, TurnSlot) and self._take_turn(slot)):
                    break
                has_items = watcher.has_items
            if has_items and not self.fill_events(frame, slot.zxid):
                return False
            if not slot.put_into(frame):
                return False
            slots.popleft()
            note(slot, now)
            if self._closes and isinstance(slot, WriteSlot) and slot.has_closed:
                self.has_closed = True
                return False
            count += 1
            if count == CHECK_TIME_EACH or frame.size - looked_at_size >= CHECK_TIME_BYTES:
                if self._parts.now() >= until:
                    return False
                count, looked_at_size = 0, frame.size
        if not slots:
            self._plain.all_answered()
        return not watcher.has_items or self.fill_events(frame, None)

    def _note_answered(self, slot: Slot, now: float) -> None:
        """With the frame's time: what is in it leaves together."""
        parts = self._parts
        if slot.request_id in self._request_ids:
            self._request_ids.remove(slot.request_id)
            parts.measurements.operation(slot.name, code_of(slot), now - slot.came_at)
        if slot.error is not None:
            parts.pipeline.admission.refused(slot.error)

    def fill_events(self, frame: Frame, up_to_zxid: int | None) -> bool:
        """False: there are more, and no room for them."""
        watcher = self._watcher
        while watcher.has_items:
            if frame.room <= 0:
                return False
            items = watcher.take(up_to_zxid, frame.room)
            if not items:
                break
            for _, item in items:
                frame.add_watch_item(item)
        return True


def _fill_watches_set(
    part: coordination_pb2.AddWatchesResponse, result: tuple[Sequence[Spec], int]
) -> None:
    specs, zxid = result
    part.watches_set.watch_ids.extend(spec.watch_id for spec in specs)
    part.watches_set.zxid = zxid
