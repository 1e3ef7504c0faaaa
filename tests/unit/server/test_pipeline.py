"""Order, waits and proofs, on a replica that does what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from coordsvc.core import queries
from coordsvc.core.commands import (
    NO_CALLER,
    Acl,
    AuthId,
    CloseSessionOp,
    CreateOp,
    DeleteOp,
    OpenSession,
    SetDataOp,
    Write,
)
from coordsvc.errors import (
    BadVersionError,
    CoordError,
    NoAuthError,
    NoNodeError,
    NoQuorumError,
    NotCaughtUpError,
    OutcomeUnknownError,
    SessionExpiredError,
    ShuttingDownError,
)
from coordsvc.server.pipeline import Pipeline
from coordsvc.server.session_reports import SessionReports
from coordsvc.testing.local_replica import LocalReplica
from tests.unit.server.harness import PASSWORD, call_of, session_elsewhere


class Rig:
    def __init__(self) -> None:
        self.replica = LocalReplica()
        self.reported: list[int] = []
        self.reports = SessionReports(
            tick_s=0.5,
            send=self._send,
            call_soon=asyncio.get_running_loop().call_soon,
            monotonic=self.replica.clock.monotonic,
        )
        self.reports.turn(self.replica.clock.monotonic(), 1, self.replica.replica_id)
        self.pipeline = Pipeline(self.replica, self.reports, confirmed_age_s_max=1.5)
        self.session_id = session_elsewhere(self.replica)

    def _send(self, report_id: int, sessions: Any) -> bool:
        self.reported.append(report_id)
        return True

    def call(self, session_id: int = 0, **context: Any) -> Any:
        return call_of(self.replica, session_id, **context)

    def read(self, path: str, session_id: int = 0, *, linearizable: bool = False, **context: Any):
        return asyncio.create_task(
            self.pipeline.read(
                self.call(session_id, **context),
                lambda state, ids: queries.get_data(state, path, ids),
                linearizable=linearizable,
            )
        )

    def write(self, op: Any, session_id: int = 0, **context: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.pipeline.write(self.call(session_id, **context), op))


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    yield Rig()


async def settle() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def refused(task: asyncio.Task[Any]) -> CoordError:
    with pytest.raises(CoordError) as caught:
        await task
    return caught.value


# ------------------------------------------------------------------------------------------ order


async def test_writes_of_a_session_are_submitted_in_the_order_of_arrival(rig: Rig) -> None:
    rig.replica.is_automatic = False
    rig.replica.submitted.clear()
    tasks = [rig.write(CreateOp(f"/{i}"), rig.session_id) for i in range(50)]
    await settle()
    rig.replica.apply()
    await asyncio.gather(*tasks)
    paths = [
        command.op.path
        for command in rig.replica.submitted
        if isinstance(command, Write) and isinstance(command.op, CreateOp)
    ]
    assert paths == [f"/{i}" for i in range(50)]


async def test_the_order_holds_while_the_first_still_proves_its_session(rig: Rig) -> None:
    """The session was opened elsewhere and is not known here yet."""
    replica = rig.replica
    replica.apply_elsewhere(OpenSession(10_000, PASSWORD))
    new_id = replica.machine.state.zxid + 1
    replica.submitted.clear()
    first = rig.write(CreateOp("/first"), new_id)
    await asyncio.sleep(0)
    second = rig.write(CreateOp("/second"), new_id)
    await asyncio.gather(first, second)
    assert [command.op.path for command in replica.submitted] == ["/first", "/second"]  # type: ignore[union-attr]


async def test_a_read_waits_for_its_sessions_earlier_writes_here(rig: Rig) -> None:
    rig.replica.is_automatic = False
    write = rig.write(CreateOp("/a", b"1"), rig.session_id)
    await settle()
    read = rig.read("/a", rig.session_id)
    of_nobody = rig.read("/a")
    await settle()
    assert not read.done(), "it must not miss its own write"
    assert isinstance(await refused(of_nobody), NoNodeError)
    rig.replica.apply()
    (data, _), zxid = await read
    assert data == b"1" and zxid == (await write).zxid


async def test_a_read_waits_for_a_write_whose_caller_has_gone(rig: Rig) -> None:
    rig.replica.is_automatic = False
    write = rig.write(CreateOp("/a", b"1"), rig.session_id)
    await settle()
    write.cancel()
    read = rig.read("/a", rig.session_id)
    await settle()
    assert write.cancelled() and not read.done()
    rig.replica.apply()
    assert (await read)[0][0] == b"1"


async def test_a_read_does_not_wait_beyond_its_deadline(rig: Rig) -> None:
    rig.replica.is_automatic = False
    rig.write(CreateOp("/a"), rig.session_id)
    await settle()
    assert isinstance(await refused(rig.read("/a", rig.session_id, seconds=0.05)), NotCaughtUpError)
    rig.replica.apply()


async def test_sessions_do_not_wait_for_each_other(rig: Rig) -> None:
    other = session_elsewhere(rig.replica)
    rig.replica.is_automatic = False
    rig.write(CreateOp("/a"), rig.session_id)
    await settle()
    with pytest.raises(NoNodeError):
        await rig.read("/a", other)
    rig.replica.apply()


async def test_nothing_is_kept_of_a_session_at_rest(rig: Rig) -> None:
    await rig.write(CreateOp("/a"), rig.session_id)
    await rig.read("/a", rig.session_id)
    await rig.read("/a", session_elsewhere(rig.replica))
    task = rig.write(SetDataOp("/a"), rig.session_id)
    await asyncio.sleep(0)
    task.cancel()
    await settle()
    statistics = rig.pipeline.statistics()
    assert (statistics.sessions_active, statistics.writes_pending) == (0, 0)


# -------------------------------------------------------------------------------------- cancelled


async def test_half_of_a_thousand_writes_cancelled_the_others_are_all_answered(rig: Rig) -> None:
    rig.replica.is_automatic = False
    tasks = [rig.write(CreateOp(f"/n{i}"), rig.session_id if i % 3 else 0) for i in range(1000)]
    await settle()
    for i, task in enumerate(tasks):
        if i % 2:
            task.cancel()
    await settle()
    rig.replica.apply()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for i, answer in enumerate(answers):
        if i % 2:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer.result.path == f"/n{i}", answer  # type: ignore[union-attr]
    assert len(rig.replica.machine.state.child_names("/")) == 1000 + 1


# -------------------------------------------------------------------------------------- deadlines


async def test_a_write_whose_deadline_has_passed_is_never_submitted(rig: Rig) -> None:
    rig.replica.submitted.clear()
    error = await refused(rig.write(CreateOp("/a"), seconds=0.0))
    assert isinstance(error, NoQuorumError) and error.applied.name == "NO"
    assert rig.replica.submitted == []


async def test_a_write_that_waited_too_long_for_its_turn_is_never_submitted(rig: Rig) -> None:
    """Its session's proof takes longer than it has."""
    replica = rig.replica
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    replica.read_index = lambda deadline: answered  # type: ignore[method-assign]
    replica.apply_elsewhere(OpenSession(10_000, PASSWORD))
    new_id = replica.machine.state.zxid + 1
    replica.submitted.clear()
    task = rig.write(CreateOp("/a"), new_id, seconds=0.05)
    await asyncio.sleep(0.06)
    replica.catch_up()
    answered.set_result(None)
    assert isinstance(await refused(task), NoQuorumError)
    assert replica.submitted == []


async def test_an_unknown_outcome_is_said_to_be_unknown(rig: Rig) -> None:
    rig.replica.is_automatic = False
    task = rig.write(CreateOp("/a"))
    await settle()
    rig.replica.fail_submitted(OutcomeUnknownError("undecided"))
    error = await refused(task)
    assert isinstance(error, OutcomeUnknownError) and error.applied.name == "UNKNOWN"


# ------------------------------------------------------------------------------------------ reads


async def test_min_zxid_waits_until_it_is_applied(rig: Rig) -> None:
    rig.replica.apply_elsewhere(Write(caller=NO_CALLER, op=CreateOp("/a", b"x")))
    read = rig.read("/a", min_zxid=rig.replica.machine.state.zxid + 1)
    await settle()
    assert not read.done()
    rig.replica.catch_up()
    assert (await read)[0][0] == b"x"


async def test_a_write_too_waits_for_its_min_zxid(rig: Rig) -> None:
    """Whoever has seen a later state must not act on an earlier one without noticing."""
    rig.replica.apply_elsewhere(Write(caller=NO_CALLER, op=CreateOp("/a", b"x")))
    rig.replica.submitted.clear()
    write = rig.write(CreateOp("/b"), min_zxid=rig.replica.machine.state.zxid + 1)
    await settle()
    assert rig.replica.submitted == []
    rig.replica.catch_up()
    assert (await write).zxid
    late = rig.write(CreateOp("/c"), min_zxid=10**15, seconds=0.05)
    assert isinstance(await refused(late), NotCaughtUpError)


async def test_min_zxid_gives_up_at_the_deadline(rig: Rig) -> None:
    read = rig.read("/", min_zxid=10**15, seconds=0.05)
    assert isinstance(await refused(read), NotCaughtUpError)


async def test_min_zxid_gives_up_after_two_seconds_whatever_the_deadline(rig: Rig) -> None:
    replica, deadlines = rig.replica, []

    async def give_up(zxid: int, deadline: float) -> None:
        deadlines.append(deadline - replica.clock.monotonic())
        raise NotCaughtUpError

    replica.wait_applied = give_up  # type: ignore[method-assign, assignment]
    for seconds in (60.0, 0.5):
        task = rig.read("/", min_zxid=10**15, seconds=seconds)
        assert isinstance(await refused(task), NotCaughtUpError)
    assert 1.9 < deadlines[0] <= 2.0 and 0.4 < deadlines[1] <= 0.5


async def test_a_linearizable_read_sees_what_was_committed_elsewhere(rig: Rig) -> None:
    rig.replica.apply_elsewhere(Write(caller=NO_CALLER, op=CreateOp("/a", b"x")))
    assert isinstance(await refused(rig.read("/a")), NoNodeError)
    assert (await rig.read("/a", linearizable=True))[0][0] == b"x"


async def test_sync_catches_up(rig: Rig) -> None:
    rig.replica.apply_elsewhere(Write(caller=NO_CALLER, op=CreateOp("/a", b"x")))
    before = rig.replica.machine.state.zxid
    assert await rig.pipeline.sync(rig.call()) == before + 1
    assert (await rig.read("/a"))[0][0] == b"x"


async def test_without_a_confirmed_leader_nothing_is_answered(rig: Rig) -> None:
    rig.replica.has_quorum = False
    for task in (
        rig.read("/"),
        rig.read("/", linearizable=True),
        rig.read("/", rig.session_id),
        rig.write(CreateOp("/a")),
        asyncio.create_task(rig.pipeline.sync(rig.call())),
        asyncio.create_task(rig.pipeline.heartbeat(rig.call(rig.session_id))),
    ):
        assert isinstance(await refused(task), NoQuorumError)
    assert not rig.pipeline.is_ready


async def test_a_replica_that_has_not_caught_up_answers_no_local_read(rig: Rig) -> None:
    rig.replica.is_ready = False
    assert isinstance(await refused(rig.read("/")), NotCaughtUpError)
    await rig.read("/", linearizable=True)


async def test_a_refusal_of_the_core_becomes_its_typed_error(rig: Rig) -> None:
    await rig.write(CreateOp("/a"))
    error = await refused(rig.write(DeleteOp("/a", 7)))
    assert isinstance(error, BadVersionError)
    assert error.path == "/a" and error.zxid == rig.replica.machine.state.zxid


async def test_the_connections_identities_count(rig: Rig) -> None:
    await rig.write(CreateOp("/a", acl=(Acl(31, "ip", "10.0.0.0/8"),)))
    near, far = (AuthId("ip", "10.1.2.3"),), (AuthId("ip", "11.0.0.1"),)
    await rig.read("/a", ids=near)
    assert isinstance(await refused(rig.read("/a", ids=far)), NoAuthError)
    assert isinstance(await refused(rig.write(SetDataOp("/a"), ids=far)), NoAuthError)
    await rig.write(SetDataOp("/a"), ids=near)


# --------------------------------------------------------------------------------------- sessions


async def test_a_session_opened_elsewhere_is_not_unknown_to_a_replica_that_lags(rig: Rig) -> None:
    rig.replica.apply_elsewhere(OpenSession(10_000, PASSWORD))
    new_id = rig.replica.machine.state.zxid + 1
    await rig.write(CreateOp("/a"), new_id)


@pytest.mark.parametrize("password", [b"", b"wrong", b"0123456789abcdeX", b"x" * 64])
async def test_a_wrong_password_is_an_expired_session(rig: Rig, password: bytes) -> None:
    rig.replica.submitted.clear()
    for task in (
        rig.read("/", rig.session_id, password=password),
        rig.write(CreateOp("/a"), rig.session_id, password=password),
        asyncio.create_task(rig.pipeline.heartbeat(rig.call(rig.session_id, password=password))),
        asyncio.create_task(
            rig.pipeline.close_session(rig.call(rig.session_id, password=password))
        ),
    ):
        assert isinstance(await refused(task), SessionExpiredError)
    assert rig.replica.submitted == []
    assert rig.reports.statistics().sessions_heard == 0, "it must not keep the session alive"


async def test_expired_unknown_and_wrong_password_need_a_quorum_to_be_said(rig: Rig) -> None:
    rig.replica.has_quorum = False
    for call in (
        rig.call(rig.session_id, password=b"wrong"),
        rig.call(10**15),
        rig.call(1),
    ):
        error = await refused(asyncio.create_task(rig.pipeline.heartbeat(call)))
        assert isinstance(error, NoQuorumError)


async def test_a_read_that_waits_while_its_session_ends_is_refused(rig: Rig) -> None:
    rig.replica.is_automatic = False
    closing = rig.write(CloseSessionOp(), rig.session_id)
    await settle()
    read = rig.read("/", rig.session_id)
    await settle()
    rig.replica.apply()
    await closing
    assert isinstance(await refused(read), SessionExpiredError)


async def test_a_heartbeat_is_answered_when_the_leader_acknowledged_it(rig: Rig) -> None:
    task = asyncio.create_task(rig.pipeline.heartbeat(rig.call(rig.session_id)))
    await settle()
    assert rig.reported and not task.done()
    rig.reports.on_acknowledged(rig.reported[-1], rig.replica.clock.monotonic())
    assert (await task).timeout_ms == 10_000


async def test_reads_and_writes_keep_a_session_alive_too(rig: Rig) -> None:
    other = session_elsewhere(rig.replica)
    await rig.read("/", rig.session_id)
    await rig.write(CreateOp("/a"), other)
    assert rig.reports.statistics().sessions_unacknowledged == 2


# ------------------------------------------------------------------------------------------- stop


async def test_what_a_stopped_replica_did_not_decide_is_unknown(rig: Rig) -> None:
    rig.replica.is_automatic = False
    task = rig.write(CreateOp("/a"), rig.session_id)
    await settle()
    rig.pipeline.begin_stop()
    rig.pipeline.abandon()
    assert isinstance(await refused(task), OutcomeUnknownError)
    assert rig.pipeline.statistics().writes_pending == 0


async def test_a_stopping_replica_takes_no_writes_and_no_sessions_but_finishes_those_it_has(
    rig: Rig,
) -> None:
    rig.replica.is_automatic = False
    before = rig.write(CreateOp("/a"))
    await settle()
    rig.pipeline.begin_stop()
    assert isinstance(await refused(rig.write(CreateOp("/b"))), ShuttingDownError)
    opening = rig.pipeline.open_session(
        timeout_ms=1000, client_name="", deadline=rig.replica.clock.monotonic() + 1
    )
    assert isinstance(await refused(asyncio.create_task(opening)), ShuttingDownError)
    drained = asyncio.create_task(rig.pipeline.drained())
    await settle()
    assert not drained.done() and not rig.pipeline.is_ready
    rig.replica.apply()
    await drained
    assert (await before).zxid
