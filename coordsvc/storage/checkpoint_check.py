"""Reads a checkpoint from end to end and says what is in it, or what is wrong with it.

LMDB trusts its pages: one that rotted can make it follow a wild page number and take the process
down, or write over pages in use later. So whoever wants to know whether a file is whole asks a
child process, which looks at all pages, reads every record, checks each hash and the digest of all,
and may crash. The child builds no state, so its memory stays small, and its work does not hold up
the loop.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from coordsvc.core.records import (
    ORIGINS,
    RESULTS,
    SESSIONS,
    SINGLETONS,
    ZNODES,
    Singletons,
    decode_record,
)
from coordsvc.storage.checkpoint import (
    MAP_BYTES,
    CheckpointInfo,
    StateReader,
    open_environment,
    read_info,
)
from coordsvc.storage.checkpoint_format import HASH_MASK, key_text
from coordsvc.storage.checkpoint_pages import check_pages
from coordsvc.storage.errors import CorruptionError, DataDirRefusedError, DiskError, StorageError

_TABLES: Final = {
    ZNODES: "znodes",
    SESSIONS: "sessions",
    RESULTS: "results",
    ORIGINS: "origins",
    SINGLETONS: "singletons",
}

_CRASHES: Final = (
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
)
"""Of LMDB's own making. Another signal is somebody's who wants the memory or the process back."""

CHECK_S_MAX = 600
"""Of a child that stands still. A gigabyte takes some ten seconds."""


class CheckpointReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint that is whole holds. `records`: how many per table. `bytes`: of the file's
    keys and records. `cluster_id`: in hex, empty when the state knows none."""

    index: int
    term: int
    zxid: int
    digest: int
    records: dict[str, int]
    bytes: int
    cluster_id: str

    @property
    def info(self) -> CheckpointInfo:
        return CheckpointInfo(self.index, self.term, self.zxid, self.digest)


CheckCheckpoint: TypeAlias = Callable[[str], CheckpointReport]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the child prints: a report, or an error's kind and reason."""

    report: CheckpointReport | None = None
    error: str = ""
    reason: str = ""


def check_checkpoint(file_path: str) -> CheckpointReport:
    """Read all of it in a child process. Blocks.

    Raises CorruptionError, DataDirRefusedError when a newer version wrote it, DiskError.
    """
    command = [sys.executable, "-P", "-m", "coordsvc.storage.checkpoint_check", file_path]
    try:
        child = subprocess.run(command, capture_output=True, timeout=CHECK_S_MAX, check=False)
    except subprocess.TimeoutExpired as error:
        message = f"{file_path} could not be read within {CHECK_S_MAX} s"
        raise DiskError(message) from error
    except OSError as error:
        raise DiskError(f"cannot start a process that reads {file_path}: {error}") from error
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        if -child.returncode in _CRASHES:
            raise CorruptionError(file_path, None, f"LMDB cannot read it and crashes ({name})")
        raise StorageError(f"the process that read {file_path} was ended by {name}")
    try:
        answer = msgspec.json.decode(child.stdout, type=_Answer)
    except msgspec.MsgspecError as error:
        reason = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise StorageError(f"{file_path} could not be checked: {reason}") from error
    if answer.report is not None:
        return answer.report
    if answer.error == "corruption":
        raise CorruptionError(file_path, None, answer.reason)
    if answer.error == "refused":
        raise DataDirRefusedError(answer.reason)
    raise DiskError(answer.reason)


def read_checkpoint(file_path: str) -> CheckpointReport:
    """Read all of it here. May crash where `check_checkpoint` raises."""
    check_pages(file_path)
    environment = open_environment(file_path, MAP_BYTES, readonly=True)
    try:
        info = read_info(environment, file_path)
        reader = StateReader(environment, file_path)
        records = dict.fromkeys(_TABLES.values(), 0)
        total = size = 0
        cluster_id = b""
        for table, key, value in reader:
            try:
                record = decode_record(table, value)
            except (KeyError, ValueError) as error:
                reason = f"the record at {key_text(reader.last_key)} is unreadable: {error!r}"
                raise CorruptionError(file_path, None, reason) from error
            total += reader.last_hash
            size += 1 + len(key) + len(value)
            records[_TABLES[table]] += 1
            if isinstance(record, Singletons):
                cluster_id = record.cluster_id
    finally:
        environment.close()
    if total & HASH_MASK != info.digest:
        reason = f"its records have digest {total & HASH_MASK:016x}, not {info.digest:016x}"
        raise CorruptionError(file_path, None, reason)
    return CheckpointReport(
        index=info.index,
        term=info.term,
        zxid=info.zxid,
        digest=info.digest,
        records=records,
        bytes=size,
        cluster_id=cluster_id.hex(),
    )


def _main(file_path: str) -> None:
    try:
        answer = _Answer(report=read_checkpoint(file_path))
    except CorruptionError as error:
        answer = _Answer(error="corruption", reason=error.reason)
    except DataDirRefusedError as error:
        answer = _Answer(error="refused", reason=str(error))
    except DiskError as error:
        answer = _Answer(error="disk", reason=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    _main(sys.argv[1])
