"""The replicated state: tables of records, and the indexes over them.

Only the primitives here change the tree. Each keeps the indexes in step, notes the record as
changed, and, while an undo log is open, how to take the step back. They check nothing: whether a
change is allowed is decided before (`operations.py`).

Everything except the modules of `core` only reads this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coordsvc.core.children import Children
from coordsvc.core.commands import OPEN_ACL, READ, Acl, Stat
from coordsvc.core.records import (
    INT64_MAX,
    KIND_CONTAINER,
    KIND_EPHEMERAL,
    KIND_TTL,
    ORIGINS,
    RESULTS,
    SESSIONS,
    SINGLETONS,
    ZNODES,
    ChangedRecords,
    Origin,
    SavedResult,
    Session,
    Singletons,
    Znode,
    decode_record,
    encode_record,
    key_bytes,
    result_key_bytes,
)
from coordsvc.paths import name_of, parent_of

READ_ONLY_ACL: tuple[Acl, ...] = (Acl(READ, "world", "anyone"),)

SPECIAL_PATHS = ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config")
"""Part of every tree since zxid 0, and never deleted. Ref: ZooKeeper DataTree.isSpecialPath."""

_ACLS_CACHED_MAX = 4096

_INSERTED, _REMOVED, _REPLACED = 1, 2, 3

UndoStep = tuple[int, Znode, Znode]
"""(what was done, the znode it was done to, the record to put back: its parent's, or its own when
it was replaced)."""


class State:
    """The tables, their indexes and the scalars. Made empty, or from exported records."""

    def __init__(self) -> None:
        self._clear()
        for path in SPECIAL_PATHS:
            self._add_special_znode(path)

    def _clear(self) -> None:
        self.zxid = 0
        self.time_ms = 0
        self.clock_ms = 0
        self.cluster_id = b""
        self.next_node_id = 1
        self.data_bytes = 0
        """The data of all znodes together."""
        self.znodes: dict[str, Znode] = {}
        self.sessions: dict[int, Session] = {}
        self.results: dict[tuple[int, int], SavedResult] = {}
        self.origins: dict[int, Origin] = {}
        self.changed = ChangedRecords()
        self.undo: list[UndoStep] | None = None
        # Indexes, made again from the records.
        self.children: dict[str, Children] = {}
        self.ephemerals: dict[int, dict[str, None]] = {}
        self.containers: dict[str, None] = {}
        self.ttl_znodes: dict[str, None] = {}
        self._acls: dict[tuple[Acl, ...], tuple[Acl, ...]] = {OPEN_ACL: OPEN_ACL}

    def _add_special_znode(self, path: str) -> None:
        parent = self.znodes.get(parent_of(path))
        stat = Stat(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        acl = READ_ONLY_ACL if path == "/zookeeper/config" else OPEN_ACL
        znode = Znode(self.new_node_id(), path, b"", acl, stat)
        self._put(znode)
        if parent is not None:
            # Not counted as creates: the first sequential child of the root is number 0, as it
            # is in ZooKeeper.
            self._put(with_child(parent, 0, 1, cversion_step=0, creates_step=0))
            self._children_of(parent.path).add(name_of(path))

    # ------------------------------------------------------------------ reading

    def ephemerals_of(self, session_id: int) -> tuple[str, ...]:
        """The session's ephemerals, sorted by path."""
        return tuple(sorted(self.ephemerals.get(session_id, ())))

    def child_names(self, path: str) -> list[str]:
        """The sorted names of the children of `path`; empty for a leaf. For a page of many:
        `children[path].after`."""
        children = self.children.get(path)
        return children.sorted() if children is not None else []

    def singletons(self) -> Singletons:
        return Singletons(
            self.zxid, self.time_ms, self.clock_ms, self.cluster_id, self.next_node_id
        )

    # ------------------------------------------------------------------ changing

    def advance_time(self, time_ms: int, clock_ms: int) -> None:
        """Move both clocks forward, never back, and never out of range."""
        if time_ms > self.time_ms:
            self.time_ms = min(time_ms, INT64_MAX)
        if clock_ms > self.clock_ms:
            self.clock_ms = min(clock_ms, INT64_MAX)

    def new_node_id(self) -> int:
        node_id = self.next_node_id
        self.next_node_id = node_id + 1
        return node_id

    def interned(self, acl: tuple[Acl, ...]) -> tuple[Acl, ...]:
        """One object for equal ACLs: most znodes share a few. Saves memory, means nothing."""
        known = self._acls.get(acl)
        if known is None:
            if len(self._acls) >= _ACLS_CACHED_MAX:
                self._acls = {OPEN_ACL: OPEN_ACL}
            known = self._acls.setdefault(acl, acl)
        return known

    def insert(self, znode: Znode, parent_before: Znode, parent_after: Znode) -> None:
        if self.undo is not None:
            self.undo.append((_INSERTED, znode, parent_before))
        self._attach(znode)
        self._put(parent_after)

    def remove(self, znode: Znode, parent_before: Znode, parent_after: Znode) -> None:
        if self.undo is not None:
            self.undo.append((_REMOVED, znode, parent_before))
        self._detach(znode)
        self._put(parent_after)

    def replace(self, before: Znode, after: Znode) -> None:
        """Put another record of the same znode: same path, same kind, same children."""
        if self.undo is not None:
            self.undo.append((_REPLACED, before, before))
        self.data_bytes += after.stat.data_length - before.stat.data_length
        self.znodes[after.path] = after
        self.changed.znodes[after.node_id] = after

    def roll_back(self) -> None:
        """Undo every step since the undo log was opened, last first."""
        steps, self.undo = self.undo, None
        assert steps is not None
        for step, znode, before in reversed(steps):
            if step == _INSERTED:
                self._detach(znode)
                assert self.next_node_id == znode.node_id + 1
                self.next_node_id = znode.node_id
            elif step == _REMOVED:
                self._attach(znode)
            else:
                now = self.znodes[before.path]
                self.data_bytes += before.stat.data_length - now.stat.data_length
            self._put(before)

    def put_session(self, session: Session) -> None:
        self.sessions[session.session_id] = session
        self.changed.sessions[session.session_id] = session

    def drop_session(self, session: Session) -> None:
        """Forget the session and its saved results. Its ephemerals are gone already."""
        session_id = session.session_id
        assert session_id not in self.ephemerals
        self.drop_results(session, session.last_request_number + 1)
        del self.sessions[session_id]
        self.changed.sessions[session_id] = None

    def put_result(self, result: SavedResult) -> None:
        key = (result.session_id, result.request_number)
        self.results[key] = result
        self.changed.results[key] = result

    def drop_results(self, session: Session, below: int) -> None:
        """Forget the session's results of the requests before number `below`."""
        results, changed, session_id = self.results, self.changed.results, session.session_id
        for number in range(session.done_below, below):
            key = (session_id, number)
            # One that came and went since the last look at the changes is none of them: no number
            # is used twice, so before it came there was nothing under it.
            if results.pop(key, None) is not None and changed.pop(key, None) is None:
                changed[key] = None

    def put_origin(self, origin: Origin) -> None:
        self.origins[origin.replica_id] = origin
        self.changed.origins[origin.replica_id] = origin

    def all_records(self) -> ChangedRecords:
        """Every record except the singletons, as if each had changed."""
        everything = ChangedRecords()
        everything.znodes = {znode.node_id: znode for znode in self.znodes.values()}
        everything.sessions = dict(self.sessions)
        everything.results = dict(self.results)
        everything.origins = dict(self.origins)
        return everything

    def take_changed(self) -> ChangedRecords:
        """The records changed since the last time this was asked."""
        changed, self.changed = self.changed, ChangedRecords()
        return changed

    # ------------------------------------------------------------------ export, rebuild

    def export_records(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Every record as (table, key, value), each table in the order of its keys."""
        yield SINGLETONS, key_bytes(0), encode_record(self.singletons())
        for znode in sorted(self.znodes.values(), key=lambda znode: znode.node_id):
            yield ZNODES, key_bytes(znode.node_id), encode_record(znode)
        for session_id in sorted(self.sessions):
            yield SESSIONS, key_bytes(session_id), encode_record(self.sessions[session_id])
        for result_key in sorted(self.results):
            yield RESULTS, result_key_bytes(result_key), encode_record(self.results[result_key])
        for replica_id in sorted(self.origins):
            yield ORIGINS, key_bytes(replica_id), encode_record(self.origins[replica_id])

    @classmethod
    def from_records(cls, records: Iterable[tuple[int, bytes, bytes]]) -> State:
        """The state whose records these are, in any order. All of them count as changed.

        Raises KeyError or msgspec.DecodeError for a table or bytes that are none of ours.
        """
        state = cls.__new__(cls)
        state._clear()
        for table, _key, value in records:
            record = decode_record(table, value)
            if isinstance(record, Znode):
                state._attach_loaded(record)
            elif isinstance(record, Session):
                state.put_session(record)
            elif isinstance(record, SavedResult):
                state.put_result(record)
            elif isinstance(record, Origin):
                state.put_origin(record)
            else:
                state.zxid, state.time_ms, state.clock_ms = (
                    record.zxid,
                    record.time_ms,
                    record.clock_ms,
                )
                state.cluster_id, state.next_node_id = record.cluster_id, record.next_node_id
        return state

    def _attach_loaded(self, loaded: Znode) -> None:
        self._attach(
            Znode(
                loaded.node_id,
                loaded.path,
                loaded.data,
                self.interned(loaded.acl),
                loaded.stat,
                loaded.creates,
                loaded.kind,
                loaded.ttl_ms,
                loaded.mtime_clock_ms,
            )
        )

    # ------------------------------------------------------------------ steps

    def _put(self, znode: Znode) -> None:
        self.znodes[znode.path] = znode
        self.changed.znodes[znode.node_id] = znode

    def _attach(self, znode: Znode) -> None:
        path = znode.path
        self._put(znode)
        self.data_bytes += znode.stat.data_length
        if len(path) > 1:
            self._children_of(parent_of(path)).add(name_of(path))
        kind = znode.kind
        if not kind:
            return
        if kind == KIND_EPHEMERAL:
            owner = znode.stat.ephemeral_owner
            paths = self.ephemerals.get(owner)
            if paths is None:
                paths = self.ephemerals[owner] = {}
            paths[path] = None
        elif kind == KIND_CONTAINER:
            self.containers[path] = None
        elif kind == KIND_TTL:
            self.ttl_znodes[path] = None

    def _detach(self, znode: Znode) -> None:
        path = znode.path
        del self.znodes[path]
        self.data_bytes -= znode.stat.data_length
        self.changed.znodes[znode.node_id] = None
        parent_path = parent_of(path)
        children = self.children[parent_path]
        children.remove(name_of(path))
        if not children:
            del self.children[parent_path]
        kind = znode.kind
        if not kind:
            return
        if kind == KIND_EPHEMERAL:
            owner = znode.stat.ephemeral_owner
            paths = self.ephemerals[owner]
            del paths[path]
            if not paths:
                del self.ephemerals[owner]
        elif kind == KIND_CONTAINER:
            del self.containers[path]
        elif kind == KIND_TTL:
            del self.ttl_znodes[path]

    def _children_of(self, path: str) -> Children:
        children = self.children.get(path)
        if children is None:
            children = self.children[path] = Children()
        return children


def bump(counter: int) -> int:
    """The next value of a version or counter; it stays at the largest signed 64-bit number."""
    return counter + 1 if counter < INT64_MAX else INT64_MAX


def with_child(
    parent: Znode, pzxid: int, children_step: int, *, cversion_step: int = 1, creates_step: int
) -> Znode:
    """The parent's record after a child came (`children_step` 1) or went (-1)."""
    stat = parent.stat
    cversion, creates = stat.cversion, parent.creates
    return Znode(
        parent.node_id,
        parent.path,
        parent.data,
        parent.acl,
        Stat(
            stat.czxid,
            stat.mzxid,
            pzxid,
            stat.ctime_ms,
            stat.mtime_ms,
            stat.version,
            bump(cversion) if cversion_step else cversion,
            stat.aversion,
            stat.ephemeral_owner,
            stat.data_length,
            stat.num_children + children_step,
        ),
        bump(creates) if creates_step else creates,
        parent.kind,
        parent.ttl_ms,
        parent.mtime_clock_ms,
    )
