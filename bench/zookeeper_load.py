"""Load over ZooKeeper's client protocol, cheap enough not to be what is measured.

    .venv/bin/python -m bench.zookeeper_load < LOAD.json

See `load` for what goes in and comes out. Closed loop: as many requests leave as replies came, in
one write for all that one read brought. Requests are made ahead, and sent as slices of one block of
bytes; of replies, which are all of one length, only header and version are looked at, and the data
of one in each read. Any reply that is not as expected ends it with an error: xids out of order, an
error code, a zxid that runs back, a version that skips an acknowledged write, other data.

Afterwards every znode is read at every server: its version is the number of sets that were
acknowledged, its data the last of them.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
import uvloop

from bench.load import MEASURED, MEASURING, SET, Load, Outcome, percentiles
from bench.zookeeper_wire import (
    CLOSE_SESSION,
    Replies,
    Requests,
    WireClient,
    WireError,
    connect_request,
    request,
    session_opened,
)

SESSION_TIMEOUT_MS: Final = 30_000
CONNECT_S_MAX: Final = 30.0
ANSWER_S_MAX: Final = 60.0
"""For the last replies, once no more requests leave."""

TICK_S: Final = 0.002
"""With a rate, what is due leaves so often, all at once."""


class Meter:
    """What all connections count together."""

    def __init__(self) -> None:
        self.acked = 0
        self.late = 0
        self.samples = array("d")
        self.is_measuring = False
        self.is_stopping = False

    def answered(self, count: int, seconds: float) -> None:
        if self.is_measuring:
            if count == 1:
                self.samples.append(seconds)
            else:
                self.samples.extend([seconds] * count)


class Connection(asyncio.Protocol):
    """Opens a session, then sends what it is told to; in a closed loop, a request for each reply.
    `opened` and `ended` are done then, or have the error."""

    def __init__(self, load: Load, number: int, meter: Meter) -> None:
        self.path = f"{load.path}-{number}"
        self.requests = Requests(
            self.path,
            is_set=load.operation == SET,
            in_flight=load.in_flight,
            data_bytes=load.data_bytes,
        )
        self.first_data = f"{self.path} first".encode().rjust(load.data_bytes, b".")
        self._replies = Replies(self.requests, self.first_data)
        self._in_flight = load.in_flight
        self._is_open_loop = load.rate > 0
        self._meter = meter
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.sent = 0
        self.acked = 0
        self._since: deque[tuple[float, int]] = deque()
        """(when, how many): what is under way, oldest first."""
        self._due: deque[float] = deque()
        """With a rate: what could not leave when it was due."""
        self._rest = b""
        self._transport: asyncio.Transport
        self._is_connected = False

    @property
    def verified(self) -> int:
        return self._replies.verified

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._is_connected = True
        self._transport.write(connect_request(SESSION_TIMEOUT_MS))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_connected = False
        self._fail(WireError(f"{self.path}: the connection was lost ({exc})"))

    def data_received(self, data: bytes) -> None:
        try:
            if self.opened.done():
                self._take(data)
            else:
                self._open(data)
        except WireError as error:
            self._fail(WireError(f"{self.path}: {error}"))
            self._transport.abort()

    def _fail(self, error: WireError) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
            self.ended.cancel()
        elif not self.ended.done():
            self.ended.set_exception(error)

    def _open(self, data: bytes) -> None:
        self._rest += data
        if len(self._rest) < 4:
            return
        end = 4 + int.from_bytes(self._rest[:4], "big")
        if len(self._rest) >= end:
            if not session_opened(self._rest[4:end]):
                raise WireError("no session was opened")
            self._rest = b""
            self.opened.set_result(None)

    # --------------------------------------------------------------------------------- requests

    def begin(self) -> None:
        """As many as may be under way."""
        self._send(self._in_flight, time.perf_counter())

    def _send(self, count: int, since: float) -> None:
        self._transport.write(self.requests.slice(self.sent, count))
        self.sent += count
        self._since.append((since, count))

    def send_due(self, since: float) -> None:
        """One, with a rate; as soon as it may."""
        if self.sent - self.acked < self._in_flight:
            self._send(1, since)
        else:
            self._due.append(since)
            self._meter.late += self._meter.is_measuring

    # ---------------------------------------------------------------------------------- replies

    def _take(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        size = self._replies.bytes_each
        count = len(data) // size
        whole = count * size
        if count:
            self._replies.take(memoryview(data)[:whole])
            self._answered(count)
        self._rest = data[whole:]
        if self._rest:
            self._replies.check_begun(self._rest)

    def _answered(self, count: int) -> None:
        if count > self.sent - self.acked:
            raise WireError(f"{count} replies to {self.sent - self.acked} requests")
        now = time.perf_counter()
        self.acked += count
        self._meter.acked += count
        self._take_since(count, now)
        if self._is_open_loop:
            while self._due and self.sent - self.acked < self._in_flight:
                self._send(1, self._due.popleft())
        elif not self._meter.is_stopping:
            self._send(count, now)
        self._end_if_done()

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
        """`ended` is done when all is answered. The meter says that nothing more is to begin."""
        self._due.clear()
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._meter.is_stopping and self.acked == self.sent and not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        """Its session, too."""
        if self._is_connected:
            self._transport.write(request(0, CLOSE_SESSION))
            self._transport.close()


@dataclass(frozen=True, slots=True)
class _Window:
    operations: int
    seconds: float
    cpu_s: float


class Generator:
    def __init__(self, load: Load, say: Callable[[str], None]) -> None:
        self._load = load
        self._say = say
        self._meter = Meter()
        self._connections = [
            Connection(load, number, self._meter) for number in range(load.connections)
        ]

    async def run(self) -> Outcome:
        """WireError: something did not come back as it must."""
        await self._create()
        try:
            await self._connect()
            window = await self._measure()
        finally:
            for connection in self._connections:
                connection.close()
        found = await self._verify()
        return Outcome(
            operations=window.operations,
            seconds=window.seconds,
            total=sum(each.acked for each in self._connections),
            verified=found + sum(each.verified for each in self._connections),
            generator_cpu_s=window.cpu_s,
            latencies_s=percentiles(self._meter.samples),
            late=self._meter.late,
        )

    async def _create(self) -> None:
        async with WireClient(*_address(self._load.endpoints[0])) as client:
            for connection in self._connections:
                await client.create(connection.path, connection.first_data)
        for endpoint in self._load.all_endpoints:
            # So that reads at any server find them.
            async with WireClient(*_address(endpoint)) as client:
                await client.get(self._connections[-1].path)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        endpoints = self._load.endpoints
        for number, connection in enumerate(self._connections):
            await loop.create_connection(
                lambda connection=connection: connection,  # type: ignore[misc]
                *_address(endpoints[number % len(endpoints)]),
            )
        opened = asyncio.gather(*(each.opened for each in self._connections))
        await _within(CONNECT_S_MAX, opened, "sessions")

    async def _measure(self) -> _Window:
        """Any connection that fails ends it."""
        ended: asyncio.Future[list[None]] = asyncio.gather(
            *(each.ended for each in self._connections)
        )
        begun = asyncio.create_task(self._pace() if self._load.rate else self._begin())
        await _pass(ended, begun, self._load.ramp_s)
        window = await self._window(ended, begun)
        begun.cancel()
        self._meter.is_stopping = True
        for connection in self._connections:
            connection.stop()
        await _within(ANSWER_S_MAX, ended, "the last replies")
        return window

    async def _begin(self) -> None:
        for connection in self._connections:
            connection.begin()
        await asyncio.Event().wait()

    async def _window(self, ended: asyncio.Future[Any], begun: asyncio.Future[Any]) -> _Window:
        meter = self._meter
        self._say(MEASURING)
        before, cpu_s, began = meter.acked, time.process_time(), time.perf_counter()
        meter.is_measuring = True
        await _pass(ended, begun, self._load.seconds)
        meter.is_measuring = False
        seconds = time.perf_counter() - began
        window = _Window(meter.acked - before, seconds, time.process_time() - cpu_s)
        self._say(MEASURED)
        return window

    async def _pace(self) -> None:
        """What is due at a tick is counted from then, whenever the loop comes round to it."""
        began = time.perf_counter()
        begun = 0
        tick = 0
        while True:
            tick += 1
            at = began + tick * TICK_S
            await asyncio.sleep(at - time.perf_counter())
            for number in range(begun, int(tick * TICK_S * self._load.rate)):
                self._connections[number % len(self._connections)].send_due(at)
                begun += 1

    async def _verify(self) -> int:
        """How many znodes were compared, over all servers."""
        for endpoint in self._load.all_endpoints:
            async with WireClient(*_address(endpoint)) as client:
                for connection in self._connections:
                    _check(connection, endpoint, *await client.get(connection.path))
        return len(self._load.all_endpoints) * len(self._connections)


def _check(connection: Connection, endpoint: str, data: bytes, version: int) -> None:
    sets = connection.acked if connection.requests.is_set else 0
    wanted = connection.requests.data(sets - 1) if sets else connection.first_data
    if (data, version) != (wanted, sets):
        raise WireError(
            f"{endpoint}: {connection.path} has version {version} and {data!r}; acknowledged were "
            f"{sets} sets, the last of {wanted!r}"
        )


async def _pass(ended: asyncio.Future[Any], begun: asyncio.Future[Any], seconds: float) -> None:
    """Let the time pass; what failed meanwhile is raised."""
    done, _ = await asyncio.wait(
        [ended, begun], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    for each in done:
        each.result()
        raise WireError("the load ended early")


async def _within(seconds: float, wanted: asyncio.Future[Any], what: str) -> None:
    try:
        await asyncio.wait_for(wanted, seconds)
    except TimeoutError:
        raise WireError(f"{what} did not come within {seconds:g} s") from None


def _address(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


def generate(load: Load, say: Callable[[str], None]) -> Outcome:
    """On uvloop, and without a garbage collector that would be measured too."""

    async def run() -> Outcome:
        return await Generator(load, say).run()

    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    try:
        outcome = generate(load, _say)
    except (WireError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    _say(msgspec.json.encode(outcome).decode())


if __name__ == "__main__":
    main()
