"""Load over ZooKeeper's client protocol, cheap enough not to be what is measured.

    .venv/bin/python -m bench.zookeeper_load < LOAD.json

See `load` for what goes in and comes out. Closed loop: as many requests leave as replies came, in
one write for all that one read brought. Requests are made ahead, and sent as slices of one block of
bytes; of replies, whose lengths are known beforehand, only header and version are looked at, and
the data of one in each read. Any reply that is not as expected ends it with an error: xids out of
order, an error code, a zxid that runs back, a version that skips an acknowledged write, other data.

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
from dataclasses import replace
from typing import Final, cast

import msgspec
import uvloop

from bench.generator import Generator, LoadError, Meter
from bench.load import GET, Load, Outcome
from bench.zookeeper_wire import (
    CLOSE_SESSION,
    Requests,
    WireClient,
    WireError,
    connect_request,
    replies_to,
    request,
    session_opened,
)

SESSION_TIMEOUT_MS: Final = 30_000


class Connection(asyncio.Protocol):
    """Opens a session, then sends what it is told to; in a closed loop, a request for each reply.
    `opened` and `ended` are done then, or have the error."""

    def __init__(self, load: Load, number: int, meter: Meter) -> None:
        self.path = f"{load.path}-{number}"
        self.requests = Requests(
            self.path,
            reads=1.0 if load.operation == GET else load.reads,
            in_flight=load.in_flight,
            data_bytes=load.data_bytes,
        )
        self._replies = replies_to(self.requests)
        self._in_flight = load.in_flight
        self._is_open_loop = load.rate > 0
        self._meter = meter
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.sent = 0
        self.acked = 0
        self.messages = 0
        """Pieces in which replies came while it was measured."""
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
        count, whole = self._replies.whole(len(data))
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
        self.messages += self._meter.is_measuring
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


class ZooKeeperGenerator(Generator):
    def __init__(self, load: Load, say: Callable[[str], None]) -> None:
        super().__init__(load, say)
        self._connections = [
            Connection(load, number, self.meter) for number in range(load.connections)
        ]

    @property
    def drivers(self) -> Sequence[Connection]:
        return self._connections

    async def run(self) -> Outcome:
        """LoadError: something did not come back as it must."""
        outcome = await super().run()
        return replace(outcome, messages=sum(each.messages for each in self._connections))

    async def create(self) -> None:
        async with WireClient(*_address(self.load.endpoints[0])) as client:
            for connection in self._connections:
                await client.create(connection.path, connection.requests.first_data)
        for endpoint in self.load.all_endpoints:
            # So that reads at any server find them.
            async with WireClient(*_address(endpoint)) as client:
                await client.get(self._connections[-1].path)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        endpoints = self.load.endpoints
        for number, connection in enumerate(self._connections):
            await loop.create_connection(
                lambda connection=connection: connection,  # type: ignore[misc]
                *_address(endpoints[number % len(endpoints)]),
            )
        await asyncio.gather(*(each.opened for each in self._connections))

    async def close(self) -> None:
        for connection in self._connections:
            connection.close()

    async def verify(self) -> int:
        for endpoint in self.load.all_endpoints:
            async with WireClient(*_address(endpoint)) as client:
                for connection in self._connections:
                    _check(connection, endpoint, *await client.get(connection.path))
        return len(self.load.all_endpoints) * len(self._connections)


def _check(connection: Connection, endpoint: str, data: bytes, version: int) -> None:
    sets = connection.requests.sets(connection.acked)
    wanted = connection.requests.data_after(connection.acked)
    if (data, version) != (wanted, sets):
        raise WireError(
            f"{endpoint}: {connection.path} has version {version} and {data!r}; acknowledged were "
            f"{sets} sets, the last of {wanted!r}"
        )


def _address(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


def generate(load: Load, say: Callable[[str], None]) -> Outcome:
    """On uvloop, and without a garbage collector that would be measured too."""

    async def run() -> Outcome:
        return await ZooKeeperGenerator(load, say).run()

    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    load = msgspec.json.decode(sys.stdin.buffer.read(), type=Load)
    try:
        outcome = generate(load, _say)
    except (LoadError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    _say(msgspec.json.encode(outcome).decode())


if __name__ == "__main__":
    main()
