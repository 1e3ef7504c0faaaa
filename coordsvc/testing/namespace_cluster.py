"""A cluster of real replicas, each in a network namespace of its own.

    with Network(3) as network, NamespaceCluster(network, tmp_path) as cluster:
        cluster.start()
        network.cut_groups([1], [2, 3, HUB])

Replica n is at node n. Clients belong to the hub (`network.command(HUB)`); what this class itself
asks the replicas comes from the caller's namespace, and is never cut off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from coordsvc.cli.local_layout import dev_replicas
from coordsvc.testing.cluster import LocalCluster
from coordsvc.testing.namespaces import Network

BASE_PORT = 7400


class NamespaceCluster(LocalCluster):
    """As many replicas as the network has nodes. The options are LocalCluster's."""

    def __init__(
        self,
        network: Network,
        directory: Path,
        *,
        environments: Mapping[int, Mapping[str, str]] | None = None,
        extra_arguments: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        zookeeper: bool = False,
    ) -> None:
        self.network = network
        super().__init__(
            directory,
            len(network.nodes),
            environments=environments,
            # Nobody but this machine is in that network.
            extra_arguments=("--insecure", *extra_arguments),
            settings=settings,
            zookeeper=zookeeper,
        )

    def move_ports(self) -> None:
        """They need not be free anywhere else, so they are always the same."""
        self.replicas = {
            replica.replica_id: replace(
                replica,
                host=self.network.address(replica.replica_id),
                zookeeper_port=replica.zookeeper_port if self.has_zookeeper else 0,
            )
            for replica in dev_replicas(len(self.ids), self._directory, BASE_PORT)
        }

    def launcher(self, replica_id: int) -> list[str]:
        return self.network.command(replica_id)
