"""The load generator against a server of a few lines, which can be told to do wrong.

Goal: a figure is reported only when everything that was acknowledged is there. Method: a server
that answers as ZooKeeper does, in this process, with one fault at a time.
"""

from __future__ import annotations

import asyncio
import struct
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from bench.load import GET, MEASURED, MEASURING, PERCENTS, SET, Load, Outcome, percentiles
from bench.zookeeper_load import ZooKeeperGenerator
from bench.zookeeper_wire import (
    MixedReplies,
    Replies,
    Requests,
    WireError,
    connect_request,
    get_replies,
    set_replies,
)
from coordsvc.server.zookeeper.handshake import ConnectRequest, decode_connect

EVERY = 0
"""As `fault_at`: it is about all of them."""


@dataclass
class Znode:
    data: bytes
    version: int = 0


class Server:
    """One of an ensemble that shares `znodes`. A tree of its own, or replies of another kind, are
    the faults."""

    def __init__(self, znodes: dict[str, Znode]) -> None:
        self.znodes = znodes
        self.zxid = 0
        self.sets = 0
        self.fault = ""
        self.fault_at = 20
        """The set that the fault is about."""
        self.hold = 1
        """Replies leave when so many are there."""
        self.held_most = 0
        self.reply_delay_s = 0.0
        self.endpoint = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._packet(reader)
            writer.write(struct.pack(">iiiqi16s?", 37, 0, 30_000, 7, 16, b"", False))
            held: list[bytes] = []
            while True:
                packet = await self._packet(reader)
                xid, kind = struct.unpack_from(">ii", packet)
                reply = self._answer(xid, kind, packet[8:])
                if kind != 5 or self.hold == 1:
                    await asyncio.sleep(self.reply_delay_s if kind == 5 else 0)
                    writer.write(reply)
                    if kind == -11:
                        return
                    continue
                held.append(reply)
                if len(held) >= self.hold:
                    # Whoever sends more than it may does it now.
                    await asyncio.sleep(0.01)
                    buffered = len(reader._buffer)  # type: ignore[attr-defined]
                    self.held_most = max(self.held_most, len(held) + buffered // len(packet))
                    writer.write(b"".join(held))
                    held.clear()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # The client is done.
        finally:
            writer.close()

    async def _packet(self, reader: asyncio.StreamReader) -> bytes:
        (length,) = struct.unpack(">i", await reader.readexactly(4))
        return await reader.readexactly(length)

    def _answer(self, xid: int, kind: int, body: bytes) -> bytes:
        if kind in (9, -11):  # sync, closeSession
            return _reply(xid, self.zxid)
        (size,) = struct.unpack_from(">i", body)
        path, rest = body[4 : 4 + size].decode(), body[4 + size :]
        if kind == 1:
            (size,) = struct.unpack_from(">i", rest)
            self.znodes[path] = Znode(rest[4 : 4 + size])
            return _reply(xid, self.zxid)
        if kind == 4:
            found = self.znodes[path]
            data = b"?" * len(found.data) if self.fault == "other data" else found.data
            more = self.fault == "counts otherwise"
            return _reply(xid, self.zxid, _buffer(data) + _stat(found.version + more))
        assert kind == 5, kind
        return self._set(xid, path, rest)

    def _set(self, xid: int, path: str, rest: bytes) -> bytes:
        (size,) = struct.unpack_from(">i", rest)
        znode = self.znodes[path]
        self.sets += 1
        self.zxid += 1
        fault = self.fault if self.fault_at in (self.sets, EVERY) else ""
        if fault == "gone":
            raise ConnectionAbortedError
        if fault == "error":
            return _reply(xid, self.zxid, error=-4)
        znode.version += {"lost": 0, "twice": 2}.get(fault, 1)
        if fault != "forgotten":
            znode.data = rest[4 : 4 + size]
        if fault == "other xid":
            xid += 1
        zxid = 1 if fault == "zxid runs back" else self.zxid
        return _reply(xid, zxid, _stat(znode.version))


def _buffer(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def _stat(version: int) -> bytes:
    return struct.pack(">qqqqiiiqiiq", 1, 2, 3, 4, version, 0, 0, 0, 100, 0, 1)


def _reply(xid: int, zxid: int, body: bytes = b"", error: int = 0) -> bytes:
    packet = struct.pack(">iqi", xid, zxid, error) + (b"" if error else body)
    return _buffer(packet)


@asynccontextmanager
async def ensemble(count: int = 2) -> AsyncIterator[list[Server]]:
    znodes: dict[str, Znode] = {}
    servers = [Server(znodes) for _ in range(count)]
    listeners = []
    for server in servers:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        listeners.append(listener)
        server.endpoint = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield servers
    finally:
        for listener in listeners:
            listener.close()


def load_for(servers: list[Server], operation: str = SET) -> Load:
    endpoints = [server.endpoint for server in servers]
    return Load(
        endpoints=endpoints,
        all_endpoints=endpoints,
        path="/load",
        operation=operation,
        connections=3,
        in_flight=4,
        data_bytes=100,
        ramp_s=0.05,
        seconds=0.2,
    )


async def generate(load: Load) -> Outcome:
    said: list[str] = []
    outcome = await ZooKeeperGenerator(load, said.append).run()
    assert said == [MEASURING, MEASURED]
    return outcome


# ------------------------------------------------------------------------------------------ loads


async def test_what_was_acknowledged_is_what_the_servers_have() -> None:
    async with ensemble() as servers:
        outcome = await generate(load_for(servers))
        versions = [znode.version for znode in servers[0].znodes.values()]
        assert len(versions) == 3 and min(versions) > 0
        assert outcome.total == sum(versions) == sum(server.sets for server in servers)
        # All were compared, at both.
        assert outcome.verified == 6


async def test_only_what_came_in_the_time_measured_is_counted() -> None:
    async with ensemble() as servers:
        outcome = await generate(load_for(servers))
        assert 0 < outcome.operations < outcome.total
        assert outcome.seconds == pytest.approx(0.2, abs=0.15)
        assert len(outcome.latencies_s) == len(PERCENTS)
        assert 0 < outcome.latency_s(50.0) <= outcome.latency_s(99.0) <= outcome.latencies_s[-1]
        assert 0 < outcome.generator_cpu_s


async def test_a_closed_loop_has_as_many_in_flight_as_asked_for_and_no_more() -> None:
    """A server that answers only when it has so many gets them; and never one more."""
    async with ensemble(1) as servers:
        servers[0].hold = 4
        outcome = await generate(replace(load_for(servers), connections=1))
        assert outcome.total > 8
        assert servers[0].held_most == 4


async def test_gets_are_compared() -> None:
    async with ensemble() as servers:
        outcome = await generate(load_for(servers, GET))
        assert outcome.total > 0
        assert outcome.verified > 6
        assert all(server.sets == 0 for server in servers)


async def test_gets_of_other_data_end_it() -> None:
    async with ensemble() as servers:
        servers[1].fault = "other data"
        with pytest.raises(WireError, match="was read, not"):
            await generate(load_for(servers, GET))


@pytest.mark.parametrize("reads", [0.5, 0.99])
async def test_of_a_mixed_load_every_get_finds_what_was_set_before_it(reads: float) -> None:
    async with ensemble() as servers:
        outcome = await generate(replace(load_for(servers), reads=reads))
        sets = sum(server.sets for server in servers)
        assert sets == sum(znode.version for znode in servers[0].znodes.values())
        # Exactly, but for the requests of a round that was not ended, on 3 connections.
        assert abs(outcome.total * (1 - reads) - sets) <= 3
        assert outcome.verified > 6
        assert 0 < outcome.messages <= outcome.operations


@pytest.mark.parametrize(
    ("fault", "message"),
    [("other data", "was read, not"), ("counts otherwise", "version"), ("lost", "version")],
)
async def test_a_wrong_reply_in_a_mixed_load_ends_it(fault: str, message: str) -> None:
    async with ensemble() as servers:
        servers[0].fault = fault
        with pytest.raises(WireError, match=message):
            await generate(replace(load_for(servers), reads=0.5))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("error", r"error\) \(16, .* -4\)"),
        ("lost", "version"),
        ("twice", "version"),
        ("other xid", "xid"),
        ("zxid runs back", "zxid"),
    ],
)
async def test_a_reply_that_is_wrong_ends_it(fault: str, message: str) -> None:
    async with ensemble() as servers:
        servers[0].fault = fault
        with pytest.raises(WireError, match=message):
            await generate(load_for(servers))


async def test_an_error_is_noticed_when_nothing_follows_it() -> None:
    """It is shorter than what the generator waits for."""
    async with ensemble(1) as servers:
        servers[0].fault, servers[0].fault_at = "error", 5
        with pytest.raises(WireError, match=r"-4\)"):
            await generate(replace(load_for(servers), connections=1, in_flight=1))


async def test_a_server_that_lacks_what_another_acknowledged_ends_it() -> None:
    """Every server is asked for every znode."""
    async with ensemble(3) as servers:
        load = load_for(servers[:1])
        stale = {f"/load-{number}": Znode(b"x", version=1) for number in range(3)}
        servers[2].znodes = stale
        with pytest.raises(WireError, match="acknowledged were"):
            await generate(replace(load, all_endpoints=[each.endpoint for each in servers]))


async def test_the_last_value_counts_too() -> None:
    """A version that is right does not make up for data that was not written."""
    async with ensemble(1) as servers:
        servers[0].fault, servers[0].fault_at = "forgotten", EVERY
        with pytest.raises(WireError, match="acknowledged were"):
            await generate(load_for(servers))


async def test_the_version_counts_too() -> None:
    """Nor the right data for a set too many."""
    async with ensemble() as servers:
        servers[1].fault = "counts otherwise"
        with pytest.raises(WireError, match="acknowledged were"):
            await generate(load_for(servers))


async def test_a_server_that_goes_away_ends_it() -> None:
    async with ensemble(1) as servers:
        servers[0].fault = "gone"
        with pytest.raises(WireError, match="connection was lost"):
            await generate(load_for(servers))


# ------------------------------------------------------------------------------------ with a rate


async def test_with_a_rate_so_many_are_begun_whatever_the_answers_take() -> None:
    async with ensemble() as servers:
        load = replace(load_for(servers), rate=200.0, in_flight=64, seconds=0.5)
        outcome = await generate(load)
        assert 60 <= outcome.operations <= 130
        assert outcome.late == 0


async def test_with_a_rate_what_cannot_leave_is_counted_from_when_it_was_due() -> None:
    """One connection, one under way, 20 ms each: 50 a second at most, and 500 are asked for."""
    async with ensemble(1) as servers:
        servers[0].reply_delay_s = 0.02
        load = replace(
            load_for(servers), connections=1, in_flight=1, rate=500.0, ramp_s=0.1, seconds=0.4
        )
        outcome = await generate(load)
        assert outcome.late > 100
        assert outcome.latency_s(100.0) > 0.2
        assert outcome.total == servers[0].sets


# ----------------------------------------------------------------------------------------- pieces


def test_the_connect_request_is_one() -> None:
    packet = connect_request(30_000)
    assert int.from_bytes(packet[:4], "big") == len(packet) - 4
    assert decode_connect(packet[4:]) == ConnectRequest(0, 30_000, 0, bytes(16), True)


def test_requests_go_round() -> None:
    """Slices that pass the end of the ring go on with its first."""
    requests = Requests("/a", reads=0, in_flight=4, data_bytes=20)
    count = 3
    assert requests.size % count, "no slice would pass the end"
    size = len(requests.slice(0, 1))
    assert size == 4 + 8 + 4 + 2 + 4 + 20 + 4
    xids = []
    for first in range(0, count * requests.size, count):
        some = bytes(requests.slice(first, count))
        assert len(some) == count * size
        for number in range(count):
            packet = some[number * size : (number + 1) * size]
            length, xid, kind = struct.unpack_from(">iii", packet)
            assert (length, kind) == (size - 4, 5)
            assert requests.data(first + number) in packet
            xids.append(xid)
    assert xids == count * list(range(1, requests.size + 1))


def test_replies_have_the_length_of_what_is_answered() -> None:
    stat = _stat(3)
    assert set_replies().unpack(_reply(1, 2, stat)) == (84, 1, 2, 0, 3)
    found = _reply(1, 2, _buffer(bytes(100)) + stat)
    assert get_replies(100).unpack(found) == (188, 1, 2, 0, 3)


def test_replies_may_come_in_any_number_of_pieces() -> None:
    requests = Requests("/a", reads=0, in_flight=2, data_bytes=20)
    replies = Replies(requests)
    some = [_reply(number, number, _stat(number)) for number in range(1, 6)]
    replies.take(memoryview(some[0]))
    replies.take(memoryview(b"".join(some[1:4])))
    replies.check_begun(some[4][:7])
    replies.take(memoryview(some[4]))
    with pytest.raises(WireError):
        replies.take(memoryview(some[4]))


def test_replies_to_sets_and_gets_may_come_in_any_number_of_pieces() -> None:
    """Every cut of a stream of them is found at the same places, over more than one round."""
    requests = Requests("/a", reads=0.75, in_flight=2, data_bytes=20)
    stream, lengths = b"", []
    for number in range(2 * requests.size + 7):
        stat = _stat(requests.sets(number + 1))
        got = (
            b"" if requests.is_set[number % requests.size] else _buffer(requests.data_after(number))
        )
        reply = _reply(number % requests.size + 1, number, got + stat)
        lengths.append(len(reply))
        stream += reply
    assert len(set(lengths)) == 2
    for piece in (1, 83, 1000, 10_000):
        replies, rest, count = MixedReplies(requests), b"", 0
        for at in range(0, len(stream), piece):
            rest += stream[at : at + piece]
            some, size = replies.whole(len(rest))
            if some:
                replies.take(memoryview(rest)[:size])
                count, rest = count + some, rest[size:]
            assert replies.whole(len(rest)) == (0, 0), "some were left"
            replies.check_begun(rest)
        assert (count, rest) == (len(lengths), b"")


@pytest.mark.parametrize(("reads", "sets"), [(0.0, 200), (0.5, 100), (0.9, 20), (0.99, 2)])
def test_the_share_of_gets_is_exact(reads: float, sets: int) -> None:
    requests = Requests("/a", reads=reads, in_flight=64, data_bytes=20)
    assert requests.sets(200) == sets
    assert requests.sets(300) == requests.sets(100) * 3


def test_what_is_there_after_some_requests_is_what_the_last_set_wrote() -> None:
    requests = Requests("/a", reads=0.5, in_flight=4, data_bytes=20)
    assert requests.is_set[:4] == [True, False, True, False]
    assert requests.data_after(0) == requests.first_data
    assert requests.data_after(1) == requests.data_after(2) == requests.data(0)
    assert requests.data_after(3) == requests.data(2)
    gets = Requests("/a", reads=1, in_flight=4, data_bytes=20)
    assert gets.data_after(10) == gets.first_data


@pytest.mark.parametrize(
    "wrong",
    [
        struct.pack(">iiqi", 83, 2, 2, 0) + _stat(2),
        struct.pack(">iiqi", 84, 3, 2, 0) + _stat(2),
        struct.pack(">iiqi", 84, 2, 0, 0) + _stat(2),
        struct.pack(">iiqi", 84, 2, 2, -4) + _stat(2),
        struct.pack(">iiqi", 84, 2, 2, 0) + _stat(3),
    ],
    ids=["length", "xid", "zxid", "error", "version"],
)
def test_each_field_of_a_reply_counts(wrong: bytes) -> None:
    requests = Requests("/a", reads=0, in_flight=2, data_bytes=20)
    right = _reply(1, 1, _stat(1)), _reply(2, 2, _stat(2))
    Replies(requests).take(memoryview(b"".join(right)))
    with pytest.raises(WireError):
        Replies(requests).take(memoryview(right[0] + wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        struct.pack(">iiqi", 107, 2, 1, 0),
        struct.pack(">iiqi", 108, 3, 1, 0),
        struct.pack(">iiqi", 108, 2, 0, 0),
        struct.pack(">iiqi", 108, 2, 1, -4),
        b"",
    ],
    ids=["length", "xid", "zxid", "error", "version"],
)
def test_each_field_of_a_reply_to_a_mixed_load_counts(wrong: bytes) -> None:
    """Of the get behind the first set, which finds version 1 and what that set wrote."""
    requests = Requests("/a", reads=0.5, in_flight=2, data_bytes=20)
    first, data = _reply(1, 1, _stat(1)), _buffer(requests.data(0))
    right = _reply(2, 1, data + _stat(1))
    assert len(right) == 4 + 108
    MixedReplies(requests).take(memoryview(first + right))
    other = wrong + right[len(wrong) :] if wrong else _reply(2, 1, data + _stat(2))
    with pytest.raises(WireError):
        MixedReplies(requests).take(memoryview(first + other))


def test_percentiles_are_samples() -> None:
    samples = array("d", [float(each) for each in range(1000, 0, -1)])
    assert percentiles(samples) == [10, 100, 250, 500, 750, 900, 950, 990, 999, 1000]


async def test_the_cost_of_a_request_stays_small() -> None:
    """Far from what is measured: a thousand replies are taken in well under 50 ms."""
    requests = Requests("/a", reads=0, in_flight=64, data_bytes=100)
    replies = Replies(requests)
    some = [
        _reply((number - 1) % requests.size + 1, number, _stat(number)) for number in range(1, 1001)
    ]
    block = memoryview(b"".join(some))
    began = time.process_time()
    replies.take(block)
    assert time.process_time() - began < 0.05
