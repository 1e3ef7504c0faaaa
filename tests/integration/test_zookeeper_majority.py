"""A replica without a majority, as ZooKeeper's clients see it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from coordsvc.testing.cluster import LocalCluster
from coordsvc.testing.zookeeper_records import OpCode, boolean, text
from tests.differential.wire import Closed
from tests.differential.world import Link, World

END_SECONDS = 30.0

pytestmark = pytest.mark.processes


def test_without_a_majority_nothing_is_answered(tmp_path: Path) -> None:
    """Requests that were answered a moment ago end the connection; and when there is a majority
    again, the session goes on."""
    with LocalCluster(tmp_path, zookeeper=True) as cluster:
        cluster.start()
        left = next(each for each in cluster.ids if each != cluster.wait_leader())
        replica = cluster.replicas[left]
        world = World([("127.0.0.1", replica.zookeeper_port)], "/")
        world.attach("A", timeout_ms=60_000)
        session = world.links["A"]
        assert "OK" in read(world, "A")
        others = [each for each in cluster.ids if each != left]
        for each in others:
            cluster.kill(each)
        deadline = time.monotonic() + END_SECONDS
        while "OK" in (last := read(world, "A")):
            assert time.monotonic() < deadline, "reads are still answered"
        assert last == "connection closed"
        for each in others:
            cluster.start_replica(each)
        cluster.wait_ready()
        deadline = time.monotonic() + END_SECONDS
        # Clients try again when the connection is closed, as long as there is no leader.
        while (told := world.attach("B", **session_of(session))) == ["connection closed"]:
            assert time.monotonic() < deadline, "the session is not taken up"
        assert f"session={world.sessions.name(session.session_id)} " in told[0]
        assert "OK" in read(world, "B")
        world.leave()


def session_of(link: Link) -> dict[str, Any]:
    return {"session_id": link.session_id, "password": link.password}


def read(world: World, name: str) -> str:
    link = world.links[name]
    try:
        world.send(
            link,
            OpCode.EXISTS,
            text("/") + boolean(False),
            lambda decoder, _: f"{decoder.stat().version}",
        )
    except Closed:
        return "connection closed"
    return world.replies(link)[-1]
