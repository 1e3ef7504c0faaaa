"""What reaches the disk before an answer, and what happens when the disk is full."""

from __future__ import annotations

import asyncio
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import CoordError
from coordsvc.exit_status import ExitStatus
from coordsvc.testing.cluster import LocalCluster, wait_for

pytestmark = pytest.mark.timeout(90)

FSYNCS = "coordsvc_wal_fsync_total"
CHUNK = bytes(range(256)) * 1_024
"""A quarter of a MiB."""


def fsyncs(cluster: LocalCluster) -> dict[int, float]:
    return {replica_id: cluster.metric(replica_id, FSYNCS) for replica_id in cluster.ids}


def settled_fsyncs(cluster: LocalCluster) -> dict[int, float]:
    """The counters once they stand still: what follows is then due to what is done next."""
    last: list[dict[int, float]] = [fsyncs(cluster)]
    stills = 0

    def stands_still() -> bool:
        nonlocal stills
        now = fsyncs(cluster)
        stills = stills + 1 if now == last[-1] else 0
        last.append(now)
        return stills >= 10

    wait_for(stands_still, "the disks to be quiet")
    return last[-1]


async def write_one(endpoints: tuple[str, ...], path: str) -> None:
    async with UnaryClient(ClientConfig(endpoints)) as client:
        await client.create(path, b"x")


@pytest.mark.parametrize("size", [1, 3])
def test_one_lone_write_is_synced_by_a_majority(
    make_cluster: Callable[..., LocalCluster], size: int
) -> None:
    cluster = make_cluster(size)
    cluster.start()
    for number in range(3):
        before = settled_fsyncs(cluster)
        asyncio.run(write_one(cluster.endpoints, f"/{number}"))
        after = fsyncs(cluster)
        risen = [replica_id for replica_id in cluster.ids if after[replica_id] > before[replica_id]]
        assert len(risen) > size // 2, (before, after)


# --------------------------------------------------------------------------------- full disk


async def fill(endpoints: tuple[str, ...], most: int) -> tuple[list[str], CoordError | None]:
    """Write until refused: what was acknowledged, and the refusal."""
    acked: list[str] = []
    config = ClientConfig(endpoints, timeout_ms=4_000, unreachable_timeout_ms=500)
    async with UnaryClient(config) as client:
        for number in range(most):
            try:
                acked.append((await client.create(f"/n{number:04}", CHUNK)).path)
            except CoordError as error:
                return acked, error
    return acked, None


async def check(endpoints: tuple[str, ...], acked: list[str]) -> None:
    async with UnaryClient(ClientConfig(endpoints)) as client:
        for path in acked:
            assert (await client.get_data(path)).data == CHUNK, path


def check_full(cluster: LocalCluster, acked: list[str], error: CoordError | None) -> None:
    """It said no, by refusing or by ending with the status for it."""
    assert len(acked) >= 10, f"too few were written to prove anything: {acked}, {error!r}"
    assert error is not None, "the disk was never full"
    print(f"{len(acked)} acknowledged, then {error!r}")
    if not cluster.is_running(1):
        assert cluster.wait_end(1) == ExitStatus.DISK
    else:
        assert set(cluster.stop().values()) <= {ExitStatus.OK, ExitStatus.DISK}


def test_a_file_cannot_grow(make_cluster: Callable[..., LocalCluster]) -> None:
    """RLIMIT_FSIZE: pwrite fails with EFBIG, as it would with ENOSPC."""
    cluster = make_cluster(1)
    cluster.start()
    limit = 8 * 1024 * 1024
    unlimited = resource.prlimit(cluster.pid(1), resource.RLIMIT_FSIZE)
    resource.prlimit(cluster.pid(1), resource.RLIMIT_FSIZE, (limit, unlimited[1]))
    acked, error = asyncio.run(fill(cluster.endpoints, 200))
    check_full(cluster, acked, error)
    cluster.start()
    asyncio.run(check(cluster.endpoints, acked))
    asyncio.run(write_one(cluster.endpoints, "/after"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("size", [1, 3])
def test_the_disk_is_full(small_disk: Path, size: int) -> None:
    """Every replica's disk, at about the same time, too fast to be noticed before; with more room
    all is there again."""
    limits = f"size={64 * size}m"
    subprocess.run(["mount", "-o", f"remount,{limits}", str(small_disk)], check=True)
    with LocalCluster(small_disk, size, settings={"disk_free_bytes_min": 0}) as cluster:
        cluster.start()
        acked, error = asyncio.run(fill(cluster.endpoints, 600))
        assert len(acked) >= 10 and error is not None, (len(acked), error)
        print(f"{len(acked)} acknowledged, then {error!r}")
        for replica_id in cluster.ids:
            if cluster.is_running(replica_id):
                continue
            assert cluster.wait_end(replica_id) == ExitStatus.DISK
        assert set(cluster.stop().values()) <= {ExitStatus.OK, ExitStatus.DISK}
        subprocess.run(["mount", "-o", "remount,size=2g", str(small_disk)], check=True)
        cluster.start()
        asyncio.run(check(cluster.endpoints, acked))
        asyncio.run(write_one(cluster.endpoints, "/after"))
