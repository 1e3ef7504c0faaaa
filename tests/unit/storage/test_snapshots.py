"""Snapshots: what is sent is what arrives, and only that is installed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordsvc.core.commands import InitCluster
from coordsvc.storage.checkpoint import CheckpointInfo
from coordsvc.storage.errors import DiskError, DiskFullError
from coordsvc.storage.files import FileSystem
from coordsvc.storage.snapshots import (
    LEFT_BYTES_MIN,
    IncomingSnapshot,
    OutgoingSnapshots,
    Snapshot,
)
from coordsvc.testing.manual_loop import ManualExecutor
from tests.unit.core.harness import TERM
from tests.unit.storage.replica_files import Replica

CHUNK = 3000


class Sender:
    def __init__(self, path: Path, entries: int = 40, cluster_id: bytes = b"") -> None:
        self.replica = Replica(str(path))
        self.replica.run(entries)
        if cluster_id:
            self.replica.harness.lead(InitCluster(TERM, cluster_id))
            self.replica.log_new()
        self.replica.checkpoint()
        self.executor = ManualExecutor()
        self.failures: list[BaseException] = []
        self.outgoing = OutgoingSnapshots(
            str(path), self.replica.opened.store, FileSystem(), self.executor, self.failures.append
        )

    def try_make(self) -> Snapshot | None:
        made: list[Snapshot | None] = []
        self.outgoing.make(made.append)
        assert made == [], "the loop would have waited"
        self.executor.run_all()
        return made[0]

    def make(self) -> Snapshot:
        made = self.try_make()
        assert made is not None
        return made

    def try_read(self, snapshot: Snapshot, offset: int, size: int) -> bytes | None:
        got: list[bytes | None] = []
        self.outgoing.read(snapshot, offset, size, got.append)
        self.executor.run_all()
        return got[0]

    def read(self, snapshot: Snapshot, offset: int, size: int) -> bytes:
        got = self.try_read(snapshot, offset, size)
        assert got is not None
        return got

    def files(self) -> list[str]:
        return os.listdir(os.path.join(self.replica.data_dir.path, "outgoing"))


def not_refused() -> None:
    pytest.fail("the disk refused nothing")


class Receiver:
    def __init__(self, path: Path, files: Any = None, entries: int = 0) -> None:
        self.replica = Replica(str(path), files)
        if entries:
            self.replica.run(entries)
        self.executor = ManualExecutor()
        self.failures: list[BaseException] = []
        self.cluster_id = b""
        self.incoming = IncomingSnapshot(
            str(path),
            self.replica.opened.store,
            self.replica.opened.wal,
            self.replica.files,
            self.executor,
            self.failures.append,
            cluster_id=lambda: self.cluster_id,
        )

    def run(self) -> None:
        while self.executor.jobs or self.replica.executor.jobs:
            self.executor.run_all()
            self.replica.executor.run_all()

    def receive(self, snapshot: Snapshot, data: bytes, **changes: Any) -> None:
        told = {"snapshot_id": snapshot.snapshot_id, "info": snapshot.info, **changes}
        steps: list[int] = []
        size = changes.pop("size_bytes", len(data))
        name, info = told["snapshot_id"], told["info"]
        self.incoming.begin(name, info, size, lambda: steps.append(-1), not_refused)
        starts = list(range(0, len(data), CHUNK))
        for start in reversed(starts):
            piece = data[start : start + CHUNK]
            self.incoming.write(start, piece, lambda at=start: steps.append(at))  # type: ignore[misc]
        self.run()
        assert steps == [-1, *reversed(starts)]

    def is_verified(self) -> bool:
        seen: list[bool] = []
        self.incoming.verify(seen.append)
        self.run()
        return seen[0]

    def install(self) -> None:
        seen: list[None] = []
        self.incoming.install(lambda: seen.append(None))
        self.run()
        assert seen == [None]

    def files(self) -> list[str]:
        return sorted(os.listdir(os.path.join(self.replica.data_dir.path, "incoming")))


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(tmp_path / "sender")


@pytest.fixture
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path / "receiver", entries=5)


def whole(sender: Sender, snapshot: Snapshot) -> bytes:
    return sender.read(snapshot, 0, snapshot.size_bytes)


def test_what_is_sent_is_the_checkpoint(sender: Sender) -> None:
    snapshot = sender.make()
    assert snapshot.info == sender.replica.info() and len(snapshot.snapshot_id) == 16
    data = whole(sender, snapshot)
    assert data == Path(snapshot.path).read_bytes() and len(data) == snapshot.size_bytes
    assert sender.read(snapshot, 1000, 10) == data[1000:1010]


def test_it_stays_as_it_is_while_checkpoints_go_on(sender: Sender) -> None:
    snapshot = sender.make()
    data = whole(sender, snapshot)
    sender.replica.run(5)
    sender.replica.checkpoint()
    newer = sender.make()
    assert newer.info.index == snapshot.info.index + 5 and newer.snapshot_id != snapshot.snapshot_id
    assert whole(sender, snapshot) == data


def test_two_receivers_share_a_copy_until_both_have_it(sender: Sender) -> None:
    first, second = sender.make(), sender.make()
    assert first is second and len(sender.files()) == 1
    sender.outgoing.drop(first)
    assert len(whole(sender, second)) == second.size_bytes
    sender.outgoing.drop(second)
    sender.executor.run_all()
    assert sender.files() == [] and sender.failures == []
    assert sender.make().size_bytes == first.size_bytes


def test_reading_beyond_the_end_is_a_bug(sender: Sender) -> None:
    snapshot = sender.make()
    sender.outgoing.read(snapshot, snapshot.size_bytes - 5, 10, lambda data: pytest.fail("short"))
    sender.executor.run_all()
    assert isinstance(sender.failures[0], AssertionError)


def test_it_is_received_verified_and_installed(sender: Sender, receiver: Receiver) -> None:
    snapshot = sender.make()
    receiver.receive(snapshot, whole(sender, snapshot))
    assert receiver.is_verified()
    receiver.install()
    receiver.replica.stop()
    again = Replica(receiver.replica.data_dir.path)
    assert again.opened.info == snapshot.info
    assert again.machine.digest() == sender.replica.machine.digest()
    log = again.opened.wal.recovered
    assert (log.base_index, log.base_term) == (snapshot.info.index, TERM) == log.installed
    assert log.entries == [] and receiver.files() == []


def test_the_log_says_so_before_the_file_takes_its_place(
    sender: Sender, receiver: Receiver
) -> None:
    snapshot = sender.make()
    receiver.receive(snapshot, whole(sender, snapshot))
    assert receiver.is_verified()
    receiver.incoming.install(lambda: pytest.fail("it is not installed"))
    receiver.executor.run_all()
    assert receiver.files() == ["verified.mdb"], "the log's record is not on disk yet"
    assert not os.path.exists(receiver.replica.opened.store.file_path)


def test_a_checkpoint_of_the_old_state_does_not_take_its_place(
    sender: Sender, receiver: Receiver
) -> None:
    snapshot = sender.make()
    receiver.receive(snapshot, whole(sender, snapshot))
    assert receiver.is_verified()
    receiver.install()
    receiver.replica.checkpoint()
    receiver.replica.stop()
    assert Replica(receiver.replica.data_dir.path).opened.info == snapshot.info


def flip(data: bytes) -> bytes:
    return data[:9000] + bytes([data[9000] ^ 4]) + data[9001:]


def other_info(**changes: int) -> Callable[[Snapshot], CheckpointInfo]:
    return lambda snapshot: replace(snapshot.info, **changes)


@pytest.mark.parametrize("field", ["index", "term", "zxid", "digest"])
def test_another_state_than_announced_does_not_verify(
    sender: Sender, receiver: Receiver, field: str
) -> None:
    snapshot = sender.make()
    info = replace(snapshot.info, **{field: getattr(snapshot.info, field) + 1})
    receiver.receive(snapshot, whole(sender, snapshot), info=info)
    assert not receiver.is_verified()
    assert receiver.files() == [] and receiver.failures == []


@pytest.mark.parametrize(
    "change",
    [flip, lambda data: data[:-CHUNK], lambda data: data + bytes(4096), lambda data: b""],
    ids=["flipped", "cut", "longer", "empty"],
)
def test_other_bytes_do_not_verify(
    sender: Sender, receiver: Receiver, change: Callable[[bytes], bytes]
) -> None:
    snapshot = sender.make()
    receiver.receive(snapshot, change(whole(sender, snapshot)))
    assert not receiver.is_verified()
    assert receiver.files() == [] and receiver.failures == []


def test_a_piece_that_never_came_does_not_verify(sender: Sender, receiver: Receiver) -> None:
    snapshot = sender.make()
    data = whole(sender, snapshot)
    receiver.receive(snapshot, data[:CHUNK], size_bytes=len(data))
    assert not receiver.is_verified()


def test_a_damaged_checkpoint_of_the_sender_does_not_verify(
    sender: Sender, receiver: Receiver
) -> None:
    """Its hash is right: the sender itself counted it."""
    import hashlib

    snapshot = sender.make()
    data = whole(sender, snapshot)
    position = data.index(b"/n30")
    data = data[:position] + b"/N30" + data[position + 4 :]
    own_hash = hashlib.blake2b(data, digest_size=16).digest()
    receiver.receive(snapshot, data, snapshot_id=own_hash)
    assert not receiver.is_verified()


def test_another_clusters_state_does_not_verify(tmp_path: Path, receiver: Receiver) -> None:
    sender = Sender(tmp_path / "sender", cluster_id=b"a" * 16)
    snapshot = sender.make()
    for cluster_id, is_ours in ((b"b" * 16, False), (b"a" * 16, True), (b"", True)):
        receiver.cluster_id = cluster_id
        receiver.receive(snapshot, whole(sender, snapshot))
        assert receiver.is_verified() == is_ours


def test_beginning_again_forgets_the_one_before(sender: Sender, receiver: Receiver) -> None:
    snapshot = sender.make()
    data = whole(sender, snapshot)
    forgotten = lambda: pytest.fail("forgotten")  # noqa: E731
    receiver.incoming.begin(b"x" * 16, snapshot.info, 10_000_000, forgotten, forgotten)
    receiver.incoming.write(0, b"old", lambda: pytest.fail("forgotten"))
    receiver.receive(snapshot, data)
    assert receiver.is_verified()


def test_after_discard_nobody_is_told_and_nothing_is_left(
    sender: Sender, receiver: Receiver
) -> None:
    snapshot = sender.make()
    receiver.receive(snapshot, whole(sender, snapshot))
    receiver.incoming.verify(lambda is_whole: pytest.fail("discarded"))
    receiver.incoming.discard()
    receiver.run()
    assert receiver.files() == [] and receiver.failures == []


def test_once_the_log_says_so_it_is_not_discarded(sender: Sender, receiver: Receiver) -> None:
    snapshot = sender.make()
    receiver.receive(snapshot, whole(sender, snapshot))
    assert receiver.is_verified()
    seen: list[bool] = []
    receiver.incoming.install(lambda: seen.append(True))
    receiver.incoming.discard()
    receiver.run()
    assert seen == [True]


@pytest.mark.parametrize("offset", [-1, 98, 101])
def test_a_piece_beyond_the_end_is_refused(sender: Sender, receiver: Receiver, offset: int) -> None:
    receiver.incoming.begin(b"x" * 16, sender.make().info, 100, lambda: None, not_refused)
    with pytest.raises(ValueError, match="of a snapshot of 100"):
        receiver.incoming.write(offset, b"abc", lambda: None)


# ------------------------------------------------------------------------- a disk that refuses

FAULTS = pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])


class Failing(FileSystem):
    """Fails in the calls of that name."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.is_on = False

    def _look(self, name: str) -> None:
        if self.is_on and name == self.name:
            raise OSError(self.number, os.strerror(self.number))

    def allocate(self, handle: int, size: int) -> None:
        self._look("allocate")
        super().allocate(handle, size)

    def pread(self, handle: int, size: int, offset: int) -> bytes:
        self._look("pread")
        return super().pread(handle, size, offset)

    def pwrite(self, handle: int, data: bytes | bytearray | memoryview, offset: int) -> int:
        self._look("pwrite")
        return super().pwrite(handle, data, offset)

    def fdatasync(self, handle: int) -> None:
        self._look("fdatasync")
        super().fdatasync(handle)

    def fsync_dir(self, dir_path: str) -> None:
        self._look("fsync_dir")
        super().fsync_dir(dir_path)

    def rename(self, source: str, target: str) -> None:
        self._look("rename")
        super().rename(source, target)

    def unlink(self, file_path: str) -> None:
        self._look("unlink")
        super().unlink(file_path)


@FAULTS
@pytest.mark.parametrize("name", ["fdatasync", "fsync_dir", "pread"])
def test_a_copy_that_the_disk_does_not_take_leaves_nothing_behind(
    sender: Sender, caplog: pytest.LogCaptureFixture, name: str, number: int
) -> None:
    """The one before stays, and when the disk is well again there is another one."""
    before = sender.make()
    sender.replica.run(5)
    sender.replica.checkpoint()
    files = sender.outgoing._files = sender.replica.opened.store._files = Failing(name, number)
    files.is_on = True
    assert sender.try_make() is None
    assert sender.files() == [os.path.basename(before.path)]
    assert [record.message for record in caplog.records] == ["snapshot.not_copied"]
    files.is_on = False
    assert len(whole(sender, before)) == before.size_bytes
    assert sender.make().info == sender.replica.info()
    assert sender.failures == []


def test_no_copy_is_made_that_would_leave_too_little_room(sender: Sender) -> None:
    size = os.stat(sender.replica.opened.store.file_path).st_size
    sender.outgoing._free_bytes = lambda directory: LEFT_BYTES_MIN + size - 1
    assert sender.try_make() is None and sender.files() == []
    sender.outgoing._free_bytes = lambda directory: LEFT_BYTES_MIN + size
    assert sender.make().info == sender.replica.info()
    assert sender.failures == []


def test_a_copy_that_cannot_be_read_is_the_callers_to_drop(sender: Sender) -> None:
    snapshot = sender.make()
    files = sender.outgoing._files = Failing("pread", errno.EIO)
    files.is_on = True
    assert sender.try_read(snapshot, 0, 10) is None
    files.is_on = False
    os.truncate(snapshot.path, 100)
    assert sender.try_read(snapshot, 96, 10) is None
    sender.outgoing.drop(snapshot)
    sender.executor.run_all()
    assert sender.files() == [] and sender.failures == []


@FAULTS
@pytest.mark.parametrize("name", ["allocate", "pwrite", "fdatasync", "rename", "fsync_dir"])
def test_a_disk_that_does_not_take_it_costs_the_snapshot_only(
    tmp_path: Path, sender: Sender, name: str, number: int
) -> None:
    """Nothing is left of it, nobody is told of the rest, and it can be received again."""
    files = Failing(name, number)
    receiver = Receiver(tmp_path / "receiver", files, entries=5)
    snapshot = sender.make()
    data = whole(sender, snapshot)
    files.is_on = True
    told: list[str] = []
    receiver.incoming.begin(
        snapshot.snapshot_id,
        snapshot.info,
        len(data),
        lambda: told.append("begun"),
        lambda: told.append("refused"),
    )
    receiver.incoming.write(0, data, lambda: told.append("written"))
    receiver.incoming.verify(lambda is_whole: told.append("verified"))
    receiver.run()
    before = {"allocate": [], "fsync_dir": [], "pwrite": ["begun"]}
    assert told == [*before.get(name, ["begun", "written"]), "refused"]
    assert receiver.files() == [] and receiver.failures == []
    files.is_on = False
    receiver.receive(snapshot, data)
    assert receiver.is_verified()
    receiver.install()
    assert receiver.failures == []


def test_what_was_refused_after_it_was_discarded_is_no_news(tmp_path: Path, sender: Sender) -> None:
    files = Failing("pwrite", errno.ENOSPC)
    receiver = Receiver(tmp_path / "receiver", files)
    snapshot = sender.make()
    files.is_on = True
    receiver.incoming.begin(
        snapshot.snapshot_id, snapshot.info, snapshot.size_bytes, lambda: None, not_refused
    )
    receiver.incoming.write(0, b"abc", lambda: pytest.fail("discarded"))
    receiver.incoming.discard()
    receiver.run()
    assert receiver.files() == [] and receiver.failures == []


@FAULTS
def test_once_it_was_decided_a_failing_disk_is_fatal(
    tmp_path: Path, sender: Sender, number: int
) -> None:
    files = Failing("rename", number)
    receiver = Receiver(tmp_path / "receiver", files, entries=5)
    snapshot = sender.make()
    receiver.receive(snapshot, whole(sender, snapshot))
    assert receiver.is_verified()
    files.is_on = True
    receiver.incoming.install(lambda: pytest.fail("it is not installed"))
    receiver.run()
    assert type(receiver.failures[0]) is (DiskFullError if number == errno.ENOSPC else DiskError)


@FAULTS
def test_what_cannot_be_removed_is_fatal(tmp_path: Path, sender: Sender, number: int) -> None:
    files = Failing("unlink", number)
    receiver = Receiver(tmp_path / "receiver", files, entries=5)
    snapshot = sender.make()
    files.is_on = True
    receiver.incoming.begin(
        snapshot.snapshot_id, snapshot.info, 10, lambda: None, lambda: pytest.fail("fatal instead")
    )
    receiver.incoming.verify(lambda is_whole: pytest.fail("it is not whole"))
    receiver.run()
    assert isinstance(receiver.failures[0], DiskError)
