"""Random histories of the log against a model: whatever happens, nothing acknowledged is missing
and what is recovered is a state the log went through.
"""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordsvc.storage import wal_writer
from coordsvc.storage.errors import StorageError
from coordsvc.testing.fake_disk import SimulatedCrash
from tests.unit.storage.wal_bench import Bench

SEGMENT_BYTES = 4096


class WalMachine(RuleBasedStateMachine):
    """Small segments, so that switches are common; crashes at rest and in the middle of a job."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_bytes_target = wal_writer.BATCH_BYTES_TARGET
        wal_writer.BATCH_BYTES_TARGET = 1000

    def teardown(self) -> None:
        self.bench.executor.run_all()
        self.bench.reopen(self.bench.disk.power_cut(), segment_bytes=SEGMENT_BYTES)
        wal_writer.BATCH_BYTES_TARGET = self.batch_bytes_target

    @initialize()
    def start(self) -> None:
        self.bench = Bench(segment_bytes=SEGMENT_BYTES)
        self.term = 1
        self.commit = 0
        """Nothing up to here is truncated."""

    @rule(sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=5), new_term=st.booleans())
    def append(self, sizes: list[int], new_term: bool) -> None:
        self.term += new_term
        for size in sizes:
            self.bench.append(bytes([size % 251]) * size, term=self.term)

    @precondition(lambda self: self.bench.last_index > self.commit)
    @rule(share=st.floats(0, 1, exclude_max=True))
    def truncate(self, share: float) -> None:
        start = self.commit + 1
        self.bench.change(
            "truncate_from", start + int(share * (self.bench.last_index - self.commit))
        )

    @rule(keep=st.integers(0, 4))
    def checkpoint(self, keep: int) -> None:
        """All but the last entries are on disk and committed, and the log before may go."""
        self.bench.sync()
        self.commit = max(self.commit, self.bench.last_index - keep)
        self.bench.drop_before(self.commit + 1)

    @rule(beyond=st.integers(0, 6), own_entry=st.booleans())
    def install(self, beyond: int, own_entry: bool) -> None:
        """A snapshot beyond the committed entries: of the log's own entry there, or another's."""
        index = self.commit + beyond
        entries = self.bench.expected(len(self.bench.changes)).entries
        terms = {entry[1]: entry[2] for entry in entries}
        if own_entry and index in terms:
            term = terms[index]
        elif beyond:
            self.term += 1
            term = self.term
        else:
            return
        self.bench.change("install", index, term)
        self.bench.sync()
        self.commit = index

    @rule(voted_for=st.sampled_from([None, "1", "2"]))
    def vote(self, voted_for: str | None) -> None:
        self.term += 1
        self.bench.change("set_hard_state", self.term, voted_for)

    @rule(voter=st.booleans())
    def set_voter(self, voter: bool) -> None:
        self.bench.change("set_voter", voter)

    @rule()
    def flush(self) -> None:
        self.bench.wal.flush()

    @rule(jobs=st.integers(1, 3))
    def run(self, jobs: int) -> None:
        for _ in range(min(jobs, len(self.bench.executor.jobs))):
            self.bench.executor.run_next()

    @rule(seconds=st.sampled_from([0.01, 0.05]))
    def wait(self, seconds: float) -> None:
        self.bench.timers.advance(seconds)

    @rule(limit=st.sampled_from([None, 700, 100]))
    def shorten_writes(self, limit: int | None) -> None:
        self.bench.disk.pwrite_bytes_max = limit

    @rule(
        steps=st.integers(0, 12),
        torn_write_bytes=st.integers(0, 2000),
        has_power_cut=st.booleans(),
        seed=st.integers(0, 2**32),
    )
    def crash(self, steps: int, torn_write_bytes: int, has_power_cut: bool, seed: int) -> None:
        """Perhaps inside a job; of what was not synced, any part survives a power cut."""
        disk = self.bench.disk
        disk.crash_at(len(disk.operations) + steps, torn_write_bytes)
        try:
            self.bench.executor.run_all()
        except SimulatedCrash:
            pass
        if has_power_cut:
            dice = random.Random(seed)
            kept = [sector for sector in disk.dirty_sectors() if dice.random() < 0.5]
            names = [number for number in range(disk.unsynced_names) if dice.random() < 0.5]
            disk = disk.power_cut(kept, names)
        else:
            disk = disk.kill()
        self.bench = self.bench.reopen(disk, segment_bytes=SEGMENT_BYTES)
        state = self.bench.wal.recovered
        self.term = max([self.term, state.term])

    @rule(name=st.sampled_from(["fdatasync", "pwrite"]), nth=st.integers(1, 4))
    def fail(self, name: str, nth: int) -> None:
        """The disk fails; afterwards nothing is acknowledged, and the next start has it all."""
        disk = self.bench.disk
        disk.fail(name, nth)
        self.bench.append(term=self.term)
        self.bench.wal.flush()
        self.bench.executor.run_all()
        disk.before_operation = None
        if self.bench.failures:
            acknowledged = self.bench.wal.synced_lsn
            try:
                self.bench.wal.flush()
                raise AssertionError("a failed log takes writes")
            except StorageError:
                pass
            self.bench.executor.run_all()
            assert self.bench.wal.synced_lsn == acknowledged
            self.bench = self.bench.reopen(disk.power_cut(), segment_bytes=SEGMENT_BYTES)

    @rule()
    def stop(self) -> None:
        """After a clean stop nothing is missing and nothing in doubt."""
        in_doubt = self.bench.wal.recovered.ambiguous_cut
        end_lsn = self.bench.wal.end_lsn
        self.bench.close()
        self.bench = self.bench.reopen(self.bench.disk.power_cut(), segment_bytes=SEGMENT_BYTES)
        assert self.bench.wal.end_lsn == end_lsn
        assert in_doubt or not self.bench.wal.recovered.ambiguous_cut

    @invariant()
    def positions_are_in_order(self) -> None:
        wal = self.bench.wal
        assert wal.synced_lsn <= wal.end_lsn == len(self.bench.changes)
        assert len(self.bench.failures) <= 1


WalMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=30, deadline=None, print_blob=True
)
TestWal = WalMachine.TestCase
