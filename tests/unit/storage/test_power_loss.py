"""The power goes at any moment of a replica's life: what was acknowledged is there afterwards.

Method: lives of one replica (`replica_life`), each with its dice, on a disk whose power is cut
between any two of its operations, LMDB's own included, or in the middle of a write; now and then
the process alone is killed, or a sync fails. After each, it starts on what is left, and what it has
is held against a model. A start that refuses fails the test, too. The same with syncs that do
nothing must fail, and soon.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from coordsvc.storage import checkpoint, wal_writer
from coordsvc.storage.errors import StorageError
from coordsvc.testing.fake_disk import SimulatedCrash
from coordsvc.testing.lmdb_calls import IS_SUPPORTED, LmdbCalls
from tests.unit.storage.power_disk import LIES, PowerDisk
from tests.unit.storage.replica_history import History
from tests.unit.storage.replica_life import Life, ProcessEnded

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="LMDB's writes can be watched on Linux only, on x86-64 or arm64"
)

CRASHES_PER_STEP = 0.15
FAULTS_PER_STEP = 0.02
FULL_PER_STEP, ROOM_PER_STEP = 0.02, 0.2
"""The disk becomes full; has room again."""
POWER_CUTS_SHARE = 0.75
"""Of the crashes; the others are processes killed."""
FOUND_WITHIN_CUTS = 100
CAUGHT, NOT_CAUGHT = 10, 11
CHILD_S_MAX = 100


class Lives:
    """One after the other, until there were so many power cuts."""

    def __init__(self, directory: Path, history: History, seed: int) -> None:
        self.cuts = 0
        self.did: Counter[str] = Counter()
        self.crashed_in: Counter[str] = Counter()
        self._directory = directory
        self._history = history
        self._seed = seed

    def run(self, cuts: int, lies: frozenset[str] = frozenset()) -> None:
        with LmdbCalls() as calls:
            while self.cuts < cuts:
                directory = self._directory / str(self._seed)
                directory.mkdir()
                disk = PowerDisk(str(directory), lies=lies)
                life = Life(disk, calls, self._history, Random(self._seed))
                try:
                    self._live(life, cuts)
                except (AssertionError, StorageError) as error:
                    error.add_note(f"the life of seed {self._seed}, cut {self.cuts}: {life.did}")
                    raise
                shutil.rmtree(directory)
                self.did.update(life.did)
                self._seed += 1

    def _live(self, life: Life, cuts: int) -> None:
        dice = life.dice
        is_running = False
        while self.cuts < cuts and not life.is_over:
            if dice.random() < CRASHES_PER_STEP:
                life.disk.crash_after(dice.randrange(40), torn_write_bytes=dice.randrange(2000))
            if dice.random() < FAULTS_PER_STEP:
                life.disk.fail_after(dice.randrange(20))
            if dice.random() < FULL_PER_STEP:
                life.disk.fill(dice.choice([0, 3000, 20_000]))
            elif dice.random() < ROOM_PER_STEP:
                life.disk.fill(None)
            try:
                if is_running:
                    life.step()
                else:
                    life.start()
                is_running = True
            except (SimulatedCrash, ProcessEnded) as error:
                self._note(error)
                if not is_running and isinstance(error, ProcessEnded):
                    life.disk.fill(None)
                is_running = False
                is_cut = dice.random() < POWER_CUTS_SHARE
                self.cuts += is_cut
                life.die(partial(PowerDisk.cut, dice=dice) if is_cut else PowerDisk.killed)
        life.die(PowerDisk.killed)
        life.disk.fill(None)
        life.start()
        life.die(PowerDisk.killed)

    def _note(self, error: BaseException) -> None:
        if isinstance(error, SimulatedCrash):
            operation = error.args[0]
            kind = "LMDB" if ".mdb" in operation.file_path else "files"
            self.crashed_in[f"{kind} {operation.name}"] += 1


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a group is often more than one."""
    monkeypatch.setattr(wal_writer, "BATCH_BYTES_TARGET", 1000)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    yield History(tmp_path_factory.mktemp("history"), entries=200, snapshot_every=25)


@pytest.mark.parametrize(
    ("seed", "cuts"),
    [(1, 250), pytest.param(10_000, 5_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_what_was_acknowledged_is_there(
    scratch: Path, history: History, seed: int, cuts: int
) -> None:
    lives = Lives(scratch, history, seed)
    lives.run(cuts)
    print(lives.cuts, dict(lives.did), dict(lives.crashed_in))
    for name in ("checkpoint", "drop", "install", "copy", "restart", "truncated", "failed"):
        assert lives.did[name] >= cuts // 50, (name, lives.did)
    for name in ("LMDB pwrite", "files pwrite", "files fdatasync", "files fsync_dir"):
        assert lives.crashed_in[name] >= cuts // 50, (name, lives.crashed_in)


def is_caught(lives: Lives, lies: frozenset[str] = frozenset()) -> bool:
    """In a process of its own: LMDB may crash on what is left, which counts, too."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()
        signal.alarm(CHILD_S_MAX)
        status = 1
        try:
            lives.run(FOUND_WITHIN_CUTS, lies)
            status = NOT_CAUGHT
        except (AssertionError, StorageError) as error:
            print(f"after {lives.cuts} cuts: {error}")
            sys.stdout.flush()
            status = CAUGHT
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (CAUGHT, NOT_CAUGHT, -signal.SIGSEGV, -signal.SIGBUS), status
    return status != NOT_CAUGHT


@pytest.mark.parametrize("lie", LIES)
def test_with_syncs_that_do_nothing_it_is_not(scratch: Path, history: History, lie: str) -> None:
    assert is_caught(Lives(scratch, history, 1), frozenset([lie]))


@pytest.mark.parametrize("flag", ["sync", "metasync"])
def test_with_an_lmdb_that_does_not_sync_it_is_not(
    scratch: Path, history: History, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.lmdb, "open", partial(checkpoint.lmdb.open, **{flag: False}))
    assert is_caught(Lives(scratch, history, 1))
