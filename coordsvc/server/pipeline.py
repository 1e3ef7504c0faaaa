"""One request's way through the server: proof of its session, its place in the order, its waits.

What it keeps:

* Writes of one session are submitted in the order in which they arrived here, and a read of it
  waits for its earlier writes here. Requests of different sessions do not wait for each other.
* A write whose deadline has passed is never proposed. Once it is submitted, the caller going away
  changes nothing of it: what somebody else may wait for as well is awaited shielded.
* A replica that lost its leader, or has not caught up after its start, answers no read from what
  it has, and refuses sessions; but "expired" and "wrong password" are said only after a
  read-index, when they are facts: a replica that merely lags must not end a session for a client.

It knows neither gRPC nor protobuf, so other front doors use it as it is. A stream keeps its own
order: it proves its session once, submits with `submit_to`, and reads the state itself, after
`check_fresh`.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from coordsvc.core.commands import (
    AttachSessionOp,
    AuthId,
    Caller,
    ClientCommand,
    CloseSessionOp,
    Op,
    OpenSession,
    Refusal,
    Reply,
    SessionAttached,
    SessionOpened,
    Write,
)
from coordsvc.core.queries import effective_ids
from coordsvc.core.records import Session
from coordsvc.core.state import State
from coordsvc.errors import (
    BadArgumentsError,
    CoordError,
    NoQuorumError,
    NotCaughtUpError,
    OutcomeUnknownError,
    SessionExpiredError,
    ShuttingDownError,
    error_from_code,
)
from coordsvc.raft.replica_types import Waiter
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.convert import RequestContext
from coordsvc.server.lanes import Lanes
from coordsvc.server.limits_admission import Admission
from coordsvc.server.replica_port import ReplicaPort
from coordsvc.server.session_reports import SessionReports
from coordsvc.server.write_outcome import WriteOutcome

MIN_ZXID_WAIT_S_MAX = 2.0
"""A replica so far behind is not worth waiting for: another one answers at once."""

PASSWORD_BYTES = 16

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Call:
    """One request as its front door hands it over. `deadline` and `received_at` are times of the
    replica's monotonic clock; `ids` are the connection's identities."""

    context: RequestContext
    deadline: float
    received_at: float
    ids: tuple[AuthId, ...] = ()
    attach_epoch: int = 0


@dataclass(frozen=True)
class PipelineStatistics:
    writes_pending: int
    reads_waiting: int
    sessions_active: int
    reads_total: int
    writes_total: int


class Pipeline:
    """`confirmed_age_s_max`: an older confirmation of a leader counts as none. `admission` None:
    the limits are the defaults."""

    def __init__(
        self,
        replica: ReplicaPort,
        reports: SessionReports,
        *,
        confirmed_age_s_max: float,
        admission: Admission | None = None,
    ) -> None:
        self._replica = replica
        self._reports = reports
        self._confirmed_age_s_max = confirmed_age_s_max
        self.admission = admission if admission is not None else Admission(ServerConfig())
        self._lanes = Lanes()
        self._pending: dict[asyncio.Future[Reply], None] = {}
        self._undecided = 0
        """Writes submitted by streams, which have waiters of their own."""
        self._all_decided = asyncio.Event()
        self._is_stopping = False
        self._reads_total = 0
        self._writes_total = 0

    # ------------------------------------------------------------------------------------- health

    @property
    def has_quorum(self) -> bool:
        """A leader confirmed by a majority was in reach lately."""
        return self._replica.leader_confirmed_age() <= self._confirmed_age_s_max

    @property
    def is_ready(self) -> bool:
        """Whether it answers what it is asked."""
        return self._replica.is_ready and self.has_quorum and not self._is_stopping

    def begin_stop(self) -> None:
        """Open no new session and take no new write; what was taken is finished."""
        self._is_stopping = True

    async def drained(self) -> None:
        """When every write that was submitted is decided."""
        while self._pending or self._undecided:
            if self._pending:
                await asyncio.wait(self._pending)
            else:
                self._all_decided.clear()
                await self._all_decided.wait()

    def abandon(self) -> None:
        """The replica has stopped: what it did not decide it never will. Their callers are told
        so, rather than find their connection cut."""
        for future in tuple(self._pending):
            if not future.done():
                future.set_exception(
                    OutcomeUnknownError("this replica stopped before the write was decided")
                )

    # ----------------------------------------------------------------------------------- requests

    async def write(self, call: Call, op: Op) -> Reply:
        """Submit a write in its session's order, and wait for its answer. A refusal is raised."""
        self._refuse_when_stopping()
        self.admission.check_write(op)
        async with self._lanes.in_order(call.context.session_id) as lane:
            await self.prove(call)
            await self.wait_min_zxid(call)
            context = call.context
            caller = Caller(
                session_id=context.session_id,
                attach_epoch=call.attach_epoch,
                request_number=context.request_number,
                done_below=context.done_below,
                ids=call.ids,
                guard_path=context.guard_path,
                guard_czxid=context.guard_czxid,
            )
            future = self._submit(Write(caller, op), call.deadline)
            if lane is not None and not future.done():
                self._lanes.add_write(context.session_id, lane, future)
        return await _answer(future)

    async def read(
        self,
        call: Call,
        query: Callable[[State, tuple[AuthId, ...]], ResultT | Refusal],
        *,
        linearizable: bool = False,
    ) -> tuple[ResultT, int]:
        """(what `query` finds, the zxid of the state it was asked of). A refusal is raised."""
        self.begin_read()
        try:
            async with self._lanes.in_order(call.context.session_id) as lane:
                await self.prove(call)
                before = tuple(lane.writes) if lane is not None else ()
            if before:
                await self._until(before, call.deadline)
            await self.wait_min_zxid(call)
            if linearizable:
                await self._replica.read_index(call.deadline)
            else:
                self.check_fresh()
        finally:
            self.end_read()
        return self._ask(call, query)

    async def sync(self, call: Call) -> int:
        """Catch up with everything acknowledged anywhere before; the zxid reached."""
        await self.read(call, lambda state, ids: None, linearizable=True)
        return self._replica.machine.state.zxid

    async def open_session(
        self, *, timeout_ms: int, client_name: str, deadline: float, attached: bool = False
    ) -> tuple[SessionOpened, bytes]:
        """(the new session, its password). `attached`: to a stream, from the start."""
        self._refuse_when_stopping()
        password = secrets.token_bytes(PASSWORD_BYTES)
        command = OpenSession(timeout_ms, password, client_name, attached)
        sessions = len(self._replica.machine.state.sessions)
        with self.admission.opening_session(sessions, self._replica.clock.monotonic()):
            reply = await _answer(self._submit(command, deadline))
        assert isinstance(reply.result, SessionOpened)
        return reply.result, password

    def close_unused(self, opened: SessionOpened, deadline: float) -> None:
        """End a session that was opened and is of no use to its client. Nobody waits for it: where
        it cannot be done the session expires."""
        caller = Caller(opened.session_id, opened.attach_epoch)
        self._submit(Write(caller, CloseSessionOp()), deadline)

    async def heartbeat(self, call: Call) -> Session:
        """Renew the session; returns when the leader has it on record. It waits for no other
        request of the session: what keeps it alive comes before any queue."""
        session = await self.prove(call)
        if session is None:
            raise BadArgumentsError("a heartbeat needs a session")
        await self._reports.heartbeat(session.session_id, call.received_at)
        return session

    async def attach(self, call: Call, timeout_ms: int) -> SessionAttached:
        """Attach the call's session to a new stream. `timeout_ms` 0: it keeps its own."""
        if not call.context.session_id:
            raise BadArgumentsError("there is no session to attach: the request names none")
        self.admission.attach_session(self._replica.clock.monotonic())
        reply = await self.write(call, AttachSessionOp(timeout_ms))
        assert isinstance(reply.result, SessionAttached)
        return reply.result

    async def close_session(self, call: Call) -> Reply:
        if not call.context.session_id:
            raise BadArgumentsError("there is no session to close: the request names none")
        return await self.write(call, CloseSessionOp())

    # ------------------------------------------------------------------------------------ streams

    def submit_to(self, write: Write, deadline: float, waiter: Waiter) -> None:
        """Submit a write of a stream. Raises when it was not submitted: LimitExceededError, or an
        UnavailableError. Otherwise `waiter` is told, perhaps before this returns, and must call
        `decided` then."""
        self._refuse_when_stopping()
        self.admission.check_write(write.op)
        if deadline <= self._replica.clock.monotonic():
            raise NoQuorumError("the deadline passed before the write could be proposed")
        self._writes_total += 1
        self._undecided += 1
        self._replica.submit_to(write, deadline, waiter)

    def submit_all(self, writes: Sequence[WriteOutcome]) -> None:
        """The same for many, in order; none of them done. What is not submitted is told so, too.
        Those behind one that is refused are tried, unless they are done then."""
        if self._is_stopping or self.admission.is_disk_low:
            for write in writes:
                if not write.done():
                    self._try(write)
            return
        for write in writes:
            write.is_submitted = True
        self._writes_total += len(writes)
        self._undecided += len(writes)
        self._replica.submit_all(writes)

    def _try(self, write: WriteOutcome) -> None:
        write.is_submitted = True
        try:
            self.submit_to(write.command, write.deadline, write)
        except CoordError as error:
            write.is_submitted = False
            write.set_exception(error)

    def decided(self) -> None:
        """A write of `submit_to` was answered, or is given up."""
        self._undecided -= 1
        if not self._undecided:
            self._all_decided.set()

    def begin_read(self) -> None:
        """A read begins to wait for its turn. Raises ThrottledError when too many do already."""
        self.admission.begin_read()
        self._reads_total += 1

    def count_read(self) -> None:
        """Of one that did not wait."""
        self._reads_total += 1

    def end_read(self) -> None:
        self.admission.end_read()

    def _submit(self, command: ClientCommand, deadline: float) -> asyncio.Future[Reply]:
        """The future is the pipeline's own and never cancelled: a later read of the session must
        still find the write, whoever has stopped waiting for it."""
        if deadline <= self._replica.clock.monotonic():
            raise NoQuorumError("the deadline passed before the write could be proposed")
        future = self._replica.submit(command, deadline)
        self._writes_total += 1
        self._pending[future] = None
        future.add_done_callback(self._decided)
        return future

    def _decided(self, future: asyncio.Future[Reply]) -> None:
        self._pending.pop(future, None)
        if not future.cancelled():
            future.exception()  # seen, also when its caller has gone

    async def _until(self, writes: tuple[asyncio.Future[Reply], ...], deadline: float) -> None:
        """Until the session's earlier writes are answered, however they are: a read before that
        would show a state from which one is missing."""
        remaining = deadline - self._replica.clock.monotonic()
        _, pending = await asyncio.wait(writes, timeout=max(0.0, remaining))
        if pending:
            raise NotCaughtUpError("an earlier write of this session is not answered yet")

    # -------------------------------------------------------------------------------- the session

    async def prove(self, call: Call) -> Session | None:
        """The call's session, None if it names none. Raises SessionExpiredError when it is certain
        that there is no such session with this password."""
        session_id = call.context.session_id
        if not session_id:
            return None
        session = self._session_of(call)
        if session is None:
            await self._replica.read_index(call.deadline)
            session = self._session_of(call)
        elif not self.has_quorum:
            raise no_quorum()
        if session is None:
            raise SessionExpiredError(
                f"session {session_id:#x} is closed, expired or unknown, or the password is wrong"
            )
        self._reports.heard(session_id, call.received_at)
        return session

    def _session_of(self, call: Call) -> Session | None:
        session = self._replica.machine.state.sessions.get(call.context.session_id)
        if session is None or not hmac.compare_digest(session.password, call.context.password):
            return None
        return session

    # ---------------------------------------------------------------------------------- the waits

    async def wait_min_zxid(self, call: Call) -> None:
        if call.context.min_zxid > self._replica.machine.state.zxid:
            latest = call.received_at + MIN_ZXID_WAIT_S_MAX
            deadline = min(call.deadline, latest)
            await self._replica.wait_applied(call.context.min_zxid, deadline)

    def check_fresh(self) -> None:
        """Raises an UnavailableError unless what this replica has may be shown as a local read."""
        if not self._replica.is_ready:
            raise NotCaughtUpError("this replica has not caught up since its start")
        if not self.has_quorum:
            raise no_quorum()

    def _ask(
        self,
        call: Call,
        query: Callable[[State, tuple[AuthId, ...]], ResultT | Refusal],
    ) -> tuple[ResultT, int]:
        """Nothing is awaited between the last wait and the answer."""
        state = self._replica.machine.state
        if call.context.session_id and self._session_of(call) is None:
            raise SessionExpiredError(f"session {call.context.session_id:#x} ended meanwhile")
        result = query(state, effective_ids(state, call.context.session_id, call.ids))
        if isinstance(result, Refusal):
            raise refusal_error(result, state.zxid)
        return result, state.zxid

    def _refuse_when_stopping(self) -> None:
        if self._is_stopping:
            raise ShuttingDownError("this replica is stopping; try another one")

    def statistics(self) -> PipelineStatistics:
        return PipelineStatistics(
            writes_pending=len(self._pending) + self._undecided,
            reads_waiting=self.admission.reads_waiting,
            sessions_active=len(self._lanes),
            reads_total=self._reads_total,
            writes_total=self._writes_total,
        )


async def _answer(future: asyncio.Future[Reply]) -> Reply:
    reply = await asyncio.shield(future)
    if isinstance(reply.result, Refusal):
        raise refusal_error(reply.result, reply.zxid)
    return reply


def refusal_error(refusal: Refusal, zxid: int) -> CoordError:
    """The core's "no", which it said at `zxid`, as an error."""
    index = refusal.operation_index
    return error_from_code(
        refusal.code,
        refusal.message,
        path=refusal.path or None,
        zxid=zxid,
        operation_index=index if index >= 0 else None,
    )


def no_quorum() -> NoQuorumError:
    return NoQuorumError(
        "no leader confirmed by a majority is in reach of this replica; try again, or another one",
        retry_after_ms=200,
    )
