"""Full disks around snapshots, with real file systems: nobody stops for them, and with room again
all is well.

Method: a replica's data directory is a small file system of its own, filled by a file beside it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.testing.cluster import LocalCluster, wait_for
from tests.integration.load_run import LoadRun
from tests.integration.test_leader_kill import check_digests

pytestmark = pytest.mark.timeout(120)

MakeCluster = Callable[..., LocalCluster]

MIB = 1 << 20
DISK_MIB = 192
BALLAST_MIB = 24
"""Of state, so that neither a copy of it nor the snapshot fits where little is left."""
SETTINGS = {
    "checkpoint_interval_s": 1,
    "checkpoint_entries": 200,
    "log_keep_bytes": 4096,
    "disk_free_bytes_min": MIB,
}


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Iterator[LocalCluster]:
    """Three replicas, each on a disk of its own."""
    cluster = make_cluster(3, settings=SETTINGS)
    mounted: list[Path] = []
    for replica in cluster.replicas.values():
        replica.data_dir.mkdir(parents=True)
        size = f"size={DISK_MIB}m"
        mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(replica.data_dir)]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("mounting is not permitted here")
        mounted.append(replica.data_dir)
    yield cluster
    cluster.kill_all()
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


async def write_ballast(endpoints: tuple[str, ...]) -> None:
    async with UnaryClient(ClientConfig(endpoints)) as client:
        await client.create("/ballast")
        for number in range(BALLAST_MIB):
            await client.create(f"/ballast/{number}", bytes([number]) * (MIB - 4096))


def filler(cluster: LocalCluster, replica_id: int) -> Path:
    return cluster.replicas[replica_id].data_dir / "filler"


def fill(cluster: LocalCluster, replica_id: int, left: int) -> None:
    """Until so many bytes are left."""
    path = filler(cluster, replica_id)
    facts = os.statvfs(path.parent)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, facts.f_bavail * facts.f_frsize - left)


def empty(cluster: LocalCluster, replica_id: int) -> None:
    for path in cluster.replicas[replica_id].data_dir.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def wiped_follower(cluster: LocalCluster) -> tuple[int, int]:
    """(leader, follower that is down and has an empty disk)."""
    cluster.start()
    asyncio.run(write_ballast(cluster.endpoints))
    for replica_id in cluster.ids:
        wait_for(
            lambda i=replica_id: cluster.metric(i, "coordsvc_checkpoint_index") > BALLAST_MIB,  # type: ignore[misc]
            "checkpoints",
        )
    leader = cluster.wait_leader()
    follower = next(i for i in cluster.ids if i != leader)
    cluster.kill(follower)
    empty(cluster, follower)
    return leader, follower


def check_back(cluster: LocalCluster, load: LoadRun, leader: int, follower: int) -> None:
    acked = load.acked
    wait_for(lambda: load.acked > acked + 100, "the load to go on")
    assert not cluster.is_serving(follower)
    assert cluster.is_running(follower) and cluster.is_leader(leader)
    filler(cluster, leader).unlink(missing_ok=True)
    filler(cluster, follower).unlink(missing_ok=True)
    cluster.wait_ready(60)
    load.stop()
    assert cluster.events(follower, "replica.rebuilt")
    assert asyncio.run(load.check_tree((cluster.replicas[follower].endpoint,))) > 100
    check_digests(cluster)
    for replica_id in cluster.ids:
        assert not cluster.events(replica_id, "process.failed")
        outgoing = cluster.replicas[replica_id].data_dir / "outgoing"
        wait_for(lambda at=outgoing: not at.exists() or not os.listdir(at), "copies to go")  # type: ignore[misc]


def test_a_leader_without_room_for_a_copy_leads_on(cluster: LocalCluster, tmp_path: Path) -> None:
    leader, follower = wiped_follower(cluster)
    fill(cluster, leader, 20 * MIB)
    with LoadRun(tmp_path, cluster.endpoints, sessions=4) as load:
        cluster.start_replica(follower)
        wait_for(lambda: len(cluster.events(leader, "snapshot.not_copied")) >= 2, "refusals")
        check_back(cluster, load, leader, follower)


def test_a_follower_without_room_waits_for_it(cluster: LocalCluster, tmp_path: Path) -> None:
    leader, follower = wiped_follower(cluster)
    fill(cluster, follower, 40 * MIB)
    with LoadRun(tmp_path, cluster.endpoints, sessions=4) as load:
        cluster.start_replica(follower)
        wait_for(lambda: len(cluster.events(leader, "snapshot.refused")) >= 2, "refusals")
        assert cluster.events(follower, "snapshot.not_stored")
        check_back(cluster, load, leader, follower)
