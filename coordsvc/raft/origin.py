"""The origin: what this replica's callers want written, numbered, sent, and sent again.

Everything submitted in one turn becomes a *batch* with the next number of this replica's
incarnation. A batch that has been sent never changes and stays until it is seen applied, whatever
its callers do; after a fault all of them are sent again in order, and the state machine applies
each number once. So a fault between replicas neither loses nor doubles a write.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from coordsvc.core.commands import (
    APPLIED,
    GAP,
    VOID,
    AppliedBatch,
    Batch,
    ClientCommand,
    OriginRegistered,
    RegisterOrigin,
    Reply,
)
from coordsvc.core.machine import Reader, Readers
from coordsvc.errors import (
    CoordError,
    LimitExceededError,
    NoQuorumError,
    OutcomeUnknownError,
    ShuttingDownError,
)
from coordsvc.raft.replica_types import Submission, Waiter
from coordsvc.raft.settings import ReplicaSettings

_encoder = msgspec.msgpack.Encoder()


class _BatchFrame(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The bytes of core's Batch, commands already encoded."""

    replica_id: int
    incarnation: int
    seq: int
    commands: tuple[msgspec.Raw, ...]


class _Waiting(msgspec.Struct, gc=False):
    """`raw`: until it is part of a batch. `write`: the waiter, if it has readers."""

    raw: bytes
    waiter: Waiter
    deadline: float
    write: Submission | None = None


class SentBatch(msgspec.Struct, gc=False):
    seq: int
    commands: int
    raw: bytes
    waiters: list[_Waiting]
    sent_at: float
    due_at: float
    """When the first of its callers is to be told that the outcome is not known yet."""


def encode_registration(replica_id: int, nonce: bytes) -> bytes:
    command = msgspec.Raw(_encoder.encode(RegisterOrigin(replica_id, nonce)))
    return _encoder.encode(_BatchFrame(replica_id, 0, 0, (command,)))


class Origin:
    """Each command has a waiter of its own, so that a caller that goes away takes nothing with it
    but its answer. A waiter may submit the next command while it is told of the last."""

    def __init__(self, settings: ReplicaSettings, nonce: bytes):
        self._settings = settings
        self.nonce = nonce
        self.registration = encode_registration(settings.replica_id, nonce)
        self.incarnation = 0
        """0 until the registration is seen applied."""
        self._next_seq = 1
        self._waiting: deque[_Waiting] = deque()
        self._sent: OrderedDict[int, SentBatch] = OrderedDict()
        self._bytes = 0
        self._sent_commands = 0
        self._closed = False
        self.resend_due = False
        self.progress_at = 0.0
        self.on_decided: Callable[[float, int], None] = lambda seconds, writes: None

    # ------------------------------------------------------------------ callers

    def submit_to(
        self, command: ClientCommand, deadline: float, now: float, waiter: Waiter
    ) -> None:
        raw = _encoder.encode(command)
        error = self._fault(len(raw), deadline, now)
        if error is not None:
            waiter.set_exception(error)
        else:
            self._bytes += len(raw)
            self._waiting.append(_Waiting(raw, waiter, deadline))

    def submit_all(self, writes: Iterable[Submission], now: float) -> None:
        """Leaves out what is done already, perhaps refused because one before it was."""
        encode = _encoder.encode
        for write in writes:
            if not write.done():
                raw, deadline = encode(write.command), write.deadline
                error = self._fault(len(raw), deadline, now)
                if error is not None:
                    write.set_exception(error)
                else:
                    self._bytes += len(raw)
                    self._waiting.append(_Waiting(raw, write, deadline, write))

    def _fault(self, size: int, deadline: float, now: float) -> CoordError | None:
        """Why a write of so many bytes is not taken."""
        settings = self._settings
        if self._closed:
            return ShuttingDownError("this replica is shutting down")
        if size > settings.entry_bytes_max:
            return LimitExceededError(
                f"a write of {size} bytes is above {settings.entry_bytes_max}"
            )
        commands = len(self._waiting) + self._sent_commands
        if (
            self._bytes + size > settings.origin_bytes_max
            or commands >= settings.origin_commands_max
        ):
            return self._full(commands)
        if deadline <= now:
            return NoQuorumError("the deadline had passed before the write was sent")
        return None

    def _full(self, commands: int) -> NoQuorumError:
        """What waits takes memory here and at the leader. Another replica may have room."""
        error = NoQuorumError(
            f"{commands} writes of {self._bytes} bytes wait to be committed here; "
            f"limits.write_bytes_waiting_max is {self._settings.origin_bytes_max}, and "
            f"{self._settings.origin_commands_max} writes: write less at once",
            retry_after_ms=200,
        )
        error.limit = "write_bytes_waiting"
        return error

    def close(self) -> None:
        """No new writes; those proposed may still finish."""
        self._closed = True
        self.refuse_waiting(ShuttingDownError("this replica is shutting down"))

    def refuse_waiting(self, error: CoordError) -> None:
        """Answers what has not been sent: certainly not applied."""
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            self._bytes -= len(item.raw)
            _fail(item.waiter, error)

    def check_deadlines(self, now: float) -> None:
        waiting, self._waiting = self._waiting, deque()
        kept: deque[_Waiting] = deque()
        for item in waiting:
            if item.waiter.done():
                self._bytes -= len(item.raw)
            elif item.deadline <= now:
                self._bytes -= len(item.raw)
                _fail(item.waiter, NoQuorumError("no leader took the write within its deadline"))
            else:
                kept.append(item)
        kept.extend(self._waiting)
        self._waiting = kept
        for batch in self._sent.values():
            if now >= batch.due_at:
                self._tell_unknown(batch, now)

    def _tell_unknown(self, batch: SentBatch, now: float) -> None:
        latest = batch.sent_at + self._settings.unknown_outcome_after_s
        batch.due_at = float("inf")
        for item in batch.waiters:
            waiter, deadline = item.waiter, item.deadline
            if now >= min(deadline, latest):
                _fail(waiter, OutcomeUnknownError("the write was proposed and not decided yet"))
            elif not waiter.done():
                batch.due_at = min(batch.due_at, deadline, latest)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def bytes_waiting(self) -> int:
        """Of all writes taken here and not seen applied."""
        return self._bytes

    @property
    def undecided(self) -> int:
        """Commands sent and not seen applied."""
        return self._sent_commands

    # ------------------------------------------------------------------ batches

    def cut(self, now: float) -> Iterator[SentBatch]:
        """New batches out of what waits, in order. What its caller has given up, or whose
        deadline has passed, is not proposed any more."""
        assert self.incarnation, "batches need the incarnation"
        bytes_max, commands_max = self._settings.entry_bytes_max, self._settings.entry_commands_max
        while self._waiting:
            taken: list[_Waiting] = []
            size = 0
            while self._waiting and len(taken) < commands_max:
                item = self._waiting[0]
                if taken and size + len(item.raw) > bytes_max:
                    break
                self._waiting.popleft()
                if item.waiter.done() or item.deadline <= now:
                    self._bytes -= len(item.raw)
                    _fail(
                        item.waiter, NoQuorumError("the deadline passed before the write was sent")
                    )
                    continue
                taken.append(item)
                size += len(item.raw)
            if taken:
                yield self._number(taken, size, now)

    def _number(self, taken: list[_Waiting], size: int, now: float) -> SentBatch:
        raws = tuple([msgspec.Raw(item.raw) for item in taken])
        frame = _BatchFrame(self._settings.replica_id, self.incarnation, self._next_seq, raws)
        latest = now + self._settings.unknown_outcome_after_s
        due_at = latest
        for item in taken:
            item.raw = b""
            if item.deadline < due_at:
                due_at = item.deadline
        raw = _encoder.encode(frame)
        batch = SentBatch(self._next_seq, len(taken), raw, taken, now, due_at)
        self._bytes += len(batch.raw) - size
        if not self._sent:
            self.progress_at = now
        self._sent[batch.seq] = batch
        self._sent_commands += batch.commands
        self._next_seq += 1
        return batch

    def sent(self) -> list[SentBatch]:
        """All batches not seen applied, in order."""
        return list(self._sent.values())

    def stuck(self, now: float) -> bool:
        """Whether something sent has made no progress for an election timeout."""
        late = self.progress_at + self._settings.election_timeout_s_min
        return bool(self._sent) and now >= late

    # ------------------------------------------------------------------ applied

    def registered(self, reply: Reply, now: float) -> None:
        """The registration with this origin's nonce was applied."""
        assert isinstance(reply.result, OriginRegistered)
        if not self.incarnation:
            self.incarnation = reply.result.incarnation
            self.progress_at = now

    def readers_in(self, batches: tuple[Batch, ...]) -> Readers:
        """Of the writes of this origin that are about to be applied."""
        found: dict[int, dict[int, Sequence[Reader]]] = {}
        for place, batch in enumerate(batches):
            if batch.replica_id != self._settings.replica_id:
                continue
            sent = self._sent.get(batch.seq)
            if sent is None or batch.incarnation != self.incarnation:
                continue
            behind = {
                number: item.write.readers
                for number, item in enumerate(sent.waiters)
                if item.write is not None and item.write.readers
            }
            if behind:
                found[place] = behind
        return found

    def on_applied(self, batch: AppliedBatch, now: float) -> list[tuple[Waiter, Reply]]:
        """What an applied batch of this replica answers, to be resolved after the slice. Some may
        be done by then."""
        if not self.incarnation or batch.incarnation != self.incarnation:
            return []
        if batch.status == GAP:
            self.resend_due = True
        if batch.status == VOID:
            self._start_over()
        if batch.status != APPLIED:
            return []
        self.progress_at = now
        sent = self._sent.pop(batch.seq)
        self.on_decided(now - sent.sent_at, sent.commands)
        self._bytes -= len(sent.raw)
        self._sent_commands -= sent.commands
        waiters = [item.waiter for item in sent.waiters]
        return list(zip(waiters, batch.replies, strict=True))

    def _start_over(self) -> None:
        """Another registration of this replica was applied after its own: a late copy of one by
        an earlier process. What was sent will not run any more, or has; nobody here can tell."""
        self.abandon("this replica had to register anew")
        self.incarnation, self._next_seq = 0, 1

    def abandon(self, why: str) -> None:
        """Answers what was sent and is not decided: its outcome is unknown here."""
        sent, self._sent = self._sent, OrderedDict()
        for batch in sent.values():
            self._bytes -= len(batch.raw)
            self._sent_commands -= batch.commands
            for item in batch.waiters:
                _fail(item.waiter, OutcomeUnknownError(why))


def _fail(waiter: Waiter, error: CoordError) -> None:
    if not waiter.done():
        waiter.set_exception(error)
