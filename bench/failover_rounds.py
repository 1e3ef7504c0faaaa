"""One round: a leader, clients that write, a fault, its end, and what the clients saw."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bench.failover_clients import Writers
from bench.failover_ensembles import Ensemble, wait_for_leader
from bench.failover_gaps import gap_end, longest_silence_s
from coordsvc.testing.cluster import ClusterError
from coordsvc.testing.namespaces import HUB

FAULTS = {
    "kill": "killed (`kill -9`), started again afterwards",
    "pause": "paused (SIGSTOP), resumed afterwards",
    "isolate": "cut off from the other replicas; clients still reach it",
    "cut": "cut off from the other replicas and from all clients",
}
"""What happens to the leader."""

NETWORK_FAULTS = ("isolate", "cut")
"""These need namespaces."""

ACKS_BEFORE = 200
"""Of each client, before the fault."""

ACKS_AFTER = 100
"""So many show that a client goes on."""


@dataclass(frozen=True, slots=True)
class ClientGap:
    """What one client saw. Times in seconds. `later_silence_s` is the longest silence after the
    gap; `return_silence_s` the longest while the server that had been away came back."""

    is_at_leader: bool
    gap_s: float
    later_silence_s: float
    return_silence_s: float
    has_moved: bool
    """At the end it was attached to another server than at the beginning."""

    acked: int
    errors: dict[str, int]
    sessions_lost: int


@dataclass(frozen=True, slots=True)
class Round:
    """`injection_s` is how long it took to bring the fault about, which is part of the gap."""

    system: str
    fault: str
    leader: int
    successor: int
    injection_s: float
    clients: list[ClientGap]


class NotPlacedError(ClusterError):
    """Before anything was measured."""


def run_round(ensemble: Ensemble, fault: str, name: str, log: Path) -> Round:
    """With a client at the leader and one at a follower. All servers serve before and after it."""
    ensemble.wait_ready()
    leader = wait_for_leader(ensemble)
    others = [each for each in ensemble.ids if each != leader]
    with Writers(ensemble, (leader, others[0]), name, log) as writers:
        writers.wait_acked(ACKS_BEFORE)
        for writer in writers.by_first.values():
            if writer.endpoint != writer.first_endpoint:
                raise NotPlacedError(f"a client is at {writer.endpoint}, not where it began")
        fault_at = time.monotonic()
        _inject(ensemble, fault, leader)
        injected_at = time.monotonic()
        writers.wait_acked(ACKS_AFTER, injected_at)
        # Not before, so that to ask does not delay what is measured.
        successor = ensemble.leader(others)
        back_at = time.monotonic()
        _undo(ensemble, fault, leader)
        ensemble.wait_ready()
        ready_at = time.monotonic()
        writers.wait_acked(ACKS_AFTER, ready_at)
        writers.stop()
        clients = []
        for first, writer in writers.by_first.items():
            end = gap_end(writer.acked, fault_at, back_at)
            clients.append(
                ClientGap(
                    is_at_leader=first == leader,
                    gap_s=end - fault_at,
                    later_silence_s=longest_silence_s(writer.acked, end, back_at),
                    return_silence_s=longest_silence_s(writer.acked, back_at, ready_at),
                    has_moved=writer.endpoint != writer.first_endpoint,
                    acked=len(writer.acked),
                    errors=dict(writer.errors),
                    sessions_lost=writer.sessions_lost,
                )
            )
    return Round(ensemble.name, fault, leader, successor, injected_at - fault_at, clients)


def _inject(ensemble: Ensemble, fault: str, leader: int) -> None:
    others = [each for each in ensemble.ids if each != leader]
    if fault == "kill":
        ensemble.kill(leader)
    elif fault == "pause":
        ensemble.pause(leader)
    else:
        assert ensemble.network is not None, f"{fault} needs a network"
        clients = [HUB] if fault == "cut" else []
        ensemble.network.cut_groups([leader], [*others, *clients])


def _undo(ensemble: Ensemble, fault: str, leader: int) -> None:
    if fault == "kill":
        ensemble.start()
    elif fault == "pause":
        ensemble.resume(leader)
    else:
        assert ensemble.network is not None, f"{fault} needs a network"
        ensemble.network.heal()
