"""The leader is killed under load: nothing acknowledged is missing, doubled or out of order.

Method: sessions create numbered znodes as fast as they are answered, and repeat under the same
number what was not. Whoever says that it leads is killed with SIGKILL while at least the floor of
writes a second is acknowledged, and started again, so often. At the end the tree is held against
the acknowledgements; then all are killed, and the last numbers are sent once more.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from coordsvc.exit_status import ExitStatus
from coordsvc.testing.cluster import LocalCluster, wait_for
from tests.integration.load_run import LoadRun

RATE_FLOOR = 500.0
GAP_SECONDS_MAX = 1.0
BEFORE_SECONDS = 0.5
AFTER_SECONDS = 1.5
STOP_SECONDS_MAX = 5.0

MakeCluster = Callable[..., LocalCluster]

ENVIRONMENTS = {
    1: {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati", "LC_ALL": "C"},
    2: {"PYTHONHASHSEED": "2", "TZ": "America/St_Johns", "LC_ALL": "C.UTF-8"},
    3: {"PYTHONHASHSEED": "3", "TZ": "Asia/Kathmandu", "PYTHONUTF8": "1"},
}
LIMITS = {
    1: {resource.RLIMIT_NOFILE: 1024},
    2: {resource.RLIMIT_NOFILE: 4096, resource.RLIMIT_STACK: 4 * 1024 * 1024},
}


def kill_leader(cluster: LocalCluster, load: LoadRun) -> tuple[int, float]:
    """Kill whoever leads, proven at once before, under the floor's load; its id, and when."""
    load.wait_rate(RATE_FLOOR)
    leader = cluster.wait_leader()
    pid = cluster.pid(leader)
    assert cluster.is_leader(leader), f"replica {leader} does not lead"
    cluster.kill(leader)
    assert not Path(f"/proc/{pid}").exists()
    return leader, time.monotonic()


def wait_acked_after(load: LoadRun, acked: int, seconds: float) -> None:
    """Until the load has gone on for so long after `acked` writes."""
    wait_for(lambda: load.acked > acked, "the load to go on")
    going_on_since = time.monotonic()
    wait_for(lambda: time.monotonic() - going_on_since > seconds, "time to pass")


def check_digests(cluster: LocalCluster) -> None:
    """Taken at one zxid, the digests of all replicas are the same."""

    def answers() -> list[tuple[int, int]]:
        zxid = max(cluster.digest(replica_id).zxid for replica_id in cluster.ids)
        digests = [cluster.digest(replica_id, zxid) for replica_id in cluster.ids]
        return [(digest.zxid, digest.digest) for digest in digests]

    taken: list[tuple[int, int]] = []

    def is_at_one_zxid() -> bool:
        taken[:] = answers()
        return len({zxid for zxid, _ in taken}) == 1

    wait_for(is_at_one_zxid, "digests at one zxid")
    assert len({digest for _, digest in taken}) == 1, taken


def check_everything(cluster: LocalCluster, load: LoadRun) -> None:
    load.stop()
    acked = asyncio.run(load.check_tree(cluster.endpoints))
    check_digests(cluster)
    cluster.kill_all()
    cluster.start()
    repeated = asyncio.run(load.check_retries(cluster.endpoints))
    assert asyncio.run(load.check_tree(cluster.endpoints)) == acked
    check_digests(cluster)
    print(
        f"{acked} acknowledged, all found; {load.retries} repeated under load, "
        f"{repeated} afterwards"
    )
    assert load.retries > 0, "nobody noticed that a replica was killed"
    assert repeated > 100


def run_three(make_cluster: MakeCluster, directory: Path, kills: int) -> None:
    cluster = make_cluster(3, environments=ENVIRONMENTS, limits=LIMITS)
    cluster.start()
    killed: list[tuple[int, float, float]] = []
    with LoadRun(directory, cluster.endpoints) as load:
        for _ in range(kills):
            rate = load.rate()
            leader, moment = kill_leader(cluster, load)
            killed.append((leader, moment, max(rate, load.rate())))
            wait_acked_after(load, load.acked, AFTER_SECONDS)
            cluster.start_replica(leader)
            cluster.wait_ready()
        check_everything(cluster, load)
        gaps = [
            load.longest_gap_seconds(when - BEFORE_SECONDS, when + AFTER_SECONDS)
            for _, when, _ in killed
        ]
    for (leader, _, rate), gap in zip(killed, gaps, strict=True):
        print(f"killed leader {leader} at {rate:.0f} writes/s: longest gap {gap:.3f} s")
    assert max(gaps) < GAP_SECONDS_MAX, gaps


def run_one(make_cluster: MakeCluster, directory: Path, kills: int) -> None:
    cluster = make_cluster(1, environments=ENVIRONMENTS)
    cluster.start()
    with LoadRun(directory, cluster.endpoints) as load:
        for _ in range(kills):
            kill_leader(cluster, load)
            acked = load.acked
            cluster.start()
            wait_acked_after(load, acked, AFTER_SECONDS)
        check_everything(cluster, load)


@pytest.mark.timeout(90)
def test_three_replicas(make_cluster: MakeCluster, tmp_path: Path) -> None:
    run_three(make_cluster, tmp_path, 2)


@pytest.mark.timeout(90)
def test_one_replica(make_cluster: MakeCluster, tmp_path: Path) -> None:
    run_one(make_cluster, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_replicas_ten_times_over(make_cluster: MakeCluster, tmp_path: Path) -> None:
    run_three(make_cluster, tmp_path, 10)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_replica_ten_times_over(make_cluster: MakeCluster, tmp_path: Path) -> None:
    run_one(make_cluster, tmp_path, 10)


@pytest.mark.timeout(90)
def test_a_leader_told_to_stop_hands_over(make_cluster: MakeCluster, tmp_path: Path) -> None:
    """SIGTERM under load: exit status 0, nothing lost, and hardly a gap."""
    cluster = make_cluster(3)
    cluster.start()
    with LoadRun(tmp_path, cluster.endpoints) as load:
        rate = load.wait_rate(RATE_FLOOR)
        leader = cluster.wait_leader()
        told_at = time.monotonic()
        cluster.terminate(leader)
        assert cluster.wait_end(leader) == ExitStatus.OK
        stopped_at = time.monotonic()
        wait_acked_after(load, load.acked, AFTER_SECONDS)
        load.stop()
        gap = load.longest_gap_seconds(told_at - BEFORE_SECONDS, stopped_at + AFTER_SECONDS)
        print(
            f"leader {leader} told to stop at {rate:.0f} writes/s: ended after "
            f"{stopped_at - told_at:.2f} s, longest gap {gap:.3f} s"
        )
        assert stopped_at - told_at < STOP_SECONDS_MAX
        assert gap < GAP_SECONDS_MAX
        asyncio.run(load.check_tree(cluster.endpoints))


@pytest.mark.timeout(90)
def test_all_replicas_killed_at_once_under_load(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = make_cluster(3)
    cluster.start()
    with LoadRun(tmp_path, cluster.endpoints) as load:
        load.wait_rate(RATE_FLOOR)
        cluster.kill_all()
        with pytest.raises(grpc.RpcError):
            cluster.status(1)
        acked = load.acked
        cluster.start()
        wait_acked_after(load, acked, AFTER_SECONDS)
        check_everything(cluster, load)
