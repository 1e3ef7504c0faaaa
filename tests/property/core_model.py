"""A naive model of the state machine, written from the semantics and not from the code.

It keeps no index and no counter that can be counted: children are found by looking at every
path, a multi works on a deep copy, creates and deletes are listed one by one. Slow and plain.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from coordsvc.core.commands import (
    Acl,
    AclSet,
    AddAuthOp,
    AttachSessionOp,
    AuthAdded,
    AuthId,
    Caller,
    Checked,
    CheckOp,
    CloseSessionOp,
    Created,
    CreateOp,
    DataSet,
    Deleted,
    DeleteOp,
    MultiDone,
    MultiOp,
    Op,
    SessionAttached,
    SessionClosed,
    SetAclOp,
    SetDataOp,
    Stat,
)
from coordsvc.errors import ErrorCode as Code

WORLD = (Acl(31, "world", "anyone"),)
SPECIAL = ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config")


class RefusedError(Exception):
    def __init__(self, code: Code, index: int = -1) -> None:
        self.outcome = (int(code), index)


@dataclass
class Node:
    data: bytes | None
    acl: tuple[Acl, ...]
    czxid: int = 0
    mzxid: int = 0
    pzxid: int = 0
    ctime: int = 0
    mtime: int = 0
    version: int = 0
    aversion: int = 0
    owner: int = 0
    mode: int = 0
    ttl: int = 0
    touched_clock: int = 0
    created: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


@dataclass
class Attendee:
    """A session."""

    timeout: int
    epoch: int
    ids: list[AuthId] = field(default_factory=list)
    answers: dict[int, tuple[int, object, object]] = field(default_factory=dict)
    last: int = 0
    floor: int = 1


def parent(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def is_legal(path: str) -> bool:
    if path == "/":
        return True
    if not path.startswith("/") or len(path.encode()) > 4096:
        return False
    if any(part in ("", ".", "..") for part in path[1:].split("/")):
        return False
    return not any(
        ord(c) <= 0x1F or 0x7F <= ord(c) <= 0x9F or 0xFFF0 <= ord(c) <= 0xFFFF for c in path
    )


class Model:
    def __init__(self) -> None:
        self.zxid = 0
        self.time = 0
        self.clock = 0
        self.nodes = {path: Node(b"", WORLD) for path in SPECIAL}
        self.nodes["/zookeeper/config"].acl = (Acl(1, "world", "anyone"),)
        self.sessions: dict[int, Attendee] = {}

    # ------------------------------------------------------------------- looking

    def children(self, path: str) -> list[str]:
        return sorted(other for other in self.nodes if other != "/" and parent(other) == path)

    def stat(self, path: str) -> Stat:
        node = self.nodes[path]
        return Stat(
            node.czxid,
            node.mzxid,
            node.pzxid,
            node.ctime,
            node.mtime,
            node.version,
            len(node.created) + len(node.deleted),
            node.aversion,
            node.owner,
            len(node.data or b""),
            len(self.children(path)),
        )

    def ephemerals(self, session_id: int) -> list[str]:
        return sorted(path for path, node in self.nodes.items() if node.owner == session_id)

    # ------------------------------------------------------------------ commands

    def open(self, timeout: int, attached: bool) -> int:
        self.zxid += 1
        self.sessions[self.zxid] = Attendee(timeout, int(attached))
        return self.zxid

    def end(self, session_id: int) -> None:
        for path in self.ephemerals(session_id):
            self._remove(path)
        del self.sessions[session_id]

    def expire(self, session_id: int, epoch: int) -> None:
        if session_id in self.sessions and self.sessions[session_id].epoch == epoch:
            self.zxid += 1
            self.end(session_id)

    def collect_container(self, path: str, cversion: int) -> None:
        node = self.nodes.get(path)
        if node is None or node.mode != 4 or self.children(path) or not cversion:
            return
        if self.stat(path).cversion == cversion:
            self.zxid += 1
            self._remove(path)

    def collect_ttl(self, path: str, mzxid: int) -> None:
        node = self.nodes.get(path)
        if node is None or not node.ttl or self.children(path) or node.mzxid != mzxid:
            return
        if self.clock > node.touched_clock + node.ttl:
            self.zxid += 1
            self._remove(path)

    def write(self, caller: Caller, op: Op) -> tuple[int, object]:
        """(zxid, result), a refusal being (code, operation index)."""
        session = self.sessions.get(caller.session_id)
        if caller.session_id and session is None:
            self.zxid += 1
            return self.zxid, self._refusal_without_session(op, Code.SESSION_EXPIRED)
        if session is None:
            return self._run(caller, op, list(caller.ids))
        if caller.attach_epoch and caller.attach_epoch != session.epoch:
            self.zxid += 1
            return self.zxid, self._refusal_without_session(op, Code.SESSION_MOVED)
        if not caller.request_number:
            return self._run(caller, op, session.ids + list(caller.ids))
        return self._numbered(session, caller, op)

    def _refusal_without_session(self, op: Op, code: Code) -> tuple[int, int]:
        try:
            if isinstance(op, CreateOp):
                self._check_mode(op, 1)
        except RefusedError as refused:
            return refused.outcome
        return int(code), -1

    def _numbered(self, session: Attendee, caller: Caller, op: Op) -> tuple[int, object]:
        number, request = caller.request_number, (op, caller.guard_path, caller.guard_czxid)
        if number < 0 or caller.done_below > number or caller.done_below < 0:
            return self.zxid, (int(Code.BAD_ARGUMENTS), -1)
        if number <= session.last:
            if number < session.floor:
                return self.zxid, (int(Code.RESULT_FORGOTTEN), -1)
            zxid, result, first_request = session.answers[number]
            if first_request != request:
                return self.zxid, (int(Code.BAD_ARGUMENTS), -1)
            return zxid, result
        if number > session.last + 1:
            return self.zxid, (int(Code.REQUEST_OUT_OF_ORDER), -1)
        answer = self._run(caller, op, session.ids + list(caller.ids))
        session.last = number
        session.floor = max(session.floor, caller.done_below)
        session.answers[number] = (*answer, request)
        return answer

    def _run(self, caller: Caller, op: Op, ids: list[AuthId]) -> tuple[int, object]:
        self.zxid += 1
        guarded = self.nodes.get(caller.guard_path)
        if caller.guard_path and (guarded is None or guarded.czxid != caller.guard_czxid):
            return self.zxid, (int(Code.GUARD_FAILED), -1)
        before = copy.deepcopy(self.nodes)
        try:
            return self.zxid, self._operation(caller.session_id, op, ids)
        except RefusedError as refused:
            self.nodes = before
            return self.zxid, refused.outcome

    def _operation(self, session_id: int, op: Op, ids: list[AuthId]) -> object:
        if isinstance(op, MultiOp):
            results = []
            for index, sub_op in enumerate(op.ops):
                try:
                    results.append(self._tree_operation(session_id, sub_op, ids))
                except RefusedError as refused:
                    raise RefusedError(Code(refused.outcome[0]), index) from None
            return MultiDone(tuple(results))
        if isinstance(op, CheckOp):
            raise RefusedError(Code.UNIMPLEMENTED)
        if isinstance(op, AddAuthOp | CloseSessionOp | AttachSessionOp):
            return self._session_operation(session_id, op)
        return self._tree_operation(session_id, op, ids)

    def _session_operation(self, session_id: int, op: Op) -> object:
        session = self.sessions.get(session_id)
        if session is None:
            raise RefusedError(Code.BAD_ARGUMENTS)
        if isinstance(op, AddAuthOp):
            session.ids += [each for each in dict.fromkeys(op.ids) if each not in session.ids]
            return AuthAdded(tuple(session.ids))
        if isinstance(op, AttachSessionOp):
            session.epoch += 1
            session.timeout = op.timeout_ms or session.timeout
            return SessionAttached(session.epoch, session.timeout)
        self.end(session_id)
        return SessionClosed()

    # ---------------------------------------------------------------------- tree

    def _tree_operation(self, session_id: int, op: object, ids: list[AuthId]) -> object:
        if isinstance(op, CreateOp):
            return self._create(session_id, op, ids)
        if isinstance(op, DeleteOp):
            return self._delete(op, ids)
        if isinstance(op, SetDataOp):
            return self._set_data(op, ids)
        if isinstance(op, SetAclOp):
            return self._set_acl(op, ids)
        assert isinstance(op, CheckOp)
        node = self._existing(op.path, op.version)
        self._allow(node, 1, ids)
        self._compare(op.version, node.version)
        return Checked()

    def _check_mode(self, op: CreateOp, session_id: int) -> None:
        is_bad = op.mode not in range(7)
        is_bad |= not 1 <= op.ttl_ms < 2**40 if op.mode in (5, 6) else op.ttl_ms != 0
        is_bad |= op.mode in (1, 3) and not session_id
        if is_bad:
            raise RefusedError(Code.BAD_ARGUMENTS)

    def _create(self, session_id: int, op: CreateOp, ids: list[AuthId]) -> Created:
        self._check_mode(op, session_id)
        path = op.path
        if "/" not in path or "\0" in path:
            raise RefusedError(Code.BAD_ARGUMENTS)
        acl = self._resolve(op.acl, ids)
        above = self.nodes.get(parent(path))
        if above is None:
            raise RefusedError(Code.NO_NODE)
        self._allow(above, 4, ids)
        if op.mode in (2, 3, 6):
            path += str(len(above.created)).zfill(10)
        if not is_legal(path):
            raise RefusedError(Code.BAD_ARGUMENTS)
        if path in self.nodes:
            raise RefusedError(Code.NODE_EXISTS)
        if above.owner:
            raise RefusedError(Code.NO_CHILDREN_FOR_EPHEMERALS)
        self.nodes[path] = Node(
            op.data,
            acl,
            *(self.zxid, self.zxid, self.zxid),
            *(self.time, self.time),
            owner=session_id if op.mode in (1, 3) else 0,
            mode=op.mode,
            ttl=op.ttl_ms,
            touched_clock=self.clock,
        )
        above.created.append(path)
        above.pzxid = self.zxid
        return Created(path, self.stat(path))

    def _delete(self, op: DeleteOp, ids: list[AuthId]) -> Deleted:
        if "/" not in op.path or "\0" in op.path or op.path in SPECIAL or op.version < -1:
            raise RefusedError(Code.BAD_ARGUMENTS)
        above = self.nodes.get(parent(op.path))
        if above is None:
            raise RefusedError(Code.NO_NODE)
        self._allow(above, 8, ids)
        node = self.nodes.get(op.path)
        if node is None:
            raise RefusedError(Code.NO_NODE)
        self._compare(op.version, node.version)
        if self.children(op.path):
            raise RefusedError(Code.NOT_EMPTY)
        self._remove(op.path)
        return Deleted()

    def _remove(self, path: str) -> None:
        del self.nodes[path]
        self.nodes[parent(path)].deleted.append(path)
        self.nodes[parent(path)].pzxid = self.zxid

    def _set_data(self, op: SetDataOp, ids: list[AuthId]) -> DataSet:
        node = self._existing(op.path, op.version)
        self._allow(node, 2, ids)
        self._compare(op.version, node.version)
        node.data, node.mzxid, node.mtime = op.data, self.zxid, self.time
        node.version += 1
        node.touched_clock = self.clock
        return DataSet(self.stat(op.path))

    def _set_acl(self, op: SetAclOp, ids: list[AuthId]) -> AclSet:
        if not is_legal(op.path) or op.version < -1:
            raise RefusedError(Code.BAD_ARGUMENTS)
        acl = self._resolve(op.acl, ids)
        node = self._existing(op.path, op.version)
        self._allow(node, 16, ids)
        self._compare(op.version, node.aversion)
        node.acl = acl
        node.aversion += 1
        return AclSet(self.stat(op.path))

    def _existing(self, path: str, version: int) -> Node:
        if not is_legal(path) or version < -1:
            raise RefusedError(Code.BAD_ARGUMENTS)
        if path not in self.nodes:
            raise RefusedError(Code.NO_NODE)
        return self.nodes[path]

    def _compare(self, expected: int, actual: int) -> None:
        if expected not in (-1, actual):
            raise RefusedError(Code.BAD_VERSION)

    def _allow(self, node: Node, bit: int, ids: list[AuthId]) -> None:
        mine = {(each.scheme, each.id) for each in ids} | {("world", "anyone")}
        if ("super", "") in mine:
            return
        if not any(each.permissions & bit and (each.scheme, each.id) in mine for each in node.acl):
            raise RefusedError(Code.NO_AUTH)

    def _resolve(self, acl: tuple[Acl, ...], ids: list[AuthId]) -> tuple[Acl, ...]:
        """Only the schemes that the test draws: world, auth, digest, and an unknown one."""
        proven = [each for each in ids if each.scheme == "digest"]
        resolved: list[Acl] = []
        for entry in acl:
            if entry.scheme == "auth" and proven:
                resolved += [Acl(entry.permissions, each.scheme, each.id) for each in proven]
            elif entry.scheme in ("world", "digest"):
                resolved.append(entry)
            else:
                raise RefusedError(Code.INVALID_ACL)
        if not resolved:
            raise RefusedError(Code.INVALID_ACL)
        return tuple(dict.fromkeys(resolved))
