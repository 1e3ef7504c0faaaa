"""A replica that tools watch over: a real server, with facts of a door that are given."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from coordsvc.core.records import Znode
from coordsvc.core.watches import Watch
from coordsvc.raft.messages import ReplicaInfo
from coordsvc.server.addresses import Address
from coordsvc.server.zookeeper.monitoring import Monitored
from coordsvc.server.zookeeper.statistics import ConnectionFacts, DoorFacts, Traffic
from tests.unit.server.harness import Harness, local_server

PEERS = {i: Address("10.0.0.1", 17000 + i) for i in (1, 2, 3)}

MEMBERS = b"server.1=10.0.0.1:17001:17001:participant\nversion=0"

WITH_SESSION = ConnectionFacts(
    host="127.0.0.1",
    port=47240,
    session_id=0x2A,
    timeout_ms=10_000,
    outstanding=2,
    established_ms=1_795_407_281_855,
    last_operation="getData",
    last_xid=3,
    last_zxid=0x1F,
    last_response_ms=1_795_407_282_000,
    traffic=Traffic(4, 5, 2, 0.5, 27.9, 25.0, 18.4),
)
WITHOUT_SESSION = ConnectionFacts(
    host="::1",
    port=47288,
    session_id=0,
    timeout_ms=0,
    outstanding=0,
    established_ms=1_795_407_281_900,
    last_operation="NA",
    last_xid=-1,
    last_zxid=0,
    last_response_ms=0,
    traffic=Traffic(received=1),
)
FACTS = DoorFacts(
    connections=(WITH_SESSION, WITHOUT_SESSION),
    outstanding=2,
    traffic=Traffic(19, 21, 3, 0.5, 27.9, 36.00025),
    started_ms=0,
)


class Door:
    """Open, on port 2181, with FACTS."""

    def __init__(self) -> None:
        self.address: Address | None = Address("127.0.0.1", 2181)
        self.told = FACTS

    def facts(self) -> DoorFacts:
        return self.told


class _Unwalked(dict[str, Znode]):
    """The znodes, each of which may be looked up."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all znodes are walked")

    def values(self) -> Any:
        return iter(self)

    keys = items = values


class Scene:
    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.door: Door | None = Door()
        server = harness.server
        self.about = Monitored(
            config=server.config,
            replica=harness.replica,
            hub=server.hub,
            members=server.members,
            members_text=lambda: MEMBERS,
            is_ready=lambda: server.is_ready,
            door=lambda: self.door,
            started_at=harness.replica.clock.monotonic() - 1.5,
        )

    def configure(self, **changes: Any) -> None:
        """Tell of another configuration than the server's."""
        self.about = replace(self.about, config=replace(self.about.config, **changes))

    def watch(self, path: str, *, watcher: str, watch_id: int, kind: int = 1) -> None:
        self.about.hub.table.put(Watch(watcher, watch_id, path, kind))

    def forbid_walks(self) -> None:
        """From now on looking at all znodes fails."""
        state = self.harness.replica.machine.state
        state.znodes = _Unwalked(state.znodes)

    def hear(self, peer: int, role: int) -> None:
        """Of another replica."""
        info = ReplicaInfo(peer, role, "", "", 1, 1, 1, 1, 0, "0", ())
        self.harness.replica.receive(peer, info)


@asynccontextmanager
async def monitored(**changes: Any) -> AsyncIterator[Scene]:
    """`changes` are of the configuration."""
    async with local_server(**changes) as harness:
        yield Scene(harness)
