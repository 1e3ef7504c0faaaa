"""As much of ZooKeeper's client protocol as a load generator needs.

Packets are made whole, length and all, so that many of them can be made ahead and sent as one. What
comes back is fixed in length for each kind of request, so that it is read without being decoded.
Nothing of the service is imported: both are asked by the same bytes.

Ref: ZooKeeper zookeeper.jute, ZooDefs.OpCode.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from itertools import accumulate
from struct import Struct
from types import TracebackType
from typing import Final, Self

from bench.generator import LoadError

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
MIX: Final = 100
"""Among so many requests the share of gets is exact."""

_CONNECT_BYTES: Final = _CONNECT.size - _INT.size
_OPEN_TO_ALL: Final = Struct(">ii").pack(1, 31)
"""The one access list of what is made here: all permissions, for world:anyone."""

STAT_BYTES: Final = 68
_VERSION_AT: Final = 32

REPLY: Final = Struct(">iiqi")
"""Length, xid, zxid, error."""


class WireError(LoadError):
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
    n % size + 1, and a set writes a value of its own. `reads` is the share of gets: 0 or 1, or in
    whole percent. `first_data` is there before any of them."""

    def __init__(self, path: str, *, reads: float, in_flight: int, data_bytes: int) -> None:
        size = max(RING_MIN, 2 * in_flight)
        self.is_mixed = 0 < reads < 1
        self.size = -(-size // MIX) * MIX if self.is_mixed else size
        self.data_bytes = data_bytes
        self.first_data = f"{path} first".encode().rjust(data_bytes, b".")
        self._path = path
        percent = round(100 * reads)
        self.is_set = [
            (number + 1) * percent // 100 == number * percent // 100 for number in range(self.size)
        ]
        self._sets_before = [0, *accumulate(map(int, self.is_set))]
        packets = [self._packet(number) for number in range(self.size)]
        # Twice, so that a slice never has to begin again at the start.
        self._begins = [0, *accumulate(map(len, packets * 2))]
        self._block = memoryview(b"".join(packets) * 2)

    def data(self, number: int) -> bytes:
        """What set `number` writes."""
        text = f"{self._path} {number % self.size:06}"
        return text.encode().rjust(self.data_bytes, b".")

    def sets(self, count: int) -> int:
        """How many of the first `count` requests are sets."""
        rounds, rest = divmod(count, self.size)
        return rounds * self._sets_before[-1] + self._sets_before[rest]

    def data_after(self, count: int) -> bytes:
        """What the znode holds after the first `count` requests."""
        if not self.sets(count):
            return self.first_data
        last = count - 1
        while not self.is_set[last % self.size]:
            last -= 1
        return self.data(last)

    def _packet(self, number: int) -> bytes:
        if self.is_set[number]:
            return request(number + 1, SET_DATA, set_body(self._path, self.data(number)))
        return request(number + 1, GET_DATA, get_body(self._path))

    def slice(self, first: int, count: int) -> memoryview:
        assert count <= self.size, count
        start = first % self.size
        return self._block[self._begins[start] : self._begins[start + count]]


class Replies:
    """What must come back, in this order, of requests that are all sets or all gets."""

    def __init__(self, requests: Requests) -> None:
        is_set = requests.is_set[0]
        self._struct = set_replies() if is_set else get_replies(requests.data_bytes)
        self._length = self._struct.size - 4
        self._ring = requests.size
        self._is_set = is_set
        self._data = requests.first_data
        self._xid = 0
        self._zxid = 0
        self._version = 0
        self.verified = 0

    def whole(self, size: int) -> tuple[int, int]:
        """(how many replies, how many bytes) are whole in the next `size` bytes, which are those of
        a round at most: no more requests are under way."""
        count = size // self._struct.size
        return count, count * self._struct.size

    def take(self, replies: memoryview) -> None:
        """Whole ones. WireError: they are not what must come."""
        length, xid, zxid, version = self._length, self._xid, self._zxid, self._version
        ring, step = self._ring, int(self._is_set)
        for got in self._struct.iter_unpack(replies):
            xid = xid % ring + 1
            version += step
            if got[0] != length or got[1] != xid or got[2] < zxid or got[3] or got[4] != version:
                raise _unexpected(got, length, xid, zxid, version)
            zxid = got[2]
        self._xid, self._zxid, self._version = xid, zxid, version
        if not self._is_set:
            _check_data(replies, 0, self._data)
            self.verified += 1

    def check_begun(self, rest: bytes) -> None:
        """A reply of which not all is there: an error is shorter, and nothing would follow it."""
        _check_begun(rest, self._length)


class MixedReplies:
    """As Replies, of sets and gets, whose replies differ in length. A get finds the version that
    the sets before it made; of those in one read the last one's data is compared, too."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._structs = {True: set_replies(), False: get_replies(requests.data_bytes)}
        sizes = [self._structs[is_set].size for is_set in requests.is_set]
        self._ends = list(accumulate(sizes * 2, initial=0))
        # A row for each place in the ring, for there is no time to look up more.
        self._expected = [
            (number + 1, is_set, self._structs[is_set].unpack_from, size)
            for number, (is_set, size) in enumerate(zip(requests.is_set, sizes, strict=True))
        ]
        self._taken = 0
        self._zxid = 0
        self._version = 0
        self.verified = 0

    def whole(self, size: int) -> tuple[int, int]:
        place = self._taken % self._requests.size
        begin = self._ends[place]
        last = bisect_right(self._ends, begin + size) - 1
        return last - place, self._ends[last] - begin

    def take(self, replies: memoryview) -> None:
        zxid, version, expected, ring = self._zxid, self._version, self._expected, self._requests
        at, taken, end = 0, self._taken, len(replies)
        last_get = last_get_at = -1
        while at < end:
            xid, is_set, unpack_from, size = expected[taken % ring.size]
            got = unpack_from(replies, at)
            if is_set:
                version += 1
            else:
                last_get, last_get_at = taken, at
            length = size - 4
            if got[0] != length or got[1] != xid or got[2] < zxid or got[3] or got[4] != version:
                raise _unexpected(got, length, xid, zxid, version)
            zxid = got[2]
            at += size
            taken += 1
        self._taken, self._zxid, self._version = taken, zxid, version
        if last_get >= 0:
            _check_data(replies, last_get_at, self._requests.data_after(last_get))
            self.verified += 1

    def check_begun(self, rest: bytes) -> None:
        _check_begun(rest, self._expected[self._taken % self._requests.size][3] - 4)


def replies_to(requests: Requests) -> Replies | MixedReplies:
    return MixedReplies(requests) if requests.is_mixed else Replies(requests)


def _unexpected(got: tuple[int, ...], length: int, xid: int, zxid: int, version: int) -> WireError:
    wanted = (length, xid, f">= {zxid}", 0, version)
    return WireError(f"(length, xid, zxid, error, version) {got}, not {wanted}")


def _check_data(replies: memoryview, at: int, data: bytes) -> None:
    found = replies[at + GET_DATA_AT : at + GET_DATA_AT + len(data)]
    if found != data:
        raise WireError(f"{bytes(found)!r} was read, not {data!r}")


def _check_begun(rest: bytes, length: int) -> None:
    if len(rest) >= 4 and int.from_bytes(rest[:4], "big") != length:
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
