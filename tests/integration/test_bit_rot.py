"""A replica whose disk rotted while it was down, or whose state is another than its leader's.

It does not serve: it ends, says why and what to do, and the others go on. `coordsvc rejoin` is what
it says to do; after that it has everything again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import LINEARIZABLE, UnaryClient
from coordsvc.core.commands import Batch, Entry, RegisterOrigin
from coordsvc.core.machine import DIGEST_POINT_ZXIDS
from coordsvc.exit_status import ExitStatus
from coordsvc.storage.checkpoint import CheckpointStore
from coordsvc.storage.wal_format import HEADER_BYTES
from coordsvc.storage.wal_scan import scan_segment
from coordsvc.testing.cluster import LocalCluster, wait_for
from tests.integration.test_checkpoints import wait_covered
from tests.integration.test_leader_kill import check_digests
from tests.unit.storage.lmdb_pages import PAGE_BYTES, pages_by_kind

pytestmark = pytest.mark.timeout(120)

MakeCluster = Callable[..., LocalCluster]

SETTINGS = {"checkpoint_entries": 50, "checkpoint_interval_s": 1}
NO_LOG = {"log_keep_bytes": 0}
"""Who has lost everything can only come back by a snapshot."""
ENTRIES = 40
READY_SECONDS = 40.0
"""Of a replica that fetches everything."""
NOBODY = 9
"""No replica's id."""


class Writes:
    """What was acknowledged so far."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    async def add(self, endpoints: tuple[str, ...], count: int) -> None:
        async with UnaryClient(ClientConfig(endpoints)) as client:
            for _ in range(count):
                path = f"/n{len(self.paths)}"
                await client.create(path, path.encode())
                self.paths.append(path)

    async def check(self, cluster: LocalCluster, replica_ids: Sequence[int]) -> None:
        """All is at each of them."""
        for replica_id in replica_ids:
            config = ClientConfig((cluster.replicas[replica_id].endpoint,))
            async with UnaryClient(config) as client:
                for path in self.paths:
                    answer = await client.get_data(path, consistency=LINEARIZABLE)
                    assert answer.data == path.encode(), (replica_id, path)


def flip(file_path: Path, byte: int) -> Path:
    data = bytearray(file_path.read_bytes())
    data[byte] ^= 0x10
    file_path.write_bytes(data)
    return file_path


def rot_log(data_dir: Path) -> Path:
    """In the middle of what the last segment holds."""
    segment = max((data_dir / "wal").glob("*.wal"))
    scan = scan_segment(segment.read_bytes(), int(segment.stem))
    return flip(segment, scan.batches[len(scan.batches) // 2].offset + HEADER_BYTES + 20)


def rot_checkpoint(data_dir: Path) -> Path:
    """In the record that lies at a leaf's end."""
    file_path = data_dir / "checkpoint.mdb"
    leaf = pages_by_kind(file_path.read_bytes())["leaf"][0]
    return flip(file_path, (leaf + 1) * PAGE_BYTES - 10)


def started(make_cluster: MakeCluster, writes: Writes, **settings: object) -> LocalCluster:
    """Each replica has a checkpoint."""
    cluster = make_cluster(3, settings=SETTINGS | settings)
    cluster.start()
    asyncio.run(writes.add(cluster.endpoints, ENTRIES))
    wait_for(
        lambda: all(cluster.events(i, "checkpoint.written") for i in cluster.ids),
        "a checkpoint of each",
    )
    return cluster


def others_of(cluster: LocalCluster, replica_id: int) -> tuple[str, ...]:
    return tuple(cluster.replicas[i].endpoint for i in cluster.ids if i != replica_id)


def heal(cluster: LocalCluster, replica_id: int) -> None:
    """As the message says."""
    data_dir = cluster.replicas[replica_id].data_dir
    assert str(data_dir) in cluster.rejoin(replica_id)
    cluster.start_replica(replica_id)
    cluster.wait_ready(READY_SECONDS)
    assert cluster.events(replica_id, "replica.rebuilt"), "it came back without a snapshot"


def test_what_rotted_is_refused_and_fetched_from_the_others(make_cluster: MakeCluster) -> None:
    writes = Writes()
    cluster = started(make_cluster, writes, **NO_LOG)
    leader = cluster.wait_leader()
    followers = [i for i in cluster.ids if i != leader]
    for replica_id, rot in zip(followers, (rot_log, rot_checkpoint), strict=True):
        cluster.terminate(replica_id)
        assert cluster.wait_end(replica_id) == ExitStatus.OK
        data_dir = cluster.replicas[replica_id].data_dir
        damaged = rot(data_dir)
        asyncio.run(writes.add(others_of(cluster, replica_id), ENTRIES))
        cluster.start_replica(replica_id)
        assert cluster.wait_end(replica_id, READY_SECONDS) == ExitStatus.CORRUPTION, (
            cluster.log_tails()
        )
        (event,) = cluster.events(replica_id, "process.refused")
        assert f"{damaged} is damaged" in event["error"], event
        assert f"coordsvc rejoin {data_dir}" in event["error"], event
        asyncio.run(writes.add(others_of(cluster, replica_id), 5))
        heal(cluster, replica_id)
    asyncio.run(writes.check(cluster, cluster.ids))
    check_digests(cluster)


def shift(data_dir: Path, zxids: int, *, other_state: bool) -> None:
    """Have the checkpoint's state begin so many zxids later, which is whole for all that can be
    seen from it alone; and hold something that the others' does not."""
    store = CheckpointStore.open(str(data_dir))
    assert store.info is not None
    machine = store.load()
    feed = machine.observe_changes()
    zxid = machine.state.zxid + zxids
    if other_state:
        register = Batch(NOBODY, 0, 0, (RegisterOrigin(NOBODY, b"nonce"),))
        machine.apply_entry(Entry(1, 1, (register,)), store.info.term)
    machine.state.zxid = zxid
    info = dataclasses.replace(store.info, zxid=zxid, digest=machine.digest())
    store.write(feed.take(), machine.state.singletons(), info)
    store.close()


def test_a_replica_with_another_state_than_its_leader_ends(make_cluster: MakeCluster) -> None:
    """All of them are brought near the zxid at which digests are compared; one is another."""
    writes = Writes()
    cluster = started(make_cluster, writes)
    strange = next(i for i in cluster.ids if i != cluster.wait_leader())
    wait_covered(cluster)  # So that all are moved at the same entry.
    zxid = cluster.digest(strange).zxid
    assert set(cluster.stop().values()) == {ExitStatus.OK}
    for replica_id in cluster.ids:
        shift(
            cluster.replicas[replica_id].data_dir,
            DIGEST_POINT_ZXIDS - zxid - ENTRIES // 2,
            other_state=replica_id == strange,
        )
    for replica_id in cluster.ids:
        if replica_id != strange:
            cluster.start_replica(replica_id)
    cluster.wait_ready()
    cluster.start_replica(strange)
    cluster.wait_ready()
    asyncio.run(writes.add(others_of(cluster, strange), ENTRIES))
    assert cluster.wait_end(strange, READY_SECONDS) == ExitStatus.DIVERGED, cluster.log_tails()
    (event,) = cluster.events(strange, "process.failed")
    assert f"coordsvc rejoin {cluster.replicas[strange].data_dir}" in event["error"], event
    assert event["exit_status"] == ExitStatus.DIVERGED
    asyncio.run(writes.add(others_of(cluster, strange), 5))
    asyncio.run(writes.check(cluster, [i for i in cluster.ids if i != strange]))
