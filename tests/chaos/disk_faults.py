"""Full disks: each replica's data lies in a small file system of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import NodeExistsError
from coordsvc.exit_status import ExitStatus
from coordsvc.testing.cluster import wait_for
from tests.chaos.world import World

MIB = 1 << 20
DISK_MIB = 256
FREE_MIB_MIN = 32
SETTINGS = {
    "disk_free_bytes_min": FREE_MIB_MIN * MIB,
    "checkpoint_log_bytes": 16 * MIB,
    "log_keep_bytes": MIB,
}
CHUNK = bytes(range(256)) * 2_048
"""Half a MiB."""

CHUNKS_MAX = 400
PATH = "/ballast"
COMMAND_SECONDS = 60


@contextlib.contextmanager
def small_disks(directory: Path, replica_ids: tuple[int, ...]) -> Iterator[str]:
    """File systems on the real disk for these replicas of the cluster in this directory. Why there
    are none; empty: there are."""
    with contextlib.ExitStack() as stack:
        for replica_id in replica_ids:
            if reason := _mount(stack, directory / str(replica_id)):
                yield reason
                return
        yield ""


def _mount(stack: contextlib.ExitStack, place: Path) -> str:
    place.mkdir(parents=True)
    image = place.with_name(f"disk-{place.name}")
    with image.open("wb") as file:
        file.truncate(DISK_MIB * MIB)
    for command in (
        ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)],
        ["mount", "-o", "loop", str(image), str(place)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS)
        except FileNotFoundError:
            return f"{command[0]} is not installed"
        if done.returncode:
            return f"{command[0]} is not permitted here: {done.stderr.strip()}"
    # Lazily: what has just been killed may still hold a file.
    unmount = ["umount", "--lazy", str(place)]
    stack.callback(subprocess.run, unmount, check=True, timeout=COMMAND_SECONDS)
    return ""


def full_leader(world: World) -> contextlib.AbstractContextManager[str]:
    return _full_disk(world, world.leader())


def full_follower(world: World) -> contextlib.AbstractContextManager[str]:
    return _full_disk(world, world.follower())


@contextlib.contextmanager
def _full_disk(world: World, replica_id: int) -> Iterator[str]:
    """Not a byte is left: it refuses its clients' writes, and what the others' clients write ends
    it at last. With room again it comes back."""
    cluster = world.cluster
    data_dir = cluster.replicas[replica_id].data_dir
    others = tuple(cluster.replicas[i].endpoint for i in world.others(replica_id))
    with world.told("full disk", replica_id) as what:
        lows = len(cluster.events(replica_id, "disk.space_low"))
        ballast = _fill(data_dir)
        try:
            wait_for(lambda: len(cluster.events(replica_id, "disk.space_low")) > lows, "notice")
            yield what
            world.wait_served()
            _write_until(others, lambda: not cluster.is_running(replica_id))
            assert cluster.wait_end(replica_id) == ExitStatus.DISK
            world.wait_served()
        finally:
            ballast.unlink()
        cluster.start_replica(replica_id)


def _fill(data_dir: Path) -> Path:
    """A file that takes all the room; removing it gives it back."""
    file_path = data_dir / "ballast"
    with file_path.open("wb") as file:
        facts = os.statvfs(data_dir)
        os.posix_fallocate(file.fileno(), 0, facts.f_bavail * facts.f_frsize - MIB)
        file.seek(0, os.SEEK_END)
        try:
            while True:
                os.write(file.fileno(), CHUNK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return file_path


def _write_until(endpoints: tuple[str, ...], is_enough: Callable[[], bool]) -> None:
    """Write to these replicas, more than the log of any has room for."""

    async def write() -> None:
        async with UnaryClient(ClientConfig(endpoints)) as client:
            with contextlib.suppress(NodeExistsError):
                await client.create(PATH)
            for number in range(CHUNKS_MAX):
                if is_enough():
                    return
                await client.set_data(PATH, number.to_bytes(2) + CHUNK)

    asyncio.run(write())
    assert is_enough(), f"{CHUNKS_MAX} writes of {len(CHUNK)} bytes did not fill the log"
