"""Strangers on the port that replicas reach each other at: their connection ends, nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable

import pytest

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.testing.cluster import LocalCluster

pytestmark = pytest.mark.timeout(90)

CLOSE_SECONDS_MAX = 15.0
STRANGERS_AT_ONCE = 50
WRITES_MIN = 20


def address(cluster: LocalCluster, replica_id: int) -> tuple[str, int]:
    return "127.0.0.1", cluster.replicas[replica_id].peer_port


def seconds_until_closed(where: tuple[str, int], sent: bytes, *, is_half_closed: bool) -> float:
    """Send it, and wait until the other side ends the connection."""
    started = time.monotonic()
    with socket.create_connection(where, timeout=CLOSE_SECONDS_MAX) as connection:
        try:
            connection.sendall(sent)
            if is_half_closed:
                connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
        except ConnectionError:
            pass  # Reset: closed all the more.
    return time.monotonic() - started


MESSAGES = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100c4010000c00303") + bytes(190),
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "random": os.urandom(4_096),
    "zeros": bytes(4_096),
    "huge length": struct.pack(">I", 0xFFFFFFFF) + b"x" * 64,
    "huge length, the other way round": struct.pack("<I", 0x7FFFFFFF) + b"x" * 64,
    "pickle": struct.pack(">I", 20) + b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "half a length": b"\x00\x00",
    "half a frame": struct.pack(">I", 1_000) + b"\x93" * 10,
    "half a frame, the other way round": struct.pack("<I", 1_000) + b"\x93" * 10,
    "nothing": b"",
}


@pytest.mark.parametrize("is_half_closed", [True, False], ids=["ends", "waits"])
def test_a_stranger_is_shown_out(cluster: LocalCluster, is_half_closed: bool) -> None:
    before = {replica_id: cluster.pid(replica_id) for replica_id in cluster.ids}

    async def run() -> None:
        config = ClientConfig(cluster.endpoints)
        async with UnaryClient(config) as client:
            await client.create("/s", b"0")
            visits = [
                asyncio.to_thread(
                    seconds_until_closed,
                    address(cluster, replica_id),
                    message,
                    is_half_closed=is_half_closed,
                )
                for message in MESSAGES.values()
                for replica_id in cluster.ids
            ]
            visiting = asyncio.gather(*visits)
            version = 0
            while not visiting.done() or version < WRITES_MIN:
                await client.set_data("/s", b"x", version=version)
                version += 1
                await asyncio.sleep(0.02)
            slowest = max(await visiting)
            print(f"{len(visits)} strangers, the last out after {slowest:.2f} s; {version} writes")
            assert slowest < CLOSE_SECONDS_MAX

    asyncio.run(run())
    assert {replica_id: cluster.pid(replica_id) for replica_id in cluster.ids} == before
    assert all(cluster.is_serving(replica_id) for replica_id in cluster.ids)


def test_many_strangers_do_not_shut_out_the_replicas(cluster: LocalCluster) -> None:
    """Their connections stay open while a replica is restarted: it gets in, and serves."""
    follower = next(id for id in cluster.ids if id != cluster.wait_leader())
    strangers = [
        socket.create_connection(address(cluster, replica_id), timeout=5)
        for replica_id in cluster.ids
        for _ in range(STRANGERS_AT_ONCE)
        if replica_id != follower
    ]
    try:
        cluster.kill(follower)
        cluster.start()
        assert cluster.is_serving(follower)
    finally:
        for stranger in strangers:
            stranger.close()


def test_a_replica_of_another_cluster_is_shown_out(
    make_cluster: Callable[..., LocalCluster],
) -> None:
    """A replica of a foreign cluster configured with our addresses by mistake harms nobody."""
    ours, theirs = make_cluster(3), make_cluster(3)
    ours.start()
    theirs.start()
    asyncio.run(_write(ours.endpoints, "/ours"))
    asyncio.run(_write(theirs.endpoints, "/theirs"))
    theirs.kill_all()
    intruder = ours.replicas[3]
    ours.kill(3)
    ours.replicas[3] = _with_data_of(intruder, theirs)
    ours.start_replica(3)
    asyncio.run(_write(ours.endpoints[:2], "/still-ours"))
    assert not ours.is_serving(3) or not ours.is_running(3)
    ours.replicas[3] = intruder
    if ours.is_running(3):
        ours.kill(3)
    else:
        assert ours.wait_end(3) != 0
    ours.start()
    asyncio.run(_check(ours.endpoints))


def _with_data_of(replica: object, other: LocalCluster) -> object:
    import dataclasses

    return dataclasses.replace(replica, data_dir=other.replicas[3].data_dir)  # type: ignore[type-var]


async def _write(endpoints: tuple[str, ...], path: str) -> None:
    async with UnaryClient(ClientConfig(endpoints)) as client:
        await client.create(path)


async def _check(endpoints: tuple[str, ...]) -> None:
    async with UnaryClient(ClientConfig(endpoints)) as client:
        await client.sync()
        names = [child.name async for page in client.get_children("/") for child in page.children]
    assert {"ours", "still-ours"} <= set(names) and "theirs" not in names
