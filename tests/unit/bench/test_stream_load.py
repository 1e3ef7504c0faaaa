"""The generator of load on Session streams, against replicas that can be told to do wrong.

Goal: a figure is reported only when everything that was acknowledged is there. Method: replicas of
a few lines behind real streams and the real client, with one fault at a time; and a real replica.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

# Before grpc is loaded: no remarks about the connections that these tests cut.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from bench.generator import LoadError
from bench.load import GET, LINEARIZABLE_GET, MEASURED, MEASURING, PERCENTS, SET, Load, Outcome
from bench.stream_load import StreamGenerator
from coordsvc.errors import BadArgumentsError, ErrorCode
from coordsvc.testing.local_servers import LocalServers
from coordsvc.v1 import common_pb2, coordination_pb2
from tests.unit.client.fake_replica import FakeReplica, FakeStream, Item, refusal, reply

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
        self.replica = FakeReplica()
        self.znodes = znodes
        self.zxid = 10
        self.sets = 0
        self.linearizable_gets = 0
        self.fault = ""
        self.fault_at = 20
        """The set that the fault is about."""
        self.hold = 1
        """Replies leave when so many sets are there."""
        self.in_flight_most = 0
        self.reply_delay_s = 0.0

    async def accept(self) -> None:
        async with asyncio.TaskGroup() as serving:
            while True:
                serving.create_task(self._serve(await self.replica.accept()))

    async def _serve(self, stream: FakeStream) -> None:
        await stream.welcome()
        held: list[Item] = []
        while not stream.is_broken.is_set():
            for operation in (await _next(stream)).operations:
                if operation.HasField("close_session"):
                    stream.send(reply(operation))
                    stream.end(None)
                    return
                if operation.HasField("set_data"):
                    held.append(self._set(operation))
                    if self.fault == "gone" and self.sets >= self.fault_at:
                        self.fault = ""
                        stream.end(grpc.StatusCode.UNAVAILABLE)
                        return
                else:
                    stream.send(self._answer(operation))
            self.in_flight_most = max(self.in_flight_most, len(held))
            if held and len(held) >= self.hold:
                # Whoever sends more than it may does it now.
                await asyncio.sleep(self.reply_delay_s)
                more = [each for frame in _waiting(stream) for each in frame.operations]
                self.in_flight_most = max(self.in_flight_most, len(held) + len(more))
                stream.send(*held)
                held.clear()

    def _answer(self, operation: coordination_pb2.SessionOperation) -> Item:
        if operation.HasField("create"):
            self.znodes[operation.create.path] = Znode(operation.create.data)
        if not operation.HasField("get_data"):
            return reply(operation, self.zxid)
        self.linearizable_gets += (
            operation.get_data.consistency == common_pb2.READ_CONSISTENCY_LINEARIZABLE
        )
        found = self.znodes[operation.get_data.path]
        data = b"?" * len(found.data) if self.fault == "other data" else found.data
        version = found.version + (self.fault == "counts otherwise")
        stat = common_pb2.Stat(version=version, mzxid=self.zxid)
        answer = coordination_pb2.GetDataResponse(data=data, stat=stat)
        return reply(operation, self.zxid, get_data=answer)

    def _set(self, operation: coordination_pb2.SessionOperation) -> Item:
        znode = self.znodes[operation.set_data.path]
        self.sets += 1
        self.zxid += 1
        fault = self.fault if self.fault_at in (self.sets, EVERY) else ""
        if fault == "error":
            return refusal(operation, ErrorCode.BAD_ARGUMENTS, zxid=self.zxid)
        znode.version += {"lost": 0, "twice": 2}.get(fault, 1)
        if fault != "forgotten":
            znode.data = operation.set_data.data
        zxid = 1 if fault == "zxid runs back" else self.zxid
        stat = common_pb2.Stat(version=znode.version, mzxid=zxid)
        return reply(operation, zxid, set_data=coordination_pb2.SetDataResponse(stat=stat))


async def _next(stream: FakeStream) -> coordination_pb2.SessionRequest:
    """Empty when the client has gone."""
    getting = asyncio.create_task(stream.frames.get())
    gone = asyncio.create_task(stream.is_broken.wait())
    await asyncio.wait((getting, gone), return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if getting.done():
        frame: coordination_pb2.SessionRequest = getting.result()
        return frame
    getting.cancel()
    return coordination_pb2.SessionRequest()


def _waiting(stream: FakeStream) -> list[coordination_pb2.SessionRequest]:
    return list(stream.frames._queue)  # type: ignore[attr-defined]


@asynccontextmanager
async def ensemble(count: int = 2) -> AsyncIterator[list[Server]]:
    znodes: dict[str, Znode] = {}
    servers = [Server(znodes) for _ in range(count)]
    accepting = [asyncio.create_task(server.accept()) for server in servers]
    for server in servers:
        await server.replica.start()
    try:
        yield servers
    finally:
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        for server in servers:
            await server.replica.stop()


def load_for(endpoints: list[str], operation: str = SET) -> Load:
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


def load_on(servers: list[Server], operation: str = SET) -> Load:
    return load_for([server.replica.endpoint for server in servers], operation)


async def generate(load: Load) -> Outcome:
    said: list[str] = []
    outcome = await StreamGenerator(load, said.append).run()
    assert said == [MEASURING, MEASURED]
    return outcome


# ------------------------------------------------------------------------------------------ loads


async def test_what_was_acknowledged_is_what_the_servers_have() -> None:
    async with ensemble() as servers:
        outcome = await generate(load_on(servers))
        versions = [znode.version for znode in servers[0].znodes.values()]
        assert len(versions) == 3 and min(versions) > 0
        assert outcome.total == sum(versions) == sum(server.sets for server in servers)
        # All were compared, at both.
        assert outcome.verified == 6


async def test_only_what_came_in_the_time_measured_is_counted() -> None:
    async with ensemble() as servers:
        outcome = await generate(load_on(servers))
        assert 0 < outcome.operations < outcome.total
        assert 0 < outcome.messages <= outcome.operations
        assert len(outcome.latencies_s) == len(PERCENTS)
        assert 0 < outcome.latency_s(50.0) <= outcome.latency_s(99.0) <= outcome.latencies_s[-1]
        assert 0 < outcome.generator_cpu_s


async def test_a_real_replica_has_what_it_acknowledged(tmp_path: Path) -> None:
    async with LocalServers(str(tmp_path), 1) as servers:
        load = load_for([servers.servers[1].endpoint])
        assert (await generate(replace(load, reads=0.5))).total > 0
        assert (await generate(replace(load, path="/read", operation=GET))).total > 0


async def test_a_closed_loop_has_as_many_in_flight_as_asked_for_and_no_more() -> None:
    """A server that answers only when it has so many gets them; and never one more."""
    async with ensemble(1) as servers:
        servers[0].hold, servers[0].reply_delay_s = 4, 0.01
        outcome = await generate(replace(load_on(servers), connections=1))
        assert outcome.total > 8
        assert servers[0].in_flight_most == 4
        assert outcome.operations == 4 * outcome.messages


async def test_gets_are_compared() -> None:
    async with ensemble() as servers:
        outcome = await generate(load_on(servers, GET))
        assert outcome.verified == outcome.total + 6
        assert not any(server.sets or server.linearizable_gets for server in servers)


async def test_linearizable_gets_are_asked_for_as_such() -> None:
    async with ensemble() as servers:
        outcome = await generate(load_on(servers, LINEARIZABLE_GET))
        assert sum(server.linearizable_gets for server in servers) == outcome.total


async def test_of_a_mix_the_gets_find_what_the_sets_wrote() -> None:
    async with ensemble() as servers:
        outcome = await generate(replace(load_on(servers), reads=0.25))
        sets = sum(server.sets for server in servers)
        assert sets == sum(znode.version for znode in servers[0].znodes.values())
        assert outcome.total - sets == outcome.verified - 6
        assert abs(sets - 0.75 * outcome.total) <= 3


async def test_gets_of_other_data_end_it() -> None:
    async with ensemble() as servers:
        servers[1].fault = "other data"
        with pytest.raises(LoadError, match="was read; not"):
            await generate(load_on(servers, GET))


@pytest.mark.parametrize(
    ("fault", "message"),
    [("lost", "not version"), ("twice", "not version"), ("zxid runs back", "zxid 1 of")],
)
async def test_a_reply_that_is_wrong_ends_it(fault: str, message: str) -> None:
    async with ensemble() as servers:
        servers[0].fault = fault
        with pytest.raises(LoadError, match=message):
            await generate(load_on(servers))


async def test_an_error_ends_it() -> None:
    async with ensemble() as servers:
        servers[0].fault = "error"
        with pytest.raises(BadArgumentsError):
            await generate(load_on(servers))


async def test_a_server_that_lacks_what_another_acknowledged_ends_it() -> None:
    """Every server is asked for every znode."""
    async with ensemble(3) as servers:
        servers[2].znodes = {f"/load-{number}": Znode(b"x", version=1) for number in range(3)}
        load = replace(load_on(servers), endpoints=[servers[0].replica.endpoint])
        with pytest.raises(LoadError, match="acknowledged were"):
            await generate(load)


async def test_the_last_value_counts_too() -> None:
    """A version that is right does not make up for data that was not written."""
    async with ensemble(1) as servers:
        servers[0].fault, servers[0].fault_at = "forgotten", EVERY
        with pytest.raises(LoadError, match="acknowledged were"):
            await generate(load_on(servers))


async def test_the_version_counts_too() -> None:
    """Nor the right data for a set too many."""
    async with ensemble() as servers:
        servers[1].fault = "counts otherwise"
        with pytest.raises(LoadError, match="acknowledged were"):
            await generate(load_on(servers))


async def test_a_session_that_is_suspended_ends_it() -> None:
    """Its client would go on as if nothing had been, and the figure would hide it."""
    async with ensemble(1) as servers:
        servers[0].fault = "gone"
        with pytest.raises(LoadError, match="session is suspended"):
            await generate(load_on(servers))


# ------------------------------------------------------------------------------------ with a rate


async def test_with_a_rate_so_many_are_begun_whatever_the_answers_take() -> None:
    async with ensemble() as servers:
        load = replace(load_on(servers), rate=200.0, in_flight=64, seconds=0.5)
        outcome = await generate(load)
        assert 50 <= outcome.operations <= 140
        assert outcome.late == 0


async def test_with_a_rate_what_cannot_leave_is_counted_from_when_it_was_due() -> None:
    """One connection, one under way, 20 ms each: 50 a second at most, and 500 are asked for."""
    async with ensemble(1) as servers:
        servers[0].reply_delay_s = 0.02
        load = replace(
            load_on(servers), connections=1, in_flight=1, rate=500.0, ramp_s=0.1, seconds=0.4
        )
        outcome = await generate(load)
        assert outcome.late > 100
        assert outcome.latency_s(100.0) > 0.2
        assert outcome.total == servers[0].sets
