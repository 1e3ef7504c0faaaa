"""Multis: many operations in one request, each behind a header, and their results likewise.

The header's type says what follows; the last one says that it is the last.
Ref: ZooKeeper MultiOperationRecord, MultiResponse, FinalRequestProcessor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from struct import Struct
from typing import Final

from coordsvc.core.commands import (
    CONTAINER,
    Created,
    CreateOp,
    DataSet,
    MultiDone,
    MultiOp,
    Refusal,
    SubOp,
)
from coordsvc.core.records import MODES, MULTI_OPS_MAX
from coordsvc.errors import CoordError, LimitExceededError, MarshallingError
from coordsvc.server.config_model import ClusterConfig
from coordsvc.server.zookeeper import jute, writes
from coordsvc.server.zookeeper.jute import Reader
from coordsvc.server.zookeeper.protocol import (
    CHECK,
    CREATE,
    CREATE2,
    CREATE_CONTAINER,
    CREATE_TTL,
    DELETE,
    ERROR,
    OK,
    RUNTIME_INCONSISTENCY,
    SET_DATA,
    code_of,
)

OPERATIONS_MAX: Final = MULTI_OPS_MAX
"""ZooKeeper's only bound is the packet, which has room for more than forty thousand; clients that
split their work at a thousand, as most do, never notice."""

_HEADER: Final = Struct(">i?i")
_ERROR: Final = Struct(">i?ii")
END: Final = _HEADER.pack(-1, True, -1)

_DECODERS: Final[Mapping[int, Callable[[Reader, ClusterConfig], SubOp]]] = {
    CREATE: writes.create,
    CREATE2: writes.create,
    CREATE_CONTAINER: writes.create_container,
    CREATE_TTL: writes.create_ttl,
    DELETE: writes.delete,
    SET_DATA: writes.set_data,
    CHECK: writes.check,
}


class AskedOps(tuple[SubOp, ...]):
    """The operations of a MultiOp that came by this door, and as which type each was asked: CREATE
    and CREATE2 are the same operation, but are not answered the same."""

    types: tuple[int, ...]


def types_in(reader: Reader) -> Iterator[int]:
    """The types of a multi's operations, up to the last. Whoever asks reads the body of each before
    the next. Raises JuteError, and LimitExceededError when there are too many."""
    for _ in range(OPERATIONS_MAX):
        kind, is_last = reader.int32(), reader.boolean()
        reader.int32()  # An error, where the header is a result's.
        if is_last:
            return
        yield kind
    reader.int32()
    if not reader.boolean():
        error = LimitExceededError(f"a multi has at most {OPERATIONS_MAX} operations: split it")
        error.limit = "multi"
        raise error


def decode(reader: Reader, limits: ClusterConfig) -> MultiOp:
    """MARSHALLING_ERROR, as in ZooKeeper, for what is no operation of a multi, and for a mode that
    does not go with the type. Any other refusal has the operation's index."""
    ops: list[SubOp] = []
    types: list[int] = []
    for kind in types_in(reader):
        decoder = _DECODERS.get(kind)
        if decoder is None:
            raise MarshallingError(f"type {kind} is no operation of a multi that writes")
        try:
            op = decoder(reader, limits)
        except CoordError as error:
            error.operation_index = len(ops)
            raise
        if type(op) is CreateOp:
            _check_mode(op, kind)
        ops.append(op)
        types.append(kind)
    asked = AskedOps(ops)
    asked.types = tuple(types)
    return MultiOp(asked)


def _check_mode(op: CreateOp, kind: int) -> None:
    if op.mode not in MODES or (kind != CREATE_TTL and writes.has_ttl(op.mode)):
        raise MarshallingError(f"type {kind} of create has no mode {op.mode}", path=op.path)


def encode(result: MultiDone, op: MultiOp) -> bytes:
    """`op` is what `decode` gave."""
    asked = op.ops
    assert isinstance(asked, AskedOps)
    parts: list[bytes] = []
    for kind, sub_op, sub_result in zip(asked.types, asked, result.results, strict=True):
        if isinstance(sub_result, Created):
            # Only a plain create is answered as such. The rest have one form of result, and its
            # type: clients know no result of the types of containers and TTLs.
            assert isinstance(sub_op, CreateOp)
            is_plain = kind == CREATE and sub_op.mode < CONTAINER
            parts.append(result_header(CREATE if is_plain else CREATE2))
            parts.append(jute.text(sub_result.path))
            if not is_plain:
                parts.append(jute.stat(sub_result.stat))
        else:
            parts.append(result_header(kind))
            if isinstance(sub_result, DataSet):
                parts.append(jute.stat(sub_result.stat))
    parts.append(END)
    return b"".join(parts)


def multi_refused(op: MultiOp, refusal: Refusal) -> bytes | None:
    """The body that tells which operation was refused: those before it are 0, which is no success,
    and those behind it were not looked at. None when the refusal is about none of them, or there is
    no code for it: then the header tells it."""
    index = refusal.operation_index
    code = code_of(refusal.code)
    if index < 0 or code is None:
        return None
    behind = len(op.ops) - index - 1
    assert behind >= 0
    results = [error_result(OK)] * index
    results.append(error_result(code))
    results += [error_result(RUNTIME_INCONSISTENCY)] * behind
    return b"".join(results) + END


def error_result(code: int) -> bytes:
    """The result of an operation that was not done."""
    return _ERROR.pack(ERROR, False, code, code)


def result_header(kind: int) -> bytes:
    return _HEADER.pack(kind, False, OK)
