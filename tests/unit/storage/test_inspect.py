"""`inspect` shows what is there, changes nothing, and gives away no secret."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from coordsvc.core.commands import (
    ENTRY_PREFIX,
    AddAuthOp,
    AuthId,
    Batch,
    Caller,
    CheckOp,
    CloseSessionOp,
    CollectContainer,
    CreateOp,
    DeleteOp,
    Entry,
    ExpireSession,
    InitCluster,
    MultiOp,
    OpenSession,
    RegisterOrigin,
    SetDataOp,
    Write,
)
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.errors import DiskError, StorageError
from coordsvc.storage.files import FileSystem
from coordsvc.storage.inspect import InspectReport, inspect, render_text, to_dict
from coordsvc.storage.meta import META_FORMAT, decode_meta, encode_meta
from coordsvc.storage.start import open_storage
from coordsvc.storage.wal import Wal
from coordsvc.testing.fake_disk import FakeDisk
from coordsvc.testing.manual_loop import ManualExecutor

PATH = "/srv/data"
SEGMENT = PATH + "/wal/0000000000000001.wal"

ENTRY = ENTRY_PREFIX + msgspec.msgpack.encode(
    Entry(
        time_ms=1,
        clock_ms=1,
        batches=(
            Batch(2, 9, 4, (OpenSession(4000, b"PASSWORD", "app"),)),
            Batch(3, 0, 0, (RegisterOrigin(3, b"NONCE"),)),
            Batch(
                3,
                9,
                5,
                (
                    Write(Caller(session_id=26, request_number=7), CreateOp("/a", b"DATA")),
                    Write(Caller(), SetDataOp("/b", None, 3)),
                    Write(Caller(), MultiOp((CheckOp("/c"), DeleteOp("/d")))),
                    Write(Caller(), AddAuthOp((AuthId("digest", "user:HASH"),))),
                    Write(Caller(session_id=26), CloseSessionOp()),
                ),
            ),
        ),
        leader_commands=(
            ExpireSession(5, 26, 1),
            CollectContainer(5, "/e", 0),
            InitCluster(5, b"\xab" * 16),
        ),
    )
)


def write_log(path: str, files: FakeDisk | FileSystem) -> None:
    data_dir = DataDir.open(path, 7, files, members=(5, 6, 7))
    data_dir.set_cluster_id(b"c" * 16)
    executor = ManualExecutor()
    wal = Wal.open(
        data_dir.wal_path,
        files=files,
        executor=executor,
        identity=data_dir.uuid,
        replica_id=7,
        on_synced=lambda lsn: None,
        on_failed=lambda error: None,
        segment_bytes=8192,
    )
    wal.set_voter(True)
    wal.set_hard_state(5, "2")
    for index, payload in enumerate((b"\x01", ENTRY, b"garbage", *[b"z" * 3000] * 4), start=2):
        wal.append_entry(payload, index, 5)
        wal.flush()
        executor.run_all()
    wal.close(lambda: data_dir.set_synced_lsn(wal.synced_lsn))
    executor.run_all()
    data_dir.close()


def inspected(disk: FakeDisk, *, list_entries: bool = False) -> InspectReport:
    before = len(disk.operations)
    report = inspect(PATH, list_entries=list_entries, files=disk)
    assert len(disk.operations) == before, "something was changed"
    return report


def test_everything_is_shown() -> None:
    disk = FakeDisk()
    write_log(PATH, disk)
    report = inspected(disk)
    log = report.log
    assert report.meta is not None and report.meta.replica_id == 7
    assert report.meta.members == (5, 6, 7) and report.meta.synced_lsn == 9
    assert "members         5, 6, 7\n" in render_text(report)
    assert (log.base_index, log.last_index, log.entries_count) == (1, 8, 7)
    assert (log.term, log.voted_for, log.voter, log.last_term) == (5, "2", True, 5)
    assert not log.ambiguous_cut and report.problems == ()
    assert [segment.file_name[-5] for segment in report.segments] == ["1", "2", "3"]
    first, second, third = report.segments
    assert (first.start_lsn, first.end_lsn, third.end_lsn) == (0, second.start_lsn, 9)
    assert report.other_files == ("spare.tmp",) and report.entries == ()


def test_entries_are_listed_without_secrets() -> None:
    disk = FakeDisk()
    write_log(PATH, disk)
    report = inspected(disk, list_entries=True)
    assert [entry.index for entry in report.entries] == list(range(2, 9))
    assert report.entries[0].commands == ("no-op",)
    assert report.entries[2].commands == ("not readable by this version (7 bytes)",)
    assert report.entries[1].commands == (
        "replica 2 seq 4: open session timeout_ms=4000 client_name='app'",
        "replica 3 seq 0: register replica 3",
        "replica 3 seq 5: create /a mode=0 data=4B session_id=0x1a request_number=7",
        "replica 3 seq 5: set data /b version=3 data=null",
        "replica 3 seq 5: multi [check /c version=-1; delete /d version=-1]",
        "replica 3 seq 5: add auth schemes=digest",
        "replica 3 seq 5: close session session_id=0x1a request_number=0",
        "leader: expire session term=5 session_id=0x1a",
        "leader: collect container term=5 /e",
        f"leader: init cluster term=5 cluster_id={'ab' * 16}",
    )
    for text in (render_text(report), json.dumps(to_dict(report))):
        assert "/d version=-1" in text and "0000000000000002.wal" in text
        for secret in ("PASSWORD", "NONCE", "HASH", "DATA"):
            assert secret not in text


def test_a_torn_end_is_shown_and_left() -> None:
    disk = FakeDisk()
    write_log(PATH, disk)
    path = PATH + "/wal/0000000000000003.wal"
    data = bytearray(disk.read(path))
    end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    data[end : end + 3] = b"abc"
    disk.put(path, bytes(data))
    report = inspected(disk)
    assert report.log.ambiguous_cut and report.problems == ()
    assert report.segments[2].damaged_at == end
    assert "a write is incomplete" in render_text(report)


def test_damage_is_shown_with_all_that_came_before() -> None:
    disk = FakeDisk()
    write_log(PATH, disk)
    report = inspected(disk.flip_bit(SEGMENT, 1600 * 8))
    assert len(report.problems) == 1 and SEGMENT in report.problems[0]
    assert 0 < report.log.entries_count < 7 and not report.log.ambiguous_cut
    assert len(report.segments) == 3, "those after it too"
    assert "problem" in render_text(report)


@pytest.mark.parametrize("name", ["META", "wal/0000000000000001.wal"])
def test_a_damaged_or_missing_file_does_not_stop_it(name: str) -> None:
    disk = FakeDisk()
    write_log(PATH, disk)
    report = inspected(disk.flip_bit(f"{PATH}/{name}", 9))
    assert len(report.problems) == 1
    missing = disk.kill()
    missing.unlink(f"{PATH}/{name}")
    report = inspected(missing)
    assert report.log.entries_count > 0, "what is left is shown"
    if name == "META":
        assert report.meta is None and report.problems == (f"{PATH}/META is missing",)
    assert render_text(report)


def would_start(disk: FakeDisk) -> bool:
    try:
        data_dir = DataDir.open(PATH, 7, disk, members=(5, 6, 7))
        open_storage(
            data_dir,
            disk,
            ManualExecutor(),
            on_synced=lambda lsn: None,
            on_failed=lambda error: None,
            segment_bytes=8192,
        )
    except StorageError:
        return False
    return True


def without(disk: FakeDisk, segment_id: int) -> FakeDisk:
    disk.unlink(SEGMENT.replace("1.wal", f"{segment_id}.wal"))
    return disk


def with_last(disk: FakeDisk, change: Callable[[bytes], bytes]) -> FakeDisk:
    path = SEGMENT.replace("1.wal", "3.wal")
    disk.put(path, change(disk.read(path)))
    return disk


def with_newer_meta(disk: FakeDisk) -> FakeDisk:
    meta = decode_meta(disk.read(PATH + "/META"), PATH)
    disk.put(PATH + "/META", encode_meta(msgspec.structs.replace(meta, format=META_FORMAT + 1)))
    return disk


def with_cut_end(disk: FakeDisk) -> FakeDisk:
    return with_last(disk, lambda data: data.rstrip(b"\0").ljust(len(data) - 1, b"\0") + b"x")


LOSSES: dict[str, tuple[Callable[[FakeDisk], FakeDisk], str]] = {
    "nothing": (lambda disk: disk, ""),
    "an incomplete write": (with_cut_end, ""),
    "first segment": (lambda disk: without(disk, 1), "its first entry follows entry 5"),
    "middle segment": (lambda disk: without(disk, 2), "the segment before it"),
    "last segment": (lambda disk: without(disk, 3), "the segment after it"),
    "last segment shortened": (
        lambda disk: with_last(disk, lambda data: data[:1024]),
        "the file has 1024 bytes",
    ),
    "last segment emptied": (
        lambda disk: with_last(disk, lambda data: b""),
        "header is unreadable",
    ),
    "tail zeroed": (
        lambda disk: with_last(disk, lambda data: data[:512] + bytes(len(data) - 512)),
        "had been synced up to 9",
    ),
    "newer format": (with_newer_meta, "has format 2"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_it_has_no_problem_exactly_with_what_a_start_accepts(loss: str) -> None:
    disk = FakeDisk()
    write_log(PATH, disk)
    spoil, problem = LOSSES[loss]
    disk = spoil(disk.kill())
    report = inspected(disk)
    assert would_start(disk) == (report.problems == ()) == (problem == "")
    assert len(report.problems) <= 1 and all(problem in text for text in report.problems)


def test_a_segment_that_a_running_replica_has_just_begun_is_not_missed() -> None:
    class Late(FakeDisk):
        def list_dir(self, dir_path: str) -> list[str]:
            return [name for name in super().list_dir(dir_path) if not name.endswith("3.wal")]

    disk = Late()
    write_log(PATH, disk)
    report = inspected(disk)
    assert report.problems == () and report.log.last_index == 8


def test_an_empty_directory_and_none() -> None:
    disk = FakeDisk()
    disk.make_dir(PATH)
    assert inspected(disk).problems == (f"{PATH}/META is missing",)
    with pytest.raises(DiskError):
        inspect(PATH + "/elsewhere", files=disk)


def test_it_says_who_has_the_directory_open(tmp_path: Path) -> None:
    files = FileSystem()
    write_log(str(tmp_path), files)
    assert inspect(str(tmp_path)).in_use_by == 0
    data_dir = DataDir.open(str(tmp_path), 7, files, members=(5, 6, 7))
    if Path("/proc/locks").exists():
        report = inspect(str(tmp_path))
        assert report.in_use_by == os.getpid()
        assert f"process {os.getpid()}" in render_text(report)
    data_dir.close()
