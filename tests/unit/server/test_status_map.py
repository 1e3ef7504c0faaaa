"""Codes and statuses, and the trailers that carry an error."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import status_pb2

import coordsvc
from coordsvc.errors import (
    BadVersionError,
    CoordError,
    ErrorCode,
    NoNodeError,
    NoQuorumError,
    OutcomeUnknownError,
)
from coordsvc.server.status_map import (
    MESSAGE_BYTES_MAX,
    PATH_BYTES_MAX,
    STATUS_OF_CODE,
    cut,
    error_detail,
    status_message,
    status_of,
    trailers_of,
)
from coordsvc.v1 import errors_pb2

NOT_IMPORTED = {"coordsvc.__main__", "coordsvc.cli._child"}
"""They run something when they are imported."""


def all_error_classes() -> Iterator[type[CoordError]]:
    for module in pkgutil.walk_packages(coordsvc.__path__, "coordsvc."):
        if module.name not in NOT_IMPORTED:
            importlib.import_module(module.name)
    waiting = [CoordError]
    while waiting:
        error_class = waiting.pop()
        waiting.extend(error_class.__subclasses__())
        yield error_class


def test_every_error_class_has_a_status() -> None:
    for error_class in all_error_classes():
        assert error_class.code in STATUS_OF_CODE, error_class


def test_every_code_has_a_status_and_its_number_on_the_wire() -> None:
    assert set(STATUS_OF_CODE) == set(ErrorCode) - {ErrorCode.OK}
    for code in STATUS_OF_CODE:
        assert errors_pb2.ErrorCode.Value(f"ERROR_CODE_{code.name}") == code
    on_the_wire = {name.removeprefix("ERROR_CODE_") for name in errors_pb2.ErrorCode.keys()}
    assert on_the_wire - {"UNSPECIFIED"} == {code.name for code in STATUS_OF_CODE}


CONTRACT = {
    grpc.StatusCode.NOT_FOUND: "NO_NODE",
    grpc.StatusCode.ALREADY_EXISTS: "NODE_EXISTS",
    grpc.StatusCode.ABORTED: "BAD_VERSION",
    grpc.StatusCode.FAILED_PRECONDITION: "NOT_EMPTY NO_CHILDREN_FOR_EPHEMERALS SESSION_EXPIRED "
    "SESSION_MOVED GUARD_FAILED RESULT_FORGOTTEN REQUEST_OUT_OF_ORDER NO_WATCHER",
    grpc.StatusCode.INVALID_ARGUMENT: "BAD_ARGUMENTS INVALID_ACL MARSHALLING_ERROR",
    grpc.StatusCode.PERMISSION_DENIED: "NO_AUTH",
    grpc.StatusCode.UNAUTHENTICATED: "AUTH_FAILED",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "LIMIT_EXCEEDED QUOTA_EXCEEDED THROTTLED",
    grpc.StatusCode.UNAVAILABLE: "NO_QUORUM NOT_CAUGHT_UP SHUTTING_DOWN",
    grpc.StatusCode.DEADLINE_EXCEEDED: "OUTCOME_UNKNOWN",
    grpc.StatusCode.UNIMPLEMENTED: "UNIMPLEMENTED UNSUPPORTED_FEATURE",
    grpc.StatusCode.INTERNAL: "SYSTEM_ERROR RUNTIME_INCONSISTENCY",
}
"""As errors.proto promises it."""


def test_the_table_is_the_contracts() -> None:
    promised = {
        ErrorCode[name]: status for status, names in CONTRACT.items() for name in names.split()
    }
    assert promised == STATUS_OF_CODE


def test_only_what_was_certainly_not_applied_is_unavailable() -> None:
    for error_class in all_error_classes():
        if STATUS_OF_CODE[error_class.code] == grpc.StatusCode.UNAVAILABLE:
            assert error_class.applied.name == "NO", error_class


def test_the_detail_says_everything() -> None:
    error = BadVersionError("/a: no", path="/a", zxid=7, operation_index=0, retry_after_ms=5)
    assert error_detail(error) == errors_pb2.ErrorDetail(
        code=errors_pb2.ERROR_CODE_BAD_VERSION,
        applied=errors_pb2.APPLIED_NO,
        path="/a",
        zxid=7,
        operation_index=0,
        retry_after_ms=5,
    )
    assert not error_detail(NoNodeError("")).HasField("operation_index")


def test_the_trailers_say_it_twice() -> None:
    trailers = dict(trailers_of(OutcomeUnknownError("perhaps")))
    assert trailers["coordsvc-error"] == "OUTCOME_UNKNOWN"
    assert trailers["coordsvc-applied"] == "unknown"
    packed = trailers["grpc-status-details-bin"]
    assert isinstance(packed, bytes)
    status = status_pb2.Status.FromString(packed)
    assert status.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]
    assert status.message == "perhaps"
    detail = errors_pb2.ErrorDetail()
    assert len(status.details) == 1 and status.details[0].Unpack(detail)
    assert detail.code == errors_pb2.ERROR_CODE_OUTCOME_UNKNOWN
    assert detail.applied == errors_pb2.APPLIED_UNKNOWN
    assert status_of(NoQuorumError()) == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("character", ["a", "é", "€", "𝄞", "\ufffd"])
@pytest.mark.parametrize("length", [0, 1, 84, 256, 257, 1024, 1025, 5000])
def test_what_is_too_long_is_cut_at_a_character_and_marked(character: str, length: int) -> None:
    text = character * length
    for bytes_max in (MESSAGE_BYTES_MAX, PATH_BYTES_MAX):
        shown = cut(text, bytes_max)
        assert len(shown.encode()) <= bytes_max
        if len(text.encode()) <= bytes_max:
            assert shown == text
        else:
            assert shown.endswith("...") and text.startswith(shown[:-3])
            assert len(shown.encode()) > bytes_max - 4 - len("...")


def test_messages_and_paths_are_bounded() -> None:
    error = NoNodeError("x" * 9000, path="/" + "y" * 9000)
    assert len(status_message(error).encode()) == MESSAGE_BYTES_MAX
    assert len(error_detail(error).path.encode()) == PATH_BYTES_MAX
    size = sum(len(key) + len(value) for key, value in trailers_of(error))
    assert size < 2048
