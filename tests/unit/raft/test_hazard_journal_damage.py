"""Hazard 17: what the library's journal makes of damage, and what ours makes of it.

A flipped byte in the stock journal is read back as data, and a kill while it is compacted loses
entries that must survive. Ours refuses the first, and has no such moment: it unlinks whole
segments.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pysyncobj.journal import FileJournal

from coordsvc.storage.errors import CorruptionError
from coordsvc.storage.files import FileSystem
from coordsvc.storage.wal import Wal
from coordsvc.testing.manual_loop import ManualExecutor

PAYLOAD = b"\x00acknowledged"


def flip(path: Path, content: bytes) -> None:
    """One bit of the first place where `content` stands."""
    damaged = bytearray(path.read_bytes())
    position = damaged.index(content)
    damaged[position] ^= 0x01
    path.write_bytes(damaged)


def test_17_the_stock_journal_serves_a_flipped_byte(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(str(path))
    for index in range(1, 11):
        journal.add(PAYLOAD + b"%d" % index, index, 1)
    journal._destroy()
    flip(path, PAYLOAD + b"5")
    read_back = FileJournal(str(path))
    assert len(read_back) == 10, "nothing is noticed"
    assert read_back[4][0] != PAYLOAD + b"5", "and what was not written is served"


def test_17_the_stock_journal_loses_what_a_compaction_keeps(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = FileJournal(str(path))
    for index in range(1, 101):
        journal.add(PAYLOAD + b"%d" % index, index, 1)
    child = os.fork()
    if child == 0:  # Killed after the first of the 90 entries it writes again.
        add, added = journal.add, []

        def add_one(*entry: object) -> None:
            if added:
                os._exit(9)
            added.append(entry)
            add(*entry)

        journal.add = add_one
        journal.deleteEntriesTo(10)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert len(FileJournal(str(path))) < 90


def test_17_ours_refuses_a_flipped_byte(tmp_path: Path) -> None:
    def opened() -> tuple[Wal, ManualExecutor]:
        executor = ManualExecutor()
        wal = Wal.open(
            str(tmp_path),
            files=FileSystem(),
            executor=executor,
            identity=b"u" * 16,
            replica_id=1,
            segment_bytes=1 << 16,
            on_synced=lambda lsn: None,
            on_failed=lambda error: pytest.fail(str(error)),
        )
        return wal, executor

    wal, executor = opened()
    for index in range(2, 12):
        wal.append_entry(PAYLOAD + b"%d" % index, index, 1)
    wal.flush()
    executor.run_all()
    wal.close(lambda: None)
    executor.run_all()
    (segment,) = tmp_path.glob("*.wal")
    flip(segment, PAYLOAD + b"5")
    with pytest.raises(CorruptionError):
        opened()
