"""Idle sessions over gRPC Session streams, as cheap as gRPC's own library makes them.

    python -m bench.scale_streams COUNT TIMEOUT_MS OPENINGS_PER_S ENDPOINT [ENDPOINT...]

Each session has a connection of its own, as each client has, a stream on it, and pings three times
in its timeout. Prints a line when all are open, and one for each word that is read: `count`,
`stop` (no more pings, and all are answered), `close` (all sessions, and end). A line is JSON: how
many pings left and came back, how many sessions were lost and why the first was, how many closed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

from grpc import aio

from bench.scale_pipe import PipeError, within
from coordsvc.client.methods import SESSION_STREAM
from coordsvc.v1 import coordination_pb2

PINGS_PER_TIMEOUT: Final = 3
ANSWER_S_MAX: Final = 30.0
CLOSING_AT_ONCE: Final = 100
CHANNEL_OPTIONS: Final = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


@dataclass(slots=True)
class Counts:
    pings: int = 0
    pongs: int = 0
    lost: int = 0
    why: str = ""
    closed: int = 0


class Stream:
    """One session."""

    def __init__(self, endpoint: str, counts: Counts) -> None:
        self._endpoint = endpoint
        self._counts = counts
        self._channel = aio.insecure_channel(endpoint, options=CHANNEL_OPTIONS)
        open_stream = self._channel.stream_stream(
            SESSION_STREAM,
            request_serializer=coordination_pb2.SessionRequest.SerializeToString,
            response_deserializer=coordination_pb2.SessionResponse.FromString,
        )
        self._call = open_stream()

    async def open(self, timeout_ms: int) -> None:
        hello = coordination_pb2.SessionHello(timeout_ms=timeout_ms)
        await self._call.write(coordination_pb2.SessionRequest(hello=hello))
        item = await self._item()
        if item.WhichOneof("item") != "welcome" or item.welcome.timeout_ms != timeout_ms:
            raise PipeError(f"{self._endpoint}: {item} instead of a welcome")

    async def ping(self, nonce: int) -> None:
        ping = coordination_pb2.SessionPing(nonce=nonce)
        self._counts.pings += 1
        await self._call.write(coordination_pb2.SessionRequest(ping=ping))
        item = await self._item()
        if item.WhichOneof("item") != "pong" or item.pong.nonce != nonce:
            raise PipeError(f"{self._endpoint}: {item} instead of a pong")
        self._counts.pongs += 1

    async def close(self) -> None:
        close = coordination_pb2.SessionOperation(
            request_id=1, close_session=coordination_pb2.CloseSessionRequest()
        )
        await self._call.write(coordination_pb2.SessionRequest(operations=[close]))
        item = await self._item()
        if item.WhichOneof("item") != "reply" or item.reply.HasField("error"):
            raise PipeError(f"{self._endpoint}: {item} instead of the end")
        self._counts.closed += 1
        await self._channel.close()

    async def _item(self) -> coordination_pb2.SessionItem:
        response: Any = await within(ANSWER_S_MAX, self._call.read(), "an answer on a stream")
        if not isinstance(response, coordination_pb2.SessionResponse) or len(response.items) != 1:
            raise PipeError(f"{self._endpoint}: {response!r} on a stream")
        return response.items[0]


class Streams:
    def __init__(self, count: int, timeout_ms: int, per_s: float, endpoints: list[str]) -> None:
        self.counts = Counts()
        self._count = count
        self._timeout_ms = timeout_ms
        self._per_s = per_s
        self._endpoints = endpoints
        self._streams: list[Stream] = []
        self._living: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def open(self) -> None:
        began = time.perf_counter()
        for number in range(self._count):
            stream = Stream(self._endpoints[number % len(self._endpoints)], self.counts)
            self._streams.append(stream)
            self._living.append(asyncio.create_task(self._live(stream)))
            await asyncio.sleep(max(0.0, began + number / self._per_s - time.perf_counter()))
        while self.counts.pongs < self._count and not self.counts.lost:
            await asyncio.sleep(0.02)

    async def _live(self, stream: Stream) -> None:
        """From its opening until pings are to stop. The first ping tells that it is open."""
        interval_s = self._timeout_ms / 1000 / PINGS_PER_TIMEOUT
        loop = asyncio.get_running_loop()
        try:
            await stream.open(self._timeout_ms)
            at, nonce = loop.time(), 0
            while not self._stopping.is_set():
                nonce += 1
                await stream.ping(nonce)
                at += interval_s
                await asyncio.sleep(max(0.0, at - loop.time()))
        except (PipeError, aio.AioRpcError, asyncio.InvalidStateError) as error:
            self.counts.lost += 1
            self.counts.why = self.counts.why or f"{type(error).__name__}: {error}"

    async def stop(self) -> None:
        """Those that sleep do not wait to be woken: a ping was answered before."""
        self._stopping.set()
        while self.counts.pings != self.counts.pongs and not self.counts.lost:
            await asyncio.sleep(0.02)
        for task in self._living:
            task.cancel()

    async def close(self) -> None:
        for first in range(0, len(self._streams), CLOSING_AT_ONCE):
            await asyncio.gather(
                *(stream.close() for stream in self._streams[first : first + CLOSING_AT_ONCE])
            )


async def _serve(streams: Streams) -> None:
    loop = asyncio.get_running_loop()
    steps = {"stop": streams.stop, "close": streams.close}
    await streams.open()
    while True:
        print(json.dumps(asdict(streams.counts)), flush=True)
        word = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
        if not word:
            return
        if word in steps:
            await steps[word]()


def main() -> None:
    count, timeout_ms, per_s, *endpoints = sys.argv[1:]
    streams_of = int(count), int(timeout_ms), float(per_s), endpoints

    async def run() -> None:
        await _serve(Streams(*streams_of))

    asyncio.run(run())


if __name__ == "__main__":
    main()
