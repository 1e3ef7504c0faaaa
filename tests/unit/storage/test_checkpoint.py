"""A checkpoint: what was written is what is loaded, or nothing is."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from coordsvc.core.commands import Caller, CloseSessionOp, SetDataOp
from coordsvc.core.records import ChangedRecords
from coordsvc.storage import checkpoint
from coordsvc.storage.checkpoint import (
    FULL_BELOW_BYTES,
    CheckpointInfo,
    CheckpointStore,
    lmdb_errors,
)
from coordsvc.storage.checkpoint_check import check_checkpoint
from coordsvc.storage.checkpoint_format import (
    CHECKPOINT_FORMAT,
    INFO_KEY,
    StoredInfo,
    encode_value,
    seal,
)
from coordsvc.storage.errors import (
    CorruptionError,
    DataDirRefusedError,
    DiskError,
    DiskFullError,
    StorageError,
)
from coordsvc.testing.fake_disk import SimulatedCrash
from tests.unit.core.harness import TERM
from tests.unit.storage.checkpoint_scene import Bulk, Kept, copied


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    kept = Kept(tmp_path)
    yield kept
    kept.store.close()


def test_what_was_written_is_loaded(kept: Kept, tmp_path: Path) -> None:
    assert kept.store.info is None
    session_id = kept.harness.open_session()
    kept.create(300)
    written = kept.checkpoint()
    assert written.records == 300 + 4 + 1 + 1 and written.bytes_written > 300 * 20
    assert kept.store.info == kept.info()
    kept.set("/n1-7", b"changed")
    kept.delete("/n1-8")
    kept.harness.write(CloseSessionOp(), Caller(session_id))
    assert kept.checkpoint().records < 10
    store = copied(kept.store.file_path, tmp_path / "copy")
    assert store.info == kept.info()
    machine = store.load()
    store.close()
    assert list(machine.state.export_records()) == list(kept.machine.state.export_records())
    assert machine.digest() == kept.machine.digest()


def test_a_feed_of_everything_has_what_was_there_before_and_comes_after(kept: Kept) -> None:
    kept.create(3)
    everything = kept.machine.observe_changes(everything=True)
    later = kept.machine.observe_changes()
    kept.delete("/n1-1")
    taken = everything.take()
    znodes = {znode.path for znode in taken.znodes.values() if znode is not None}
    assert znodes == set(kept.machine.state.znodes) and set(taken.origins) == {1}
    assert sorted(taken.znodes.values(), key=str) != sorted(later.take().znodes.values(), key=str)
    assert len(everything.take()) == len(later.take()) == 0


def test_what_was_taken_is_let_go(kept: Kept) -> None:
    changed = kept.feed.take()
    kept.store.write(changed, kept.machine.state.singletons(), kept.info())
    assert len(changed) == 0


def test_there_is_no_file_before_the_first_checkpoint_is_whole(tmp_path: Path) -> None:
    seen: list[list[str]] = []
    store = CheckpointStore.open(
        str(tmp_path / "new"), on_created=lambda: seen.append(os.listdir(tmp_path / "new"))
    )
    kept = Kept(tmp_path, store)
    wrong = CheckpointInfo(5, TERM, kept.machine.state.zxid, kept.machine.digest() ^ 1)
    with pytest.raises(StorageError, match="would have digest .* it was not written"):
        store.write(kept.feed.take(), kept.machine.state.singletons(), wrong)
    assert not os.path.exists(store.file_path) and seen == [] and store.info is None
    store.close()
    again = Kept(tmp_path, CheckpointStore.open(str(tmp_path / "new")))
    assert again.store.info is None
    again.checkpoint()
    assert os.listdir(tmp_path / "new") == ["checkpoint.mdb"]
    again.store.close()
    assert seen == []


def test_the_first_checkpoint_is_told_of_once(tmp_path: Path) -> None:
    seen: list[bool] = []
    store = CheckpointStore.open(
        str(tmp_path), on_created=lambda: seen.append(os.path.exists(store.file_path))
    )
    kept = Kept(tmp_path, store)
    kept.checkpoint()
    kept.checkpoint()
    assert seen == [True]
    store.close()


def test_a_changed_record_that_nobody_mentioned_is_noticed_before_the_log_goes(kept: Kept) -> None:
    """The digest of what is in the file is counted while it is written."""
    kept.create(5)
    kept.checkpoint()
    before = kept.info()
    kept.set("/n1-1", b"one")
    kept.set("/n1-2", b"two")
    changed = kept.feed.take()
    del changed.znodes[kept.machine.state.znodes["/n1-1"].node_id]
    kept.index += 1
    with pytest.raises(StorageError, match="it was not written"):
        kept.store.write(changed, kept.machine.state.singletons(), kept.info())
    assert kept.store.info == before
    assert kept.store.load().digest() == before.digest


def test_a_first_checkpoint_of_only_some_records_is_refused(kept: Kept) -> None:
    kept.feed.take()
    kept.create(1)
    with pytest.raises(StorageError, match="it was not written"):
        kept.checkpoint()


def test_a_full_map_grows(tmp_path: Path) -> None:
    kept = Kept(tmp_path, CheckpointStore.open(str(tmp_path), map_bytes=1 << 16))
    kept.create(50, size=4000)
    kept.checkpoint()
    kept.create(100, size=4000)
    kept.checkpoint()
    assert os.stat(kept.store.file_path).st_size > 4 << 16
    assert kept.store.load().digest() == kept.machine.digest()
    kept.store.close()
    again = CheckpointStore.open(str(tmp_path), map_bytes=1 << 16)
    assert again.load().digest() == kept.machine.digest()
    again.close()


def test_large_values_and_many_chunks(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "CHUNK_RECORDS", 3)
    monkeypatch.setattr(checkpoint, "CHUNK_BYTES", 5000)
    kept.create(10, size=3000)
    kept.create(1, size=1024 * 1024)
    kept.checkpoint()
    for number in range(0, 10, 2):
        kept.delete(f"/n1-{number}") if number else None
    kept.set("/n1-1", b"short")
    kept.checkpoint()
    assert kept.store.load().digest() == kept.machine.digest()


def test_one_change_among_many_costs_little(tmp_path: Path) -> None:
    """100,000 znodes, one of them written to: under 1 MiB goes to the disk."""
    bulk = Bulk(100_000)
    machine = bulk.machine
    feed = machine.observe_changes(everything=True)
    store = CheckpointStore.open(str(tmp_path))

    def write(index: int) -> int:
        info = CheckpointInfo(index, TERM, machine.state.zxid, machine.digest())
        before = written_bytes()
        store.write(feed.take(), machine.state.singletons(), info)
        return written_bytes() - before

    assert write(10) > 10 << 20
    bulk.write(SetDataOp("/d7/n50007", b"changed"))
    assert 0 < write(11) < 1 << 20
    assert store.load().digest() == machine.digest()
    store.close()


def written_bytes() -> int:
    """What this process gave to the kernel to write."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def test_a_copy_is_compact_and_whole(kept: Kept, tmp_path: Path) -> None:
    kept.create(200, size=2000)
    kept.checkpoint()
    for number in range(199):
        kept.delete(f"/n1-{number}")
    kept.checkpoint()
    copy = tmp_path / "copy" / "checkpoint.mdb"
    copy.parent.mkdir()
    assert kept.store.copy_to(str(copy)) == kept.info()
    assert copy.stat().st_size < os.stat(kept.store.file_path).st_size / 4
    store = CheckpointStore.open(str(copy.parent))
    assert store.info == kept.info() and store.load().digest() == kept.machine.digest()
    store.close()
    with pytest.raises(DiskError):
        kept.store.copy_to(str(copy))


def test_nothing_is_written_over_a_file_that_took_its_place(kept: Kept) -> None:
    kept.store.supersede()
    assert kept.checkpoint().records == 0
    assert not os.path.exists(kept.store.file_path)


# ------------------------------------------------------------------------------- damage


def damaged(kept: Kept, key: bytes, value: bytes | None) -> str:
    """Put another value under a key, past the store; the file."""
    kept.store.close()
    environment = lmdb.open(kept.store.file_path, subdir=False, lock=False, map_size=1 << 30)
    with environment.begin(write=True) as txn:
        txn.delete(key) if value is None else txn.put(key, value)
    environment.close()
    return kept.store.file_path


def refusal(file_path: str) -> CorruptionError:
    """How it is refused, by those who load it and by those who only look."""
    store = CheckpointStore.open(os.path.dirname(file_path))
    with pytest.raises(CorruptionError, match="run `coordsvc rejoin DATA_DIR`") as loading:
        store.load()
    store.close()
    with pytest.raises(CorruptionError, match="run `coordsvc rejoin DATA_DIR`"):
        check_checkpoint(file_path)
    return loading.value


def a_record(kept: Kept) -> tuple[bytes, bytes]:
    """(key, value) of the znode /n1-1 as it is on disk."""
    kept.create(3)
    kept.checkpoint()
    znode = kept.machine.state.znodes["/n1-1"]
    key = b"\x01" + znode.node_id.to_bytes(8, "big")
    return key, encode_value(key, znode)


def test_a_flipped_bit_in_any_byte_of_a_record_is_found(kept: Kept) -> None:
    key, value = a_record(kept)
    for position in range(0, len(value), 7):
        flipped = bytearray(value)
        flipped[position] ^= 1 << position % 8
        file_path = damaged(kept, key, bytes(flipped))
        store = CheckpointStore.open(os.path.dirname(file_path))
        with pytest.raises(CorruptionError, match=f"{key[1:].hex()} is not what was written"):
            store.load()
        store.close()
    assert "table 1" in refusal(file_path).reason


def test_a_missing_record_is_found(kept: Kept) -> None:
    key, _ = a_record(kept)
    assert "digest" in refusal(damaged(kept, key, None)).reason


def test_an_older_version_of_a_record_is_found(kept: Kept) -> None:
    key, value = a_record(kept)
    kept.set("/n1-1", b"newer")
    kept.checkpoint()
    assert "digest" in refusal(damaged(kept, key, value)).reason


def test_a_record_under_another_key_is_found(kept: Kept) -> None:
    key, value = a_record(kept)
    refusal(damaged(kept, key[:-1] + b"\xee", value))


def test_an_unknown_table_is_refused(kept: Kept) -> None:
    a_record(kept)
    key = b"\x09" + bytes(8)
    assert "unreadable" in refusal(damaged(kept, key, seal(key, b"\xc0"))).reason


def test_an_undecodable_record_is_refused(kept: Kept) -> None:
    key, _ = a_record(kept)
    assert "unreadable" in refusal(damaged(kept, key, seal(key, b"\xc0"))).reason


@pytest.mark.parametrize("value", [None, b"", b"12345678", bytes(40)])
def test_without_knowing_what_it_covers_it_is_refused(kept: Kept, value: bytes | None) -> None:
    a_record(kept)
    file_path = damaged(kept, INFO_KEY, value)
    with pytest.raises(CorruptionError, match="what it covers is not readable"):
        CheckpointStore.open(os.path.dirname(file_path))
    with pytest.raises(CorruptionError, match="what it covers is not readable"):
        check_checkpoint(file_path)


def test_a_newer_format_is_refused(kept: Kept) -> None:
    import msgspec

    a_record(kept)
    newer = msgspec.msgpack.encode(StoredInfo(CHECKPOINT_FORMAT + 1, 11, 1, 1, 1))
    file_path = damaged(kept, INFO_KEY, seal(INFO_KEY, newer))
    for look in (CheckpointStore.open, lambda path: check_checkpoint(file_path)):
        with pytest.raises(DataDirRefusedError, match="has format 2; this version knows up to 1"):
            look(os.path.dirname(file_path))


@pytest.mark.parametrize("content", [b"", b"garbage" * 2000, bytes(8192)])
def test_what_is_no_lmdb_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.mdb").write_bytes(content)
    with pytest.raises(CorruptionError):
        CheckpointStore.open(str(tmp_path))
    with pytest.raises(CorruptionError):
        check_checkpoint(str(tmp_path / "checkpoint.mdb"))


def test_the_report_tells_what_is_in_it(kept: Kept) -> None:
    kept.harness.open_session()
    a_record(kept)
    report = check_checkpoint(kept.store.file_path)
    assert report.info == kept.info() and report.cluster_id == ""
    assert report.records == {
        "znodes": 7, "sessions": 1, "results": 0, "origins": 1, "singletons": 1,
    }  # fmt: skip
    assert report.bytes > 300


# ------------------------------------------------------------------------- a failing disk


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (lmdb.DiskError("mdb_txn_commit: No space left on device"), DiskFullError),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.ENOSPC)}"), DiskFullError),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EDQUOT)}"), DiskFullError),
        (lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}"), DiskError),
        (OSError(errno.ENOSPC, "full"), DiskFullError),
        (OSError(errno.EIO, "broken"), DiskError),
        (lmdb.CorruptedError("MDB_CORRUPTED"), CorruptionError),
        (lmdb.PanicError("MDB_PANIC"), CorruptionError),
    ],
)
def test_foreign_errors_get_our_names(error: Exception, expected: type[StorageError]) -> None:
    with pytest.raises(expected) as raised, lmdb_errors("cannot write it", "file"):
        raise error
    assert type(raised.value) is expected and raised.value.__cause__ is not None


FULL = """
import resource, signal, sys
from pathlib import Path
from coordsvc.storage.errors import DiskError
from tests.unit.storage.checkpoint_scene import Kept

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
kept = Kept(Path(sys.argv[1]))
kept.create(20)
kept.checkpoint()
before = kept.info()
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))
kept.create(40, size=4000)
try:
    kept.checkpoint()
except DiskError as error:
    print(before.index, before.digest, type(error).__name__)
"""


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    """A real file that may not grow, in a process of its own."""
    assert resource.RLIMIT_FSIZE
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    index, digest, error = ran.stdout.split()
    assert error == "DiskError"
    store = CheckpointStore.open(str(tmp_path))
    assert store.info is not None
    assert (store.info.index, store.load().digest()) == (int(index), int(digest))
    store.close()


class Stuck:
    """An environment whose commit fails as the disk says."""

    def __init__(self, environment: lmdb.Environment, error: BaseException) -> None:
        self._environment = environment
        self._error = error

    def begin(self, **options: bool) -> Stuck:
        self._txn = self._environment.begin(**options)
        return self

    def __enter__(self) -> lmdb.Transaction:
        return self._txn

    def __exit__(self, *args: object) -> None:
        self._txn.abort()
        raise self._error

    def close(self) -> None:
        self._environment.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (lmdb.DiskError("mdb_txn_commit: No space left on device"), DiskFullError),
        (lmdb.Error("mdb_txn_commit: Input/output error"), DiskError),
        (SimulatedCrash(), SimulatedCrash),
    ],
)
def test_a_commit_that_fails_leaves_the_one_before(
    kept: Kept, tmp_path: Path, error: BaseException, expected: type[BaseException]
) -> None:
    kept.create(3)
    kept.checkpoint()
    before = kept.info()
    kept.create(3)
    assert kept.store._environment is not None
    kept.store._environment = Stuck(kept.store._environment, error)  # type: ignore[assignment]
    with pytest.raises(expected) as raised:
        kept.checkpoint()
    assert type(raised.value) is expected
    assert kept.store.info == before
    store = copied(kept.store.file_path, tmp_path / "copy")
    assert store.info == before and store.load().digest() == before.digest
    store.close()


def test_nothing_taken_is_lost_to_a_map_that_grows(tmp_path: Path) -> None:
    """The transaction is run again with all of it."""
    kept = Kept(tmp_path, CheckpointStore.open(str(tmp_path), map_bytes=1 << 16))
    kept.create(60, size=4000)
    changed = kept.feed.take()
    assert isinstance(changed, ChangedRecords) and len(changed) == 65
    written = kept.store.write(changed, kept.machine.state.singletons(), kept.info())
    assert written.records == 65
    kept.store.close()


@pytest.mark.parametrize(
    ("free", "expected"),
    [(0, DiskFullError), (FULL_BELOW_BYTES - 1, DiskFullError), (FULL_BELOW_BYTES, DiskError)],
)
def test_an_io_error_on_a_disk_without_room_is_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, expected: type[DiskError]
) -> None:
    """What LMDB makes of a write that the disk took only a part of."""
    monkeypatch.setattr(checkpoint, "free_bytes", lambda directory: free)
    with pytest.raises(DiskError) as raised, lmdb_errors("cannot", str(tmp_path / "a.mdb")):
        raise lmdb.Error("mdb_txn_commit: Input/output error")
    assert type(raised.value) is expected
    assert ("no space left" in str(raised.value)) == (expected is DiskFullError)
