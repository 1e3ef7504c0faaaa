"""When a checkpoint is taken, what is in it, and what follows. The thread is a list here."""

from __future__ import annotations

import pytest

from coordsvc.core.commands import Batch, Caller, CreateOp, Entry, RegisterOrigin, Write
from coordsvc.core.machine import Machine
from coordsvc.core.records import ChangedRecords, Singletons
from coordsvc.server.checkpoints import Checkpointer, Pace
from coordsvc.server.config_model import StorageConfig
from coordsvc.storage.checkpoint import CheckpointInfo, CheckpointWritten
from coordsvc.storage.errors import DiskFullError
from coordsvc.storage.executor import Done, Job

SETTINGS = StorageConfig(
    checkpoint_interval_s=60, checkpoint_entries=1_000, checkpoint_log_bytes=1 << 20
)


class HeldExecutor:
    """Runs a job when told to."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Job, Done]] = []

    def submit(self, job: Job, done: Done) -> None:
        self.jobs.append((job, done))

    def run(self) -> None:
        job, done = self.jobs.pop(0)
        try:
            result = job()
        except BaseException as error:
            done(None, error)
        else:
            done(result, None)


class FakeSource:
    """A machine that is given one create per entry; its log is on disk as told."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.is_ready = True
        self.applied_index = 1
        self.durable_index = 1
        self.compacted: list[int] = []
        register = Batch(1, 0, 0, (RegisterOrigin(1, b"nonce"),))
        self._apply(register)
        self._incarnation = self.machine.state.origins[1].incarnation
        self._seq = 0

    def _apply(self, batch: Batch) -> None:
        self.machine.apply_entry(Entry(1, 1, (batch,)), 7)
        self.applied_index += 1

    def create(self, path: str, *, durable: bool = True) -> None:
        self._seq += 1
        write = Write(Caller(), CreateOp(path, b"x"))
        self._apply(Batch(1, self._incarnation, self._seq, (write,)))
        if durable:
            self.durable_index = self.applied_index

    def term_at(self, index: int) -> int:
        return 7

    def compact_log(self, index: int) -> None:
        self.compacted.append(index)


class FakeStore:
    """What was written to it; or the failure it is told to have."""

    def __init__(self) -> None:
        self.written: list[tuple[set[str], Singletons, CheckpointInfo]] = []
        self.failure: Exception | None = None

    def write(
        self, changed: ChangedRecords, singletons: Singletons, info: CheckpointInfo
    ) -> CheckpointWritten:
        if self.failure is not None:
            raise self.failure
        paths = {znode.path for znode in changed.znodes.values() if znode is not None}
        self.written.append((paths, singletons, info))
        return CheckpointWritten(100, 0.25, len(changed))


class Scene:
    def __init__(self, settings: StorageConfig = SETTINGS) -> None:
        self.source, self.store, self.executor = FakeSource(), FakeStore(), HeldExecutor()
        self.failures: list[BaseException] = []
        self.now, self.log_bytes = 1000.0, 0
        info = CheckpointInfo(self.source.applied_index, 0, 0, 0)
        pace = Pace(settings, rank=0, replicas=1, now=self.now, index=info.index)
        self.checkpointer = Checkpointer(
            self.source,
            self.store,
            self.source.machine.observe_changes(),
            self.executor,
            pace,
            info=info,
            log_bytes=lambda: self.log_bytes,
            monotonic=lambda: self.now,
            on_failed=self.failures.append,
        )

    def turn(self, after_s: float = 0.0) -> int:
        """How many checkpoints are being written after a turn so much later."""
        self.now += after_s
        self.checkpointer.turn(self.now)
        return len(self.executor.jobs)


@pytest.fixture
def scene() -> Scene:
    return Scene()


# -------------------------------------------------------------------------------------- when


def test_one_is_due_after_the_interval_if_anything_changed(scene: Scene) -> None:
    assert scene.turn(61) == 0, "nothing has changed"
    scene.source.create("/a")
    assert scene.turn() == 1


def test_one_is_due_after_so_many_entries(scene: Scene) -> None:
    pace = Pace(SETTINGS, rank=0, replicas=1, now=0.0, index=500)
    assert not pace.is_due(0.0, 999, 0)
    assert pace.is_due(0.0, 1_000, 0)
    pace.taken(0.0, 1_003, 0)
    assert not pace.is_due(0.0, 1_999, 0) and pace.is_due(0.0, 2_000, 0)


def test_one_is_due_after_so_many_bytes_of_log(scene: Scene) -> None:
    scene.source.create("/a")
    scene.log_bytes = (1 << 20) - 1
    assert scene.turn() == 0
    scene.log_bytes += 1
    assert scene.turn() == 1
    scene.executor.run()
    scene.source.create("/b")
    assert scene.turn() == 0, "they count from the last one"


def test_what_a_start_found_in_the_log_counts() -> None:
    """Or a replica that is started again and again would never write one."""
    pace = Pace(SETTINGS, rank=0, replicas=1, now=0.0, index=5, log_bytes=0 - (1 << 20))
    assert pace.is_due(0.0, 6, 0)


@pytest.mark.parametrize("by", ["time", "entries", "bytes"])
def test_replicas_with_the_same_load_take_theirs_one_after_the_other(by: str) -> None:
    """Never two in the same tenth of a period, through many of them."""
    paces = [Pace(SETTINGS, rank=rank, replicas=3, now=0.0, index=1) for rank in range(3)]
    taken: list[tuple[int, int]] = []
    for step in range(1, 101):
        now = step * 6.0 if by == "time" else 0.0
        index = step * 100 if by == "entries" else step + 1
        log_bytes = step * (1 << 20) // 10 if by == "bytes" else 0
        for rank, pace in enumerate(paces):
            if pace.is_due(now, index, log_bytes):
                pace.taken(now, index, log_bytes)
                taken.append((step, rank))
    steps = [step for step, _ in taken]
    assert len(steps) == len(set(steps)), f"two at once: {taken}"
    for rank in range(3):
        assert sum(1 for _, who in taken if who == rank) >= 9


def test_the_indexes_at_which_one_is_due_outlast_a_restart() -> None:
    before = Pace(SETTINGS, rank=1, replicas=3, now=0.0, index=1)
    after = Pace(SETTINGS, rank=1, replicas=3, now=0.0, index=900)
    for index in range(1, 5_000):
        if index > 900 and before.is_due(0.0, index, 0):
            assert after.is_due(0.0, index, 0)
            before.taken(0.0, index, 0)
            after.taken(0.0, index, 0)
        elif index <= 900 and before.is_due(0.0, index, 0):
            before.taken(0.0, index, 0)


def test_only_one_at_a_time(scene: Scene) -> None:
    scene.source.create("/a")
    assert scene.turn(61) == 1
    scene.source.create("/b")
    assert scene.turn(61) == 1
    assert scene.checkpointer.statistics().is_writing
    scene.executor.run()
    assert scene.turn() == 1


def test_a_replica_that_is_not_ready_takes_none(scene: Scene) -> None:
    scene.source.create("/a")
    scene.source.is_ready = False
    assert scene.turn(61) == 0
    scene.source.is_ready = True
    assert scene.turn() == 1


# ------------------------------------------------------------------------------------ what


def test_it_is_all_of_one_moment(scene: Scene) -> None:
    """Records, scalars, digest and index are of the turn it was taken in, whatever happens until a
    thread writes them."""
    source, state = scene.source, scene.source.machine.state
    source.create("/a")
    index, zxid, digest = source.applied_index, state.zxid, source.machine.digest()
    assert scene.turn(61) == 1
    source.create("/b")
    scene.executor.run()
    ((paths, singletons, info),) = scene.store.written
    assert paths == {"/", "/a"}
    assert singletons.zxid == zxid
    assert info == CheckpointInfo(index, 7, zxid, digest)


def test_the_next_one_holds_what_changed_since_and_nothing_else(scene: Scene) -> None:
    scene.source.create("/a")
    scene.turn(61)
    scene.executor.run()
    scene.source.create("/b")
    scene.source.create("/b/c")
    scene.turn(61)
    scene.executor.run()
    assert [paths for paths, _, _ in scene.store.written] == [{"/", "/a"}, {"/", "/b", "/b/c"}]


def test_it_is_not_written_before_the_log_holds_what_it_covers(scene: Scene) -> None:
    """Or a crash leaves a log that ends before its checkpoint. A disk that is always a little
    behind must not put it off for ever: it covers what was applied when it was due."""
    scene.source.create("/a", durable=False)
    due_at = scene.source.applied_index
    assert scene.turn(61) == 0
    scene.source.create("/b", durable=False)
    assert scene.turn(61) == 0
    scene.source.durable_index = due_at
    assert scene.source.applied_index > due_at
    assert scene.turn() == 1
    scene.executor.run()
    ((paths, _, info),) = scene.store.written
    assert info.index == due_at and paths == {"/", "/a"}


# ------------------------------------------------------------------------------ what follows


def test_the_log_is_let_go_when_it_is_on_disk_and_not_before(scene: Scene) -> None:
    scene.source.create("/a")
    index = scene.source.applied_index
    scene.turn(61)
    scene.source.create("/b")
    assert scene.source.compacted == []
    scene.executor.run()
    assert scene.source.compacted == [index]


def test_a_failure_ends_the_process_and_nothing_is_let_go(scene: Scene) -> None:
    scene.store.failure = DiskFullError("no space left")
    scene.source.create("/a")
    scene.turn(61)
    scene.executor.run()
    assert scene.failures == [scene.store.failure] and scene.source.compacted == []
    scene.source.create("/b")
    assert scene.turn(61) == 0, "what failed once is not tried again"


def test_after_a_stop_nothing_is_begun_and_nothing_let_go(scene: Scene) -> None:
    scene.source.create("/a")
    scene.turn(61)
    scene.checkpointer.stop()
    scene.executor.run()
    assert scene.source.compacted == []
    scene.source.create("/b")
    assert scene.turn(61) == 0


def test_its_statistics(scene: Scene) -> None:
    before = scene.checkpointer.statistics()
    assert before.age_seconds is None and before.checkpoints_total == 0
    scene.source.create("/a")
    scene.turn(61)
    scene.executor.run()
    scene.now += 5
    after = scene.checkpointer.statistics()
    assert after.age_seconds == 5.0 and after.index == scene.source.applied_index
    assert (after.checkpoints_total, after.bytes_written_total, after.last_bytes) == (1, 100, 100)
    assert after.last_seconds == 0.25 and after.last_records > 0 and not after.is_writing
