"""Moving on to the next segment, dropping old ones, and the space kept for both."""

from __future__ import annotations

import errno

import pytest

from coordsvc.storage import wal_spare
from coordsvc.storage.errors import CorruptionError, DiskError, DiskFullError
from coordsvc.storage.wal_format import SECTOR_BYTES
from coordsvc.testing.fake_disk import FakeDisk, Operation, SimulatedCrash
from tests.unit.storage.wal_bench import DIRECTORY, SEGMENT_BYTES, Bench, segment_path

ROOM = SEGMENT_BYTES - 3 * SECTOR_BYTES
"""What records can take of a segment: all but its header and the places for two markers."""


def fill(bench: Bench, segments: int) -> None:
    """Write until the log is in this segment."""
    while bench.wal.statistics().segments < segments:
        bench.write(b"x" * 1900)


def test_the_log_moves_on_and_reads_back() -> None:
    bench = Bench()
    bench.change("set_voter", True)
    bench.change("set_hard_state", 7, "3")
    fill(bench, 4)
    bench.change("truncate_from", bench.last_index - 3)  # also across a segment's beginning
    bench.write(b"y")
    bench = bench.reopen(bench.disk.power_cut(bench.disk.dirty_sectors()))
    assert bench.wal.statistics().segments == 4
    fill(bench, 6)
    bench.close()
    assert not bench.reopen(bench.disk.kill()).wal.recovered.ambiguous_cut


@pytest.mark.parametrize("torn_write_bytes", [300, 30])
def test_a_crash_at_every_step_of_a_switch(torn_write_bytes: int) -> None:
    """One group that crosses into the next segment, with a kill and power cuts at each step."""

    def prepare() -> Bench:
        bench = Bench()
        bench.change("set_hard_state", 2, "1")
        bench.write(b"a" * (ROOM - 3000))
        bench.executor.run_all()
        for payload in (b"b" * 1000, b"c" * 3000, b"d" * 10):
            bench.append(payload, term=2)
        bench.wal.flush()
        return bench

    steps = 0
    while True:
        bench = prepare()
        bench.disk.crash_at(len(bench.disk.operations) + steps, torn_write_bytes)
        try:
            bench.executor.run_all()
            break
        except SimulatedCrash:
            steps += 1
        for disk in (bench.disk.kill(), bench.reopen(bench.disk.kill()).disk.power_cut()):
            again = bench.reopen(disk)
            again.write(b"goes on")
            again.reopen(again.disk.power_cut())
        sectors = bench.disk.dirty_sectors()
        for names in range(bench.disk.unsynced_names + 1):
            for kept in ([], sectors, sectors[::2], sectors[1::2]):
                again = bench.reopen(bench.disk.power_cut(kept, range(names)))
                again.write(b"goes on")
                again.reopen(again.disk.power_cut())
    assert steps > 8 and bench.wal.statistics().segments == 2


def test_everything_of_the_old_segment_is_on_disk_before_the_new_one_begins() -> None:
    bench = Bench()
    fill(bench, 2)
    names = [
        (operation.name, operation.file_path.rpartition("/")[2])
        for operation in bench.disk.operations
    ]
    renamed = names.index(("rename", "0000000000000002.wal"))
    assert names[renamed + 1] == ("fsync_dir", "wal")
    assert names[renamed - 1] == ("fdatasync", "spare.tmp")
    assert names[renamed - 2] == ("pwrite", "spare.tmp"), "the header"
    old = [n for n, item in enumerate(names[:renamed]) if item[1] == "0000000000000001.wal"]
    assert names[old[-1]][0] == "fdatasync"


@pytest.mark.parametrize("size", [ROOM - 61, ROOM - 60, 3 * SEGMENT_BYTES])
def test_an_entry_as_large_as_a_segment_or_larger(size: int) -> None:
    bench = Bench()
    bench.write(b"small")
    bench.write(b"L" * size)
    bench.write(b"small again")
    assert bench.failures == []
    again = bench.reopen(bench.disk.power_cut())
    assert again.wal.end_lsn == 3
    again.write(b"L" * size)
    again.reopen(again.disk.power_cut())


def test_a_group_of_many_segments() -> None:
    bench = Bench()
    bench.write(*[b"m" * 4800] * 20)
    assert bench.synced == [20] and bench.wal.statistics().segments == 7
    bench.reopen(bench.disk.power_cut())


def test_a_smaller_segment_size_than_before() -> None:
    bench = Bench()
    bench.write(b"x" * 9000)
    again = bench.reopen(bench.disk.kill(), segment_bytes=2048)
    again.write(b"y" * 900)
    again.reopen(again.disk.kill(), segment_bytes=2048)


def test_the_spare_is_filled_between_groups_and_is_ready_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wal_spare, "PIECE_BYTES", SEGMENT_BYTES // 2)
    bench = Bench()
    bench.write(b"x" * 2000)
    assert bench.disk.operations[-1].file_path == segment_path(1), "not before it is needed"
    while bench.wal.statistics().segments == 1:
        bench.append(b"x" * 2000)
        bench.wal.flush()
        before = len(bench.disk.operations)
        bench.executor.run_next()
    switch = [(o.name, o.file_path.rpartition("/")[2]) for o in bench.disk.operations[before:]]
    assert switch.count(("pwrite", "spare.tmp")) == 1, f"more than the header: {switch}"
    # A group that is waiting is never behind more than one piece of the spare's.
    bench.append()
    bench.wal.flush()
    assert len(bench.executor.jobs) <= 2


def test_a_segment_is_all_zeros_beyond_what_was_written() -> None:
    """Also when the file was used before: an old spare, or what a crash left of a recovery."""
    bench = Bench()
    disk = bench.disk.power_cut()
    disk.put(f"{DIRECTORY}/spare.tmp", b"\xc5WL\x01" * (SEGMENT_BYTES // 4))
    bench = bench.reopen(disk)
    assert bench.disk.read(segment_path(1)).rstrip(b"\0").count(b"\xc5WL\x01") == 1
    bench.write(b"a")
    bench.reopen(bench.disk.power_cut())


def test_a_disk_without_room_for_a_spare_works_until_the_segment_is_full() -> None:
    disk = FakeDisk()
    disk.capacity_bytes = SEGMENT_BYTES + 2048
    bench = Bench(disk)
    assert bench.wal.statistics().is_space_low
    for _ in range(7):
        bench.write(b"x" * 1900)
    assert bench.synced[-1] == 7 and not bench.failures
    bench.write(b"x" * 1900)
    assert isinstance(bench.failures[0], DiskFullError) and bench.synced[-1] == 7
    disk = bench.disk.kill()
    disk.capacity_bytes = None
    again = bench.reopen(disk)
    assert again.wal.end_lsn == 7 and not again.wal.recovered.ambiguous_cut


def test_a_spare_that_fails_otherwise_fails_the_log() -> None:
    bench = Bench()
    bench.disk.fail("allocate", 1, errno.EIO)
    fill(bench, 2)
    assert isinstance(bench.failures[0], DiskError), "at once, not when the segment is full"


def test_dropping_keeps_every_entry_asked_for() -> None:
    bench = Bench()
    bench.change("set_voter", True)
    bench.change("set_hard_state", 1, "2")
    fill(bench, 6)
    last = bench.last_index
    for index in range(0, last + 2):
        bench.wal.drop_before(index)
        bench.executor.run_all()
        recovered = Bench(bench.disk.power_cut()).wal.recovered
        assert recovered.base_index < max(index, 1)
        expected = bench.expected(len(bench.changes)).entries[recovered.base_index :]
        assert recovered.entries == expected
        assert (recovered.voter, recovered.term, recovered.voted_for) == (True, 1, "2")
        assert recovered.base_term == (1 if recovered.base_index else 0)
    assert bench.wal.statistics().segments == 1, "all that could go have gone"


def test_a_crash_while_dropping_leaves_a_log_without_a_gap() -> None:
    for steps in range(6):
        bench = Bench()
        fill(bench, 4)
        bench.disk.crash_at(len(bench.disk.operations) + steps)
        bench.wal.drop_before(bench.last_index)
        with pytest.raises(SimulatedCrash):
            bench.executor.run_all()
            raise SimulatedCrash
        unsynced = range(bench.disk.unsynced_names)
        cuts = [bench.disk.power_cut((), [number]) for number in unsynced]
        for disk in [bench.disk.kill(), bench.disk.power_cut(), *cuts]:
            recovered = Bench(disk).wal.recovered
            entries = bench.expected(len(bench.changes)).entries
            assert recovered.entries == entries[recovered.base_index :]


def test_damage_to_a_closed_segment_is_refused() -> None:
    bench = Bench()
    fill(bench, 3)
    size = len(bench.disk.read(segment_path(1)))
    for bit in range(0, size * 8, 101):  # the unused rest included: nothing may have touched it
        with pytest.raises(CorruptionError) as raised:
            Bench(bench.disk.flip_bit(segment_path(1), bit))
        assert raised.value.file_path == segment_path(1)


def test_a_header_is_never_a_torn_write() -> None:
    bench = Bench()
    fill(bench, 2)
    for bit in range(0, SECTOR_BYTES * 8, 3):
        with pytest.raises(CorruptionError):
            Bench(bench.disk.flip_bit(segment_path(2), bit))


def test_missing_segments_are_refused() -> None:
    bench = Bench()
    fill(bench, 4)
    for segment_id in (2, 3, 4):
        disk = bench.disk.kill()
        disk.unlink(segment_path(segment_id))
        with pytest.raises(CorruptionError, match=f"{segment_path(segment_id)[-20:]}, is missing"):
            Bench(disk)


def crash_in_switch(operation: str, file_path: str) -> Bench:
    """A process killed at this operation, the first on the file after the next segment's rename."""
    bench = Bench()
    bench.write(b"a" * (ROOM - 3000))
    bench.append(b"b" * 3000)
    bench.wal.flush()
    has_name = False

    def before(at: Operation) -> None:
        nonlocal has_name
        if has_name and (at.name, at.file_path) == (operation, file_path):
            raise SimulatedCrash(at)
        has_name = has_name or at.name == "rename"

    bench.disk.before_operation = before
    with pytest.raises(SimulatedCrash):
        bench.executor.run_all()
    return bench


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync"])
def test_a_start_closes_the_older_segment_when_a_crash_left_it_open(operation: str) -> None:
    """Also when it seems closed, but the marker is in the page cache only."""
    bench = crash_in_switch(operation, segment_path(1))
    again = bench.reopen(bench.disk.kill())
    again.write(b"first in the second one")
    again = again.reopen(again.disk.power_cut())
    assert again.wal.statistics().segments == 2
    disk = again.disk.power_cut()
    disk.unlink(segment_path(2))
    with pytest.raises(CorruptionError, match="the segment after it"):
        Bench(disk)


@pytest.mark.parametrize("written", range(0, 80, 3))
def test_a_torn_closing_marker_is_written_again(written: int) -> None:
    bench = crash_in_switch("pwrite", segment_path(1))
    closed = Bench(bench.disk.kill()).disk.read(segment_path(1))
    end = len(closed.rstrip(b"\0")) // SECTOR_BYTES * SECTOR_BYTES
    disk = bench.disk.kill()
    disk.put(segment_path(1), closed[: end + written].ljust(len(closed), b"\0"))
    again = bench.reopen(disk)
    assert not again.wal.recovered.ambiguous_cut
    assert again.disk.power_cut().read(segment_path(1)) == closed
    disk.put(segment_path(1), closed[: end + SECTOR_BYTES].ljust(len(closed), b"x"))
    with pytest.raises(CorruptionError, match="a closed segment was changed"):
        Bench(disk)


def test_a_closed_segment_that_lost_its_marker_is_refused() -> None:
    bench = Bench()
    fill(bench, 2)
    data = bench.disk.read(segment_path(1))
    end = len(data.rstrip(b"\0")) // SECTOR_BYTES * SECTOR_BYTES
    disk = bench.disk.kill()
    disk.put(segment_path(1), data[:end].ljust(len(data), b"\0"))
    with pytest.raises(CorruptionError, match="the marker that closed it") as raised:
        Bench(disk)
    assert raised.value.file_path == segment_path(1) and disk.operations == []


def test_there_is_room_for_the_closing_marker_whatever_came_before() -> None:
    """A segment filled to the last byte, marked while idle, opened again, and left."""
    for size in range(ROOM - 61 - 4 * SECTOR_BYTES, ROOM - 60, SECTOR_BYTES // 2):
        bench = Bench()
        bench.write(b"a" * size)
        bench.timers.advance(1.0)
        bench.executor.run_all()
        bench.write(b"b" * SECTOR_BYTES)
        bench = bench.reopen(bench.disk.power_cut())
        for _ in range(3):
            bench.write(b"c" * SECTOR_BYTES)
            bench.timers.advance(1.0)
            bench.executor.run_all()
        assert not bench.failures
        again = bench.reopen(bench.disk.power_cut())
        assert again.wal.statistics().segments == 2 and not again.wal.recovered.ambiguous_cut


def test_a_segment_of_another_length_is_refused() -> None:
    """The last one, those before it, and one made larger for its first entry."""
    bench = Bench()
    bench.write(b"small")
    bench.write(b"L" * 2 * SEGMENT_BYTES)
    bench.write(b"small")
    for segment_id in (1, 2, 3):
        data = bench.disk.read(segment_path(segment_id))
        assert (len(data) > SEGMENT_BYTES) == (segment_id == 2)
        for content in (b"", data[: 2 * SECTOR_BYTES], data[:-1], data + b"\0"):
            disk = bench.disk.kill()
            disk.put(segment_path(segment_id), content)
            with pytest.raises(CorruptionError) as raised:
                Bench(disk)
            assert raised.value.file_path == segment_path(segment_id)


def test_an_older_copy_of_a_closed_segment_is_refused() -> None:
    bench = Bench()
    bench.write(b"first")
    old = bench.disk.read(segment_path(1))
    fill(bench, 2)
    disk = bench.disk.kill()
    disk.put(segment_path(1), old)
    with pytest.raises(CorruptionError, match="ends at LSN 1"):
        Bench(disk)


def test_a_segment_under_another_ones_name_is_refused() -> None:
    bench = Bench()
    bench.write(b"a")
    disk = bench.disk.kill()
    disk.rename(segment_path(1), segment_path(2))
    with pytest.raises(CorruptionError):
        Bench(disk)


def test_files_that_are_no_segments_are_left_alone() -> None:
    bench = Bench()
    bench.write(b"a")
    disk = bench.disk.kill()
    for name in ("7.wal", "0000000000000001.wal.bak", "notes.txt"):
        disk.put(f"{DIRECTORY}/{name}", b"mine")
    bench.reopen(disk)
    assert disk.read(f"{DIRECTORY}/7.wal") == b"mine"
