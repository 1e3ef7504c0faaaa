"""The data directory: one process's at a time, one replica's for ever.

::

    LOCK             locked by the process that uses the directory; holds its pid
    META             who the directory belongs to (meta.py)
    wal/             the write-ahead log
    checkpoint.mdb   the state up to one entry of it, once there is one
    incoming/        a snapshot that a leader is sending
    outgoing/        snapshots for others
    set-aside-*/     what `rejoin` put out of the way

A directory is created in an order that a crash cannot turn into amnesia: META first, then the
log's first segment, then META again, which says from then on that there must be a log. A start that
finds META without a log it should have, or a log without META, refuses instead of starting empty.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from coordsvc.storage.errors import CorruptionError, DataDirRefusedError, DiskError, disk_errors
from coordsvc.storage.files import Files, replace_file, write_all
from coordsvc.storage.meta import Meta, check_format, decode_meta, encode_meta
from coordsvc.storage.wal_reader import Identity
from coordsvc.storage.wal_recovery import create_log
from coordsvc.storage.wal_scan import segment_ids

LOCK_FILE_NAME = "LOCK"
META_FILE_NAME = "META"
WAL_DIR_NAME = "wal"
UUID_BYTES = 16

_NOT_USABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR)
"""EEXIST and ENOTDIR: it, or something above it, is a file."""


class DataDir:
    """An opened, locked data directory. Use `DataDir.open`."""

    def __init__(self, path: str, files: Files, lock: int, meta: Meta, is_new: bool) -> None:
        self.path = path
        self.is_new = is_new
        """Created by this start."""
        self._files = files
        self._lock: int | None = lock
        self._meta = meta
        self._meta_guard = threading.Lock()
        """The cluster's id comes on the loop, the rest in the threads that write to the disk."""

    @classmethod
    def open(
        cls,
        path: str,
        replica_id: int,
        files: Files,
        *,
        members: Iterable[int] = (),
        new_uuid: Callable[[], bytes] = lambda: os.urandom(UUID_BYTES),
    ) -> DataDir:
        """Lock the directory, and read its META, or create both. Blocks.

        `members`: the ids of all replicas of the cluster; empty: this one alone. They stay the ones
        it was created with: with fewer of them to ask, a minority could take itself for a majority.

        Raises DataDirRefusedError when it is in use, another replica's, of other members, of a
        newer format, not a directory or not writable; CorruptionError when META is damaged, or META
        or the log is gone; DiskError.
        """
        path = os.path.abspath(path)
        all_members = tuple(sorted({replica_id, *members}))
        _make_directory(path, files)
        lock = lock_data_dir(path, files)
        try:
            with disk_errors(f"cannot open the data directory {path}"):
                data_dir = _read(path, files, lock, replica_id, all_members)
                if data_dir is None:
                    meta = Meta(replica_id=replica_id, members=all_members, uuid=new_uuid().hex())
                    data_dir = cls(path, files, lock, meta, is_new=True)
                    data_dir._save(meta)
                if not data_dir._meta.has_log:
                    data_dir._create_log()
                return data_dir
        except BaseException:
            files.close(lock)
            raise

    @property
    def wal_path(self) -> str:
        """The directory to give to `Wal.open`."""
        return os.path.join(self.path, WAL_DIR_NAME)

    @property
    def replica_id(self) -> int:
        return self._meta.replica_id

    @property
    def members(self) -> tuple[int, ...]:
        """The ids of all replicas of the cluster, sorted."""
        return self._meta.members

    @property
    def uuid(self) -> bytes:
        """16 random bytes of this directory alone: a wiped replica comes back with others."""
        return bytes.fromhex(self._meta.uuid)

    @property
    def cluster_id(self) -> bytes:
        """Empty until the replica has learnt it."""
        return bytes.fromhex(self._meta.cluster_id)

    @property
    def synced_lsn(self) -> int:
        """The log reached at least this far. To give to `Wal.open`."""
        return self._meta.synced_lsn

    @property
    def lmdb_engine(self) -> str:
        """The engine that wrote the checkpoint; empty until there is one. Once it is set, a
        checkpoint that is not there was lost."""
        return self._meta.lmdb_engine

    def set_cluster_id(self, cluster_id: bytes) -> None:
        """Record the cluster, for good. Raises DataDirRefusedError when it is another one."""
        if self.cluster_id not in (b"", cluster_id):
            raise DataDirRefusedError(
                f"{self.path} belongs to cluster {self._meta.cluster_id}, not to"
                f" {cluster_id.hex()}. Start with another data directory, or with the peers of"
                " its own cluster"
            )
        self._change(cluster_id=cluster_id.hex())

    def set_lmdb_engine(self, lmdb_engine: str) -> None:
        """Record the engine. Raises DataDirRefusedError when another one wrote the checkpoint."""
        if self.lmdb_engine not in ("", lmdb_engine):
            raise DataDirRefusedError(
                f"the checkpoint in {self.path} was written by {self.lmdb_engine}; this process"
                f" has {lmdb_engine}, which cannot read it"
            )
        self._change(lmdb_engine=lmdb_engine)

    def set_synced_lsn(self, synced_lsn: int) -> None:
        """Record how far the log is on disk, so that a part of it that is lost later is missed."""
        if synced_lsn > self.synced_lsn:
            self._change(synced_lsn=synced_lsn)

    def close(self) -> None:
        """Let another process have the directory."""
        if self._lock is not None:
            self._files.close(self._lock)
            self._lock = None

    def _change(self, **fields: object) -> None:
        with self._meta_guard:
            changed = msgspec.structs.replace(self._meta, **fields)
            if changed != self._meta:
                self._save(changed)

    def _save(self, meta: Meta) -> None:
        file_path = os.path.join(self.path, META_FILE_NAME)
        with disk_errors(f"cannot write {file_path}"):
            replace_file(self._files, file_path, encode_meta(meta))
        self._meta = meta

    def _create_log(self) -> None:
        # After a crash between the log's first segment and the second META it is there already.
        if not _has_log(self.path, self._files):
            create_log(self.wal_path, self._files, Identity(self.uuid, self.replica_id))
        self._change(has_log=True)


@contextmanager
def _refusals(doing: str) -> Iterator[None]:
    """What the directory is to blame for, not the disk."""
    try:
        with disk_errors(doing):
            yield
    except DiskError as error:
        cause = error.__cause__
        assert isinstance(cause, OSError)
        if cause.errno not in _NOT_USABLE:
            raise
        raise DataDirRefusedError(f"{doing}: {cause}") from error


def _make_directory(path: str, files: Files) -> None:
    with _refusals(f"the data directory {path} cannot be used"):
        if not files.is_dir(path):
            files.make_dir(path)
            files.fsync_dir(os.path.dirname(path))


def lock_data_dir(path: str, files: Files) -> int:
    """Lock it for this process; close the handle to unlock it. Raises DataDirRefusedError when
    another process has it."""
    file_path = os.path.join(path, LOCK_FILE_NAME)
    with _refusals(f"the data directory {path} cannot be used"):
        try:
            lock = files.lock(file_path)
        except BlockingIOError as error:
            raise DataDirRefusedError(
                f"the data directory {path} is in use by process {_pid_in(file_path, files)}"
            ) from error
        try:
            write_all(files, lock, b"%-20d\n" % os.getpid(), 0)
        except BaseException:
            files.close(lock)
            raise
    return lock


def _pid_in(file_path: str, files: Files) -> str:
    text = files.read(file_path).decode("ascii", "replace").strip()
    return text if text.isdecimal() else "unknown"


def _listed(members: tuple[int, ...]) -> str:
    return ", ".join(map(str, members))


def _has_log(path: str, files: Files) -> bool:
    directory = os.path.join(path, WAL_DIR_NAME)
    return files.is_dir(directory) and bool(segment_ids(files.list_dir(directory)))


def _read(
    path: str, files: Files, lock: int, replica_id: int, members: tuple[int, ...]
) -> DataDir | None:
    """The directory as it is on disk; None when it is a new one."""
    file_path = os.path.join(path, META_FILE_NAME)
    if not files.exists(file_path):
        if _has_log(path, files):
            raise CorruptionError(file_path, 0, "it is missing, but there is a log beside it")
        return None
    meta = decode_meta(files.read(file_path), file_path)
    check_format(meta, path)
    if meta.replica_id != replica_id:
        raise DataDirRefusedError(
            f"{path} belongs to replica {meta.replica_id}, this is replica {replica_id}."
            " Correct the replica id or the data directory"
        )
    if meta.members != members:
        raise DataDirRefusedError(
            f"{path} belongs to a cluster of the replicas {_listed(meta.members)}; this start is"
            f" for one of the replicas {_listed(members)}. Start with the peers that it was created"
            " with (their addresses may differ), or with another data directory"
        )
    if meta.has_log and not _has_log(path, files):
        raise CorruptionError(os.path.join(path, WAL_DIR_NAME), 0, "the log is missing")
    return DataDir(path, files, lock, meta, is_new=False)
