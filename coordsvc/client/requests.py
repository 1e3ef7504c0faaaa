"""The requests of one session: their order, their numbers, and what becomes of them.

Writes are numbered 1, 2, 3 without gaps when they are first sent, and sent again under the same
number as long as nobody knows what became of them; the cluster then answers as the first time. So
each is applied once, in the order in which they were asked for, whatever breaks in between:

* A request waits (`unsent`) until it is taken into a frame (`in flight`), and ends with its answer.
* When the stream breaks, everything in flight goes back to the front, in its old order.
* A write that was certainly not proposed has not used its number, and the cluster refuses those
  that were sent behind it. They all come back, and nothing new is sent before they have: then they
  are numbered anew from there. A read that was answered out of its place is asked again.
* A request whose time is up is answered to its caller. Unless it was never sent it keeps its place
  and its number: what comes behind it needs them used.
* A write that was perhaps applied, and is refused for good when it is sent again, is answered as
  unknown. Its number is settled by a write that does nothing.

Knows neither the connection nor the clock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from typing import Any

from coordsvc.client.retry import ConnectionFailedError, is_number_used, is_passing
from coordsvc.errors import (
    Applied,
    CoordError,
    InternalError,
    NotCaughtUpError,
    OutcomeUnknownError,
    RequestOutOfOrderError,
    SessionMovedError,
)
from coordsvc.v1 import common_pb2, coordination_pb2

RESULTS_KEPT_MAX = 1_000
"""The service keeps so many results of a session; writes further ahead are refused."""

OPERATION_BYTES_OVERHEAD = 48
"""An operation's ids, numbers and tags, which it gets when it is sent."""

Reply = coordination_pb2.SessionReply
Decode = Callable[[Reply], Any]


class Request:
    """One operation, and whom to tell. `context` is the write's own, None for what takes no
    number. `on_sent` is called each time it is about to be sent, and may change the operation.
    `is_unsettled`: it was sent, and may have been applied without anybody knowing. `is_filler`: its
    caller has been answered, and it does nothing any more but to use its number."""

    __slots__ = (
        "context",
        "deadline",
        "decode",
        "future",
        "is_filler",
        "is_unsettled",
        "number",
        "on_sent",
        "operation",
        "place",
        "refusal",
        "size",
    )

    def __init__(
        self,
        operation: coordination_pb2.SessionOperation,
        decode: Decode,
        future: asyncio.Future[Any],
        deadline: float,
        context: common_pb2.RequestContext | None = None,
        on_sent: Callable[[], None] | None = None,
    ) -> None:
        self.operation = operation
        self.decode = decode
        self.future = future
        self.deadline = deadline
        self.context = context
        self.on_sent = on_sent
        self.size = operation.ByteSize() + OPERATION_BYTES_OVERHEAD
        self.place = 0
        self.number = 0
        self.is_unsettled = False
        self.is_filler = False
        self.refusal: CoordError | None = None

    @property
    def is_write(self) -> bool:
        return self.context is not None

    def become_filler(self) -> None:
        """A write that changes nothing, and that every replica takes. Where the number was used,
        it is refused as another operation than that, which is just as well."""
        self.operation = coordination_pb2.SessionOperation()
        self.operation.multi.operations.add().check.path = "/"
        self.context = self.operation.multi.context
        self.is_filler = True


class RequestQueue:
    """`settle` answers a request's future, after what `decode` makes of the reply."""

    def __init__(self) -> None:
        self.bytes = 0
        """Of all that were added and have not left yet."""

        self.count = 0
        """Of the same."""

        self._unsent: deque[Request] = deque()
        self._in_flight: dict[int, Request] = {}
        self._refused: list[Request] = []
        self._refused_write_place: int | None = None
        self._writes: deque[Request] = deque()
        self._free_from: int | None = None
        self._next_number = 1
        self._last_id = 0
        self._last_place = 0
        self.is_stuck: CoordError | None = None
        """The numbers do not fit any more, which must not happen: the session is of no use."""

    def __len__(self) -> int:
        return self.count

    @property
    def has_unsent(self) -> bool:
        return bool(self._unsent)

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    @property
    def earliest_deadline(self) -> float:
        """Of those whose callers still wait; infinite if nobody does."""
        waiting = [each.deadline for each in self._all() if not each.future.done()]
        return min(waiting, default=float("inf"))

    def add(self, request: Request) -> None:
        self._last_place += 1
        request.place = self._last_place
        self.bytes += request.size
        self.count += 1
        self._unsent.append(request)

    def _left(self, request: Request) -> None:
        self.bytes -= request.size
        self.count -= 1

    # --------------------------------------------------------------------------------- sending

    def take(self, outstanding_max: int, bytes_max: int) -> list[Request]:
        """What leaves in the next frame, with ids and numbers. A request larger than `bytes_max`
        has a frame of its own."""
        taken: list[Request] = []
        if self._refused or self._free_from is not None:
            return taken
        size = 0
        unsent, in_flight = self._unsent, self._in_flight
        window = min(outstanding_max, RESULTS_KEPT_MAX)
        while unsent and len(in_flight) < outstanding_max:
            request = unsent[0]
            size += request.size
            if size > bytes_max and taken:
                break
            if request.context is None:
                if request.future.done():
                    self._left(unsent.popleft())  # Nobody waits for what it reads.
                    size -= request.size
                    continue
            elif not self._give_number(request, request.context, window):
                break
            unsent.popleft()
            self._last_id += 1
            request.operation.request_id = self._last_id
            request.refusal = None
            if request.on_sent is not None:
                request.on_sent()
            in_flight[self._last_id] = request
            taken.append(request)
        return taken

    def _give_number(
        self, request: Request, context: common_pb2.RequestContext, window: int
    ) -> bool:
        """Whether it may leave now; if so it has its number."""
        number = request.number or self._next_number
        writes = self._writes
        done_below = writes[0].number if writes else number
        if number >= done_below + window:
            return False
        if not request.number:
            self._next_number += 1
            request.number = number
        context.request_number, context.done_below = number, done_below
        writes.append(request)
        return True

    # --------------------------------------------------------------------------------- answers

    def settle(self, reply: Reply, error: CoordError | None) -> None:
        """`reply` came; `error` is what it says if it is a refusal. It may be about a request that
        is not known any more."""
        request = self._in_flight.pop(reply.request_id, None)
        if request is None:
            return
        if error is None and not self._refused and self._free_from is None:
            if request.context is not None:
                self._done(request)
            else:
                self._left(request)
            _answer(request, reply, None)
            return
        if request.is_write:
            self._settle_write(request, reply, error)
        else:
            self._settle_read(request, reply, error)
        if not self._in_flight and (self._refused or self._free_from is not None):
            self.rewind()

    def _settle_read(self, request: Request, reply: Reply, error: CoordError | None) -> None:
        if _comes_back(error) and not isinstance(error, NotCaughtUpError):
            self._refuse(request, error)
        elif self._refused_write_place is not None and self._refused_write_place < request.place:
            self._refuse(request, None)  # It did not see a write that it has to see.
        else:
            self._left(request)
            _answer(request, reply, error)

    def _settle_write(self, request: Request, reply: Reply, error: CoordError | None) -> None:
        if isinstance(error, OutcomeUnknownError):
            request.is_unsettled = True
            self._refuse(request, error)
        elif error is None or is_number_used(error):
            if self._free_from is not None and request.number > self._free_from:
                self._free_from = None
            self._fail_reads_before(request)
            self._done(request)
            _answer(request, reply, error)
        elif isinstance(error, RequestOutOfOrderError):
            if not self._refused and self._free_from is None:
                self.is_stuck = error
            request.is_unsettled = False
            self._free(request)
            self._refuse(request, None)
        elif _comes_back(error):
            if not request.is_unsettled:
                self._free(request)
            self._refuse(request, error)
        elif request.is_unsettled or error.applied is not Applied.NO:
            self._settle_number(request, error)
        else:
            self._free(request)
            self._done(request)
            _answer(request, reply, error)

    def _settle_number(self, request: Request, error: CoordError) -> None:
        """Nobody knows whether the write has used its number."""
        if request.is_filler:
            self.is_stuck = error
        message = f"perhaps applied; sent again, it was refused: {error}"
        _fail(request, OutcomeUnknownError(message, path=error.path))
        request.become_filler()
        self._refuse(request, error)

    def _refuse(self, request: Request, error: CoordError | None) -> None:
        """It goes back to its place once everything in flight is answered, or the stream ends."""
        request.refusal = error
        self._refused.append(request)
        if request.is_write and self._refused_write_place is None:
            self._refused_write_place = request.place

    def _free(self, request: Request) -> None:
        number = request.number
        self._free_from = number if self._free_from is None else min(self._free_from, number)

    def _done(self, request: Request) -> None:
        """Its result is not asked for again: `done_below` moves on."""
        self.bytes -= request.size
        self.count -= 1
        request.number = -request.number
        writes = self._writes
        while writes and writes[0].number < 0:
            writes.popleft()

    def _fail_reads_before(self, write: Request) -> None:
        """A read that was refused cannot be asked again in its place once a later write is done."""
        if not self._refused:
            return
        for request in self._refused:
            if not request.is_write and request.place < write.place:
                _fail(request, request.refusal or ConnectionFailedError("overtaken by a write"))
        self._refused = self._kept(
            self._refused, lambda each: each.is_write or not each.future.done()
        )

    def _kept(
        self, requests: Iterable[Request], is_kept: Callable[[Request], bool]
    ) -> list[Request]:
        """Those that stay; the others leave without an answer of the service."""
        kept = []
        for request in requests:
            if is_kept(request):
                kept.append(request)
            else:
                self._left(request)
        return kept

    # ------------------------------------------------------------------------------- rewinding

    def rewind(self) -> None:
        """Everything sent and not answered is to be sent again: the stream is over, or everything
        in flight was answered and some of it refused for the time being."""
        back = sorted([*self._refused, *self._in_flight.values()], key=lambda each: each.place)
        unanswered = set(map(id, self._in_flight.values()))
        free_from, self._free_from = self._free_from, None
        self._refused, self._in_flight = [], {}
        self._refused_write_place = None
        self._writes.clear()
        for request in back:
            if not request.is_write:
                continue
            if free_from is not None and request.number >= free_from:
                request.number, request.is_unsettled = 0, False
            elif id(request) in unanswered:
                request.is_unsettled = True
        if free_from is not None:
            self._next_number = free_from
        kept = self._kept(back, lambda each: not _is_forgettable(each))
        self._unsent.extendleft(reversed(kept))

    # -------------------------------------------------------------------------------- failing

    def fail_overdue(self, now: float) -> None:
        """Callers whose time is up are told. What was never sent is dropped."""
        for request in self._all():
            if request.deadline <= now and not request.future.done():
                _fail(request, self._overdue_error(request))
        self._unsent = deque(
            self._kept(
                self._unsent,
                lambda each: not _is_forgettable(each) and (each.deadline > now or each.number > 0),
            )
        )

    def _overdue_error(self, request: Request) -> CoordError:
        is_sent = request.number > 0 or request.operation.request_id in self._in_flight
        if request.is_unsettled or (request.is_write and is_sent and request.refusal is None):
            return OutcomeUnknownError("sent, and no answer came in time")
        if request.refusal is not None:
            return request.refusal
        return ConnectionFailedError("no answer came in time" if is_sent else "not sent in time")

    def fail_all(self, error: CoordError) -> None:
        """The session is over; each caller gets an error of its own, of the type of `error`."""
        for request in self._all():
            failure = copy(error)
            is_sent = request.is_unsettled or request.operation.request_id in self._in_flight
            failure.applied = Applied.UNKNOWN if request.is_write and is_sent else Applied.NO
            _fail(request, failure)
        self._unsent.clear()
        self._in_flight.clear()
        self._refused.clear()
        self._writes.clear()
        self.bytes = self.count = 0

    def _all(self) -> list[Request]:
        return [*self._refused, *self._in_flight.values(), *self._unsent]


def _comes_back(error: CoordError | None) -> bool:
    """Whether the request is asked again, here or at another replica."""
    return error is not None and (is_passing(error) or isinstance(error, SessionMovedError))


def _is_forgettable(request: Request) -> bool:
    """Nobody waits for it, and nothing depends on its being sent. A caller who was cancelled has
    only given up the answer: the write is sent all the same."""
    if not request.future.done():
        return False
    if not request.is_write:
        return True
    return not request.number and (request.is_filler or not request.future.cancelled())


def _answer(request: Request, reply: Reply, error: CoordError | None) -> None:
    if error is not None:
        _fail(request, error)
        return
    try:
        value = request.decode(reply)
    except CoordError as failure:
        _fail(request, failure)
        return
    future = request.future
    if not future.done():
        future.set_result(value)


def _fail(request: Request, error: CoordError) -> None:
    if not request.future.done():
        request.future.set_exception(error)


def decode_failure(reply: Reply) -> InternalError:
    """For a reply of another kind than the request."""
    return InternalError(f"the reply to request {reply.request_id} is of another kind")
