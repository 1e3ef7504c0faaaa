"""Bits that flip anywhere in the file: refused or harmless, never another state.

LMDB may crash on a damaged page, so each damaged file is loaded in a forked process. Whoever starts
a replica asks `check_checkpoint` first, which must refuse every file that crashes.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import sys
from pathlib import Path
from random import Random

import pytest

from coordsvc.storage.checkpoint import CheckpointStore
from coordsvc.storage.checkpoint_check import check_checkpoint
from coordsvc.storage.errors import CorruptionError, StorageError
from tests.unit.storage.checkpoint_scene import Kept

SAME, OLDER, REFUSED, WRONG = 10, 11, 12, 13
CRASHES_CHECKED = 5
CHILD_S_MAX = 20


def make_file(directory: Path) -> dict[int, int]:
    """A checkpoint with pages of all kinds; the digests by index of the last two."""
    kept = Kept(directory)
    kept.harness.open_session()
    kept.create(150, size=60)
    kept.create(2, size=9000)
    kept.checkpoint()
    for number in range(0, 100, 3):
        kept.delete(f"/n1-{number}") if number else None
    kept.checkpoint()
    digests = {kept.info().index: kept.info().digest}
    kept.create(20, size=300)
    kept.checkpoint()
    kept.store.close()
    return digests | {kept.info().index: kept.info().digest}


def outcome(directory: Path, digests: dict[int, int]) -> int:
    """Load it in a forked process; how that ended, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        signal.alarm(CHILD_S_MAX)
        status = WRONG
        try:
            store = CheckpointStore.open(str(directory))
            assert store.info is not None
            if store.load().digest() == digests.get(store.info.index):
                status = SAME if store.info.index == max(digests) else OLDER
        except StorageError:
            status = REFUSED
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def flipped(original: Path, directory: Path, bit: int) -> Path:
    target = directory / "checkpoint.mdb"
    shutil.copy(original, target)
    with target.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
    return target


@pytest.mark.parametrize(
    ("seed", "flips"),
    [(1, 400), pytest.param(2, 6000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_a_flipped_bit_never_gives_another_state(tmp_path: Path, seed: int, flips: int) -> None:
    digests = make_file(tmp_path / "original")
    original = tmp_path / "original" / "checkpoint.mdb"
    bits = original.stat().st_size * 8
    dice = Random(seed)
    # The pages' heads and the two meta pages are small, and the most delicate.
    chosen = [dice.randrange(bits) for _ in range(flips // 2)]
    chosen += [
        dice.randrange(bits // 8 // 4096) * 4096 * 8 + dice.randrange(200 * 8)
        for _ in range(flips // 2)
    ]
    seen: dict[int, int] = {}
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for bit in chosen:
        target = flipped(original, damaged, bit)
        how = outcome(damaged, digests)
        seen[how] = seen.get(how, 0) + 1
        assert how != WRONG, f"bit {bit} gave another state"
        if how < 0 and seen[how] <= CRASHES_CHECKED:
            assert how != -signal.SIGALRM, f"bit {bit} makes loading endless"
            with pytest.raises(StorageError):
                check_checkpoint(str(target))
    assert seen[SAME] and seen[REFUSED], seen
    print(seen)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("SEGV", CorruptionError), ("BUS", CorruptionError), ("KILL", StorageError)],
)
def test_how_the_reading_process_ended_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: type[StorageError]
) -> None:
    """A crash of LMDB's is damage; a child that somebody killed says nothing about the file."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\nkill -{name} $$\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(expected, match=f"SIG{name}") as raised:
        check_checkpoint("checkpoint.mdb")
    assert type(raised.value) is expected
