"""What is measured: three servers, and how they are killed, paused and cut off from each other."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import grpc

from coordsvc.testing.cluster import LocalCluster, wait_for
from coordsvc.testing.namespace_cluster import NamespaceCluster
from coordsvc.testing.namespaces import Network

READY_SECONDS = 60.0


class Ensemble(Protocol):
    """Servers 1 to 3, with their data below a directory; in the namespaces of `network`, whose node
    n is server n's, or all on loopback. Leaving the block ends them."""

    @property
    def name(self) -> str: ...

    @property
    def ids(self) -> Sequence[int]: ...

    @property
    def network(self) -> Network | None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def start(self) -> None:
        """Start those that do not run. `wait_ready` waits for them."""

    def wait_ready(self) -> None:
        """Until all serve, and one of them leads."""

    def leader(self, among: Collection[int]) -> int:
        """The one of `among` that says it leads; waits for it."""

    def endpoint(self, server_id: int) -> str: ...

    def kill(self, server_id: int) -> None:
        """kill -9."""

    def pause(self, server_id: int) -> None: ...

    def resume(self, server_id: int) -> None: ...

    def writer_command(self) -> list[str]:
        """The program that writes; its arguments are told in `failover_writer`."""

    def log_tails(self) -> str:
        """The end of the servers' logs, for the message of a failure."""


def wait_for_leader(ensemble: Ensemble) -> int:
    return ensemble.leader(ensemble.ids)


class CoordsvcEnsemble:
    name = "coordsvc"

    def __init__(self, directory: Path, network: Network | None) -> None:
        self.network = network
        self._cluster = (
            LocalCluster(directory) if network is None else NamespaceCluster(network, directory)
        )
        self.ids: Sequence[int] = self._cluster.ids
        self.kill = self._cluster.kill
        self.pause = self._cluster.pause
        self.resume = self._cluster.resume
        self.log_tails = self._cluster.log_tails

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._cluster.kill_all()

    def start(self) -> None:
        self._cluster.start(wait=False)

    def wait_ready(self) -> None:
        self._cluster.wait_ready(READY_SECONDS)

    def leader(self, among: Collection[int]) -> int:
        found: list[int] = []

        def is_found() -> bool:
            found.extend(each for each in among if self._leads(each))
            return bool(found)

        wait_for(is_found, "a leader", READY_SECONDS)
        return found[0]

    def _leads(self, server_id: int) -> bool:
        try:
            return self._cluster.is_leader(server_id)
        except grpc.RpcError:
            return False

    def endpoint(self, server_id: int) -> str:
        return self._cluster.replicas[server_id].endpoint

    def writer_command(self) -> list[str]:
        return [sys.executable, "-m", "bench.failover_writer"]
