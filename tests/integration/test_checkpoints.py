"""Checkpoints at work: starts from one and the log behind it, disks that stay bounded, and replicas
that lost everything and come back by a snapshot.

Method: with tiny settings all of it happens within seconds, under a load of numbered writes whose
acknowledgements are held against the tree afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.testing.cluster import LocalCluster, wait_for
from tests.integration.load_run import LoadRun
from tests.integration.test_leader_kill import check_digests

pytestmark = pytest.mark.timeout(90)

MakeCluster = Callable[..., LocalCluster]

TINY = {
    "checkpoint_interval_s": 1,
    "checkpoint_entries": 200,
    "checkpoint_log_bytes": 1 << 20,
    "log_keep_bytes": 0,
}
MIB = 1 << 20
SEGMENT_BYTES = 16 * MIB
RATE_FLOOR = 200.0


def checkpoints(cluster: LocalCluster, replica_id: int) -> float:
    """How many it has written since its start."""
    return cluster.metric(replica_id, "coordsvc_checkpoint_seconds_count")


def wait_checkpoints(cluster: LocalCluster, count: int) -> None:
    """Until each replica has written so many more."""
    before = {replica_id: checkpoints(cluster, replica_id) for replica_id in cluster.ids}
    wait_for(
        lambda: all(checkpoints(cluster, i) >= before[i] + count for i in cluster.ids),
        f"{count} checkpoints of each replica",
    )


def wait_covered(cluster: LocalCluster) -> None:
    """Until the checkpoints cover everything that there is."""

    def is_covered(replica_id: int) -> bool:
        covered = cluster.metric(replica_id, "coordsvc_checkpoint_index")
        return covered == cluster.metric(replica_id, "coordsvc_applied_index")

    wait_for(lambda: all(map(is_covered, cluster.ids)), "checkpoints of everything")


def segments(cluster: LocalCluster, replica_id: int) -> set[str]:
    wal = cluster.replicas[replica_id].data_dir / "wal"
    return {path.name for path in wal.glob("*.wal")}


async def write_ballast(endpoints: tuple[str, ...], mib: int) -> None:
    """So many MiB of log, and 1 MiB of tree."""
    async with UnaryClient(ClientConfig(endpoints)) as client:
        if not (await client.exists("/ballast")).HasField("stat"):
            await client.create("/ballast")
        for number in range(mib):
            await client.set_data("/ballast", bytes([number % 256]) * MIB)


def test_killed_under_load_all_start_from_a_checkpoint_and_the_log_behind_it(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(3, settings=TINY)
    cluster.start()
    with LoadRun(tmp_path, cluster.endpoints) as load:
        load.wait_rate(RATE_FLOOR)
        wait_checkpoints(cluster, 3)
        load.wait_rate(RATE_FLOOR)
        acked = load.acked
        cluster.kill_all()
        cluster.start()
        wait_for(lambda: load.acked > acked, "the load to go on")
        load.stop()
    starts = [cluster.events(replica_id, "wal.recovered")[-1] for replica_id in cluster.ids]
    assert all(start["checkpoint_index"] > 200 for start in starts), starts
    assert any(start["entries"] for start in starts), "no log behind any checkpoint"
    assert asyncio.run(load.check_tree(cluster.endpoints)) > 500
    check_digests(cluster)
    assert asyncio.run(load.check_retries(cluster.endpoints)) > 100


def test_retries_are_answered_alike_when_the_log_of_the_first_time_is_gone(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """By replicas that were running, and by such as have started from the checkpoint alone."""
    cluster = make_cluster(3, settings=TINY)
    cluster.start()
    first = {replica_id: segments(cluster, replica_id) for replica_id in cluster.ids}
    with LoadRun(tmp_path, cluster.endpoints, sessions=8) as load:
        load.wait_rate(RATE_FLOOR)
        load.stop()
    asyncio.run(write_ballast(cluster.endpoints, 40))
    wait_for(
        lambda: not any(first[i] & segments(cluster, i) for i in cluster.ids),
        "the segments of the load to be unlinked",
    )
    assert asyncio.run(load.check_retries(cluster.endpoints)) > 100
    wait_covered(cluster)
    cluster.kill_all()
    cluster.start()
    assert asyncio.run(load.check_retries(cluster.endpoints)) > 100
    assert asyncio.run(load.check_tree(cluster.endpoints)) > 200
    check_digests(cluster)


def test_the_disk_stays_bounded_however_much_is_written(make_cluster: MakeCluster) -> None:
    """A tree of 1 MiB; the log in turn, not in sum."""
    cluster = make_cluster(1, settings={**TINY, "checkpoint_log_bytes": 8 * MIB})
    cluster.start()
    data_dir = cluster.replicas[1].data_dir
    most = 0

    def used() -> int:
        sizes = []
        for path in data_dir.rglob("*"):
            try:
                sizes.append(path.stat().st_blocks * 512)
            except FileNotFoundError:
                continue  # Unlinked meanwhile.
        return sum(sizes)

    for _ in range(8):
        asyncio.run(write_ballast(cluster.endpoints, 20))
        most = max(most, used())
    assert cluster.metric(1, "coordsvc_wal_written_bytes_total") > 160 * MIB
    assert most < 6 * SEGMENT_BYTES, f"{most / MIB:.0f} MiB"
    wait_covered(cluster)
    wait_for(lambda: len(segments(cluster, 1)) <= 2, "old segments to be unlinked")


@pytest.mark.parametrize("how", ["wiped", "rejoin"])
def test_a_follower_that_lost_everything_comes_back_under_load(
    make_cluster: MakeCluster, tmp_path: Path, how: str
) -> None:
    """By a snapshot; the others go on. It then answers retries of numbers that it never saw run."""
    cluster = make_cluster(3, settings=TINY)
    cluster.start()
    with LoadRun(tmp_path, cluster.endpoints) as load:
        load.wait_rate(RATE_FLOOR)
        wait_checkpoints(cluster, 2)
        follower = next(i for i in cluster.ids if i != cluster.wait_leader())
        cluster.kill(follower)
        if how == "wiped":
            cluster.wipe(follower)
        else:
            assert "set aside" in cluster.rejoin(follower)
        acked = load.acked
        cluster.start_replica(follower)
        cluster.wait_ready()
        assert load.acked > acked, "the others stood still"
        load.wait_rate(RATE_FLOOR)
        load.stop()
    assert cluster.events(follower, "replica.rebuilt"), "no snapshot was needed"
    assert cluster.metric(follower, "coordsvc_snapshots_installed_total") == 1
    own = (cluster.replicas[follower].endpoint,)
    assert asyncio.run(load.check_tree(own)) > 500
    check_digests(cluster)
    assert asyncio.run(load.check_retries(own)) > 100
    check_digests(cluster)


def test_with_one_of_three_dead_and_one_wiped_all_come_back_when_the_dead_one_does(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """The wiped one's vote alone elects nobody: it may have promised what it forgot."""
    cluster = make_cluster(3, settings=TINY)
    cluster.start()
    with LoadRun(tmp_path, cluster.endpoints) as load:
        load.wait_rate(RATE_FLOOR)
        wait_checkpoints(cluster, 2)
        leader = cluster.wait_leader()
        wiped, dead = (i for i in cluster.ids if i != leader)
        cluster.kill(dead)
        cluster.kill(wiped)
        cluster.wipe(wiped)
        # The leader steps down meanwhile: it has lost its majority.
        wait_for(lambda: not cluster.is_serving(leader), "the leader to have lost its majority")
        cluster.start_replica(wiped)
        wait_for(lambda: bool(cluster.events(wiped, "peer.connected")), "the wiped one's start")
        cluster.start_replica(dead)
        cluster.wait_ready()
        acked = load.acked
        wait_for(lambda: load.acked > acked + 100, "the load to go on")
        load.stop()
    assert asyncio.run(load.check_tree(cluster.endpoints)) > 300
    check_digests(cluster)


def test_while_the_state_is_replaced_the_admin_port_answers(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """Not ready, and alive all the time; the directory is not to be had meanwhile."""
    cluster = make_cluster(3, settings=TINY)
    cluster.start()
    asyncio.run(write_ballast(cluster.endpoints, 3))
    with LoadRun(tmp_path, cluster.endpoints, sessions=8) as load:
        wait_checkpoints(cluster, 2)
        follower = next(i for i in cluster.ids if i != cluster.wait_leader())
        cluster.kill(follower)
        cluster.wipe(follower)
        cluster.start_replica(follower)
        seen: list[int] = []

        def is_ready() -> bool:
            try:
                seen.append(cluster.page(follower, "/livez")[0])
                return cluster.page(follower, "/readyz")[0] == 200
            except OSError:
                assert not seen, "the admin port was closed after it had answered"
                return False

        wait_for(is_ready, "the wiped replica to be ready")
        load.stop()
    assert cluster.events(follower, "replica.rebuilt")
    assert set(seen) == {200}
    pid = cluster.pid(follower)
    assert len(cluster.events(follower, "process.starting")) == 2, "it was the same process"
    assert cluster.events(follower, "process.starting")[-1]["pid"] == pid
