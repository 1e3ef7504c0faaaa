"""As much of ZooKeeper's client protocol as a load generator needs.

Packets are made whole, length and all, so that many of them can be made ahead and sent as one. What
comes back is fixed in length for each kind of request, so that it is read without being decoded.
Nothing of the service is imported: both are asked by the same bytes.

Ref: ZooKeeper zookeeper.jute, ZooDefs.OpCode.
"""

from __future__ import annotations

import asyncio
from struct import Struct
from types import TracebackType
from typing import Final, Self

CREATE: Final = 1
GET_DATA: Final = 4
SET_DATA: Final = 5
SYNC: Final = 9
CLOSE_SESSION: Final = -11

NODE_EXISTS: Final = -110

_INT: Final = Struct(">i")
_REQUEST: Final = Struct(">iii")
"""Length, xid, type."""

_CONNECT: Final = Struct(">iiqiqi16s?")
_PASSWORD_BYTES: Final = 16
RING_MIN: Final = 64
_CONNECT_BYTES: Final = _CONNECT.size - _INT.size
_OPEN_TO_ALL: Final = Struct(">ii").pack(1, 31)
"""The one access list of what is made here: all permissions, for world:anyone."""

STAT_BYTES: Final = 68
_VERSION_AT: Final = 32

REPLY: Final = Struct(">iiqi")
"""Length, xid, zxid, error."""


class WireError(Exception):
    """What came back is not what was asked for."""


def connect_request(timeout_ms: int) -> bytes:
    """For a new session."""
    return _CONNECT.pack(_CONNECT_BYTES, 0, 0, timeout_ms, 0, _PASSWORD_BYTES, b"", False)


def request(xid: int, kind: int, body: bytes = b"") -> bytes:
    return _REQUEST.pack(8 + len(body), xid, kind) + body


def create_body(path: str, data: bytes) -> bytes:
    anyone = _OPEN_TO_ALL + _text("world") + _text("anyone")
    return _text(path) + _buffer(data) + anyone + _INT.pack(0)


def get_body(path: str) -> bytes:
    return _text(path) + b"\0"


def set_body(path: str, data: bytes) -> bytes:
    """Whatever its version is."""
    return _text(path) + _buffer(data) + _INT.pack(-1)


def sync_body(path: str) -> bytes:
    return _text(path)


def _text(text: str) -> bytes:
    return _buffer(text.encode())


def _buffer(data: bytes) -> bytes:
    return _INT.pack(len(data)) + data


def set_replies() -> Struct:
    """A whole reply of setData: length, xid, zxid, error, the znode's version."""
    return Struct(f">iiqi{_VERSION_AT}xi{STAT_BYTES - _VERSION_AT - 4}x")


def get_replies(data_bytes: int) -> Struct:
    """A whole reply of getData of so many bytes: length, xid, zxid, error, version."""
    before = _INT.size + data_bytes + _VERSION_AT
    return Struct(f">iiqi{before}xi{STAT_BYTES - _VERSION_AT - 4}x")


GET_DATA_AT: Final = REPLY.size + _INT.size
"""Where the data begins in a whole reply of getData."""


def decode_get(body: bytes) -> tuple[bytes, int]:
    """(data, version)"""
    (size,) = _INT.unpack_from(body)
    data = body[_INT.size : _INT.size + max(0, size)]
    (version,) = _INT.unpack_from(body, _INT.size + len(data) + _VERSION_AT)
    return data, version


def session_opened(packet: bytes) -> int:
    """The session id in the answer to a connect request, without its length."""
    if len(packet) < 36:
        raise WireError(f"an answer of {len(packet)} bytes to a connect request")
    return int.from_bytes(packet[8:16], "big")


class Requests:
    """The requests of one connection, over and over again: number n of them (from 0) has xid
    n % size + 1, and a set writes a value of its own."""

    def __init__(self, path: str, *, is_set: bool, in_flight: int, data_bytes: int) -> None:
        self.size = max(RING_MIN, 2 * in_flight)
        self.is_set = is_set
        self.data_bytes = data_bytes
        self._path = path
        packets = [self._packet(number) for number in range(self.size)]
        self._bytes = len(packets[0])
        # Twice, so that a slice never has to begin again at the start.
        self._block = memoryview(b"".join(packets) * 2)

    def data(self, number: int) -> bytes:
        """What set `number` writes."""
        text = f"{self._path} {number % self.size:06}"
        return text.encode().rjust(self.data_bytes, b".")

    def _packet(self, number: int) -> bytes:
        if self.is_set:
            return request(number + 1, SET_DATA, set_body(self._path, self.data(number)))
        return request(number + 1, GET_DATA, get_body(self._path))

    def slice(self, first: int, count: int) -> memoryview:
        assert count <= self.size, count
        start = first % self.size * self._bytes
        return self._block[start : start + count * self._bytes]


class Replies:
    """What must come back, in this order. `data` is what a get finds."""

    def __init__(self, requests: Requests, data: bytes) -> None:
        is_set = requests.is_set
        self._struct = set_replies() if is_set else get_replies(requests.data_bytes)
        self.bytes_each = self._struct.size
        self._length = self.bytes_each - 4
        self._ring = requests.size
        self._is_set = is_set
        self._data = data
        self._xid = 0
        self._zxid = 0
        self._version = 0
        self.verified = 0

    def take(self, replies: memoryview) -> None:
        """Whole ones. WireError: they are not what must come."""
        length, xid, zxid, version = self._length, self._xid, self._zxid, self._version
        ring, step = self._ring, int(self._is_set)
        for got in self._struct.iter_unpack(replies):
            xid = xid % ring + 1
            version += step
            if got[0] != length or got[1] != xid or got[2] < zxid or got[3] or got[4] != version:
                raise WireError(
                    f"(length, xid, zxid, error, version) {got}, not "
                    f"{(length, xid, f'>= {zxid}', 0, version)}"
                )
            zxid = got[2]
        self._xid, self._zxid, self._version = xid, zxid, version
        if not self._is_set:
            found = replies[GET_DATA_AT : GET_DATA_AT + len(self._data)]
            if found != self._data:
                raise WireError(f"{bytes(found)!r} was read, not {self._data!r}")
            self.verified += 1

    def check_begun(self, rest: bytes) -> None:
        """A reply of which not all is there: an error is shorter, and nothing would follow it."""
        if len(rest) >= 4 and int.from_bytes(rest[:4], "big") != self._length:
            header = REPLY.unpack_from(rest.ljust(REPLY.size, b"\0"))
            raise WireError(f"(length, xid, zxid, error) {header}")


class WireClient:
    """Asks one thing after another, to prepare and to check. Entering it opens a session, leaving
    it closes that."""

    def __init__(self, host: str, port: int, timeout_ms: int = 30_000) -> None:
        self._address = host, port
        self._timeout_ms = timeout_ms
        self._xid = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        self._writer.write(connect_request(self._timeout_ms))
        if not session_opened(await self._packet()):
            raise WireError("no session was opened")
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exception is None:
                await self.ask(CLOSE_SESSION)
        finally:
            self._writer.close()

    async def ask(self, kind: int, body: bytes = b"", allowed: tuple[int, ...] = ()) -> bytes:
        """The body of the reply. WireError: an error that is not `allowed`."""
        self._xid += 1
        self._writer.write(request(self._xid, kind, body))
        packet = await self._packet()
        xid, _, error = REPLY.unpack(_INT.pack(len(packet)) + packet[: REPLY.size - 4])[1:]
        if xid != self._xid:
            raise WireError(f"a reply to request {xid} instead of {self._xid}")
        if error and error not in allowed:
            raise WireError(f"error {error} for a request of type {kind}: {body[:80]!r}")
        return packet[REPLY.size - 4 :]

    async def create(self, path: str, data: bytes = b"") -> None:
        """Unless there is one."""
        await self.ask(CREATE, create_body(path, data), allowed=(NODE_EXISTS,))

    async def get(self, path: str) -> tuple[bytes, int]:
        """(data, version), no older than what was acknowledged before, by whichever server."""
        await self.ask(SYNC, sync_body(path))
        return decode_get(await self.ask(GET_DATA, get_body(path)))

    async def _packet(self) -> bytes:
        try:
            (length,) = _INT.unpack(await self._reader.readexactly(_INT.size))
            return await self._reader.readexactly(length)
        except asyncio.IncompleteReadError:
            host, port = self._address
            raise WireError(f"{host}:{port} closed the connection") from None
