"""Faults of wall clocks: replicas whose clocks go wrong by an hour while they run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.testing.cluster import wait_for
from coordsvc.testing.namespace_cluster import NamespaceCluster
from tests.chaos.world import World

HOUR_SECONDS = 3600
NANOSECONDS = 1_000_000_000
SLACK_SECONDS = 600
JUMPS = "coordsvc_clock_jumps_total"


def environment(directory: Path, replica_id: int) -> dict[str, str]:
    """Of a replica whose clock can be put wrong; it goes right at first."""
    _offset_file(directory, replica_id).write_bytes(bytes(8))
    return {
        "PYTHONPATH": str(Path(__file__).parent / "wrong_clock"),
        "CLOCK_OFFSET_FILE": str(_offset_file(directory, replica_id)),
    }


def environments(directory: Path, size: int) -> dict[int, dict[str, str]]:
    return {i: environment(directory, i) for i in range(1, size + 1)}


class Clocks:
    """Faults of a cluster that was given `environments` of this directory. The cluster's time never
    runs back, so each fault goes an hour further than the one before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._hours = 0

    def put(self, world: World, replica_id: int, hours: int) -> None:
        """From now on its clock is so much ahead; that it looks there is proven, if it runs."""
        offset = hours * HOUR_SECONDS * NANOSECONDS
        file_path = _offset_file(self._directory, replica_id)
        with file_path.open("r+b") as file:
            file.write(offset.to_bytes(8, "little", signed=True))
        if world.cluster.is_running(replica_id):
            maps = Path(f"/proc/{world.cluster.pid(replica_id)}/maps").read_text()
            assert str(file_path) in maps, f"replica {replica_id} does not read {file_path}"

    @contextlib.contextmanager
    def leader_ahead(self, world: World) -> Iterator[str]:
        """Its clock jumps, and back again: znodes are stamped with it, and that is all."""
        leader = world.leader()
        with world.told("clock ahead", leader) as what:
            try:
                self._put_ahead(world, leader)
                yield what
                world.wait_served()
                assert world.cluster.is_leader(leader)
            finally:
                self.put(world, leader, 0)

    @contextlib.contextmanager
    def leader_replaced_by_one_behind(self, world: World) -> Iterator[str]:
        """The leader is ahead, and is killed; all others are as much behind. It comes back with its
        clock where theirs are: before the time at which it ran."""
        leader = world.leader()
        others = world.others(leader)
        term = world.term(leader)
        with world.told("clocks apart", *world.cluster.ids) as what:
            try:
                ahead = self._put_ahead(world, leader)
                for other in others:
                    self.put(world, other, -self._hours)
                world.wait_served()
                world.cluster.kill(leader)
                successor = world.wait_new_leader(others, term)
                assert stamp(world.cluster, successor) >= ahead, "the cluster's time ran back"
                yield what
                world.wait_served()
                self.put(world, leader, -self._hours)
                world.cluster.start_replica(leader)
                world.cluster.wait_ready()
                world.wait_served()
            finally:
                for replica_id in world.cluster.ids:
                    self.put(world, replica_id, 0)

    def _put_ahead(self, world: World, leader: int) -> float:
        """The leader's clock; what a znode is stamped with then."""
        self._hours += 1
        jumps = world.cluster.metric(leader, JUMPS)
        self.put(world, leader, self._hours)
        wait_for(lambda: world.cluster.metric(leader, JUMPS) > jumps, "the jump to be noticed")
        stamped = stamp(world.cluster, leader)
        ahead = stamped - time.time()
        assert abs(ahead - self._hours * HOUR_SECONDS) < SLACK_SECONDS, ahead
        return stamped


def stamp(cluster: NamespaceCluster, replica_id: int) -> float:
    """When a znode was made that is made now, as the cluster's clock has it; Unix time."""

    async def create() -> float:
        async with UnaryClient(ClientConfig((cluster.replicas[replica_id].endpoint,))) as client:
            path = f"/stamped-{time.monotonic_ns()}"
            await client.create(path)
            answer = await client.exists(path)
            await client.delete(path)
        assert answer.HasField("stat")
        return answer.stat.ctime_ms / 1000

    return asyncio.run(create())


def _offset_file(directory: Path, replica_id: int) -> Path:
    return directory / f"clock-{replica_id}"
