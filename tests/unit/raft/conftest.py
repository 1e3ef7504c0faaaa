"""Fixtures of the tests of consensus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.unit.raft.peer_scene import Cluster


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    cluster = Cluster(3)
    yield cluster
    await cluster.close()
    await asyncio.sleep(0)
    tasks = [task for task in asyncio.all_tasks() if "_keep_dialled" in repr(task)]
    assert not tasks, "somebody still dials"
    assert all(not member.faults for member in cluster.members)
