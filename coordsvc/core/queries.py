"""The read side: exists, data, children, ACL, ephemerals. Each reads one state at one moment.

Every function takes the state and the identities of the caller, returns what was asked or a
`Refusal`, and never raises for a bad request. A malformed path is BAD_ARGUMENTS (ZooKeeper's
server answers it as missing, and leaves the check to its clients).
"""

from __future__ import annotations

import msgspec

from coordsvc.core.auth import check, without_digests
from coordsvc.core.commands import ADMIN, OPEN_ACL, READ, Acl, AuthId, Refusal, Stat
from coordsvc.core.records import Znode
from coordsvc.core.refusals import refuse
from coordsvc.core.state import State
from coordsvc.errors import ErrorCode
from coordsvc.paths import is_at_or_below, join, path_fault

CHILDREN_BYTES_MAX = 2 * 1024 * 1024
"""A page of children is at most about so large: below the 4 MiB at which default gRPC clients
stop, with room for what the message adds."""

CHILDREN_MAX = 8_192
"""And at most of so many: a page is made in one turn of the loop, in about ten milliseconds."""

_CHILD_OVERHEAD_BYTES = 16
_STAT_BYTES = 128
"""At least what these take in any encoding of ours: eleven numbers and their tags."""


class Child(msgspec.Struct, frozen=True, gc=False):
    """One child in a list. `stat` is None unless asked for; `data` too, or when it is null. Both
    are None for a child that the caller may not READ."""

    name: str
    stat: Stat | None = None
    data: bytes | None = None


class ChildrenPage(msgspec.Struct, frozen=True, gc=False):
    """Children sorted by name, the parent's stat, and the token of the next page (empty: this is
    the last)."""

    children: tuple[Child, ...]
    stat: Stat
    next_page_token: str = ""


def effective_ids(
    state: State, session_id: int, connection_ids: tuple[AuthId, ...]
) -> tuple[AuthId, ...]:
    """Who a caller is: its session's identities, and those of its connection."""
    session = state.sessions.get(session_id)
    return session.ids + connection_ids if session is not None else connection_ids


def exists(state: State, path: str, ids: tuple[AuthId, ...]) -> Stat | Refusal | None:
    """The stat, or None when nothing is there. NO_AUTH without READ, once it exists."""
    znode = state.znodes.get(path)
    if znode is None:
        return _bad_path(path) if path_fault(path) is not None else None
    return znode.stat if _may_read(znode, ids) else _no_auth(path)


def get_data(
    state: State, path: str, ids: tuple[AuthId, ...]
) -> tuple[bytes | None, Stat] | Refusal:
    """The data (None: null) and stat. NO_NODE; NO_AUTH without READ."""
    znode = state.znodes.get(path)
    if znode is None:
        return _missing(path)
    return (znode.data, znode.stat) if _may_read(znode, ids) else _no_auth(path)


def get_acl(
    state: State, path: str, ids: tuple[AuthId, ...]
) -> tuple[tuple[Acl, ...], Stat] | Refusal:
    """The ACL and stat; digests' hashes are hidden without ADMIN. NO_NODE; NO_AUTH with neither
    READ nor ADMIN."""
    znode = state.znodes.get(path)
    if znode is None:
        return _missing(path)
    if check(znode.acl, ADMIN, ids):
        return znode.acl, znode.stat
    return (without_digests(znode.acl), znode.stat) if _may_read(znode, ids) else _no_auth(path)


def get_children(
    state: State,
    path: str,
    ids: tuple[AuthId, ...],
    *,
    page_size: int = 0,
    page_token: str = "",
    include_stat: bool = False,
    include_data: bool = False,
    bytes_max: int = CHILDREN_BYTES_MAX,
) -> ChildrenPage | Refusal:
    """The children after `page_token`, sorted by name: at most `page_size` (0: no such limit),
    CHILDREN_MAX and about `bytes_max` bytes, but at least one. NO_NODE; NO_AUTH without READ;
    BAD_ARGUMENTS.

    A token is the last name of the page before, so pages go on past whatever changed between.
    """
    znode = state.znodes.get(path)
    if znode is None:
        return _missing(path)
    if page_size < 0:
        return refuse(ErrorCode.BAD_ARGUMENTS, path, f"page_size is {page_size}; 0 is unlimited")
    if not _may_read(znode, ids):
        return _no_auth(path)
    names = state.children.get(path)
    count_max = min(page_size or CHILDREN_MAX, CHILDREN_MAX)
    children: list[Child] = []
    is_last = True
    bytes_left = bytes_max
    for name in names.after(page_token) if names is not None else ():
        if len(children) == count_max:
            is_last = False
            break
        child = Child(name)
        if include_stat or include_data:
            child = _child(state, path, name, ids, include_stat, include_data)
        bytes_left -= _size(child)
        if bytes_left < 0 and children:
            is_last = False
            break
        children.append(child)
    token = "" if is_last else children[-1].name
    return ChildrenPage(tuple(children), znode.stat, token)


def get_ephemerals(state: State, session_id: int, prefix: str = "/") -> tuple[str, ...]:
    """The session's ephemerals at or below `prefix`, sorted. By component: ``/a`` does not cover
    ``/ab``, which it does in ZooKeeper."""
    paths = state.ephemerals_of(session_id)
    return tuple(path for path in paths if is_at_or_below(path, prefix))


def _child(
    state: State,
    parent_path: str,
    name: str,
    ids: tuple[AuthId, ...],
    include_stat: bool,
    include_data: bool,
) -> Child:
    znode = state.znodes[join(parent_path, name)]
    if not _may_read(znode, ids):
        return Child(name)
    return Child(name, znode.stat if include_stat else None, znode.data if include_data else None)


def _size(child: Child) -> int:
    """About what the child takes in a message, known before one is built."""
    size = _CHILD_OVERHEAD_BYTES + 4 * len(child.name)
    if child.stat is not None:
        size += _STAT_BYTES
    if child.data is not None:
        size += len(child.data)
    return size


def _may_read(znode: Znode, ids: tuple[AuthId, ...]) -> bool:
    return znode.acl is OPEN_ACL or check(znode.acl, READ, ids)


def _missing(path: str) -> Refusal:
    if path_fault(path) is not None:
        return _bad_path(path)
    return refuse(ErrorCode.NO_NODE, path, "it does not exist")


def _bad_path(path: str) -> Refusal:
    return refuse(ErrorCode.BAD_ARGUMENTS, path, f"bad path: {path_fault(path)}")


def _no_auth(path: str) -> Refusal:
    return refuse(ErrorCode.NO_AUTH, path, "READ is needed")
