"""A bit that flips on the disk of a replica that is down: found at the start, or of no effect.

Found means refused, by an error that names the file, the place and what to do. Of no effect means
that the state is what it was, and that the replica can go on: further checkpoints, and starts from
them, are right, too. A list of free pages that rotted would show only there.

LMDB may crash on a damaged page, so it reads in a forked process here; a replica's start asks a
process of its own before.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from coordsvc.storage.checkpoint_check import check_checkpoint
from coordsvc.storage.errors import CorruptionError, StorageError
from coordsvc.storage.wal_format import HEADER_BYTES
from coordsvc.storage.wal_scan import scan_segment
from tests.unit.storage.follower import Follower
from tests.unit.storage.lmdb_pages import META_BYTES, PAGE_BYTES, pages_by_kind
from tests.unit.storage.replica_history import History

SAME, REFUSED, LATE, WRONG, UNCLEAR = 10, 11, 12, 13, 14
OUTCOMES = {SAME: "same", REFUSED: "refused", LATE: "late", WRONG: "wrong", UNCLEAR: "unclear"}
CHILD_S_MAX = 30
ROUND_ENTRIES = 20
PAGE_HEAD_BYTES = 200
"""Headers and offsets: small, and the most delicate."""


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history"), entries=300, snapshot_every=150)


@pytest.fixture
def whole(scratch: Path, history: History) -> Path:
    """A stopped replica: pages of all kinds, several segments, entries beyond the checkpoint."""
    path = scratch / "whole"
    follower = Follower(str(path), history)
    for _ in range(8):
        follower.run(25)
        follower.checkpoint(keep=15)
    follower.run(12)
    follower.stop()
    return path


def flip(file_path: Path, bit: int) -> None:
    with file_path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def live_on(path: Path, history: History, rounds: int, last_index: int) -> int:
    """Start, and go on for so many checkpoints, each followed by a start: what became of it."""
    try:
        follower = Follower(str(path), history)
        assert follower.index == last_index, "entries are missing"
    except CorruptionError as error:
        return REFUSED if is_clear(error, path) else UNCLEAR
    except StorageError:
        return UNCLEAR
    except AssertionError:
        return WRONG
    try:
        for _ in range(rounds):
            follower.run(ROUND_ENTRIES)
            follower.checkpoint(keep=15)
            follower.stop()
            follower = Follower(str(path), history)
        follower.stop()
    except (StorageError, AssertionError):
        return LATE
    return SAME


def is_clear(error: CorruptionError, path: Path) -> bool:
    """It says which file, what of it, and what to do."""
    is_there = error.file_path.startswith(str(path)) and os.path.exists(error.file_path)
    return is_there and len(error.reason) > 10 and "`coordsvc rejoin DATA_DIR`" in str(error)


def in_a_child(path: Path, history: History, rounds: int, last_index: int) -> int:
    """Minus the signal that killed it, if one did."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        signal.alarm(CHILD_S_MAX)
        status = 1
        try:
            status = live_on(path, history, rounds, last_index)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def damaged(whole: Path, file_name: str, bit: int) -> Path:
    path = whole.parent / "damaged"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(whole, path)
    flip(path / file_name, bit)
    return path


def last_index_of(whole: Path, history: History) -> int:
    path = whole.parent / "untouched"
    shutil.copytree(whole, path)
    follower = Follower(str(path), history)
    follower.stop()
    return follower.index


def bits_of_pages(kinds: dict[str, list[int]], each: int, dice: Random) -> list[tuple[str, int]]:
    """Of each kind of page as many, half of them near its beginning."""
    chosen = []
    for kind, pages in sorted(kinds.items()):
        for number in range(each):
            head = META_BYTES if kind == "meta" else PAGE_HEAD_BYTES
            is_near = number % 2 == 0 or kind == "meta"
            byte = dice.randrange(head if is_near else PAGE_BYTES)
            chosen.append((kind, (dice.choice(pages) * PAGE_BYTES + byte) * 8 + dice.randrange(8)))
    return chosen


@pytest.mark.parametrize(
    ("seed", "each", "rounds"),
    [(1, 16, 1), pytest.param(2, 300, 3, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_in_any_page_of_the_checkpoint(
    whole: Path, history: History, seed: int, each: int, rounds: int
) -> None:
    last_index = last_index_of(whole, history)
    kinds = pages_by_kind((whole / "checkpoint.mdb").read_bytes())
    assert len(kinds) == 6 and all(kinds.values()), kinds
    seen: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    for kind, bit in bits_of_pages(kinds, each, Random(seed)):
        path = damaged(whole, "checkpoint.mdb", bit)
        outcome = in_a_child(path, history, rounds, last_index)
        if outcome < 0:
            with pytest.raises(CorruptionError, match="crashes"):
                check_checkpoint(str(path / "checkpoint.mdb"))
            outcome = REFUSED
        name = OUTCOMES.get(outcome, str(outcome))
        seen[kind][name] += 1
        assert outcome in (SAME, REFUSED), f"bit {bit}, of a {kind} page: {name}"
    print(seen)
    assert set(seen["free"]) == {"same"}, "what is free was read"
    for kind in set(kinds) - {"free"}:
        assert seen[kind]["refused"], f"nothing was found in a {kind} page"


def regions_of(segment: Path) -> dict[str, range]:
    """Bytes of a segment, by what they are."""
    data = segment.read_bytes()
    scan = scan_segment(data, int(segment.stem))
    batch = scan.batches[len(scan.batches) // 2]
    return {
        "segment header": range(0, scan.body_offset),
        "batch header": range(batch.offset, batch.offset + HEADER_BYTES),
        "records": range(batch.offset + HEADER_BYTES, batch.records_end),
        "padding": range(batch.records_end, batch.end),
        "last batch": range(scan.batches[-1].offset, scan.end),
        "rest": range(scan.end, len(data)),
    }


@pytest.mark.parametrize(
    ("seed", "each"),
    [(1, 8), pytest.param(2, 150, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_in_any_part_of_the_log(whole: Path, history: History, seed: int, each: int) -> None:
    """In the unused rest of the last segment, and in its last marker, a flip looks like a write
    that was under way when the power went. It takes nothing with it."""
    last_index = last_index_of(whole, history)
    segments = sorted(whole.glob("wal/*.wal"))
    assert len(segments) >= 3
    places = {"oldest": segments[0], "middle": segments[-2], "last": segments[-1]}
    dice = Random(seed)
    seen: Counter[tuple[str, str, str]] = Counter()
    for place, segment in places.items():
        for region, part in regions_of(segment).items():
            is_harmless = place == "last" and region in ("last batch", "rest")
            for _ in range(each if part else 0):
                bit = dice.choice(part) * 8 + dice.randrange(8)
                path = damaged(whole, f"wal/{segment.name}", bit)
                outcome = live_on(path, history, 1, last_index)
                name = OUTCOMES[outcome]
                seen[place, region, name] += 1
                allowed = (SAME, REFUSED) if is_harmless else (REFUSED,)
                assert outcome in allowed, f"bit {bit} of {segment.name}, {region}: {name}"
    print(dict(seen))
    assert seen["last", "rest", "same"]


@pytest.mark.parametrize(
    ("seed", "flips"),
    [(1, 30), pytest.param(2, 1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_in_a_snapshot_whose_installation_was_decided(
    scratch: Path, history: History, seed: int, flips: int
) -> None:
    """What the log counts on is not taken if it rotted; nor is the state before it, silently."""
    whole = scratch / "whole"
    follower = Follower(str(whole), history)
    follower.run(30)
    follower.stop()
    snapshot = history.snapshots[0]
    assert snapshot.info.index > follower.index
    follower = Follower(str(whole), history)
    follower.opened.wal.install(snapshot.info.index, snapshot.info.term)
    follower.stop()
    (whole / "incoming").mkdir()
    (whole / "incoming" / "verified.mdb").write_bytes(snapshot.data)
    dice = Random(seed)
    seen: Counter[int] = Counter()
    for _ in range(flips):
        bit = dice.randrange(len(snapshot.data) * 8)
        path = damaged(whole, "incoming/verified.mdb", bit)
        outcome = in_a_child(path, history, 1, snapshot.info.index)
        seen[outcome] += 1
        assert outcome in (SAME, REFUSED), f"bit {bit}: {OUTCOMES.get(outcome, outcome)}"
    assert seen[SAME] and seen[REFUSED], seen
