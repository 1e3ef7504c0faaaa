"""Frames of a Session stream on their way out: one list of items, closed at a size.

Sizes are estimated, a little high, before an item is put in: what would make a frame too large goes
into the next one. So only an item that is itself above the bound makes a larger frame, alone.

A frame is encoded in pieces. Each is a SessionResponse, and so is all of them laid end to end.
Ref: Protocol Buffers, "Encoding", "Last One Wins": what is repeated is put together.
"""

from __future__ import annotations

from coordsvc.core.commands import Stat
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


SET_REPLY_BYTES = 128
"""At least what a SetReply has besides its ids."""


class SetReply:
    """Encodes replies to writes of data, by far the most, one after the other in one message: a new
    one for each would take twice as long."""

    __slots__ = ("_encode", "_reply", "_stat")

    def __init__(self) -> None:
        response = coordination_pb2.SessionResponse()
        self._encode = response.SerializeToString
        self._reply = response.items.add().reply
        self._stat = self._reply.set_data.stat

    def encode(self, request_id: int, zxid: int, stat: Stat) -> bytes:
        """A SessionResponse of this one item. Every field is set, for it has that of the last."""
        reply, message = self._reply, self._stat
        reply.request_id = request_id
        reply.zxid = zxid
        message.czxid = stat.czxid
        message.mzxid = stat.mzxid
        message.pzxid = stat.pzxid
        message.ctime_ms = stat.ctime_ms
        message.mtime_ms = stat.mtime_ms
        message.version = stat.version
        message.cversion = stat.cversion
        message.aversion = stat.aversion
        message.ephemeral_owner = stat.ephemeral_owner
        message.data_length = stat.data_length
        message.num_children = stat.num_children
        return self._encode()


class Frame:
    """One frame, while it is filled. `size_max` in bytes. `set_reply` is used for as long."""

    __slots__ = ("_message", "_pieces", "_set_reply", "size", "size_max")

    def __init__(self, size_max: int, set_reply: SetReply) -> None:
        self._pieces: list[bytes] = []
        self._message: coordination_pb2.SessionResponse | None = None
        """What comes after the pieces."""
        self._set_reply = set_reply
        self.size = 0
        self.size_max = size_max

    @property
    def room(self) -> int:
        return self.size_max - self.size

    def encode(self) -> bytes:
        self._end_message()
        return b"".join(self._pieces)

    def _end_message(self) -> None:
        if self._message is not None:
            self._pieces.append(self._message.SerializeToString())
            self._message = None

    def _add(self) -> coordination_pb2.SessionItem:
        if self._message is None:
            self._message = coordination_pb2.SessionResponse()
        return self._message.items.add()

    def add_set_reply(self, request_id: int, zxid: int, stat: Stat) -> bool:
        """False: there is no room for it."""
        size = self.size + SET_REPLY_BYTES + ITEM_BYTES
        if size > self.size_max and self.size:
            return False
        self.size = size
        if self._message is not None:
            self._end_message()
        self._pieces.append(self._set_reply.encode(request_id, zxid, stat))
        return True

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
