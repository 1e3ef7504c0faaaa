"""Snapshots on disk: copies of the checkpoint for others, and one that is being received.

A copy is a file of its own, so that checkpoints go on while it is sent; its id is the hash of its
bytes. What is received is written to a side folder, piece by piece, and becomes this replica's
checkpoint in steps, each on disk before the next::

    incoming/receiving.mdb   written at offsets
    incoming/verified.mdb    whole: size, hash, every record, the state's digest, the cluster
    the log says `installed`
    checkpoint.mdb           renamed

Whatever happens between two steps, a start (`start.py`) finds either the old checkpoint with the
log that goes with it, or the new one with its own.

Calls are made on the loop and do not block; the work is done by the executor, in their order.
A disk that does not take a copy, because it is full, say, costs that copy only: it is removed, and
the caller is told. What fails otherwise (removing it, or once an installation was decided) goes to
`on_failed` and ends the process. Knows nothing of who sends and receives.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from coordsvc.storage.checkpoint import CHECKPOINT_FILE_NAME, CheckpointInfo, CheckpointStore
from coordsvc.storage.checkpoint_check import CheckCheckpoint, check_checkpoint
from coordsvc.storage.errors import (
    CorruptionError,
    DataDirRefusedError,
    DiskError,
    DiskFullError,
    StorageError,
    disk_errors,
)
from coordsvc.storage.executor import Executor, Job
from coordsvc.storage.files import Files, free_bytes, write_all

__all__ = ["IncomingSnapshot", "OutgoingSnapshots", "Snapshot"]

logger = logging.getLogger(__name__)

INCOMING_DIR_NAME = "incoming"
OUTGOING_DIR_NAME = "outgoing"
RECEIVING_FILE_NAME = "receiving.mdb"
VERIFIED_FILE_NAME = "verified.mdb"

LEFT_BYTES_MIN = 32 << 20
"""A copy for others must not take what this replica's own log and checkpoints cannot do without."""

ID_BYTES = 16
_REFUSED = object()
_PIECE_BYTES = 1 << 20


class Info(Protocol):
    """The last entry that a snapshot covers, and the state after it."""

    @property
    def index(self) -> int: ...
    @property
    def term(self) -> int: ...
    @property
    def zxid(self) -> int: ...
    @property
    def digest(self) -> int: ...


class Log(Protocol):
    """The part of the write-ahead log that an installation needs."""

    def install(self, index: int, term: int) -> None: ...
    def flush(self) -> None: ...
    def call_when_synced(self, callback: Callable[[], None]) -> None: ...


@dataclass(frozen=True)
class Snapshot:
    """A copy to send. `snapshot_id` is the hash of its bytes."""

    snapshot_id: bytes
    info: CheckpointInfo
    size_bytes: int
    path: str


@dataclass
class _Copy:
    snapshot: Snapshot
    handle: int
    users: int


class OutgoingSnapshots:
    """Copies of the checkpoint. Those who ask for the same state share one."""

    def __init__(
        self,
        directory: str,
        store: CheckpointStore,
        files: Files,
        executor: Executor,
        on_failed: Callable[[BaseException], None],
        *,
        free_bytes: Callable[[str], int] = free_bytes,
    ) -> None:
        """`directory`: the data directory. `executor`: the one that `store` writes in.
        `free_bytes(directory)`: what its file system has left."""
        self._free_bytes = free_bytes
        self._directory = os.path.join(directory, OUTGOING_DIR_NAME)
        self._store = store
        self._files = files
        self._executor = executor
        self._on_failed = on_failed
        self._copies: dict[bytes, _Copy] = {}
        """Touched by the executor only, as is the number."""
        self._number = 0

    def make(self, done: Callable[[Snapshot | None], None]) -> None:
        """Copy the checkpoint as it is; there must be one. None: the disk did not take the copy."""
        self._submit(self._make, done)

    def read(
        self, snapshot: Snapshot, offset: int, size: int, done: Callable[[bytes | None], None]
    ) -> None:
        """`size` bytes from `offset`, both within the snapshot. None: they cannot be read."""

        def read() -> bytes | None:
            try:
                with disk_errors(f"cannot read {snapshot.path}"):
                    return self._read(snapshot, offset, size)
            except DiskError as error:
                logger.warning("snapshot.not_read", extra={"error": str(error)})
                return None

        self._submit(read, done)

    def drop(self, snapshot: Snapshot) -> None:
        """It is not sent any more. The file goes with its last user."""

        def drop() -> None:
            copy = self._copies[snapshot.snapshot_id]
            copy.users -= 1
            if not copy.users:
                del self._copies[snapshot.snapshot_id]
                self._files.close(copy.handle)
                self._files.unlink(snapshot.path)

        self._submit(drop, lambda result: None)

    def _read(self, snapshot: Snapshot, offset: int, size: int) -> bytes:
        assert offset + size <= snapshot.size_bytes, f"{offset + size} of {snapshot.size_bytes}"
        data = self._files.pread(self._copies[snapshot.snapshot_id].handle, size, offset)
        if len(data) != size:
            raise DiskError(f"{snapshot.path} became shorter than {offset + size} bytes")
        return data

    def _make(self) -> Snapshot | None:
        for copy in self._copies.values():
            if copy.snapshot.info == self._store.info:
                copy.users += 1
                return copy.snapshot
        self._number += 1
        path = os.path.join(self._directory, f"{self._number}.mdb")
        try:
            with disk_errors(f"cannot copy the checkpoint to {path}"):
                made = self._copy_to(path)
        except DiskError as error:
            logger.warning("snapshot.not_copied", extra={"error": str(error)})
            self._remove(path)
            return None
        snapshot = made.snapshot
        assert snapshot.snapshot_id not in self._copies, "two states in the same bytes"
        self._copies[snapshot.snapshot_id] = made
        return snapshot

    def _copy_to(self, path: str) -> _Copy:
        self._files.make_dir(self._directory)
        self._remove(path)
        self._check_room()
        info = self._store.copy_to(path)
        handle = self._files.open(path)
        try:
            size_bytes = self._files.file_size(path)
            snapshot_id = _hash_file(self._files, handle, size_bytes)
        except BaseException:
            self._files.close(handle)
            raise
        return _Copy(Snapshot(snapshot_id, info, size_bytes, path), handle, users=1)

    def _check_room(self) -> None:
        size_bytes = self._files.file_size(self._store.file_path)
        free = self._free_bytes(self._directory)
        if free - size_bytes < LEFT_BYTES_MIN:
            raise DiskFullError(
                f"of {free} bytes free, a copy of {size_bytes} would leave less than the"
                f" {LEFT_BYTES_MIN} that the log and the checkpoints need"
            )

    def _remove(self, path: str) -> None:
        if self._files.exists(path):
            self._files.unlink(path)

    def _submit(self, job: Job, done: Callable[..., None]) -> None:
        def finished(result: object, error: BaseException | None) -> None:
            if error is not None:
                self._on_failed(error)
            else:
                done(result)

        doing = f"cannot use the snapshots in {self._directory}"
        self._executor.submit(_mapped(job, doing), finished)


class IncomingSnapshot:
    """The snapshot being received, one at a time: `begin` forgets the one before. After `discard`
    nobody is told of what was asked before."""

    def __init__(
        self,
        directory: str,
        store: CheckpointStore,
        wal: Log,
        files: Files,
        executor: Executor,
        on_failed: Callable[[BaseException], None],
        *,
        cluster_id: Callable[[], bytes] = lambda: b"",
        check: CheckCheckpoint = check_checkpoint,
    ) -> None:
        """`directory`: the data directory. `executor`: the one that `store` writes in.
        `cluster_id`: this replica's cluster; empty while it is not known. `check(path)` reads the
        whole of a file."""
        self._data_dir = directory
        self._directory = os.path.join(directory, INCOMING_DIR_NAME)
        self._receiving = os.path.join(self._directory, RECEIVING_FILE_NAME)
        self._verified = os.path.join(self._directory, VERIFIED_FILE_NAME)
        self._store = store
        self._wal = wal
        self._files = files
        self._executor = executor
        self._on_failed = on_failed
        self._cluster_id = cluster_id
        self._check = check
        self._snapshot_id = b""
        self._info: Info | None = None
        self._size_bytes = 0
        self._refused: Callable[[], None] = lambda: None
        self._number = 0
        """Of the present one. Of an earlier one nobody wants to hear."""
        self._refused_number = 0
        """Of the one that the disk did not take last. Touched by the executor only."""
        self._is_installing = False
        self._handle: int | None = None
        """Touched by the executor only."""

    def begin(
        self,
        snapshot_id: bytes,
        info: Info,
        size_bytes: int,
        done: Callable[[], None],
        refused: Callable[[], None],
    ) -> None:
        """Make room for a snapshot of this size. `refused`: called once, when the disk does not
        take it, here, in `write` or in `verify`; it is gone then, and nobody is told of the rest.
        """
        assert not self._is_installing
        self._number += 1
        self._snapshot_id, self._info, self._size_bytes = snapshot_id, info, size_bytes
        self._refused = refused

        def begin() -> None:
            self._clear()
            self._files.make_dir(self._directory)
            self._files.fsync_dir(self._data_dir)
            self._handle = self._files.open(self._receiving)
            if size_bytes:
                self._files.allocate(self._handle, size_bytes)

        self._submit_storing(begin, lambda result: done())

    def write(self, offset: int, data: bytes, done: Callable[[], None]) -> None:
        """Raises ValueError when the piece does not lie within the snapshot."""
        if offset < 0 or offset + len(data) > self._size_bytes:
            raise ValueError(
                f"bytes {offset} to {offset + len(data)} of a snapshot of {self._size_bytes}"
            )

        def write() -> None:
            assert self._handle is not None, "no snapshot was begun"
            write_all(self._files, self._handle, data, offset)

        self._submit_storing(write, lambda result: done())

    def verify(self, done: Callable[[bool], None]) -> None:
        """Have it on disk, and check that it is what was announced and of this cluster. If not,
        done(False), and it is gone."""
        snapshot_id, info, cluster_id = self._snapshot_id, self._info, self._cluster_id()

        def verify() -> bool:
            assert self._handle is not None and info is not None, "no snapshot was begun"
            self._files.fdatasync(self._handle)
            size_bytes = self._files.file_size(self._receiving)
            is_whole = (
                size_bytes == self._size_bytes
                and _hash_file(self._files, self._handle, size_bytes) == snapshot_id
                and self._is_announced(info, cluster_id)
            )
            if not is_whole:
                self._clear()
                return False
            self._close()
            self._files.rename(self._receiving, self._verified)
            self._files.fsync_dir(self._directory)
            return True

        self._submit_storing(verify, done)

    def install(self, done: Callable[[], None]) -> None:
        """Make the verified snapshot this replica's state on disk; the log begins after it. From
        now on no checkpoint of the present state is written, and nothing may be appended.

        Raises ValueError when the log begins after the snapshot, StorageError when it failed."""
        info = self._info
        assert info is not None, "no snapshot was begun"
        self._is_installing = True
        self._wal.install(info.index, info.term)
        self._wal.flush()

        def install() -> None:
            self._store.supersede()
            self._files.rename(self._verified, os.path.join(self._data_dir, CHECKPOINT_FILE_NAME))
            self._files.fsync_dir(self._data_dir)
            self._files.fsync_dir(self._directory)

        self._wal.call_when_synced(lambda: self._submit(install, lambda result: done()))

    def discard(self) -> None:
        """Forget it, unless its installation was decided: then the log relies on it."""
        if self._is_installing:
            return
        self._number += 1
        self._submit(self._clear, lambda result: None)

    def _is_announced(self, info: Info, cluster_id: bytes) -> bool:
        try:
            report = self._check(self._receiving)
        except (CorruptionError, DataDirRefusedError):
            return False
        found = (report.index, report.term, report.zxid, report.digest)
        if found != (info.index, info.term, info.zxid, info.digest):
            return False
        return not cluster_id or report.cluster_id == cluster_id.hex()

    def _clear(self) -> None:
        self._close()
        for path in (self._receiving, self._verified):
            if self._files.exists(path):
                self._files.unlink(path)

    def _close(self) -> None:
        if self._handle is not None:
            self._files.close(self._handle)
            self._handle = None

    def _submit_storing(self, job: Job, done: Callable[..., None]) -> None:
        """For what the disk may refuse without harm to anything but the snapshot."""
        number = self._number

        def store() -> object:
            if self._refused_number == number:
                return _REFUSED  # What was asked before the refusal was known.
            try:
                with disk_errors(f"cannot receive into {self._directory}"):
                    return job()
            except StorageError as error:
                logger.warning("snapshot.not_stored", extra={"error": str(error)})
                self._refused_number = number
                self._clear()
                return _REFUSED

        def stored(result: object) -> None:
            if result is _REFUSED:
                self._number += 1
                self._refused()
            else:
                done(result)

        self._submit(store, stored)

    def _submit(self, job: Job, done: Callable[..., None]) -> None:
        number = self._number

        def finished(result: object, error: BaseException | None) -> None:
            if error is not None:
                self._number += 1  # what comes after it is of no use to anybody
                self._on_failed(error)
            elif number == self._number:
                done(result)

        self._executor.submit(_mapped(job, f"cannot receive into {self._directory}"), finished)


def _mapped(job: Job, doing: str) -> Job:
    def run() -> object:
        with disk_errors(doing):
            return job()

    return run


def _hash_file(files: Files, handle: int, size_bytes: int) -> bytes:
    hashed = blake2b(digest_size=ID_BYTES)
    for offset in range(0, size_bytes, _PIECE_BYTES):
        hashed.update(files.pread(handle, _PIECE_BYTES, offset))
    return hashed.digest()
