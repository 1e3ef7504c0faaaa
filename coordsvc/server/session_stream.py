"""One Session stream: a reader that queues requests, and a writer that sends what is ready.

Two tasks a stream, whatever is asked on it. The writer makes a frame of everything that is ready at
that moment and waits until the transport has taken it. Nothing is made ready meanwhile: a client
that does not read stops its own reads, and its events fill their bounded buffer, nothing else. The
reader stops at `outstanding_requests_max` requests without an answer.

A stream ends with the error given to `end`: nothing more is run, what is not answered yet gets an
answer, and then the status follows; at once if the client does not read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from coordsvc.core.commands import AuthId
from coordsvc.core.queries import effective_ids
from coordsvc.errors import (
    BadArgumentsError,
    CoordError,
    NoQuorumError,
    OutcomeUnknownError,
    SessionExpiredError,
    SessionMovedError,
    ShuttingDownError,
)
from coordsvc.server.grpc_door import DEADLINE_S_DEFAULT, Context
from coordsvc.server.session_frames import Frame
from coordsvc.server.session_queue import Attached, SessionQueue, StreamParts
from coordsvc.server.watch_hub import WatchHub
from coordsvc.v1 import coordination_pb2

LAST_ANSWERS_S = 1.0
"""For a client to take the answers it is still owed, once its stream must end."""

SLICE_S = 0.004
"""One stream takes the loop for so long at most, before others have their turn."""

CHECK_TIME_EACH = 128
"""Requests between two looks at the clock. So many take a third of a millisecond."""


class Frames(Protocol):
    """What the client sends."""

    def __aiter__(self) -> Frames: ...
    async def __anext__(self) -> coordination_pb2.SessionRequest: ...


class SessionStream:
    """Make it in the turn in which the session's attachment was seen, `run` it once."""

    def __init__(self, parts: StreamParts, attached: Attached, hub: WatchHub) -> None:
        self._parts = parts
        self.attached = attached
        self.watcher = hub.open(self._ids, self.wake)
        self._queue = SessionQueue(parts, attached, self.watcher, self.wake, self._on_broken)
        self._is_awake = False
        self._sleep: asyncio.Future[None] | None = None
        """The writer's, while it has nothing to do."""
        self._has_space = asyncio.Event()
        self._welcome: coordination_pb2.SessionWelcome | None = None
        self._pings: dict[asyncio.Future[None], int] = {}
        self._pongs: deque[int] = deque()
        self._go_away: tuple[coordination_pb2.GoAwayReason.ValueType, int] | None = None
        self._has_said_go_away = False
        self._lost: CoordError | None = None
        """The session is not this stream's any more. What was decided before is still answered."""
        self._ending: CoordError | None = None
        self._failure: Exception | None = None
        """The connection broke, or a bug."""
        self._has_read_all = False
        self._ends_at: float | None = None
        self._patience: asyncio.Timeout | None = None

    def _ids(self) -> tuple[AuthId, ...]:
        state = self._parts.replica.machine.state
        return effective_ids(state, self.session_id, self.attached.ids)

    @property
    def session_id(self) -> int:
        return self.attached.session_id

    @property
    def unanswered(self) -> int:
        return len(self._queue)

    def wake(self) -> None:
        self._is_awake = True
        sleep = self._sleep
        if sleep is not None and not sleep.done():
            sleep.set_result(None)

    # ---------------------------------------------------------------------------------- its session

    def check_session(self) -> None:
        """Whether the session is still attached here, as far as this replica has applied. If not,
        the writer ends the stream as soon as the answers of this slice are in their slots."""
        if self._lost is not None:
            return
        session = self._parts.replica.machine.state.sessions.get(self.session_id)
        if session is None:
            self._lose(SessionExpiredError(f"session {self.session_id:#x} has ended"))
        elif session.attach_epoch != self.attached.attach_epoch:
            self._lose(
                SessionMovedError(
                    f"session {self.session_id:#x} was attached again, by attachment "
                    f"{session.attach_epoch}; this stream is attachment "
                    f"{self.attached.attach_epoch}"
                )
            )

    def _lose(self, error: CoordError) -> None:
        self._lost = error
        self._limit_patience(LAST_ANSWERS_S)
        self.wake()

    def raise_if_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    def heard(self, now: float) -> None:
        """The client gave a sign of life. Never for a session that has ended: the leader would
        withhold the acknowledgement of the whole report."""
        if self._lost is None:
            self._parts.reports.heard(self.session_id, now)

    def heard_if_waiting(self, now: float) -> None:
        """A request under way counts as a sign of life, while it waits for the replicas: not while
        it waits for its client."""
        if self._queue.waits_for_service:
            self.heard(now)

    # ---------------------------------------------------------------------------------- its end

    def end(
        self,
        error: CoordError,
        *,
        undecided: CoordError | None = None,
        reason: coordination_pb2.GoAwayReason.ValueType | None = None,
        grace_s: float = LAST_ANSWERS_S,
    ) -> None:
        """Run nothing more; end with `error` when all is answered, or after `grace_s`.
        `undecided`: the answer to writes under way; None: wait for their own."""
        if self._ending is None:
            self._ending = error
        if reason is not None:
            self._say_go_away(reason, grace_s)
        self._queue.refuse_rest(error, undecided)
        self._limit_patience(grace_s)
        self.wake()

    def end_without_quorum(self, error: CoordError) -> None:
        """What was proposed may be decided by a majority that this replica does not see."""
        unknown = OutcomeUnknownError("the replica lost its majority before the write was decided")
        self.end(error, undecided=unknown, reason=coordination_pb2.GO_AWAY_REASON_NO_QUORUM)

    def _say_go_away(self, reason: coordination_pb2.GoAwayReason.ValueType, grace_s: float) -> None:
        if not self._has_said_go_away:
            self._go_away = (reason, int(grace_s * 1000))
            self._has_said_go_away = True

    def _on_broken(self, error: CoordError) -> None:
        """The order was broken off: what is behind the refused write is refused as well. The
        session lives on, on another stream."""
        if self._ending is not None:
            return
        reason = coordination_pb2.GO_AWAY_REASON_OVERLOADED
        if isinstance(error, ShuttingDownError):
            reason = coordination_pb2.GO_AWAY_REASON_SHUTTING_DOWN
        elif isinstance(error, NoQuorumError) and not self._parts.pipeline.has_quorum:
            reason = coordination_pb2.GO_AWAY_REASON_NO_QUORUM
        self._ending = error
        self._say_go_away(reason, DEADLINE_S_DEFAULT)
        self._limit_patience(DEADLINE_S_DEFAULT)

    def _limit_patience(self, seconds: float) -> None:
        """Cut the writer off then. An earlier limit stays."""
        at = asyncio.get_running_loop().time() + seconds
        if self._ends_at is not None and self._ends_at <= at:
            return
        self._ends_at = at
        if self._patience is not None:
            self._patience.reschedule(at)

    def _end_lost(self, lost: CoordError) -> None:
        if not self._queue.has_answered_close():
            self.end(lost, undecided=lost)

    # ---------------------------------------------------------------------------------- running

    async def run(
        self,
        first: coordination_pb2.SessionRequest,
        frames: Frames,
        context: Context,
        welcome: coordination_pb2.SessionWelcome,
    ) -> None:
        """Until the stream ends. Raises what it ends with, nothing when it ends well."""
        self._welcome = welcome
        reader = asyncio.get_running_loop().create_task(self._read(first, frames))
        try:
            async with asyncio.timeout_at(self._ends_at) as self._patience:
                await self._write(context)
        except TimeoutError:
            if self._ending is None and self._lost is None and self._failure is None:
                raise
        finally:
            self._patience = None
            reader.cancel()
            await asyncio.wait((reader,))
        error = self._failure or self._ending or (None if self._queue.has_closed else self._lost)
        if error is not None:
            raise error

    def close(self) -> None:
        """Leave nothing behind but writes that were submitted."""
        if self._lost is None:
            self._lost = SessionMovedError("the stream has ended")
        for ping in self._pings:
            ping.cancel()
        self._queue.abandon()
        self.watcher.close()

    # ---------------------------------------------------------------------------------- reading

    async def _read(self, first: coordination_pb2.SessionRequest, frames: Frames) -> None:
        try:
            await self._take(first)
            async for frame in frames:
                if frame.HasField("hello"):
                    raise BadArgumentsError("hello is for the first frame only")
                await self._take(frame)
            self._has_read_all = True
            self.wake()
        except CoordError as error:
            self.end(error)
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """The writer's caller shall see it."""
        self._failure = error
        self._limit_patience(0.0)
        self.wake()

    async def _take(self, frame: coordination_pb2.SessionRequest) -> None:
        """Queue a frame's requests, a few milliseconds of them at a time."""
        queue, parts = self._queue, self._parts
        outstanding_max = parts.cluster.outstanding_requests_max
        now = parts.now()
        until = now + SLICE_S
        self.heard(now)
        count = 0
        for operation in frame.operations:
            if len(queue) >= outstanding_max:
                queue.submit_new()
                await self._wait_for_space()
                now = parts.now()
                until = now + SLICE_S
            if self._lost is not None:
                self._refuse_if_lost(self._lost)
            queue.accept(operation, now)
            count += 1
            if not count % CHECK_TIME_EACH and parts.now() >= until:
                queue.submit_new()
                self.wake()
                await asyncio.sleep(0)
                now = parts.now()
                until = now + SLICE_S
        queue.submit_new()
        if frame.HasField("ping"):
            await self._ping(frame.ping.nonce)
        if queue.may_fill:
            self.wake()

    def _refuse_if_lost(self, lost: CoordError) -> None:
        """What comes now would be refused where it is applied. A read would not."""
        if self._ending is None:
            self._end_lost(lost)

    async def _wait_for_space(self) -> None:
        """Until half of what may be under way is answered: to be woken for each would cost more
        than what it brings."""
        space = self._parts.cluster.outstanding_requests_max // 2
        while len(self._queue) > space:
            self.wake()
            self._has_space.clear()
            await self._has_space.wait()

    async def _ping(self, nonce: int) -> None:
        """Answered when the leader has the session's renewal on record, however long the queue."""
        most = self._parts.cluster.outstanding_requests_max
        while len(self._pings) >= most:
            await asyncio.wait(self._pings, return_when=asyncio.FIRST_COMPLETED)
        while len(self._pongs) >= most:
            self._has_space.clear()
            await self._has_space.wait()
        if self._lost is not None:
            return
        acknowledged = self._parts.reports.heartbeat(self.session_id, self._parts.now())
        self._pings[acknowledged] = nonce
        acknowledged.add_done_callback(self._pinged)

    def _pinged(self, acknowledged: asyncio.Future[None]) -> None:
        nonce = self._pings.pop(acknowledged)
        if acknowledged.cancelled():
            return
        error = acknowledged.exception()
        if error is None:
            self._pongs.append(nonce)
            self.wake()
        elif isinstance(error, NoQuorumError):
            self.end_without_quorum(error)
        elif isinstance(error, SessionExpiredError):
            self.check_session()
        else:
            assert isinstance(error, Exception)
            self._fail(error)

    # ---------------------------------------------------------------------------------- writing

    async def _write(self, context: Context) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._is_awake = False
            if self._failure is not None:
                return
            frame = self._next_frame()
            if frame is not None:
                await context.write(frame)
            elif self._is_over:
                return
            elif not self._is_awake:
                self._sleep = loop.create_future()
                await self._sleep
                self._sleep = None

    @property
    def _is_over(self) -> bool:
        """Asked when everything that was ready has been sent."""
        if self._queue.has_closed:
            return True
        if len(self._queue):
            return False
        return self._ending is not None or (self._has_read_all and not self._pings)

    def _next_frame(self) -> bytes | None:
        """Everything that is ready, as far as one frame and one slice of time go."""
        queue = self._queue
        if queue.has_closed:
            return None
        if self._lost is not None and self._ending is None:
            self._end_lost(self._lost)
        has_more = self._welcome is not None or self._pongs or self._go_away is not None
        if not has_more and not queue.may_fill:
            return None
        frame = Frame(self._parts.limits.frame_size_bytes_max, self._parts.set_reply)
        if self._welcome is not None:
            frame.add_welcome(self._welcome)
            self._welcome = None
        before = len(queue)
        if queue.fill(frame, self._parts.now() + SLICE_S):
            self._fill_last(frame)
        if len(queue) < before:
            self._has_space.set()
        return frame.encode() if frame.size else None

    def _fill_last(self, frame: Frame) -> None:
        """What comes after every event that there is."""
        if self._pongs:
            self._has_space.set()
        while self._pongs:
            frame.add_pong(self._pongs.popleft(), self._parts.replica.machine.state.zxid)
        if self._go_away is not None:
            frame.add_go_away(*self._go_away)
            self._go_away = None
