"""A line per command of a log entry, for a person who looks into a log.

Shows what was asked, of which znode and by which session; never what is secret (session passwords,
registration nonces, digest hashes) nor the data itself, only its length.
"""

from __future__ import annotations

import msgspec

from coordsvc.core.commands import (
    ENTRY_PREFIX,
    NO_OP_PAYLOAD,
    AddAuthOp,
    Caller,
    CheckOp,
    ClientCommand,
    CollectContainer,
    CollectTtl,
    CreateOp,
    DeleteOp,
    Entry,
    ExpireSession,
    LeaderCommand,
    MultiOp,
    Op,
    OpenSession,
    RegisterOrigin,
    SetAclOp,
    SetDataOp,
    Write,
)

_decoder = msgspec.msgpack.Decoder(Entry)


def list_commands(payload: bytes) -> tuple[str, ...]:
    """The entry's commands in order; one line that says so when it holds none that are known."""
    if payload == NO_OP_PAYLOAD:
        return ("no-op",)
    try:
        if not payload.startswith(ENTRY_PREFIX):
            raise msgspec.DecodeError("no entry")
        entry = _decoder.decode(memoryview(payload)[len(ENTRY_PREFIX) :])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return (f"not readable by this version ({len(payload)} bytes)",)
    lines = [
        f"replica {batch.replica_id} seq {batch.seq}: {_client_command(command)}"
        for batch in entry.batches
        for command in batch.commands
    ]
    lines += [f"leader: {_leader_command(command)}" for command in entry.leader_commands]
    return tuple(lines) or ("empty",)


def _client_command(command: ClientCommand) -> str:
    if isinstance(command, Write):
        return _op(command.op) + _caller(command.caller)
    if isinstance(command, OpenSession):
        return f"open session timeout_ms={command.timeout_ms} client_name={command.client_name!r}"
    assert isinstance(command, RegisterOrigin)
    return f"register replica {command.replica_id}"


def _caller(caller: Caller) -> str:
    if not caller.session_id:
        return ""
    return f" session_id={caller.session_id:#x} request_number={caller.request_number}"


def _op(op: Op) -> str:
    if isinstance(op, MultiOp):
        return "multi [" + "; ".join(_op(sub_op) for sub_op in op.ops) + "]"
    name = _name(op).removesuffix(" op")
    if isinstance(op, CreateOp):
        return f"{name} {op.path} mode={op.mode} data={_size(op.data)}"
    if isinstance(op, SetDataOp):
        return f"{name} {op.path} version={op.version} data={_size(op.data)}"
    if isinstance(op, DeleteOp | CheckOp | SetAclOp):
        return f"{name} {op.path} version={op.version}"
    if isinstance(op, AddAuthOp):
        return f"{name} schemes=" + ",".join(auth_id.scheme for auth_id in op.ids)
    return name


def _leader_command(command: LeaderCommand) -> str:
    name = f"{_name(command)} term={command.term}"
    if isinstance(command, ExpireSession):
        return f"{name} session_id={command.session_id:#x}"
    if isinstance(command, CollectContainer | CollectTtl):
        return f"{name} {command.path}"
    return f"{name} cluster_id={command.cluster_id.hex()}"


def _name(command: object) -> str:
    """`SetDataOp` as "set data op"."""
    words = type(command).__name__
    return "".join(f" {c.lower()}" if c.isupper() else c for c in words).strip()


def _size(data: bytes | None) -> str:
    return "null" if data is None else f"{len(data)}B"
