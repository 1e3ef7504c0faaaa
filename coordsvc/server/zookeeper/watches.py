"""The watches of one connection, as ZooKeeper keeps them: by path and kind, gone with it.

There is one of a kind on a path, however often it is set: `exists` and `getData` set the same. A
change is told once for each path and type, however many of the watches match. A one-shot watch is
used up by its event, also when the connection may not READ the znode and is told nothing.

An event is encoded once for all connections that are told: what waits here is shared with them.
The protocol has no word for events that are missing. So when more waits than a connection may
have, nothing of it is told and all its watches are gone; it must be closed, before anything else
is answered on it, and its client sets its watches again on another connection, from the last reply
it has seen.

Ref: ZooKeeper WatchManager, WatchStats, NIOServerCnxn.process; DataTree.removeWatch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, KeysView, Sequence
from typing import TYPE_CHECKING, Final

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
from coordsvc.server.zookeeper.catch_up import Missed, catch_up, is_nowhere
from coordsvc.server.zookeeper.notifications import notification
from coordsvc.server.zookeeper.protocol import (
    WATCHER_ANY,
    WATCHER_CHILDREN,
    WATCHER_DATA,
    WATCHER_PERSISTENT,
    WATCHER_PERSISTENT_RECURSIVE,
)

if TYPE_CHECKING:
    from coordsvc.server.watch_hub import WatchHub
    from coordsvc.server.watch_messages import Event

EVENTS_MAX_FACTOR: Final = 10
"""Events that wait cost little here, where they are shared, and none can be left out: so many
times `watch_buffer_events_max`."""

_KINDS: Final = (EXISTS, CHILDREN, PERSISTENT, PERSISTENT_RECURSIVE)

_KINDS_OF: Final = {
    WATCHER_CHILDREN: (CHILDREN,),
    WATCHER_DATA: (EXISTS,),
    WATCHER_PERSISTENT: (PERSISTENT,),
    WATCHER_PERSISTENT_RECURSIVE: (PERSISTENT_RECURSIVE,),
    WATCHER_ANY: _KINDS,
}


class ConnectionWatches:
    """`ids()` are the connection's identities at that moment. `on_events()` is called when
    something waits to be taken, and then not again before the next `take`; and when too much would.

    `is_overflowing`: more would wait, or would be set by a catch-up, than there is room for; close
    the connection. `waiting_bytes`: in packets that wait."""

    __slots__ = (
        "_bytes_max",
        "_count",
        "_events_max",
        "_hub",
        "_is_told",
        "_kinds",
        "_on_events",
        "_waiting",
        "ids",
        "is_open",
        "is_overflowing",
        "waiting_bytes",
    )

    def __init__(
        self, hub: WatchHub, ids: Callable[[], tuple[AuthId, ...]], on_events: Callable[[], None]
    ) -> None:
        self.ids = ids
        self.is_open = True
        """Watches can be set: neither overflowing nor closed."""
        self.is_overflowing = False
        self.waiting_bytes = 0
        self._hub = hub
        self._on_events = on_events
        self._is_told = False
        self._kinds: dict[str, int] = {}
        """A bit for each kind that is set on the path: 1 << kind."""
        self._count = 0
        self._waiting: deque[tuple[int, bytes]] = deque()
        """(zxid of the cause, packet), in the order of the zxids."""
        self._bytes_max = hub.limits.watch_buffer_bytes_max
        self._events_max = EVENTS_MAX_FACTOR * hub.limits.watch_buffer_events_max

    def __len__(self) -> int:
        """How many watches are set."""
        return self._count

    def paths(self) -> KeysView[str]:
        """On which any is set; a view, which changes with them."""
        return self._kinds.keys()

    # ----------------------------------------------------------------------------------- watches

    def add(self, path: str, kind: int) -> Refusal | None:
        """Set a watch: EXISTS (for data and existence alike), CHILDREN, PERSISTENT or
        PERSISTENT_RECURSIVE, whether or not anything is there and who may READ it. On a malformed
        path nothing ever happens, and nothing is set. THROTTLED when the replica has as many
        watches as it may."""
        if not self.is_open or is_nowhere(self._hub.state, path) or self._set(path, kind):
            return None
        return Refusal(int(ErrorCode.THROTTLED), path, f"{self._hub.watches} watches are set here")

    def remove(self, path: str, watcher_type: int) -> bool:
        """Remove those of one of ZooKeeper's types of watchers. False: there is none. What waits
        already is told nevertheless."""
        kinds = [kind for kind in _KINDS_OF.get(watcher_type, ()) if self.has(path, kind)]
        for kind in kinds:
            self._hub.table.drop(Watch(self, 0, path, kind))
            self._forget(path, kind)
        return bool(kinds)

    def contains(self, path: str, watcher_type: int) -> bool:
        """Whether there is one of one of ZooKeeper's types of watchers."""
        return any(self.has(path, kind) for kind in _KINDS_OF.get(watcher_type, ()))

    def has(self, path: str, kind: int) -> bool:
        return bool(self._kinds.get(path, 0) & 1 << kind)

    def catch_up(
        self,
        after_zxid: int,
        data: Sequence[str],
        exist: Sequence[str],
        child: Sequence[str],
        persistent: Sequence[str] = (),
        recursive: Sequence[str] = (),
    ) -> Iterator[bytes]:
        """Set watches that were set on another connection, on which the client saw `after_zxid`
        last; tell what they have missed. See `catch_up.catch_up`.

        Each empty piece is made within a few milliseconds. Take what waits between the pieces:
        however much is found in one, it does not overflow."""
        missed = Missed(after_zxid, data, exist, child, persistent, recursive)
        return catch_up(self, self._hub, missed)

    def close(self) -> None:
        """The connection has ended: all its watches are gone. Again is the same as once."""
        self._end()
        self._on_events = _nobody
        self.ids = _no_ids

    def _set(self, path: str, kind: int) -> bool:
        """False: there is no room for another."""
        assert kind in _KINDS
        kinds, bit, hub = self._kinds.get(path, 0), 1 << kind, self._hub
        if kinds & bit:
            return True
        if hub.watches >= hub.limits.watches_max:
            return False
        if not self._count:
            hub.opened(self)
        self._kinds[path] = kinds | bit
        self._count += 1
        hub.watches += 1
        hub.table.put(Watch(self, 0, path, kind))
        return True

    def _forget(self, path: str, kind: int) -> None:
        """It is not in the table any more."""
        kinds = self._kinds.get(path, 0)
        left = kinds & ~(1 << kind)
        if left == kinds:
            return
        if left:
            self._kinds[path] = left
        else:
            del self._kinds[path]
        self._count -= 1
        self._hub.watches -= 1

    def _end(self) -> None:
        self.is_open = False
        table = self._hub.table
        for path, kinds in self._kinds.items():
            for kind in _KINDS:
                if kinds & 1 << kind:
                    table.drop(Watch(self, 0, path, kind))
        self._hub.watches -= self._count
        self._kinds.clear()
        self._count = 0
        self._waiting.clear()
        self.waiting_bytes = 0
        self._hub.closed(self)

    # ---------------------------------------------------------------------------- catching up

    def arm(self, path: str, kind: int) -> None:
        """A watch that has nothing more to catch up with. Where there is no room for it, the
        connection cannot go on: no client looks at how setting its watches again was answered."""
        if self.is_open and not self._set(path, kind):
            self._overflow()

    def put(self, zxid: int, packet: bytes) -> None:
        """A packet that was missed. It is not taken before what waits already, however long ago
        its cause was."""
        if self.is_open:
            if self._waiting:
                zxid = max(zxid, self._waiting[-1][0])
            self._waiting.append((zxid, packet))
            self.waiting_bytes += len(packet)
            self._notify()

    # ------------------------------------------------------------------------------- what waits

    @property
    def has_events(self) -> bool:
        return bool(self._waiting)

    def take(self, up_to_zxid: int | None = None) -> list[bytes]:
        """The packets that wait, in order; those of later zxids stay."""
        self._is_told = False
        waiting = self._waiting
        if up_to_zxid is None or not waiting or waiting[-1][0] <= up_to_zxid:
            packets = [packet for _, packet in waiting]
            waiting.clear()
            self.waiting_bytes = 0
            return packets
        packets = []
        while waiting[0][0] <= up_to_zxid:
            packets.append(waiting.popleft()[1])
        self.waiting_bytes -= sum(map(len, packets))
        return packets

    def push(self, event: Event, watches: list[Watch]) -> None:
        """From the hub: an event for all of these watches."""
        for watch in watches:
            if watch.kind in ONE_SHOT:
                self._forget(watch.path, watch.kind)
        if not self.is_open:
            return
        encoded = event.encoded
        if encoded is None:
            packet = notification(event.type, event.path, event.zxid)
            encoded = event.encoded = (event.zxid, packet)
        self._waiting.append(encoded)
        self.waiting_bytes += len(encoded[1])
        if self.waiting_bytes > self._bytes_max or len(self._waiting) > self._events_max:
            self._overflow()
        elif not self._is_told:
            self._notify()

    def push_unreadable(self, zxid: int, watches: list[Watch]) -> None:
        """From the hub: watches that match what may not be told."""
        for watch in watches:
            if watch.kind in ONE_SHOT:
                self._forget(watch.path, watch.kind)

    def end_group(self) -> None:
        """From the hub. Nothing marks the end of a group in this protocol."""

    def _overflow(self) -> None:
        self._end()
        self.is_overflowing = True
        # Who was called for what waited may have had to leave it, and must look again.
        self._is_told = False
        self._notify()

    def _notify(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._on_events()


def _nobody() -> None:
    """Is told of what waits on a connection that is closed."""


def _no_ids() -> tuple[AuthId, ...]:
    return ()
