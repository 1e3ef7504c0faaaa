"""Numbers that make retries harmless, on two levels.

*Origin.* A replica numbers the batches it sends (seq 1, 2, 3 within an incarnation), so that it
may send everything unanswered again. A batch runs once, and only after the one before it.

*Session.* A client numbers its writes (1, 2, 3). The results are kept, from the lowest number it
still asks for (`done_below`), so that a retry is answered as the first time: refusals and zxid
included. The write itself runs once, and only after the number before it.

Answers about the numbers themselves run nothing, take no zxid and change nothing.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from coordsvc.core.commands import (
    APPLIED,
    DUPLICATE,
    GAP,
    VOID,
    Batch,
    Caller,
    Op,
    RegisterOrigin,
    Reply,
    Result,
)
from coordsvc.core.records import (
    NONCE_BYTES_MAX,
    OUTSTANDING_REQUESTS_MAX,
    REPLICA_ID_MAX,
    Origin,
    SavedResult,
    Session,
)
from coordsvc.core.refusals import refuse
from coordsvc.core.state import State
from coordsvc.errors import ErrorCode

_OP_HASH_BYTES = 8
"""It tells a client its own mistake, nobody is kept out by it."""

_encode = msgspec.msgpack.Encoder().encode


# --------------------------------------------------------------------------------- origins


def batch_status(state: State, batch: Batch) -> int:
    """Whether the batch's commands are to run: APPLIED, DUPLICATE, GAP or VOID."""
    if batch.seq == 0:
        return APPLIED if _is_registration(batch) else VOID
    origin = state.origins.get(batch.replica_id)
    if origin is None or origin.incarnation != batch.incarnation or batch.seq < 0:
        return VOID
    if batch.seq == origin.last_seq + 1:
        return APPLIED
    return DUPLICATE if batch.seq <= origin.last_seq else GAP


def _is_registration(batch: Batch) -> bool:
    if len(batch.commands) != 1 or not 1 <= batch.replica_id <= REPLICA_ID_MAX:
        return False
    command = batch.commands[0]
    return (
        type(command) is RegisterOrigin
        and command.replica_id == batch.replica_id
        and batch.incarnation == 0
        and 1 <= len(command.nonce) <= NONCE_BYTES_MAX
    )


def expected_seq(state: State, replica_id: int) -> int:
    """The next seq of the replica's present incarnation; 0 when it never registered."""
    origin = state.origins.get(replica_id)
    return origin.last_seq + 1 if origin is not None else 0


def note_batch(state: State, batch: Batch) -> None:
    """A batch that is no registration ran."""
    origin = state.origins[batch.replica_id]
    assert batch.seq == origin.last_seq + 1
    state.put_origin(Origin(origin.replica_id, origin.incarnation, origin.nonce, batch.seq))


# -------------------------------------------------------------------------------- sessions


def hash_operation(op: Op, caller: Caller) -> bytes:
    """What must be the same when a number is used again: the operation and its guard."""
    guard = (caller.guard_path, caller.guard_czxid) if caller.guard_path else None
    return blake2b(_encode((op, guard)), digest_size=_OP_HASH_BYTES).digest()


def answer_by_number(
    state: State, session: Session, caller: Caller, op_hash: bytes
) -> Reply | None:
    """The answer to a write that is not to run, or None when it is the next one."""
    number, done_below = caller.request_number, caller.done_below
    if number < 0 or not 0 <= done_below <= number:
        message = f"request_number {number} with done_below {done_below}: numbers count from 1"
        return _answer(state, ErrorCode.BAD_ARGUMENTS, message)
    last = session.last_request_number
    if number <= last:
        return _answer_done(state, session, number, op_hash)
    if number != last + 1:
        message = f"request_number {number} before {last + 1}: send that one first"
        return _answer(state, ErrorCode.REQUEST_OUT_OF_ORDER, message)
    if number >= max(session.done_below, done_below) + OUTSTANDING_REQUESTS_MAX:
        message = f"{OUTSTANDING_REQUESTS_MAX} results are kept already: raise done_below"
        return _answer(state, ErrorCode.LIMIT_EXCEEDED, message)
    return None


def _answer_done(state: State, session: Session, number: int, op_hash: bytes) -> Reply:
    if number < session.done_below:
        message = f"the result of request_number {number} is forgotten: it was done once"
        return _answer(state, ErrorCode.RESULT_FORGOTTEN, message)
    saved = state.results[(session.session_id, number)]
    if saved.op_hash != op_hash:
        message = f"request_number {number} was used for another operation"
        return _answer(state, ErrorCode.BAD_ARGUMENTS, message)
    return Reply(saved.zxid, saved.result)


def _answer(state: State, code: ErrorCode, message: str) -> Reply:
    return Reply(state.zxid, refuse(code, "", message))


def remember(
    state: State, session: Session, caller: Caller, op_hash: bytes, zxid: int, result: Result
) -> None:
    """Keep the result of the write that just ran, and forget those the client is done with."""
    done_below = session.done_below
    if caller.done_below > done_below:
        done_below = caller.done_below
        state.drop_results(session, done_below)
    number = caller.request_number
    state.put_session(
        Session(
            session.session_id,
            session.password,
            session.timeout_ms,
            session.client_name,
            session.attach_epoch,
            session.ids,
            number,
            done_below,
        )
    )
    state.put_result(SavedResult(session.session_id, number, zxid, op_hash, result))
