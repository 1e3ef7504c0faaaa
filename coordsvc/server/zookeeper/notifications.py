"""A change as a client of ZooKeeper is told: a packet that answers no request.

Ref: ZooKeeper ReplyHeader, WatcherEvent.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from coordsvc.server.zookeeper.protocol import NOTIFICATION_XID, OK, SYNC_CONNECTED

CAUGHT_UP_ZXID: Final = -1
"""In the header of an event that is told of what a stat shows: of no change in particular."""

_HEADER: Final = Struct(">iiqiiii")
"""The packet's length, xid, zxid, error; the event's type, the state, the path's length."""

_HEADER_BYTES: Final = _HEADER.size - 4


def notification(event_type: int, path: str, zxid: int) -> bytes:
    """The whole packet, with its length."""
    text = path.encode("utf-8", "surrogatepass")
    size = len(text)
    header = _HEADER.pack(
        _HEADER_BYTES + size, NOTIFICATION_XID, zxid, OK, event_type, SYNC_CONNECTED, size
    )
    return header + text
