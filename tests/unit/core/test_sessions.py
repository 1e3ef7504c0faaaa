"""Sessions, and the table of what may happen to one."""

from __future__ import annotations

import pytest

from coordsvc.core.commands import (
    DELETED,
    EPHEMERAL,
    NO_CALLER,
    AddAuthOp,
    AttachSessionOp,
    AuthAdded,
    AuthId,
    Caller,
    CloseSessionOp,
    CreateOp,
    ExpireSession,
    Op,
    OpenSession,
    Refusal,
    SessionAttached,
    SessionClosed,
    SessionOpened,
    SetDataOp,
    Write,
)
from coordsvc.core.records import AUTH_IDS_MAX, ID_BYTES_MAX, TIMEOUT_MS_MAX
from coordsvc.errors import ErrorCode
from tests.unit.core.harness import PASSWORD, TERM, Harness


@pytest.fixture
def harness() -> Harness:
    return Harness()


def code_of(result: object) -> ErrorCode:
    assert isinstance(result, Refusal), result
    return ErrorCode(result.code)


@pytest.mark.parametrize("attached", [False, True])
def test_open(harness: Harness, attached: bool) -> None:
    """The id is the zxid; opened by a stream it starts attached."""
    reply = harness.submit(OpenSession(5_000, PASSWORD, "app", attached))[0]
    assert reply.result == SessionOpened(reply.zxid, 5_000, int(attached))
    session = harness.state.sessions[reply.zxid]
    assert (session.password, session.client_name) == (PASSWORD, "app")
    assert harness.last_applied.opened_sessions == (reply.zxid,)


@pytest.mark.parametrize(
    "command",
    [
        OpenSession(0, PASSWORD),
        OpenSession(-1, PASSWORD),
        OpenSession(TIMEOUT_MS_MAX + 1, PASSWORD),
        OpenSession(5_000, b""),
        OpenSession(5_000, PASSWORD + b"x"),
        OpenSession(5_000, PASSWORD, "x" * 257),
    ],
)
def test_open_refused(harness: Harness, command: OpenSession) -> None:
    zxid = harness.state.zxid
    reply = harness.submit(command)[0]
    assert code_of(reply.result) == ErrorCode.BAD_ARGUMENTS
    assert reply.zxid == zxid + 1
    assert not harness.state.sessions


def test_close_takes_ephemerals_at_one_zxid(harness: Harness) -> None:
    session_id = harness.open_session()
    harness.create("/p")
    for path in ("/p/b", "/a", "/p/a"):
        harness.write(CreateOp(path, b"", EPHEMERAL), Caller(session_id))
    reply = harness.write(CloseSessionOp(), Caller(session_id))
    assert reply.result == SessionClosed()
    changes = harness.last_applied.changes
    assert [(change.type, change.path) for change in changes] == [
        (DELETED, "/a"),
        (DELETED, "/p/a"),
        (DELETED, "/p/b"),
    ]
    assert {change.zxid for change in changes} == {reply.zxid}
    assert [change.last_of_zxid for change in changes] == [False, False, True]
    assert harness.last_applied.closed_sessions == (session_id,)
    assert not harness.state.sessions


@pytest.mark.parametrize(
    "op", [SetDataOp("/", b""), CloseSessionOp(), AttachSessionOp(), AddAuthOp(())]
)
def test_after_the_end_everything_is_expired(harness: Harness, op: Op) -> None:
    """Also its own close, and whatever number or epoch it carries; each takes a zxid."""
    session_id = harness.open_session()
    harness.write(CloseSessionOp(), Caller(session_id, 0, 1))
    before = harness.state.zxid
    for count, caller in enumerate(
        (Caller(session_id), Caller(session_id, 0, 1), Caller(session_id, 5), Caller(10**18)), 1
    ):
        reply = harness.write(op, caller)
        assert code_of(reply.result) == ErrorCode.SESSION_EXPIRED
        assert reply.zxid == before + count


def test_bad_create_mode_is_told_before_the_session(harness: Harness) -> None:
    """As in ZooKeeper, which looks at mode and TTL first."""
    for op in (CreateOp("/a", b"", 9), CreateOp("/a", b"", 5, 0), CreateOp("/a", b"", 0, 5)):
        assert code_of(harness.result(op, Caller(99))) == ErrorCode.BAD_ARGUMENTS
    assert code_of(harness.result(CreateOp("bad", b""), Caller(99))) == ErrorCode.SESSION_EXPIRED


def test_attach_raises_the_epoch(harness: Harness) -> None:
    session_id = harness.open_session(5_000)
    first = harness.result(AttachSessionOp(), Caller(session_id))
    second = harness.result(AttachSessionOp(7_000), Caller(session_id))
    assert first == SessionAttached(1, 5_000)
    assert second == SessionAttached(2, 7_000)
    assert harness.state.sessions[session_id].timeout_ms == 7_000
    for timeout_ms in (-1, TIMEOUT_MS_MAX + 1):
        refusal = harness.result(AttachSessionOp(timeout_ms), Caller(session_id))
        assert code_of(refusal) == ErrorCode.BAD_ARGUMENTS
    assert harness.state.sessions[session_id].attach_epoch == 2


@pytest.mark.parametrize("epoch", [1, 3, -1])
def test_writes_of_another_attachment_have_no_effect(harness: Harness, epoch: int) -> None:
    """An older one is refused, and one that was never given out too. A unary call (0) is not."""
    session_id = harness.open_session(attached=True)
    harness.write(AttachSessionOp(), Caller(session_id))
    for op in (CreateOp("/a", b""), CloseSessionOp(), AttachSessionOp(), AddAuthOp(())):
        assert code_of(harness.result(op, Caller(session_id, epoch))) == ErrorCode.SESSION_MOVED
    session = harness.state.sessions[session_id]
    assert (session.attach_epoch, "/a" in harness.state.znodes) == (2, False)
    for allowed in (2, 0):
        result = harness.result(SetDataOp("/", b""), Caller(session_id, allowed))
        assert not isinstance(result, Refusal)


def test_who_wrote_was_heard(harness: Harness) -> None:
    """Once, however much it wrote, and also by a write that came to nothing. Not by one of an
    older attachment: that may be another client, which is gone."""
    first, second = harness.open_session(attached=True), harness.open_session(attached=True)
    missing = Write(Caller(first), SetDataOp("/missing", b""))
    harness.submit(missing, Write(Caller(first), CreateOp("/a")), Write(NO_CALLER, CreateOp("/b")))
    assert harness.last_applied.heard_sessions == (first,)
    harness.submit(Write(Caller(second, 9), CreateOp("/c")))
    assert harness.last_applied.heard_sessions == ()


def test_moved_write_does_not_use_up_its_number(harness: Harness) -> None:
    """It may be sent again on the newer attachment."""
    session_id = harness.open_session(attached=True)
    harness.write(AttachSessionOp(), Caller(session_id))
    moved = harness.result(CreateOp("/a", b""), Caller(session_id, 1, 1))
    assert code_of(moved) == ErrorCode.SESSION_MOVED
    again = harness.result(CreateOp("/a", b""), Caller(session_id, 2, 1))
    assert not isinstance(again, Refusal)


def test_add_auth_gathers_identities(harness: Harness) -> None:
    session_id = harness.open_session()
    alice, bob = AuthId("digest", "alice:a"), AuthId("digest", "bob:b")
    assert harness.result(AddAuthOp((alice,)), Caller(session_id)) == AuthAdded((alice,))
    added = harness.result(AddAuthOp((bob, alice)), Caller(session_id))
    assert added == AuthAdded((alice, bob))
    assert harness.state.sessions[session_id].ids == (alice, bob)


@pytest.mark.parametrize(
    ("ids", "code"),
    [
        ((AuthId("world", "anyone"),), ErrorCode.AUTH_FAILED),
        ((AuthId("auth", ""),), ErrorCode.AUTH_FAILED),
        ((AuthId("digest", "x" * ID_BYTES_MAX),), ErrorCode.AUTH_FAILED),
        (
            tuple(AuthId("digest", f"{number}:x") for number in range(AUTH_IDS_MAX + 1)),
            ErrorCode.LIMIT_EXCEEDED,
        ),
    ],
)
def test_add_auth_refused(harness: Harness, ids: tuple[AuthId, ...], code: ErrorCode) -> None:
    session_id = harness.open_session()
    good = AuthId("digest", "alice:a")
    assert code_of(harness.result(AddAuthOp((good, *ids)), Caller(session_id))) == code
    assert harness.state.sessions[session_id].ids == ()


@pytest.mark.parametrize("op", [CloseSessionOp(), AttachSessionOp(), AddAuthOp(())])
def test_without_a_session(harness: Harness, op: Op) -> None:
    assert code_of(harness.result(op)) == ErrorCode.BAD_ARGUMENTS


def test_expire(harness: Harness) -> None:
    """Void in another term, for another attachment, and a second time: without a zxid."""
    session_id = harness.open_session()
    harness.write(CreateOp("/e", b"", EPHEMERAL), Caller(session_id))
    before = harness.state.zxid
    harness.lead(ExpireSession(TERM - 1, session_id, 0))
    harness.lead(ExpireSession(TERM, session_id, 0), term=TERM + 1)
    harness.lead(ExpireSession(TERM, session_id, 1))
    harness.lead(ExpireSession(TERM, session_id + 1, 0))
    assert (harness.state.zxid, "/e" in harness.state.znodes) == (before, True)
    applied = harness.lead(ExpireSession(TERM, session_id, 0))
    assert applied.closed_sessions == (session_id,)
    assert [change.path for change in applied.changes] == ["/e"]
    assert harness.state.zxid == before + 1
    assert harness.lead(ExpireSession(TERM, session_id, 0)).closed_sessions == ()
    assert harness.state.zxid == before + 1


def test_session_without_ephemerals_ends_quietly(harness: Harness) -> None:
    session_id = harness.open_session()
    applied = harness.lead(ExpireSession(TERM, session_id, 0))
    assert (applied.changes, applied.closed_sessions) == ((), (session_id,))


def test_end_takes_saved_results(harness: Harness) -> None:
    session_id = harness.open_session()
    for number in (1, 2, 3):
        harness.write(SetDataOp("/", b""), Caller(session_id, 0, number, 2 if number == 3 else 0))
    assert set(harness.state.results) == {(session_id, 2), (session_id, 3)}
    harness.write(CloseSessionOp(), Caller(session_id, 0, 4))
    assert not harness.state.results
