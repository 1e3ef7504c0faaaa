"""A session's own reads among its own writes, pipelined, between replicas and beside others: each
read shows exactly the write before it, also when neither waits for the other.

Ref: ZooKeeper CommitProcessor, and SEQUENTIAL CONSISTENCY of its Programmer's Guide.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from coordsvc.testing.cluster import LocalCluster
from coordsvc.testing.zookeeper_client import ZooKeeperConnection
from coordsvc.testing.zookeeper_connection import Reply
from coordsvc.testing.zookeeper_records import Decoder, OpCode, boolean, buffer, int32, text
from coordsvc.v1 import coordination_pb2 as pb
from tests.integration.raw_stream import RawStream

SESSIONS_PER_REPLICA = 3
FRAMES = 60
REQUESTS_PER_FRAME = 64
FRAMES_AHEAD = 4
READS_MIN = 5_000


def frames(rng: random.Random) -> list[list[int | None]]:
    """Each request a write of that number, or a read."""
    number, made = 0, []
    for _ in range(FRAMES):
        frame: list[int | None] = []
        for _ in range(REQUESTS_PER_FRAME):
            if rng.random() < 0.5:
                frame.append(None)
            else:
                number += 1
                frame.append(number)
        made.append(frame)
    return made


async def over_a_stream(endpoint: str, path: str, rng: random.Random) -> int:
    """Checks every read; how many there were."""
    async with RawStream(endpoint) as stream:
        await stream.send(pb.CreateRequest(path=path, data=b"0"))
        await stream.replies(1)
        wanted = frames(rng)
        room = asyncio.Semaphore(FRAMES_AHEAD)

        async def send() -> None:
            for frame in wanted:
                await room.acquire()
                await stream.send(
                    *(
                        pb.GetDataRequest(path=path)
                        if number is None
                        else pb.SetDataRequest(path=path, data=b"%d" % number)
                        for number in frame
                    )
                )

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            reads = last = zxid = 0
            for frame in wanted:
                for number, reply in zip(frame, await stream.replies(len(frame)), strict=True):
                    assert reply.zxid >= zxid
                    zxid = reply.zxid
                    if number is None:
                        assert reply.get_data.data == b"%d" % last, (path, reply)
                        assert reply.get_data.stat.version == last
                        reads += 1
                    else:
                        assert reply.set_data.stat.version == number, (path, reply)
                        last = number
                room.release()
        return reads


async def over_a_connection(port: int, path: str, rng: random.Random) -> int:
    """The same over ZooKeeper's protocol."""
    client = await ZooKeeperConnection.open("127.0.0.1", port)
    await client.create(path, b"0")
    sent: list[tuple[list[int | None], list[asyncio.Future[Reply]]]] = []
    reads = last = 0
    wanted = frames(rng)
    while wanted or sent:
        while wanted and len(sent) < FRAMES_AHEAD:
            frame = wanted.pop(0)
            requests = [
                (OpCode.GET_DATA, text(path) + boolean(False), None)
                if number is None
                else (OpCode.SET_DATA, text(path) + buffer(b"%d" % number) + int32(-1), None)
                for number in frame
            ]
            sent.append((frame, client.requests(requests)))
        frame, answers = sent.pop(0)
        for number, reply in zip(frame, await asyncio.gather(*answers), strict=True):
            assert reply.error == 0, reply
            if number is None:
                assert Decoder(reply.body).buffer() == b"%d" % last, (path, reply)
                reads += 1
            else:
                last = number
    client.abort()
    return reads


async def test_each_read_shows_the_write_before_it(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    cluster = make_cluster(3, zookeeper=True)
    await asyncio.to_thread(cluster.start)
    await asyncio.to_thread(cluster.wait_leader)
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        tasks = []
        for replica_id in cluster.ids:
            replica = cluster.replicas[replica_id]
            for number in range(SESSIONS_PER_REPLICA):
                path, rng = f"{replica_id}-{number}", random.Random(f"{replica_id}-{number}")
                tasks += [
                    group.create_task(over_a_stream(replica.endpoint, f"/s{path}", rng)),
                    group.create_task(over_a_connection(replica.zookeeper_port, f"/z{path}", rng)),
                ]
    reads = [task.result() for task in tasks]
    assert min(reads) > 0
    assert sum(reads) >= READS_MIN
