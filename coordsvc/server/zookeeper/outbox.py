"""What leaves a connection: packets of one turn of the loop in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Final

from coordsvc.server.zookeeper.statistics import Traffic
from coordsvc.server.zookeeper.watches import ConnectionWatches

OUT_BYTES_MAX: Final = 256 * 1024
"""Written at once; with more than this in the transport, nothing more is made ready."""

_REPLY: Final = Struct(">iiqi")
"""Length, xid, zxid, code."""

_pack_reply: Final = _REPLY.pack

_REPLY_BYTES: Final = _REPLY.size
_HEADER_BYTES: Final = _REPLY_BYTES - 4


class Outbox:
    """`is_paused`: the transport has enough; what is put nevertheless waits in it."""

    __slots__ = ("_bytes", "_now", "_packets", "_traffic", "_transport", "_watches", "is_paused",
                 "last_zxid", "written_at")  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        watches: ConnectionWatches,
        traffic: Traffic,
        now: Callable[[], float],
    ) -> None:
        transport.set_write_buffer_limits(high=OUT_BYTES_MAX)
        self._transport = transport
        self._watches = watches
        self._traffic = traffic
        self._now = now
        self._packets: list[bytes] = []
        self._bytes = 0
        self.is_paused = False
        self.last_zxid = 0
        self.written_at = now()

    def put(self, packet: bytes) -> None:
        self._packets.append(packet)
        self._bytes += len(packet)
        self._traffic.sent += 1
        if self._bytes >= OUT_BYTES_MAX:
            self.flush()

    def put_reply(self, xid: int, zxid: int, code: int, body: bytes = b"") -> None:
        """Behind all events up to `zxid`. Nothing, where events were dropped: its client would take
        them for told, and never ask for them again."""
        watches = self._watches
        if watches.is_overflowing:
            return
        if watches.has_events:
            self.put_events(zxid)
        self.last_zxid = zxid
        size = len(body)
        self._packets.append(_pack_reply(_HEADER_BYTES + size, xid, zxid, code) + body)
        self._bytes += _REPLY_BYTES + size
        self._traffic.sent += 1
        if self._bytes >= OUT_BYTES_MAX:
            self.flush()

    def put_events(self, up_to_zxid: int | None) -> None:
        """None: all that wait."""
        if self._watches.has_events:
            for packet in self._watches.take(up_to_zxid):
                self.put(packet)

    def flush(self) -> None:
        if self._packets:
            self._transport.write(b"".join(self._packets))
            self._packets.clear()
            self._bytes = 0
            self.written_at = self._now()

    def clear(self) -> None:
        self._packets.clear()
