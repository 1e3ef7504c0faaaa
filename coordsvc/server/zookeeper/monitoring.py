"""What tools that watch a ZooKeeper server ask for: four-letter words and JSON tell the same.

Everything is told in one turn of the loop, so nothing is walked that may be much longer than the
list of connections. What is not measured here is left out: a made-up value would be believed.

Ref: ZooKeeper ServerStats, ServerCnxn.dumpConnectionInfo, ZooKeeperServer.registerMetrics,
LeaderZooKeeperServer.registerMetrics.
"""

from __future__ import annotations

import os
import platform
import resource
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Final, Protocol

import coordsvc
from coordsvc.core.state import State
from coordsvc.server.addresses import Address
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.members import Members
from coordsvc.server.replica_port import ReplicaPort
from coordsvc.server.watch_hub import WatchHub
from coordsvc.server.zookeeper.protocol import COMPATIBLE_VERSION
from coordsvc.server.zookeeper.statistics import DoorFacts, Traffic
from coordsvc.v1 import cluster_pb2

NOT_SERVING: Final = "This ZooKeeper instance is not currently serving requests"

LISTED_MAX: Final = 500
"""Sessions, and paths of ephemerals, in one answer. There may be a hundred thousand of either."""

WATCHES_LOOKED_AT_MAX: Final = 20_000
"""What a few milliseconds are enough for."""

READ_INTEREST: Final = 1
"""A connection waits for what its client sends. Ref: Java SelectionKey.OP_READ."""

_OWN_FILE_DESCRIPTORS: Final = "/proc/self/fd"


class DoorPort(Protocol):
    """The port of ZooKeeper's clients (`door.py`)."""

    @property
    def address(self) -> Address | None:
        """None: it does not listen yet."""
        ...

    def facts(self) -> DoorFacts: ...


@dataclass(frozen=True, slots=True)
class Monitored:
    """A replica, for those who watch over it. `members_text()` is what /zookeeper/config holds.
    `door()` None: there is no port for ZooKeeper's clients. `started_at` is on the replica's
    clock."""

    config: ServerConfig
    replica: ReplicaPort
    hub: WatchHub
    members: Members
    members_text: Callable[[], bytes]
    is_ready: Callable[[], bool]
    door: Callable[[], DoorPort | None]
    started_at: float

    @property
    def state(self) -> State:
        return self.replica.machine.state

    def facts(self) -> DoorFacts:
        door = self.door()
        return door.facts() if door is not None else DoorFacts((), 0, Traffic(), 0)

    @property
    def port(self) -> int:
        """-1: none."""
        door = self.door()
        address = door.address if door is not None else None
        return address.port if address is not None else -1

    @property
    def mode(self) -> str:
        if len(self.config.peers) < 2:
            return "standalone"
        return "leader" if self.replica.is_leader else "follower"

    @property
    def uptime_ms(self) -> int:
        return int((self.replica.clock.monotonic() - self.started_at) * 1000)


# ------------------------------------------------------------------------------------ what runs


@cache
def full_version() -> str:
    """`3.9.5-coordsvc-0.1.0, built on 2026-01-31 12:00 UTC`: tools take the numbers at its begin
    for ZooKeeper's, and behave as for that one. It was built when its files were made."""
    made_at = time.gmtime(os.stat(coordsvc.__file__).st_mtime)
    built = time.strftime("%Y-%m-%d %H:%M UTC", made_at)
    return f"{COMPATIBLE_VERSION}-coordsvc-{coordsvc.__version__}, built on {built}"


def environment() -> dict[str, str]:
    """ZooKeeper's names where there is such a thing here."""
    return {
        "zookeeper.version": full_version(),
        "host.name": socket.gethostname(),
        "python.version": platform.python_version(),
        "os.name": platform.system(),
        "os.arch": platform.machine(),
        "os.version": platform.release(),
    }


# -------------------------------------------------------------------------------------- numbers


def average_ms(traffic: Traffic) -> float:
    return round(traffic.latency_ms_average, 4)


def ephemerals_count(state: State) -> int:
    return sum(map(len, state.ephemerals.values()))


def followers(about: Monitored) -> tuple[int, int]:
    """At the leader: (other replicas in reach, those of them that have caught up with what was
    there at their start)."""
    own_id = about.replica.replica_id
    roles = [
        replica.role
        for replica in about.members.replicas()
        if replica.reachable and replica.id != own_id
    ]
    return len(roles), roles.count(cluster_pb2.REPLICA_ROLE_FOLLOWER)


def monitored_values(about: Monitored) -> dict[str, int | float | str]:
    """What `mntr` tells, without its prefix."""
    facts, state = about.facts(), about.state
    traffic = facts.traffic
    values: dict[str, int | float | str] = {
        "version": full_version(),
        "server_state": about.mode,
        "avg_latency": average_ms(traffic),
        "max_latency": int(traffic.latency_ms_max),
        "min_latency": int(traffic.latency_ms_min),
        "packets_received": traffic.received,
        "packets_sent": traffic.sent,
        "num_alive_connections": len(facts.connections),
        "outstanding_requests": facts.outstanding,
        "uptime": about.uptime_ms,
        "znode_count": len(state.znodes),
        "watch_count": len(about.hub.table),
        "ephemerals_count": ephemerals_count(state),
        "approximate_data_size": state.data_bytes,
        "global_sessions": len(state.sessions),
        "local_sessions": 0,
    }
    values.update(_file_descriptors())
    if about.mode != "standalone":
        values["quorum_size"] = len(about.config.peers)
    if about.mode == "leader":
        values["learners"], values["synced_followers"] = followers(about)
        values["synced_non_voting_followers"] = values["synced_observers"] = 0
    return values


def _file_descriptors() -> dict[str, int]:
    """Nothing of what the system does not tell."""
    known = {}
    if os.path.isdir(_OWN_FILE_DESCRIPTORS):
        # Without the one that reads the directory.
        known["open_file_descriptor_count"] = len(os.listdir(_OWN_FILE_DESCRIPTORS)) - 1
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        known["max_file_descriptor_count"] = soft
    return known


# --------------------------------------------------------------------------------------- watches


@dataclass(frozen=True, slots=True)
class WatchSummary:
    """`watches` are all. `connections` and `paths` are counted over `looked_at` of them."""

    connections: int
    paths: int
    watches: int
    looked_at: int

    @property
    def note(self) -> str:
        """Empty when everything was looked at."""
        if self.looked_at == self.watches:
            return ""
        return f"connections and paths are those of {self.looked_at} watches; there are more"


def watch_summary(about: Monitored) -> WatchSummary:
    table = about.hub.table
    looked_at = 0
    watchers, paths = set(), set()
    for watch in islice(table, WATCHES_LOOKED_AT_MAX):
        looked_at += 1
        watchers.add(watch.watcher)
        paths.add(watch.path)
    return WatchSummary(len(watchers), len(paths), len(table), looked_at)


# -------------------------------------------------------------------------------------- sessions


@dataclass(frozen=True, slots=True)
class Dump:
    """The sessions, oldest first, and the paths of their ephemerals: as many as may be listed.
    Notes say how many are left out, and are empty when none is."""

    timeouts_ms: Mapping[int, int]
    sessions: int
    sessions_note: str
    ephemerals: Mapping[int, Sequence[str]]
    sessions_with_ephemerals: int
    ephemerals_note: str


def dump(about: Monitored) -> Dump:
    state = about.state
    sessions = islice(state.sessions.values(), LISTED_MAX)
    timeouts_ms = {session.session_id: session.timeout_ms for session in sessions}
    ephemerals: dict[int, list[str]] = {}
    room = LISTED_MAX
    for session_id, paths in state.ephemerals.items():
        listed = list(islice(paths, room))
        if not listed:
            break
        ephemerals[session_id] = listed
        room -= len(listed)
    return Dump(
        timeouts_ms=timeouts_ms,
        sessions=len(state.sessions),
        sessions_note=_more("sessions", len(timeouts_ms), len(state.sessions)),
        ephemerals=ephemerals,
        sessions_with_ephemerals=len(state.ephemerals),
        ephemerals_note=_more("ephemerals", LISTED_MAX - room, ephemerals_count(state)),
    )


def _more(what: str, listed: int, there: int) -> str:
    return f"{there - listed} more {what} are not listed" if there > listed else ""
