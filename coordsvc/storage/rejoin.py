"""Giving up what a data directory holds, so that its replica fetches everything from the others.

Nothing is deleted. The log, the checkpoint and half-received snapshots go into a folder of their
own; then META is replaced by one with a new uuid that expects no log: a replica that has forgotten,
which does not vote until it has caught up. META comes last. A start between the steps finds a META
that misses its log, and refuses; rejoining again completes it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.storage.checkpoint import CHECKPOINT_FILE_NAME, UNFINISHED_FILE_NAME
from coordsvc.storage.data_dir import META_FILE_NAME, UUID_BYTES, WAL_DIR_NAME, lock_data_dir
from coordsvc.storage.errors import CorruptionError, DataDirRefusedError, disk_errors
from coordsvc.storage.files import Files, replace_file
from coordsvc.storage.meta import Meta, check_format, decode_meta, encode_meta
from coordsvc.storage.snapshots import INCOMING_DIR_NAME, OUTGOING_DIR_NAME

SET_ASIDE_PREFIX = "set-aside-"

_STATE = (
    WAL_DIR_NAME,
    CHECKPOINT_FILE_NAME,
    UNFINISHED_FILE_NAME,
    INCOMING_DIR_NAME,
    OUTGOING_DIR_NAME,
)


@dataclass(frozen=True)
class Rejoined:
    """`set_aside`: the folder, empty when there was nothing to put there; `moved`: what it holds.
    `meta`: the new one; None: the old one was damaged or missing, so there is none."""

    set_aside: str
    moved: tuple[str, ...]
    meta: Meta | None


def rejoin(
    data_dir: str,
    files: Files,
    *,
    discard_only_copy: bool = False,
    new_uuid: Callable[[], bytes] = lambda: os.urandom(UUID_BYTES),
    now: Callable[[], float] = time.time,
) -> Rejoined:
    """Set the state aside. `discard_only_copy`: also if no other replica has it; the replica then
    begins a new cluster. A META that cannot be read is set aside, too. Nothing to do is no error.
    Blocks.

    Raises DataDirRefusedError when it is in use, no data directory, of a newer format, or the
    only replica's of its cluster; DiskError. It may be repeated after any failure.
    """
    data_dir = os.path.abspath(data_dir)
    with disk_errors(f"cannot set aside what is in {data_dir}"):
        found = files.list_dir(data_dir) if files.is_dir(data_dir) else []
        is_done = any(name.startswith(SET_ASIDE_PREFIX) for name in found)
        if META_FILE_NAME not in found and not set(found) & set(_STATE) and not is_done:
            raise DataDirRefusedError(f"{data_dir} is no data directory")
        lock = lock_data_dir(data_dir, files)
        try:
            meta = _read_meta(data_dir, files)
            if meta is not None:
                meta = _new_meta(meta, data_dir, discard_only_copy, new_uuid().hex())
            return _set_aside(data_dir, files, meta, now())
        finally:
            files.close(lock)


def _read_meta(data_dir: str, files: Files) -> Meta | None:
    file_path = os.path.join(data_dir, META_FILE_NAME)
    if not files.exists(file_path):
        return None
    try:
        return decode_meta(files.read(file_path), file_path)
    except CorruptionError:
        return None


def _new_meta(meta: Meta, data_dir: str, discard_only_copy: bool, uuid: str) -> Meta:
    check_format(meta, data_dir)
    is_alone = meta.members == (meta.replica_id,)
    if is_alone and not discard_only_copy:
        raise DataDirRefusedError(
            f"{data_dir} belongs to a cluster of one replica: there is nobody to fetch its state"
            " from, so all of it would be lost. Restore the disk or a backup; or, to give the"
            " state up and begin a new cluster, run this again with --discard-only-copy"
        )
    cluster_id = "" if is_alone else meta.cluster_id
    return Meta(replica_id=meta.replica_id, members=meta.members, uuid=uuid, cluster_id=cluster_id)


def _set_aside(data_dir: str, files: Files, meta: Meta | None, now: float) -> Rejoined:
    meta_path = os.path.join(data_dir, META_FILE_NAME)
    names = [name for name in _STATE if files.exists(os.path.join(data_dir, name))]
    if meta is None and files.exists(meta_path):
        names.append(META_FILE_NAME)
    folder = ""
    if names:
        folder = _new_folder(data_dir, files, now)
        if meta is not None:
            replace_file(files, os.path.join(folder, META_FILE_NAME), files.read(meta_path))
        for name in names:
            files.rename(os.path.join(data_dir, name), os.path.join(folder, name))
        files.fsync_dir(folder)
        files.fsync_dir(data_dir)
    if meta is not None:
        replace_file(files, meta_path, encode_meta(meta))
    return Rejoined(folder, tuple(names), meta)


def _new_folder(data_dir: str, files: Files, now: float) -> str:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    folder = first = os.path.join(data_dir, SET_ASIDE_PREFIX + stamp)
    number = 1
    while files.exists(folder):
        number += 1
        folder = f"{first}-{number}"
    files.make_dir(folder)
    files.fsync_dir(data_dir)
    return folder
