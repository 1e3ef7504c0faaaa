"""Consensus without sockets, disks or waiting: the real node, journal and outbox of several
replicas over a WAL whose syncs complete on command and links that lose, delay and repeat.

`RaftCluster` holds the frames that are under way in one list; a test delivers, drops or copies
any of them, in any order, and moves a clock by hand. `pump` and `run` do it as a healthy network
would. Whole replicas are simulated in `raft_simulation.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from coordsvc.raft.journal import WalJournal
from coordsvc.raft.messages import LENGTH, Message, decode_message
from coordsvc.raft.node import RaftNode
from coordsvc.raft.outbox import Outbox
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.testing.manual_wal import ManualWal, voter_wal

NOWHERE = ("127.0.0.1", 1)
PUMPS_MAX = 5_000
"""Exchanges in one instant; that many mean two replicas that do not come to an end."""
PAYLOAD = b"\x00"
"""First byte of a regular entry's payload."""


class ManualClock:
    """Stands still until moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)


class Frame(NamedTuple):
    """A message under way. `link` numbers the connection it was said on."""

    source: int
    target: int
    link: int
    term: int
    message: Message


@dataclass(eq=False)
class RaftHost:
    """One replica's consensus, without a loop."""

    replica_id: int
    wal: ManualWal
    journal: WalJournal
    outbox: Outbox
    node: RaftNode
    is_up: bool = True
    roles: list[tuple[int, int]] = field(default_factory=list)
    """Changes of role, as the replica is told."""

    @property
    def log(self) -> list[tuple[int, int]]:
        """(index, term) of every entry after the base."""
        return [(index, term) for _, index, term in self.journal[1:]]

    def end_turn(self, now: float) -> None:
        self.node.send_due(now)
        self.wal.flush()


class RaftCluster:
    """`memoryless` replicas begin with an empty disk that does not know of having voted."""

    def __init__(
        self,
        size: int = 3,
        *,
        seed: int = 0,
        memoryless: Iterable[int] = (),
        settings: Callable[[int], ReplicaSettings] | None = None,
        is_linked: bool = True,
    ) -> None:
        self.clock = ManualClock()
        self.rng = random.Random(seed)
        self.ids = tuple(range(1, size + 1))
        self.frames: list[Frame] = []
        self.links: dict[tuple[int, int], int] = {}
        """Connections by (lower id, higher id); the value is their number."""
        self._link_number = 0
        self._settings = settings or self.default_settings
        self.on_frame: Callable[[Frame], None] = lambda frame: None
        """Sees each frame as it leaves its sender."""
        self.hosts: dict[int, RaftHost] = {}
        for replica_id in self.ids:
            forgetful = replica_id in set(memoryless)
            self.start(replica_id, ManualWal() if forgetful else voter_wal())
        if is_linked:
            self.link_all()

    def default_settings(self, replica_id: int) -> ReplicaSettings:
        peers = dict.fromkeys(self.ids, NOWHERE) if len(self.ids) > 1 else {}
        return ReplicaSettings(replica_id, peers)

    # ------------------------------------------------------------------------- replicas

    def start(self, replica_id: int, wal: ManualWal) -> RaftHost:
        """Starts a replica from what `wal` recovered; links are a separate matter."""
        recovered = wal.recovered
        roles: list[tuple[int, int]] = []
        journal = WalJournal(
            wal,
            recovered.base_index,
            recovered.base_term,
            recovered.entries,
            recovered.term,
            recovered.voted_for,
        )
        outbox = Outbox(
            wal,
            lambda: self.hosts[replica_id].node.term,
            lambda peer, data: self._leave(replica_id, peer, data),
        )
        node = RaftNode(
            self._settings(replica_id),
            journal,
            self.clock,
            self.rng,
            outbox.send,
            memoryless=not recovered.voter,
            on_role=lambda old, new: roles.append((old, new)),
        )
        host = RaftHost(replica_id, wal, journal, outbox, node, roles=roles)

        def synced(lsn: int) -> None:
            if host.is_up:
                journal.synced_to(lsn)
                outbox.synced_to(lsn)

        wal.on_synced = synced
        self.hosts[replica_id] = host
        return host

    def crash(self, replica_id: int, *, kept: int = 0) -> ManualWal:
        """kill -9 and power cut; returns the disk as it is then. Frames it sent stay under way."""
        host = self.hosts[replica_id]
        host.is_up = False
        for peer in self.ids:
            self.unlink(replica_id, peer)
        return host.wal.crash(kept=kept)

    def restart(self, replica_id: int, *, kept: int = 0) -> RaftHost:
        return self.start(replica_id, self.crash(replica_id, kept=kept))

    def wipe(self, replica_id: int) -> RaftHost:
        """It comes back with an empty disk; its peers notice the other uuid when they link. What
        the old one had said is gone with its connections."""
        self.crash(replica_id)
        self.frames = [f for f in self.frames if replica_id not in (f.source, f.target)]
        return self.start(replica_id, ManualWal())

    @property
    def up(self) -> list[RaftHost]:
        return [host for host in self.hosts.values() if host.is_up]

    @property
    def leaders(self) -> list[RaftHost]:
        return [host for host in self.up if host.node.is_leader]

    @property
    def leader(self) -> RaftHost:
        """The leader of the highest term."""
        return max(self.leaders, key=lambda host: host.node.term)

    # ------------------------------------------------------------------------- links

    def link(self, one: int, other: int, *, forgotten: Iterable[int] = ()) -> None:
        """A new connection; what the old one carried stays under way as late copies."""
        pair = (min(one, other), max(one, other))
        if one == other or not all(self.hosts[i].is_up for i in pair):
            return
        self._link_number += 1
        self.links[pair] = self._link_number
        gone = set(forgotten)
        for here, there in (pair, pair[::-1]):
            self.hosts[here].outbox.forget(there)
            self.hosts[here].node.link_up(there, forgotten=there in gone)

    def unlink(self, one: int, other: int) -> None:
        pair = (min(one, other), max(one, other))
        if self.links.pop(pair, None) is not None:
            for here, there in (pair, pair[::-1]):
                if self.hosts[here].is_up:
                    self.hosts[here].outbox.forget(there)
                    self.hosts[here].node.link_down(there, self.clock.now)

    def link_all(self, *, forgotten: Iterable[int] = ()) -> None:
        for one in self.ids:
            for other in self.ids:
                if one < other and (one, other) not in self.links:
                    self.link(one, other, forgotten=forgotten)

    def isolate(self, replica_id: int) -> None:
        for other in self.ids:
            self.unlink(replica_id, other)

    # ------------------------------------------------------------------------- frames

    def _leave(self, source: int, target: int, data: bytes) -> None:
        term, message = decode_message(data[LENGTH.size :])
        link = self.links.get((min(source, target), max(source, target)), 0)
        frame = Frame(source, target, link, term, message)
        self.on_frame(frame)
        if link and self.hosts[source].is_up:
            self.frames.append(frame)

    def deliver(self, frame: Frame) -> None:
        """To a target that is up, whatever has become of the connection."""
        target = self.hosts[frame.target]
        if target.is_up:
            target.node.receive(frame.source, frame.term, frame.message, self.clock.now)

    def take(
        self, kind: type[Message] | None = None, *, source: int = 0, target: int = 0
    ) -> list[Frame]:
        """Removes and returns the frames under way that fit."""
        fitting = [
            frame
            for frame in self.frames
            if (kind is None or isinstance(frame.message, kind))
            and source in (0, frame.source)
            and target in (0, frame.target)
        ]
        self.frames = [frame for frame in self.frames if frame not in fitting]
        return fitting

    # ------------------------------------------------------------------------- time

    def tick(self) -> None:
        """One turn of every replica, in order of id."""
        for host in self.up:
            host.node.tick(self.clock.now)
            host.end_turn(self.clock.now)

    def pump(self, *, sync: bool = True) -> None:
        """Delivers in order, and syncs, until nothing is under way."""
        for _ in range(PUMPS_MAX):
            progress = bool(self.frames)
            batch, self.frames = self.frames, []
            for frame in batch:
                pair = (min(frame[:2]), max(frame[:2]))
                if self.links.get(pair) == frame.link:
                    self.deliver(frame)
            for host in self.up:
                host.node.tick(self.clock.now)
                host.end_turn(self.clock.now)
                progress = (sync and host.wal.sync()) or progress
            if not progress and not self.frames:
                return
        raise AssertionError("they go on sending each other the same for ever")

    def run(self, seconds: float, step_s: float = 0.01) -> None:
        """A healthy network and healthy disks for so long."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            self.clock.now += step_s
            self.pump()

    def run_until(self, condition: Callable[[], bool], limit_s: float = 10.0) -> float:
        """Runs until it holds; returns how long that took. Fails after `limit_s`."""
        start = self.clock.now
        while not condition():
            assert self.clock.now - start < limit_s, "it did not come about"
            self.run(0.01)
        return self.clock.now - start

    def elect(self, replica_id: int | None = None) -> RaftHost:
        """A leader whose first entry is committed everywhere; a certain one on demand."""
        if replica_id is not None:
            node = self.hosts[replica_id].node
            node.transfer_in_progress = True
            node.election_deadline = self.clock.now
        self.run_until(lambda: bool(self.leaders) and replica_id in (None, self.leader.replica_id))
        self.run_until(lambda: self.settled)
        return self.leader

    @property
    def settled(self) -> bool:
        """All that are linked to the leader have committed what it has."""
        if not self.leaders:
            return False
        leader = self.leader
        followers = [self.hosts[i] for i in leader.node.linked if self.hosts[i].is_up]
        return all(
            host.node.commit_index == leader.journal.last_index for host in (leader, *followers)
        )

    def write(self, payload: bytes = b"x") -> int:
        """The leader adds an entry; its index."""
        return self.leader.node.append(PAYLOAD + payload)
