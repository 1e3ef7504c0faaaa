"""A session's side of its streams: what is said next, and what follows from what is heard.

It outlives the streams. It knows frames and times, but neither sockets nor tasks: `stream` moves
its frames. Everything here happens between two awaits, so nobody sees a half-handled frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from coordsvc.client.lifetime import Lifetime
from coordsvc.client.requests import Request, RequestQueue
from coordsvc.client.retry import is_passing
from coordsvc.client.rpc_errors import typed_detail
from coordsvc.client.watching import Watches, Watching
from coordsvc.errors import (
    CoordError,
    NotCaughtUpError,
    SessionExpiredError,
    SessionMovedError,
)
from coordsvc.v1 import common_pb2, coordination_pb2

FRAME_FIELDS = coordination_pb2.SessionRequest.DESCRIPTOR.fields_by_name

FRAME_BYTES_MAX = 1024 * 1024
"""As the service's own frames. A larger request has a frame of its own."""

DRAIN_SECONDS_MAX = 1.0
"""How long answers are waited for on a stream that is left, when nobody said how long it lasts."""


class Conversation:
    """`timeout_ms` and `client_name` are for the hello that opens the session. `on_work` is called
    when there may be something to say. `has_others`: as for Lifetime."""

    def __init__(
        self,
        timeout_ms: int,
        client_name: str,
        on_work: Callable[[], None],
        *,
        has_others: bool = False,
    ) -> None:
        self.requests = RequestQueue()
        self.watches = Watches()
        self.lifetime = Lifetime(has_others=has_others)
        self.zxid = 0
        """The highest that any answer carried; 0: none yet, or another cluster since."""

        self.credentials: common_pb2.SessionCredentials | None = None
        self.cluster_id = 0
        self.replica_id = 0
        self.is_attached = False
        self.leave_by: float | None = None
        """The stream is to be left: when everything is answered, at this time at the latest."""

        self.leave_because: CoordError | None = None
        self.is_closed = False
        """The service has said that the session is closed."""

        self._timeout_ms = timeout_ms
        self._client_name = client_name
        self._on_work = on_work
        self._outstanding_max = 0
        self._is_other_cluster = False
        self._hello_sent_at = 0.0

    # --------------------------------------------------------------------------------- speaking

    def hello(self, now: float) -> coordination_pb2.SessionRequest:
        """The first frame of a stream."""
        self._hello_sent_at = now
        hello = coordination_pb2.SessionHello(last_zxid=self.zxid)
        if self.credentials is None:
            hello.timeout_ms, hello.client_name = self._timeout_ms, self._client_name
        else:
            hello.credentials.CopyFrom(self.credentials)
            if specs := self.watches.specs():
                hello.watches.extend(specs)
                if not self._is_other_cluster:
                    hello.start_after_zxid = self.watches.position
        return coordination_pb2.SessionRequest(hello=hello)

    def next_frame(self, now: float) -> bytes | None:
        """Everything that may leave now, in one frame; None: nothing."""
        if not self.is_attached:
            return None
        taken: list[Request] = []
        if self.leave_by is None and self.requests.has_unsent:
            taken = self.requests.take(self._outstanding_max, FRAME_BYTES_MAX)
        is_ping_due = now >= self.lifetime.ping_at
        if not taken and not is_ping_due:
            return None
        # A SessionRequest by hand: put into a message, each operation would be copied first.
        frame: list[bytes] = []
        if taken:
            self.lifetime.asked(now)
        for request in taken:
            operation = request.operation.SerializeToString()
            frame += (_OPERATION, varint(len(operation)), operation)
        if is_ping_due:
            ping = coordination_pb2.SessionPing(nonce=self.lifetime.ping(now))
            frame.append(coordination_pb2.SessionRequest(ping=ping).SerializeToString())
        return b"".join(frame)

    def submit(self, request: Request) -> None:
        self.requests.add(request)
        self._on_work()

    def forget(self, watchings: list[Watching]) -> None:
        """Their users want no more of them, and they may be set at the replica."""
        ids = []
        for watching in watchings:
            watching.is_wanted = False
            self.watches.remove(watching)
            ids.append(watching.watch_id)
        if not ids or not self.is_attached:
            return
        operation = coordination_pb2.SessionOperation()
        operation.remove_watches.watch_ids.extend(ids)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # It may be gone over there already, which is just as well.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.submit(Request(operation, lambda reply: None, done, float("inf")))

    # -------------------------------------------------------------------------------- listening

    def handle(self, response: coordination_pb2.SessionResponse, now: float) -> None:
        """The items of a frame, in their order. SessionExpiredError: the session is over."""
        self.lifetime.received(now)
        settle = self.requests.settle
        for item in response.items:
            reply = item.reply
            if reply.request_id:  # It is the item: the most are, and this is the quickest to tell.
                if reply.HasField("error"):
                    self._handle_refusal(reply, now)
                else:
                    settle(reply, None)
                # After it, so that a watch set by this reply is asked for from here on.
                self._saw(reply.zxid)
                continue
            kind = item.WhichOneof("item")
            if kind == "event":
                self.watches.event(item.event)
            elif kind == "pong":
                self._saw(item.pong.zxid)
                self.lifetime.pong(item.pong.nonce)
            elif kind is not None:
                self._handle_other(kind, item, now)
        if not self.requests.in_flight:
            self.lifetime.settled()
        if self.requests.is_stuck is not None:
            message = f"given up, as its request numbers do not fit: {self.requests.is_stuck}"
            raise SessionExpiredError(message)

    def _handle_other(self, kind: str, item: coordination_pb2.SessionItem, now: float) -> None:
        if kind == "welcome":
            self._handle_welcome(item.welcome, now)
        elif kind == "gap":
            self.forget(self.watches.gap(item.gap))
        elif kind == "removed":
            self.watches.removed(item.removed)
        elif kind == "go_away":
            self._leave(now, item.go_away.grace_ms / 1000, None)

    def _handle_refusal(self, reply: coordination_pb2.SessionReply, now: float) -> None:
        error = typed_detail(reply.error)
        if isinstance(error, SessionExpiredError):
            raise error
        if _means_leaving(error):
            self._leave(now, DRAIN_SECONDS_MAX, error)
        self.requests.settle(reply, error)

    def _saw(self, zxid: int) -> None:
        if zxid > self.zxid:
            self.zxid = zxid
        self.watches.reached(zxid)

    def _handle_welcome(self, welcome: coordination_pb2.SessionWelcome, now: float) -> None:
        header = welcome.header
        is_other = self.cluster_id not in (0, header.cluster_id)
        self.cluster_id, self.replica_id = header.cluster_id, header.replica_id
        self.credentials = common_pb2.SessionCredentials()
        self.credentials.CopyFrom(welcome.credentials)
        self._outstanding_max = max(1, welcome.outstanding_requests_max)
        self.lifetime.welcomed(self._hello_sent_at, now, welcome.timeout_ms)
        self.is_attached = True
        self.watches.resumed()
        self._is_other_cluster = False
        if is_other:
            self.zxid = 0
            self.forget(self.watches.begin_other_history(header.zxid))
        self.zxid = max(self.zxid, header.zxid)

    # ---------------------------------------------------------------------------------- leaving

    def _leave(self, now: float, grace_s: float, because: CoordError | None) -> None:
        if self.leave_by is None or now + grace_s < self.leave_by:
            self.leave_by = now + grace_s
        self.leave_because = self.leave_because or because

    @property
    def is_left(self) -> bool:
        """Nothing more is to be expected of a stream that is to be left."""
        return self.leave_by is not None and not self.requests.in_flight

    def stream_ended(self) -> None:
        """What was said and not answered will be said again."""
        self.is_attached, self.replica_id = False, 0
        self.leave_by = self.leave_because = None
        self.requests.rewind()

    def forget_zxids(self) -> None:
        """The cluster is another one than the one they are from: no replica has them."""
        self.zxid = 0
        self._is_other_cluster = True

    def fail(self, error: CoordError) -> None:
        """The session is over."""
        self.is_attached = False
        self.requests.fail_all(error)
        self.watches.fail_all(error)


_LENGTHS: Final = 1024
_OPERATION: Final = bytes((FRAME_FIELDS["operations"].number << 3 | 2,))
"""What stands before each operation in a frame, with its length."""


def _varint(value: int) -> bytes:
    """Ref: Protocol Buffers, "Encoding"."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_VARINTS: Final = [_varint(value) for value in range(_LENGTHS)]


def varint(value: int) -> bytes:
    return _VARINTS[value] if value < _LENGTHS else _varint(value)


def _means_leaving(error: CoordError) -> bool:
    """Whether another replica is to be asked instead. One that has not seen the zxid that a single
    read demands is no worse than the others."""
    if isinstance(error, NotCaughtUpError):
        return False
    return is_passing(error) or isinstance(error, SessionMovedError)
