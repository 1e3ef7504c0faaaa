"""Reads that once overtook an undecided write of their own session.

Goal: a read of a session shows each of its earlier writes that may be applied, whatever has become
of the later ones. Method: the pipeline on a replica that decides when the test says so.
"""

from __future__ import annotations

import asyncio

import pytest

from coordsvc.core.commands import ClientCommand, CreateOp, DeleteOp, Reply, SetDataOp
from coordsvc.errors import CoordError, LimitExceededError, NotCaughtUpError, OutcomeUnknownError
from tests.unit.server.test_pipeline import Rig, refused, settle


@pytest.fixture
async def rig() -> Rig:
    """Its session has written once, and later writes are decided on command."""
    rig = Rig()
    await rig.write(CreateOp("/a", b"old"), rig.session_id)
    rig.replica.is_automatic = False
    return rig


def refuse_at_once(rig: Rig, error: CoordError) -> None:
    """The next write only."""
    submit = rig.replica.submit

    def refuse(command: ClientCommand, deadline: float) -> asyncio.Future[Reply]:
        rig.replica.submit = submit  # type: ignore[method-assign]
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        future.set_exception(error)
        return future

    rig.replica.submit = refuse  # type: ignore[method-assign]


async def test_a_read_waits_for_an_earlier_write_though_a_later_one_was_refused_at_once(
    rig: Rig,
) -> None:
    write = rig.write(SetDataOp("/a", b"new"), rig.session_id)
    await settle()
    refuse_at_once(rig, LimitExceededError("too large"))
    too_large = rig.write(SetDataOp("/a", b"x" * 9), rig.session_id)
    assert isinstance(await refused(too_large), LimitExceededError)
    read = rig.read("/a", rig.session_id)
    await settle()
    assert not read.done(), "the first write is not decided"
    rig.replica.apply()
    (data, _), zxid = await read
    assert data == b"new" and zxid >= (await write).zxid


@pytest.mark.parametrize("decided", [[2, 1, 0], [1, 2, 0], [0, 2, 1]])
async def test_a_read_waits_for_the_last_of_its_sessions_writes_to_be_decided(
    rig: Rig, decided: list[int]
) -> None:
    writes = [rig.write(SetDataOp("/a"), rig.session_id) for _ in range(3)]
    await settle()
    futures = [future for _, future, _ in rig.replica._waiting]
    read = rig.read("/a", rig.session_id)
    for n in decided:
        await settle()
        assert not read.done()
        futures[n].set_exception(OutcomeUnknownError("undecided"))
    assert (await read)[0][0] == b"old"
    for write in writes:
        assert isinstance(await refused(write), OutcomeUnknownError)


async def test_a_read_whose_sessions_first_write_stays_undecided_says_so(rig: Rig) -> None:
    write = rig.write(SetDataOp("/a", b"new"), rig.session_id)
    await settle()
    refuse_at_once(rig, LimitExceededError("too large"))
    await refused(rig.write(SetDataOp("/a"), rig.session_id))
    read = rig.read("/a", rig.session_id, seconds=0.05)
    assert isinstance(await refused(read), NotCaughtUpError)
    rig.replica.apply()
    await write


async def test_a_read_does_not_wait_for_writes_that_came_after_it(rig: Rig) -> None:
    first = rig.write(SetDataOp("/a", b"new"), rig.session_id)
    await settle()
    read = rig.read("/a", rig.session_id)
    await settle()
    rig.replica.apply()
    await first
    later = rig.write(DeleteOp("/a"), rig.session_id)
    assert (await read)[0][0] == b"new"
    await settle()
    rig.replica.apply()
    await later


async def test_nothing_is_kept_of_a_session_whose_writes_are_refused_or_decided(rig: Rig) -> None:
    write = rig.write(SetDataOp("/a"), rig.session_id)
    await settle()
    refuse_at_once(rig, LimitExceededError("too large"))
    await refused(rig.write(SetDataOp("/a"), rig.session_id))
    assert rig.pipeline.statistics().sessions_active == 1
    rig.replica.apply()
    await write
    await settle()
    statistics = rig.pipeline.statistics()
    assert (statistics.sessions_active, statistics.writes_pending) == (0, 0)
    refuse_at_once(rig, LimitExceededError("too large"))
    await refused(rig.write(SetDataOp("/a"), rig.session_id))
    assert rig.pipeline.statistics().sessions_active == 0
