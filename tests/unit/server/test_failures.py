"""What ends the process, with which status, and what does not."""

from __future__ import annotations

import asyncio
import logging

import pytest

from coordsvc.errors import InternalError, NoQuorumError
from coordsvc.exit_status import ExitStatus
from coordsvc.raft.applier import ClusterMismatchError, DigestMismatchError
from coordsvc.raft.replica_types import SilentDiskError
from coordsvc.server.failures import FatalErrors, StartRefusedError, status_of_failure
from coordsvc.server.pipeline import Pipeline
from coordsvc.storage.errors import (
    CorruptionError,
    DataDirRefusedError,
    DiskError,
    DiskFullError,
    StorageError,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StartRefusedError(ExitStatus.ADDRESS_IN_USE, ""), ExitStatus.ADDRESS_IN_USE),
        (DataDirRefusedError("locked"), ExitStatus.DATA_DIR_REFUSED),
        (CorruptionError("wal", 0, "flipped"), ExitStatus.CORRUPTION),
        (ClusterMismatchError("another"), ExitStatus.CORRUPTION),
        (DigestMismatchError(7, 1, 2), ExitStatus.DIVERGED),
        (DiskError("EIO"), ExitStatus.DISK),
        (DiskFullError("ENOSPC"), ExitStatus.DISK),
        (SilentDiskError("30 s"), ExitStatus.DISK),
        (StorageError("strange"), ExitStatus.BUG),
        (AssertionError(), ExitStatus.BUG),
        (InternalError(), ExitStatus.BUG),
        (OSError(), ExitStatus.BUG),
    ],
)
def test_each_failure_has_its_exit_status(error: BaseException, status: ExitStatus) -> None:
    assert status_of_failure(error) == status


def raised_in_the_pipeline() -> Exception:
    """Something that passed through the package's own code."""
    broken = object.__new__(Pipeline)
    try:
        broken.statistics()
    except AttributeError as error:
        return error
    raise AssertionError


def raised_elsewhere(error: Exception) -> Exception:
    try:
        raise error
    except Exception as raised:
        return raised


async def test_what_passed_through_the_replicas_own_code_ends_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended: list[int] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(FatalErrors(ended.append).on_loop_exception)
    try:
        loop.call_soon(object.__new__(Pipeline).statistics)
        await asyncio.sleep(0.01)
    finally:
        loop.set_exception_handler(before)
    assert ended == [70]
    (record,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert record.getMessage() == "process.failed" and record.exc_info


@pytest.mark.parametrize(
    "context",
    [
        {"message": "a library's own", "exception": raised_elsewhere(RuntimeError("grpc"))},
        {"message": "never retrieved", "exception": raised_elsewhere(NoQuorumError())},
        {"message": "no exception at all"},
    ],
)
def test_what_a_library_did_or_nobody_waited_for_does_not(context: dict[str, object]) -> None:
    ended: list[int] = []
    loop = asyncio.new_event_loop()
    FatalErrors(ended.append).on_loop_exception(loop, context)
    loop.close()
    assert ended == []


def test_a_typed_internal_error_of_our_own_code_is_fatal_too() -> None:
    ended: list[int] = []
    loop = asyncio.new_event_loop()
    error = raised_in_the_pipeline()
    internal = InternalError("bug")
    internal.__traceback__ = error.__traceback__
    FatalErrors(ended.append).on_loop_exception(loop, {"exception": internal})
    loop.close()
    assert ended == [70]


def test_a_full_disk_is_told_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int] = []
    FatalErrors(ended.append).on_fatal(DiskFullError("cannot write wal: no space left"))
    assert ended == [6]
    (record,) = caplog.records
    assert "no space left" in str(vars(record)["error"]) and not record.exc_info


def test_a_replica_that_differs_says_how_to_mend_it(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[int] = []
    failures = FatalErrors(ended.append, data_dir="/data/2")
    failures.on_fatal(DigestMismatchError(7, 1, 2))
    assert ended == [7] and failures.digest_mismatches_total == 1
    text = str(vars(caplog.records[-1])["error"])
    assert "at zxid 7" in text and "`coordsvc rejoin /data/2`" in text
