"""The checkpoint: everything that apply reads, in an LMDB file.

It is the state up to one log entry. Each write brings it up to a later one, in one synced
transaction with the records that changed in between, so that its cost follows the change; a crash
leaves the one before or the new one. The file gets its name only when its first transaction is on
disk, so a file of that name is never half a checkpoint.

What is written is checked against the machine's digest before it is committed: a checkpoint that
would not load must not let the log before it go. What is loaded is checked against it again.

Blocks, all of it: one thread at a time. LMDB needs no lock of its own, for the data directory
belongs to one process. Knows nothing of peers or of the log.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import lmdb

from coordsvc.core.machine import Machine
from coordsvc.core.records import ChangedRecords, Singletons
from coordsvc.core.state import State
from coordsvc.storage.checkpoint_format import (
    CHECKPOINT_FORMAT,
    HASH_MASK,
    INFO_KEY,
    SINGLETONS_KEY,
    CheckpointInfo,
    decode_info,
    encode_info,
    encode_value,
    hash_of,
    key_text,
    open_value,
)
from coordsvc.storage.errors import (
    CorruptionError,
    DataDirRefusedError,
    DiskError,
    DiskFullError,
    StorageError,
    disk_errors,
)
from coordsvc.storage.files import Files, FileSystem, free_bytes, sync_file

__all__ = ["CHECKPOINT_FILE_NAME", "LMDB_ENGINE", "CheckpointInfo", "CheckpointStore"]

CHECKPOINT_FILE_NAME = "checkpoint.mdb"
UNFINISHED_FILE_NAME = "checkpoint.mdb.new"
"""The first checkpoint while it is being written."""

LMDB_ENGINE: Final = "lmdb-{}.{}".format(*lmdb.version()[:2])
"""Whose file format it is: LMDB changes it with these two numbers at most."""

MAP_BYTES = 64 << 30
"""Address space, not memory and not disk. Far more than a state that fits in memory, so that
growing is rare: it means writing a checkpoint twice."""

FULL_BELOW_BYTES = 1 << 20
"""A disk with less is called full when a write fails without saying why."""

CHUNK_RECORDS = 256
CHUNK_BYTES = 1 << 20
"""So much is encoded and put at a time. A call per record would pass the interpreter's lock to and
fro for each; a larger chunk would keep the loop waiting for it."""

_DAMAGE = (
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.ProblemError,
    lmdb.VersionMismatchError,
)


@dataclass(frozen=True)
class CheckpointWritten:
    """`bytes_written`: keys and values; LMDB writes whole pages."""

    bytes_written: int
    seconds: float
    records: int


class CheckpointStore:
    """Open with `CheckpointStore.open`."""

    def __init__(
        self,
        directory: str,
        map_bytes: int,
        files: Files,
        on_created: Callable[[], None],
    ) -> None:
        self.info: CheckpointInfo | None = None
        """What it covers; None: there is no checkpoint yet."""
        self.file_path = os.path.join(directory, CHECKPOINT_FILE_NAME)
        self._unfinished_path = os.path.join(directory, UNFINISHED_FILE_NAME)
        self._map_bytes = map_bytes
        self._files = files
        self._on_created = on_created
        self._environment: lmdb.Environment | None = None
        self._is_superseded = False

    @classmethod
    def open(
        cls,
        directory: str,
        *,
        map_bytes: int = MAP_BYTES,
        files: Files | None = None,
        on_created: Callable[[], None] = lambda: None,
    ) -> CheckpointStore:
        """Open the checkpoint in `directory`, which is made if need be. `on_created` is called in
        `write` when the first one is on disk.

        Raises CorruptionError when it cannot be read, DataDirRefusedError when a newer version
        wrote it, DiskError.
        """
        files = files or FileSystem()
        store = cls(directory, map_bytes, files, on_created)
        with disk_errors(f"cannot open the checkpoint in {directory}"):
            if not files.is_dir(directory):
                files.make_dir(directory)
            if files.exists(store._unfinished_path):
                files.unlink(store._unfinished_path)
            is_there = files.exists(store.file_path)
        if is_there:
            store._environment = open_environment(store.file_path, map_bytes)
            try:
                store.info = read_info(store._environment, store.file_path)
            except BaseException:
                store.close()
                raise
        return store

    def load(self) -> Machine:
        """The machine as it was after the entry `info.index`.

        Raises CorruptionError when a record is damaged, missing or not readable, or the digest of
        all is another one.
        """
        assert self._environment is not None and self.info is not None, "there is no checkpoint"
        reading = StateReader(self._environment, self.file_path)
        try:
            machine = Machine(State.from_records(reading))
        except (KeyError, ValueError) as error:  # msgspec's errors, and those of UTF-8, are values
            reason = f"the record at {key_text(reading.last_key)} is unreadable: {error!r}"
            raise CorruptionError(self.file_path, None, reason) from error
        digest = machine.digest()
        if digest != self.info.digest or machine.state.zxid != self.info.zxid:
            reason = (
                f"its records have digest {digest:016x} at zxid {machine.state.zxid}; written were"
                f" digest {self.info.digest:016x} at zxid {self.info.zxid}"
            )
            raise CorruptionError(self.file_path, None, reason)
        return machine

    def write(
        self, changed: ChangedRecords, singletons: Singletons, info: CheckpointInfo
    ) -> CheckpointWritten:
        """Bring the checkpoint up to `info`, durably. `changed`: every record that changed since
        the last one, or, if there is none, every record there is; it is empty afterwards.

        Raises StorageError when the result would not be the state that `info` says (nothing is
        written then), DiskFullError, DiskError, CorruptionError. The one before stays, and nothing
        may be written after an error.
        """
        if self._is_superseded:
            return CheckpointWritten(bytes_written=0, seconds=0.0, records=0)
        start = time.perf_counter()
        before = self.info
        assert before is None or before.index <= info.index, f"{info} is older than {before}"
        records = len(changed)
        with lmdb_errors(f"cannot write the checkpoint {self.file_path}", self.file_path):
            if self._environment is None:
                self._environment = self._create()
            bytes_written = self._write_with_room(self._environment, changed, singletons, info)
        if before is None:
            with disk_errors(f"cannot write the checkpoint {self.file_path}"):
                self._files.rename(self._unfinished_path, self.file_path)
                self._files.fsync_dir(os.path.dirname(self.file_path))
            self._on_created()
        self.info = info
        _release(changed)
        return CheckpointWritten(bytes_written, time.perf_counter() - start, records)

    def copy_to(self, file_path: str) -> CheckpointInfo:
        """Write a compact copy, which must not be there yet, and sync it. What it covers is what
        `info` says: nothing may be written meanwhile.

        Raises DiskFullError, DiskError, CorruptionError.
        """
        assert self._environment is not None and self.info is not None, "there is no checkpoint"
        doing = f"cannot copy the checkpoint to {file_path}"
        with lmdb_errors(doing, self.file_path):
            self._environment.copy(file_path, compact=True)
        with disk_errors(doing):
            sync_file(self._files, file_path)
            self._files.fsync_dir(os.path.dirname(file_path))
        return self.info

    def supersede(self) -> None:
        """Another file takes the checkpoint's place: from now on `write` does nothing."""
        self._is_superseded = True

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _create(self) -> lmdb.Environment:
        with disk_errors(f"cannot write the checkpoint {self.file_path}"):
            if self._files.exists(self._unfinished_path):
                self._files.unlink(self._unfinished_path)
        return open_environment(self._unfinished_path, self._map_bytes, create=True)

    def _write_with_room(
        self,
        environment: lmdb.Environment,
        changed: ChangedRecords,
        singletons: Singletons,
        info: CheckpointInfo,
    ) -> int:
        while True:
            try:
                with environment.begin(write=True, buffers=True) as txn:
                    transaction = _Transaction(txn, self.info)
                    transaction.put(changed)
                    transaction.finish(singletons, info)
                return transaction.bytes_written
            except lmdb.MapFullError:
                # What the transaction did is gone; nothing of it had reached the file.
                environment.set_mapsize(environment.info()["map_size"] * 2)


class _Transaction:
    """One write transaction, and the digest of what the file holds when it commits."""

    def __init__(self, txn: lmdb.Transaction, before: CheckpointInfo | None) -> None:
        self.bytes_written = 0
        self._txn = txn
        self._sum = 0
        if before is not None:
            scalars = txn.get(SINGLETONS_KEY)
            self._sum = before.digest - (0 if scalars is None else hash_of(scalars))

    def put(self, changed: ChangedRecords) -> None:
        chunk: list[tuple[bytes, bytes | None]] = []
        size = 0
        for table, key, record in changed.items():
            table_key = table.to_bytes(1, "big") + key
            value = None if record is None else encode_value(table_key, record)
            chunk.append((table_key, value))
            size += len(value or b"")
            if len(chunk) >= CHUNK_RECORDS or size >= CHUNK_BYTES:
                self._put_chunk(chunk)
                chunk, size = [], 0
        self._put_chunk(chunk)

    def finish(self, singletons: Singletons, info: CheckpointInfo) -> None:
        """Raise StorageError, so that nothing is committed, when the digest is another one."""
        scalars = encode_value(SINGLETONS_KEY, singletons)
        digest = (self._sum + hash_of(scalars)) & HASH_MASK
        if digest != info.digest or singletons.zxid != info.zxid:
            raise StorageError(
                f"the checkpoint at entry {info.index} would have digest {digest:016x} at zxid"
                f" {singletons.zxid}, the state has {info.digest:016x} at zxid {info.zxid}; it was"
                " not written"
            )
        self._txn.put(SINGLETONS_KEY, scalars)
        self._txn.put(INFO_KEY, encode_info(info))
        self.bytes_written += len(scalars)

    def _put_chunk(self, chunk: list[tuple[bytes, bytes | None]]) -> None:
        with self._txn.cursor() as cursor:
            known = cursor.getmulti([key for key, _ in chunk])
            gone = {bytes(key): hash_of(value) for key, value in known}
            puts = [(key, value) for key, value in chunk if value is not None]
            cursor.putmulti(puts)
        for key, new in puts:
            self._sum += hash_of(new)
            self.bytes_written += len(key) + len(new)
        self._sum -= sum(gone.values())
        for key, value in chunk:
            if value is None and key in gone:
                self._txn.delete(key)


class StateReader:
    """The records of a checkpoint as `State.from_records` takes them, each checked."""

    def __init__(self, environment: lmdb.Environment, file_path: str) -> None:
        self.last_key = b""
        """Of the record read last; empty: none yet."""
        self.last_hash = 0
        self._environment = environment
        self._file_path = file_path

    def __iter__(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Raises CorruptionError."""
        with (
            lmdb_errors(f"cannot read {self._file_path}", self._file_path),
            self._environment.begin() as txn,
            txn.cursor() as cursor,
        ):
            for key, value in cursor:
                self.last_key = key
                body = open_value(key, value)
                if body is None:
                    reason = f"the record at {key_text(key)} is not what was written"
                    raise CorruptionError(self._file_path, None, reason)
                self.last_hash = hash_of(value)
                if key != INFO_KEY:
                    yield key[0], key[1:], body


def open_environment(
    file_path: str, map_bytes: int, *, create: bool = False, readonly: bool = False
) -> lmdb.Environment:
    """Raises CorruptionError when it is no LMDB file, DiskFullError, DiskError."""
    with lmdb_errors(f"cannot open the checkpoint {file_path}", file_path):
        size = 0 if create else os.stat(file_path).st_size
        return lmdb.open(
            file_path,
            # What the file itself says of its map may be damaged.
            map_size=max(map_bytes, 2 * size),
            subdir=False,
            lock=False,
            create=create,
            readonly=readonly,
            mode=0o600,
            max_dbs=0,
        )


def read_info(environment: lmdb.Environment, file_path: str) -> CheckpointInfo:
    """Raises CorruptionError, DataDirRefusedError."""
    with lmdb_errors(f"cannot read {file_path}", file_path), environment.begin() as txn:
        value = txn.get(INFO_KEY)
    stored = None if value is None else decode_info(value)
    if stored is None:
        raise CorruptionError(file_path, None, "what it covers is not readable")
    if stored.format > CHECKPOINT_FORMAT:
        raise DataDirRefusedError(
            f"{file_path} has format {stored.format}; this version knows up to"
            f" {CHECKPOINT_FORMAT}. Run the version that wrote it, or a newer one"
        )
    return stored.info


@contextmanager
def lmdb_errors(doing: str, file_path: str) -> Iterator[None]:
    """Turn LMDB's errors into ours. It has names for its own, and the system's text for others.
    A full map passes: it is grown."""
    try:
        yield
    except _DAMAGE as error:
        raise CorruptionError(file_path, None, f"LMDB says: {error}") from error
    except lmdb.MapFullError:
        raise
    except lmdb.Error as error:
        if _is_of_full_disk(error, file_path):
            raise DiskFullError(f"{doing}: no space left on the disk ({error})") from error
        raise DiskError(f"{doing}: {error}") from error
    except OSError as error:
        with disk_errors(doing):
            raise error


def _is_of_full_disk(error: lmdb.Error, file_path: str) -> bool:
    """LMDB says of a write that the disk took only a part of that there was an I/O error."""
    full = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    if isinstance(error, lmdb.DiskError) or any(text in str(error) for text in full):
        return True
    if os.strerror(errno.EIO) not in str(error):
        return False
    try:
        return free_bytes(os.path.dirname(file_path)) < FULL_BELOW_BYTES
    except OSError:
        return False  # Then it is no full disk that keeps it from being read.


def _release(changed: ChangedRecords) -> None:
    """Let the records go piece by piece: a large table that goes at once stops the loop."""
    tables: tuple[dict[Any, Any], ...] = (
        changed.znodes,
        changed.sessions,
        changed.results,
        changed.origins,
    )
    for table in tables:
        for key in list(table):
            del table[key]
