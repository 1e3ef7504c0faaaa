"""Many watchers of one znode, cheap enough not to be what is measured.

Each is a connection with a session of its own. All of them are read by one loop over epoll, without
any other event loop: an event costs it two microseconds or so. Whatever is not as expected is a
PipeError: an event that nobody waits for, a reply that was not asked for, a connection that ends.
"""

from __future__ import annotations

import select
import socket
import time
from array import array
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

from bench.scale_pipe import ANSWER_S_MAX, EVENT_XID, PipeError
from coordsvc.testing.zookeeper_records import (
    Decoder,
    EventType,
    OpCode,
    connect_request,
    request,
    text,
)

OPENING_AT_ONCE: Final = 50
SESSION_TIMEOUT_MS: Final = 30_000
RECEIVED_MAX: Final = 4_096

_HEADER: Final = Struct(">iiqi")
"""length, xid, zxid, error"""

_EVENT_TYPE: Final = Struct(">i")
_SESSION_ID: Final = Struct(">12xq")


class Watchers:
    """`path` is what they watch. `data` is what each read when it set its watch last."""

    def __init__(self, endpoints: Sequence[str], count: int, path: str) -> None:
        self.count = count
        self.data: list[bytes] = [b""] * count
        self.zxids = array("q")
        """Of the events of the last round."""
        self._endpoints = endpoints
        self._watch = text(path) + b"\1"
        self._epoll = select.epoll()
        self._sockets: list[socket.socket] = []
        self._number: dict[int, int] = {}
        self._rest: dict[int, bytes] = {}
        self._xid = 0
        self._is_waiting = bytearray(count)
        """Of each: whether its watch is set, and its event has not come."""

    # ------------------------------------------------------------------------------ what they do

    def open(self) -> None:
        """Dealt out over the servers, a few at once."""
        for first in range(0, self.count, OPENING_AT_ONCE):
            numbers = range(first, min(first + OPENING_AT_ONCE, self.count))
            for number in numbers:
                host, _, port = self._endpoints[number % len(self._endpoints)].rpartition(":")
                watcher = socket.create_connection((host, int(port)), ANSWER_S_MAX)
                watcher.sendall(connect_request(timeout_ms=SESSION_TIMEOUT_MS))
                self._sockets.append(watcher)
                self._number[watcher.fileno()] = number
                self._epoll.register(watcher.fileno(), select.EPOLLIN)
            self._collect(len(numbers), self._opened, "sessions")

    def watch(self) -> None:
        """All of them read, and set their watches."""
        self._xid += 1
        packet = request(self._xid, OpCode.GET_DATA, self._watch)
        for watcher in self._sockets:
            watcher.sendall(packet)
        self._collect(self.count, self._watching, "watches")

    def hear(self) -> float:
        """Wait for one event at each; when the last came, by time.perf_counter."""
        self.zxids = array("q")
        self._collect(self.count, self._heard, "events")
        return time.perf_counter()

    def check_quiet(self, seconds: float) -> None:
        """PipeError: something comes that nobody waits for."""
        if self._epoll.poll(seconds, 1):
            raise PipeError("something came that nobody asked for")

    def close(self) -> None:
        """Their sessions, too. PipeError: one was not there any more."""
        self._xid = 0
        for watcher in self._sockets:
            watcher.sendall(request(0, OpCode.CLOSE_SESSION))
        self._collect(self.count, self._closed, "ends of sessions")

    def abort(self) -> None:
        for watcher in self._sockets:
            watcher.close()
        self._epoll.close()

    # ---------------------------------------------------------------------------------- receiving

    def _collect(self, wanted: int, take: Callable[[int, bytes], None], what: str) -> None:
        """So many packets."""
        deadline = time.monotonic() + ANSWER_S_MAX
        epoll, number_of, sockets, rests = self._epoll, self._number, self._sockets, self._rest
        while wanted > 0:
            ready = epoll.poll(max(0.0, deadline - time.monotonic()), 1_024)
            if not ready:
                raise PipeError(f"{wanted} {what} did not come")
            for fd, _ in ready:
                number = number_of[fd]
                data = sockets[number].recv(RECEIVED_MAX)
                if not data:
                    raise PipeError(f"watcher {number}: the connection was closed")
                if rests:
                    data = rests.pop(number, b"") + data
                while len(data) >= 4:
                    end = 4 + int.from_bytes(data[:4], "big")
                    if len(data) < end:
                        break
                    take(number, data)
                    wanted -= 1
                    data = data[end:]
                if data:
                    rests[number] = data
        if wanted < 0:
            raise PipeError(f"{-wanted} {what} too many")

    def _opened(self, number: int, packet: bytes) -> None:
        if not _SESSION_ID.unpack_from(packet)[0]:
            raise PipeError(f"watcher {number}: no session was opened")

    def _watching(self, number: int, packet: bytes) -> None:
        _, xid, _, error = _HEADER.unpack_from(packet)
        if xid != self._xid or error or self._is_waiting[number]:
            raise PipeError(f"watcher {number}: (xid, error) {(xid, error)}")
        self._is_waiting[number] = True
        self.data[number] = Decoder(packet[_HEADER.size :]).buffer() or b""

    def _heard(self, number: int, packet: bytes) -> None:
        _, xid, zxid, _ = _HEADER.unpack_from(packet)
        (kind,) = _EVENT_TYPE.unpack_from(packet, _HEADER.size)
        if xid != EVENT_XID or kind != EventType.DATA_CHANGED or not self._is_waiting[number]:
            raise PipeError(f"watcher {number}: (xid, type) {(xid, kind)} instead of its event")
        self._is_waiting[number] = False
        self.zxids.append(zxid)

    def _closed(self, number: int, packet: bytes) -> None:
        _, xid, _, error = _HEADER.unpack_from(packet)
        if xid or error:
            raise PipeError(f"watcher {number}: (xid, error) {(xid, error)} instead of the end")
        self._epoll.unregister(self._sockets[number].fileno())
