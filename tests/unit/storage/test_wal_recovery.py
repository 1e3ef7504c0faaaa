"""What a crash may leave, and what recovery makes of it: cut, or refuse, and never forget.

Each test enumerates every way in which one moment can end. `Bench.reopen` checks that the result is
a state the log went through, no older than what was acknowledged.
"""

from __future__ import annotations

from itertools import chain, combinations

import pytest

from coordsvc.storage.errors import CorruptionError, DataDirRefusedError, DiskError
from coordsvc.storage.wal import MARKER_DELAY_SECONDS, Wal
from coordsvc.storage.wal_format import HEADER_BYTES, RECORD_BYTES, SECTOR_BYTES
from coordsvc.storage.wal_reader import Identity
from coordsvc.storage.wal_recovery import create_log
from coordsvc.testing.fake_disk import DirtySector, FakeDisk, SimulatedCrash
from coordsvc.testing.manual_loop import ManualExecutor
from tests.unit.storage.wal_bench import DIRECTORY, SEGMENT_BYTES, UUID, Bench, segment_path

SEGMENT = segment_path(1)
PAGE_SECTORS = 8


def subsets(items: list[list[DirtySector]]) -> list[list[DirtySector]]:
    every = chain.from_iterable(combinations(items, n) for n in range(len(items) + 1))
    return [list(chain.from_iterable(chosen)) for chosen in every]


def crash_in_write(*payloads: bytes, torn_write_bytes: int | None = None) -> Bench:
    """Two acknowledged writes, then one that the crash finds written but not synced; or, with
    `torn_write_bytes`, written only so far."""
    bench = Bench()
    bench.change("set_voter", True)
    bench.change("set_hard_state", 1, "1")
    bench.write(b"first")
    bench.write(b"second")
    for payload in payloads:
        bench.append(payload)
    bench.wal.flush()
    number = len(bench.disk.operations)
    if torn_write_bytes is None:
        bench.disk.crash_at(number + 1)
    else:
        bench.disk.crash_at(number, torn_write_bytes)
    with pytest.raises(SimulatedCrash):
        bench.executor.run_all()
    assert bench.wal.synced_lsn == 4
    return bench


def test_all_subsets_of_sectors_of_the_unsynced_batch() -> None:
    bench = crash_in_write(b"x" * 2000, b"", b"y" * 1500)
    sectors = bench.disk.dirty_sectors()
    assert len(sectors) == 8
    for kept in subsets([[sector] for sector in sectors]):
        recovered = bench.reopen(bench.disk.power_cut(kept)).wal.recovered
        assert recovered.ambiguous_cut == (0 < len(kept) < len(sectors))
        assert len(recovered.entries) == (5 if len(kept) == len(sectors) else 2)


def test_all_subsets_of_pages_of_the_unsynced_batch() -> None:
    bench = Bench(segment_bytes=64 << 10)
    bench.write(b"first")
    bench.append(b"z" * 30_000)
    bench.wal.flush()
    bench.disk.crash_at(len(bench.disk.operations) + 1)
    with pytest.raises(SimulatedCrash):
        bench.executor.run_all()
    pages: dict[int, list[DirtySector]] = {}
    for sector in bench.disk.dirty_sectors():
        pages.setdefault(sector.sector // PAGE_SECTORS, []).append(sector)
    assert len(pages) == 8
    for kept in subsets(list(pages.values())):
        bench.reopen(bench.disk.power_cut(kept), segment_bytes=64 << 10)


def test_all_subsets_of_sectors_of_a_group_of_several_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coordsvc.storage.wal_writer.BATCH_BYTES_TARGET", 600)
    bench = Bench()
    bench.write(b"first")
    for _ in range(4):
        bench.append(b"x" * 500)
    bench.wal.flush()
    bench.disk.crash_at(len(bench.disk.operations) + 4)
    with pytest.raises(SimulatedCrash):
        bench.executor.run_all()
    sectors = bench.disk.dirty_sectors()
    assert len(sectors) == 8, "four batches of two sectors"
    for kept in subsets([[sector] for sector in sectors]):
        bench.reopen(bench.disk.power_cut(kept))


def test_every_prefix_of_the_last_write() -> None:
    """A process killed inside pwrite: the page cache has a prefix, torn at any byte."""
    payload = bytes(range(1, 251)) * 4
    for written in range(3 * SECTOR_BYTES + 1):
        bench = crash_in_write(payload, torn_write_bytes=written)
        again = bench.reopen(bench.disk.kill())
        whole = len(again.wal.recovered.entries) == 3
        # The padding is zeros: with only that missing the batch is whole.
        assert whole == (written >= HEADER_BYTES + RECORD_BYTES + len(payload))
        assert again.wal.recovered.ambiguous_cut == (0 < written and not whole)


def test_what_recovery_read_from_the_page_cache_is_on_disk_before_it_returns() -> None:
    """A killed process's last write may be in the page cache only. Having told the world of it,
    the replica must still have it after a power cut."""
    bench = crash_in_write(b"third")
    again = bench.reopen(bench.disk.kill())
    assert len(again.wal.recovered.entries) == 3
    third = again.reopen(again.disk.power_cut())
    assert len(third.wal.recovered.entries) == 3


def test_a_crash_at_every_step_of_recovery_itself() -> None:
    """The disk of a killed process, recovered, with a power cut or a kill at each step of that."""
    bench = crash_in_write(b"x" * 2000, torn_write_bytes=1000)
    steps = 0
    while True:
        disk = bench.disk.kill()
        disk.crash_at(steps, torn_write_bytes=700)
        try:
            Bench(disk)
            break
        except SimulatedCrash:
            steps += 1
        acknowledged = bench.wal.synced_lsn
        for names in range(disk.unsynced_names + 1):
            for kept in ([], disk.dirty_sectors(), disk.dirty_sectors()[::2]):
                again = bench.reopen(disk.power_cut(kept, range(names)))
                assert again.wal.end_lsn == acknowledged
        again = bench.reopen(disk.kill())
        assert again.wal.recovered.ambiguous_cut, "a crash does not settle the doubt"
    assert steps > 6


def test_the_doubt_of_a_cut_outlives_restarts_until_the_voter_flag_is_set() -> None:
    bench = crash_in_write(b"x" * 2000, torn_write_bytes=1000)
    for _ in range(3):
        bench = bench.reopen(bench.disk.kill())
        assert bench.wal.recovered.ambiguous_cut and bench.wal.recovered.voter
        bench.write(b"more" * 2000)  # also when the log has moved to another segment since
    assert bench.wal.statistics().segments > 1
    bench.wal.drop_before(bench.last_index)  # the segment with the cut is gone
    bench.executor.run_all()
    recovered = Bench(bench.disk.kill()).wal.recovered
    assert recovered.base_index > 0 and recovered.ambiguous_cut
    bench.change("set_voter", False)
    bench.sync()
    again = Bench(bench.disk.kill())
    assert not again.wal.recovered.ambiguous_cut and not again.wal.recovered.voter


def marked_bench() -> Bench:
    bench = Bench()
    bench.write(b"first")
    bench.write(b"second" * 100)
    bench.timers.advance(MARKER_DELAY_SECONDS)
    bench.executor.run_all()
    return bench


def batch_end(bench: Bench) -> int:
    """Where the batches of data end, of those that `marked_bench` writes."""
    data = bench.disk.read(SEGMENT)
    return len(data.rstrip(b"\0")) // SECTOR_BYTES * SECTOR_BYTES


def test_each_single_bit_flip_in_a_synced_batch_is_refused() -> None:
    bench = marked_bench()
    end = batch_end(bench)
    assert end == 4 * SECTOR_BYTES
    for bit in range(end * 8):
        with pytest.raises(CorruptionError) as raised:
            Bench(bench.disk.flip_bit(SEGMENT, bit))
        if bit % 999 == 0:
            message = str(raised.value)
            assert SEGMENT in message and "coordsvc rejoin" in message
            assert raised.value.offset <= bit // 8 < raised.value.offset + 2 * SECTOR_BYTES


def test_a_flipped_marker_loses_nothing() -> None:
    """Nothing says whether it was synced, but all it could hold is the position known anyway."""
    bench = marked_bench()
    end = batch_end(bench)
    for bit in range(end * 8, (end + SECTOR_BYTES) * 8, 7):
        again = bench.reopen(bench.disk.flip_bit(SEGMENT, bit))
        assert again.wal.end_lsn == 2 and again.wal.recovered.ambiguous_cut


def test_a_flip_in_a_marker_that_was_followed_by_a_write_is_refused() -> None:
    bench = marked_bench()
    end = batch_end(bench)
    bench.write(b"third")
    for bit in range(end * 8, (end + SECTOR_BYTES) * 8, 7):
        with pytest.raises(CorruptionError):
            Bench(bench.disk.flip_bit(SEGMENT, bit))


def test_each_flip_in_what_recovery_wrote_is_refused() -> None:
    """A start leaves the log marked: everything it kept is known to be synced."""
    bench = crash_in_write(b"third" * 200)
    again = bench.reopen(bench.disk.kill())
    end = batch_end(again)
    for bit in range(0, end * 8, 11):
        with pytest.raises(CorruptionError):
            Bench(again.disk.flip_bit(SEGMENT, bit))


def test_a_refused_start_changes_nothing() -> None:
    bench = marked_bench()
    disk = bench.disk.flip_bit(SEGMENT, 700 * 8)
    with pytest.raises(CorruptionError):
        Bench(disk)
    assert disk.operations == []


def test_a_log_of_another_length_is_refused() -> None:
    """Its space was taken, and synced, before its first record: no crash shortens it."""
    bench = marked_bench()
    data = bench.disk.read(SEGMENT)
    assert len(data) == SEGMENT_BYTES
    boundaries = range(0, SEGMENT_BYTES, SECTOR_BYTES)
    for length in [1, 100, *boundaries, batch_end(bench) + 1, SEGMENT_BYTES - 1]:
        disk = bench.disk.kill()
        disk.put(SEGMENT, data[:length])
        with pytest.raises(CorruptionError):
            Bench(disk)
        assert disk.operations == []
    longer = bench.disk.kill()
    longer.put(SEGMENT, data + bytes(SECTOR_BYTES))
    with pytest.raises(CorruptionError, match="has 16896 bytes, it was created with 16384"):
        Bench(longer)


def test_a_log_whose_beginning_is_zero_is_refused() -> None:
    bench = marked_bench()
    data = bench.disk.read(SEGMENT)
    for zeros in (SECTOR_BYTES, 4 * SECTOR_BYTES, len(data)):
        disk = bench.disk.kill()
        disk.put(SEGMENT, bytes(zeros) + data[zeros:])
        with pytest.raises(CorruptionError, match="header is unreadable"):
            Bench(disk)


def test_a_log_that_was_not_preallocated_yet_has_its_length_too() -> None:
    disk = FakeDisk()
    create_log(DIRECTORY, disk, Identity(UUID, 1))
    Bench(disk.power_cut())
    disk.put(SEGMENT, disk.read(SEGMENT) + bytes(SECTOR_BYTES))
    with pytest.raises(CorruptionError, match="created with 512"):
        Bench(disk)


def test_a_log_that_ends_before_what_is_known_to_be_synced_is_refused() -> None:
    bench = marked_bench()
    data = bench.disk.read(SEGMENT)
    Bench(bench.disk.kill(), synced_lsn=2)
    for end, lsn in ((1, 0), (2, 1)):  # the header's sector, and the first write's
        disk = bench.disk.kill()
        disk.put(SEGMENT, data[: end * SECTOR_BYTES].ljust(len(data), b"\0"))
        assert Bench(disk.kill(), synced_lsn=lsn).wal.end_lsn == lsn
        with pytest.raises(CorruptionError, match=f"ends at LSN {lsn}, .* synced up to 2"):
            Bench(disk, synced_lsn=2)
        assert disk.operations == []


def test_restarts_do_not_add_to_the_log() -> None:
    bench = marked_bench()
    content = bench.disk.read(SEGMENT).rstrip(b"\0")
    for _ in range(3):
        bench = bench.reopen(bench.disk.kill())
    assert bench.disk.read(SEGMENT).rstrip(b"\0") == content


@pytest.mark.parametrize("is_own_uuid", [False, True])
def test_data_that_looks_like_a_batch_does_not_pose_as_one(is_own_uuid: bool) -> None:
    """A client stores the image of a marked log, and the write of that is torn. Its marker must not
    be taken for a later batch that proves the torn one was synced. What the client cannot know is
    the uuid: with that, the deception would work."""
    forged = Bench(uuid=UUID if is_own_uuid else bytes(16))
    for _ in range(9):
        forged.write(b"x")
    forged.close()
    image = forged.disk.read(SEGMENT)[: 11 * SECTOR_BYTES]
    # So that the image begins with a sector: the batch's header and the record's come before it.
    bench = crash_in_write(bytes(SECTOR_BYTES - HEADER_BYTES - RECORD_BYTES) + image)
    disk = bench.disk.power_cut(bench.disk.dirty_sectors()[1:])
    if is_own_uuid:
        with pytest.raises(CorruptionError):
            Bench(disk)
    else:
        assert bench.reopen(disk).wal.recovered.ambiguous_cut


def open_log(disk: FakeDisk, **changed: object) -> Wal:
    arguments: dict[str, object] = {
        "files": disk,
        "executor": ManualExecutor(),
        "identity": UUID,
        "replica_id": 1,
        "on_synced": lambda lsn: None,
        "on_failed": lambda error: None,
        "segment_bytes": SEGMENT_BYTES,
    }
    return Wal.open(DIRECTORY, **{**arguments, **changed})  # type: ignore[arg-type]


def test_another_replicas_log_is_refused() -> None:
    disk = marked_bench().disk
    with pytest.raises(DataDirRefusedError, match=r"replica 1, this is replica\s+2"):
        open_log(disk, replica_id=2)
    with pytest.raises(DataDirRefusedError, match=UUID.hex()):
        open_log(disk, identity=bytes(16))


def test_another_clusters_log_is_refused() -> None:
    disk = FakeDisk()
    open_log(disk, cluster_id=b"a" * 16)
    open_log(disk.kill())
    with pytest.raises(DataDirRefusedError, match="cluster 6161"):
        open_log(disk.kill(), cluster_id=b"b" * 16)


def test_a_disk_that_fails_during_recovery() -> None:
    bench = marked_bench()
    for name in ("pwrite", "fdatasync", "rename", "fsync_dir", "create", "allocate"):
        disk = bench.disk.kill()
        if name == "create":  # otherwise the spare is used
            disk.unlink(f"{DIRECTORY}/spare.tmp")
        disk.fail(name, 1)
        with pytest.raises(DiskError):
            Bench(disk)
        bench.reopen(disk.kill())


def test_recovery_on_a_full_disk_uses_the_spare() -> None:
    bench = marked_bench()
    disk = bench.disk.power_cut()
    disk.capacity_bytes = 2 * SEGMENT_BYTES
    again = bench.reopen(disk)
    assert again.wal.end_lsn == 2 and not again.wal.statistics().is_space_low


def test_recovery_without_room_for_a_spare_is_as_durable() -> None:
    bench = marked_bench()
    disk = bench.disk.power_cut()
    disk.capacity_bytes = SEGMENT_BYTES
    again = bench.reopen(disk)
    assert again.wal.statistics().is_space_low
    again.write(b"third")
    disk = again.disk.power_cut()
    disk.capacity_bytes = None
    assert again.reopen(disk).wal.end_lsn == 3
