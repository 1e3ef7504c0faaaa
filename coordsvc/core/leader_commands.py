"""Commands of the leader's own: name the cluster, expire a session, collect a znode.

A leader decides on what it saw; until its command is applied, things may have changed. So each
one says what it saw, and is void, without a zxid, unless that still holds. The term was checked
by the caller: a command is void in an entry of another term.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from coordsvc.core.commands import (
    CollectContainer,
    CollectTtl,
    ExpireSession,
    InitCluster,
    LeaderCommand,
)
from coordsvc.core.operations import remove_znode
from coordsvc.core.records import CLUSTER_ID_BYTES, KIND_CONTAINER, KIND_TTL, Znode
from coordsvc.core.sessions import end_session
from coordsvc.core.state import State
from coordsvc.core.transaction import Transaction
from coordsvc.paths import parent_of


def apply(txn: Transaction, command: LeaderCommand) -> None:
    _APPLY[type(command)](txn, command)


def _take_zxid(txn: Transaction) -> None:
    txn.zxid = txn.state.zxid = txn.state.zxid + 1


def _init_cluster(txn: Transaction, command: InitCluster) -> None:
    if txn.state.cluster_id or len(command.cluster_id) != CLUSTER_ID_BYTES:
        return
    _take_zxid(txn)
    txn.state.cluster_id = command.cluster_id


def _expire_session(txn: Transaction, command: ExpireSession) -> None:
    session = txn.state.sessions.get(command.session_id)
    if session is None or session.attach_epoch != command.attach_epoch:
        return
    _take_zxid(txn)
    end_session(txn, session)


def _collect_container(txn: Transaction, command: CollectContainer) -> None:
    znode = txn.state.znodes.get(command.path)
    if znode is not None and is_used_container(znode) and znode.stat.cversion == command.cversion:
        _collect(txn, znode)


def _collect_ttl(txn: Transaction, command: CollectTtl) -> None:
    znode = txn.state.znodes.get(command.path)
    if znode is not None and is_ttl_over(txn.state, znode) and znode.stat.mzxid == command.mzxid:
        _collect(txn, znode)


def is_used_container(znode: Znode) -> bool:
    """Whether it is a childless container that had a child once. One that never had any is left
    alone: its creator may be about to use it. Ref: ZooKeeper ContainerManager."""
    stat = znode.stat
    return znode.kind == KIND_CONTAINER and not stat.num_children and stat.cversion > 0


def is_ttl_over(state: State, znode: Znode) -> bool:
    """Whether it is a childless TTL znode whose data was set longer ago than its TTL, by the
    cluster's own clock, which stands still while there is no leader."""
    return (
        znode.kind == KIND_TTL
        and not znode.stat.num_children
        and state.clock_ms - znode.mtime_clock_ms > znode.ttl_ms
    )


def _collect(txn: Transaction, znode: Znode) -> None:
    _take_zxid(txn)
    remove_znode(txn, znode, txn.state.znodes[parent_of(znode.path)])


_APPLY: Final[dict[type, Callable[[Transaction, Any], None]]] = {
    InitCluster: _init_cluster,
    ExpireSession: _expire_session,
    CollectContainer: _collect_container,
    CollectTtl: _collect_ttl,
}
