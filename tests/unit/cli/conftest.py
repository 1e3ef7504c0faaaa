"""Scripted replicas for the client's and the commands' tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

# Before grpc is loaded: no remarks about the connections that these tests cut.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from tests.unit.cli.fake_replica import FakeReplica


@pytest.fixture
def fake_replicas() -> Iterator[Callable[[int], list[FakeReplica]]]:
    started: list[FakeReplica] = []

    def start(count: int) -> list[FakeReplica]:
        new = [FakeReplica() for _ in range(count)]
        started.extend(new)
        return new

    yield start
    for replica in started:
        replica.stop()


@pytest.fixture
def fake_replica(fake_replicas: Callable[[int], list[FakeReplica]]) -> FakeReplica:
    return fake_replicas(1)[0]
