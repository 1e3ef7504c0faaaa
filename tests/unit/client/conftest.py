"""Replicas that say what a test tells them to, and clients of theirs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

# Before grpc is loaded: no remarks about the connections that these tests cut.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from coordsvc.client.client import Client
from tests.unit.client.fake_replica import FakeReplica, FakeStream
from tests.unit.client.opening import Connect, opened


@pytest.fixture
async def replicas() -> AsyncIterator[list[FakeReplica]]:
    """Two."""
    both = [FakeReplica(), FakeReplica()]
    for each in both:
        await each.start()
    yield both
    for each in both:
        await each.stop()


@pytest.fixture
async def connect(replicas: list[FakeReplica]) -> AsyncIterator[Connect]:
    """A client of both replicas that is attached to the first, and its stream there. `session_ms`
    is the timeout that is granted."""
    clients: list[Client] = []

    async def connect(*, session_ms: int = 60_000, **welcome: Any) -> tuple[Client, FakeStream]:
        endpoints = [each.endpoint for each in replicas]
        client = Client(endpoints, randomize_endpoints=False)
        clients.append(client)
        return client, await opened(client, replicas[0], timeout_ms=session_ms, **welcome)

    yield connect
    for client in clients:
        # Without a word to the replica, which has perhaps nothing to answer any more.
        await client._shut()
