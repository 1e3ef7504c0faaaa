"""One client's connection: packets in, packets out, in order.

Whatever arrives in one turn of the loop is read in one go, and whatever is ready leaves in one
write. A connection costs no task: what it waits for wakes it.

* Requests are answered in the order they came (`queue.py`).
* Before a reply leaves, all events up to its zxid leave; nothing that a client sees reveals a
  change before the event of its watch.
* What ZooKeeper's protocol has no word for ends the connection: no majority in reach, a write
  refused because the replica is busy or stopping, events that nobody takes. Its client goes to
  another replica, with its session.
* A client that does not take what it is sent is not read from either.

Ref: ZooKeeper NIOServerCnxn, FinalRequestProcessor, CommitProcessor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Final, cast

from coordsvc.core.commands import AuthId, Caller
from coordsvc.core.queries import effective_ids
from coordsvc.core.state import State
from coordsvc.errors import CoordError, NoQuorumError, SessionExpiredError, SessionMovedError
from coordsvc.server.zookeeper.handshake import (
    CONNECT_BYTES_MAX,
    ConnectRequest,
    decode_connect,
    encode_connected,
    encode_refused,
)
from coordsvc.server.zookeeper.identities import added_ids, ids_of_transport
from coordsvc.server.zookeeper.jute import JuteError, Reader
from coordsvc.server.zookeeper.opening import open_or_attach
from coordsvc.server.zookeeper.outbox import Outbox
from coordsvc.server.zookeeper.protocol import (
    AUTH,
    AUTH_FAILED,
    AUTH_XID,
    MARSHALLING_ERROR,
    OK,
    OPERATION_NAMES,
    PING,
    PING_XID,
    RECONFIG,
    RECONFIG_DISABLED,
    SESSION_EXPIRED,
    SESSION_MOVED,
    UNIMPLEMENTED,
    code_of,
)
from coordsvc.server.zookeeper.queue import CHECK_TIME_EACH, REQUEST_S_MAX, RequestQueue
from coordsvc.server.zookeeper.requests import READS, WRITES
from coordsvc.server.zookeeper.statistics import ConnectionFacts, Traffic
from coordsvc.server.zookeeper.watches import ConnectionWatches

if TYPE_CHECKING:
    from coordsvc.server.zookeeper.door import Door

logger = logging.getLogger(__name__)

HANDSHAKE_S_MAX: Final = 10.0
MOVED_S_MAX: Final = 10.0
"""For how long a connection whose session is elsewhere now waits to say so."""

LAST_ANSWERS_S_MAX: Final = 1.0
SLICE_S: Final = 0.004
UNREAD_BYTES_MAX: Final = 256 * 1024
"""Taken from a client whose session is not open yet."""

PINGS_MAX: Final = 1_000

_LENGTH: Final = Struct(">i")
_REQUEST_HEADER: Final = Struct(">ii")
_HEADER_BYTES: Final = _REQUEST_HEADER.size
_unpack_header: Final = _REQUEST_HEADER.unpack_from
_FIRST, _OPENING, _SERVING, _DRAINING, _ENDING = range(5)
"""Draining: nothing more is taken in, and it ends when everything is answered."""


class Connection(asyncio.Protocol):
    """Made by the door for each client that connects."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._pipeline = door.pipeline
        self._now = door.now
        self._transport: asyncio.Transport
        self.host, self.port = "", 0
        self.session_id = 0
        self.timeout_ms = 0
        self.established_ms = 0
        self.attach_epoch = 0
        self._own_ids: tuple[AuthId, ...] = ()
        self._caller = Caller()
        self._phase = _FIRST
        self._unread = bytearray()
        self._needed = 0
        """Bytes that must be there before anything can be read."""
        self._pings: set[asyncio.Future[None]] = set()
        self._is_scheduled = False
        self._is_reading = True
        self._lost: CoordError | None = None
        """The session is not this connection's any more."""
        self._timer: asyncio.TimerHandle | None = None
        self._opening: asyncio.Task[None] | None = None
        self.watches = ConnectionWatches(door.hub, self._ids, self.wake)
        self.traffic = Traffic()
        self._last = (0, 0)
        """(type of the last request, its xid)"""
        self._queue = RequestQueue(door, self, self.traffic, self.wake, self._break_after)
        self._outbox: Outbox

    # ------------------------------------------------------------------------------ as an Asker

    @property
    def state(self) -> State:
        return self._door.replica.machine.state

    @property
    def ids(self) -> tuple[AuthId, ...]:
        return effective_ids(self._door.replica.machine.state, self.session_id, self._own_ids)

    def _ids(self) -> tuple[AuthId, ...]:
        return self.ids

    def config_data(self) -> bytes:
        return self._door.config_data()

    # ------------------------------------------------------------------------------------- life

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._outbox = Outbox(self._transport, self.watches, self.traffic, self._now)
        peer = transport.get_extra_info("peername")
        self.host, self.port = (str(peer[0]), int(peer[1])) if peer else ("", 0)
        self.established_ms = self._door.wall_ms()
        if not self._door.enter(self):
            self._phase = _ENDING
            self._transport.abort()
            return
        self._own_ids = ids_of_transport(self._transport)
        self._end_after(HANDSHAKE_S_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        """The session lives on until its timeout. Writes that were submitted run, in order or not
        at all; those that wait for a read before them never will."""
        self._phase = _ENDING
        if self._timer is not None:
            self._timer.cancel()
        self.watches.close()
        self._queue.abandon()
        for ping in self._pings:
            ping.cancel()
        self._unread.clear()
        self._outbox.clear()
        self._door.leave(self)

    def eof_received(self) -> bool:
        """Nobody half closes here."""
        return False

    def pause_writing(self) -> None:
        self._outbox.is_paused = True

    def resume_writing(self) -> None:
        self._outbox.is_paused = False
        self.wake()

    def _end_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)

    def abort(self) -> None:
        """End it now, whatever is under way."""
        self._phase = _ENDING
        self._transport.abort()

    def end(self) -> None:
        """What is answered still leaves; then it is closed."""
        if self._phase != _ENDING:
            self._phase = _ENDING
            self._outbox.flush()
            self._transport.close()
            self._end_after(LAST_ANSWERS_S_MAX)

    def _break(self, reason: str) -> None:
        self._log_broken(reason)
        self.end()

    def _log_broken(self, reason: str) -> None:
        logger.info(
            "zookeeper.connection_broken",
            extra={"host": self.host, "session_id": self.session_id, "reason": reason},
        )

    # --------------------------------------------------------------------------------- its begin

    def data_received(self, data: bytes) -> None:
        if self._phase >= _DRAINING:
            return
        unread = self._unread
        unread += data
        if self._phase == _SERVING:
            if self._lost is None:
                self._door.heard(self.session_id)
            if len(unread) >= self._needed:
                self._turn()
        elif self._phase == _FIRST:
            self._guarded(self._read_first)
        elif len(unread) > UNREAD_BYTES_MAX:
            self._set_reading(False)

    def _read_first(self) -> None:
        """A connect request, or one of the words that tools send."""
        unread = self._unread
        if len(unread) < _LENGTH.size:
            return
        word = self._door.word_answer(bytes(unread[: _LENGTH.size]))
        if word is not None:
            self.traffic.received += 1
            self._outbox.put(word)
            self.end()
            return
        (length,) = _LENGTH.unpack_from(unread)
        if not 0 < length <= CONNECT_BYTES_MAX:
            self._break(f"a connect request does not have {length} bytes")
            return
        end = _LENGTH.size + length
        if len(unread) < end:
            return
        try:
            request = decode_connect(bytes(unread[_LENGTH.size : end]))
        except JuteError as error:
            self._break(f"not a connect request: {error}")
            return
        del unread[:end]
        self.traffic.received += 1
        self._phase = _OPENING
        self._opening = asyncio.get_running_loop().create_task(self._open(request))

    async def _open(self, request: ConnectRequest) -> None:
        """A session that has ended is said to have ended; where it cannot be known, or this replica
        has not seen what the client has, nothing is said."""
        try:
            opened = await open_or_attach(self._door, request, self._own_ids)
        except SessionExpiredError:
            self._outbox.put(encode_refused(request))
            self.end()
            return
        except CoordError as error:
            self._break(f"no session: {error}")
            return
        if self._phase == _ENDING:
            if opened.new is not None:
                self._pipeline.close_unused(opened.new, self._now() + REQUEST_S_MAX)
            return
        assert self._timer is not None
        self._timer.cancel()
        self.session_id, self.timeout_ms = opened.session_id, opened.timeout_ms
        self.attach_epoch = opened.attach_epoch
        self._caller = Caller(self.session_id, self.attach_epoch, ids=self._own_ids)
        self._door.register(self)
        self._phase = _SERVING
        self._outbox.put(
            encode_connected(request, self.session_id, opened.password, self.timeout_ms)
        )
        self.check_session()
        self._turn()

    # ------------------------------------------------------------------------------- its session

    def check_session(self) -> None:
        """Whether the session is still attached here, as far as this replica has applied."""
        if self._lost is not None:
            return
        session = self.state.sessions.get(self.session_id)
        if session is None:
            self._lose(SessionExpiredError(f"session {self.session_id:#x} has ended"))
        elif session.attach_epoch != self.attach_epoch:
            self._lose(SessionMovedError(f"session {self.session_id:#x} was attached again"))

    def _lose(self, error: CoordError) -> None:
        """What was submitted is answered; nothing else is run. Of a session that has moved the
        next request is told so, of one that has ended there is nothing to wait for."""
        self._lost = error
        self._queue.refuse_waiting(error)
        if isinstance(error, SessionMovedError):
            self.watches.close()
            self._end_after(MOVED_S_MAX)
            self.wake()
        else:
            self._drain(LAST_ANSWERS_S_MAX)

    def heard_if_waiting(self) -> None:
        """A request under way is a sign of life while it waits for the replicas: not while it
        waits for its client."""
        if len(self._queue) and not self._outbox.is_paused and self._lost is None:
            self._door.heard(self.session_id)

    def _ping(self, now: float) -> None:
        """Answered when the leader has the session's renewal on record, whatever is in the
        queue."""
        if len(self._pings) >= PINGS_MAX:
            self._break("too many pings without an answer")
            return
        ping = self._door.reports.heartbeat(self.session_id, now)
        self._pings.add(ping)
        ping.add_done_callback(self._pinged)

    def _pinged(self, ping: asyncio.Future[None]) -> None:
        self._pings.discard(ping)
        if ping.cancelled():
            return
        error = ping.exception()
        if error is None:
            # Not past a read that waits or is in progress. The events of its watch must not leave
            # before it; and a client takes this zxid for seen, while setWatches may still have to
            # look at what was before it.
            zxid = self._outbox.last_zxid if self._queue.has_reads else self.state.zxid
            self._outbox.put_reply(PING_XID, zxid, OK)
            self.wake()
        elif isinstance(error, NoQuorumError):
            self._break("no majority is in reach")
        elif isinstance(error, SessionExpiredError):
            self.check_session()
        else:
            raise error

    def _add_auth(self, reader: Reader) -> None:
        """For this connection, from the next request on."""
        reader.int32()
        scheme, credential = reader.text() or "", reader.buffer()
        ids = added_ids(scheme, credential, self._own_ids, self._door.superuser_digest)
        if ids is None:
            self._outbox.put_reply(AUTH_XID, 0, AUTH_FAILED)
            self._break("authentication failed")
            return
        self._own_ids = ids
        self._caller = Caller(self.session_id, self.attach_epoch, ids=ids)
        self._outbox.put_reply(AUTH_XID, 0, OK)

    # ---------------------------------------------------------------------------------- arriving

    def _set_reading(self, wanted: bool) -> None:
        if wanted != self._is_reading and self._phase != _ENDING:
            self._is_reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _parse(self, until: float) -> bool:
        """Take in what is there, as far as there is time and room. Whether more is to be done
        without anything more arriving."""
        unread = self._unread
        size, at = len(unread), 0
        data = bytes(unread)
        packet_bytes_max, outstanding_max = self._door.packet_bytes_max, self._door.outstanding_max
        queue, outbox, now = self._queue, self._outbox, self._now()
        unpack_length, accept, reader = _LENGTH.unpack_from, self._accept, Reader(data)
        count, is_more, needed = 0, False, 0
        while size - at >= 4:
            (length,) = unpack_length(data, at)
            if not _HEADER_BYTES <= length <= packet_bytes_max:
                self._break(f"a packet does not have {length} bytes")
                return False
            end = at + 4 + length
            if end > size:
                needed = 4 + length
                break
            if len(queue) >= outstanding_max or outbox.is_paused:
                # Woken when the first is answered, or when the client has read.
                break
            count += 1
            if not count % CHECK_TIME_EACH and self._now() >= until:
                is_more = True
                break
            reader.at, reader.end = at + 4, end
            accept(reader, now)
            at = end
            if self._phase != _SERVING:
                return False
        del unread[:at]
        self._needed = needed
        # What it has sent already is read from the transport only when there is room for it.
        self._set_reading(bool(needed) or size - at < 4)
        return is_more

    def _accept(self, reader: Reader, now: float) -> None:
        """One packet: what the reader has from where it is."""
        xid, op = _unpack_header(reader.data, reader.at)
        reader.at += _HEADER_BYTES
        self.traffic.received += 1
        self._last = (op, xid)
        if self._lost is not None:
            self._answer_lost(xid)
            return
        try:
            if (write := WRITES.get(op)) is not None:
                operation = write.decode(reader, self._door.cluster)
                self._queue.add_write(xid, write, self._caller, operation, now)
            elif (read := READS.get(op)) is not None:
                self._queue.add_read(xid, op, read.decode(reader), now, self._outbox)
            elif op == PING:
                self._ping(now)
            elif op == AUTH:
                self._add_auth(reader)
            else:
                code = RECONFIG_DISABLED if op == RECONFIG else UNIMPLEMENTED
                self._queue.add_answer(xid, code, now)
        except JuteError as error:
            logger.info(
                "zookeeper.unreadable_request",
                extra={"host": self.host, "operation": op, "reason": str(error)},
            )
            self._queue.add_answer(xid, MARSHALLING_ERROR, now)
        except CoordError as error:
            self._pipeline.admission.limits.count(error)
            if (refused_as := code_of(error.code)) is None:
                self._break_after(str(error))
            else:
                self._queue.add_answer(xid, refused_as, now)

    def _answer_lost(self, xid: int) -> None:
        code = SESSION_MOVED if isinstance(self._lost, SessionMovedError) else SESSION_EXPIRED
        self._queue.add_answer(xid, code, self._now())
        self._drain()

    # ---------------------------------------------------------------------------------- its end

    def stop_taking(self, error: CoordError, undecided: CoordError | None = None) -> None:
        """Run nothing more; end when what was submitted is answered. `undecided`: do not wait for
        that either."""
        if self._phase == _SERVING:
            self._queue.refuse_waiting(error)
            self._drain()
        elif self._phase < _SERVING:
            self.end()
        if undecided is not None:
            self._queue.refuse_all(undecided)
            if self._phase == _DRAINING and self._outbox.is_paused:
                self.abort()  # It reads nothing, so it would not learn of it either.

    def _break_after(self, reason: str) -> None:
        """When everything before is answered."""
        if self._phase == _SERVING:
            self._log_broken(reason)
            self._drain()

    def _drain(self, seconds_max: float = REQUEST_S_MAX) -> None:
        """End when everything is answered. Who does not read holds that up for so long at most."""
        if self._phase == _SERVING:
            self._set_reading(False)
            self._phase = _DRAINING
            self._end_after(seconds_max)
        self.wake()

    # ----------------------------------------------------------------------------------- leaving

    def wake(self) -> None:
        """Something may be ready to leave, or there may be room again: look in the next turn."""
        if not self._is_scheduled and _SERVING <= self._phase < _ENDING:
            self._is_scheduled = True
            self._door.wake(self)

    def on_woken(self) -> None:
        self._is_scheduled = False
        self._turn()

    def _turn(self) -> None:
        if _SERVING <= self._phase < _ENDING:
            self._guarded(self._answer_and_parse)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except CoordError as error:
            self._break(str(error))
        except Exception:
            # A bug, which some request found. Were it to end the process, its client would send it
            # to the next replica, and then to the last.
            logger.exception("zookeeper.connection_failed", extra={"session_id": self.session_id})
            self.abort()

    def _answer_and_parse(self) -> None:
        """Answer what can be answered, take in what has come, and send it all at once."""
        until = self._now() + SLICE_S
        is_more = self._queue.answer_ready(self._outbox, until)
        if self._phase == _SERVING and self._unread and not is_more:
            is_more = self._parse(until)
            self._queue.submit_new()
            is_more = self._queue.answer_ready(self._outbox, until) or is_more
        self._outbox.flush()
        if self.watches.is_overflowing:
            self._log_broken("the client does not take its events")
            self.abort()
        elif self._queue.has_closed or (self._phase == _DRAINING and not self._queue):
            self.end()
        elif is_more:
            self.wake()

    # ------------------------------------------------------------------------------------- facts

    def facts(self) -> ConnectionFacts:
        op, xid = self._last
        return ConnectionFacts(
            host=self.host,
            port=self.port,
            session_id=self.session_id,
            timeout_ms=self.timeout_ms,
            outstanding=len(self._queue),
            established_ms=self.established_ms,
            last_operation=OPERATION_NAMES.get(op, "NA"),
            last_xid=xid,
            last_zxid=self._outbox.last_zxid,
            last_response_ms=self._door.wall_ms(self._outbox.written_at),
            traffic=self.traffic,
        )
