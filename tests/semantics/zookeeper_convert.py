"""Between this project's operations and the records of ZooKeeper's protocol, for the driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coordsvc.core.commands import (
    CONTAINER,
    PERSISTENT_SEQUENTIAL_WITH_TTL,
    PERSISTENT_WITH_TTL,
    Acl,
    Checked,
    CheckOp,
    Created,
    CreateOp,
    DataSet,
    Deleted,
    DeleteOp,
    SetDataOp,
    Stat,
    SubOp,
    SubResult,
)
from coordsvc.testing import zookeeper_records as records
from coordsvc.testing.zookeeper_connection import Reply
from coordsvc.testing.zookeeper_records import Decoder, OpCode, SubRequest
from tests.semantics.drivers import Answer

TTL_MODES: Final = (PERSISTENT_WITH_TTL, PERSISTENT_SEQUENTIAL_WITH_TTL)


def stat_of(stat: records.Stat) -> Stat:
    return Stat(**stat._asdict())


def stat_answer(reply: Reply) -> Answer:
    found = Decoder(reply.body)
    answer = Answer(reply.zxid, stat=stat_of(found.stat()))
    found.end()
    return answer


def acl_records(acl: Sequence[Acl]) -> list[records.Acl]:
    return [records.Acl(entry.permissions, entry.scheme, entry.id) for entry in acl]


def create_request(op: CreateOp) -> SubRequest:
    """The request that fits the mode: each of these answers with a Stat."""
    acl = acl_records(op.acl)
    if op.ttl_ms or op.mode in TTL_MODES:
        return records.create_ttl_of(op.path, op.data, op.ttl_ms, flags=op.mode, acl=acl)
    request = OpCode.CREATE_CONTAINER if op.mode == CONTAINER else OpCode.CREATE2
    return records.create_of(op.path, op.data, flags=op.mode, acl=acl, op=request)


def request_of(op: SubOp) -> SubRequest:
    if isinstance(op, CreateOp):
        return create_request(op)
    if isinstance(op, DeleteOp):
        return records.delete_of(op.path, op.version)
    if isinstance(op, SetDataOp):
        return records.set_data_of(op.path, op.data, op.version)
    assert isinstance(op, CheckOp)
    return records.check_of(op.path, op.version)


def result_of(result: records.SubReply) -> SubResult:
    if result.op == OpCode.CREATE2:
        assert result.stat is not None
        return Created(result.path, stat_of(result.stat))
    if result.op == OpCode.SET_DATA:
        assert result.stat is not None
        return DataSet(stat_of(result.stat))
    return Deleted() if result.op == OpCode.DELETE else Checked()
