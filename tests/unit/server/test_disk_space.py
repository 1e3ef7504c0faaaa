"""Low disk space: what is refused then, when it begins and ends, and who is asked."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from coordsvc.core.commands import (
    AddAuthOp,
    AttachSessionOp,
    CheckOp,
    CloseSessionOp,
    CreateOp,
    DeleteOp,
    MultiOp,
    Op,
    SetAclOp,
    SetDataOp,
)
from coordsvc.errors import Applied, ErrorCode, LimitExceededError
from coordsvc.server.disk_space import DiskSpace, free_bytes_at, frees_space
from tests.unit.server.harness import eventually

LEAST = 1_000_000

SMALLER: tuple[Op, ...] = (
    DeleteOp("/a", -1),
    CloseSessionOp(),
    AttachSessionOp(0),
    MultiOp((DeleteOp("/a", -1), CheckOp("/b", 3), DeleteOp("/c", -1))),
    MultiOp((CheckOp("/b", 3),)),
)
LARGER: tuple[Op, ...] = (
    CreateOp("/a", b""),
    SetDataOp("/a", b"", -1),
    SetAclOp("/a", (), -1),
    AddAuthOp(()),
    MultiOp((DeleteOp("/a", -1), CreateOp("/b", b""))),
    MultiOp((DeleteOp("/a", -1), SetDataOp("/b", b"", -1))),
)


def space(*, is_log_low: list[bool] | None = None) -> DiskSpace:
    flags = is_log_low if is_log_low is not None else [False]
    return DiskSpace("nowhere", free_bytes_min=LEAST, is_log_low=lambda: flags[0])


def test_only_what_makes_the_tree_smaller_frees_space() -> None:
    assert [op for op in SMALLER if not frees_space(op)] == []
    assert [op for op in LARGER if frees_space(op)] == []


def test_while_it_is_low_only_that_is_taken() -> None:
    disk = space()
    disk.note_free(LEAST - 1)
    assert disk.is_low and disk.is_low_here
    for op in SMALLER:
        disk.check_write(op)
    for op in LARGER:
        with pytest.raises(LimitExceededError) as caught:
            disk.check_write(op)
        error = caught.value
        assert (error.code, error.applied) == (ErrorCode.LIMIT_EXCEEDED, Applied.NO)
        assert error.limit == "disk_free" and error.retry_after_ms > 0
        assert f"{LEAST - 1} bytes are free" in error.message
        assert f"storage.disk_free_bytes_min is {LEAST}: free space" in error.message
    with pytest.raises(LimitExceededError):
        disk.check_opening()


def test_before_the_first_look_and_with_enough_everything_is_taken() -> None:
    disk = space()
    for free in (None, LEAST, 10 * LEAST):
        if free is not None:
            disk.note_free(free)
        assert disk.free_bytes == free
        for op in (*SMALLER, *LARGER):
            disk.check_write(op)
        disk.check_opening()


def test_it_does_not_go_back_and_forth(caplog: pytest.LogCaptureFixture) -> None:
    """Each change is logged once; in the band above the least it stays what it was."""
    disk = space()
    seen = []
    with caplog.at_level(logging.INFO):
        for free in (2, 1, 0.99, 1.0, 1.09, 0.5, 1.099, 1.1, 1.05, 1.0, 0.999, 3):
            disk.note_free(int(free * LEAST))
            seen.append(disk.is_low)
    assert seen == [False, False, True, True, True, True, True, False, False, False, True, False]
    events = [record.message for record in caplog.records]
    assert events == ["disk.space_low", "disk.space_enough"] * 2


def test_the_log_may_find_no_room_before_the_file_system_says_so() -> None:
    is_log_low = [True]
    disk = space(is_log_low=is_log_low)
    disk.note_free(100 * LEAST)
    assert disk.is_low
    is_log_low[0] = False
    disk.note_free(100 * LEAST)
    assert not disk.is_low


def test_with_a_least_of_zero_only_the_log_decides() -> None:
    disk = DiskSpace("nowhere", free_bytes_min=0)
    disk.note_free(0)
    assert not disk.is_low


def test_when_most_replicas_are_low_this_one_refuses_too(caplog: pytest.LogCaptureFixture) -> None:
    disk = space()
    disk.note_free(100 * LEAST)
    with caplog.at_level(logging.INFO):
        for is_low in (False, True, True, False, False):
            disk.set_elsewhere(is_low)
            assert disk.is_low == is_low and not disk.is_low_here
            if is_low:
                with pytest.raises(LimitExceededError, match="low at most replicas"):
                    disk.check_write(LARGER[0])
    assert [record.message for record in caplog.records] == [
        "cluster.space_low",
        "cluster.space_enough",
    ]


def test_a_file_system_that_does_not_say_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    disk = space()
    disk.note_free(1)
    for _ in range(3):
        disk.note_unknown(OSError("gone"))
    assert disk.is_low and disk.free_bytes == 1
    told = [record for record in caplog.records if record.message == "disk.space_unknown"]
    assert len(told) == 1


# --------------------------------------------------------------------------------------- the poll


async def test_it_looks_again_and_again_and_beside_the_loop() -> None:
    loop_thread = threading.get_ident()
    threads: set[int] = set()
    free = [10 * LEAST]

    def look(directory: str) -> int:
        assert directory == "somewhere"
        threads.add(threading.get_ident())
        return free[0]

    disk = DiskSpace("somewhere", free_bytes_min=LEAST, free_bytes_at=look, poll_s=0.001)
    disk.start()
    try:
        await eventually(lambda: disk.free_bytes == 10 * LEAST)
        assert not disk.is_low
        free[0] = 5
        await eventually(lambda: disk.is_low)
        free[0] = 10 * LEAST
        await eventually(lambda: not disk.is_low)
    finally:
        disk.stop()
    assert loop_thread not in threads


async def test_a_file_system_that_hangs_stops_nobody() -> None:
    """Neither the loop, nor the end of the process: the thread is a daemon."""
    release, entered = threading.Event(), threading.Event()

    def hang(directory: str) -> int:
        entered.set()
        release.wait()
        return 1

    disk = DiskSpace("somewhere", free_bytes_min=LEAST, free_bytes_at=hang, poll_s=0.001)
    disk.start()
    try:
        await asyncio.to_thread(entered.wait)
        (thread,) = [each for each in threading.enumerate() if each.name == "disk-space"]
        assert thread.daemon and disk.free_bytes is None
        disk.stop()
    finally:
        release.set()
    await asyncio.to_thread(thread.join)


async def test_it_ends_when_told_to() -> None:
    disk = DiskSpace(".", free_bytes_min=LEAST)
    disk.start()
    await eventually(lambda: disk.free_bytes is not None)
    (thread,) = [each for each in threading.enumerate() if each.name == "disk-space"]
    disk.stop()
    await asyncio.to_thread(thread.join)


def test_a_real_file_system_is_asked(tmp_path: Path) -> None:
    before = free_bytes_at(str(tmp_path))
    assert before > 0
    with pytest.raises(OSError):
        free_bytes_at(str(tmp_path / "none"))
