"""Scripted replicas for the client's and the commands' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

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
