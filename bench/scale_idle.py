"""S1: what many sessions cost that do nothing but stay alive.

Over ZooKeeper's protocol all of them are in this process: a connection each, dealt out over the
servers, and a ping every third of the timeout, spread evenly. Over gRPC Session streams they are in
a few processes (`scale_streams`). They are opened, then left alone for longer than the timeout, and
then the servers' CPU time is measured. In the end every session must be there: none has expired at
any server, none lost its connection, every ping was answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final, cast

from bench.scale_pipe import ANSWER_S_MAX, PING_XID, PipeError, within
from bench.scale_results import ScaleRun
from bench.scale_systems import ScaleSystem, zookeeper_endpoints
from bench.side_by_side_systems import cpu_seconds
from coordsvc.testing.zookeeper_records import OpCode, connect_request, request

TIMEOUT_MS: Final = 30_000
PINGS_PER_TIMEOUT: Final = 3
OPENINGS_PER_S: Final = 600
"""Below what one replica takes."""

TICK_S: Final = 0.02
CLOSE_S_MAX: Final = 120.0
PROCESSES: Final = 4

_PING: Final = request(PING_XID, OpCode.PING)
_CLOSE: Final = request(0, OpCode.CLOSE_SESSION)
_REPLY: Final = Struct(">iiqi")


@dataclass(frozen=True, slots=True)
class IdleOptions:
    sessions: int
    seconds: float
    settle_s: float = TIMEOUT_MS / 1000 + 5


class Sessions:
    """What all of them count together."""

    def __init__(self) -> None:
        self.opened = 0
        self.pings = 0
        self.pongs = 0
        self.closed = 0
        self.lost = 0
        self.why_lost = ""


class IdleSession(asyncio.Protocol):
    """A connection with a session. Replies are a few bytes: each comes in one piece."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._is_open = False
        self._is_closing = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(connect_request(timeout_ms=TIMEOUT_MS))

    def ping(self) -> None:
        self._sessions.pings += 1
        self.transport.write(_PING)

    def close(self) -> None:
        self._is_closing = True
        self.transport.write(_CLOSE)

    def data_received(self, data: bytes) -> None:
        sessions = self._sessions
        if not self._is_open:
            self._is_open = True
            timeout_ms, session_id = Struct(">8xiq").unpack_from(data)
            if session_id and timeout_ms == TIMEOUT_MS:
                sessions.opened += 1
            else:
                self._lose(f"(session, timeout) {(session_id, timeout_ms)}")
            return
        for at in range(0, len(data), _REPLY.size):
            length, xid, _, error = _REPLY.unpack_from(data, at)
            if length != _REPLY.size - 4 or error or xid != (0 if self._is_closing else PING_XID):
                # A pong may come before the answer to a close.
                if not (self._is_closing and xid == PING_XID):
                    self._lose(f"(length, xid, error) {(length, xid, error)}")
            elif xid == PING_XID:
                sessions.pongs += 1
            else:
                sessions.closed += 1
                self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_closing:
            self._lose(f"the connection was lost ({exc})")

    def _lose(self, why: str) -> None:
        self._sessions.lost += 1
        self._sessions.why_lost = self._sessions.why_lost or why


class ZooKeeperSessions:
    """Over ZooKeeper's protocol. `totals` is (opened, pings sent, pings answered, lost)."""

    def __init__(self, endpoints: Sequence[str], count: int) -> None:
        self._endpoints = endpoints
        self._count = count
        self.all: list[IdleSession] = []
        self._counts = Sessions()
        self._pinging: asyncio.Task[None] | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        self._pinging = asyncio.create_task(self._ping())
        began = time.perf_counter()
        for number in range(self._count):
            host, _, port = self._endpoints[number % len(self._endpoints)].rpartition(":")
            _, session = await loop.create_connection(
                lambda: IdleSession(self._counts), host, int(port)
            )
            self.all.append(session)
            await asyncio.sleep(max(0.0, began + number / OPENINGS_PER_S - time.perf_counter()))
        await _until(lambda: self._counts.opened == self._count or self._counts.lost > 0)

    async def _ping(self) -> None:
        """A slice of all at each tick, so that each comes around once in an interval."""
        ticks = round(TIMEOUT_MS / 1000 / PINGS_PER_TIMEOUT / TICK_S)
        began, tick = time.perf_counter(), 0
        while True:
            for session in self.all[tick % ticks :: ticks]:
                session.ping()
            tick += 1
            await asyncio.sleep(max(0.0, began + tick * TICK_S - time.perf_counter()))

    async def stop_pinging(self) -> None:
        """And wait for the answers."""
        assert self._pinging is not None
        self._pinging.cancel()
        counts = self._counts
        await _until(lambda: counts.pongs == counts.pings or counts.lost > 0)

    def check(self) -> None:
        counts = self._counts
        if counts.lost:
            raise PipeError(f"{counts.lost} sessions were lost; the first: {counts.why_lost}")
        if counts.opened != self._count:
            raise PipeError(f"{counts.opened} of {self._count} sessions were opened")

    async def pings(self) -> int:
        return self._counts.pings

    async def close(self) -> None:
        """PipeError: one of them was not there any more."""
        for session in self.all:
            session.close()
            await asyncio.sleep(0)
        counts = self._counts
        await _until(lambda: counts.closed == self._count or counts.lost > 0, CLOSE_S_MAX)
        self.check()

    async def kill(self) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        for session in self.all:
            session.transport.abort()


async def _until(condition: Callable[[], bool], seconds: float = ANSWER_S_MAX) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(TICK_S)

    await within(seconds, poll(), "what was expected of the sessions")


class StreamSessions:
    """Over gRPC Session streams: the same, done by several processes."""

    def __init__(self, endpoints: Sequence[str], count: int) -> None:
        self._endpoints = endpoints
        self._count = count
        self._processes: list[asyncio.subprocess.Process] = []

    async def open(self) -> None:
        for number in range(PROCESSES):
            share = len(range(number, self._count, PROCESSES))
            command = (sys.executable, "-m", "bench.scale_streams", str(share), str(TIMEOUT_MS))
            process = await asyncio.create_subprocess_exec(
                *(*command, str(OPENINGS_PER_S // PROCESSES), *self._endpoints),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            self._processes.append(process)
        seconds = ANSWER_S_MAX + 2 * self._count / OPENINGS_PER_S
        for process in self._processes:
            await self._answer(process, seconds)

    async def _answer(self, process: asyncio.subprocess.Process, seconds: float) -> dict[str, Any]:
        assert process.stdout is not None
        line = await within(seconds, process.stdout.readline(), "a line of the streams' process")
        if not line:
            raise PipeError("a process with streams has ended; its output tells why")
        answer: dict[str, Any] = json.loads(line)
        if answer["lost"]:
            raise PipeError(f"{answer['lost']} sessions were lost; the first: {answer['why']}")
        return answer

    async def _tell(self, word: str, seconds: float = ANSWER_S_MAX) -> list[dict[str, Any]]:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n".encode())
        return [await self._answer(process, seconds) for process in self._processes]

    async def stop_pinging(self) -> None:
        for answer in await self._tell("stop"):
            if answer["pings"] != answer["pongs"]:
                raise PipeError(f"pings were not answered: {answer}")

    def check(self) -> None:
        pass

    async def pings(self) -> int:
        return sum(answer["pings"] for answer in await self._tell("count"))

    async def close(self) -> None:
        closed = sum(each["closed"] for each in await self._tell("close", CLOSE_S_MAX))
        if closed != self._count:
            raise PipeError(f"{closed} of {self._count} sessions were there to be closed")

    async def kill(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def measure(
    system: ScaleSystem, options: IdleOptions, is_stream: bool, say: Callable[[str], None]
) -> ScaleRun:
    """One run. PipeError: a session was lost."""
    endpoints = list(zookeeper_endpoints(system).values())
    sessions: ZooKeeperSessions | StreamSessions = (
        StreamSessions(system.stream_endpoints(), options.sessions)
        if is_stream
        else ZooKeeperSessions(endpoints, options.sessions)
    )
    servers = list(system.pids())
    expired = {each: system.expired(each) for each in servers}
    try:
        await sessions.open()
        say(f"{options.sessions:,} sessions are open; they settle for {options.settle_s:g} s")
        await asyncio.sleep(options.settle_s)
        sessions.check()
        run = await _window(system, sessions, options.seconds)
        await sessions.stop_pinging()
        sessions.check()
        _check_servers(system, expired, options.sessions)
        await sessions.close()
    finally:
        await sessions.kill()
    return run


async def _window(
    system: ScaleSystem, sessions: ZooKeeperSessions | StreamSessions, seconds: float
) -> ScaleRun:
    pids = system.pids()
    pings, before, began = await sessions.pings(), cpu_seconds(pids), time.perf_counter()
    await asyncio.sleep(seconds)
    after, ended = cpu_seconds(pids), time.perf_counter()
    pings = await sessions.pings() - pings
    percent = {each: 100 * (after[each] - before[each]) / (ended - began) for each in pids}
    return ScaleRun(
        system=system.name,
        value=sum(percent.values()),
        details={
            "% of a core, the busiest server": max(percent.values()),
            "pings a second": pings / (ended - began),
            "us of CPU a ping, all servers": 1e4 * sum(percent.values()) * (ended - began) / pings,
            "false expiries": 0,
        },
    )


def _check_servers(system: ScaleSystem, expired: dict[int, int], sessions: int) -> None:
    """PipeError: a server does not have all sessions, or saw one expire."""
    for server, before in expired.items():
        now, there = system.expired(server), system.sessions(server)
        if now != before or there < sessions:
            raise PipeError(
                f"server {server}: {there} of {sessions} sessions, {now - before} expired"
            )
