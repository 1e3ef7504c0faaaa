"""The door: what is refused before it becomes a command, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coordsvc.core.commands import (
    ANY_VERSION,
    OPEN_ACL,
    PERSISTENT,
    PERSISTENT_WITH_TTL,
    Acl,
    CheckOp,
    CreateOp,
    DeleteOp,
    SetDataOp,
)
from coordsvc.errors import (
    BadArgumentsError,
    CoordError,
    LimitExceededError,
    UnsupportedFeatureError,
)
from coordsvc.server import convert
from coordsvc.server.config_model import ClusterConfig
from coordsvc.v1 import common_pb2, coordination_pb2
from coordsvc.v1.coordination_pb2 import (
    CreateRequest,
    DeleteRequest,
    MultiOperation,
    MultiRequest,
    SetAclRequest,
    SetDataRequest,
)

LIMITS = ClusterConfig()
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def context(**fields: object) -> convert.RequestContext:
    return convert.request_context(common_pb2.RequestContext(**fields), LIMITS)  # type: ignore[arg-type]


def session(session_id: int) -> common_pb2.SessionCredentials:
    return common_pb2.SessionCredentials(session_id=session_id, password=b"p" * 16)


def test_null_is_not_empty() -> None:
    assert convert.create_op(CreateRequest(path="/a"), LIMITS).data is None
    assert convert.create_op(CreateRequest(path="/a", data=b""), LIMITS).data == b""
    assert convert.set_data_op(SetDataRequest(path="/a"), LIMITS).data is None
    assert convert.set_data_op(SetDataRequest(path="/a", data=b""), LIMITS).data == b""


def test_an_absent_version_is_any_and_zero_is_zero() -> None:
    assert convert.delete_op(DeleteRequest(path="/a"), LIMITS).version == ANY_VERSION
    for version in (ANY_VERSION, 0, 1, INT64_MAX):
        request = DeleteRequest(path="/a", expected_version=version)
        assert convert.delete_op(request, LIMITS).version == version


@pytest.mark.parametrize("version", [-2, INT64_MIN])
def test_other_negative_versions_are_refused(version: int) -> None:
    for refuse in (
        lambda: convert.delete_op(DeleteRequest(path="/a", expected_version=version), LIMITS),
        lambda: convert.set_data_op(SetDataRequest(path="/a", expected_version=version), LIMITS),
        lambda: convert.set_acl_op(SetAclRequest(path="/a", expected_aversion=version), LIMITS),
        lambda: convert.check_op(
            coordination_pb2.CheckOperation(path="/a", expected_version=version), LIMITS
        ),
    ):
        with pytest.raises(BadArgumentsError, match=str(version)):
            refuse()


def test_the_seven_modes_and_no_other() -> None:
    modes = {
        mode: convert.create_op(
            CreateRequest(path="/a", mode=mode, ttl_ms=5 if mode in (5, 6) else 0), LIMITS
        ).mode
        for mode in range(8)
    }
    assert modes == {0: PERSISTENT, 1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: PERSISTENT}
    for unknown in (8, -1, 2**31 - 1):
        with pytest.raises(BadArgumentsError, match="unknown create mode"):
            convert.create_op(CreateRequest(path="/a", mode=unknown), LIMITS)  # type: ignore[arg-type]


@pytest.mark.parametrize("ttl_ms", [1, 2**40 - 1])
def test_a_ttl_in_range_is_taken(ttl_ms: int) -> None:
    request = CreateRequest(path="/a", mode=common_pb2.CREATE_MODE_PERSISTENT_WITH_TTL)
    request.ttl_ms = ttl_ms
    op = convert.create_op(request, LIMITS)
    assert (op.mode, op.ttl_ms) == (PERSISTENT_WITH_TTL, ttl_ms)


@pytest.mark.parametrize(
    ("mode", "ttl_ms"), [(5, 0), (6, 0), (5, -1), (5, 2**40), (5, INT64_MAX), (0, 1), (4, -1)]
)
def test_a_ttl_out_of_range_or_place_is_refused(mode: int, ttl_ms: int) -> None:
    with pytest.raises(BadArgumentsError, match="ttl_ms"):
        convert.create_op(CreateRequest(path="/a", mode=mode, ttl_ms=ttl_ms), LIMITS)  # type: ignore[arg-type]


def test_an_empty_acl_is_open_in_a_create_and_empty_in_a_set() -> None:
    assert convert.create_op(CreateRequest(path="/a"), LIMITS).acl == OPEN_ACL
    assert convert.set_acl_op(SetAclRequest(path="/a"), LIMITS).acl == ()
    entry = common_pb2.Acl(permissions=31, scheme="world", id="anyone")
    request = CreateRequest(path="/a", acl=[entry])
    assert convert.create_op(request, LIMITS).acl == (Acl(31, "world", "anyone"),)


TOO_LONG = "/" + "é" * 2048
"""4,097 bytes, in fewer characters."""


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: convert.create_op(CreateRequest(path=TOO_LONG), LIMITS),
        lambda: convert.delete_op(DeleteRequest(path=TOO_LONG), LIMITS),
        lambda: convert.set_data_op(SetDataRequest(path=TOO_LONG), LIMITS),
        lambda: convert.set_acl_op(SetAclRequest(path=TOO_LONG), LIMITS),
        lambda: context(guard=common_pb2.Guard(path=TOO_LONG, czxid=1)),
    ],
)
def test_a_path_above_the_limit_is_a_bad_argument(refuse: Callable[[], object]) -> None:
    with pytest.raises(BadArgumentsError, match="4097 bytes"):
        refuse()


def test_a_path_at_the_limit_is_taken() -> None:
    convert.delete_op(DeleteRequest(path="/" + "a" * 4095), LIMITS)


def test_a_sequential_path_may_end_in_a_slash_and_others_not() -> None:
    for mode, is_sequential in enumerate((False, False, True, True, False, False, True, False)):
        request = CreateRequest(path="/q/", mode=mode, ttl_ms=1 if mode in (5, 6) else 0)  # type: ignore[arg-type]
        if is_sequential:
            assert convert.create_op(request, LIMITS).path == "/q/"
        else:
            with pytest.raises(BadArgumentsError):
                convert.create_op(request, LIMITS)


@pytest.mark.parametrize("path", ["", "q", "/q//", "/q/../", "/\x01"])
def test_a_sequential_path_that_no_suffix_makes_good_is_refused(path: str) -> None:
    with pytest.raises(BadArgumentsError):
        convert.create_op(CreateRequest(path=path, mode=2), LIMITS)  # type: ignore[arg-type]


def test_data_above_the_limit_is_refused_and_at_the_limit_taken() -> None:
    limit = LIMITS.data_size_bytes_max
    convert.set_data_op(SetDataRequest(path="/a", data=b"x" * limit), LIMITS)
    for request in (SetDataRequest(path="/a", data=b"x" * (limit + 1)),):
        with pytest.raises(LimitExceededError) as caught:
            convert.set_data_op(request, LIMITS)
        assert caught.value.path == "/a"
    with pytest.raises(LimitExceededError):
        convert.create_op(CreateRequest(path="/a", data=b"x" * (limit + 1)), LIMITS)


def test_a_multi_becomes_its_operations() -> None:
    request = MultiRequest(
        operations=[
            MultiOperation(create=coordination_pb2.CreateOperation(path="/a", data=b"")),
            MultiOperation(delete=coordination_pb2.DeleteOperation(path="/b", expected_version=3)),
            MultiOperation(set_data=coordination_pb2.SetDataOperation(path="/c")),
            MultiOperation(check=coordination_pb2.CheckOperation(path="/d", expected_version=0)),
        ]
    )
    assert convert.multi_op(request, LIMITS).ops == (
        CreateOp("/a", b""),
        DeleteOp("/b", 3),
        SetDataOp("/c", None),
        CheckOp("/d", 0),
    )


def test_a_fault_within_a_multi_names_the_operation() -> None:
    good = MultiOperation(delete=coordination_pb2.DeleteOperation(path="/b"))
    for bad in (
        MultiOperation(),
        MultiOperation(delete=coordination_pb2.DeleteOperation(path="/b", expected_version=-7)),
        MultiOperation(
            set_data=coordination_pb2.SetDataOperation(path="/c", data=b"x" * (2**20 + 1))
        ),
    ):
        with pytest.raises(CoordError) as caught:
            convert.multi_op(MultiRequest(operations=[good, bad]), LIMITS)
        assert caught.value.operation_index == 1


def test_a_multi_of_too_many_operations_is_refused_as_a_whole() -> None:
    operation = MultiOperation(delete=coordination_pb2.DeleteOperation(path="/b"))
    assert len(convert.multi_op(MultiRequest(operations=[operation] * 128), LIMITS).ops) == 128
    with pytest.raises(LimitExceededError) as caught:
        convert.multi_op(MultiRequest(operations=[operation] * 129), LIMITS)
    assert caught.value.operation_index is None


@pytest.mark.parametrize(
    "fields",
    [
        {"session": session(0)},
        {"session": session(-1)},
        {"session": common_pb2.SessionCredentials(session_id=1, password=b"p" * 65)},
        {"min_zxid": -1},
        {"min_zxid": INT64_MIN},
        {"request_number": -1, "session": session(1)},
        {"done_below": -1, "session": session(1)},
        {"request_number": 1},
        {"guard": common_pb2.Guard()},
        {"guard": common_pb2.Guard(path="/a", czxid=0)},
        {"guard": common_pb2.Guard(czxid=1)},
    ],
)
def test_a_context_out_of_range_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(BadArgumentsError):
        context(**fields)


def test_a_context_in_range_is_taken() -> None:
    assert context() == convert.RequestContext()
    taken = context(
        session=session(INT64_MAX),
        min_zxid=INT64_MAX,
        request_number=INT64_MAX,
        done_below=3,
        guard=common_pb2.Guard(path="/a", czxid=9),
    )
    assert taken == convert.RequestContext(INT64_MAX, b"p" * 16, INT64_MAX, INT64_MAX, 3, "/a", 9)


def test_an_unknown_required_feature_is_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match="teleport"):
        context(required_features=["teleport"])


def test_consistency() -> None:
    assert [convert.is_linearizable(value) for value in (0, 1, 2)] == [False, False, True]
    with pytest.raises(BadArgumentsError):
        convert.is_linearizable(3)


def test_a_sessions_timeout_is_raised_or_lowered_to_the_bounds() -> None:
    wanted = (1, 1_000, 30_000, 3_600_000, INT64_MAX, 0)
    given = [convert.timeout_ms(value, LIMITS) for value in wanted]
    assert given == [1_000, 1_000, 30_000, 120_000, 120_000, 10_000]
    with pytest.raises(BadArgumentsError):
        convert.timeout_ms(-1, LIMITS)
