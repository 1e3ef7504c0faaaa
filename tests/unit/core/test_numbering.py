"""Both levels of numbers: a retry answers as the first time, and nothing runs twice."""

from __future__ import annotations

import pytest

from coordsvc.core.commands import (
    APPLIED,
    DUPLICATE,
    GAP,
    NO_CALLER,
    PERSISTENT_SEQUENTIAL,
    VOID,
    AppliedBatch,
    AuthId,
    Batch,
    Caller,
    ClientCommand,
    Created,
    CreateOp,
    DeleteOp,
    OriginRegistered,
    Refusal,
    RegisterOrigin,
    Reply,
    SetDataOp,
    Write,
)
from coordsvc.core.records import OUTSTANDING_REQUESTS_MAX
from coordsvc.errors import ErrorCode
from tests.unit.core.harness import Harness, rebuilt

SEQUENTIAL = CreateOp("/n-", b"", PERSISTENT_SEQUENTIAL)


@pytest.fixture
def harness() -> Harness:
    return Harness()


def code_of(reply: Reply) -> ErrorCode:
    assert isinstance(reply.result, Refusal), reply
    return ErrorCode(reply.result.code)


# ----------------------------------------------------------------------------- sessions


def test_retry_answers_as_the_first_time(harness: Harness) -> None:
    """Result and zxid; one znode; no zxid taken. Also from a rebuilt machine."""
    caller = Caller(harness.open_session(), 0, 1)
    first = harness.write(SEQUENTIAL, caller)
    harness.create("/between")
    before = harness.state.zxid
    assert harness.write(SEQUENTIAL, caller) == first
    harness.machine = rebuilt(harness.machine)
    assert harness.write(SEQUENTIAL, caller) == first
    assert harness.state.zxid == before
    assert not harness.last_applied.changes
    assert harness.state.child_names("/") == ["between", "n-0000000000", "zookeeper"]


def test_retry_of_a_refusal_is_refused_again(harness: Harness) -> None:
    """Even when it could succeed by now."""
    caller = Caller(harness.open_session(), 0, 1)
    first = harness.write(SetDataOp("/a", b"late"), caller)
    assert code_of(first) == ErrorCode.NO_NODE
    harness.create("/a")
    assert harness.write(SetDataOp("/a", b"late"), caller) == first
    assert harness.state.znodes["/a"].data == b""


def test_retry_is_the_same_operation(harness: Harness) -> None:
    """Another operation, or another guard, under a used number is the client's mistake. The
    connection's identities may differ: a retry may come over another one."""
    session_id = harness.open_session()
    first = harness.write(SEQUENTIAL, Caller(session_id, 0, 1))
    before = harness.state.zxid
    for op, caller in (
        (DeleteOp("/n-"), Caller(session_id, 0, 1)),
        (CreateOp("/n-", b"x", PERSISTENT_SEQUENTIAL), Caller(session_id, 0, 1)),
        (SEQUENTIAL, Caller(session_id, 0, 1, guard_path="/", guard_czxid=0)),
    ):
        assert code_of(harness.write(op, caller)) == ErrorCode.BAD_ARGUMENTS
    assert harness.state.zxid == before
    elsewhere = Caller(session_id, 0, 1, ids=(AuthId("ip", "10.0.0.1"),))
    assert harness.write(SEQUENTIAL, elsewhere) == first


@pytest.mark.parametrize("number", [2, 3, 1000, 2**63])
def test_number_after_a_gap(harness: Harness, number: int) -> None:
    """n is applied only after n-1."""
    session_id = harness.open_session()
    before = harness.state.zxid
    reply = harness.write(SEQUENTIAL, Caller(session_id, 0, number))
    assert code_of(reply) == ErrorCode.REQUEST_OUT_OF_ORDER
    assert (reply.zxid, harness.state.zxid) == (before, before)
    assert not isinstance(harness.write(SEQUENTIAL, Caller(session_id, 0, 1)).result, Refusal)


def test_forgotten_results(harness: Harness) -> None:
    """Below the floor nothing is kept and nothing is run."""
    session_id = harness.open_session()
    for number in (1, 2, 3):
        harness.write(SEQUENTIAL, Caller(session_id, 0, number))
    fourth = harness.write(SEQUENTIAL, Caller(session_id, 0, 4, 3))
    assert set(harness.state.results) == {(session_id, 3), (session_id, 4)}
    before = harness.state.zxid
    for number in (1, 2):
        reply = harness.write(SEQUENTIAL, Caller(session_id, 0, number))
        assert code_of(reply) == ErrorCode.RESULT_FORGOTTEN
    assert not isinstance(harness.write(SEQUENTIAL, Caller(session_id, 0, 3)).result, Refusal)
    assert harness.write(SEQUENTIAL, Caller(session_id, 0, 4)) == fourth
    assert harness.state.zxid == before


def test_floor_never_falls(harness: Harness) -> None:
    """An old copy of a request carries an old floor."""
    session_id = harness.open_session()
    for number, done_below in ((1, 0), (2, 2), (3, 1), (4, 0)):
        harness.write(SEQUENTIAL, Caller(session_id, 0, number, done_below))
    assert harness.state.sessions[session_id].done_below == 2


def test_delayed_copies_a_thousand_numbers_later(harness: Harness) -> None:
    session_id = harness.open_session()
    numbers = range(1, 1200)
    harness.submit(
        *(
            Write(Caller(session_id, 0, number, max(0, number - 5)), SEQUENTIAL)
            for number in numbers
        )
    )
    before = list(harness.state.znodes.values())
    replies = harness.submit(
        *(Write(Caller(session_id, 0, number), SEQUENTIAL) for number in numbers)
    )
    assert list(harness.state.znodes.values()) == before
    forgotten, answered = replies[:1193], replies[1193:]
    assert {code_of(reply) for reply in forgotten} == {ErrorCode.RESULT_FORGOTTEN}
    assert not any(isinstance(reply.result, Refusal) for reply in answered)


def test_window(harness: Harness) -> None:
    """At most so many results are kept; the next is refused until the floor rises."""
    session_id = harness.open_session()
    numbers = range(1, OUTSTANDING_REQUESTS_MAX + 1)
    replies = harness.submit(
        *(Write(Caller(session_id, 0, number), SetDataOp("/", b"")) for number in numbers)
    )
    assert not any(isinstance(reply.result, Refusal) for reply in replies)
    next_number = OUTSTANDING_REQUESTS_MAX + 1
    before = harness.state.zxid
    for done_below in (0, 1):
        reply = harness.write(SEQUENTIAL, Caller(session_id, 0, next_number, done_below))
        assert code_of(reply) == ErrorCode.LIMIT_EXCEEDED
    assert harness.state.zxid == before
    reply = harness.write(SEQUENTIAL, Caller(session_id, 0, next_number, 2))
    assert isinstance(reply.result, Created)
    assert len(harness.state.results) == OUTSTANDING_REQUESTS_MAX


@pytest.mark.parametrize(("number", "done_below"), [(-1, 0), (1, 2), (1, -1), (-5, -5)])
def test_impossible_numbers(harness: Harness, number: int, done_below: int) -> None:
    session_id = harness.open_session()
    before = harness.state.zxid
    reply = harness.write(SEQUENTIAL, Caller(session_id, 0, number, done_below))
    assert code_of(reply) == ErrorCode.BAD_ARGUMENTS
    assert harness.state.zxid == before


def test_number_without_a_session(harness: Harness) -> None:
    assert code_of(harness.write(SEQUENTIAL, Caller(0, 0, 1))) == ErrorCode.SESSION_EXPIRED


def test_guard(harness: Harness) -> None:
    """A write happens only while that very znode lives; a failed guard is an answer that is kept
    like another."""
    session_id = harness.open_session()
    lock = harness.write(CreateOp("/lock", b"")).zxid
    harness.create("/a")

    def guarded(czxid: int, number: int = 0, path: str = "/lock") -> Caller:
        return Caller(session_id, 0, number, 0, (), path, czxid)

    assert not isinstance(harness.write(SetDataOp("/a", b"1"), guarded(lock)).result, Refusal)
    for czxid, path in ((lock + 1, "/lock"), (lock, "/missing"), (0, "/missing")):
        reply = harness.write(SetDataOp("/a", b"2"), guarded(czxid, 0, path))
        assert code_of(reply) == ErrorCode.GUARD_FAILED
        assert reply.zxid == harness.state.zxid
    harness.write(DeleteOp("/lock"))
    newer = harness.write(CreateOp("/lock", b"")).zxid
    refused = harness.write(SetDataOp("/a", b"3"), guarded(lock, 1))
    assert code_of(refused) == ErrorCode.GUARD_FAILED
    assert harness.write(SetDataOp("/a", b"3"), guarded(lock, 1)) == refused
    assert harness.state.znodes["/a"].data == b"1"
    assert not isinstance(harness.write(SetDataOp("/a", b"4"), guarded(newer, 2)).result, Refusal)


# ------------------------------------------------------------------------------ origins


def batch(
    harness: Harness, seq: int, *commands: ClientCommand, incarnation: int | None = None
) -> AppliedBatch:
    own = harness.incarnation if incarnation is None else incarnation
    return harness.apply((Batch(1, own, seq, commands),)).batches[0]


CREATE = Write(NO_CALLER, SEQUENTIAL)


def test_batches_run_in_order_and_once(harness: Harness) -> None:
    def fared(seq: int) -> tuple[int, int, int]:
        applied = batch(harness, seq, CREATE)
        return applied.status, applied.expected_seq, len(applied.replies)

    assert fared(1) == (APPLIED, 2, 1)
    before = harness.state.zxid
    assert fared(3) == (GAP, 2, 0)
    assert fared(1) == (DUPLICATE, 2, 0)
    assert harness.state.zxid == before
    assert fared(2) == (APPLIED, 3, 1)
    assert fared(1) == (DUPLICATE, 3, 0)
    assert fared(3) == (APPLIED, 4, 1)
    assert fared(-1) == (VOID, 4, 0)
    assert len(harness.state.child_names("/")) == 4


def test_empty_batch_counts(harness: Harness) -> None:
    assert batch(harness, 1).status == APPLIED
    assert batch(harness, 2, CREATE).status == APPLIED


def test_batches_of_one_entry(harness: Harness) -> None:
    """One origin may have several in an entry, copies included."""
    batches = tuple(Batch(1, harness.incarnation, seq, (CREATE,)) for seq in (1, 1, 2, 4, 3))
    applied = harness.apply(batches).batches
    assert [each.status for each in applied] == [APPLIED, DUPLICATE, APPLIED, GAP, APPLIED]
    assert [each.expected_seq for each in applied] == [2, 2, 3, 3, 4]


def register(
    harness: Harness,
    nonce: bytes,
    replica_id: int = 1,
    own: int | None = None,
    incarnation: int = 0,
) -> AppliedBatch:
    command = RegisterOrigin(replica_id if own is None else own, nonce)
    return harness.apply((Batch(replica_id, incarnation, 0, (command,)),)).batches[0]


def test_new_incarnation(harness: Harness) -> None:
    """It is the registration's zxid; batches of another one are void."""
    batch(harness, 1, CREATE)
    old, before = harness.incarnation, harness.state.zxid
    applied = register(harness, b"another")
    incarnation = before + 1
    assert applied.status == APPLIED
    assert applied.replies == (Reply(incarnation, OriginRegistered(incarnation)),)
    assert applied.expected_seq == 1
    assert batch(harness, 2, CREATE, incarnation=old).status == VOID
    assert batch(harness, 1, CREATE, incarnation=incarnation).status == APPLIED


def test_repeated_registration_changes_nothing(harness: Harness) -> None:
    batch(harness, 1, CREATE)
    before = harness.state.zxid
    applied = register(harness, b"nonce")
    assert applied.replies == (Reply(harness.incarnation, OriginRegistered(harness.incarnation)),)
    assert (applied.status, applied.expected_seq) == (APPLIED, 2)
    assert harness.state.zxid == before


def test_origins_are_apart(harness: Harness) -> None:
    second = register(harness, b"nonce", replica_id=2).replies[0].zxid
    assert batch(harness, 1, CREATE).status == APPLIED
    applied = harness.apply((Batch(2, second, 1, (CREATE,)),)).batches[0]
    assert (applied.replica_id, applied.status) == (2, APPLIED)


@pytest.mark.parametrize("replica_id", [0, -1, 2**31, 2**63])
def test_registration_of_no_replica(harness: Harness, replica_id: int) -> None:
    assert register(harness, b"nonce", replica_id).status == VOID


def test_malformed_registrations_are_void(harness: Harness) -> None:
    before = harness.state.zxid
    assert register(harness, b"").status == VOID
    assert register(harness, b"x" * 65).status == VOID
    assert register(harness, b"x", replica_id=1, own=2).status == VOID
    assert register(harness, b"x", incarnation=1).status == VOID
    for commands in ((), (CREATE,), (RegisterOrigin(1, b"x"), CREATE)):
        applied = harness.apply((Batch(1, 0, 0, commands),)).batches[0]
        assert applied.status == VOID
    assert harness.state.zxid == before


def test_unknown_origin_is_void(harness: Harness) -> None:
    applied = harness.apply((Batch(3, 1, 1, (CREATE,)),)).batches[0]
    assert (applied.status, applied.expected_seq) == (VOID, 0)


def test_registration_amid_other_commands_is_refused(harness: Harness) -> None:
    before = harness.state.zxid
    first, second = harness.submit(RegisterOrigin(1, b"late"), CREATE)
    assert code_of(first) == ErrorCode.BAD_ARGUMENTS
    assert isinstance(second.result, Created)
    assert harness.state.zxid == before + 1
    assert harness.state.origins[1].nonce == b"nonce"
