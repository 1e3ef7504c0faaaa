"""The operations on the tree: create, delete, set data, set ACL, check, and multi.

Each one checks everything first, in ZooKeeper's order of refusals, and only then changes the
state; so a refused operation has left no trace. The order of the checks is part of the
semantics: it decides what somebody without a right learns about the tree.
Ref: ZooKeeper PrepRequestProcessor.pRequest2Txn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from coordsvc.core.auth import check, validate_acl
from coordsvc.core.commands import (
    ADMIN,
    ANY_VERSION,
    CREATE,
    CREATED,
    DATA_CHANGED,
    DELETE,
    DELETED,
    OPEN_ACL,
    READ,
    WRITE,
    AclSet,
    Checked,
    CheckOp,
    Created,
    CreateOp,
    DataSet,
    Deleted,
    DeleteOp,
    MultiDone,
    MultiOp,
    Refusal,
    SetAclOp,
    SetDataOp,
    Stat,
    SubResult,
)
from coordsvc.core.records import (
    DATA_BYTES_MAX,
    KIND_EPHEMERAL,
    KIND_TTL,
    MODES,
    MULTI_OPS_MAX,
    TTL_MS_MAX,
    Znode,
)
from coordsvc.core.refusals import refuse
from coordsvc.core.state import SPECIAL_PATHS, bump, with_child
from coordsvc.core.transaction import Transaction
from coordsvc.errors import ErrorCode
from coordsvc.paths import path_fault, shown

_DELETED: Final = Deleted()
_CHECKED: Final = Checked()


def create(txn: Transaction, op: CreateOp) -> Created | Refusal:
    refusal = create_fault(op, txn.session_id)
    if refusal is not None:
        return refusal
    state = txn.state
    path = op.path
    slash = path.rfind("/")
    if slash < 0 or "\0" in path:
        return _bad_path(path)
    acl = validate_acl(op.acl, txn.ids, path)
    if isinstance(acl, Refusal):
        return acl
    parent = state.znodes.get(path[:slash] or "/")
    if parent is None:
        return refuse(ErrorCode.NO_NODE, path, "its parent does not exist")
    if parent.acl is not OPEN_ACL and not check(parent.acl, CREATE, txn.ids):
        return refuse(ErrorCode.NO_AUTH, path, "CREATE on its parent is needed")
    kind, is_sequential = MODES[op.mode]
    if is_sequential:
        path = f"{path}{parent.creates:010d}"
    if path_fault(path) is not None:
        return _bad_path(path)
    if path in state.znodes:
        return refuse(ErrorCode.NODE_EXISTS, path, "it exists already")
    if parent.kind == KIND_EPHEMERAL:
        message = f"its parent {shown(parent.path)} is ephemeral and can have no children"
        return refuse(ErrorCode.NO_CHILDREN_FOR_EPHEMERALS, path, message)

    zxid, time_ms, data = txn.zxid, txn.time_ms, op.data
    owner = txn.session_id if kind == KIND_EPHEMERAL else 0
    size = len(data) if data is not None else 0
    stat = Stat(zxid, zxid, zxid, time_ms, time_ms, 0, 0, 0, owner, size, 0)
    acl = OPEN_ACL if acl is OPEN_ACL else state.interned(acl)
    znode = Znode(state.new_node_id(), path, data, acl, stat, 0, kind, op.ttl_ms, state.clock_ms)
    state.insert(znode, parent, with_child(parent, zxid, 1, creates_step=1))
    txn.note_change(CREATED, path, acl, parent.acl, data, stat)
    return Created(path, stat)


def create_fault(op: CreateOp, session_id: int) -> Refusal | None:
    """What is wrong with a create whatever the tree looks like. ZooKeeper tells mode and TTL
    before it looks at the session."""
    traits = MODES.get(op.mode)
    if traits is None:
        return refuse(ErrorCode.BAD_ARGUMENTS, op.path, f"unknown create mode {op.mode}")
    kind = traits[0]
    if kind == KIND_TTL:
        if not 1 <= op.ttl_ms <= TTL_MS_MAX:
            message = f"ttl_ms is {op.ttl_ms}; it must be from 1 to {TTL_MS_MAX}"
            return refuse(ErrorCode.BAD_ARGUMENTS, op.path, message)
    elif op.ttl_ms:
        message = "ttl_ms is for the two TTL modes only; leave it 0"
        return refuse(ErrorCode.BAD_ARGUMENTS, op.path, message)
    if kind == KIND_EPHEMERAL and not session_id:
        return refuse(ErrorCode.BAD_ARGUMENTS, op.path, "an ephemeral znode needs a session")
    return _data_fault(op.path, op.data)


def delete(txn: Transaction, op: DeleteOp) -> Deleted | Refusal:
    state = txn.state
    path = op.path
    slash = path.rfind("/")
    if slash < 0 or "\0" in path:
        return _bad_path(path)
    if path in SPECIAL_PATHS:
        return refuse(ErrorCode.BAD_ARGUMENTS, path, "it is part of every tree")
    if op.version < ANY_VERSION:
        return _bad_version_argument(path, op.version)
    parent = state.znodes.get(path[:slash] or "/")
    if parent is None:
        return refuse(ErrorCode.NO_NODE, path, "neither it nor its parent exists")
    if parent.acl is not OPEN_ACL and not check(parent.acl, DELETE, txn.ids):
        return refuse(ErrorCode.NO_AUTH, path, "DELETE on its parent is needed")
    znode = state.znodes.get(path)
    if znode is None:
        return refuse(ErrorCode.NO_NODE, path, "it does not exist")
    stat = znode.stat
    if op.version != ANY_VERSION and op.version != stat.version:
        return _bad_version(path, "version", stat.version, op.version)
    if stat.num_children:
        return refuse(ErrorCode.NOT_EMPTY, path, f"it has {stat.num_children} children")
    remove_znode(txn, znode, parent)
    return _DELETED


def remove_znode(txn: Transaction, znode: Znode, parent: Znode) -> None:
    """Take a childless znode out of the tree, whoever wants it gone."""
    assert not znode.stat.num_children
    txn.state.remove(znode, parent, with_child(parent, txn.zxid, -1, creates_step=0))
    txn.note_change(DELETED, znode.path, znode.acl, parent.acl, None, None)


def set_data(txn: Transaction, op: SetDataOp) -> DataSet | Refusal:
    state = txn.state
    data, expected = op.data, op.version
    znode = state.znodes.get(op.path)
    size = len(data) if data is not None else 0
    if znode is None or expected < ANY_VERSION or size > DATA_BYTES_MAX:
        path = op.path
        return _argument_fault(path, expected) or _data_fault(path, data) or _no_node(path)
    # Not the operation's: one text for all that tell of this znode.
    path, acl = znode.path, znode.acl
    if acl is not OPEN_ACL and not check(acl, WRITE, txn.ids):
        return refuse(ErrorCode.NO_AUTH, path, "WRITE is needed")
    old = znode.stat
    if expected != ANY_VERSION and expected != old.version:
        return _bad_version(path, "version", old.version, expected)

    zxid = txn.zxid
    stat = Stat(
        old.czxid,
        zxid,
        old.pzxid,
        old.ctime_ms,
        txn.time_ms,
        bump(old.version),
        old.cversion,
        old.aversion,
        old.ephemeral_owner,
        size,
        old.num_children,
    )
    state.replace(
        znode,
        Znode(
            znode.node_id,
            path,
            data,
            acl,
            stat,
            znode.creates,
            znode.kind,
            znode.ttl_ms,
            state.clock_ms,
        ),
    )
    txn.note_change(DATA_CHANGED, path, acl, OPEN_ACL, data, stat)
    return DataSet(stat)


def set_acl(txn: Transaction, op: SetAclOp) -> AclSet | Refusal:
    state = txn.state
    path, expected = op.path, op.version
    znode = state.znodes.get(path)
    if znode is None or expected < ANY_VERSION:
        refusal = _argument_fault(path, expected)
        if refusal is not None:
            return refusal
    acl = validate_acl(op.acl, txn.ids, path)
    if isinstance(acl, Refusal):
        return acl
    if znode is None:
        return _no_node(path)
    if znode.acl is not OPEN_ACL and not check(znode.acl, ADMIN, txn.ids):
        return refuse(ErrorCode.NO_AUTH, path, "ADMIN is needed")
    old = znode.stat
    if expected != ANY_VERSION and expected != old.aversion:
        return _bad_version(path, "aversion", old.aversion, expected)
    stat = Stat(
        old.czxid,
        old.mzxid,
        old.pzxid,
        old.ctime_ms,
        old.mtime_ms,
        old.version,
        old.cversion,
        bump(old.aversion),
        old.ephemeral_owner,
        old.data_length,
        old.num_children,
    )
    state.replace(
        znode,
        Znode(
            znode.node_id,
            path,
            znode.data,
            state.interned(acl),
            stat,
            znode.creates,
            znode.kind,
            znode.ttl_ms,
            znode.mtime_clock_ms,
        ),
    )
    return AclSet(stat)


def check_alone(txn: Transaction, op: CheckOp) -> Refusal:
    """A check outside a multi means nothing: it would be over before its answer is read."""
    del txn
    return refuse(ErrorCode.UNIMPLEMENTED, op.path, "a check is an operation of a multi only")


def check_version(txn: Transaction, op: CheckOp) -> Checked | Refusal:
    path, expected = op.path, op.version
    znode = txn.state.znodes.get(path)
    if znode is None or expected < ANY_VERSION:
        return _argument_fault(path, expected) or _no_node(path)
    if znode.acl is not OPEN_ACL and not check(znode.acl, READ, txn.ids):
        return refuse(ErrorCode.NO_AUTH, path, "READ is needed")
    if expected != ANY_VERSION and expected != znode.stat.version:
        return _bad_version(path, "version", znode.stat.version, expected)
    return _CHECKED


SubOperation = Callable[[Transaction, Any], SubResult | Refusal]

_SUB_OPERATIONS: Final[dict[type, SubOperation]] = {
    CreateOp: create,
    DeleteOp: delete,
    SetDataOp: set_data,
    CheckOp: check_version,
}


def multi(txn: Transaction, op: MultiOp) -> MultiDone | Refusal:
    """All operations at one zxid and one time, each on top of those before it, or none.

    The first refusal is the answer, with its index; what ran before it is taken back, parents'
    counters included, so that no sequence number is burnt.
    """
    if len(op.ops) > MULTI_OPS_MAX:
        message = f"a multi has at most {MULTI_OPS_MAX} operations, not {len(op.ops)}"
        return refuse(ErrorCode.LIMIT_EXCEEDED, "", message)
    state = txn.state
    assert state.undo is None
    state.undo = []
    start = txn.begin_group()
    results: list[SubResult] = []
    for index, sub_op in enumerate(op.ops):
        result = _SUB_OPERATIONS[type(sub_op)](txn, sub_op)
        if isinstance(result, Refusal):
            state.roll_back()
            txn.drop_group(start)
            return Refusal(result.code, result.path, result.message, index)
        results.append(result)
    state.undo = None
    txn.end_group(start)
    return MultiDone(tuple(results))


# ------------------------------------------------------------------------------- refusals


def _bad_path(path: str) -> Refusal:
    return refuse(ErrorCode.BAD_ARGUMENTS, path, f"bad path: {path_fault(path)}")


def _bad_version_argument(path: str, version: int) -> Refusal:
    message = f"expected version {version}: it is 0 or more, or -1 for any"
    return refuse(ErrorCode.BAD_ARGUMENTS, path, message)


def _argument_fault(path: str, version: int) -> Refusal | None:
    if path_fault(path) is not None:
        return _bad_path(path)
    return _bad_version_argument(path, version) if version < ANY_VERSION else None


def _data_fault(path: str, data: bytes | None) -> Refusal | None:
    if data is None or len(data) <= DATA_BYTES_MAX:
        return None
    message = f"data has {len(data)} bytes, and {DATA_BYTES_MAX} is the most"
    return refuse(ErrorCode.LIMIT_EXCEEDED, path, message)


def _no_node(path: str) -> Refusal:
    return refuse(ErrorCode.NO_NODE, path, "it does not exist")


def _bad_version(path: str, name: str, actual: int, expected: int) -> Refusal:
    message = f"its {name} is {actual}, not {expected}"
    return refuse(ErrorCode.BAD_VERSION, path, message)
