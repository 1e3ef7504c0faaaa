"""Load over Session streams, with the Python client: what a program that uses it would get.

    .venv/bin/python -m bench.stream_load < LOAD.json

See `load` for what goes in and comes out. Each connection is a `coordsvc.Client`, attached to one
server, whose `nowait` operations are submitted in a closed loop: as many as were answered in one
frame. Replies come in the order of the requests, so only the oldest future is waited for, and those
behind it are looked at with it. Every reply is compared: the version counts every set once, zxids
never run back, a get finds the data of the last set before it. A session that is suspended even for
a moment ends it.

Afterwards every znode is read at every server: its version is the number of sets that were
acknowledged, its data the last of them.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import msgspec
import uvloop

from bench.generator import Generator, LoadError, Meter
from bench.load import LINEARIZABLE_GET, SET, Load, Outcome
from coordsvc.client.client import Client
from coordsvc.client.records import Data, SessionState, Stat
from coordsvc.errors import CoordError, NodeExistsError

SESSION_TIMEOUT_MS: Final = 30_000
RING_MIN: Final = 64
MIX: Final = 100
"""Among so many requests the share of gets is exact."""


class Session:
    """One client, and the requests it has under way. `ended` as for a Driver."""

    def __init__(self, load: Load, number: int, meter: Meter) -> None:
        self.path = f"{load.path}-{number}"
        self.first_data = f"{self.path} first".encode().rjust(load.data_bytes, b".")
        endpoint = load.endpoints[number % len(load.endpoints)]
        self.client = Client([endpoint], session_timeout_ms=SESSION_TIMEOUT_MS)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.acked = 0
        self.sets = 0
        """Of what was acknowledged."""
        self.last_data = self.first_data
        """What the last of them has written."""
        self.sent = 0
        self.verified = 0
        self.messages = 0
        """Pieces in which replies came while it was measured."""
        self._meter = meter
        self._in_flight = load.in_flight
        self._is_open_loop = load.rate > 0
        self._is_linearizable = load.operation == LINEARIZABLE_GET
        self._is_set = _sets_among(load.reads if load.operation == SET else 1.0)
        self._ring = _values(self.path, max(RING_MIN, load.in_flight), load.data_bytes)
        self._zxid = 0
        self._waiting: deque[asyncio.Future[Any]] = deque()
        """Oldest first."""
        self._since: deque[tuple[float, int]] = deque()
        """(when, how many) of what waits."""
        self._due: deque[float] = deque()
        """With a rate: what could not leave when it was due."""

    async def start(self) -> None:
        await self.client.start()
        self.client.add_listener(self._on_state)

    async def close(self) -> None:
        self.client.remove_listener(self._on_state)
        for future in self._waiting:
            future.cancel()
        await self.client.close()

    def _on_state(self, state: SessionState) -> None:
        self._fail(LoadError(f"{self.path}: the session is {state.value} ({self.client.failure})"))

    def _fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)

    # --------------------------------------------------------------------------------- requests

    def begin(self) -> None:
        self._send(self._in_flight, time.perf_counter())

    def send_due(self, since: float) -> None:
        if len(self._waiting) < self._in_flight:
            self._send(1, since)
        else:
            self._due.append(since)
            self._meter.late += self._meter.is_measuring

    def _send(self, count: int, since: float) -> None:
        waiting, path, ring, is_set = self._waiting, self.path, self._ring, self._is_set
        is_first = not waiting
        nowait = self.client.nowait
        try:
            for number in range(self.sent, self.sent + count):
                future: asyncio.Future[Any]
                if is_set[number % MIX]:
                    future = nowait.set_data(path, ring[number % len(ring)])
                else:
                    future = nowait.get_data(path, linearizable=self._is_linearizable)
                waiting.append(future)
        except CoordError as error:
            self._fail(error)
            return
        self.sent += count
        self._since.append((since, count))
        if is_first:
            waiting[0].add_done_callback(self._answered)

    # ---------------------------------------------------------------------------------- replies

    def _answered(self, _: object) -> None:
        """The oldest is done, and everything that came with it."""
        try:
            count = self._take()
        except (CoordError, LoadError) as error:
            self._fail(error)
            return
        now = time.perf_counter()
        self.messages += self._meter.is_measuring
        self._meter.acked += count
        self._take_since(count, now)
        if self._waiting:
            self._waiting[0].add_done_callback(self._answered)
        if self._is_open_loop:
            while self._due and len(self._waiting) < self._in_flight:
                self._send(1, self._due.popleft())
        elif not self._meter.is_stopping:
            self._send(count, now)
        self._end_if_done()

    def _take(self) -> int:
        waiting, before, is_set = self._waiting, self.acked, self._is_set
        while waiting and waiting[0].done():
            answer = waiting.popleft().result()
            if is_set[self.acked % MIX]:
                self._take_set(answer)
            else:
                self._take_get(answer)
            self.acked += 1
        return self.acked - before

    def _take_set(self, stat: Stat) -> None:
        self.sets += 1
        self.last_data = self._ring[self.acked % len(self._ring)]
        if stat.version != self.sets or stat.mzxid <= self._zxid:
            raise LoadError(
                f"{self.path}: version {stat.version}, zxid {stat.mzxid} of a set; not version "
                f"{self.sets}, zxid above {self._zxid}"
            )
        self._zxid = stat.mzxid

    def _take_get(self, found: Data) -> None:
        wanted = self.last_data, self.sets
        if (found.data, found.stat.version) != wanted or found.zxid < self._zxid:
            raise LoadError(
                f"{self.path}: {found} was read; not version {self.sets}, zxid from {self._zxid}, "
                f"{self.last_data!r}"
            )
        self._zxid = found.zxid
        self.verified += 1

    def _take_since(self, count: int, now: float) -> None:
        under_way = self._since
        while count:
            since, waiting = under_way[0]
            taken = min(waiting, count)
            if taken == waiting:
                under_way.popleft()
            else:
                under_way[0] = (since, waiting - taken)
            self._meter.answered(taken, now - since)
            count -= taken

    # -------------------------------------------------------------------------------------- end

    def stop(self) -> None:
        self._due.clear()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._meter.is_stopping and not self._waiting and not self.ended.done():
            self.ended.set_result(None)


def _sets_among(reads: float) -> list[bool]:
    """Which of MIX requests, over and over again, are sets and not gets: spread evenly."""
    percent = round(MIX * reads)
    return [(each + 1) * percent // MIX == each * percent // MIX for each in range(MIX)]


def _values(path: str, count: int, data_bytes: int) -> list[bytes]:
    """What sets write, over and over again."""
    return [f"{path} {each:06}".encode().rjust(data_bytes, b".") for each in range(count)]


class StreamGenerator(Generator):
    def __init__(self, load: Load, say: Callable[[str], None]) -> None:
        super().__init__(load, say)
        self._sessions = [Session(load, each, self.meter) for each in range(load.connections)]

    @property
    def drivers(self) -> Sequence[Session]:
        return self._sessions

    async def run(self) -> Outcome:
        """LoadError, CoordError: something did not come back as it must."""
        outcome = await super().run()
        return replace(outcome, messages=sum(each.messages for each in self._sessions))

    async def create(self) -> None:
        async with Client(self.load.endpoints[:1]) as client:
            for session in self._sessions:
                with suppress(NodeExistsError):
                    await client.create(session.path, session.first_data)
        for endpoint in self.load.all_endpoints:
            # So that reads at any server find them.
            async with Client([endpoint]) as client:
                await client.sync()

    async def connect(self) -> None:
        await asyncio.gather(*(session.start() for session in self._sessions))

    async def close(self) -> None:
        await asyncio.gather(*(session.close() for session in self._sessions))

    async def verify(self) -> int:
        for endpoint in self.load.all_endpoints:
            async with Client([endpoint]) as client:
                await client.sync()
                for session in self._sessions:
                    _check(session, endpoint, await client.get_data(session.path))
        return len(self.load.all_endpoints) * len(self._sessions)


def _check(session: Session, endpoint: str, found: Data) -> None:
    wanted = (session.last_data, session.sets)
    if (found.data, found.stat.version) != wanted:
        raise LoadError(
            f"{endpoint}: {session.path} has version {found.stat.version} and {found.data!r}; "
            f"acknowledged were {session.sets} sets, the last of {wanted[0]!r}"
        )


def generate(load: Load, say: Callable[[str], None]) -> Outcome:
    """On uvloop, and without a garbage collector that would be measured too."""

    async def run() -> Outcome:
        return await StreamGenerator(load, say).run()

    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    try:
        outcome = generate(load, _say)
    except (LoadError, CoordError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    _say(msgspec.json.encode(outcome).decode())


if __name__ == "__main__":
    main()
