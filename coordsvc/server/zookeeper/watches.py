"""The watches of one connection, as ZooKeeper keeps them: by path and kind, gone with it.

A watch of data and one of existence are the same thing here, as on ZooKeeper's server. What is to
be told waits as packets, within bounds; where they are exceeded there is no word for it in the
protocol, so the connection has to end, and its client finds out on the next one what it missed.

Ref: ZooKeeper DataTree, WatchManager; Programmer's Guide, "ZooKeeper Watches".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from coordsvc.core.commands import AuthId, Refusal
from coordsvc.core.watches import (
    CHILDREN,
    EXISTS,
    ONE_SHOT,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
    Watch,
)
from coordsvc.errors import ErrorCode
from coordsvc.server.watch_hub import WatchHub
from coordsvc.server.watch_messages import Event
from coordsvc.server.zookeeper import catch_up
from coordsvc.server.zookeeper.notifications import notification
from coordsvc.server.zookeeper.protocol import (
    WATCHER_ANY,
    WATCHER_CHILDREN,
    WATCHER_DATA,
    WATCHER_PERSISTENT,
    WATCHER_PERSISTENT_RECURSIVE,
)

EVENTS_PER_EVENT_OF_A_STREAM: Final = 10
"""Here a client that is behind loses its connection, and not some events only: it may wait for more
of them. They are small, having no data."""

_KINDS: Final = {
    WATCHER_CHILDREN: (CHILDREN,),
    WATCHER_DATA: (EXISTS,),
    WATCHER_ANY: (CHILDREN, EXISTS, PERSISTENT, PERSISTENT_RECURSIVE),
    WATCHER_PERSISTENT: (PERSISTENT,),
    WATCHER_PERSISTENT_RECURSIVE: (PERSISTENT_RECURSIVE,),
}
"""What is meant by a type of watcher."""

_TOO_MANY: Final = Refusal(int(ErrorCode.THROTTLED))


class ConnectionWatches:
    """`ids()` are the connection's identities at that moment. `on_events()` is called when
    something waits to be taken, and then not again before the next `take`."""

    __slots__ = ("_bytes_max", "_events", "_events_max", "_hub", "_is_told", "_on_events",
                 "_watches", "ids", "is_overflowing", "waiting_bytes")  # fmt: skip

    def __init__(
        self, hub: WatchHub, ids: Callable[[], tuple[AuthId, ...]], on_events: Callable[[], None]
    ) -> None:
        self.ids = ids
        self.waiting_bytes = 0
        self.is_overflowing = False
        """More waited than there is room for, and was dropped: the connection must end."""
        self._hub = hub
        self._on_events = on_events
        self._is_told = False
        self._watches: dict[tuple[str, int], Watch] = {}
        self._events: deque[tuple[int, bytes]] = deque()
        self._bytes_max = hub.limits.watch_buffer_bytes_max
        self._events_max = hub.limits.watch_buffer_events_max * EVENTS_PER_EVENT_OF_A_STREAM
        hub.opened(self)

    def __len__(self) -> int:
        return len(self._watches)

    def close(self) -> None:
        """All are gone. More than once is the same as once."""
        hub = self._hub
        for watch in self._watches.values():
            hub.table.drop(watch)
        hub.watches -= len(self._watches)
        self._watches.clear()
        self._drop_events()
        hub.closed(self)
        # Whatever still knows this one must not keep the connection, too.
        self._on_events = _nobody
        self.ids = _no_ids

    # ----------------------------------------------------------------------------------- watches

    def add(self, path: str, kind: int) -> Refusal | None:
        """Whether or not anything is there. What is set already stays. THROTTLED when this replica
        has enough."""
        if (path, kind) in self._watches:
            return None
        hub = self._hub
        if hub.watches >= hub.limits.watches_max:
            return _TOO_MANY
        hub.table.put(self.enter(path, kind))
        return None

    def enter(self, path: str, kind: int) -> Watch:
        """One that is not set yet, and is to be put into the hub's table by whoever asks."""
        watch = self._watches[path, kind] = Watch(self, 0, path, kind)
        self._hub.watches += 1
        return watch

    def has(self, path: str, kind: int) -> bool:
        return (path, kind) in self._watches

    def contains(self, path: str, watcher_type: int) -> bool:
        return any((path, kind) in self._watches for kind in _KINDS[watcher_type])

    def remove(self, path: str, watcher_type: int) -> bool:
        """False: there was none. What waits to be told of it is told."""
        is_found = False
        for kind in _KINDS[watcher_type]:
            watch = self._watches.pop((path, kind), None)
            if watch is not None:
                self._hub.table.drop(watch)
                self._hub.watches -= 1
                is_found = True
        return is_found

    def catch_up(
        self,
        after_zxid: int,
        data: Sequence[str],
        exist: Sequence[str],
        child: Sequence[str],
        persistent: Sequence[str] = (),
        recursive: Sequence[str] = (),
    ) -> Iterator[bytes]:
        """Set what a client had on another connection, and tell what it missed since `after_zxid`:
        see `catch_up.py`. Yields an empty part of a body every few milliseconds."""
        one_shot = ((data, EXISTS, False), (exist, EXISTS, True), (child, CHILDREN, False))
        lasting = ((persistent, PERSISTENT), (recursive, PERSISTENT_RECURSIVE))
        return catch_up.catch_up(self._hub, self, after_zxid, one_shot, lasting)

    # ------------------------------------------------------------------- as a watcher of the hub

    def push(self, event: Event, watches: list[Watch]) -> None:
        self._use_up(watches)
        encoded = event.encoded
        if encoded is None:
            packet = notification(event.type, event.path, event.zxid)
            encoded = event.encoded = (event.zxid, packet)
        self._tell(encoded)

    def push_unreadable(self, zxid: int, watches: list[Watch]) -> None:
        """As in ZooKeeper, nobody is told."""
        del zxid
        self._use_up(watches)

    def end_group(self) -> None:
        """The protocol has no mark for it."""

    def _use_up(self, watches: list[Watch]) -> None:
        for watch in watches:
            if (
                watch.kind in ONE_SHOT
                and self._watches.pop((watch.path, watch.kind), None) is not None
            ):
                self._hub.watches -= 1

    # ------------------------------------------------------------------------------ what is told

    def tell(self, zxid: int, packet: bytes) -> None:
        """`packet` follows from what happened up to `zxid`."""
        self._tell((zxid, packet))

    def _tell(self, event: tuple[int, bytes]) -> None:
        if self.is_overflowing:
            return
        self._events.append(event)
        self.waiting_bytes += len(event[1])
        if self.waiting_bytes > self._bytes_max or len(self._events) > self._events_max:
            self._drop_events()
            self.is_overflowing = True
            self._is_told = False  # It may have been told long ago that something waits.
        if not self._is_told:
            self._is_told = True
            self._on_events()

    def _drop_events(self) -> None:
        self._events.clear()
        self.waiting_bytes = 0

    @property
    def has_events(self) -> bool:
        return bool(self._events)

    def take(self, up_to_zxid: int | None = None) -> list[bytes]:
        """What waits, in order; None: all of it."""
        self._is_told = False
        events = self._events
        if up_to_zxid is None:
            packets = [packet for _, packet in events]
            self._drop_events()
            return packets
        packets = []
        while events and events[0][0] <= up_to_zxid:
            packets.append(events.popleft()[1])
            self.waiting_bytes -= len(packets[-1])
        return packets


def _nobody() -> None:
    """Is told of what waits for a connection that has ended."""


def _no_ids() -> tuple[AuthId, ...]:
    return ()
