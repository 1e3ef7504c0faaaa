"""What must hold of a state after every entry. Walks everything: for tests and for verify runs.

A failure is an AssertionError: our bug, never a request's.
"""

from __future__ import annotations

from itertools import pairwise

from coordsvc.core.commands import Stat
from coordsvc.core.digest import Digest
from coordsvc.core.machine import CHANGED_RECORDS_MAX, Machine
from coordsvc.core.records import (
    INT64_MAX,
    KIND_CONTAINER,
    KIND_EPHEMERAL,
    KIND_PERSISTENT,
    KIND_TTL,
    OUTSTANDING_REQUESTS_MAX,
    TTL_MS_MAX,
    Znode,
)
from coordsvc.core.state import SPECIAL_PATHS, State
from coordsvc.paths import name_of, parent_of, path_fault


def check_all(state: State) -> None:
    """Assert every invariant of the state and its indexes."""
    assert state.undo is None, "a multi left its undo log open"
    for path in SPECIAL_PATHS:
        assert path in state.znodes, f"{path} is gone"
    for path, znode in state.znodes.items():
        _check_znode(state, path, znode)
    _check_indexes(state)
    _check_sessions(state)
    for replica_id, origin in state.origins.items():
        assert origin.replica_id == replica_id
        assert 0 < origin.incarnation <= state.zxid
        assert origin.last_seq >= 0


def check_machine(machine: Machine) -> None:
    """Assert the state's invariants, and that the digest is what a fresh count gives."""
    check_all(machine.state)
    assert len(machine.state.changed) <= CHANGED_RECORDS_MAX
    assert machine.digest() == full_digest(machine.state)


def full_digest(state: State) -> int:
    """The digest counted from all records, without any running sum."""
    digest = Digest()
    digest.fold(state.all_records())
    return digest.value(state.singletons())


def _check_znode(state: State, path: str, znode: Znode) -> None:
    stat = znode.stat
    assert znode.path == path, f"{path} holds {znode.path}"
    assert path_fault(path) is None, f"{path!r} is malformed"
    assert 0 < znode.node_id < state.next_node_id
    _check_stat(state, stat)
    assert stat.data_length == len(znode.data or b"")
    assert znode.acl, f"{path} has an empty ACL"
    assert znode.mtime_clock_ms <= state.clock_ms
    # Children that every tree has from the beginning were never counted as creates.
    built_in = sum(1 for special in SPECIAL_PATHS[1:] if parent_of(special) == path)
    assert stat.num_children == len(state.children.get(path, ())), path
    assert stat.cversion == 2 * znode.creates - (stat.num_children - built_in), path
    assert (znode.kind == KIND_TTL) == (1 <= znode.ttl_ms <= TTL_MS_MAX)
    assert (znode.kind == KIND_EPHEMERAL) == (stat.ephemeral_owner != 0)
    if path == "/":
        return
    parent = state.znodes.get(parent_of(path))
    assert parent is not None, f"{path} has no parent"
    assert parent.kind != KIND_EPHEMERAL, f"{path} is below an ephemeral"
    assert name_of(path) in state.children[parent.path]
    assert parent.stat.pzxid >= stat.czxid
    if znode.kind == KIND_EPHEMERAL:
        assert stat.ephemeral_owner in state.sessions, f"{path} outlived its session"
        assert path in state.ephemerals[stat.ephemeral_owner]


def _check_stat(state: State, stat: Stat) -> None:
    assert 0 <= stat.czxid <= stat.mzxid <= state.zxid
    assert stat.czxid <= stat.pzxid <= state.zxid
    assert 0 <= stat.ctime_ms <= stat.mtime_ms <= state.time_ms
    for counter in (stat.version, stat.cversion, stat.aversion):
        assert 0 <= counter <= INT64_MAX


def _check_indexes(state: State) -> None:
    znodes = state.znodes.values()
    assert len({znode.node_id for znode in znodes}) == len(znodes)
    assert state.data_bytes == sum(len(znode.data or b"") for znode in znodes)
    assert sum(map(len, state.children.values())) == len(znodes) - 1
    assert all(state.children.values()), "a leaf costs no container"
    for children in state.children.values():
        names = children.sorted()
        assert len(names) == len(children)
        assert all(first < second for first, second in pairwise(names))
        assert all(name in children for name in names)
    kinds = dict.fromkeys((KIND_PERSISTENT, KIND_EPHEMERAL, KIND_CONTAINER, KIND_TTL), 0)
    for znode in znodes:
        kinds[znode.kind] += 1
    assert kinds[KIND_EPHEMERAL] == sum(map(len, state.ephemerals.values()))
    assert all(state.ephemerals.values())
    assert kinds[KIND_CONTAINER] == len(state.containers)
    assert all(state.znodes[path].kind == KIND_CONTAINER for path in state.containers)
    assert kinds[KIND_TTL] == len(state.ttl_znodes)
    assert all(state.znodes[path].kind == KIND_TTL for path in state.ttl_znodes)


def _check_sessions(state: State) -> None:
    kept = 0
    for session_id, session in state.sessions.items():
        assert session.session_id == session_id
        assert 0 < session_id <= state.zxid
        assert session.timeout_ms > 0
        assert session.attach_epoch >= 0
        last, floor = session.last_request_number, session.done_below
        assert 1 <= floor <= last + 1
        assert last - floor < OUTSTANDING_REQUESTS_MAX
        for number in range(floor, last + 1):
            saved = state.results[session_id, number]
            assert (saved.session_id, saved.request_number) == (session_id, number)
            assert 0 < saved.zxid <= state.zxid
        kept += last + 1 - floor
    assert kept == len(state.results), "results were left behind"
    assert all(owner in state.sessions for owner in state.ephemerals)
