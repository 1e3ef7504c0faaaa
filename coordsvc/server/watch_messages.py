"""Watches as the API says them: what is asked for, and what is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

from coordsvc.core.commands import Change, Stat
from coordsvc.core.watches import CHILDREN_CHANGED, PERSISTENT_RECURSIVE, Watch
from coordsvc.errors import BadArgumentsError
from coordsvc.paths import validate_path
from coordsvc.server import convert
from coordsvc.v1 import watch_pb2

Item = watch_pb2.WatchEvent | watch_pb2.WatchGap | watch_pb2.WatchRemoved

GapReason: TypeAlias = watch_pb2.WatchGapReason.ValueType
HISTORY_TOO_OLD: Final = watch_pb2.WATCH_GAP_REASON_HISTORY_TOO_OLD
BUFFER_OVERFLOW: Final = watch_pb2.WATCH_GAP_REASON_BUFFER_OVERFLOW
OTHER_HISTORY: Final = watch_pb2.WATCH_GAP_REASON_OTHER_HISTORY

EVENT_OVERHEAD_BYTES: Final = 64
STAT_BYTES: Final = 128
WATCH_ID_BYTES: Final = 10
"""At least what these take in a message."""


class Spec(NamedTuple):
    """One watch to set, checked. See WatchSpec."""

    watch_id: int
    path: str
    kind: int
    include_data: bool = False


def specs_from_messages(messages: Iterable[watch_pb2.WatchSpec]) -> list[Spec]:
    """Raises BadArgumentsError for what is wrong whatever the tree looks like: an id that is not
    positive or comes twice, an unknown kind, a malformed path."""
    specs: dict[int, Spec] = {}
    for message in messages:
        watch_id, path, kind = message.watch_id, message.path, message.kind
        if watch_id <= 0:
            raise BadArgumentsError(f"watch_id is {watch_id}; it must be positive", path=path)
        if watch_id in specs:
            raise BadArgumentsError(f"watch_id {watch_id} comes twice", path=path)
        if not 1 <= kind <= PERSISTENT_RECURSIVE:
            raise BadArgumentsError(f"unknown kind {kind} of watch {watch_id}", path=path)
        validate_path(path)
        specs[watch_id] = Spec(watch_id, path, kind, message.include_data)
    return list(specs.values())


class Event:
    """A change as an event, the same for everybody who is told. Its message is made when it is
    first sent, and again only for other watch ids; nobody may change it.

    `encoded`: (zxid, packet), as ZooKeeper's protocol says it; whoever is the first to need it
    makes it, for everybody."""

    __slots__ = (
        "_key",
        "_message",
        "data",
        "encoded",
        "path",
        "path_bytes",
        "stat",
        "type",
        "zxid",
    )

    def __init__(
        self, event_type: int, path: str, zxid: int, data: bytes | None, stat: Stat | None
    ) -> None:
        self.type = event_type
        self.path = path
        self.zxid = zxid
        self.data = data
        self.stat = stat
        self.path_bytes = len(path) if path.isascii() else len(path.encode())
        self.encoded: tuple[int, bytes] | None = None
        self._key: tuple[tuple[int, ...], bool, bool] | None = None
        self._message: watch_pb2.WatchEvent | None = None

    def size(self, watch_count: int, include_data: bool) -> int:
        """About its bytes in a message."""
        size = EVENT_OVERHEAD_BYTES + self.path_bytes + WATCH_ID_BYTES * watch_count
        if include_data and self.stat is not None:
            size += STAT_BYTES + (len(self.data) if self.data is not None else 0)
        return size

    def message(
        self, watch_ids: tuple[int, ...], include_data: bool, is_last: bool
    ) -> watch_pb2.WatchEvent:
        key = (watch_ids, include_data, is_last)
        if self._message is None or self._key != key:
            self._message, self._key = self._make(*key), key
        return self._message

    def _make(
        self, watch_ids: tuple[int, ...], include_data: bool, is_last: bool
    ) -> watch_pb2.WatchEvent:
        message = watch_pb2.WatchEvent(
            watch_ids=watch_ids,
            type=watch_pb2.WatchEventType.ValueType(self.type),
            path=self.path,
            zxid=self.zxid,
            last_of_zxid=is_last,
        )
        if include_data and self.stat is not None:
            convert.fill_stat(message.stat, self.stat)
            if self.data is not None:
                message.data = self.data
        return message


def event_of(change: Change, event_type: int, path: str) -> Event:
    """A change as the event that a watch of `path` hears of it."""
    if event_type == CHILDREN_CHANGED:
        return Event(event_type, path, change.zxid, None, None)
    return Event(event_type, path, change.zxid, change.data, change.stat)


def gap_message(
    watch_ids: Iterable[int], after_zxid: int, resumed_at_zxid: int, reason: GapReason
) -> watch_pb2.WatchGap:
    return watch_pb2.WatchGap(
        watch_ids=sorted(watch_ids),
        after_zxid=after_zxid,
        resumed_at_zxid=resumed_at_zxid,
        reason=reason,
    )


def no_auth_message(watches: Sequence[Watch]) -> watch_pb2.WatchRemoved:
    return watch_pb2.WatchRemoved(
        watch_ids=ids_of(watches), reason=watch_pb2.WATCH_REMOVED_REASON_NO_AUTH
    )


def ids_of(watches: Iterable[Watch]) -> tuple[int, ...]:
    return tuple(sorted([watch.watch_id for watch in watches]))
