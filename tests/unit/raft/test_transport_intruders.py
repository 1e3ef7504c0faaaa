"""Strangers on the peer port, and members that misbehave.

Goal: only members of this cluster ever get past the handshake; whatever a stranger or a broken
peer sends costs its own connection and nothing else. Method: `PeerNetwork` against raw sockets.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest

from coordsvc.raft import transport as transport_module
from coordsvc.raft.messages import (
    HELLO_BYTES_MAX,
    LENGTH,
    AppendEntries,
    Handshake,
    Hello,
    Message,
    PeerProtocolError,
    Ping,
    Round,
    Verdict,
    decode_message,
    encode_frame,
    encode_handshake,
)
from coordsvc.raft.transport import (
    PING_AFTER_S,
    SILENT_AFTER_S,
)
from tests.unit.raft.peer_scene import HOST, Cluster, Member, Stranger, wait_for

# ---------------------------------------------------------------------- strangers


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"magic": "zookeeper"}, "not a coordsvc replica"),
        ({"cluster_id": b"x" * 16}, "cluster 7878"),
        ({"replica_id": 9}, "replica 9 is not a member"),
        ({"replica_id": 1}, "replica 1 is not a member"),
        ({"format_version": 99, "format_version_min": 99}, "peer protocol 99 to 99"),
        ({"format_version": 0, "format_version_min": 0}, "peer protocol 0 to 0"),
        ({"wanted_id": 3}, "replica 3 was wanted"),
        ({"member_ids": (1, 2)}, "members [1, 2]"),
        ({"frame_bytes_max": 17}, "frames of 17 bytes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_stranger_is_told_why_and_refused(
    cluster: Cluster, changes: dict[str, Any], reason: str
) -> None:
    one = await cluster.start(1)
    stranger = await Stranger.dial(one)
    stranger.write(encode_handshake(Member(2, cluster.ports).hello(1, **changes)))
    verdict = await stranger.read_handshake()
    assert isinstance(verdict, Verdict) and not verdict.accepted
    assert reason in verdict.reason
    assert await stranger.is_closed()
    assert not one.linked and one.ups == 0


async def test_a_member_that_does_not_know_its_clusters_name_is_let_in(cluster: Cluster) -> None:
    one = await cluster.start(1)
    stranger = await Stranger.dial(one)
    await stranger.shake(Member(2, cluster.ports).hello(1, cluster_id=b""))
    await wait_for(lambda: 2 in one.linked)
    stranger.writer.close()


async def test_a_twin_is_refused_and_the_first_stays(cluster: Cluster) -> None:
    """Two processes with one replica id and different data directories."""
    one, two = await cluster.pair()
    twin = await Stranger.dial(one)
    twin.write(encode_handshake(two.hello(1, uuid=b"t" * 16)))
    verdict = await twin.read_handshake()
    assert isinstance(verdict, Verdict) and not verdict.accepted
    assert "another process" in verdict.reason
    assert await twin.is_closed()
    one.say(2, Round(1, 0))
    await wait_for(lambda: bool(two.heard))
    assert one.ups == 1


async def test_who_is_dialled_must_be_who_answers(cluster: Cluster) -> None:
    """Two addresses were mixed up in a configuration."""
    cluster.ports[2], cluster.ports[3] = cluster.ports[3], cluster.ports[2]
    three = await cluster.start(3)
    cluster.ports[2], cluster.ports[3] = cluster.ports[3], cluster.ports[2]
    one = await cluster.start(1)
    await one.network._dial_once(2)
    await wait_for(lambda: not one.network._strangers and not three.network._strangers)
    assert one.ups == three.ups == 0


async def test_who_answers_as_another_is_refused(cluster: Cluster) -> None:
    """Also when that one does not mind."""
    one = await cluster.start(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stranger = Stranger(reader, writer)
        assert isinstance(await stranger.read_handshake(), Hello)
        stranger.write(encode_handshake(Member(3, cluster.ports).hello(1)))
        stranger.write(encode_handshake(Verdict(True, False, "")))
        verdicts.append(await stranger.read_handshake())
        writer.close()

    verdicts: list[Handshake] = []
    server = await asyncio.start_server(answer, HOST, cluster.ports[2])
    await one.network._dial_once(2)
    await wait_for(lambda: bool(verdicts))
    server.close()
    assert verdicts == [Verdict(False, False, "replica 3 answered instead of 2")]
    assert one.ups == 0


def garbage(size: int) -> bytes:
    return random.Random(7).randbytes(size)


FIRST_FRAMES = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": garbage(5000),
    "tls": bytes.fromhex("16030100a5010000a10303") + garbage(200),
    "an oversized length": LENGTH.pack(HELLO_BYTES_MAX + 1),
    "a huge length": b"\xff\xff\xff\xff",
    "an empty frame": LENGTH.pack(0),
    "no handshake": encode_frame(1, AppendEntries(1, 0, 9, ())),
    "a verdict first": encode_handshake(Verdict(True, False, "")),
    "msgpack of something else": LENGTH.pack(5) + msgspec.msgpack.encode("abcd"),
}


@pytest.mark.parametrize("name", FIRST_FRAMES)
async def test_a_wrong_first_frame_ends_the_connection(cluster: Cluster, name: str) -> None:
    one = await cluster.start(1)
    stranger = await Stranger.dial(one)
    stranger.write(FIRST_FRAMES[name])
    assert await stranger.is_closed(1.5), "without waiting for the handshake's time"
    assert one.ups == 0 and one.heard == []


async def test_nothing_is_read_of_an_oversized_first_frame(cluster: Cluster) -> None:
    one = await cluster.start(1)
    stranger = await Stranger.dial(one)
    stranger.write(LENGTH.pack(1 << 30) + b"x" * 1000)
    assert await stranger.is_closed(1.5)


@pytest.mark.parametrize("said", ["nothing", "half a hello", "a hello and no verdict", "a drip"])
async def test_a_handshake_that_never_ends_is_ended(
    cluster: Cluster, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "HANDSHAKE_TIMEOUT_S", 0.15)
    one = await cluster.start(1)
    stranger = await Stranger.dial(one)
    hello = encode_handshake(Member(2, cluster.ports).hello(1))
    if said == "half a hello":
        stranger.write(hello[: len(hello) // 2])
    elif said == "a hello and no verdict":
        stranger.write(hello)
    elif said == "a drip":
        asyncio.get_running_loop().create_task(drip(stranger, hello))
    assert await stranger.is_closed(3.0)
    assert one.ups == 0


async def drip(stranger: Stranger, data: bytes) -> None:
    """Says something again and again and never gets anywhere."""
    for byte in data:
        if stranger.writer.is_closing():
            return
        stranger.write(bytes([byte]))
        await asyncio.sleep(0.02)


async def test_two_hellos_end_the_connection(cluster: Cluster) -> None:
    one = await cluster.start(1)
    stranger = await Stranger.dial(one)
    hello = encode_handshake(Member(2, cluster.ports).hello(1))
    stranger.write(hello + hello)
    assert await stranger.is_closed(1.5)
    assert one.ups == 0


async def test_strangers_are_bounded(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "STRANGERS_MAX", 3)
    one = await cluster.start(1)
    strangers = [await Stranger.dial(one) for _ in range(3)]
    await wait_for(lambda: len(one.network._strangers) == 3)
    fourth = await Stranger.dial(one)
    assert await fourth.is_closed(1.5)
    strangers[0].writer.close()
    await wait_for(lambda: len(one.network._strangers) == 2)
    member = await Stranger.dial(one)
    await member.shake(Member(2, cluster.ports).hello(1))
    await wait_for(lambda: 2 in one.linked)
    for stranger in [*strangers, member]:
        stranger.writer.close()


async def test_strangers_do_not_keep_a_member_from_dialling(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is for those that come; where oneself goes, one knows."""
    monkeypatch.setattr(transport_module, "STRANGERS_MAX", 3)
    one, two = await cluster.start(1), await cluster.start(2)
    strangers = [await Stranger.dial(one) for _ in range(3)]
    await wait_for(lambda: len(one.network._strangers) == 3)
    await one.network._dial_once(2)
    try:
        await wait_for(lambda: 2 in one.linked and 1 in two.linked, timeout=1.0)
    finally:
        for stranger in strangers:
            stranger.writer.close()


# ---------------------------------------------------------------------- members that misbehave


async def shaken(cluster: Cluster) -> tuple[Member, Stranger]:
    """Replica 1, linked with a raw connection that passed for replica 2."""
    one = await cluster.start(1)
    stranger = await Stranger.dial(one)
    await stranger.shake(Member(2, cluster.ports).hello(1))
    await wait_for(lambda: 2 in one.linked)
    return one, stranger


@pytest.mark.parametrize(
    "data",
    [
        LENGTH.pack(0),
        LENGTH.pack(3) + b"\xc1\xc1\xc1",
        LENGTH.pack(1 << 31),
        encode_handshake(Verdict(True, False, "")),
        LENGTH.pack(8) + msgspec.msgpack.encode((1, [99, 1, 2, 3, 4])),
        garbage(100_000),
    ],
    ids=["empty", "garbage", "oversized", "handshake", "unknown kind", "noise"],
)
async def test_a_broken_frame_costs_the_connection_only(cluster: Cluster, data: bytes) -> None:
    one, stranger = await shaken(cluster)
    stranger.write(encode_frame(1, Round(1, 0)) + data)
    assert await stranger.is_closed()
    await wait_for(lambda: not one.linked)
    assert one.heard == [(2, 1, Round(1, 0))], "what came before it was heard"
    again = await Stranger.dial(one)
    await again.shake(Member(2, cluster.ports).hello(1))
    await wait_for(lambda: 2 in one.linked)
    again.writer.close()


async def test_a_truncated_frame_is_heard_by_nobody(cluster: Cluster) -> None:
    one, stranger = await shaken(cluster)
    frame = encode_frame(1, AppendEntries(1, 0, 1, ((1, b"\x00" * 5000),)))
    stranger.write(frame[:-1])
    await stranger.writer.drain()
    stranger.writer.close()
    await wait_for(lambda: not one.linked)
    assert one.heard == []


async def test_a_frame_may_come_in_pieces_of_any_size(cluster: Cluster) -> None:
    one, stranger = await shaken(cluster)
    messages = [Round(n, n) for n in range(20)]
    data = b"".join(encode_frame(1, message) for message in messages)
    rng = random.Random(3)
    while data:
        size = rng.randint(1, 25)
        stranger.write(data[:size])
        data = data[size:]
        await asyncio.sleep(0)
    await wait_for(lambda: len(one.heard) == 20)
    assert [message for _, _, message in one.heard] == messages
    stranger.writer.close()


async def test_the_largest_frame_passes(cluster: Cluster) -> None:
    one, two = await cluster.pair()
    entry = b"\x00" + b"x" * (one.settings.append_bytes_max + one.settings.entry_bytes_max)
    one.say(2, AppendEntries(1, 0, 1, ((1, entry),)))
    await wait_for(lambda: bool(two.heard))
    assert two.heard[0][2] == AppendEntries(1, 0, 1, ((1, entry),))


async def test_a_message_against_the_rules_costs_the_connection(cluster: Cluster) -> None:
    one, stranger = await shaken(cluster)

    def refuse(message: Message) -> None:
        raise PeerProtocolError("entries of two terms")

    one.on_message = refuse
    stranger.write(encode_frame(1, Round(1, 0)) + encode_frame(1, Round(2, 0)))
    assert await stranger.is_closed()
    assert len(one.heard) == 1, "what follows on that connection is not heard"
    assert one.faults == []


async def test_nothing_is_heard_on_a_connection_that_was_closed_meanwhile(
    cluster: Cluster,
) -> None:
    one, stranger = await shaken(cluster)
    one.on_message = lambda message: one.network._links[2].close()
    stranger.write(encode_frame(1, Round(1)) + encode_frame(1, Round(2)))
    assert await stranger.is_closed()
    assert len(one.heard) == 1


async def test_a_bug_met_in_a_message_is_reported_upwards(cluster: Cluster) -> None:
    one, stranger = await shaken(cluster)

    def explode(message: Message) -> None:
        raise ZeroDivisionError("a bug")

    one.on_message = explode
    stranger.write(encode_frame(1, Round(1, 0)))
    await wait_for(lambda: bool(one.faults))
    assert isinstance(one.faults.pop(), ZeroDivisionError)
    stranger.writer.close()


async def test_a_peer_that_reads_nothing_is_given_up(cluster: Cluster) -> None:
    """Its frames must not pile up in memory."""
    one = await cluster.start(1, link_buffer_bytes_max=200_000)
    stranger = await Stranger.dial(one)
    await stranger.shake(Member(2, cluster.ports).hello(1))
    await wait_for(lambda: 2 in one.linked)
    frame = encode_frame(1, AppendEntries(1, 0, 1, ((1, b"\x00" * 100_000),)))
    for _ in range(1000):
        one.network.send(2, frame)
        one.network.flush()
        if not one.linked:
            break
        await asyncio.sleep(0)
    assert not one.linked
    stranger.writer.close()


async def test_a_silent_connection_is_given_up_and_a_quiet_one_pinged(cluster: Cluster) -> None:
    one, stranger = await shaken(cluster)
    now = one.network.clock.monotonic()
    one.network.check(now + PING_AFTER_S / 2, 4)
    one.network.check(now + PING_AFTER_S + 0.1, 4)
    assert decode_message(await stranger.read_body()) == (4, Ping())
    one.network.check(now + SILENT_AFTER_S - 0.1, 4)
    assert 2 in one.linked
    stranger.write(encode_frame(4, Ping()))
    link = one.network._links[2]
    heard_at = link.heard_at
    await wait_for(lambda: link.heard_at > heard_at)
    assert one.heard == [], "a ping is only a sign of life"
    one.network.check(link.heard_at + SILENT_AFTER_S + 0.1, 4)
    assert not one.linked
    assert await stranger.is_closed()


async def test_ones_own_stall_is_not_the_others_silence(cluster: Cluster) -> None:
    one, stranger = await shaken(cluster)
    later = one.network.clock.monotonic() + 60.0
    one.network.forgive_stall(later)
    one.network.check(later, 4)
    assert 2 in one.linked
    one.network.check(later + SILENT_AFTER_S, 4)
    assert not one.linked
    stranger.writer.close()
