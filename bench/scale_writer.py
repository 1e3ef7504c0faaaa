"""Writes one znode when told to, and says when: a process of its own, so that the moment at which
an acknowledgement arrives is not put off by whatever else arrives at its client.

    python -m bench.scale_writer PATH ENDPOINT [ENDPOINT...] < NUMBERS

Each line of the input is a number n: PATH is written, with n as its data, at endpoint n modulo
their count. For each a line is printed: when it was sent and when it was acknowledged, in seconds
of the machine's monotonic clock, and the write's zxid.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

from coordsvc.testing.zookeeper_records import (
    OpCode,
    buffer,
    connect_request,
    int32,
    request,
    text,
)

ANSWER_S_MAX = 30.0
SESSION_TIMEOUT_MS = 30_000
REPLY = struct.Struct(">iqi")
"""xid, zxid, error."""


class Writer:
    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), ANSWER_S_MAX)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(connect_request(timeout_ms=SESSION_TIMEOUT_MS))
        self._packet()

    def write(self, path: str, number: int) -> tuple[float, float, int]:
        """(sent at, acknowledged at, zxid)"""
        body = text(path) + buffer(str(number).encode()) + int32(-1)
        packet = request(number, OpCode.SET_DATA, body)
        sent_at = time.perf_counter()
        self._socket.sendall(packet)
        reply = self._packet()
        acked_at = time.perf_counter()
        xid, zxid, error = REPLY.unpack_from(reply)
        if xid != number or error:
            sys.exit(f"(xid, zxid, error) {(xid, zxid, error)} for write {number}")
        return sent_at, acked_at, zxid

    def close(self) -> None:
        self._socket.sendall(request(0, OpCode.CLOSE_SESSION))
        self._packet()
        self._socket.close()

    def _packet(self) -> bytes:
        return read_packet(self._socket)


def read_packet(source: socket.socket) -> bytes:
    """Without its length. EOFError: the connection was closed."""
    return _exactly(source, int.from_bytes(_exactly(source, 4), "big"))


def _exactly(source: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = source.recv(size - len(parts))
        if not part:
            raise EOFError("the server closed the connection")
        parts += part
    return bytes(parts)


def main() -> None:
    path, *endpoints = sys.argv[1:]
    writers = [Writer(endpoint) for endpoint in endpoints]
    for line in sys.stdin:
        number = int(line)
        sent_at, acked_at, zxid = writers[number % len(writers)].write(path, number)
        print(sent_at, acked_at, zxid, flush=True)
    for writer in writers:
        writer.close()


if __name__ == "__main__":
    main()
