"""What /zookeeper/config holds: the members, as ZooKeeper writes its ensemble.

Membership is fixed when a cluster is made, so the version never changes. Clients that follow it
(Curator's EnsembleTracker) dial what stands behind the semicolon: all members' addresses are told,
or none, because a client that knew of some would forget the others.
Ref: ZooKeeper QuorumMaj.toString, ZooKeeper Programmer's Guide, "Dynamic Reconfiguration".
"""

from __future__ import annotations

from typing import Protocol


class KnownMembers(Protocol):
    @property
    def ids(self) -> tuple[int, ...]: ...
    def peer_address(self, replica_id: int) -> str:
        """Empty in a cluster of one."""
        ...

    def zookeeper_addresses(self) -> dict[int, str]:
        """Of those that are known."""
        ...


def config_data(members: KnownMembers) -> bytes:
    addresses = members.zookeeper_addresses()
    is_complete = all(addresses.get(replica_id) for replica_id in members.ids)
    lines = []
    for replica_id in members.ids:
        host, _, port = members.peer_address(replica_id).rpartition(":")
        if not host:
            continue
        line = f"server.{replica_id}={host}:{port}:{port}:participant"
        lines.append(f"{line};{addresses[replica_id]}" if is_complete else line)
    return "\n".join([*lines, "version=0"]).encode()
