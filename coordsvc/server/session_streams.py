"""The Session streams of a replica: who is attached here, and what ends them all.

An attachment is replicated. When a newer one is applied here, wherever it came in, the older stream
of the session ends; writes of it that are still under way carry its number and are refused where
they are applied, at every replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coordsvc.core.commands import AppliedEntry, AuthId
from coordsvc.errors import BadArgumentsError, OutcomeUnknownError, ShuttingDownError
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.grpc_door import Context, StreamHandler
from coordsvc.server.identities import ids_of
from coordsvc.server.measurements import Measurements
from coordsvc.server.pipeline import Pipeline, no_quorum
from coordsvc.server.replica_port import ReplicaPort
from coordsvc.server.request_kinds import write_kinds
from coordsvc.server.session_hello import open_stream
from coordsvc.server.session_queue import Attached, StreamParts
from coordsvc.server.session_reports import SessionReports
from coordsvc.server.session_stream import SessionStream
from coordsvc.server.watch_hub import WatchHub
from coordsvc.v1 import common_pb2, coordination_pb2

HELLO_S_MAX = 10.0
"""For a client to say hello, once its stream is open."""

TURN_S = 0.25
"""How often it is looked after requests under way, and after the majority."""


@dataclass(frozen=True)
class SessionStreamsStatistics:
    streams: int
    requests_unanswered: int


class SessionService:
    """The streaming part of the service Coordination. `header(zxid)` as for unary calls.

    Give `on_applied` every applied entry, after the watch hub and the session reports had it."""

    def __init__(
        self,
        config: ServerConfig,
        pipeline: Pipeline,
        replica: ReplicaPort,
        reports: SessionReports,
        hub: WatchHub,
        header: Callable[[int], common_pb2.ResponseHeader],
        measurements: Measurements | None = None,
    ) -> None:
        self._parts = StreamParts(
            pipeline=pipeline,
            replica=replica,
            reports=reports,
            cluster=config.cluster,
            limits=config.limits,
            writes=write_kinds(config.superuser_digest),
            header=header,
            measurements=measurements or Measurements(),
        )
        self._hub = hub
        self._streams: dict[int, dict[SessionStream, None]] = {}
        self._none_left = asyncio.Event()
        self._is_ending = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def streams(self) -> Mapping[str, StreamHandler]:
        return {"Session": self.session}

    async def session(self, frames: Any, context: Context) -> None:
        """Serve one stream, to its end."""
        first = await _first_frame(frames)
        if self._is_ending:
            raise _shutting_down()
        ids: tuple[AuthId, ...] = ids_of(context)
        stream, welcome = await open_stream(
            self._parts, first.hello, ids, self._register, self._unregister
        )
        try:
            await stream.run(first, frames, context, welcome)
        finally:
            self._unregister(stream)

    # --------------------------------------------------------------------------------- attachments

    def _register(self, attached: Attached) -> SessionStream:
        if self._is_ending:
            raise _shutting_down()
        stream = SessionStream(self._parts, attached, self._hub)
        self._streams.setdefault(attached.session_id, {})[stream] = None
        # What was applied since the attachment was decided nobody has told it.
        stream.check_session()
        if self._timer is None:
            self._on_timer()
        return stream

    def _unregister(self, stream: SessionStream) -> None:
        of_session = self._streams.get(stream.session_id, {})
        of_session.pop(stream, None)
        if not of_session:
            self._streams.pop(stream.session_id, None)
        if not self._streams:
            self._none_left.set()
        stream.close()

    def on_applied(self, applied: AppliedEntry) -> None:
        for session_ids in (applied.attached_sessions, applied.closed_sessions):
            for session_id in session_ids:
                for stream in self._streams.get(session_id, ()):
                    stream.check_session()

    def _all(self) -> list[SessionStream]:
        return [stream for of_session in self._streams.values() for stream in of_session]

    # --------------------------------------------------------------------------------------- turns

    def _on_timer(self) -> None:
        self._timer = None
        if not self._streams:
            return
        self._timer = asyncio.get_running_loop().call_later(TURN_S, self._on_timer)
        now = self._parts.now()
        if not self._parts.pipeline.has_quorum:
            for stream in self._all():
                stream.end_without_quorum(no_quorum())
            return
        for of_session in self._streams.values():
            for stream in of_session:
                if stream.unanswered:
                    stream.heard_if_waiting(now)

    # --------------------------------------------------------------------------------- the end

    def begin_end_all(self, reason: coordination_pb2.GoAwayReason.ValueType, grace_ms: int) -> None:
        """Tell every client to go elsewhere, open no stream and run no request any more. Streams
        end when what was proposed on them is answered, at the latest after `grace_ms`."""
        self._is_ending = True
        for stream in self._all():
            stream.end(_shutting_down(), reason=reason, grace_s=grace_ms / 1000)

    async def end_all(self) -> None:
        """Answer what is not decided as unknown, and return when no stream is left. A client that
        does not read holds this up by a second."""
        self._is_ending = True
        unknown = OutcomeUnknownError("this replica stopped before the write was decided")
        for stream in self._all():
            stream.end(
                _shutting_down(),
                undecided=unknown,
                reason=coordination_pb2.GO_AWAY_REASON_SHUTTING_DOWN,
            )
        while self._streams:
            self._none_left.clear()
            await self._none_left.wait()

    def statistics(self) -> SessionStreamsStatistics:
        streams = self._all()
        return SessionStreamsStatistics(
            streams=len(streams),
            requests_unanswered=sum(stream.unanswered for stream in streams),
        )


async def _first_frame(frames: Any) -> coordination_pb2.SessionRequest:
    try:
        async with asyncio.timeout(HELLO_S_MAX):
            async for frame in frames:
                if not frame.HasField("hello"):
                    break
                first: coordination_pb2.SessionRequest = frame
                return first
    except TimeoutError:
        raise BadArgumentsError(f"no hello within {HELLO_S_MAX:.0f} s") from None
    raise BadArgumentsError("a stream begins with a frame that has a hello")


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("this replica is stopping; the session lives on at another one")
