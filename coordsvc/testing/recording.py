"""One client's part of a history, and the words of histories in the API's and back.

An answer is ERROR when the state machine gave it: only that has a zxid. REFUSED is what was
certainly not applied for any other reason; everything else is UNKNOWN.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from coordsvc.client.records import ChildrenPage, Created, Data, Stat
from coordsvc.errors import Applied, CoordError, ErrorCode
from coordsvc.testing.history import ERROR, OK, REFUSED, UNKNOWN, Invoke, Recorder, Return
from coordsvc.v1 import common_pb2, coordination_pb2

LINEARIZABLE = "linearizable"
LOCAL = "local"

Args = dict[str, Any]

EVALUATED = frozenset(
    {
        ErrorCode.NO_NODE,
        ErrorCode.NODE_EXISTS,
        ErrorCode.BAD_VERSION,
        ErrorCode.NOT_EMPTY,
        ErrorCode.NO_CHILDREN_FOR_EPHEMERALS,
        ErrorCode.NO_AUTH,
        ErrorCode.INVALID_ACL,
        ErrorCode.QUOTA_EXCEEDED,
        ErrorCode.GUARD_FAILED,
    }
)
"""What the state machine says of a request. A session's end it says, too, but that is no answer
about znodes: then the request counts as not evaluated."""

MODES = {
    "persistent": common_pb2.CREATE_MODE_PERSISTENT,
    "ephemeral": common_pb2.CREATE_MODE_EPHEMERAL,
    "persistent_sequential": common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL,
    "ephemeral_sequential": common_pb2.CREATE_MODE_EPHEMERAL_SEQUENTIAL,
}


class Recording:
    """`operations` counts what was answered, by name."""

    def __init__(
        self, recorder: Recorder, client: str, operations: Counter[str] | None = None
    ) -> None:
        self.recorder = recorder
        self.client = client
        self.operations: Counter[str] = operations if operations is not None else Counter()

    def invoke(
        self, name: str, args: Args, session: str = "", number: int = 0, repeats: int = 0
    ) -> int:
        """The operation's number. To be called before the request can leave."""
        recorder = self.recorder
        op = recorder.next_op()
        recorder.add(Invoke(recorder.time, op, self.client, name, args, session, number, repeats))
        return op

    def answer(self, op: int, name: str, result: Args, zxid: int, replica: int) -> None:
        self._return(op, OK, zxid, "", result, replica)
        self.operations[name] += 1

    def fail(self, op: int, name: str, error: CoordError, replica: int) -> str:
        """The outcome."""
        outcome = outcome_of(error)
        result: Args = {}
        if outcome == ERROR:
            self.operations[name] += 1
            if name == "multi":
                result["index"] = error.operation_index
        self._return(op, outcome, error.zxid, error.code.name, result, replica)
        return outcome

    def leave_unknown(self, op: int) -> None:
        """Nobody waits for the answer any more."""
        self._return(op, UNKNOWN, 0, "", {}, 0)

    def _return(
        self, op: int, outcome: str, zxid: int, code: str, result: Args, replica: int
    ) -> None:
        recorder = self.recorder
        recorder.add(Return(recorder.time, op, outcome, zxid, code, result, replica))


def outcome_of(error: CoordError) -> str:
    if error.zxid and error.code in EVALUATED:
        return ERROR
    return REFUSED if error.applied is Applied.NO else UNKNOWN


def hex_id(session_id: int) -> str:
    return f"{session_id:016x}"


# ------------------------------------------------------------------------------------ results


def result_of(name: str, args: Mapping[str, Any], value: Any) -> Args:
    """What the client library handed out for the operation, in the words of histories."""
    if isinstance(value, Created):
        return {"path": value.path}
    if isinstance(value, Data):
        version, mzxid = value.stat.version, value.stat.mzxid
        return {"data": text_of(value.data), "version": version, "mzxid": mzxid}
    if isinstance(value, ChildrenPage):
        return {"names": [child.name for child in value.children]}
    if name == "exists":
        return _existence(value)
    if name == "multi":
        pairs = zip(args["ops"], value, strict=True)
        return {"results": [result_of(each["name"], each, part) for each, part in pairs]}
    if isinstance(value, Stat):
        return {"version": value.version}
    return {}


def _existence(stat: Stat | None) -> Args:
    if stat is None:
        return {"exists": False}
    owner = hex_id(stat.ephemeral_owner) if stat.ephemeral_owner else ""
    return {
        "exists": True,
        "version": stat.version,
        "czxid": stat.czxid,
        "mzxid": stat.mzxid,
        "owner": owner,
    }


def text_of(data: bytes | None) -> str | None:
    return None if data is None else data.decode()


def bytes_of(data: str | None) -> bytes | None:
    return None if data is None else data.encode()


# ------------------------------------------------------------------------------------ messages


def fill_create(message: Any, args: Args) -> None:
    message.path, message.mode = args["path"], MODES[args["mode"]]
    _fill_data(message, args)


def fill_set_data(message: Any, args: Args) -> None:
    _fill_data(message, args)
    fill_versioned(message, args)


def fill_versioned(message: Any, args: Args) -> None:
    message.path = args["path"]
    if args["version"] is not None:
        message.expected_version = args["version"]


def _fill_data(message: Any, args: Args) -> None:
    if args["data"] is not None:
        message.data = args["data"].encode()


FILLS = {
    "create": fill_create,
    "set_data": fill_set_data,
    "delete": fill_versioned,
    "check": fill_versioned,
}
"""How a write's message, alone or in a multi, gets its arguments."""


def multi_operations(ops: Sequence[Args]) -> list[coordination_pb2.MultiOperation]:
    operations = []
    for args in ops:
        operation = coordination_pb2.MultiOperation()
        FILLS[args["name"]](getattr(operation, args["name"]), args)
        operations.append(operation)
    return operations
