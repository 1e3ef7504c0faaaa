"""The interface through which the forty statements are tested, whatever stands behind it: the
machine in memory, unary calls, a stream, another protocol.

A driver is one service; its clients are independent of each other. What a driver cannot express
it leaves out of `capabilities`, and the statements that need it are skipped there with the reason.
To add a driver: subclass `Driver` and `Client`, and list it in conftest.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import pytest

from coordsvc.core.commands import OPEN_ACL, PERSISTENT, Acl, Stat, SubOp, SubResult

CAPABILITIES: Final = {
    "watches": "clients can set watches and take their events",
    "order": "events and replies of a client arrive on one ordered channel: `Client.inbox`",
    "watch_ids": "an event names the watches that it is for",
    "groups": "the last event of a zxid is marked",
    "resume": "watches can be set again as of a zxid: `Client.resume`",
    "history": "what a persistent watch missed while away is replayed or shown as a gap",
    "one_shot_history": "what a one-shot watch missed while away is replayed or shown as a gap",
    "moves": "a session can be attached anew, and the older attachment still tried",
    "clock": "the driver moves the cluster's clock and lets it collect: `advance`, `collect`",
    "time": "sessions run by real time: `Client.heartbeat`, `sleep`, `tick_ms`",
    "timeout_bounds": "the door clamps timeouts: `timeout_bounds_ms`",
    "min_zxid": "a read can demand a zxid",
    "leader_change": "the driver can make another replica the leader: `change_leader`",
    "partitions": "the driver can cut a leader off: `isolate_leader`",
    "ephemerals": "a client can list its ephemerals",
    "error_paths": "a refusal names the path it is about, not merely the one that was asked for",
    "checked_versions": "an expected version below -1 is refused as such",
    "checked_reads": "a read of a malformed path is refused as such; without, nothing is there",
}

GAP: Final = -1
"""The type of an event that stands for what is not known."""


@dataclass(frozen=True)
class Event:
    """`type`: a change's, CHILDREN_CHANGED or GAP. `watch_ids` as `Client.watch` gave them."""

    type: int
    path: str
    zxid: int
    watch_ids: tuple[int, ...] = ()
    last_of_zxid: bool = True


@dataclass(frozen=True)
class Answer:
    """What a call answered; fields that do not apply are empty. `zxid` is the write's own, or
    that of the state a read saw. `watch_id` is of the watch the read left, None if it left none."""

    zxid: int
    path: str = ""
    stat: Stat | None = None
    data: bytes | None = None
    names: tuple[str, ...] = ()
    acl: tuple[Acl, ...] = ()
    results: tuple[SubResult, ...] = ()
    watch_id: int | None = None


class Client(ABC):
    """One client with a session. Every call raises a CoordError when it is refused."""

    session_id: int
    timeout_ms: int

    inbox: list[Event | Answer]
    """Capability `order`: everything that arrived, in its order."""

    @abstractmethod
    async def create(
        self,
        path: str,
        data: bytes | None = b"",
        *,
        mode: int = PERSISTENT,
        ttl_ms: int = 0,
        acl: Sequence[Acl] = OPEN_ACL,
    ) -> Answer: ...

    @abstractmethod
    async def delete(self, path: str, version: int = -1) -> Answer: ...

    @abstractmethod
    async def set_data(self, path: str, data: bytes | None, version: int = -1) -> Answer: ...

    @abstractmethod
    async def set_acl(self, path: str, acl: Sequence[Acl], version: int = -1) -> Answer: ...

    @abstractmethod
    async def multi(self, *ops: SubOp) -> Answer: ...

    @abstractmethod
    async def exists(self, path: str, *, watch: bool = False) -> Answer:
        """`stat` is None when nothing is there."""

    @abstractmethod
    async def get_data(self, path: str, *, watch: bool = False, min_zxid: int = 0) -> Answer: ...

    @abstractmethod
    async def get_children(self, path: str, *, watch: bool = False) -> Answer: ...

    @abstractmethod
    async def get_acl(self, path: str) -> Answer: ...

    @abstractmethod
    async def sync(self, path: str = "/") -> Answer: ...

    @abstractmethod
    async def add_auth(self, scheme: str, credential: str) -> Answer: ...

    @abstractmethod
    async def close(self) -> Answer:
        """Close the session."""

    # Below: each needs the capability it names.

    async def watch(self, path: str, kind: int) -> int:
        """`watches`: watch persistently, or persistently and recursively; returns the watch id."""
        raise NotImplementedError

    async def take_events(self) -> list[Event]:
        """`watches`: the events of everything applied before this call that were not taken."""
        raise NotImplementedError

    async def disconnect(self) -> None:
        """`resume`: drop the connection and with it the watches; the session lives on."""
        raise NotImplementedError

    async def resume(self, path: str, kind: int, after_zxid: int) -> None:
        """`resume`: set a watch as of `after_zxid`, the last one this client knew of."""
        raise NotImplementedError

    async def attach(self) -> Client:
        """`moves`: attach the session anew; this client is then the older attachment."""
        raise NotImplementedError

    async def heartbeat(self) -> None:
        """`time`: renew the session. Nothing else here does it by itself."""
        raise NotImplementedError

    async def get_ephemerals(self, prefix: str = "/") -> Answer:
        """`ephemerals`: paths of this session's ephemerals, in `names`."""
        raise NotImplementedError


class Driver(ABC):
    """One service."""

    name: str
    capabilities: frozenset[str] = frozenset()
    timeout_bounds_ms: tuple[int, int]
    tick_ms: int

    def need(self, *capabilities: str) -> None:
        """Skip this test unless the driver has these capabilities."""
        for capability in capabilities:
            meaning = CAPABILITIES[capability]
            if capability not in self.capabilities:
                pytest.skip(f"driver {self.name} lacks {capability!r}: {meaning}")

    async def __aenter__(self) -> Driver:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    @abstractmethod
    async def open_session(self, timeout_ms: int = 10_000) -> Client: ...

    @abstractmethod
    async def expire(self, client: Client) -> None:
        """End the client's session as one whose client fell silent; returns when it has ended."""

    # Below: each needs the capability it names.

    async def advance(self, milliseconds: int) -> None:
        """`clock`: let the cluster's clock, and wall time, go on."""
        raise NotImplementedError

    async def collect(self) -> None:
        """`clock`: let the leader look for what to collect, and do it."""
        raise NotImplementedError

    async def sleep(self, milliseconds: int) -> None:
        """`time`"""
        raise NotImplementedError

    async def change_leader(self) -> None:
        """`leader_change`: returns when another replica leads."""
        raise NotImplementedError

    async def isolate_leader(self) -> tuple[Client, Client]:
        """`partitions`: cut the leader off from the others and wait until they have another one.
        Returns two clients with sessions: one that reaches only the old leader, one that reaches
        only the others. Clients from before may be on either side."""
        raise NotImplementedError
