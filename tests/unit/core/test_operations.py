"""The tree's operations one by one: stats, rights, the order of refusals, limits, multi.

Ref: ZooKeeper PrepRequestProcessor.pRequest2Txn.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from coordsvc.core.commands import (
    ADMIN,
    ALL,
    CREATE,
    DELETE,
    EPHEMERAL,
    NO_CALLER,
    PERSISTENT,
    PERSISTENT_SEQUENTIAL,
    PERSISTENT_WITH_TTL,
    READ,
    WRITE,
    Acl,
    AclSet,
    AuthId,
    Caller,
    Checked,
    CheckOp,
    Created,
    CreateOp,
    DataSet,
    Deleted,
    DeleteOp,
    MultiDone,
    MultiOp,
    Op,
    Refusal,
    SetAclOp,
    SetDataOp,
    Stat,
    Write,
)
from coordsvc.core.machine import Machine
from coordsvc.core.records import DATA_BYTES_MAX, INT64_MAX, MULTI_OPS_MAX
from coordsvc.core.state import State
from coordsvc.errors import ErrorCode
from tests.unit.core.harness import Harness

NO_ONE = (Acl(ALL, "digest", "no:one"),)
SUPER = Caller(ids=(AuthId("super", ""),))
TOO_LARGE = b"x" * (DATA_BYTES_MAX + 1)


def world(permissions: int) -> tuple[Acl, ...]:
    return (Acl(permissions, "world", "anyone"),)


@pytest.fixture
def harness() -> Harness:
    return Harness()


def refused(harness: Harness, op: Op, caller: Caller | None = None) -> ErrorCode:
    result = harness.result(op, caller or Caller())
    assert isinstance(result, Refusal), result
    return ErrorCode(result.code)


def test_stat_of_a_create(harness: Harness) -> None:
    harness.time_ms = 5_000
    session_id = harness.open_session()
    reply = harness.write(CreateOp("/e", b"abc", EPHEMERAL), Caller(session_id))
    zxid = reply.zxid
    assert reply.result == Created(
        "/e", Stat(zxid, zxid, zxid, 5_000, 5_000, 0, 0, 0, session_id, 3, 0)
    )
    root = harness.state.znodes["/"].stat
    assert (root.pzxid, root.cversion, root.num_children, root.mzxid) == (zxid, 1, 2, 0)


def test_results_of_each_operation(harness: Harness) -> None:
    harness.create("/a")
    assert isinstance(harness.result(SetDataOp("/a", b"x")), DataSet)
    assert isinstance(harness.result(SetAclOp("/a", world(ALL))), AclSet)
    assert harness.result(MultiOp((CheckOp("/a"),))) == MultiDone((Checked(),))
    assert harness.result(DeleteOp("/a")) == Deleted()
    assert harness.result(MultiOp(())) == MultiDone(())


# Each line is refused for all of its reasons from its place on: the first must win.
CREATE_REFUSALS = [
    (CreateOp("no-slash", TOO_LARGE, 9, 0, ()), ErrorCode.BAD_ARGUMENTS),
    (CreateOp("no-slash", TOO_LARGE, PERSISTENT_WITH_TTL, 0, ()), ErrorCode.BAD_ARGUMENTS),
    (CreateOp("no-slash", TOO_LARGE, PERSISTENT, 0, ()), ErrorCode.LIMIT_EXCEEDED),
    (CreateOp("no-slash", b"", PERSISTENT, 0, ()), ErrorCode.BAD_ARGUMENTS),
    (CreateOp("/missing/\0", b"", PERSISTENT, 0, ()), ErrorCode.BAD_ARGUMENTS),
    (CreateOp("/missing/.", b"", PERSISTENT, 0, ()), ErrorCode.INVALID_ACL),
    (CreateOp("/missing/.", b"", PERSISTENT), ErrorCode.NO_NODE),
    (CreateOp("/closed/.", b"", PERSISTENT), ErrorCode.NO_AUTH),
    (CreateOp("/closed/c", b"", PERSISTENT), ErrorCode.NO_AUTH),
    (CreateOp("/open/.", b"", PERSISTENT), ErrorCode.BAD_ARGUMENTS),
    (CreateOp("/open/", b"", PERSISTENT), ErrorCode.BAD_ARGUMENTS),
    (CreateOp("/open/c", b"", PERSISTENT), ErrorCode.NODE_EXISTS),
    (CreateOp("/", b"", PERSISTENT), ErrorCode.NODE_EXISTS),
    (CreateOp("/e/c", b"", PERSISTENT), ErrorCode.NO_CHILDREN_FOR_EPHEMERALS),
    (CreateOp("/e/.", b"", PERSISTENT), ErrorCode.BAD_ARGUMENTS),
    (CreateOp("/e2", b"", EPHEMERAL), ErrorCode.BAD_ARGUMENTS),  # without a session
]

OTHER_REFUSALS = [
    (DeleteOp("no-slash", -2), ErrorCode.BAD_ARGUMENTS),
    (DeleteOp("/missing/\0"), ErrorCode.BAD_ARGUMENTS),
    (DeleteOp("/zookeeper", 9), ErrorCode.BAD_ARGUMENTS),
    (DeleteOp("/missing/c", -2), ErrorCode.BAD_ARGUMENTS),
    (DeleteOp("/missing/c", 9), ErrorCode.NO_NODE),
    (DeleteOp("/closed/missing", 9), ErrorCode.NO_AUTH),
    (DeleteOp("/closed/c", 9), ErrorCode.NO_AUTH),
    (DeleteOp("/open/missing", 9), ErrorCode.NO_NODE),
    (DeleteOp("/open/c", 9), ErrorCode.BAD_VERSION),
    (DeleteOp("/open", 9), ErrorCode.BAD_VERSION),
    (DeleteOp("/open", 0), ErrorCode.NOT_EMPTY),
    (SetDataOp("/open/", TOO_LARGE, 9), ErrorCode.BAD_ARGUMENTS),
    (SetDataOp("/closed", TOO_LARGE, -2), ErrorCode.BAD_ARGUMENTS),
    (SetDataOp("/closed", TOO_LARGE, 9), ErrorCode.LIMIT_EXCEEDED),
    (SetDataOp("/missing", b"", 9), ErrorCode.NO_NODE),
    (SetDataOp("/closed", b"", 9), ErrorCode.NO_AUTH),
    (SetDataOp("/open", b"", 9), ErrorCode.BAD_VERSION),
    (SetAclOp("/missing/", (), 9), ErrorCode.BAD_ARGUMENTS),
    (SetAclOp("/missing", (), -2), ErrorCode.BAD_ARGUMENTS),
    (SetAclOp("/missing", (), 9), ErrorCode.INVALID_ACL),
    (SetAclOp("/missing", world(ALL), 9), ErrorCode.NO_NODE),
    (SetAclOp("/closed", world(ALL), 9), ErrorCode.NO_AUTH),
    (SetAclOp("/open", world(ALL), 9), ErrorCode.BAD_VERSION),
]


@pytest.mark.parametrize(("op", "code"), CREATE_REFUSALS + OTHER_REFUSALS)
def test_order_of_refusals(harness: Harness, op: Op, code: ErrorCode) -> None:
    session_id = harness.open_session()
    harness.create("/open", "/open/c", "/closed", "/closed/c")
    harness.write(SetAclOp("/closed", NO_ONE))
    harness.write(CreateOp("/e", b"", EPHEMERAL), Caller(session_id))
    before = dict(harness.state.znodes)
    zxid = harness.state.zxid
    assert refused(harness, op) == code
    assert harness.state.znodes == before
    assert harness.state.zxid == zxid + 1, "a refused write takes a zxid"
    assert not harness.last_applied.changes


@pytest.mark.parametrize(
    ("op", "code"),
    [
        (CheckOp("/open/", -2), ErrorCode.BAD_ARGUMENTS),
        (CheckOp("/missing", -2), ErrorCode.BAD_ARGUMENTS),
        (CheckOp("/missing", 9), ErrorCode.NO_NODE),
        (CheckOp("/closed", 9), ErrorCode.NO_AUTH),
        (CheckOp("/open", 9), ErrorCode.BAD_VERSION),
    ],
)
def test_order_of_refusals_of_check(harness: Harness, op: CheckOp, code: ErrorCode) -> None:
    harness.create("/open", "/closed")
    harness.write(SetAclOp("/closed", NO_ONE))
    result = harness.result(MultiOp((op,)))
    assert isinstance(result, Refusal)
    assert (result.code, result.operation_index) == (code, 0)
    assert refused(harness, op) == ErrorCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("permission", "on_parent", "op"),
    [
        (CREATE, True, CreateOp("/p/new", b"")),
        (DELETE, True, DeleteOp("/p/c")),
        (WRITE, False, SetDataOp("/p/c", b"")),
        (ADMIN, False, SetAclOp("/p/c", world(ALL))),
        (READ, False, MultiOp((CheckOp("/p/c"),))),
    ],
)
def test_each_right(harness: Harness, permission: int, on_parent: bool, op: Op) -> None:
    """Each operation needs one right, on the znode or its parent, and no other."""
    harness.create("/p", "/p/c")
    path, other = ("/p", "/p/c") if on_parent else ("/p/c", "/p")
    harness.write(SetAclOp(other, NO_ONE))
    harness.write(SetAclOp(path, world(ALL & ~permission)))
    assert refused(harness, op) == ErrorCode.NO_AUTH
    harness.write(SetAclOp(path, world(permission)), SUPER)
    assert not isinstance(harness.result(op), Refusal)


def test_superuser_passes_everything(harness: Harness) -> None:
    harness.create("/p")
    harness.write(SetAclOp("/p", NO_ONE))
    for op in (CreateOp("/p/c", b""), SetDataOp("/p", b""), DeleteOp("/p/c")):
        assert refused(harness, op) == ErrorCode.NO_AUTH
        assert not isinstance(harness.result(op, SUPER), Refusal)


def test_another_sessions_ephemeral_may_be_deleted(harness: Harness) -> None:
    owner, other = harness.open_session(), harness.open_session()
    harness.write(CreateOp("/e", b"", EPHEMERAL), Caller(owner))
    assert harness.result(DeleteOp("/e"), Caller(other)) == Deleted()
    assert not harness.state.ephemerals_of(owner)


def test_limits_are_inclusive(harness: Harness) -> None:
    data = TOO_LARGE[1:]
    assert isinstance(harness.result(CreateOp("/a", data)), Created)
    assert isinstance(harness.result(SetDataOp("/a", data)), DataSet)
    checks = (CheckOp("/"),) * MULTI_OPS_MAX
    assert isinstance(harness.result(MultiOp(checks)), MultiDone)
    assert refused(harness, MultiOp((*checks, CheckOp("/")))) == ErrorCode.LIMIT_EXCEEDED


def test_sequence_number_counts_for_the_path_limit(harness: Harness) -> None:
    name = "/" + "x" * 4085
    assert isinstance(harness.result(CreateOp(name, b"", PERSISTENT_SEQUENTIAL)), Created)
    op = CreateOp(name + "x", b"", PERSISTENT_SEQUENTIAL)
    assert refused(harness, op) == ErrorCode.BAD_ARGUMENTS
    assert isinstance(harness.result(CreateOp(name + "x", b"")), Created)


def test_refusals_quote_a_bounded_part(harness: Harness) -> None:
    result = harness.result(SetDataOp("/" + "x" * 1_000_000, b""))
    assert isinstance(result, Refusal)
    assert len(result.path) < 1100
    assert len(result.message) < 400


def test_versions_and_counters_saturate() -> None:
    """At the largest signed 64-bit number they stay; nothing wraps."""
    harness = with_counters(Harness(), "/a", INT64_MAX - 1, 10**10)
    first = harness.result(CreateOp("/a/n-", b"", PERSISTENT_SEQUENTIAL))
    assert isinstance(first, Created) and first.path == "/a/n-10000000000"
    versions = []
    for _ in range(3):
        done = harness.result(SetDataOp("/a", b""))
        assert isinstance(done, DataSet)
        versions.append(done.stat.version)
        harness.result(SetAclOp("/a", world(ALL)))
    assert versions == [INT64_MAX] * 3
    assert harness.state.znodes["/a"].stat.aversion == INT64_MAX
    assert isinstance(harness.result(SetDataOp("/a", b"", INT64_MAX)), DataSet)


def with_counters(harness: Harness, path: str, versions: int, creates: int) -> Harness:
    """A harness whose znode at `path` has lived long."""
    harness.create(path)
    state = State.from_records(list(harness.state.export_records()))
    znode = state.znodes[path]
    stat = replace(znode.stat, version=versions, aversion=versions, cversion=2 * creates)
    state.replace(znode, replace(znode, stat=stat, creates=creates))
    harness.machine = Machine(state)
    return harness


def test_multi_is_one_zxid_and_one_group(harness: Harness) -> None:
    harness.create("/b")
    reply = harness.write(
        MultiOp((CreateOp("/a", b""), SetDataOp("/a", b"1"), DeleteOp("/a"), DeleteOp("/b")))
    )
    changes = harness.last_applied.changes
    assert [change.zxid for change in changes] == [reply.zxid] * 4
    assert [change.last_of_zxid for change in changes] == [False, False, False, True]


def test_check_at_the_end_of_a_multi_does_not_take_the_mark(harness: Harness) -> None:
    harness.write(MultiOp((CreateOp("/a", b""), CheckOp("/a"))))
    assert [change.last_of_zxid for change in harness.last_applied.changes] == [True]


def test_groups_do_not_run_into_each_other(harness: Harness) -> None:
    """In one entry: a plain write, a multi, a refused multi, a plain write."""
    harness.submit(
        Write(NO_CALLER, CreateOp("/a", b"")),
        Write(NO_CALLER, MultiOp((CreateOp("/b", b""), CreateOp("/c", b"")))),
        Write(NO_CALLER, MultiOp((CreateOp("/d", b""), CreateOp("/a", b"")))),
        Write(NO_CALLER, MultiOp((CheckOp("/"),))),
        Write(NO_CALLER, CreateOp("/e", b"")),
    )
    changes = [(change.path, change.last_of_zxid) for change in harness.last_applied.changes]
    assert changes == [("/a", True), ("/b", False), ("/c", True), ("/e", True)]


def test_refused_multi_is_taken_back_whole(harness: Harness) -> None:
    """Every kind of step: created, deleted, changed; ephemeral, container, TTL; node ids too."""
    session_id = harness.open_session()
    caller = Caller(session_id)
    harness.create("/p", "/p/old")
    harness.write(CreateOp("/e", b"", EPHEMERAL), caller)
    harness.write(CreateOp("/c", b"", 4), caller)
    harness.write(CreateOp("/t", b"", 5, 9), caller)
    before = list(harness.state.export_records())
    steps = (
        CreateOp("/p/new", b""),
        CreateOp("/p/new/n-", b"", 2),
        SetDataOp("/p/old", b"x"),
        DeleteOp("/p/old"),
        DeleteOp("/e"),
        DeleteOp("/c"),
        DeleteOp("/t"),
        CreateOp("/e", b"", EPHEMERAL),
        CreateOp("/c", b"", 4),
        CreateOp("/t", b"", 5, 9),
        CheckOp("/missing"),
    )
    result = harness.result(MultiOp(steps), caller)
    assert isinstance(result, Refusal)
    assert (result.code, result.operation_index) == (ErrorCode.NO_NODE, 10)
    after = list(harness.state.export_records())
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 2, "the scalars (zxid) and the origin's seq"
    assert not harness.last_applied.changes


def test_zxids_are_without_gaps(harness: Harness) -> None:
    session_id = harness.open_session()
    replies = [
        harness.write(op, Caller(session_id))
        for op in (
            CreateOp("/a", b""),
            CreateOp("/a", b""),
            MultiOp((CheckOp("/missing"),)),
            CheckOp("/a"),
            SetDataOp("/a", b"", 7),
            DeleteOp("/a"),
        )
    ]
    assert all(second.zxid == first.zxid + 1 for first, second in pairwise(replies))
