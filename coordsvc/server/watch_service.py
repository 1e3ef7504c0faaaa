"""The call Watch: a stream of what happens to some znodes.

A stream is one coroutine, which sends what waits in its watcher, frame after frame, and sleeps when
nothing does. While the transport takes nothing, because the client reads nothing, it is held up in
the sending, and what happens meanwhile stays in the watcher's buffer, within its bounds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from coordsvc.core.commands import AuthId
from coordsvc.core.queries import effective_ids
from coordsvc.core.state import State
from coordsvc.errors import (
    BadArgumentsError,
    CoordError,
    LimitExceededError,
    SessionExpiredError,
    error_from_code,
)
from coordsvc.server import convert
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.grpc_door import Context, StreamHandler, seconds_left
from coordsvc.server.identities import ids_of
from coordsvc.server.pipeline import MIN_ZXID_WAIT_S_MAX, Call, Pipeline, no_quorum
from coordsvc.server.watch_hub import Spec, WatchHub, specs_from_messages
from coordsvc.server.watch_messages import Item
from coordsvc.v1 import common_pb2, watch_pb2

WATCHES_PER_CALL_MAX: Final = 1_000
"""A promise of the API."""

PROGRESS_INTERVAL_MS_MIN: Final = 100

FRAME_S_MAX: Final = 0.004
"""A frame is closed when making it has taken so long: the loop has others to serve."""

_TAKEN_BYTES: Final = 32 * 1024
"""What is put into a frame between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, checked. `progress_interval_s` 0: no progress marks."""

    specs: Sequence[Spec]
    start_after_zxid: int | None
    progress_interval_s: float


def _check(request: watch_pb2.WatchRequest) -> _Asked:
    count = len(request.watches)
    if not count:
        raise BadArgumentsError("the request has no watches; it needs at least one")
    if count > WATCHES_PER_CALL_MAX:
        raise LimitExceededError(
            f"the request has {count} watches; at most {WATCHES_PER_CALL_MAX} are allowed: use "
            "several streams"
        )
    start_after_zxid = None
    if request.HasField("start_after_zxid"):
        start_after_zxid = request.start_after_zxid
        if start_after_zxid < 0:
            raise BadArgumentsError(
                f"start_after_zxid is {start_after_zxid}; it must not be negative"
            )
    interval_ms = request.progress_interval_ms
    if interval_ms < 0:
        raise BadArgumentsError(f"progress_interval_ms is {interval_ms}; it must not be negative")
    if interval_ms:
        interval_ms = max(interval_ms, PROGRESS_INTERVAL_MS_MIN)
    return _Asked(specs_from_messages(request.watches), start_after_zxid, interval_ms / 1000)


class WatchService:
    """`header(0)` makes the header of what shows what is applied, `monotonic` is the replica's
    clock. It takes `hub.on_sessions_closed` for itself."""

    def __init__(
        self,
        pipeline: Pipeline,
        hub: WatchHub,
        config: ServerConfig,
        header: Callable[[int], common_pb2.ResponseHeader],
        monotonic: Callable[[], float],
    ) -> None:
        self._pipeline = pipeline
        self._hub = hub
        self._header = header
        self._monotonic = monotonic
        self._frame_bytes_max = config.limits.frame_size_bytes_max
        self._turn_s = config.cluster.tick_ms / 2000
        self._streams: dict[_Stream, None] = {}
        self._of_session: dict[int, dict[_Stream, None]] = {}
        self._refusal: CoordError | None = None
        self._timer: asyncio.TimerHandle | None = None
        hub.on_sessions_closed = self._on_sessions_closed

    @property
    def streams(self) -> Mapping[str, StreamHandler]:
        return {"Watch": self.watch}

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    async def watch(self, request: watch_pb2.WatchRequest, context: Context) -> None:
        """One stream, from the setting of its watches to its end."""
        if self._refusal is not None:
            raise _again(self._refusal)
        now = self._monotonic()
        asked = _check(request)
        call_context = convert.read_context(request.context)
        self._pipeline.admission.open_watch_stream(
            now, is_resumed=asked.start_after_zxid is not None
        )
        call = Call(call_context, now + seconds_left(context), now, ids_of(context))
        stream = _Stream(
            self._hub, call, context, asked, self._frame_bytes_max, lambda: self._header(0)
        )
        self._add(stream)
        try:
            zxid = await self._set_watches(call, asked, stream)
            await stream.run(zxid)
        finally:
            self._remove(stream)

    async def _set_watches(self, call: Call, asked: _Asked, stream: _Stream) -> int:
        """In the turn in which the state is known to be fresh enough. A start that is ahead of
        this replica is waited for; beyond what a majority knows it is of another history."""
        watcher, start = stream.watcher, asked.start_after_zxid

        def set_watches(state: State, ids: tuple[AuthId, ...]) -> int:
            if start is None:
                return watcher.add(asked.specs)
            return watcher.begin_resume(asked.specs, start)

        is_ahead = start is not None and start > self._hub.state.zxid
        if is_ahead:
            latest = call.received_at + MIN_ZXID_WAIT_S_MAX
            call = replace(call, deadline=min(call.deadline, latest))
        zxid, _ = await self._pipeline.read(call, set_watches, linearizable=is_ahead)
        return zxid

    def end_all(self, error: CoordError) -> None:
        """End every stream with `error`, after what waits on it, and refuse others; it does not
        wait for that. One whose client reads nothing stays until its call is cancelled."""
        self._refusal = error
        self._end_streams(error)

    # ------------------------------------------------------------------------------------- streams

    def _add(self, stream: _Stream) -> None:
        self._streams[stream] = None
        if stream.session_id:
            self._of_session.setdefault(stream.session_id, {})[stream] = None
        if self._timer is None:
            self._on_timer()

    def _remove(self, stream: _Stream) -> None:
        stream.watcher.close()
        self._streams.pop(stream, None)
        of_session = self._of_session.get(stream.session_id)
        if of_session is not None:
            of_session.pop(stream, None)
            if not of_session:
                del self._of_session[stream.session_id]
        if not self._streams and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._turn_s, self._on_timer)
        if not self._pipeline.has_quorum:
            self._end_streams(no_quorum())

    def _end_streams(self, error: CoordError) -> None:
        for stream in self._streams:
            stream.end(error)

    def _on_sessions_closed(self, session_ids: tuple[int, ...]) -> None:
        for session_id in session_ids:
            for stream in self._of_session.get(session_id, ()):
                stream.end(SessionExpiredError(f"session {session_id:#x} has ended"))


class _Stream:
    """One Watch call."""

    def __init__(
        self,
        hub: WatchHub,
        call: Call,
        context: Context,
        asked: _Asked,
        frame_bytes_max: int,
        header: Callable[[], common_pb2.ResponseHeader],
    ) -> None:
        session_id, connection_ids, state = call.context.session_id, call.ids, hub.state
        self.session_id = session_id
        self.watcher = hub.open(
            lambda: effective_ids(state, session_id, connection_ids), self._wake
        )
        self._state = state
        self._context = context
        self._watch_ids = [spec.watch_id for spec in asked.specs]
        self._interval_s = asked.progress_interval_s
        self._frame_bytes_max = frame_bytes_max
        self._header = header
        self._loop = asyncio.get_running_loop()
        self._sent_at = 0.0
        self._waiting: asyncio.Future[None] | None = None
        self._error: CoordError | None = None
        self._last_zxid: int | None = None
        """Up to which the stream goes, when it is to end."""

    def end(self, error: CoordError) -> None:
        """Send what waits now, and end with `error`. The first reason counts."""
        if self._error is None:
            self._error = error
            self._last_zxid = self._state.zxid
            self._wake()

    async def run(self, zxid: int) -> None:
        """Until it is cancelled, or raises what it ends with."""
        watches_set = watch_pb2.WatchesSet(watch_ids=self._watch_ids, zxid=zxid)
        await self._send(self._frame(watch_pb2.WatchItem(watches_set=watches_set)))
        watcher = self.watcher
        while True:
            if watcher.is_resuming:
                if self._error is not None:
                    raise _again(self._error)
                if watcher.advance():
                    await asyncio.sleep(0)
                    continue
            frame = self._frame()
            self._fill(frame)
            if frame.items:
                await self._send(frame)
            elif self._error is not None:
                # A new one: this object would hold the trace, and the trace this object.
                raise _again(self._error)
            elif self._is_progress_due():
                progress = watch_pb2.WatchProgress(zxid=watcher.position)
                await self._send(self._frame(watch_pb2.WatchItem(progress=progress)))
            elif not watcher.is_resuming:
                await self._wait()

    # ------------------------------------------------------------------------------------- sending

    def _frame(self, *items: watch_pb2.WatchItem) -> watch_pb2.WatchResponse:
        return watch_pb2.WatchResponse(header=self._header(), items=items)

    def _fill(self, frame: watch_pb2.WatchResponse) -> None:
        room = self._frame_bytes_max
        until = time.perf_counter() + FRAME_S_MAX
        while room > 0:
            items = self.watcher.take(self._last_zxid, min(room, _TAKEN_BYTES))
            if not items:
                return
            for _, item in items:
                room -= item.ByteSize()
                _put(frame.items.add(), item)
            if time.perf_counter() >= until:
                return

    async def _send(self, frame: watch_pb2.WatchResponse) -> None:
        await self._context.write(frame)
        self._sent_at = self._loop.time()

    # ------------------------------------------------------------------------------------- waiting

    def _is_progress_due(self) -> bool:
        return bool(self._interval_s) and self._loop.time() >= self._sent_at + self._interval_s

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def _wait(self) -> None:
        """Until there is something to send, an end, or a progress mark is due."""
        waiting = self._waiting = self._loop.create_future()
        timer = None
        if self._interval_s:
            timer = self._loop.call_at(self._sent_at + self._interval_s, self._wake)
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()


def _put(into: watch_pb2.WatchItem, item: Item) -> None:
    if isinstance(item, watch_pb2.WatchEvent):
        into.event.CopyFrom(item)
    elif isinstance(item, watch_pb2.WatchGap):
        into.gap.CopyFrom(item)
    else:
        into.removed.CopyFrom(item)


def _again(error: CoordError) -> CoordError:
    """The same error as an object of its own: one that is raised in many streams would gather the
    traces of them all."""
    return error_from_code(error.code, error.message, retry_after_ms=error.retry_after_ms)
