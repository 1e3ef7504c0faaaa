"""What a start begins with: checkpoint and log, if they fit together; and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordsvc.core.commands import Batch, Caller, CreateOp, Entry, InitCluster, Write
from coordsvc.core.machine import Machine
from coordsvc.storage.checkpoint import LMDB_ENGINE, CheckpointStore
from coordsvc.storage.checkpoint_format import NO_CHECKPOINT
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.errors import CorruptionError, DataDirRefusedError
from coordsvc.storage.files import FileSystem
from coordsvc.storage.start import StorageOpened, open_storage
from coordsvc.testing.fake_disk import FakeDisk
from coordsvc.testing.manual_loop import ManualExecutor
from tests.unit.core.harness import TERM
from tests.unit.storage.replica_files import SEGMENT_BYTES, Replica


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "data")


def test_a_new_directory_begins_with_nothing(path: str) -> None:
    replica = Replica(path)
    assert replica.opened.info == NO_CHECKPOINT
    assert replica.opened.machine.digest() == Machine().digest()
    assert replica.opened.wal.recovered.is_new and replica.opened.store.info is None
    assert replica.data_dir.lmdb_engine == ""
    replica.stop()
    assert Replica(path).opened.info == NO_CHECKPOINT


def test_a_log_without_a_checkpoint_begins_at_the_beginning(path: str) -> None:
    replica = Replica(path)
    replica.run(20)
    replica.stop()
    again = Replica(path)
    assert again.opened.info == NO_CHECKPOINT
    assert len(again.opened.wal.recovered.entries) == 20
    again.replay()
    assert again.machine.digest() == replica.machine.digest()


def test_the_state_is_the_checkpoints_and_the_log_goes_on_from_there(path: str) -> None:
    replica = Replica(path)
    replica.run(30)
    replica.checkpoint()
    covered = replica.index
    replica.run(5)
    replica.drop_before(covered + 1)
    replica.stop()
    again = Replica(path)
    assert again.opened.info.index == covered and again.data_dir.lmdb_engine == LMDB_ENGINE
    log = again.opened.wal.recovered
    assert 1 < log.base_index <= covered, "entries the checkpoint covers stay in memory"
    assert log.base_index + len(log.entries) == covered + 5
    again.replay()
    assert again.machine.digest() == replica.machine.digest()


def test_a_retry_is_answered_after_a_start_without_the_log_of_the_first_try(path: str) -> None:
    replica = Replica(path)
    replica.run(1)
    harness = replica.harness
    session_id = harness.open_session()
    replica.log_new()
    caller = Caller(session_id, request_number=1)
    first = harness.write(CreateOp("/once-", b"", 2), caller)
    replica.log_new()
    replica.run(30)
    replica.checkpoint()
    replica.drop_before(replica.index + 1)
    replica.stop()
    again = Replica(path)
    assert again.opened.wal.recovered.base_index > 10, "the first try is still in the log"
    again.replay()
    retry = Write(caller, CreateOp("/once-", b"", 2))
    batch = Batch(1, harness.incarnation, harness.seq + 1, (retry,))
    applied = again.machine.apply_entry(Entry(9_999, 1, (batch,)), TERM)
    assert applied.batches[0].replies == (first,)


def test_killed_between_the_first_checkpoint_and_meta(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = Replica(path)
    replica.run(3)
    with monkeypatch.context() as patch:
        patch.setattr(DataDir, "set_lmdb_engine", lambda self, engine: None)
        replica.checkpoint()
    replica.stop()
    assert replica.data_dir.lmdb_engine == ""
    again = Replica(path)
    assert again.opened.info.index == replica.index
    assert again.data_dir.lmdb_engine == LMDB_ENGINE


def dropped(replica: Replica) -> None:
    replica.run(30)
    replica.checkpoint()
    replica.drop_before(replica.index + 1)


def lose_checkpoint(replica: Replica) -> None:
    dropped(replica)
    os.unlink(replica.opened.store.file_path)


def lose_checkpoint_and_its_mention(replica: Replica) -> None:
    lose_checkpoint(replica)
    replica.data_dir._change(lmdb_engine="")


def lose_checkpoint_of_a_whole_log(replica: Replica) -> None:
    replica.run(3)
    replica.checkpoint()
    os.unlink(replica.opened.store.file_path)


def put_back_an_old_checkpoint(replica: Replica) -> None:
    replica.run(3)
    replica.checkpoint()
    with open(replica.opened.store.file_path, "rb") as file:
        old = file.read()
    dropped(replica)
    with open(replica.opened.store.file_path, "wb") as file:
        file.write(old)


def checkpoint_ahead_of_the_log(replica: Replica) -> None:
    replica.run(3)
    replica.checkpoint(replace(replica.info(), index=9))


def checkpoint_of_another_term(replica: Replica) -> None:
    replica.run(3)
    replica.checkpoint(replace(replica.info(), term=TERM - 1))


def checkpoint_beside_an_empty_log(replica: Replica) -> None:
    replica.checkpoint(replace(replica.info(), index=5))


def damage_the_checkpoint(replica: Replica) -> None:
    replica.run(3)
    replica.checkpoint()
    path = replica.opened.store.file_path
    with open(path, "rb") as file:
        content = file.read()
    position = content.index(b"/n3")
    with open(path, "wb") as file:
        file.write(content[:position] + b"/N3" + content[position + 3 :])


def install_without_its_file(replica: Replica) -> None:
    replica.run(3)
    replica.opened.wal.install(50, TERM)
    replica.flush()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lose_checkpoint, "checkpoint.mdb is damaged: it is missing"),
        (lose_checkpoint_and_its_mention, "follows entry 2[0-9], which no checkpoint covers"),
        (lose_checkpoint_of_a_whole_log, "checkpoint.mdb is damaged: it is missing"),
        (put_back_an_old_checkpoint, "are gone, and the checkpoint ends with entry 4 of term 7"),
        (checkpoint_ahead_of_the_log, "its last entry is 4, but the checkpoint ends with entry 9"),
        (checkpoint_of_another_term, "its entry 4 is of term 7, but .* entry 4 of term 6"),
        (checkpoint_beside_an_empty_log, "its last entry is 0, but the checkpoint ends with"),
        (damage_the_checkpoint, "is not what was written"),
        (install_without_its_file, "which no checkpoint covers"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(
    path: str, spoil: Callable[[Replica], None], reason: str
) -> None:
    replica = Replica(path)
    spoil(replica)
    replica.stop()
    before = contents(path)
    with pytest.raises(CorruptionError, match=reason) as raised:
        Replica(path)
    assert "coordsvc rejoin DATA_DIR" in str(raised.value)
    assert contents(path) == before


def contents(path: str) -> dict[str, bytes]:
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            if name != "LOCK":
                found[os.path.join(folder, name)] = Path(folder, name).read_bytes()
    return found


def test_another_engine_is_refused(path: str) -> None:
    replica = Replica(path)
    replica.run(3)
    replica.checkpoint()
    replica.data_dir._change(lmdb_engine="lmdb-1.0")
    replica.stop()
    with pytest.raises(DataDirRefusedError, match="written by lmdb-1.0; this process has lmdb-0.9"):
        Replica(path)


def test_another_clusters_checkpoint_is_refused(path: str) -> None:
    replica = Replica(path)
    replica.harness.lead(InitCluster(TERM, b"a" * 16))
    replica.log_new()
    replica.checkpoint()
    replica.data_dir.set_cluster_id(b"b" * 16)
    replica.stop()
    with pytest.raises(DataDirRefusedError, match=f"cluster {'61' * 16}, .* to {'62' * 16}"):
        Replica(path)


def test_a_verified_snapshot_that_is_not_the_one_installed_is_removed(path: str) -> None:
    """The log still speaks of an earlier one, which has long been in its place."""
    replica = Replica(path)
    replica.run(3)
    replica.checkpoint()
    replica.opened.wal.install(replica.index, TERM)
    replica.flush()
    installed = replica.info()
    incoming = Path(path, "incoming")
    incoming.mkdir()
    later = CheckpointStore.open(str(incoming))
    everything = replica.machine.observe_changes(everything=True).take()
    later.write(everything, replica.machine.state.singletons(), replace(installed, index=99))
    later.close()
    os.rename(incoming / "checkpoint.mdb", incoming / "verified.mdb")
    replica.stop()
    again = Replica(path)
    assert again.opened.info == installed and again.opened.wal.recovered.installed is not None
    assert os.listdir(incoming) == []


def test_snapshots_under_way_are_removed(path: str) -> None:
    replica = Replica(path)
    replica.stop()
    for folder in ("incoming", "outgoing"):
        os.makedirs(os.path.join(path, folder))
        Path(path, folder, "1.mdb").write_bytes(b"half")
        Path(path, folder, "verified.mdb").write_bytes(b"nobody decided on it")
    Replica(path)
    assert os.listdir(os.path.join(path, "incoming")) == []
    assert os.listdir(os.path.join(path, "outgoing")) == []


def test_a_start_on_a_full_disk_uses_the_spare_segment() -> None:
    """Nothing can be written but into the space that was kept for this."""
    disk = FakeDisk()
    directory = DataDir.open("/srv/data", 1, disk)
    opened = open_on(disk, directory)
    for index in range(2, 12):
        opened.wal.append_entry(b"x" * 900, index, 1)
    opened.wal.flush()
    run_jobs(opened)
    left = disk.kill()
    left.capacity_bytes = sum(left.file_size(name) for name in left._names)
    directory = DataDir.open("/srv/data", 1, left)
    again = open_on(left, directory)
    assert len(again.wal.recovered.entries) == 10 and again.wal.synced_lsn == 10
    assert directory.synced_lsn == 0, "there was room for another META"


def open_on(disk: FakeDisk, directory: DataDir) -> StorageOpened:
    return open_storage(
        directory,
        disk,
        ManualExecutor(),
        on_synced=lambda lsn: None,
        on_failed=lambda error: pytest.fail(str(error)),
        segment_bytes=SEGMENT_BYTES,
    )


def run_jobs(opened: StorageOpened) -> None:
    opened.wal._executor.run_all()  # type: ignore[attr-defined]


class Recording(FileSystem):
    """Notes what is made durable, and when something gets a name."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self._paths: dict[int, str] = {}

    def open(self, file_path: str) -> int:
        handle = super().open(file_path)
        self._paths[handle] = os.path.basename(file_path)
        return handle

    def fdatasync(self, handle: int) -> None:
        super().fdatasync(handle)
        self.seen.append(("fdatasync", self._paths[handle]))

    def fsync_dir(self, dir_path: str) -> None:
        super().fsync_dir(dir_path)
        self.seen.append(("fsync_dir", os.path.basename(dir_path)))

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self.seen.append(("rename", os.path.basename(target)))


def test_a_checkpoint_that_is_only_in_the_page_cache_is_synced(path: str) -> None:
    """A killed process may have left it there, and the log before it goes on its word."""
    replica = Replica(path)
    replica.run(3)
    replica.checkpoint()
    replica.stop()
    files = Recording()
    Replica(path, files).stop()
    at = files.seen.index(("fdatasync", "checkpoint.mdb"))
    assert ("fsync_dir", "data") in files.seen[at:]


def test_the_first_checkpoint_has_its_name_on_disk_before_meta_says_so(path: str) -> None:
    files = Recording()
    replica = Replica(path, files)
    replica.run(3)
    files.seen.clear()
    replica.checkpoint()
    assert files.seen[:2] == [("rename", "checkpoint.mdb"), ("fsync_dir", "data")]
    assert ("rename", "META") in files.seen[2:]
    replica.stop()
