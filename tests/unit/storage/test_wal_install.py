"""A snapshot takes the place of log entries; old segments go; what is left is still read right."""

from __future__ import annotations

import pytest

from coordsvc.storage.errors import CorruptionError
from coordsvc.storage.wal import RecoveredLog
from tests.unit.storage.wal_bench import DIRECTORY, Bench

SMALL = 4096


def bench_with(*terms: int, segment_bytes: int = 16 << 10) -> Bench:
    """A log of one entry per term, from index 1."""
    bench = Bench(segment_bytes=segment_bytes)
    bench.change("set_voter", True)
    bench.change("set_hard_state", max(terms), "2")
    for term in terms:
        bench.append(b"entry", term=term)
    bench.sync()
    return bench


def recovered(bench: Bench, segment_bytes: int = 16 << 10) -> RecoveredLog:
    return bench.reopen(bench.disk.power_cut(), segment_bytes=segment_bytes).wal.recovered


def fill(bench: Bench, count: int, term: int) -> None:
    for _ in range(count):
        bench.append(b"x" * 1000, term=term)
    bench.sync()


def segments(bench: Bench) -> int:
    return sum(name.endswith(".wal") for name in bench.disk.list_dir(DIRECTORY))


def test_entries_after_a_snapshot_of_this_very_log_stay() -> None:
    bench = bench_with(1, 1, 2, 2, 3)
    bench.change("install", 3, 2)
    bench.sync()
    log = recovered(bench)
    assert (log.base_index, log.base_term) == (3, 2) == log.installed
    assert [entry[1:] for entry in log.entries] == [(4, 2), (5, 3)]
    assert (log.term, log.voted_for, log.voter) == (3, "2", True)


@pytest.mark.parametrize("snapshot", [(3, 4), (9, 4)], ids=["another entry", "beyond the end"])
def test_a_snapshot_of_another_log_drops_everything(snapshot: tuple[int, int]) -> None:
    bench = bench_with(1, 1, 2, 2, 3)
    bench.change("install", *snapshot)
    bench.sync()
    log = recovered(bench)
    assert (log.base_index, log.base_term) == snapshot == log.installed and log.entries == []
    assert (log.term, log.voted_for, log.voter) == (3, "2", True)


def test_the_log_goes_on_after_its_base() -> None:
    bench = bench_with(1, 1)
    bench.change("install", 7, 3)
    with pytest.raises(ValueError, match="entry 3 does not follow entry 7"):
        bench.wal.append_entry(b"", 3, 3)
    with pytest.raises(ValueError, match="term 2, the one before it 3"):
        bench.wal.append_entry(b"", 8, 2)
    bench.append(b"next", term=3)
    bench.sync()
    assert [entry[1:] for entry in recovered(bench).entries] == [(8, 3)]


@pytest.mark.parametrize("index", [3, 2, 1, 0])
def test_a_truncation_at_or_below_the_base_is_refused(index: int) -> None:
    bench = bench_with(1, 1, 1, 1)
    bench.change("install", 3, 1)
    with pytest.raises(ValueError, match="cannot truncate"):
        bench.wal.truncate_from(index)
    bench.change("truncate_from", 4)
    bench.sync()
    assert recovered(bench).entries == []


@pytest.mark.parametrize("snapshot", [(2, 1), (3, 2)])
def test_a_snapshot_below_the_base_or_contradicting_it_is_refused(
    snapshot: tuple[int, int],
) -> None:
    bench = bench_with(1, 1, 1, 1)
    bench.change("install", 3, 1)
    if snapshot[0] < 3:
        with pytest.raises(ValueError, match="does not fit a log of the entries 4 to 4"):
            bench.wal.install(*snapshot)
    else:
        bench.change("install", *snapshot)
        bench.sync()
        assert recovered(bench).entries == []


def test_the_same_snapshot_twice() -> None:
    bench = bench_with(1, 1, 1, 1)
    for _ in range(2):
        bench.change("install", 3, 1)
    bench.sync()
    assert [entry[1] for entry in recovered(bench).entries] == [4]


def test_a_snapshot_into_a_new_log() -> None:
    bench = Bench()
    bench.change("install", 50, 6)
    bench.append(b"next", term=6)
    bench.sync()
    log = recovered(bench)
    assert (log.base_index, log.base_term, len(log.entries), log.is_new) == (50, 6, 1, False)


def test_a_snapshot_that_was_not_synced_was_not_installed() -> None:
    bench = bench_with(1, 1, 2)
    bench.change("install", 3, 2)
    bench.wal.flush()
    assert recovered(bench).installed is None


def test_segments_before_a_snapshot_go() -> None:
    bench = bench_with(1, segment_bytes=SMALL)
    fill(bench, 20, 1)
    bench.change("install", 100, 2)
    fill(bench, 10, 2)
    before = segments(bench)
    bench.drop_before(101)
    bench.executor.run_all()
    assert before > 8 > segments(bench)
    log = recovered(bench, SMALL)
    assert (log.base_index, log.base_term) == (100, 2)
    assert [entry[1] for entry in log.entries] == list(range(101, 111))


def two_segments() -> tuple[Bench, int]:
    """The second one has just begun; the index of the last entry in the first."""
    bench = bench_with(1, 1, segment_bytes=SMALL)
    while segments(bench) < 2:
        fill(bench, 1, 1)
    assert bench.last_index == 4
    return bench, 3


def cut_short(bench: Bench, first_index: int) -> RecoveredLog:
    """Drop the first segment, and see what a start finds."""
    for _ in range(10):
        bench.append(b"short", term=2)
    bench.sync()
    assert segments(bench) == 2
    bench.drop_before(first_index)
    bench.executor.run_all()
    assert segments(bench) == 1, "nothing was dropped"
    return recovered(bench, SMALL)


def test_a_truncation_that_reached_into_a_segment_that_is_gone() -> None:
    """The oldest segment left begins after entry 3 and then says that the log ended at 2: it did,
    and went on from there with other entries."""
    bench, last_of_first = two_segments()
    bench.change("truncate_from", 3)
    log = cut_short(bench, last_of_first + 1)
    assert (log.base_index, log.base_term) == (2, 1)
    assert [entry[1:] for entry in log.entries] == [(index, 2) for index in range(3, 13)]


def test_after_a_start_the_base_is_firm() -> None:
    """Only what is read may reach below it, not what comes now."""
    bench, last_of_first = two_segments()
    cut_short(bench, last_of_first + 1)
    again = bench.reopen(bench.disk.power_cut(), segment_bytes=SMALL)
    with pytest.raises(ValueError, match="cannot truncate from 3: the log holds entries 4 to 14"):
        again.wal.truncate_from(last_of_first)


def test_a_snapshot_of_this_log_that_ended_in_a_segment_that_is_gone() -> None:
    bench, last_of_first = two_segments()
    bench.change("install", 2, 1)
    log = cut_short(bench, last_of_first + 1)
    assert (log.base_index, log.base_term, log.installed) == (last_of_first, 1, (2, 1))
    assert [entry[1] for entry in log.entries] == list(range(4, 15))


def test_a_snapshot_of_another_log_that_ended_in_a_segment_that_is_gone() -> None:
    bench, last_of_first = two_segments()
    bench.change("install", 2, 2)
    log = cut_short(bench, last_of_first + 1)
    assert (log.base_index, log.base_term, log.installed) == (2, 2, (2, 2))
    assert [entry[1] for entry in log.entries] == list(range(3, 13))


def test_a_record_of_a_snapshot_that_contradicts_the_log_is_damage() -> None:
    """Such a record is written by nobody: here the writer is made to."""
    bench = bench_with(1, 1, 1)
    bench.wal._append((7, 2, 9, b"\x01"))
    bench.wal._writer._state.install = lambda *args, **options: None  # type: ignore[method-assign]
    bench.wal.flush()
    bench.executor.run_all()
    with pytest.raises(CorruptionError, match="impossible record: a snapshot at entry 2 of term 9"):
        Bench(bench.disk.power_cut())


def test_waiting_for_the_disk() -> None:
    bench = bench_with(1)
    seen: list[str] = []
    bench.wal.call_when_synced(lambda: seen.append("nothing to wait for"))
    bench.append(b"a")
    bench.wal.flush()
    bench.wal.call_when_synced(lambda: seen.append("a"))
    bench.append(b"b")
    bench.wal.call_when_synced(lambda: seen.append("b"))
    assert seen == ["nothing to wait for"]
    bench.executor.run_next()
    assert seen == ["nothing to wait for", "a"]
    bench.sync()
    assert seen == ["nothing to wait for", "a", "b"]


def test_nobody_is_told_of_a_write_that_failed() -> None:
    bench = bench_with(1)
    bench.disk.fail("fdatasync", 1)
    bench.change("install", 9, 1)
    bench.wal.call_when_synced(lambda: pytest.fail("it is not on disk"))
    bench.sync()
    assert len(bench.failures) == 1
