"""One TCP connection to a server of ZooKeeper's protocol: packets in, packets out, blocking."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from coordsvc.testing.zookeeper_records import Decoder

CONNECT_SECONDS = 10.0
REPLY_SECONDS = 30.0


class Closed(Exception):
    """The server ended the connection."""


class Silent(Exception):
    """Nothing came in time."""


class Frame(NamedTuple):
    """A reply or an event: its header and what is behind it."""

    xid: int
    zxid: int
    error: int
    body: bytes


class Wire:
    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), CONNECT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self.is_over = False
        """Closed, by one or the other."""

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self.is_over = True
            raise Closed from None

    def packet(self, seconds: float = REPLY_SECONDS) -> bytes:
        """The next packet, without its length. Raises Closed, Silent."""
        size = struct.unpack(">i", self._take(4, seconds))[0]
        return self._take(size, seconds)

    def frame(self, seconds: float = REPLY_SECONDS) -> Frame:
        decoder = Decoder(self.packet(seconds))
        return Frame(decoder.int32(), decoder.int64(), decoder.int32(), decoder.rest)

    def rest(self, seconds: float = REPLY_SECONDS) -> bytes:
        """Everything until the server closes the connection."""
        try:
            while True:
                self._receive(seconds)
        except Closed:
            taken, self._unread = self._unread, b""
            return taken

    def finish_sending(self) -> None:
        """Half close."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.is_over = True
        self._socket.close()

    def _take(self, size: int, seconds: float) -> bytes:
        while len(self._unread) < size:
            self._receive(seconds)
        taken, self._unread = self._unread[:size], self._unread[size:]
        return taken

    def _receive(self, seconds: float) -> None:
        self._socket.settimeout(seconds)
        try:
            received = self._socket.recv(1 << 20)
        except TimeoutError:
            raise Silent from None
        except ConnectionResetError:
            received = b""
        if not received:
            self.is_over = True
            raise Closed
        self._unread += received
