"""What the clients connect to: three coordsvc replicas, or something to compare them with.

`INTEROP_HOSTS` in the environment says so: `zookeeper` starts a ZooKeeper ensemble (as the benches
do, with Java), and `HOST:PORT,HOST:PORT,HOST:PORT` is one that runs already, whose servers nobody
kills. Every test here holds against ZooKeeper 3.9 too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import bench.zookeeper_server
from bench.zookeeper_server import ZooKeeperEnsemble, ZooKeeperSettings
from coordsvc.testing.cluster import LocalCluster

IDS = (1, 2, 3)


class Ensemble(Protocol):
    hosts: Sequence[str]
    """HOST:PORT of each server."""

    def start(self, server_id: int) -> None:
        """Start a server that was killed, without waiting for it."""

    def kill(self, server_id: int) -> None:
        """kill -9, and wait until the process is gone."""

    def wait_ready(self) -> None:
        """Until all serve."""

    def log_tails(self) -> str: ...


class Coordsvc:
    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self.hosts = [replica.zookeeper_endpoint for replica in cluster.replicas.values()]

    def start(self, server_id: int) -> None:
        self._cluster.start_replica(server_id)

    def kill(self, server_id: int) -> None:
        self._cluster.kill(server_id)

    def wait_ready(self) -> None:
        self._cluster.wait_ready()

    def log_tails(self) -> str:
        return self._cluster.log_tails()


class ZooKeeper:
    def __init__(self, servers: ZooKeeperEnsemble) -> None:
        self._servers = servers
        self.hosts = [servers.endpoint(server_id) for server_id in IDS]

    def start(self, server_id: int) -> None:
        self._servers.start()  # Those that do not run: this one.

    def kill(self, server_id: int) -> None:
        self._servers.kill(server_id)

    def wait_ready(self) -> None:
        self._servers.wait_ready()

    def log_tails(self) -> str:
        return self._servers.log_tails()


class Given:
    """Servers that somebody else started."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.hosts = hosts

    def start(self, server_id: int) -> None:
        raise NotImplementedError("these servers belong to somebody else")

    def kill(self, server_id: int) -> None:
        raise NotImplementedError("these servers belong to somebody else")

    def wait_ready(self) -> None:
        """They run, or the tests say that they do not."""

    def log_tails(self) -> str:
        return ""


@contextmanager
def serving(directory: Path, wanted: str) -> Iterator[Ensemble]:
    """What `wanted`, the value of INTEROP_HOSTS, asks for."""
    if not wanted:
        with LocalCluster(
            directory, zookeeper=True, settings={"zookeeper_four_letter_words": "*"}
        ) as cluster:
            cluster.start()
            cluster.wait_leader()
            yield Coordsvc(cluster)
    elif wanted == "zookeeper":
        bench.zookeeper_server.prepare()
        with ZooKeeperEnsemble(directory, None, ZOOKEEPER_SETTINGS) as servers:
            for server_id in IDS:
                with (directory / str(server_id) / "zoo.cfg").open("a") as config:
                    config.write(ZOOKEEPER_CONFIG)
            servers.start()
            servers.wait_ready()
            yield ZooKeeper(servers)
    else:
        yield Given(wanted.split(","))


ZOOKEEPER_SETTINGS = ZooKeeperSettings(tick_ms=500, init_limit=40, sync_limit=20)
"""Session timeouts from 1 s on, as ours; ZooKeeper's are from two to twenty ticks."""

ZOOKEEPER_CONFIG = """4lw.commands.whitelist=*
extendedTypesEnabled=true
maxSessionTimeout=120000
"""
"""What we always allow, or are told to; extended types are TTL znodes."""
