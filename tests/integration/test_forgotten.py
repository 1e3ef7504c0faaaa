"""A replica whose disk was wiped does not help to lose what it once acknowledged.

Three replicas A, B, C; an entry is acknowledged while only A and B run. B is wiped, A is down: then
B and C are a majority, but of nobody who knows the entry. They must wait for A.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from coordsvc.client.methods import CREATE
from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import LINEARIZABLE, UnaryClient
from coordsvc.testing.cluster import LocalCluster, wait_for
from coordsvc.v1 import coordination_pb2
from tests.integration.load_run import LoadRun
from tests.integration.test_leader_kill import check_digests

pytestmark = pytest.mark.timeout(120)

MakeCluster = Callable[..., LocalCluster]

STANDS_STILL_SECONDS = 4.0
"""Several election timeouts."""

ENTRIES = 200
SMALL_LOG = {
    "COORDSVC_CHECKPOINT_ENTRIES": "50",
    "COORDSVC_CHECKPOINT_INTERVAL_S": "1",
    "COORDSVC_LOG_KEEP_BYTES": "4096",
}
"""Checkpoints so often that a wiped replica can only come back by a snapshot."""


def wipe(cluster: LocalCluster, replica_id: int) -> None:
    assert not cluster.is_running(replica_id)
    shutil.rmtree(cluster.replicas[replica_id].data_dir)


async def write_entries(endpoint: str, first: int, count: int) -> None:
    async with UnaryClient(ClientConfig((endpoint,))) as client:
        for number in range(first, first + count):
            await client.create(f"/n{number}", b"%d" % number)


async def check_entries(cluster: LocalCluster, count: int) -> None:
    """Each acknowledged one is there, at every replica that runs."""
    for replica_id in cluster.ids:
        config = ClientConfig((cluster.replicas[replica_id].endpoint,))
        async with UnaryClient(config) as client:
            for number in range(count):
                answer = await client.get_data(f"/n{number}", consistency=LINEARIZABLE)
                assert answer.data == b"%d" % number, f"replica {replica_id}, entry {number}"


def is_anything_served(cluster: LocalCluster, replica_ids: tuple[int, ...]) -> bool:
    """Whether one of them leads, or takes a write."""
    request = coordination_pb2.CreateRequest(path="/by-the-forgetful", data=b"")
    for replica_id in replica_ids:
        try:
            if cluster.is_serving(replica_id) or cluster.is_leader(replica_id):
                return True
            cluster.ask(replica_id, CREATE, request)
        except grpc.RpcError:
            continue  # It refuses, as it should.
        return True
    return False


def check_stands_still(cluster: LocalCluster, replica_ids: tuple[int, ...]) -> None:
    """Both run, are linked, and serve nothing for several election timeouts."""
    until = time.monotonic() + STANDS_STILL_SECONDS
    while time.monotonic() < until:
        assert not is_anything_served(cluster, replica_ids), cluster.log_tails()
    for replica_id in replica_ids:
        assert cluster.is_running(replica_id), cluster.log_tails()


def small_cluster(make_cluster: MakeCluster) -> LocalCluster:
    return make_cluster(3, environments=dict.fromkeys((1, 2, 3), SMALL_LOG))


def test_an_entry_on_a_and_b_survives_the_wiping_of_b(make_cluster: MakeCluster) -> None:
    cluster = small_cluster(make_cluster)
    cluster.start()
    a = cluster.wait_leader()
    b, c = [i for i in cluster.ids if i != a]
    cluster.kill(c)
    asyncio.run(write_entries(cluster.replicas[a].endpoint, 0, ENTRIES))
    cluster.kill(b)
    wipe(cluster, b)
    cluster.kill(a)
    cluster.start_replica(b)
    cluster.start_replica(c)
    wait_for(lambda: "peer.connected" in cluster.log_path(c).read_text(), "b and c to be linked")
    check_stands_still(cluster, (b, c))
    cluster.start_replica(a)
    cluster.wait_ready()
    asyncio.run(check_entries(cluster, ENTRIES))
    check_digests(cluster)


def test_one_dead_and_one_wiped(make_cluster: MakeCluster) -> None:
    """One of three is dead; a second one is wiped while the third goes on alone. The cluster waits,
    and is whole again when the dead one is back: the wiped one from a snapshot."""
    cluster = small_cluster(make_cluster)
    cluster.start()
    dead, wiped, survivor = cluster.ids
    asyncio.run(write_entries(cluster.replicas[survivor].endpoint, 0, ENTRIES))
    cluster.kill(dead)
    asyncio.run(write_entries(cluster.replicas[survivor].endpoint, ENTRIES, ENTRIES))
    cluster.kill(wiped)
    wipe(cluster, wiped)
    # It has lost its majority, but may not know it yet.
    wait_for(lambda: not cluster.is_serving(survivor), "the survivor to notice")
    cluster.start_replica(wiped)
    check_stands_still(cluster, (wiped, survivor))
    cluster.start_replica(dead)
    cluster.wait_ready()
    asyncio.run(check_entries(cluster, 2 * ENTRIES))
    check_digests(cluster)
    assert cluster.events(wiped, "replica.rebuilt"), "it came back without a snapshot"


def test_when_all_have_given_up_their_state_no_empty_cluster_begins(
    make_cluster: MakeCluster,
) -> None:
    """They say what to do about it; with what one of them set aside put back, all is there."""
    cluster = small_cluster(make_cluster)
    cluster.start()
    asyncio.run(write_entries(cluster.endpoints[0], 0, ENTRIES))
    cluster.kill_all()
    for replica_id in cluster.ids:
        cluster.rejoin(replica_id)
    cluster.start(wait=False)
    check_stands_still(cluster, cluster.ids)
    wait_for(lambda: all(cluster.events(i, "replica.nothing_left") for i in cluster.ids), "word")
    data_dir = cluster.replicas[2].data_dir
    cluster.kill(2)
    (set_aside,) = data_dir.glob("set-aside-*")
    shutil.copytree(set_aside, data_dir.with_name("put-back"))
    shutil.rmtree(data_dir)
    data_dir.with_name("put-back").rename(data_dir)
    cluster.start()
    asyncio.run(check_entries(cluster, ENTRIES))
    check_digests(cluster)


def test_a_wiped_follower_comes_back_under_load(make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = small_cluster(make_cluster)
    cluster.start()
    leader = cluster.wait_leader()
    wiped = next(i for i in cluster.ids if i != leader)
    with LoadRun(tmp_path, cluster.endpoints) as load:
        load.wait_rate(200.0)
        cluster.kill(wiped)
        acked = load.acked
        wipe(cluster, wiped)
        wait_for(lambda: load.acked > acked + 500, "the load to go on without it")
        cluster.start_replica(wiped)
        cluster.wait_ready(40)
        acked = load.acked
        wait_for(lambda: load.acked > acked + 500, "the load to go on with it")
        load.wait_rate(200.0)
        load.stop()
        asyncio.run(load.check_tree(cluster.endpoints))
        check_digests(cluster)
        asyncio.run(load.check_retries((cluster.replicas[wiped].endpoint,)))
    assert cluster.events(wiped, "replica.rebuilt"), "it came back without a snapshot"
