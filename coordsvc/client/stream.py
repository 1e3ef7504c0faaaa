"""Keeps a session's stream: connects, moves frames, and finds another replica when one fails.

Two tasks per stream, whatever the load: one writes frames, one reads them. What is asked for while
a frame is being written leaves in the next one. One timer serves pings, deadlines and the end of
the session.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from grpc import aio

from coordsvc.client import methods
from coordsvc.client.channels import Channels
from coordsvc.client.conversation import Conversation
from coordsvc.client.options import ClientConfig
from coordsvc.client.records import SessionState
from coordsvc.client.retry import ConnectionFailedError, Failures
from coordsvc.client.rpc_errors import typed_error
from coordsvc.client.status import FINAL, SessionStatus, report
from coordsvc.client.stream_end import StreamEnd
from coordsvc.errors import (
    CoordError,
    InternalError,
    LimitExceededError,
    NotCaughtUpError,
    OutcomeUnknownError,
    SessionExpiredError,
    SessionMovedError,
    ThrottledError,
    UnavailableError,
)
from coordsvc.v1 import cluster_pb2, coordination_pb2

Call = aio.StreamStreamCall[bytes, coordination_pb2.SessionResponse]

STEADY_SECONDS = 1.0
"""After a stream that lived so long the next replica is tried without a pause."""

DOUBT_SECONDS = 0.1
"""A replica that seems silent is given so long to be heard: perhaps this process stood still."""

TIMER_SECONDS_MIN = 0.005


class StreamKeeper:
    """`run` is to be one task; it ends with the session. `clock` is in seconds, as
    time.monotonic."""

    def __init__(
        self,
        config: ClientConfig,
        channels: Channels,
        status: SessionStatus,
        timeout_ms: int,
        client_name: str,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.conversation = Conversation(
            timeout_ms, client_name, self._on_work, has_others=len(config.endpoints) > 1
        )
        self.endpoint = ""
        """Of the replica that the session is attached to; empty while there is none."""

        self.clock = clock
        self._config = config
        self._channels = channels
        self._status = status
        self._failures = Failures(config)
        self._unanswered_hellos = 0
        self._attached_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._work: asyncio.Future[None] | None = None
        self._stop: asyncio.Future[CoordError] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self._doubted_at: float | None = None

    # ------------------------------------------------------------------------------- the session

    async def run(self) -> None:
        """Until the session is closed or lost; `status` says why. A session that cannot be opened
        is lost, too."""
        self._task = asyncio.current_task()
        open_by = self.clock() + self._config.timeout_ms / 1000
        try:
            while True:
                endpoint = self._channels.endpoint
                error = await self._serve(endpoint, open_by)
                self._leave_stream()
                if self._status.state in FINAL or self.conversation.is_closed:
                    return
                pause = self._pause_after(error)
                verdict = self._verdict(error, open_by - pause)
                if verdict is not None:
                    self.lose(verdict)
                    return
                self._channels.rotate(endpoint)
                await asyncio.sleep(pause)
        except Exception as error:  # A bug of ours: nobody shall wait for answers for ever.
            report("the session's task", error)
            self.lose(InternalError(f"the client failed: {error!r}"))
        finally:
            self._cancel_timer()

    @property
    def _is_open(self) -> bool:
        return self.conversation.credentials is not None

    def _leave_stream(self) -> None:
        self.endpoint = ""
        self.conversation.stream_ended()
        if self._status.state is SessionState.CONNECTED:
            self._status.change(SessionState.SUSPENDED)

    def _pause_after(self, error: CoordError) -> float:
        now = self.clock()
        if self._attached_at and now - self._attached_at >= STEADY_SECONDS:
            self._failures = Failures(self._config)
        self._attached_at = 0.0
        self._failures.add(error)
        pause = self._failures.pause_seconds()
        least = self._config.retry_delay_ms_min / 1000
        # Clients that lost the same replica do not all come back at the same moment.
        return random.uniform(least, pause) if pause > least else pause

    def _verdict(self, error: CoordError, open_by: float) -> CoordError | None:
        """What ends the session for good; None: go on at another replica."""
        if isinstance(error, SessionMovedError) and self._unanswered_hellos:
            # A hello of our own that was given up may have been done late: then we are the other
            # client that the session was moved to. Were it another one, it moves back once.
            self._unanswered_hellos -= 1
            return None
        is_passing = isinstance(
            error, UnavailableError | OutcomeUnknownError | ThrottledError | InternalError
        )
        if self._is_open and (is_passing or isinstance(error, LimitExceededError)):
            # A limit is one replica's; another one may have room. The clock decides.
            return None
        if not is_passing:
            return error
        is_late = self.clock() >= open_by
        return self._failures.verdict() if is_late or self._failures.is_hopeless() else None

    def lose(self, error: CoordError) -> None:
        """The session is over, and so is this client."""
        if self._status.state in FINAL:
            return
        self._status.error = error
        self._cancel_timer()
        self.conversation.fail(error)
        self._status.change(SessionState.LOST)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def check_clock(self) -> None:
        """Lose the session now if its time is up, even if the loop stood still until this call."""
        if self.clock() >= self.conversation.lifetime.lost_at and self._status.state not in FINAL:
            timeout_ms = round(self.conversation.lifetime.timeout_s * 1000)
            self.lose(
                SessionExpiredError(
                    f"not renewed for its timeout of {timeout_ms} ms: taken for lost"
                )
            )

    # -------------------------------------------------------------------------------- one stream

    async def _serve(self, endpoint: str, open_by: float) -> CoordError:
        """One attempt at one replica, from connecting to the stream's end: why it ended."""
        until = self._attempt_end(open_by)
        try:
            await self._channels.connect(endpoint, time.monotonic() + until - self.clock())
            call = self._channels.open_stream(
                endpoint,
                methods.SESSION_STREAM,
                coordination_pb2.SessionResponse,
            )
            end = StreamEnd(call)
            try:
                await self._attach(call, end, endpoint, until)
                return await self._exchange(call, end, endpoint)
            finally:
                call.cancel()
        except CoordError as error:
            if isinstance(error, NotCaughtUpError):
                await self._compare_cluster(endpoint)
            return error

    def _attempt_end(self, open_by: float) -> float:
        """Of an attempt to attach. With other replicas to go to a silent one gets little time."""
        now, lifetime = self.clock(), self.conversation.lifetime
        last = lifetime.lost_at if self._is_open else open_by
        if len(self._config.endpoints) == 1:
            return last
        patience = self._config.attempt_timeout_ms / 1000
        if self._is_open:
            patience = min(patience, lifetime.interval_s)
        return min(last, now + patience)

    async def _attach(self, call: Call, end: StreamEnd, endpoint: str, until: float) -> None:
        """Hello and welcome."""
        self._unanswered_hellos += 1
        try:
            async with asyncio.timeout(max(0.0, until - self.clock())):
                await call.write(self.conversation.hello(self.clock()).SerializeToString())
                response = await call.read()
        except TimeoutError:
            raise ConnectionFailedError(f"{endpoint} did not answer the hello in time") from None
        except (aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise self._refused_hello(await _why(call, end, error, endpoint)) from None
        if not isinstance(response, coordination_pb2.SessionResponse):
            raise ConnectionFailedError(f"{endpoint} ended the stream")
        self._unanswered_hellos -= 1
        self.conversation.handle(response, self.clock())
        if not self.conversation.is_attached:
            raise InternalError(f"{endpoint} does not begin with a welcome")

    def _refused_hello(self, error: CoordError) -> CoordError:
        if not isinstance(error, ConnectionFailedError | OutcomeUnknownError | InternalError):
            self._unanswered_hellos -= 1
        return error

    async def _exchange(self, call: Call, end: StreamEnd, endpoint: str) -> CoordError:
        self.endpoint = endpoint
        self._attached_at = self.clock()
        self._stop = self._loop.create_future()
        self._doubted_at = None
        self._arm()
        self._status.change(SessionState.CONNECTED)
        writer = asyncio.create_task(self._write(call))
        reader = asyncio.create_task(self._read(call, end, endpoint))
        try:
            await asyncio.wait({reader, self._stop}, return_when=asyncio.FIRST_COMPLETED)
            return self._stop.result() if self._stop.done() else reader.result()
        finally:
            writer.cancel()
            reader.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)

    async def _write(self, call: Call) -> None:
        conversation = self.conversation
        try:
            while True:
                frame = conversation.next_frame(self.clock())
                if frame is None:
                    self._work = self._loop.create_future()
                    await self._work
                    continue
                self._arm_at(min(conversation.lifetime.ping_at, conversation.lifetime.give_up_at))
                await call.write(frame)
        except (aio.AioRpcError, asyncio.InvalidStateError):
            return  # The stream is over; the reader hears why.
        except Exception as error:
            if not self._stop.done():
                self._stop.set_exception(error)

    async def _read(self, call: Call, end: StreamEnd, endpoint: str) -> CoordError:
        conversation = self.conversation
        try:
            while True:
                response = await call.read()
                if not isinstance(response, coordination_pb2.SessionResponse):
                    return ConnectionFailedError(f"{endpoint} ended the stream")
                conversation.handle(response, self.clock())
                if conversation.is_left or conversation.is_closed:
                    return self._why_left()
                if conversation.leave_by is not None:
                    self._arm_at(conversation.leave_by)
                self._on_work()
        except aio.AioRpcError as error:
            return typed_error(await end.why(error), endpoint, is_write=False)
        except CoordError as error:
            return error

    def _why_left(self) -> CoordError:
        because = self.conversation.leave_because
        return because or ConnectionFailedError("the replica asked to go elsewhere")

    async def _compare_cluster(self, endpoint: str) -> None:
        """A replica has not got what was seen before. If it is of another cluster, such as a
        restored one, it never will."""
        ask = self._channels.call(endpoint, methods.STATUS)
        try:
            status = await ask(
                cluster_pb2.StatusRequest(), timeout=self._config.attempt_timeout_ms / 1000
            )
        except aio.AioRpcError:
            return  # It is asked again when it refuses again.
        if status.header.cluster_id not in (0, self.conversation.cluster_id):
            self.conversation.forget_zxids()

    # ------------------------------------------------------------------------------------- waking

    def _on_work(self) -> None:
        """There may be something to write."""
        work = self._work
        if work is not None and not work.done():
            work.set_result(None)

    def wake_by(self, deadline: float) -> None:
        """Somebody's time is up at `deadline`."""
        if deadline < self._timer_at:
            self._arm_at(deadline)

    def _arm_at(self, at: float) -> None:
        if at >= self._timer_at:
            return
        self._cancel_timer()
        self._timer_at = at
        delay = max(TIMER_SECONDS_MIN, at - self.clock())
        self._timer = self._loop.call_later(delay, self._on_timer)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = None, float("inf")

    def _arm(self) -> None:
        """For whatever comes first."""
        conversation = self.conversation
        lifetime = conversation.lifetime
        at = min(lifetime.lost_at, conversation.requests.earliest_deadline)
        if conversation.is_attached:
            at = min(at, lifetime.ping_at, self._doubted_at or lifetime.give_up_at)
            at = min(at, conversation.leave_by or at)
        if at < float("inf"):
            self._arm_at(at)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self.check_clock()
        if self._status.state in FINAL:
            return
        now = self.clock()
        self.conversation.requests.fail_overdue(now)
        if self.conversation.is_attached:
            self._look_at_stream(now)
        self._arm()

    def _look_at_stream(self, now: float) -> None:
        conversation = self.conversation
        self._on_work()  # A ping may be due.
        if conversation.leave_by is not None and now >= conversation.leave_by:
            self._end_stream(self._why_left())
        elif now < conversation.lifetime.give_up_at:
            self._doubted_at = None
        elif self._doubted_at is None:
            self._doubted_at = now + DOUBT_SECONDS
        elif now >= self._doubted_at:
            self._end_stream(ConnectionFailedError(f"{self.endpoint} answers no pings"))

    def _end_stream(self, error: CoordError) -> None:
        if not self._stop.done():
            self._stop.set_result(error)


async def _why(call: Call, end: StreamEnd, error: BaseException, endpoint: str) -> CoordError:
    """A write to a stream that has ended says little; reading from it says why it has."""
    if not isinstance(error, aio.AioRpcError):
        try:
            await call.read()
        except aio.AioRpcError as reason:
            error = reason
    if isinstance(error, aio.AioRpcError):
        return typed_error(await end.why(error), endpoint, is_write=False)
    return ConnectionFailedError(f"{endpoint} ended the stream")
