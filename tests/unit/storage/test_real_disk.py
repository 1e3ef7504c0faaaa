"""The same log on real files and a real thread; and a process that is killed for good."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.errors import DiskFullError, StorageError
from coordsvc.storage.executor import ThreadExecutor
from coordsvc.storage.files import FileSystem
from coordsvc.storage.wal import Wal

SEGMENT_BYTES = 64 << 10
ROOT = Path(__file__).parents[3]
"""So that the writer's process finds this file."""


class RealLog:
    def __init__(self, path: str, files: FileSystem | None = None) -> None:
        files = files or FileSystem()
        self.data_dir = DataDir.open(path, 1, files)
        self.executor = ThreadExecutor(asyncio.get_running_loop())
        self.changed = asyncio.Event()
        self.failures: list[BaseException] = []
        self.wal = Wal.open(
            self.data_dir.wal_path,
            files=files,
            executor=self.executor,
            identity=self.data_dir.uuid,
            replica_id=1,
            on_synced=lambda lsn: self.changed.set(),
            on_failed=self._failed,
            segment_bytes=SEGMENT_BYTES,
        )

    def _failed(self, error: BaseException) -> None:
        self.failures.append(error)
        self.changed.set()

    async def synced(self) -> None:
        async with asyncio.timeout(10):
            while self.wal.synced_lsn < self.wal.end_lsn and not self.failures:
                self.changed.clear()
                await self.changed.wait()

    async def close(self) -> None:
        closed = asyncio.Event()
        self.wal.close(closed.set)
        await asyncio.wait_for(closed.wait(), 10)
        assert self.executor.close()
        self.data_dir.close()


async def test_write_switch_close_and_read_back(tmp_path: Path) -> None:
    log = RealLog(str(tmp_path))
    log.wal.set_voter(True)
    log.wal.set_hard_state(4, "2")
    for index in range(1, 101):
        log.wal.append_entry(os.urandom(2000), index, 4)
        log.wal.flush()
        if index % 10 == 0:
            await log.synced()
    fsyncs = log.wal.statistics().fsyncs_total
    async with asyncio.timeout(10):  # the marker, by the loop's own timer
        while log.wal.statistics().fsyncs_total == fsyncs:
            await asyncio.sleep(0.005)
    await log.close()
    again = RealLog(str(tmp_path))
    recovered = again.wal.recovered
    assert [entry[1] for entry in recovered.entries] == list(range(1, 101))
    assert (recovered.term, recovered.voted_for, recovered.voter) == (4, "2", True)
    assert again.wal.statistics().segments >= 3
    await again.close()


async def test_a_full_disk_ends_the_log(tmp_path: Path) -> None:
    class Full(FileSystem):
        def pwrite(self, handle: int, data: bytes | bytearray | memoryview, offset: int) -> int:
            if bytes(data[:4]) == b"\xc5WL\x01" and offset > 2000:
                raise OSError(28, "No space left on device")
            return super().pwrite(handle, data, offset)

    log = RealLog(str(tmp_path), Full())
    for index in range(1, 10):
        log.wal.append_entry(b"x" * 600, index, 1)
        log.wal.flush()
        await log.synced()
        if log.failures:
            break
    assert isinstance(log.failures[0], DiskFullError)
    with pytest.raises(StorageError):
        log.wal.flush()
    await log.close()


WRITER = """
import asyncio, sys
from tests.unit.storage.test_real_disk import RealLog

async def main():
    log = RealLog(sys.argv[1])
    index = len(log.wal.recovered.entries)
    while True:
        for _ in range(3):
            index += 1
            log.wal.append_entry(b"%d " % index * 300, index, 1)
        log.wal.flush()
        await log.synced()
        print(index, flush=True)

asyncio.run(main())
"""


async def test_a_killed_writer_has_lost_nothing_it_acknowledged(tmp_path: Path) -> None:
    acknowledged = 0
    for count in (5, 40, 80):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        assert writer.stdout is not None
        try:
            for _ in range(count):
                line = await asyncio.wait_for(writer.stdout.readline(), 20)
                acknowledged = int(line)
        finally:
            writer.send_signal(signal.SIGKILL)
            rest = await writer.stdout.read()
            await writer.wait()
        acknowledged = int(rest.split()[-1]) if rest.split() else acknowledged
        log = RealLog(str(tmp_path))
        entries = log.wal.recovered.entries
        assert len(entries) >= acknowledged
        assert all(payload == b"%d " % index * 300 for payload, index, _ in entries)
        await log.close()
