"""One run: replicas in a network, clients, faults one after the other, and what must hold then."""

from __future__ import annotations

import contextlib
import heapq
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from coordsvc.testing.check_history import check
from coordsvc.testing.cluster import wait_for
from coordsvc.testing.history import Fault as FaultRecord
from coordsvc.testing.history import Record, Return, load, save
from coordsvc.testing.log_truth import LogTruth
from coordsvc.testing.namespace_cluster import NamespaceCluster
from coordsvc.testing.namespaces import Network
from tests.chaos.clients_run import ClientsRun
from tests.integration.test_leader_kill import check_digests

RATE_FLOOR = 150.0
"""Operations a second, before each fault."""

MORE_OPERATIONS = 100
"""So many answers show that the clients go on."""

READY_SECONDS = 40.0


class World:
    def __init__(self, network: Network, cluster: NamespaceCluster, clients: ClientsRun) -> None:
        self.network = network
        self.cluster = cluster
        self.clients = clients
        self.faults = 0

    # ------------------------------------------------------------------------------- questions

    def leader(self) -> int:
        """Who leads; asked until somebody does."""
        return self.cluster.wait_leader()

    def follower(self) -> int:
        """One that does not lead; another one each time."""
        followers = self.others(self.leader())
        return followers[self.faults % len(followers)]

    def others(self, *replica_ids: int) -> list[int]:
        return [i for i in self.cluster.ids if i not in replica_ids]

    def term(self, replica_id: int) -> int:
        return int(self.cluster.metric(replica_id, "coordsvc_term"))

    def has_quorum(self, replica_id: int) -> bool:
        return self.cluster.metric(replica_id, "coordsvc_has_quorum") == 1.0

    # ------------------------------------------------------------------------------------ waits

    def wait_new_leader(self, among: Iterable[int], after_term: int) -> int:
        """Until one of them leads in a higher term; its id."""
        found: list[int] = []

        def is_led() -> bool:
            found[:] = [i for i in among if self.cluster.is_leader(i) and self.term(i) > after_term]
            return bool(found)

        wait_for(is_led, f"one of {among} to lead")
        return found[0]

    def wait_no_quorum(self, replica_id: int) -> None:
        wait_for(
            lambda: not self.has_quorum(replica_id), f"replica {replica_id} to lose its quorum"
        )

    def wait_dropped(self, *lines: tuple[int, int]) -> None:
        """Until packets were dropped on each of them: the cut is real."""
        for line in lines:
            wait_for(lambda at=line: self.network.dropped(*at) > 0, f"drops on {line}")  # type: ignore[misc]

    def wait_served(self) -> None:
        """Until the clients have been answered often enough to say that they are served."""
        self.clients.wait_more(MORE_OPERATIONS)

    # ----------------------------------------------------------------------------------- faults

    def strike(self, fault: Fault, hold_seconds: float = 0.0) -> None:
        """The fault, at the floor's rate or above, for some time, and its end: all is well."""
        rate = self.clients.wait_rate(RATE_FLOOR)
        with fault(self) as what:
            print(f"{what} at {rate:.0f} operations/s, for {hold_seconds:.1f} s", flush=True)
            until = time.monotonic() + hold_seconds
            wait_for(lambda: time.monotonic() >= until, "time to pass", 2 * hold_seconds + 1)
        self.cluster.wait_ready(READY_SECONDS)
        self.wait_served()
        self.faults += 1

    @contextlib.contextmanager
    def told(self, fault: str, *replica_ids: int, **details: object) -> Iterator[str]:
        """Has the history say when it began and ended."""
        self.clients.tell(fault, list(replica_ids), **details)
        yield f"{fault} {', '.join(map(str, replica_ids))}"
        self.clients.tell("healed", list(replica_ids), of=fault)


Fault: TypeAlias = Callable[[World], contextlib.AbstractContextManager[str]]
"""Does something to the world, and proves that it is done; undone when its block is left."""


@contextlib.contextmanager
def make_world(
    directory: Path,
    size: int = 3,
    *,
    seed: int | None = None,
    has_truth: bool = True,
    **options: Any,
) -> Iterator[World]:
    """A world at work; when its block ends well, everything is checked. `has_truth`: the logs are
    whole at the end, and say at which time what was applied."""
    seed = int.from_bytes(os.urandom(4)) if seed is None else seed
    with Network(size) as network, NamespaceCluster(network, directory, **options) as cluster:
        try:
            cluster.start()
            with ClientsRun(network, directory, cluster.endpoints, seed) as clients:
                world = World(network, cluster, clients)
                yield world
                clients.stop()
            cluster.wait_ready(READY_SECONDS)
            check_digests(cluster)
            if has_truth:
                _add_truth(cluster, clients)
        except BaseException:
            print(cluster.log_tails())
            raise
    check_history(clients.history_path, world.faults)


def _add_truth(cluster: NamespaceCluster, clients: ClientsRun) -> None:
    """Have the history say what was applied, as a replica's log has it; held against what that
    replica says of its state."""
    replica_id = cluster.ids[0]
    wall_offset = time.time() - time.monotonic()

    def to_time(time_ms: int) -> float:
        return max(0.0, round(time_ms / 1000 - wall_offset - clients.began, 7))

    told = cluster.digest(replica_id)
    cluster.kill_all()
    truth = LogTruth(cluster.replicas[replica_id].data_dir, to_time, told.zxid)
    assert told.digest in truth.digests, f"the log of replica {replica_id} is not what it applied"
    records = heapq.merge(load(clients.history_path), truth.applied, key=_time_of)
    save(clients.history_path, records)


def _time_of(record: Record) -> float:
    return record.time


def check_history(history_path: Path, faults: int) -> None:
    """Every promise, held against what the clients saw."""
    records = load(history_path)
    outcomes = Counter(record.outcome for record in records if isinstance(record, Return))
    print(f"{outcomes.total()} operations {dict(outcomes)}, {faults} faults: {history_path}")
    told = sum(isinstance(record, FaultRecord) for record in records)
    assert told >= 2 * faults > 0, "the history does not tell of the faults"
    began = time.monotonic()
    violations = check(records)
    print(f"checked in {time.monotonic() - began:.1f} s: {len(violations)} violations")
    shown = "\n".join(str(violation) for violation in violations[:20])
    assert not violations, (
        f"{len(violations)} violations, see"
        f" `python -m coordsvc.testing.check_history {history_path}`:\n{shown}"
    )
