"""The log's promises while it runs: groups, positions, markers, failures, close."""

from __future__ import annotations

import errno

import pytest

from coordsvc.storage.errors import CorruptionError, DiskError, DiskFullError, StorageError
from coordsvc.storage.wal import MARKER_DELAY_SECONDS, Wal
from coordsvc.storage.wal_format import SECTOR_BYTES
from coordsvc.testing.fake_disk import FakeDisk
from coordsvc.testing.manual_loop import ManualExecutor
from tests.unit.storage.wal_bench import Bench, segment_path


def syncs(bench: Bench) -> int:
    return sum(operation.name == "fdatasync" for operation in bench.disk.operations)


def test_a_new_log_is_empty_and_says_so() -> None:
    recovered = Bench().wal.recovered
    assert recovered.is_new and not recovered.entries and not recovered.voter
    assert (recovered.base_index, recovered.term, recovered.voted_for) == (0, 0, None)


def test_everything_recorded_is_recovered() -> None:
    bench = Bench()
    bench.change("set_voter", True)
    bench.change("set_hard_state", 3, "2")
    bench.write(b"a", b"", b"\0" * 700)
    bench.change("truncate_from", 2)
    bench.append(b"other", term=3)
    bench.sync()
    bench.close()
    again = bench.reopen(bench.disk)
    assert [entry[0] for entry in again.wal.recovered.entries] == [b"a", b"other"]
    assert not again.wal.recovered.is_new and not again.wal.recovered.ambiguous_cut


def test_nothing_is_acknowledged_before_its_sync() -> None:
    bench = Bench()
    bench.append()
    assert (bench.wal.end_lsn, bench.wal.synced_lsn) == (1, 0)
    bench.wal.flush()
    assert bench.synced == []
    bench.executor.start()
    assert bench.synced == [], "the disk is done, but the loop has not been told"
    bench.executor.finish()
    assert bench.synced == [1] and bench.wal.synced_lsn == 1


def test_what_comes_during_a_sync_goes_as_one_group_with_one_sync() -> None:
    bench = Bench()
    bench.append()
    bench.wal.flush()
    for _ in range(5):
        bench.append()
        bench.wal.flush()
    assert len(bench.executor.jobs) == 1
    before = syncs(bench)
    bench.executor.run_next()
    assert bench.synced == [1] and len(bench.executor.jobs) == 1
    bench.executor.run_next()
    assert bench.synced == [1, 6] and not bench.executor.jobs
    assert syncs(bench) == before + 2


def test_what_was_not_flushed_waits_for_a_flush() -> None:
    bench = Bench()
    bench.append()
    bench.wal.flush()
    bench.append()
    bench.executor.run_all()
    assert bench.synced == [1] and bench.wal.synced_lsn == 1
    bench.sync()
    assert bench.synced == [1, 2]


def test_positions_only_grow_and_truncation_has_one() -> None:
    bench = Bench()
    bench.append()
    bench.append()
    bench.change("truncate_from", 1)
    assert bench.wal.end_lsn == 3
    bench.change("set_hard_state", 1, None)
    bench.change("set_voter", True)
    assert bench.wal.end_lsn == 5
    bench.sync()
    assert bench.reopen(bench.disk.kill()).wal.end_lsn == 5


def test_the_first_entry_sets_the_base_when_the_log_is_new() -> None:
    """The library's log starts from an entry 1 that all replicas take for granted."""
    bench = Bench()
    bench.change("append_entry", b"first", 2, 0)
    bench.sync()
    recovered = bench.reopen(bench.disk.kill()).wal.recovered
    assert (recovered.base_index, recovered.base_term) == (1, 0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("append_entry", (b"", 4, 1)),
        ("append_entry", (b"", 2, 1)),
        ("append_entry", (b"", 3, 0)),
        ("truncate_from", (3,)),
        ("truncate_from", (0,)),
        ("set_hard_state", (4, "1")),
        ("set_hard_state", (5, "2")),
        ("set_hard_state", (5, None)),
    ],
)
def test_a_record_that_cannot_follow_is_refused(name: str, arguments: tuple[object, ...]) -> None:
    bench = Bench()
    bench.write(b"a", b"b")
    bench.wal.set_hard_state(5, "1")
    with pytest.raises(ValueError):
        getattr(bench.wal, name)(*arguments)
    assert bench.wal.end_lsn == 3


def test_a_marker_follows_after_a_pause_and_only_one() -> None:
    bench = Bench()
    bench.write(b"a")
    before = syncs(bench)
    bench.timers.advance(MARKER_DELAY_SECONDS / 2)
    bench.write(b"b")
    bench.timers.advance(MARKER_DELAY_SECONDS * 0.75)
    bench.executor.run_all()
    assert syncs(bench) == before + 1, "20 ms have not passed since the last write"
    bench.timers.advance(MARKER_DELAY_SECONDS / 2)
    bench.executor.run_all()
    assert syncs(bench) == before + 2
    bench.timers.advance(1.0)
    bench.executor.run_all()
    assert syncs(bench) == before + 2 and not bench.timers.timers
    assert bench.synced == [1, 2], "a marker acknowledges nothing new"


def test_a_write_during_the_marker_is_not_lost() -> None:
    bench = Bench()
    bench.write(b"a")
    bench.timers.advance(MARKER_DELAY_SECONDS)
    assert len(bench.executor.jobs) == 1
    bench.append(b"b")
    bench.wal.flush()
    bench.executor.run_all()
    assert bench.synced == [1, 2]
    bench.timers.advance(MARKER_DELAY_SECONDS)
    assert len(bench.executor.jobs) == 1, "the new write gets its own marker"


def test_close_flushes_marks_and_releases() -> None:
    bench = Bench()
    bench.append(b"a")
    bench.wal.flush()
    bench.append(b"b")
    bench.close()
    assert bench.synced == [1, 2]
    again = bench.reopen(bench.disk.power_cut())
    assert not again.wal.recovered.ambiguous_cut
    second_batch = 2 * SECTOR_BYTES
    with pytest.raises(CorruptionError):  # not taken for a torn write: the marker says so
        Bench(bench.disk.flip_bit(segment_path(1), second_batch * 8 + 5))
    with pytest.raises(StorageError):
        bench.wal.flush()


def test_statistics() -> None:
    bench = Bench()
    bench.timers.advance(5.0)
    assert bench.wal.statistics().pending_since is None
    bench.append()
    bench.wal.flush()
    bench.timers.advance(1.0)
    assert bench.wal.statistics().pending_since == 5.0
    bench.executor.run_all()
    statistics = bench.wal.statistics()
    assert (statistics.fsyncs_total, statistics.segments) == (1, 1)
    assert statistics.bytes_written_total == 512 and statistics.pending_since is None
    assert not statistics.is_space_low


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("operation", ["fdatasync", "pwrite"])
def test_after_a_disk_error_nothing_is_acknowledged(operation: str, nth: int) -> None:
    bench = Bench()
    bench.disk.fail(operation, nth)
    for _ in range(nth - 1):
        bench.write(b"x")
    acknowledged = bench.wal.synced_lsn
    bench.append()
    bench.wal.flush()
    bench.append()
    bench.wal.flush()
    bench.executor.run_all()
    bench.disk.before_operation = None  # the kernel reports an error once
    with pytest.raises(DiskError) as raised:
        bench.sync()
    assert bench.failures == [raised.value], "told once, with the error that flush raises"
    assert not isinstance(raised.value, DiskFullError)
    bench.timers.advance(1.0)
    bench.executor.run_all()
    assert bench.wal.synced_lsn == acknowledged == max(bench.synced, default=0)
    operations = len(bench.disk.operations)
    bench.close()
    assert len(bench.disk.operations) == operations, "not even a marker is written any more"


def test_a_failed_marker_fails_the_log() -> None:
    bench = Bench()
    bench.write(b"a")
    bench.disk.fail("fdatasync", 1)
    bench.timers.advance(MARKER_DELAY_SECONDS)
    bench.executor.run_all()
    assert len(bench.failures) == 1
    with pytest.raises(DiskError):
        bench.wal.flush()


def test_a_sync_under_way_when_another_job_fails_is_not_acknowledged() -> None:
    bench = Bench()
    bench.append()
    bench.wal.drop_before(1)
    bench.executor.jobs[0] = (lambda: 1 / 0, bench.executor.jobs[0][1])
    bench.wal.flush()
    bench.executor.run_all()
    assert bench.synced == [] and len(bench.failures) == 1


def test_only_the_first_failure_is_told() -> None:
    bench = Bench()
    bench.write(b"a")
    bench.disk.fail("fdatasync", 1)
    bench.append()
    bench.wal.flush()
    bench.wal.drop_before(1)
    bench.executor.jobs[1] = (lambda: 1 / 0, bench.executor.jobs[1][1])
    bench.executor.run_all()
    assert len(bench.failures) == 1 and isinstance(bench.failures[0], DiskError)


def test_a_full_disk_has_an_error_of_its_own() -> None:
    bench = Bench()
    bench.disk.fail("pwrite", 1, errno.ENOSPC)
    bench.append()
    bench.sync()
    assert isinstance(bench.failures[0], DiskFullError)


@pytest.mark.parametrize("limit", [1, 100, 511, 512, 513])
def test_short_writes_are_continued(limit: int) -> None:
    disk = FakeDisk()
    bench = Bench(disk)
    disk.pwrite_bytes_max = limit
    bench.write(b"a" * 1000, b"b" * 300)
    again = bench.reopen(disk.power_cut())
    assert again.wal.end_lsn == 2 and not again.wal.recovered.ambiguous_cut


def test_segment_size_is_checked() -> None:
    for size in (1000, 1024):
        with pytest.raises(ValueError, match="segment_bytes"):
            Wal.open(
                "/data/wal",
                files=FakeDisk(),
                executor=ManualExecutor(),
                identity=bytes(16),
                replica_id=1,
                on_synced=lambda lsn: None,
                on_failed=lambda error: None,
                segment_bytes=size,
            )
