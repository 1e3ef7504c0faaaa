"""Where the replicas of a cluster on one machine listen and keep their data.

Pure: it opens nothing. `coordsvc dev` and the test cluster build their replicas' command lines
from it. 127.0.0.1 and never "localhost", which may mean ::1 to one side and not to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
PEER_OFFSET = 100
ZOOKEEPER_OFFSET = 200
ADMIN_OFFSET = 300

REPLICAS_MAX = 9
PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class LocalReplica:
    """One replica of a local cluster. `host` is the address its ports are on; a `zookeeper_port` of
    0: it serves no ZooKeeper clients."""

    replica_id: int
    data_dir: Path
    client_port: int
    peer_port: int
    admin_port: int
    zookeeper_port: int = 0
    host: str = HOST

    def ports(self) -> dict[str, int]:
        """All its ports, by the option of `serve` they are given to."""
        ports = {
            "--listen": self.client_port,
            "--peer-listen": self.peer_port,
            "--admin-listen": self.admin_port,
        }
        return ports | ({"--zookeeper-listen": self.zookeeper_port} if self.zookeeper_port else {})

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.client_port}"

    @property
    def peer_endpoint(self) -> str:
        return f"{self.host}:{self.peer_port}"

    @property
    def admin_endpoint(self) -> str:
        return f"{self.host}:{self.admin_port}"

    @property
    def zookeeper_endpoint(self) -> str:
        assert self.zookeeper_port, "it serves no ZooKeeper clients"
        return f"{self.host}:{self.zookeeper_port}"


def dev_replicas(count: int, data_dir: Path, base_port: int) -> tuple[LocalReplica, ...]:
    """Replica n: gRPC on base+n, peers on base+100+n, ZooKeeper's protocol on base+200+n, admin on
    base+300+n, data in DIR/n."""
    assert 1 <= count <= REPLICAS_MAX, count
    return tuple(
        LocalReplica(
            replica_id=replica_id,
            data_dir=data_dir / str(replica_id),
            client_port=base_port + replica_id,
            peer_port=base_port + PEER_OFFSET + replica_id,
            admin_port=base_port + ADMIN_OFFSET + replica_id,
            zookeeper_port=base_port + ZOOKEEPER_OFFSET + replica_id,
        )
        for replica_id in range(1, count + 1)
    )


def serve_arguments(replica: LocalReplica, replicas: Sequence[LocalReplica]) -> list[str]:
    """The command line, after `coordsvc`, that serves `replica` as one of `replicas`."""
    arguments = [
        "serve",
        *("--replica-id", str(replica.replica_id)),
        *("--data-dir", str(replica.data_dir)),
        *("--listen", replica.endpoint),
        *("--admin-listen", replica.admin_endpoint),
    ]
    if len(replicas) > 1:
        peers = ",".join(f"{peer.replica_id}={peer.peer_endpoint}" for peer in replicas)
        arguments += ["--peer-listen", replica.peer_endpoint, "--peers", peers]
    if replica.zookeeper_port:
        arguments += ["--zookeeper-listen", replica.zookeeper_endpoint]
    return arguments


def endpoints_text(replicas: Sequence[LocalReplica]) -> str:
    """What `--endpoints` takes."""
    return ",".join(replica.endpoint for replica in replicas)


def zookeeper_hosts(replicas: Sequence[LocalReplica]) -> str:
    """What ZooKeeper's clients take."""
    return ",".join(replica.zookeeper_endpoint for replica in replicas)
