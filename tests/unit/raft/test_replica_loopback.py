"""Three whole replicas over real sockets on loopback, in real time.

Goal: what test_replica.py shows in simulated time holds with the real transport and the real clock.
Faults belong there; here is the straight way, a lost leader, and a return at another port.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from coordsvc.core.commands import NO_CALLER, CreateOp, DataSet, Reply, SetDataOp, Write
from coordsvc.core.machine import Machine
from coordsvc.raft.hooks import Hooks
from coordsvc.raft.replica import Replica
from coordsvc.raft.settings import ReplicaSettings
from coordsvc.testing.manual_wal import ManualWal
from coordsvc.testing.ports import free_port

HOST = "127.0.0.1"
DISK_S = 0.0005


async def wait_for(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.002)


class Trio:
    def __init__(self) -> None:
        self.ports = {i: free_port() for i in (1, 2, 3)}
        self.replicas: dict[int, Replica] = {}
        self.disks = {i: ManualWal() for i in (1, 2, 3)}
        self.cluster_ids: dict[int, bytes] = {}
        self.faults: list[BaseException] = []

    async def start(self, replica_id: int) -> None:
        loop = asyncio.get_running_loop()
        peers = {i: (HOST, port) for i, port in self.ports.items()}
        wal = self.disks[replica_id]
        replica = Replica(
            ReplicaSettings(replica_id, peers, peers[replica_id]),
            Machine(),
            wal,
            uuid=bytes([replica_id]) * 16,
            cluster_id=self.cluster_ids.get(replica_id, b""),
            loop=loop,
            hooks=Hooks(
                on_fatal=self.faults.append,
                on_cluster_id=lambda name: self.cluster_ids.update({replica_id: name}),
            ),
        )
        wal.on_synced = replica.on_synced
        wal.schedule = lambda sync: loop.call_later(DISK_S, sync)
        self.replicas[replica_id] = replica
        await replica.start()

    async def kill(self, replica_id: int) -> None:
        """As near to kill -9 as one process comes: nothing is finished, its connections close."""
        replica = self.replicas.pop(replica_id)
        replica._stopped = True
        for task in tuple(replica._tasks):
            task.cancel()
        await replica.network.close()
        wal = self.disks[replica_id]
        wal.on_synced = lambda lsn: None
        self.disks[replica_id] = wal.crash()

    @property
    def leader_id(self) -> int:
        return next((i for i, replica in self.replicas.items() if replica.is_leader), 0)

    async def ready(self) -> None:
        await wait_for(
            lambda: (
                all(replica.is_ready for replica in self.replicas.values())
                and all(not replica.node.memoryless for replica in self.replicas.values())
                and all(replica.has_quorum for replica in self.replicas.values())
                and bool(self.leader_id)
            )
        )

    def write(self, replica_id: int) -> asyncio.Future[Reply]:
        command = Write(NO_CALLER, SetDataOp("/counter"))
        return self.replicas[replica_id].submit(command, time.monotonic() + 8.0)

    def version(self, replica_id: int) -> int:
        return self.replicas[replica_id].machine.state.znodes["/counter"].stat.version


@pytest.fixture
async def trio() -> AsyncIterator[Trio]:
    trio = Trio()
    for replica_id in trio.ports:
        await trio.start(replica_id)
    await trio.ready()
    create = Write(NO_CALLER, CreateOp("/counter"))
    await trio.replicas[1].submit(create, time.monotonic() + 8.0)
    yield trio
    for replica_id in list(trio.replicas):
        await trio.kill(replica_id)
    assert not trio.faults


async def test_writes_and_reads_through_each(trio: Trio) -> None:
    futures = [trio.write(1 + n % 3) for n in range(3000)]
    replies = await asyncio.gather(*futures)
    assert all(isinstance(reply.result, DataSet) for reply in replies)
    for replica_id, replica in trio.replicas.items():
        await replica.read_index(time.monotonic() + 5.0)
        assert trio.version(replica_id) == 3000
    assert len({replica.machine.digest() for replica in trio.replicas.values()}) == 1


async def test_a_lost_leader_is_replaced_and_comes_back_at_another_port(trio: Trio) -> None:
    acknowledged = len(await asyncio.gather(*[trio.write(1) for _ in range(100)]))
    first = trio.leader_id
    start = time.monotonic()
    await trio.kill(first)
    survivor = next(iter(trio.replicas))
    await trio.write(survivor)
    took = time.monotonic() - start
    assert took < 1.0, f"{took:.3f} s without a leader"
    # The others are told the new address by their configuration only; it dials them.
    trio.ports[first] = free_port()
    await trio.start(first)
    await trio.ready()
    await trio.replicas[first].read_index(time.monotonic() + 5.0)
    assert trio.version(first) == acknowledged + 1


async def test_stopping_one_after_the_other_finishes_what_was_begun(trio: Trio) -> None:
    first = trio.leader_id
    others = [i for i in trio.replicas if i != first]
    futures = [trio.write(i) for i in others for _ in range(50)]
    await trio.replicas.pop(first).stop()
    replies = await asyncio.gather(*futures)
    assert len(replies) == 100
    await wait_for(lambda: bool(trio.leader_id))
    assert trio.leader_id in others
    assert isinstance((await trio.write(others[0])).result, DataSet)
