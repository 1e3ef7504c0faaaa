"""Opening what a replica has on disk: the checkpoint, and the log from there on.

Everything is read, checked, and checked against each other, before anything is changed. The log
must hold the entry that the checkpoint ends with, the same one, and go on from there. A snapshot
whose installation was decided (the log says `installed`) but not completed is put in its place; one
that was not decided is removed. So a crash at any point of an installation leaves the state before
it or the state after it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.core.machine import Machine
from coordsvc.storage.checkpoint import (
    CHECKPOINT_FILE_NAME,
    LMDB_ENGINE,
    CheckpointStore,
)
from coordsvc.storage.checkpoint_check import CheckCheckpoint, CheckpointReport, check_checkpoint
from coordsvc.storage.checkpoint_format import NO_CHECKPOINT, CheckpointInfo
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.errors import (
    CorruptionError,
    DataDirRefusedError,
    DiskFullError,
    disk_errors,
)
from coordsvc.storage.executor import Executor
from coordsvc.storage.files import Files, sync_file
from coordsvc.storage.snapshots import INCOMING_DIR_NAME, OUTGOING_DIR_NAME, VERIFIED_FILE_NAME
from coordsvc.storage.wal import SEGMENT_BYTES, RecoveredLog, Wal

FIRST_INDEX = NO_CHECKPOINT.index
"""Without a checkpoint the log must begin at the beginning: with the first entry, or after the one
that all replicas take for granted."""


@dataclass(frozen=True)
class StorageOpened:
    """`machine` is the state after the entry `info.index`; without a checkpoint a new one, and
    `info` is `NO_CHECKPOINT`. `wal.recovered` has the log from its base on, which may be before
    that entry."""

    wal: Wal
    store: CheckpointStore
    machine: Machine
    info: CheckpointInfo


@dataclass(frozen=True)
class StartPlan:
    """`checkpoint`: what a start begins with; None: with nothing. `install_from`: the file it is
    in, unless it is in its place already."""

    checkpoint: CheckpointReport | None
    install_from: str | None = None


def open_storage(
    data_dir: DataDir,
    files: Files,
    executor: Executor,
    *,
    on_synced: Callable[[int], None],
    on_failed: Callable[[BaseException], None],
    segment_bytes: int = SEGMENT_BYTES,
    check: CheckCheckpoint = check_checkpoint,
) -> StorageOpened:
    """Open checkpoint and log. `executor`, `on_synced`, `on_failed` are the log's. `check` reads
    the whole of a checkpoint before it is trusted. Blocks.

    Raises CorruptionError when either is damaged or missing or they do not fit together,
    DataDirRefusedError when they are not this replica's or a newer version wrote them, DiskError.
    """
    if data_dir.lmdb_engine:
        data_dir.set_lmdb_engine(LMDB_ENGINE)
    plans: list[StartPlan] = []

    def check_fits(log: RecoveredLog) -> None:
        plan = plan_start(
            data_dir.path,
            files,
            log,
            has_checkpoint=bool(data_dir.lmdb_engine),
            cluster_id=data_dir.cluster_id,
            read=check,
        )
        plans.append(plan)

    wal = Wal.open(
        data_dir.wal_path,
        files=files,
        executor=executor,
        identity=data_dir.uuid,
        replica_id=data_dir.replica_id,
        cluster_id=data_dir.cluster_id,
        synced_lsn=data_dir.synced_lsn,
        check=check_fits,
        on_synced=on_synced,
        on_failed=on_failed,
        segment_bytes=segment_bytes,
    )
    with disk_errors(f"cannot open the checkpoint in {data_dir.path}"):
        # The log is on disk now, and with it the decision to install.
        _put_in_place(data_dir.path, files, plans[0])
        _remove_leftovers(data_dir.path, files)
    store = CheckpointStore.open(
        data_dir.path, files=files, on_created=lambda: data_dir.set_lmdb_engine(LMDB_ENGINE)
    )
    machine = Machine() if store.info is None else store.load()
    if store.info is not None:
        data_dir.set_lmdb_engine(LMDB_ENGINE)
    try:
        data_dir.set_synced_lsn(wal.synced_lsn)
    except DiskFullError:
        # The log recovered into the space kept for that. What META says already is true, too.
        pass
    return StorageOpened(wal, store, machine, store.info or NO_CHECKPOINT)


def plan_start(
    directory: str,
    files: Files,
    log: RecoveredLog,
    *,
    has_checkpoint: bool,
    cluster_id: bytes,
    read: CheckCheckpoint = check_checkpoint,
) -> StartPlan:
    """What a start on this data directory would begin with. Changes nothing. `has_checkpoint`:
    there was one, as META says. `read` reads the whole of a checkpoint.

    Raises CorruptionError and DataDirRefusedError as `open_storage`.
    """
    plan = _choose(directory, files, log, has_checkpoint, read)
    report = plan.checkpoint
    check_log_fits(directory, log, None if report is None else report.info)
    if report is not None and cluster_id and report.cluster_id not in ("", cluster_id.hex()):
        raise DataDirRefusedError(
            f"{plan.install_from or os.path.join(directory, CHECKPOINT_FILE_NAME)} belongs to"
            f" cluster {report.cluster_id}, the data directory to {cluster_id.hex()}"
        )
    return plan


def check_log_fits(directory: str, log: RecoveredLog, info: CheckpointInfo | None) -> None:
    """Raise CorruptionError unless the log holds the checkpoint's last entry, or, without a
    checkpoint, begins at the beginning."""
    wal_path = os.path.join(directory, "wal")
    base, last = log.base_index, log.base_index + len(log.entries)
    if info is None:
        if base > FIRST_INDEX:
            reason = f"its first entry follows entry {base}, which no checkpoint covers"
            raise CorruptionError(wal_path, None, reason)
        return
    ends = f"the checkpoint ends with entry {info.index} of term {info.term}"
    if base > info.index:
        reason = f"the entries before {base + 1} are gone, and {ends}"
        raise CorruptionError(wal_path, None, reason)
    if last < info.index:
        raise CorruptionError(wal_path, None, f"its last entry is {last}, but {ends}")
    term = log.base_term if info.index == base else log.entries[info.index - base - 1][2]
    if term != info.term:
        reason = f"its entry {info.index} is of term {term}, but {ends}"
        raise CorruptionError(wal_path, None, reason)


def _choose(
    directory: str,
    files: Files,
    log: RecoveredLog,
    has_checkpoint: bool,
    read: CheckCheckpoint,
) -> StartPlan:
    verified = os.path.join(directory, INCOMING_DIR_NAME, VERIFIED_FILE_NAME)
    if log.installed is not None and files.exists(verified):
        report = read(verified)
        if (report.index, report.term) == log.installed:
            return StartPlan(report, install_from=verified)
    file_path = os.path.join(directory, CHECKPOINT_FILE_NAME)
    if files.exists(file_path):
        return StartPlan(read(file_path))
    if has_checkpoint:
        raise CorruptionError(file_path, None, "it is missing")
    return StartPlan(None)


def _put_in_place(directory: str, files: Files, plan: StartPlan) -> None:
    file_path = os.path.join(directory, CHECKPOINT_FILE_NAME)
    if plan.install_from is not None:
        sync_file(files, plan.install_from)
        files.rename(plan.install_from, file_path)
    elif plan.checkpoint is not None:
        # What a killed process has just committed may be in the page cache only.
        sync_file(files, file_path)
    files.fsync_dir(directory)


def _remove_leftovers(directory: str, files: Files) -> None:
    """Snapshots that were under way when the process ended: they begin again."""
    for name in (INCOMING_DIR_NAME, OUTGOING_DIR_NAME):
        path = os.path.join(directory, name)
        for file_name in files.list_dir(path) if files.is_dir(path) else ():
            files.unlink(os.path.join(path, file_name))
