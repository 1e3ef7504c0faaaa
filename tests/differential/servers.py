"""The two that are compared: three servers each, started anew, a follower asked first."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.zookeeper_server import ZooKeeperEnsemble, prepare, version
from coordsvc.testing.cluster import LocalCluster, wait_for
from coordsvc.testing.ports import free_port
from tests.differential.world import Address

WORDS = "4lw.commands.whitelist"
READY_SECONDS = 30.0
STANDALONE_MAIN = "org.apache.zookeeper.server.ZooKeeperServerMain"
ALL_WORDS_BUT_ON = 3
"""This server's four-letter words are those allowed by default."""


@dataclass(frozen=True)
class Target:
    """`addresses`: a follower with all four-letter words, the two others, the last of which has the
    default ones; the leader once more; and one whose tree may be another, for what ZooKeeper
    survives only where it is alone."""

    name: str
    version: str
    addresses: Sequence[Address]


@contextmanager
def zookeeper(directory: Path) -> Iterator[Target]:
    """ZooKeeper with its settings as shipped, but that TTL works: it is off by default there."""
    prepare()
    with ZooKeeperEnsemble(directory, None) as ensemble:
        for server_id in ensemble.ids:
            config = directory / str(server_id) / "zoo.cfg"
            lines = [line for line in config.read_text().splitlines() if WORDS not in line]
            lines.append("extendedTypesEnabled=true")
            if server_id != ALL_WORDS_BUT_ON:
                lines.append(f"{WORDS}=*")
            config.write_text("\n".join(lines) + "\n")
        ensemble.start()
        ensemble.wait_ready()
        addresses = {each: _address(ensemble.endpoint(each)) for each in ensemble.ids}
        ordered = _follower_first(addresses, ensemble.leader(ensemble.ids))
        with _alone(directory / "alone", ensemble) as address:
            yield Target("ZooKeeper", version(), [*ordered, address])


@contextmanager
def _alone(directory: Path, ensemble: ZooKeeperEnsemble) -> Iterator[Address]:
    """A server that is no part of the ensemble."""
    directory.mkdir()
    port = free_port()
    settings = ["dataDir=data", f"clientPort={port}", "clientPortAddress=127.0.0.1"]
    more = ["tickTime=2000", "admin.enableServer=false", "extendedTypesEnabled=true"]
    (directory / "zoo.cfg").write_text("\n".join([*settings, *more]) + "\n")
    command = [*ensemble.writer_command()[:-1], STANDALONE_MAIN, "zoo.cfg"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            # The kernel ends it when this process dies.
            ["setpriv", "--pdeathsig", "KILL", *command],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: _is_serving(port), "the lone server to serve", READY_SECONDS)
        yield "127.0.0.1", port
    finally:
        process.kill()
        process.wait()


def _is_serving(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 2.0) as asked:
            asked.sendall(b"srvr")
            return b"Mode: standalone" in b"".join(iter(lambda: asked.recv(65_536), b""))
    except OSError:
        return False


@contextmanager
def coordsvc(directory: Path) -> Iterator[Target]:
    environment = {"COORDSVC_ZOOKEEPER_FOUR_LETTER_WORDS": "*"}
    environments = {each: environment for each in (1, 2, 3) if each != ALL_WORDS_BUT_ON}
    with LocalCluster(directory, zookeeper=True, environments=environments) as cluster:
        cluster.start()
        addresses = {
            each: ("127.0.0.1", cluster.replicas[each].zookeeper_port) for each in cluster.ids
        }
        ordered = _follower_first(addresses, cluster.wait_leader())
        yield Target("coordsvc", "", [*ordered, ordered[0]])


def _address(endpoint: str) -> Address:
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


def _follower_first(addresses: Mapping[int, Address], leader: int) -> list[Address]:
    with_all_words = [each for each in addresses if each != ALL_WORDS_BUT_ON]
    ids = sorted(with_all_words, key=lambda each: each == leader)
    return [addresses[each] for each in [*ids, ALL_WORDS_BUT_ON, leader]]
