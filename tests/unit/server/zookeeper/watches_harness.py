"""The watches of connections on a hub, with a real core below; what they are told, decoded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from coordsvc.core.commands import ALL, NO_CALLER, Acl, AuthId, Op, Write
from coordsvc.server.config_model import LimitsConfig
from coordsvc.server.watch_hub import WatchHub
from coordsvc.server.zookeeper.watches import ConnectionWatches
from tests.unit.core.harness import Harness

ME = AuthId("digest", "me:hash")
MINE = (Acl(ALL, "digest", "me:hash"), Acl(ALL & ~1, "world", "anyone"))
"""Everybody may do everything, but READ: that is for ME."""

HEADER = Struct(">iiqiiii")


class Told(NamedTuple):
    type: int
    path: str
    zxid: int


def decode(packet: bytes) -> Told:
    """A notification, whose constant parts must be what they always are."""
    size, xid, zxid, error, event_type, state, text_size = HEADER.unpack_from(packet)
    assert (size, xid, error, state) == (len(packet) - 4, -1, 0, 3)
    assert text_size == len(packet) - HEADER.size
    return Told(event_type, packet[HEADER.size :].decode(), zxid)


class Connection:
    """`calls`: how often it was told that something waits."""

    def __init__(self, hub: WatchHub, *ids: AuthId) -> None:
        self.hub = hub
        self.ids = ids
        self.calls = 0
        self.watches = ConnectionWatches(hub, lambda: self.ids, self._on_events)

    def _on_events(self) -> None:
        self.calls += 1

    def add(self, path: str, *kinds: int) -> None:
        for kind in kinds:
            assert self.watches.add(path, kind) is None

    def take(self, up_to_zxid: int | None = None) -> list[Told]:
        return [decode(packet) for packet in self.watches.take(up_to_zxid)]

    def told(self) -> list[tuple[int, str]]:
        return [(told.type, told.path) for told in self.take()]

    def catch_up(self, after_zxid: int, **paths: list[str]) -> list[Told]:
        """All of it, as the connection does it; what it is told."""
        told: list[Told] = []
        for piece in self.begin_catch_up(after_zxid, **paths):
            assert piece == b""
            told += self.take()
        return told + self.take()

    def begin_catch_up(self, after_zxid: int, **paths: list[str]) -> Iterator[bytes]:
        kinds = ("data", "exist", "child", "persistent", "recursive")
        assert paths.keys() <= set(kinds)
        return self.watches.catch_up(after_zxid, *[paths.get(kind, []) for kind in kinds])


class World:
    """A tree with /p, the hub that is told of its changes."""

    def __init__(self, **limits: int) -> None:
        self.harness = Harness()
        self.harness.create("/p")
        self.hub = WatchHub(self.harness.state, LimitsConfig(**limits))

    @property
    def zxid(self) -> int:
        return self.harness.state.zxid

    def write(self, *ops: Op) -> int:
        """In one entry; the last one's zxid."""
        replies = self.harness.submit(*[Write(NO_CALLER, op) for op in ops])
        self.hub.on_applied(self.harness.last_applied)
        return replies[-1].zxid

    def connect(self, *ids: AuthId) -> Connection:
        return Connection(self.hub, *ids)

    def counts(self) -> tuple[int, int, int]:
        """(watches in use, watches in the table, those who watch)."""
        return self.hub.watches, len(self.hub.table), self.hub.statistics().watchers


class SlowClock:
    """In the place of `time`: no slice is longer than one step of work."""

    def __init__(self) -> None:
        self._now = time.perf_counter()

    def perf_counter(self) -> float:
        self._now += 1.0
        return self._now
