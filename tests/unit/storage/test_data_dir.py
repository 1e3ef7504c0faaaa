"""Whose directory it is, who has it open, and what refuses the start."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

import pytest

from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.errors import CorruptionError, DataDirRefusedError, DiskError, DiskFullError
from coordsvc.storage.files import FileSystem
from coordsvc.storage.meta import decode_meta, encode_meta
from coordsvc.storage.wal import Wal
from coordsvc.testing.fake_disk import FakeDisk, SimulatedCrash
from coordsvc.testing.manual_loop import ManualExecutor

PATH = "/srv/data"
META = PATH + "/META"
SEGMENT = PATH + "/wal/0000000000000001.wal"


def open_dir(disk: FakeDisk, replica_id: int = 1, members: Iterable[int] = ()) -> DataDir:
    return DataDir.open(PATH, replica_id, disk, members=members)


def open_log(disk: FakeDisk, data_dir: DataDir) -> Wal:
    return Wal.open(
        data_dir.wal_path,
        files=disk,
        executor=ManualExecutor(),
        identity=data_dir.uuid,
        replica_id=data_dir.replica_id,
        synced_lsn=data_dir.synced_lsn,
        on_synced=lambda lsn: None,
        on_failed=lambda error: None,
        segment_bytes=8192,
    )


def test_a_new_directory_has_an_identity_that_stays() -> None:
    disk = FakeDisk()
    first = open_dir(disk)
    assert first.is_new and len(first.uuid) == 16 and first.cluster_id == b""
    first.set_cluster_id(b"c" * 16)
    first.set_lmdb_engine("lmdb-0.9")
    again = open_dir(disk.power_cut())
    assert not again.is_new and again.uuid == first.uuid and again.replica_id == 1
    assert (again.cluster_id, again.lmdb_engine) == (b"c" * 16, "lmdb-0.9")
    assert open_log(disk, first).recovered.is_new
    assert open_dir(FakeDisk()).uuid != first.uuid


def test_one_process_at_a_time() -> None:
    disk = FakeDisk()
    first = open_dir(disk)
    with pytest.raises(DataDirRefusedError, match=f"in use by process {os.getpid()}"):
        open_dir(disk)
    first.close()
    open_dir(disk).close()


def test_a_refused_start_gives_the_lock_back() -> None:
    disk = FakeDisk()
    open_dir(disk).close()
    with pytest.raises(DataDirRefusedError):
        open_dir(disk, replica_id=2)
    open_dir(disk).close()


def test_another_replicas_directory_is_refused() -> None:
    disk = FakeDisk()
    open_dir(disk)
    with pytest.raises(DataDirRefusedError, match="belongs to replica 1, this is replica 2"):
        open_dir(disk.kill(), replica_id=2)


@pytest.mark.parametrize("others", [(), (1,), (1, 2), (1, 2, 4), (1, 2, 3, 4)])
def test_a_directory_of_other_members_is_refused(others: tuple[int, ...]) -> None:
    """Above all a member of three that is started alone: it would be its own majority."""
    disk = FakeDisk()
    open_dir(disk, members=(3, 1, 2)).close()
    named = ", ".join(map(str, others or (1,)))
    with pytest.raises(
        DataDirRefusedError,
        match=f"of the replicas 1, 2, 3; this start .* of the replicas {named}. Start with the",
    ):
        open_dir(disk, members=others)
    open_dir(disk, members={2: "host:2", 1: "host:1", 3: "host:3"}).close()


def test_a_cluster_of_one_stays_one() -> None:
    disk = FakeDisk()
    open_dir(disk).close()
    assert decode_meta(disk.read(META), META).members == (1,)
    open_dir(disk, members=(1,)).close()
    with pytest.raises(DataDirRefusedError, match="of the replicas 1; this start"):
        open_dir(disk, members=(1, 2, 3))


def test_a_meta_that_names_no_members_is_refused() -> None:
    disk = FakeDisk()
    open_dir(disk).close()
    body = b'{"format": 1, "replica_id": 1, "uuid": "%s", "has_log": true}' % (b"00" * 16)
    disk.put(META, b"coordsvc-meta %08x\n%s" % (crc32(body), body))
    with pytest.raises(CorruptionError, match="members"):
        open_dir(disk)


def write_and_close(disk: FakeDisk, payload: bytes) -> None:
    """A start, a write, a clean stop."""
    data_dir = open_dir(disk)
    wal = open_log(disk, data_dir)
    wal.append_entry(payload, len(wal.recovered.entries) + 1, 1)
    executor = wal._executor
    assert isinstance(executor, ManualExecutor)
    wal.close(lambda: data_dir.set_synced_lsn(wal.synced_lsn))
    executor.run_all()
    data_dir.close()


def test_after_a_clean_stop_a_log_that_ends_earlier_is_refused() -> None:
    disk = FakeDisk()
    write_and_close(disk, b"first")
    older = disk.read(SEGMENT)
    write_and_close(disk, b"second")
    assert open_dir(disk.power_cut()).synced_lsn == 2
    with_older = disk.power_cut()
    with_older.put(SEGMENT, older)
    zeroed_tail = disk.power_cut()
    zeroed_tail.put(SEGMENT, disk.read(SEGMENT)[:1024].ljust(len(older), b"\0"))
    for lost in (with_older, zeroed_tail):
        with pytest.raises(CorruptionError, match="ends at LSN 1, but had been synced up to 2"):
            open_log(lost, open_dir(lost))
    assert len(open_log(disk, open_dir(disk)).recovered.entries) == 2


def test_how_far_the_log_was_synced_never_falls() -> None:
    disk = FakeDisk()
    data_dir = open_dir(disk)
    data_dir.set_synced_lsn(7)
    data_dir.set_synced_lsn(5)
    assert open_dir(disk.power_cut()).synced_lsn == 7
    before = len(disk.operations)
    data_dir.set_synced_lsn(7)
    assert len(disk.operations) == before, "nothing to write"


def test_another_clusters_directory_is_refused() -> None:
    data_dir = open_dir(FakeDisk())
    data_dir.set_cluster_id(b"a" * 16)
    data_dir.set_cluster_id(b"a" * 16)
    with pytest.raises(DataDirRefusedError, match=f"{'61' * 16}, not to {'62' * 16}"):
        data_dir.set_cluster_id(b"b" * 16)
    data_dir.set_lmdb_engine("lmdb-0.9")
    with pytest.raises(DataDirRefusedError, match=r"lmdb-0\.9; this process has lmdb-1\.0"):
        data_dir.set_lmdb_engine("lmdb-1.0")


def test_a_newer_format_is_refused() -> None:
    disk = FakeDisk()
    open_dir(disk)
    meta = decode_meta(disk.read(META), META)
    disk = disk.kill()
    newer = encode_meta(meta).replace(b'"format": 1', b'"format": 2')
    body = newer.partition(b"\n")[2]
    disk.put(META, b"coordsvc-meta %08x\n%s" % (crc32(body), body))
    with pytest.raises(DataDirRefusedError, match="has format 2; this version knows up to 1"):
        open_dir(disk)


def test_every_bit_flip_in_meta_is_refused() -> None:
    disk = FakeDisk()
    open_dir(disk)
    for bit in range(len(disk.read(META)) * 8):
        with pytest.raises(CorruptionError, match="META"):
            open_dir(disk.flip_bit(META, bit))


def test_a_missing_meta_or_log_is_no_new_directory() -> None:
    disk = FakeDisk()
    open_log(disk, open_dir(disk))
    without_meta = disk.kill()
    without_meta.unlink(META)
    with pytest.raises(CorruptionError, match="META is damaged at byte 0: it is missing"):
        open_dir(without_meta)
    without_log = disk.kill()
    without_log.unlink(SEGMENT)
    with pytest.raises(CorruptionError, match="the log is missing"):
        open_dir(without_log)


def test_a_crash_at_every_step_of_the_first_start() -> None:
    """The next start succeeds, with one identity for META and log."""
    steps = 0
    while True:
        disk = FakeDisk()
        disk.crash_at(steps, torn_write_bytes=10)
        try:
            open_log(disk, open_dir(disk))
            break
        except SimulatedCrash:
            steps += 1
        counts = range(disk.unsynced_names + 1)
        cuts = [disk.power_cut(disk.dirty_sectors(), range(count)) for count in counts]
        for after in [disk.kill(), disk.power_cut(), *cuts]:
            assert open_log(after, open_dir(after)).recovered.is_new
    assert steps > 10


def test_a_crash_while_meta_is_replaced_leaves_the_old_or_the_new() -> None:
    seen = set()
    for steps in range(8):
        disk = FakeDisk()
        data_dir = open_dir(disk)
        disk.crash_at(len(disk.operations) + steps, torn_write_bytes=20)
        try:
            data_dir.set_cluster_id(b"c" * 16)
        except SimulatedCrash:
            pass
        for names in range(disk.unsynced_names + 1):
            for kept in ([], disk.dirty_sectors()):
                seen.add(open_dir(disk.power_cut(kept, range(names))).cluster_id)
        seen.add(open_dir(disk.kill()).cluster_id)
    assert seen == {b"", b"c" * 16}


def test_faults_of_the_disk_are_typed() -> None:
    for number, error_class in ((errno.EIO, DiskError), (errno.ENOSPC, DiskFullError)):
        disk = FakeDisk()
        disk.fail("pwrite", 2, number)
        with pytest.raises(error_class) as raised:
            open_dir(disk)
        assert type(raised.value) is error_class


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("operation", ["make_dir", "create"])
def test_a_directory_that_cannot_be_written_is_refused(operation: str, number: int) -> None:
    disk = FakeDisk()
    disk.fail(operation, 1, number)
    with pytest.raises(DataDirRefusedError, match="cannot be used"):
        open_dir(disk)


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataDirRefusedError, match="cannot be used"):
            DataDir.open(str(path), 1, FileSystem())


def test_the_lock_is_the_operating_systems(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "b")
    first = DataDir.open(path, 1, FileSystem())
    with pytest.raises(DataDirRefusedError, match=f"in use by process {os.getpid()}"):
        DataDir.open(path, 1, FileSystem())
    first.close()
    again = DataDir.open(path, 1, FileSystem())
    assert again.uuid == first.uuid
    again.close()
    assert (tmp_path / "a" / "b" / "META").read_text().startswith("coordsvc-meta ")
