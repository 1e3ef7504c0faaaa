"""A disk that fills up: writes are refused while there is still room to make room.

The file system is a small one of its own, which the test makes and removes; where that is not
permitted the test is skipped.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from coordsvc.server.config_model import StorageConfig
from coordsvc.testing.local_servers import LocalServer, LocalServers
from coordsvc.v1 import coordination_pb2 as pb
from coordsvc.v1.coordination_pb2_grpc import CoordinationStub

MIB = 1024 * 1024
SMALL_DISK_MIB = 160
FREE_MIB_MIN = 48


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of SMALL_DISK_MIB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MIB}m", "coordsvc-test", str(place)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, timeout=10)
    except OSError as error:
        pytest.skip(f"a file system cannot be mounted here: {error}")
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        # Lazily: a thread that is just ending may still hold a file.
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)


def fill(directory: Path, free_bytes: int) -> Path:
    """A file that leaves so much free; removing it gives the space back."""
    file_path = directory / "ballast"
    status = os.statvfs(directory)
    with file_path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - free_bytes)
    return file_path


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


class Client:
    def __init__(self, server: LocalServer) -> None:
        self._channel = aio.insecure_channel(
            server.endpoint, options=[("grpc.enable_http_proxy", 0)]
        )
        self._stub: Any = CoordinationStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._channel.close()

    async def create(self, path: str) -> None:
        await self._stub.Create(pb.CreateRequest(path=path, data=b"x" * 1000), timeout=10)

    async def delete(self, path: str) -> None:
        await self._stub.Delete(pb.DeleteRequest(path=path), timeout=10)

    async def size(self, path: str) -> int:
        return len((await self._stub.GetData(pb.GetDataRequest(path=path), timeout=10)).data)

    async def is_refused(self, path: str) -> bool:
        """Whether a create is refused for want of space."""
        try:
            await self.create(path)
        except aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
            assert "storage.disk_free_bytes_min" in (error.details() or "")
            assert ("coordsvc-applied", "no") in tuple(error.trailing_metadata() or ())
            return True
        return False


async def test_a_disk_that_fills_up_and_is_emptied_again(small_disk: Path) -> None:
    storage = StorageConfig(disk_free_bytes_min=FREE_MIB_MIN * MIB)
    async with LocalServers(str(small_disk), 1, storage=storage) as servers:
        (server,) = servers.servers.values()
        disk = server.server.disk_space
        async with Client(server) as client:
            await client.create("/a")
            await client.create("/b")
            await until(lambda: disk.free_bytes is not None)
            assert not disk.is_low
            ballast = fill(small_disk, (FREE_MIB_MIN - 8) * MIB)
            await until(lambda: disk.is_low)
            assert await client.is_refused("/c")
            assert await client.size("/a") == 1000
            await client.delete("/b")
            ballast.unlink()
            await until(lambda: not disk.is_low)
            await client.create("/b")


async def test_one_low_replica_refuses_at_its_own_door_and_two_of_three_close_all(
    tmp_path: Path,
) -> None:
    """Goal: a full disk stops no cluster while others have room, and a majority is never lost to
    it. Method: three real replicas are told what their disks have left."""
    async with LocalServers(str(tmp_path), 3) as servers:
        for server in servers.servers.values():
            server.server.disk_space.stop()
            server.server.disk_space.note_free(1 << 40)
        first, second, third = servers.servers.values()
        async with Client(first) as one, Client(second) as two, Client(third) as three:
            first.server.disk_space.note_free(1)
            assert await one.is_refused("/a")
            await two.create("/a")
            await three.create("/b")
            await until(lambda: "/b" in first.replica.machine.state.znodes)
            second.server.disk_space.note_free(1)
            await until(lambda: third.server.disk_space.is_low)
            assert await three.is_refused("/c")
            assert not third.server.disk_space.is_low_here
            await three.delete("/b")
            first.server.disk_space.note_free(1 << 40)
            await until(lambda: not third.server.disk_space.is_low)
            await three.create("/c")
