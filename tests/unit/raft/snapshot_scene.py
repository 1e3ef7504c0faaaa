"""Simulated replicas whose logs are compacted, and ways to slow a snapshot down and look at it."""

from __future__ import annotations

from typing import Any

from coordsvc.core.commands import NO_CALLER, CreateOp, Write
from coordsvc.raft.messages import Message, SnapshotAck, SnapshotChunk, SnapshotOffer
from coordsvc.raft.replica import Replica
from coordsvc.testing.raft_simulation import Simulation
from tests.unit.raft.replica_scene import ready

SMALL: dict[str, Any] = {
    "log_keep_bytes": 0,
    "snapshot_chunk_bytes": 1024,
    "snapshot_window_bytes": 4096,
}
SLOW: dict[str, Any] = SMALL | {"snapshot_bytes_per_s": 16 * 1024}
"""A second and more for what `filled` writes."""
SNAPSHOT = (SnapshotOffer, SnapshotChunk, SnapshotAck)


def fill(simulation: Simulation, nodes: int = 60, size: int = 400, prefix: str = "n") -> None:
    """About 30 KiB of state."""
    leader = simulation.leader_id
    futures = [
        simulation.submit(leader, Write(NO_CALLER, CreateOp(f"/{prefix}{number}", b"x" * size)))
        for number in range(nodes)
    ]
    for future in futures:
        simulation.done(future)


def compact(simulation: Simulation) -> None:
    """Every replica that runs makes a checkpoint of all it has, and drops the log before it."""
    simulation.run_until_equal()
    for process in simulation.up:
        simulation.checkpoint(process.replica.replica_id)
    simulation.run_for(0.1)


def filled(size: int = 3, settings: dict[str, Any] | None = None, **changes: Any) -> Simulation:
    simulation = ready(size, settings=SMALL if settings is None else settings, **changes)
    fill(simulation)
    compact(simulation)
    assert all(p.replica.journal.base_index > 5 for p in simulation.up)
    return simulation


def receiving(simulation: Simulation, replica_id: int) -> int:
    """Bytes it has received of the snapshot it is being sent; 0 when it is sent none."""
    statistics = simulation.replica(replica_id).statistics()
    return statistics.snapshot_receiving[0] if statistics.snapshot_receiving else 0


def until_halfway(simulation: Simulation, replica_id: int) -> None:
    def is_halfway() -> bool:
        statistics = simulation.replica(replica_id).statistics()
        received, size = statistics.snapshot_receiving or (0, 1)
        return received * 2 >= size

    simulation.run_until(is_halfway)


def until_installed(simulation: Simulation, count: int = 1, limit_s: float = 20.0) -> None:
    simulation.run_until(lambda: simulation.installs >= count, limit_s)


class Traffic:
    """Snapshot messages under way, as the fabric carries them."""

    def __init__(self, simulation: Simulation) -> None:
        self.said: list[tuple[int, int, Message]] = []
        fate = simulation.fabric.fate

        def note(source: int, target: int, message: Message) -> list[float]:
            if isinstance(message, SNAPSHOT):
                self.said.append((source, target, message))
            return fate(source, target, message)

        simulation.fabric.fate = note

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for _, _, message in self.said if isinstance(message, kind)]

    def chunk_bytes(self, target: int) -> int:
        return sum(
            len(message.data)
            for _, to, message in self.said
            if to == target and isinstance(message, SnapshotChunk)
        )


def leader(simulation: Simulation) -> Replica:
    assert simulation.leader is not None
    return simulation.leader
