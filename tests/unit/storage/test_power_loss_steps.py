"""The power goes at each step of what a replica does with its disk, and in the middle of each.

Method: one thing is done again and again from the same moment, and crashes before its first, its
second, its every operation; a write that is crashed into is torn at various bytes. What is left is
tried as a killed process leaves it, with nothing of what was not synced, with all, and with parts.
After the start that follows, the power goes again: what it was started with must be on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from coordsvc.testing.fake_disk import FakeDisk, Operation, SimulatedCrash
from coordsvc.testing.lmdb_calls import IS_SUPPORTED, LmdbCalls
from tests.unit.storage.power_disk import PowerDisk
from tests.unit.storage.replica_history import History
from tests.unit.storage.replica_life import Life

pytestmark = pytest.mark.skipif(
    not IS_SUPPORTED, reason="LMDB's writes can be watched on Linux only, on x86-64 or arm64"
)

META_BYTES = 120
"""What LMDB writes of a meta page: in one sector, its transaction's number last."""
META_PAGES_END = 8192

Act = Callable[[Life], None]
Leave = Callable[[PowerDisk], PowerDisk]


def write_group(life: Life) -> None:
    life.write_group(4)


def vote(life: Life) -> None:
    life.vote()


def switch(life: Life) -> None:
    """More than a segment holds."""
    life.write_group(10)


def write_checkpoint(life: Life) -> None:
    assert life.write_checkpoint()


def write_checkpoint_and_log(life: Life) -> None:
    """The log goes on meanwhile."""
    assert life.write_checkpoint(1)


def drop(life: Life) -> None:
    assert life.drop()


def install(life: Life) -> None:
    assert life.install()


def restart(life: Life) -> None:
    life.restart()


class Moment:
    """Of a life, to be lived on from again and again."""

    def __init__(self, life: Life, history: History, calls: LmdbCalls) -> None:
        life.die(PowerDisk.killed)
        self._life = life
        self._history = history
        self._calls = calls

    def again(self, directory: Path) -> Life:
        directory.mkdir(exist_ok=True)
        moved = moved_to(self._life.disk, str(directory))
        life = Life(moved, self._calls, self._history, Random(1))
        life.changes = list(self._life.changes)
        life.truth_at = list(self._life.truth_at)
        life.acknowledged = self._life.acknowledged
        life.checkpointed = self._life.checkpointed
        life.dropped_before = self._life.dropped_before
        life.start()
        return life


def moved_to(disk: PowerDisk, directory: str) -> PowerDisk:
    """The same files, all of it synced, elsewhere."""
    fake = FakeDisk()
    fake.make_dir(directory)
    for path in disk.fake._dirs:
        if path.startswith(disk.directory):
            fake.make_dir(directory + path[len(disk.directory) :])
    for path in disk.fake.files():
        fake.put(directory + path[len(disk.directory) :], disk.fake.read(path))
    return PowerDisk(directory).after(fake)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history"), entries=120, snapshot_every=40)


@pytest.fixture
def calls() -> Iterator[LmdbCalls]:
    with LmdbCalls() as calls:
        yield calls


def moment(directory: Path, history: History, calls: LmdbCalls, checkpoints: int) -> Moment:
    directory.mkdir()
    life = Life(PowerDisk(str(directory)), calls, history, Random(1))
    life.start()
    for _ in range(checkpoints):
        life.write_group(12)
        assert life.write_checkpoint()
    life.write_group(9)
    return Moment(life, history, calls)


def operations_of(act: Act, life: Life) -> list[Operation]:
    """Those that it consists of when nothing goes wrong."""
    fake = life.disk.fake
    first = len(fake.operations)
    life.guarded(act)
    done = fake.operations[first:]
    life.die(PowerDisk.killed)
    return [operation._replace(number=number) for number, operation in enumerate(done)]


def leaves(dice: Random) -> list[tuple[str, Leave]]:
    return [
        ("killed", PowerDisk.killed),
        ("nothing", lambda disk: disk.cut_to(0.0, dice)),
        ("everything", lambda disk: disk.cut_to(1.0, dice)),
        ("a part", lambda disk: disk.cut_to(0.5, dice)),
    ]


def crash_and_start(life: Life, act: Act, at: int, torn_write_bytes: int, leave: Leave) -> None:
    """Twice: after the start the power goes, and it starts on nothing but what is on disk."""
    life.disk.crash_after(at, torn_write_bytes)
    with pytest.raises(SimulatedCrash):
        life.guarded(act)
    life.die(leave)
    life.start()
    life.die(partial(PowerDisk.cut_to, share=0.0, dice=life.dice))
    life.start()
    life.die(PowerDisk.killed)


@pytest.mark.parametrize(
    ("act", "checkpoints"),
    [
        (write_group, 0),
        (vote, 1),
        (switch, 1),
        (write_checkpoint, 0),
        (write_checkpoint, 2),
        (write_checkpoint_and_log, 1),
        (drop, 3),
        (install, 0),
        (install, 1),
        (restart, 1),
    ],
    ids=lambda value: str(getattr(value, "__name__", value)),
)
def test_a_crash_before_each_operation(
    scratch: Path, history: History, calls: LmdbCalls, act: Act, checkpoints: int
) -> None:
    start = moment(scratch / "moment", history, calls, checkpoints)
    operations = operations_of(act, start.again(scratch / "whole"))
    assert operations, "it does nothing"
    dice = Random(2)
    for operation in operations:
        for name, leave in leaves(dice):
            torn = dice.randrange(5000) if operation.name == "pwrite" else 0
            try:
                crash_and_start(start.again(scratch / "life"), act, operation.number, torn, leave)
            except BaseException as error:
                error.add_note(f"{operation}, torn at {torn}; left: {name}")
                raise


def test_a_torn_meta_page(scratch: Path, history: History, calls: LmdbCalls) -> None:
    """The checkpoint before, or, with the last byte that differs, the new one."""
    start = moment(scratch / "moment", history, calls, 2)
    operations = operations_of(write_checkpoint, start.again(scratch / "whole"))
    meta = operations[-1]
    assert (meta.name, meta.file_path[-14:]) == ("pwrite", "checkpoint.mdb"), operations
    seen = set()
    for torn in [*range(0, 100, 7), *range(100, META_BYTES + 1)]:
        life = start.again(scratch / "life")
        before = life.checkpointed
        crash_and_start(life, write_checkpoint, meta.number, torn, PowerDisk.killed)
        assert life.checkpointed > before or torn < META_BYTES
        seen.add(life.checkpointed - before)
    assert len(seen) == 2, seen


def test_each_part_of_the_pages_of_a_commit(
    scratch: Path, history: History, calls: LmdbCalls
) -> None:
    """Before its data is synced, and LMDB writes no meta page before that, any sectors of it may be
    on disk: the checkpoint before is not touched by them."""
    start = moment(scratch / "moment", history, calls, 3)
    operations = operations_of(write_checkpoint, start.again(scratch / "whole"))
    sync = next(op for op in operations if op.name == "fdatasync" and ".mdb" in op.file_path)
    metas = [op.number for op in operations if op.name == "pwrite" and ".mdb" in op.file_path]
    assert metas[-2] < sync.number < metas[-1], operations
    dice = Random(3)
    for number in range(30):
        life = start.again(scratch / "life")
        before = life.checkpointed
        share = dice.random()
        crash_and_start(
            life,
            write_checkpoint,
            sync.number,
            0,
            partial(PowerDisk.cut_to, share=share, dice=dice),
        )
        assert life.checkpointed == before, number
