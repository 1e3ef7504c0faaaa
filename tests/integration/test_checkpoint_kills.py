"""Replicas killed at any moment while checkpoints are made and logs compacted under load.

Method: one, two or all replicas are killed with SIGKILL, chosen by chance from a fixed seed, and
started again, round after round, with a checkpoint every 50 entries and hardly any log kept, so
that who was away comes back by a snapshot as often as by the log. No round counts in which less
than a floor of writes was acknowledged. At the end everything acknowledged is held against the
tree, the replicas' digests against each other, and repeated numbers against their first answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from coordsvc.testing.cluster import LocalCluster, wait_for
from tests.integration.load_run import LoadRun
from tests.integration.test_leader_kill import check_everything

MakeCluster = Callable[..., LocalCluster]

TINY = {"checkpoint_entries": 50, "checkpoint_interval_s": 1, "log_keep_bytes": 4096}
ACKED_MIN = 200
"""Between two kills; several checkpoints' worth."""
READY_SECONDS = 40.0


def victims(cluster: LocalCluster, chance: random.Random) -> list[int]:
    kind = chance.choice(["one", "one", "leader", "two", "all"])
    if kind == "leader":
        return [cluster.wait_leader()]
    return chance.sample(cluster.ids, {"one": 1, "two": 2, "all": 3}[kind])


def kill_and_start(cluster: LocalCluster, replica_ids: list[int]) -> None:
    if len(replica_ids) == len(cluster.ids):
        cluster.kill_all()
    else:
        for replica_id in replica_ids:
            cluster.kill(replica_id)
    for replica_id in replica_ids:
        cluster.start_replica(replica_id)


def check_nothing_failed(cluster: LocalCluster) -> None:
    for replica_id in cluster.ids:
        for event in ("process.failed", "process.refused", "snapshot.rejected"):
            assert not cluster.events(replica_id, event), cluster.events(replica_id, event)


def run(make_cluster: MakeCluster, directory: Path, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    cluster = make_cluster(3, settings=TINY)
    cluster.start()
    with LoadRun(directory, cluster.endpoints) as load:
        load.wait_rate(100.0)
        for _ in range(rounds):
            acked = load.acked
            wait_for(lambda acked=acked: load.acked >= acked + ACKED_MIN, "the load", 30)  # type: ignore[misc]
            killed = victims(cluster, chance)
            kill_and_start(cluster, killed)
            if chance.random() < 0.3:  # Once more, on its way back.
                kill_and_start(cluster, killed[:1])
            cluster.wait_ready(READY_SECONDS)
        check_everything(cluster, load)
    check_nothing_failed(cluster)
    written = [len(cluster.events(i, "checkpoint.written")) for i in cluster.ids]
    assert min(written) >= rounds, written
    print(f"checkpoints {written}")


@pytest.mark.timeout(120)
def test_nothing_is_lost(make_cluster: MakeCluster, tmp_path: Path) -> None:
    run(make_cluster, tmp_path, 4, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_in_forty_rounds(make_cluster: MakeCluster, tmp_path: Path) -> None:
    run(make_cluster, tmp_path, 40, seed=2)
