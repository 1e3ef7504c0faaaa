"""Sessions: opened, attached, given identities, and ended.

Who is alive is not known here; a leader decides that and proposes `ExpireSession`. What a
session is, and what may happen to it::

    (none)   --open-->            OPEN, attach_epoch 0, or 1 when opened by a stream
    OPEN     --attach-->          OPEN, attach_epoch + 1; writes with an older one are refused
    OPEN     --add identities-->  OPEN
    OPEN     --close, expire-->   (none), its ephemerals and saved results gone at the same zxid

A session that ended never comes back: its id is the zxid that opened it, so none is used twice.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordsvc.core.auth import is_session_id
from coordsvc.core.commands import (
    AddAuthOp,
    AttachSessionOp,
    AuthAdded,
    CloseSessionOp,
    OpenSession,
    Refusal,
    SessionAttached,
    SessionClosed,
    SessionOpened,
)
from coordsvc.core.operations import remove_znode
from coordsvc.core.records import (
    AUTH_IDS_MAX,
    CLIENT_NAME_CHARACTERS_MAX,
    PASSWORD_BYTES,
    TIMEOUT_MS_MAX,
    Session,
)
from coordsvc.core.refusals import refuse
from coordsvc.core.state import bump
from coordsvc.core.transaction import Transaction
from coordsvc.errors import ErrorCode
from coordsvc.paths import parent_of


def open_session(txn: Transaction, command: OpenSession) -> SessionOpened | Refusal:
    """A new session; its id is this command's zxid."""
    timeout_ms = command.timeout_ms
    if not 1 <= timeout_ms <= TIMEOUT_MS_MAX:
        message = f"timeout_ms is {timeout_ms}; it must be from 1 to {TIMEOUT_MS_MAX}"
        return refuse(ErrorCode.BAD_ARGUMENTS, "", message)
    if len(command.password) != PASSWORD_BYTES:
        message = f"a session's password has {PASSWORD_BYTES} bytes"
        return refuse(ErrorCode.BAD_ARGUMENTS, "", message)
    if len(command.client_name) > CLIENT_NAME_CHARACTERS_MAX:
        message = f"client_name has more than {CLIENT_NAME_CHARACTERS_MAX} characters"
        return refuse(ErrorCode.BAD_ARGUMENTS, "", message)
    session = Session(
        session_id=txn.zxid,
        password=command.password,
        timeout_ms=timeout_ms,
        client_name=command.client_name,
        attach_epoch=1 if command.attached else 0,
    )
    txn.state.put_session(session)
    txn.opened_sessions.append(session.session_id)
    return SessionOpened(session.session_id, timeout_ms, session.attach_epoch)


def attach_session(txn: Transaction, op: AttachSessionOp) -> SessionAttached | Refusal:
    session = txn.state.sessions.get(txn.session_id)
    if session is None:
        return needs_session("attaching")
    if not 0 <= op.timeout_ms <= TIMEOUT_MS_MAX:
        message = f"timeout_ms is {op.timeout_ms}; it must be from 1 to {TIMEOUT_MS_MAX}, or 0"
        return refuse(ErrorCode.BAD_ARGUMENTS, "", message)
    session = replace(
        session,
        attach_epoch=bump(session.attach_epoch),
        timeout_ms=op.timeout_ms or session.timeout_ms,
    )
    txn.state.put_session(session)
    txn.attached_sessions.append(session.session_id)
    return SessionAttached(session.attach_epoch, session.timeout_ms)


def add_auth(txn: Transaction, op: AddAuthOp) -> AuthAdded | Refusal:
    session = txn.state.sessions.get(txn.session_id)
    if session is None:
        return needs_session("adding an identity")
    for auth_id in op.ids:
        if not is_session_id(auth_id):
            message = "a session's identities are of scheme digest, ip, x509 or super"
            return refuse(ErrorCode.AUTH_FAILED, "", message)
    ids = tuple(dict.fromkeys(session.ids + op.ids))
    if len(ids) > AUTH_IDS_MAX:
        message = f"a session has at most {AUTH_IDS_MAX} identities"
        return refuse(ErrorCode.LIMIT_EXCEEDED, "", message)
    txn.state.put_session(replace(session, ids=ids))
    return AuthAdded(ids)


def close_session(txn: Transaction, op: CloseSessionOp) -> SessionClosed | Refusal:
    del op
    session = txn.state.sessions.get(txn.session_id)
    if session is None:
        return needs_session("closing")
    end_session(txn, session)
    return SessionClosed()


def end_session(txn: Transaction, session: Session) -> None:
    """Remove the session; all its ephemerals vanish at this zxid, in order of their paths."""
    state = txn.state
    start = txn.begin_group()
    for path in state.ephemerals_of(session.session_id):
        remove_znode(txn, state.znodes[path], state.znodes[parent_of(path)])
    txn.end_group(start)
    state.drop_session(session)
    txn.closed_sessions.append(session.session_id)


def needs_session(what: str) -> Refusal:
    return refuse(ErrorCode.BAD_ARGUMENTS, "", f"{what} needs a session")
