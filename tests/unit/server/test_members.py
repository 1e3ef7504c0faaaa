"""What follows from what the replicas tell each other: differing settings, and low disk space."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import msgspec
import pytest

from coordsvc.raft.messages import ReplicaInfo, decode_message, encode_frame
from coordsvc.server.addresses import Address
from coordsvc.server.config_model import ClusterConfig
from tests.unit.server.harness import Harness, eventually, local_server

PEERS = {i: Address("127.0.0.1", 17000 + i) for i in (1, 2, 3)}
OWN = ClusterConfig().fingerprint()
OTHER = ClusterConfig(tick_ms=400).fingerprint()
THIRD = ClusterConfig(tick_ms=300).fingerprint()


@pytest.fixture
async def server() -> AsyncIterator[Harness]:
    async with local_server(peers=PEERS) as harness:
        harness.server.disk_space.stop()
        yield harness


def info(
    replica_id: int, *, settings: str = OWN, is_low: bool = False, zookeeper: str = ""
) -> ReplicaInfo:
    return ReplicaInfo(
        replica_id, 2, "", "", 1, 1, 1, 1, 0, "0", (), settings, is_low, zookeeper_address=zookeeper
    )


def differing(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    """(peer, its settings) for every word about it."""
    return [
        (record.peer, record.peer_cluster_config)  # type: ignore[attr-defined]
        for record in caplog.records
        if record.message == "peer.config_differs" and record.levelno == logging.WARNING
    ]


async def test_other_settings_are_told_once_for_each_replica_and_value(
    server: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    for peer, settings in (
        (2, OWN),
        (2, OTHER),
        (2, OTHER),
        (3, OTHER),
        (2, THIRD),
        (3, OTHER),
        (2, OWN),
        (2, THIRD),
    ):
        server.replica.receive(peer, info(peer, settings=settings))
    assert differing(caplog) == [(2, OTHER), (3, OTHER), (2, THIRD), (2, THIRD)]


async def test_a_replica_that_does_not_tell_its_settings_is_not_blamed(
    server: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    server.replica.receive(2, info(2, settings=""))
    assert differing(caplog) == []


async def test_it_tells_its_own_settings_and_space(server: Harness) -> None:
    server.server.disk_space.note_free(1)
    server.server.members.turn(server.replica.clock.monotonic() + 10.0)
    told = [message for _, message in server.replica.sent if isinstance(message, ReplicaInfo)]
    assert told[-1].cluster_config == OWN and told[-1].is_space_low


def test_what_a_replica_without_these_fields_says_is_understood() -> None:
    """And the other way round: it skips what it does not know."""
    told = msgspec.to_builtins(info(2))
    frame = msgspec.msgpack.encode((4, told[:-3]))
    _, decoded = decode_message(frame)
    assert decoded == msgspec.structs.replace(info(2), cluster_config="", is_space_low=False)
    whole = info(2, is_low=True, zookeeper="b:2181")
    _, decoded = decode_message(msgspec.msgpack.encode((4, msgspec.to_builtins(whole)[:-1])))
    assert decoded == info(2, is_low=True)
    _, longer = decode_message(msgspec.msgpack.encode((4, [*told, "new"])))
    assert longer == info(2)
    assert decode_message(encode_frame(4, whole)[4:])[1] == whole


async def test_where_zookeepers_clients_reach_the_members_that_serve_them() -> None:
    async with local_server(peers=PEERS, zookeeper_advertise=Address("a", 2181)) as server:
        members = server.server.members
        assert members.zookeeper_addresses() == {}, "it serves none"
    here = Address("127.0.0.1", 0)
    async with local_server(peers=PEERS, zookeeper_listen=here) as server:
        members = server.server.members
        await server.server.listen_zookeeper()
        own = server.server.zookeeper.address
        assert members.zookeeper_addresses() == {1: str(own)} and own.port
        server.replica.receive(3, info(3, zookeeper="c:2181"))
        server.replica.receive(2, info(2))
        assert members.zookeeper_addresses() == {1: str(own), 3: "c:2181"}
        server.replica.receive(2, info(2, zookeeper="b:2181"))
        assert list(members.zookeeper_addresses().items()) == [
            (1, str(own)), (2, "b:2181"), (3, "c:2181")
        ]  # fmt: skip
        server.server.members.turn(server.replica.clock.monotonic() + 100.0)
        assert 3 in members.zookeeper_addresses(), "one that fell silent keeps its address"
        told = [message for _, message in server.replica.sent if isinstance(message, ReplicaInfo)]
        assert told[-1].zookeeper_address == str(own)
        server.server.begin_end_streams(0.0)
        await server.server.end_streams(1.0)


@pytest.mark.parametrize(
    ("own", "low_peers", "expected"),
    [(False, (), False), (False, (2,), False), (False, (2, 3), True), (True, (), False),
     (True, (3,), True), (True, (2, 3), True)],
)  # fmt: skip
async def test_writes_are_refused_everywhere_when_those_with_room_are_no_majority(
    server: Harness, own: bool, low_peers: tuple[int, ...], expected: bool
) -> None:
    members, clock = server.server.members, server.replica.clock
    server.server.disk_space.note_free(1 if own else 1 << 40)
    for peer in (2, 3):
        server.replica.receive(peer, info(peer, is_low=peer in low_peers))
    members.turn(clock.monotonic() + 1.0)
    assert members.is_space_low is expected


async def test_a_silent_replica_does_not_count_as_low(server: Harness) -> None:
    members, clock = server.server.members, server.replica.clock
    for peer in (2, 3):
        server.replica.receive(peer, info(peer, is_low=True))
    now = clock.monotonic()
    members.turn(now + 1.0)
    assert members.is_space_low
    members.turn(now + 100.0)
    assert not members.is_space_low


async def test_what_the_others_say_of_their_space_reaches_the_doors(server: Harness) -> None:
    """Through the server's own turns."""
    for peer in (2, 3):
        server.replica.receive(peer, info(peer, is_low=True))
    await eventually(lambda: server.server.disk_space.is_low)
    refused = await server.refusal("Create", path="/a")
    assert refused.code == "LIMIT_EXCEEDED" and "low at most replicas" in refused.message
    await eventually(lambda: not server.server.disk_space.is_low)  # they fell silent
    await server.call("Create", path="/a")
