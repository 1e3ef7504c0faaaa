"""The machine: applies entries of the log to the state, one after the other.

One way in, `apply_entry`; what it did comes back as data. It never raises for anything that a
decodable entry can hold: a refusal is a result, replicated like any other. A failed assertion is
a bug of ours, and whoever drives the machine must end the process then: skipping an entry would
make this replica differ from the others.

Numbers: each command that runs takes the next zxid, also when it is refused. Answers about
numbering (`numbering.py`) and void commands take none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from coordsvc.core import leader_commands, operations, sessions
from coordsvc.core.commands import (
    APPLIED,
    AddAuthOp,
    AppliedBatch,
    AppliedEntry,
    AttachSessionOp,
    Batch,
    Caller,
    CheckOp,
    ClientCommand,
    CloseSessionOp,
    CreateOp,
    DeleteOp,
    Entry,
    MultiOp,
    OpenSession,
    OriginRegistered,
    Refusal,
    RegisterOrigin,
    Reply,
    Result,
    SetAclOp,
    SetDataOp,
    Write,
)
from coordsvc.core.digest import Digest
from coordsvc.core.numbering import (
    answer_by_number,
    batch_status,
    expected_seq,
    hash_operation,
    note_batch,
    remember,
)
from coordsvc.core.records import ChangedRecords, Origin, Session
from coordsvc.core.refusals import refuse
from coordsvc.core.state import State
from coordsvc.core.transaction import Transaction
from coordsvc.errors import ErrorCode, InternalError

CHANGED_RECORDS_MAX: Final = 2_048
"""Changed records that may wait to be folded into the digest after an entry: enough that a record
changed many times over is hashed once, and a result that its client is done with never; few enough
that folding takes no more than some three milliseconds."""

DIGEST_POINT_ZXIDS: Final = 4096
"""A digest point is kept about so often, and costs one folding."""

_DIGEST_POINTS_KEPT: Final = 64


class Reader(Protocol):
    """Who wants to look at the state as a command has left it, before the next one runs. It changes
    nothing, is quick, and raises nothing."""

    def read(self) -> None: ...


Readers: TypeAlias = Mapping[int, Mapping[int, Sequence[Reader]]]
"""Of an entry: by the place of the batch, and in it by that of the command."""

_NO_READERS: Final[Readers] = {}

_Operation = Callable[[Transaction, Any], Result]

_OPERATIONS: Final[dict[type, _Operation]] = {
    CreateOp: operations.create,
    DeleteOp: operations.delete,
    SetDataOp: operations.set_data,
    CheckOp: operations.check_alone,
    SetAclOp: operations.set_acl,
    MultiOp: operations.multi,
    AddAuthOp: sessions.add_auth,
    CloseSessionOp: sessions.close_session,
    AttachSessionOp: sessions.attach_session,
}

_entry_decoder: Final = msgspec.msgpack.Decoder(Entry)


class UndecodableEntryError(InternalError):
    """An entry of the log that is garbage, or of a kind or with a field that this version does
    not know. Fatal: a replica that skipped it would differ from the others."""


def decode_entry(payload: bytes) -> Entry:
    """The entry whose bytes these are. Raises UndecodableEntryError, and nothing else."""
    try:
        return _entry_decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableEntryError(f"undecodable entry: {error}") from error


class ChangeFeed:
    """What one observer has not yet taken of the records that changed. Made by
    `Machine.observe_changes`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._waiting = ChangedRecords()

    def merge(self, changed: ChangedRecords) -> None:
        self._waiting.merge(changed)

    def take(self) -> ChangedRecords:
        """Everything that changed since the last time, up to the last entry applied. The
        singletons are not in it: `State.singletons()`."""
        self._machine.digest()
        taken, self._waiting = self._waiting, ChangedRecords()
        return taken


class Machine:
    """The replicated state machine. Not thread safe; it lives on one loop."""

    state: State

    def __init__(self, state: State | None = None) -> None:
        self.state = state if state is not None else State()
        self._txn = Transaction(self.state)
        self._digest = Digest()
        self._feeds: list[ChangeFeed] = []
        self._digest_points: deque[tuple[int, int]] = deque(maxlen=_DIGEST_POINTS_KEPT)
        self._is_zxid_fresh = False
        self._fold()

    # ---------------------------------------------------------------------- entries

    def apply_entry(self, entry: Entry, term: int, readers: Readers = _NO_READERS) -> AppliedEntry:
        """Apply one entry of the log, which was proposed in `term`. Batches come first, so that
        a write in the same turn saves what the leader wanted to expire or collect. `readers` are
        called behind their commands, if these run."""
        state, txn = self.state, self._txn
        mismatch = self._compare_digest(entry) if entry.digest_zxid else None
        zxid_before = state.zxid
        state.advance_time(entry.time_ms, entry.clock_ms)
        txn.begin_entry()
        if readers:
            batches = tuple(
                [
                    self._apply_batch(batch, readers.get(place))
                    for place, batch in enumerate(entry.batches)
                ]
            )
        else:
            batches = tuple([self._apply_batch(batch) for batch in entry.batches])
        for command in entry.leader_commands:
            if command.term == term:
                leader_commands.apply(txn, command)
        self._end_entry(zxid_before)
        return AppliedEntry(
            batches,
            tuple(txn.changes),
            tuple(txn.opened_sessions),
            tuple(txn.closed_sessions),
            mismatch,
            tuple(txn.attached_sessions),
            tuple(txn.heard_sessions),
        )

    def _apply_batch(
        self, batch: Batch, readers: Mapping[int, Sequence[Reader]] | None = None
    ) -> AppliedBatch:
        state = self.state
        status = batch_status(state, batch)
        replies: tuple[Reply, ...] = ()
        if status == APPLIED:
            if batch.seq == 0:
                replies = (self._register(batch),)
            else:
                run = _COMMANDS
                if readers:
                    replies = self._run_amid_readers(batch.commands, readers)
                else:
                    replies = tuple(
                        [run[type(command)](self, command) for command in batch.commands]
                    )
                note_batch(state, batch)
        return AppliedBatch(
            batch.replica_id,
            batch.incarnation,
            batch.seq,
            status,
            expected_seq(state, batch.replica_id),
            replies,
        )

    def _run_amid_readers(
        self, commands: tuple[ClientCommand, ...], readers: Mapping[int, Sequence[Reader]]
    ) -> tuple[Reply, ...]:
        replies: list[Reply] = []
        for place, command in enumerate(commands):
            replies.append(_COMMANDS[type(command)](self, command))
            for reader in readers.get(place, ()):
                reader.read()
        return tuple(replies)

    def _register(self, batch: Batch) -> Reply:
        command = batch.commands[0]
        assert type(command) is RegisterOrigin
        state = self.state
        origin = state.origins.get(batch.replica_id)
        if origin is None or origin.nonce != command.nonce:
            state.zxid += 1
            origin = Origin(batch.replica_id, state.zxid, command.nonce)
            state.put_origin(origin)
        return Reply(origin.incarnation, OriginRegistered(origin.incarnation))

    # --------------------------------------------------------------------- commands

    def _write(self, write: Write) -> Reply:
        caller, op, txn, state = write.caller, write.op, self._txn, self.state
        txn.session_id = session_id = caller.session_id
        if session_id or caller.request_number:
            session = state.sessions.get(session_id)
            if session is None:
                return self._refuse_session(ErrorCode.SESSION_EXPIRED, op, caller)
            if caller.attach_epoch and caller.attach_epoch != session.attach_epoch:
                return self._refuse_session(ErrorCode.SESSION_MOVED, op, caller)
            txn.heard_sessions[session_id] = None
            txn.ids = session.ids + caller.ids
            if caller.request_number:
                return self._write_numbered(caller, op, session)
        else:
            txn.ids = caller.ids
        if caller.guard_path:
            return self._run(caller, op)
        # As `_run` does; most writes come here.
        zxid = txn.zxid = state.zxid = state.zxid + 1
        return Reply(zxid, _OPERATIONS[type(op)](txn, op))

    def _write_numbered(self, caller: Caller, op: Any, session: Session) -> Reply:
        state = self.state
        op_hash = hash_operation(op, caller)
        answer = answer_by_number(state, session, caller, op_hash)
        if answer is not None:
            return answer
        reply = self._run(caller, op)
        after = state.sessions.get(session.session_id)
        if after is not None:
            remember(state, after, caller, op_hash, reply.zxid, reply.result)
        return reply

    def _run(self, caller: Caller, op: Any) -> Reply:
        """Take a zxid and try the operation."""
        state, txn = self.state, self._txn
        zxid = txn.zxid = state.zxid = state.zxid + 1
        if caller.guard_path:
            guarded = state.znodes.get(caller.guard_path)
            if guarded is None or guarded.stat.czxid != caller.guard_czxid:
                message = f"it is not the znode created at zxid {caller.guard_czxid} any more"
                return Reply(zxid, refuse(ErrorCode.GUARD_FAILED, caller.guard_path, message))
        return Reply(zxid, _OPERATIONS[type(op)](txn, op))

    def _refuse_session(self, code: ErrorCode, op: Any, caller: Caller) -> Reply:
        """Refuse for its session a write that never ran: it takes a zxid, but not its number, for
        the same write may run on a newer attachment."""
        state = self.state
        state.zxid += 1
        refusal: Refusal | None = None
        if type(op) is CreateOp:
            refusal = operations.create_fault(op, caller.session_id)
        if refusal is None:
            message = (
                f"session {caller.session_id:#x} is closed, expired or unknown"
                if code == ErrorCode.SESSION_EXPIRED
                else f"session {caller.session_id:#x} is attached elsewhere since"
            )
            refusal = refuse(code, "", message)
        return Reply(state.zxid, refusal)

    def _open_session(self, command: OpenSession) -> Reply:
        state, txn = self.state, self._txn
        txn.zxid = state.zxid = state.zxid + 1
        return Reply(txn.zxid, sessions.open_session(txn, command))

    def _register_amid_others(self, command: RegisterOrigin) -> Reply:
        del command
        message = "an origin registers in a batch of its own, with seq 0"
        return Reply(self.state.zxid, refuse(ErrorCode.BAD_ARGUMENTS, "", message))

    # ----------------------------------------------------------------------- digest

    def digest(self) -> int:
        """The digest of the state after the last entry applied."""
        self._fold()
        return self._digest.value(self.state.singletons())

    def digest_point(self) -> tuple[int, int]:
        """(zxid, digest) for a leader to put into an entry: the last of the points at which
        every replica keeps its own. (0, 0): none yet. Unlike a digest of the present state, it
        can be compared however many entries are under way."""
        return self._digest_points[-1] if self._digest_points else (0, 0)

    def observe_changes(self, *, everything: bool = False) -> ChangeFeed:
        """A feed of the records that change from now on. `everything`: all there are now count as
        changed, for an observer that has none of them."""
        self._fold()
        feed = ChangeFeed(self)
        if everything:
            feed.merge(self.state.all_records())
        self._feeds.append(feed)
        return feed

    def _fold(self) -> None:
        if not self.state.changed:
            return
        changed = self.state.take_changed()
        self._digest.fold(changed)
        for feed in self._feeds:
            feed.merge(changed)

    def _end_entry(self, zxid_before: int) -> None:
        state = self.state
        # An entry that took no zxid may still have moved a clock or an origin's seq. Then a leader
        # may speak of the state before it or after it, and the zxid does not tell which.
        self._is_zxid_fresh = state.zxid != zxid_before
        if state.zxid // DIGEST_POINT_ZXIDS != zxid_before // DIGEST_POINT_ZXIDS:
            self._digest_points.append((state.zxid, self.digest()))
        elif len(state.changed) > CHANGED_RECORDS_MAX:
            self._fold()

    def _compare_digest(self, entry: Entry) -> tuple[int, int, int] | None:
        """Compare with the leader's digest where both speak of the same state: at a point, or
        now, if the entry just before took that zxid."""
        zxid = entry.digest_zxid
        own = next((digest for at, digest in self._digest_points if at == zxid), None)
        if own is None:
            if zxid != self.state.zxid or not self._is_zxid_fresh:
                return None
            own = self.digest()
        return None if own == entry.digest else (zxid, entry.digest, own)


_Command = Callable[[Machine, Any], Reply]

_COMMANDS: Final[dict[type[ClientCommand], _Command]] = {
    Write: Machine._write,
    OpenSession: Machine._open_session,
    RegisterOrigin: Machine._register_amid_others,
}
