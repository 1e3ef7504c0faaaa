"""A write-ahead log on a fake disk, and a model of what it must still hold after a crash.

The model keeps every record in order. A record's position is its LSN, so a recovered log's
`end_lsn` says how many records it kept, and the model says what these amount to.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coordsvc.storage.wal import RecoveredLog, Wal
from coordsvc.testing.fake_disk import FakeDisk
from coordsvc.testing.manual_loop import ManualExecutor, ManualTimers

DIRECTORY = "/data/wal"
UUID = bytes(range(16))
SEGMENT_BYTES = 16 << 10

Change = tuple[str, tuple[object, ...]]


@dataclass
class Expected:
    """What the first n records amount to."""

    entries: list[tuple[bytes, int, int]] = field(default_factory=list)
    term: int = 0
    voted_for: str | None = None
    voter: bool = False
    base: tuple[int, int] = (0, 0)
    """(index, term) of the last snapshot installed."""

    @property
    def last(self) -> tuple[int, int]:
        """(index, term) of the last entry."""
        return self.entries[-1][1:] if self.entries else self.base

    def apply(self, change: Change) -> None:
        name, arguments = change
        if name == "append_entry":
            self.entries.append(arguments)  # type: ignore[arg-type]
        elif name == "truncate_from":
            self.entries = [entry for entry in self.entries if entry[1] < arguments[0]]  # type: ignore[operator]
        elif name == "set_hard_state":
            self.term, self.voted_for = arguments  # type: ignore[assignment]
        elif name == "install":
            index, term = arguments
            is_kept = arguments == self.base or any(e[1:] == arguments for e in self.entries)
            self.entries = [e for e in self.entries if is_kept and e[1] > index]  # type: ignore[operator]
            self.base = (index, term)  # type: ignore[assignment]
        else:
            assert name == "set_voter"
            self.voter = bool(arguments[0])


class Bench:
    """One opened log. Changes go through `change`, so that the model sees them."""

    def __init__(
        self,
        disk: FakeDisk | None = None,
        changes: list[Change] | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        uuid: bytes = UUID,
        synced_lsn: int = 0,
    ) -> None:
        self.disk = disk or FakeDisk()
        self.executor = ManualExecutor()
        self.timers = ManualTimers()
        self.changes = list(changes or ())
        self.dropped_before = 0
        self.synced: list[int] = []
        self.failures: list[BaseException] = []
        self.wal = Wal.open(
            DIRECTORY,
            files=self.disk,
            executor=self.executor,
            identity=uuid,
            replica_id=1,
            on_synced=self.synced.append,
            on_failed=self.failures.append,
            segment_bytes=segment_bytes,
            synced_lsn=synced_lsn,
            call_later=self.timers.call_later,
            clock=self.timers.clock,
        )
        # Records that an earlier crash took are gone for good.
        del self.changes[self.wal.end_lsn :]

    @property
    def last_index(self) -> int:
        return self.expected(len(self.changes)).last[0]

    def change(self, name: str, *arguments: object) -> None:
        self.changes.append((name, arguments))
        getattr(self.wal, name)(*arguments)

    @property
    def last_term(self) -> int:
        return self.expected(len(self.changes)).last[1] or 1

    def append(self, payload: bytes = b"x", term: int = 0) -> None:
        self.change("append_entry", payload, self.last_index + 1, term or self.last_term)

    def drop_before(self, index: int) -> None:
        self.dropped_before = max(self.dropped_before, index)
        self.wal.drop_before(index)

    def sync(self) -> None:
        self.wal.flush()
        self.executor.run_all()

    def write(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.append(payload)
        self.sync()

    def close(self) -> None:
        done: list[bool] = []
        self.wal.close(lambda: done.append(True))
        self.executor.run_all()
        assert done

    def expected(self, lsn: int) -> Expected:
        expected = Expected()
        for change in self.changes[:lsn]:
            expected.apply(change)
        return expected

    def reopen(self, disk: FakeDisk, **options: int) -> Bench:
        """Open what a crash left, and check that it is a state this log went through, no older than
        what was acknowledged."""
        acknowledged = self.wal.synced_lsn
        known = {"segment_bytes": SEGMENT_BYTES, "synced_lsn": acknowledged}
        again = Bench(disk, self.changes, **{**known, **options})
        lsn = again.wal.end_lsn
        assert acknowledged <= lsn <= len(self.changes), "an acknowledged record is gone"
        again.dropped_before = self.dropped_before
        assert_holds(again.wal.recovered, self.expected(lsn), self.dropped_before)
        assert again.wal.synced_lsn == lsn
        return again


def assert_holds(recovered: RecoveredLog, expected: Expected, dropped_before: int = 0) -> None:
    base_index, base_term = recovered.base_index, recovered.base_term
    gone = [entry for entry in expected.entries if entry[1] <= base_index]
    assert recovered.entries == expected.entries[len(gone) :]
    if gone:
        assert base_index < dropped_before, "more was dropped than was asked for"
        assert gone[-1][1:] == (base_index, base_term)
    elif expected.base != (0, 0):
        assert (base_index, base_term) == expected.base
    assert (recovered.term, recovered.voted_for) == (expected.term, expected.voted_for)
    assert recovered.voter == expected.voter


def segment_path(segment_id: int) -> str:
    return f"{DIRECTORY}/{segment_id:016d}.wal"
