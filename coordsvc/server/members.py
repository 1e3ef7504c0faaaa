"""What the replicas tell each other about themselves, for Cluster.Status: once a tick, to all.

It may be a tick old, or missing, so no promise rests on it. What follows from it: a word in the log
when another replica has other settings, and that writes are refused everywhere when too many
replicas are low on disk space.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from coordsvc.raft.messages import ReplicaInfo
from coordsvc.server.addresses import Address
from coordsvc.server.replica_port import ReplicaPort
from coordsvc.v1 import cluster_pb2

logger = logging.getLogger(__name__)


def role_of(replica: ReplicaPort) -> cluster_pb2.ReplicaRole.ValueType:
    """A replica's part as it sees it itself."""
    if replica.is_leader:
        return cluster_pb2.REPLICA_ROLE_LEADER
    if replica.leader_id is None:
        return cluster_pb2.REPLICA_ROLE_CANDIDATE
    if not replica.is_ready:
        return cluster_pb2.REPLICA_ROLE_JOINING
    return cluster_pb2.REPLICA_ROLE_FOLLOWER


class Members:
    """`own_info()` is this replica's; `reachable_s` how long one is taken for reachable after its
    last word."""

    def __init__(
        self,
        replica: ReplicaPort,
        peers: Mapping[int, Address],
        own_info: Callable[[], ReplicaInfo],
        *,
        tick_s: float,
        reachable_s: float,
    ) -> None:
        self._replica = replica
        self._peers = peers
        self._own_info = own_info
        self._tick_s = tick_s
        self._reachable_s = reachable_s
        self._heard: dict[int, tuple[float, ReplicaInfo]] = {}
        self._tell_at = 0.0
        self._settings_told: dict[int, str] = {}
        """Of peers whose settings differ: those that were put into the log."""
        self._is_space_low = False
        replica.set_handler(ReplicaInfo, self._on_info)

    def turn(self, now: float) -> None:
        if now < self._tell_at:
            return
        self._tell_at = now + self._tick_s
        others = [peer for peer in self._peers if peer != self._replica.replica_id]
        if others:
            info = self._own_info()
            for peer in others:
                self._replica.send_peer(peer, info)
            self._judge_space(info, now)

    def _on_info(self, peer: int, info: ReplicaInfo) -> None:
        # By the connection it came on: what a message says of its sender's id proves nothing.
        self._heard[peer] = (self._replica.clock.monotonic(), info)
        self._compare_settings(peer, info.cluster_config)

    def _compare_settings(self, peer: int, theirs: str) -> None:
        """Limits change by restarting one replica after the other, so a difference is no fault; but
        one that stays was not meant. Told once for each value."""
        own = self._own_info().cluster_config
        if not theirs or theirs == own:
            self._settings_told.pop(peer, None)
        elif self._settings_told.get(peer) != theirs:
            self._settings_told[peer] = theirs
            logger.warning(
                "peer.config_differs",
                extra={"peer": peer, "cluster_config": own, "peer_cluster_config": theirs},
            )

    # -------------------------------------------------------------------------------------- space

    @property
    def is_space_low(self) -> bool:
        """So many replicas are low on disk space that those with room are no majority."""
        return self._is_space_low

    def _judge_space(self, own: ReplicaInfo, now: float) -> None:
        """A replica that says nothing is not counted: it may have room."""
        low = int(own.is_space_low)
        for peer, (heard_at, info) in self._heard.items():
            is_recent = now - heard_at <= self._reachable_s
            low += peer != own.replica_id and is_recent and info.is_space_low
        members = len(self.ids)
        self._is_space_low = members - low < members // 2 + 1

    def client_address(self, replica_id: int) -> str:
        """Empty when not known."""
        if replica_id == self._replica.replica_id:
            return self._own_info().client_address
        heard = self._heard.get(replica_id)
        return heard[1].client_address if heard is not None else ""

    def zookeeper_addresses(self) -> dict[int, str]:
        """Where ZooKeeper's clients reach the members, by id; of those that are known to have such
        an address. One that has fallen silent keeps its own."""
        told = {i: heard[1].zookeeper_address for i, heard in self._heard.items()}
        told[self._replica.replica_id] = self._own_info().zookeeper_address
        return {i: told[i] for i in self.ids if told.get(i)}

    def peer_address(self, replica_id: int) -> str:
        address = self._peers.get(replica_id)
        return str(address) if address is not None else ""

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(sorted({self._replica.replica_id, *self._peers}))

    def replicas(self) -> list[cluster_pb2.Replica]:
        """All members, sorted by id."""
        now = self._replica.clock.monotonic()
        known = dict(self._heard)
        known[self._replica.replica_id] = (now, self._own_info())
        furthest = max(info.applied_zxid for _, info in known.values())
        return [self._message(i, known.get(i), now, furthest) for i in self.ids]

    def _message(
        self,
        replica_id: int,
        heard: tuple[float, ReplicaInfo] | None,
        now: float,
        furthest: int,
    ) -> cluster_pb2.Replica:
        message = cluster_pb2.Replica(id=replica_id, peer_address=self.peer_address(replica_id))
        if heard is None:
            return message
        heard_at, info = heard
        message.reachable = now - heard_at <= self._reachable_s
        if message.reachable and info.role in cluster_pb2.ReplicaRole.values():
            message.role = cluster_pb2.ReplicaRole.ValueType(info.role)
        message.client_address = info.client_address
        message.term = info.term
        message.applied_zxid = info.applied_zxid
        message.lag = max(0, furthest - info.applied_zxid)
        message.sessions = info.sessions
        message.version = info.version
        return message
