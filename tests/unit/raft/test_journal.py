"""The log in memory and what of it is durable.

Goal: `durable_index` never speaks of an entry the disk does not hold, whatever is appended and
truncated while syncs are under way. Method: a WAL whose syncs complete on command.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsvc.raft.journal import FIRST_BASE, WalJournal
from coordsvc.storage.wal_format import Kind
from coordsvc.testing.manual_wal import ManualWal


def make(wal: ManualWal | None = None) -> tuple[WalJournal, ManualWal]:
    wal = wal or ManualWal()
    recovered = wal.recovered
    journal = WalJournal(
        wal,
        recovered.base_index,
        recovered.base_term,
        recovered.entries,
        recovered.term,
        recovered.voted_for,
    )
    wal.on_synced = journal.synced_to
    return journal, wal


def fill(journal: WalJournal, *terms: int) -> None:
    for term in terms:
        index = journal.last_index + 1
        journal.add(b"\x00%d" % index, index, term)


def test_an_empty_log_begins_with_the_base_all_replicas_take_for_granted() -> None:
    journal, wal = make()
    assert journal[:] == [FIRST_BASE]
    assert (journal.base_index, journal.last_index, journal.last_term) == (1, 1, 0)
    assert wal.records == [], "the base is not written"


def test_what_was_synced_comes_back() -> None:
    journal, wal = make()
    journal.setCurrentTerm(3, "2")
    fill(journal, 1, 1, 3)
    wal.sync_all()
    fill(journal, 3)
    again, _ = make(wal.crash())
    assert again[1:] == journal[1:4]
    assert again.durable_index == again.last_index == 4
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (3, "2")


def test_an_unchanged_term_is_not_written_again() -> None:
    journal, wal = make()
    journal.setCurrentTerm(3, None)
    journal.setCurrentTerm(3, None)
    journal.setCurrentTerm(3, "1")
    assert [record[0] for record in wal.records] == [Kind.HARD_STATE, Kind.HARD_STATE]


def test_an_entry_must_follow_the_last() -> None:
    journal, _ = make()
    fill(journal, 2)
    with pytest.raises(AssertionError, match="does not follow"):
        journal.add(b"\x00", 4, 2)
    with pytest.raises(AssertionError, match="goes back to term 1"):
        journal.add(b"\x00", 3, 1)


def test_a_recovered_log_with_a_hole_is_refused() -> None:
    with pytest.raises(AssertionError, match="hole"):
        WalJournal(ManualWal(), 1, 0, [(b"\x00", 2, 1), (b"\x00", 4, 1)], 1, None)


def test_nothing_is_durable_before_its_sync() -> None:
    journal, wal = make()
    fill(journal, 1, 1)
    wal.flush()
    fill(journal, 1)
    assert journal.durable_index == 1
    wal.sync()
    assert journal.durable_index == 3, "the entry that came later is in no group yet"
    wal.flush()
    wal.sync()
    assert journal.durable_index == 4


def test_a_late_sync_does_not_make_what_replaced_its_entries_durable() -> None:
    journal, wal = make()
    fill(journal, 1, 1)
    wal.flush()
    journal.truncate_from(3)
    fill(journal, 2, 2)
    wal.sync()
    assert journal.durable_index == 2
    wal.sync_all()
    assert journal.durable_index == 4


def test_truncation_lowers_what_is_durable() -> None:
    journal, wal = make()
    fill(journal, 1, 1, 1)
    wal.sync_all()
    journal.truncate_from(3)
    assert (journal.durable_index, journal.last_index) == (2, 2)


def test_the_base_cannot_be_truncated_or_sent() -> None:
    journal, _ = make()
    fill(journal, 1)
    with pytest.raises(AssertionError, match="base"):
        journal.truncate_from(1)
    with pytest.raises(AssertionError, match="base"):
        journal.slice_from(1, 100, 10)


def test_the_librarys_ways_to_shorten_the_log_are_shut() -> None:
    journal, _ = make()
    fill(journal, 1, 1)
    for shorten in (
        journal.clear,
        lambda: journal.deleteEntriesFrom(1),
        lambda: journal.deleteEntriesTo(1),
    ):
        with pytest.raises(AssertionError):
            shorten()
    assert journal.last_index == 3


def test_a_slice_has_at_least_one_entry_and_no_more_bytes_than_asked() -> None:
    journal, _ = make()
    for index, size in ((2, 100), (3, 40), (4, 60), (5, 1)):
        journal.add(b"\x00" * size, index, 1)

    def indexes(first: int, bytes_soft: int, count_max: int = 10) -> list[int]:
        return [index for _, index, _ in journal.slice_from(first, bytes_soft, count_max)]

    assert indexes(2, 10) == [2]
    assert indexes(3, 100) == [3, 4]
    assert indexes(3, 101) == [3, 4, 5]
    assert indexes(3, 101, 2) == [3, 4]
    assert indexes(6, 10) == []


def test_the_first_index_of_a_terms_run() -> None:
    journal, _ = make()
    fill(journal, 1, 1, 2, 2, 2, 3)
    assert journal.first_index_of_term(6, 1) == 4
    assert journal.first_index_of_term(6, 4) == 5, "not at or below what is known to be right"
    assert journal.first_index_of_term(3, 1) == 2
    assert journal.first_index_of_term(7, 1) == 7


def test_bytes_held_follow_the_entries() -> None:
    journal, _ = make()
    journal.add(b"\x00" * 10, 2, 1)
    journal.add(b"\x00" * 5, 3, 1)
    assert journal.bytes_held == 15
    journal.truncate_from(3)
    assert journal.bytes_held == 10


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 1)),
        st.tuples(st.just("truncate"), st.integers(1, 6)),
        st.tuples(st.sampled_from(("flush", "sync")), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_what_is_called_durable_is_on_disk(steps: list[tuple[str, int]]) -> None:
    journal, wal = make()
    for action, number in steps:
        if action == "add":
            fill(journal, journal.last_term + number)
        elif action == "truncate":
            index = journal.last_index + 1 - number
            if index > journal.base_index:
                journal.truncate_from(index)
                fill(journal, journal.last_term + 1)
        elif action == "flush":
            wal.flush()
        else:
            wal.sync()
        for index in range(2, journal.durable_index + 1):
            assert wal.durable.holds(*journal.record(index))
    wal.sync_all()
    assert journal.durable_index == journal.last_index
    assert wal.durable.entries == journal[1:]
