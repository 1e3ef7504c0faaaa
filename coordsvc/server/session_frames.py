"""Frames of a Session stream on their way out: one list of items, closed at a size.

Sizes are estimated, a little high, before an item is put in: what would make a frame too large goes
into the next one. So only an item that is itself above the bound makes a larger frame, alone.
"""

from __future__ import annotations

from coordsvc.errors import CoordError
from coordsvc.server.status_map import error_detail, status_message
from coordsvc.v1 import coordination_pb2, watch_pb2

WatchMessage = watch_pb2.WatchEvent | watch_pb2.WatchGap | watch_pb2.WatchRemoved

ITEM_BYTES = 32
"""What an item takes beside what is in it: tags, lengths, request id, zxid."""

_FIELD_OF: dict[type, str] = {
    watch_pb2.WatchEvent: "event",
    watch_pb2.WatchGap: "gap",
    watch_pb2.WatchRemoved: "removed",
}


class Frame:
    """One frame, while it is filled. `size_max` in bytes."""

    __slots__ = ("_add", "message", "size", "size_max")

    def __init__(self, size_max: int) -> None:
        self.message = coordination_pb2.SessionResponse()
        self._add = self.message.items.add
        self.size = 0
        self.size_max = size_max

    @property
    def room(self) -> int:
        return self.size_max - self.size

    def add_reply(
        self, request_id: int, zxid: int, size: int
    ) -> coordination_pb2.SessionReply | None:
        """A reply to be filled in, of `size` bytes at most; None when there is no room for it."""
        size += self.size + ITEM_BYTES
        if size > self.size_max and self.size:
            return None
        self.size = size
        reply = self._add().reply
        reply.request_id = request_id
        reply.zxid = zxid
        return reply

    def add_error(self, request_id: int, error: CoordError) -> bool:
        detail = error_detail(error)
        detail.message = status_message(error)
        reply = self.add_reply(request_id, error.zxid, detail.ByteSize())
        if reply is None:
            return False
        reply.error.CopyFrom(detail)
        return True

    def add_watch_item(self, item: WatchMessage) -> None:
        self.size += item.ByteSize() + ITEM_BYTES
        getattr(self._add(), _FIELD_OF[type(item)]).CopyFrom(item)

    def add_welcome(self, welcome: coordination_pb2.SessionWelcome) -> None:
        self.size += welcome.ByteSize() + ITEM_BYTES
        self._add().welcome.CopyFrom(welcome)

    def add_pong(self, nonce: int, zxid: int) -> None:
        self.size += ITEM_BYTES
        pong = self._add().pong
        pong.nonce = nonce
        pong.zxid = zxid

    def add_go_away(self, reason: coordination_pb2.GoAwayReason.ValueType, grace_ms: int) -> None:
        self.size += ITEM_BYTES
        go_away = self._add().go_away
        go_away.reason = reason
        go_away.grace_ms = grace_ms
