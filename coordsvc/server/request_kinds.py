"""The kinds of requests, each once: how a request becomes an operation or a query of the core, and
how its result becomes an answer. Unary calls and Session streams use the same table, so that they
answer the same.

An answer is filled in where it is: unary, a response; on a stream, the part of a SessionReply that
has the kind's name. The header is the door's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from coordsvc.core import queries, watches
from coordsvc.core.commands import (
    Acl,
    AclSet,
    AddAuthOp,
    AuthId,
    Checked,
    CloseSessionOp,
    Created,
    DataSet,
    Deleted,
    MultiDone,
    Op,
    Refusal,
    Result,
    Stat,
)
from coordsvc.core.state import State
from coordsvc.server import convert
from coordsvc.server.config_model import ClusterConfig
from coordsvc.server.identities import derive_ids
from coordsvc.v1 import coordination_pb2 as pb

PAGE_CHILDREN_MAX = 2048
"""A page of so many is looked up and put into a message in a few milliseconds; one of fifty
thousand, which fits into a message too, stops the loop for a tenth of a second."""

STAT_BYTES = 128
"""At least what a Stat takes in an answer, with what is around it."""

_BYTES_PER_CHARACTER_MAX = 4

Query = Callable[[State, tuple[AuthId, ...]], Any]
"""Asks the state on behalf of these identities; answers a result, or a Refusal."""


@dataclass(frozen=True, slots=True)
class WriteKind:
    """`fill(answer, result, op)`. `size(result)`: bytes the answer takes at most, about."""

    name: str
    response: type[Message]
    to_op: Callable[[Any, ClusterConfig], Op]
    fill: Callable[[Any, Any, Any], None]
    size: Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class ReadKind:
    """`prepare(request, limits)` checks the request. `fill(answer, result)`. `watch_kind`: what a
    watch_id in the request sets; 0: the kind has none."""

    name: str
    response: type[Message]
    prepare: Callable[[Any, ClusterConfig], Query]
    fill: Callable[[Any, Any], None]
    size: Callable[[Any], int]
    watch_kind: int = 0


# ------------------------------------------------------------------------------------- writes


def _fixed_size(result: Any) -> int:
    del result
    return STAT_BYTES


def _created_size(result: Created) -> int:
    return STAT_BYTES + _BYTES_PER_CHARACTER_MAX * len(result.path)


def _multi_size(result: MultiDone) -> int:
    return STAT_BYTES + sum(
        _created_size(each) if isinstance(each, Created) else STAT_BYTES for each in result.results
    )


def _fill_created(answer: pb.CreateResponse | pb.CreateResult, result: Created, op: Op) -> None:
    del op
    answer.path = result.path
    convert.fill_stat(answer.stat, result.stat)


def _fill_empty(answer: Message, result: Result, op: Op) -> None:
    del result, op
    answer.SetInParent()


def _fill_stat(
    answer: pb.SetDataResponse | pb.SetAclResponse, result: DataSet | AclSet, op: Op
) -> None:
    del op
    convert.fill_stat(answer.stat, result.stat)


def _fill_multi(answer: pb.MultiResponse, result: MultiDone, op: Op) -> None:
    answer.SetInParent()
    for each in result.results:
        part = answer.results.add()
        if isinstance(each, DataSet):
            convert.fill_stat(part.set_data.stat, each.stat)
        elif isinstance(each, Created):
            _fill_created(part.create, each, op)
        elif isinstance(each, Deleted):
            part.delete.SetInParent()
        else:
            assert isinstance(each, Checked)
            part.check.SetInParent()


def _fill_ids(answer: pb.AddAuthResponse, result: Result, op: AddAuthOp) -> None:
    """Those of this credential, not all that the session has by now."""
    del result
    answer.SetInParent()
    for auth_id in op.ids:
        answer.ids.add(scheme=auth_id.scheme, id=auth_id.id)


def _close_op(request: pb.CloseSessionRequest, limits: ClusterConfig) -> CloseSessionOp:
    del request, limits
    return CloseSessionOp()


SET_DATA: Final = WriteKind(
    "set_data", pb.SetDataResponse, convert.set_data_op, _fill_stat, _fixed_size
)
CREATE: Final = WriteKind(
    "create", pb.CreateResponse, convert.create_op, _fill_created, _created_size
)
DELETE: Final = WriteKind("delete", pb.DeleteResponse, convert.delete_op, _fill_empty, _fixed_size)
SET_ACL: Final = WriteKind(
    "set_acl", pb.SetAclResponse, convert.set_acl_op, _fill_stat, _fixed_size
)
MULTI: Final = WriteKind("multi", pb.MultiResponse, convert.multi_op, _fill_multi, _multi_size)
CLOSE_SESSION: Final = WriteKind(
    "close_session", pb.CloseSessionResponse, _close_op, _fill_empty, _fixed_size
)


def add_auth_kind(superuser_digest: str) -> WriteKind:
    """The one kind that depends on the configuration: see `identities.derive_ids`."""

    def to_op(request: pb.AddAuthRequest, limits: ClusterConfig) -> AddAuthOp:
        del limits
        return AddAuthOp(
            derive_ids(request.scheme, request.credential, superuser_digest=superuser_digest)
        )

    return WriteKind("add_auth", pb.AddAuthResponse, to_op, _fill_ids, lambda result: 8192)


def write_kinds(superuser_digest: str) -> dict[str, WriteKind]:
    """All kinds of writes, by name."""
    kinds = (SET_DATA, CREATE, DELETE, SET_ACL, MULTI, CLOSE_SESSION)
    return {kind.name: kind for kind in (*kinds, add_auth_kind(superuser_digest))}


# -------------------------------------------------------------------------------------- reads

StatAndAcl = tuple[tuple[Acl, ...], Stat]
DataAndStat = tuple[bytes | None, Stat]


def _exists(request: pb.ExistsRequest, limits: ClusterConfig) -> Query:
    path = request.path
    convert.check_path(path, limits)
    return lambda state, ids: queries.exists(state, path, ids)


def _get_data(request: pb.GetDataRequest, limits: ClusterConfig) -> Query:
    path = request.path
    convert.check_path(path, limits)
    return lambda state, ids: queries.get_data(state, path, ids)


def _get_acl(request: pb.GetAclRequest, limits: ClusterConfig) -> Query:
    path = request.path
    convert.check_path(path, limits)
    return lambda state, ids: queries.get_acl(state, path, ids)


def _get_children(request: pb.GetChildrenRequest, limits: ClusterConfig) -> Query:
    page_size = min(convert.page_size(request.page_size) or PAGE_CHILDREN_MAX, PAGE_CHILDREN_MAX)
    page_token = convert.page_token(request.page_token)
    path = request.path
    convert.check_path(path, limits)
    include_stat, include_data = request.include_stat, request.include_data

    def query(state: State, ids: tuple[AuthId, ...]) -> queries.ChildrenPage | Refusal:
        return queries.get_children(
            state,
            path,
            ids,
            page_size=page_size,
            page_token=page_token,
            include_stat=include_stat,
            include_data=include_data,
        )

    return query


def _sync(request: pb.SyncRequest, limits: ClusterConfig) -> Query:
    """The path is only echoed; what matters is that the state is asked after a read-index."""
    path = request.path
    convert.check_path_size(path, limits)
    return lambda state, ids: path


def _fill_exists(answer: pb.ExistsResponse, result: Stat | None) -> None:
    answer.SetInParent()
    if result is not None:
        convert.fill_stat(answer.stat, result)


def _fill_data(answer: pb.GetDataResponse, result: DataAndStat) -> None:
    data, stat = result
    if data is not None:
        answer.data = data
    convert.fill_stat(answer.stat, stat)


def _fill_acl(answer: pb.GetAclResponse, result: StatAndAcl) -> None:
    acl, stat = result
    convert.fill_acl(answer.acl, acl)
    convert.fill_stat(answer.stat, stat)


def _fill_children(answer: pb.GetChildrenResponse, page: queries.ChildrenPage) -> None:
    for child in page.children:
        message = answer.children.add(name=child.name)
        if child.stat is not None:
            convert.fill_stat(message.stat, child.stat)
        if child.data is not None:
            message.data = child.data
    convert.fill_stat(answer.stat, page.stat)
    answer.next_page_token = page.next_page_token


def _fill_path(answer: pb.SyncResponse, path: str) -> None:
    answer.SetInParent()
    answer.path = path


def _data_size(result: DataAndStat) -> int:
    return STAT_BYTES + (len(result[0]) if result[0] is not None else 0)


def _children_size(page: queries.ChildrenPage) -> int:
    size = STAT_BYTES + _text_size(page.next_page_token)
    for child in page.children:
        size += 8 + _text_size(child.name)
        if child.stat is not None:
            size += STAT_BYTES
        if child.data is not None:
            size += len(child.data)
    return size


def _acl_size(result: StatAndAcl) -> int:
    return STAT_BYTES + sum(16 + _text_size(e.scheme) + _text_size(e.id) for e in result[0])


def _text_size(text: str) -> int:
    return _BYTES_PER_CHARACTER_MAX * len(text)


SYNC: Final = ReadKind("sync", pb.SyncResponse, _sync, _fill_path, _text_size)

EXISTS: Final = ReadKind(
    "exists", pb.ExistsResponse, _exists, _fill_exists, _fixed_size, watches.EXISTS
)
GET_DATA: Final = ReadKind(
    "get_data", pb.GetDataResponse, _get_data, _fill_data, _data_size, watches.DATA
)
GET_CHILDREN: Final = ReadKind(
    "get_children",
    pb.GetChildrenResponse,
    _get_children,
    _fill_children,
    _children_size,
    watches.CHILDREN,
)
GET_ACL: Final = ReadKind("get_acl", pb.GetAclResponse, _get_acl, _fill_acl, _acl_size)

PLAIN_READS: Final = (EXISTS, GET_DATA, GET_ACL)
"""Of one znode, and done in microseconds, whatever it holds."""

READS: Final = {kind.name: kind for kind in (EXISTS, GET_DATA, GET_CHILDREN, GET_ACL, SYNC)}


def is_linearizable(kind: ReadKind, request: Any) -> bool:
    """Whether the read must wait for a read-index. BAD_ARGUMENTS for an unknown consistency."""
    return kind is SYNC or convert.is_linearizable(request.consistency)
