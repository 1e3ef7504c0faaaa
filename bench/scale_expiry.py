"""E1: a client with many ephemerals dies; what others notice of it.

Its connection is cut, and its session expires by itself. Meanwhile other clients, dealt out over
the servers, write each a znode of its own, one write at a time. The moment of the expiry is that of
the first event which tells that an ephemeral is gone; SAMPLES of them are watched at every server.
In the end none may be left, the parent must have counted every one of them, and the zxids of the
events tell in how many transactions they went.
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.load import percentiles
from bench.scale_pipe import ANSWER_S_MAX, Event, Pipe, PipeError, Reply, within
from bench.scale_results import ScaleRun
from bench.scale_systems import ScaleSystem, zookeeper_endpoints
from bench.scale_tree import CREATES_AT_ONCE, batches
from coordsvc.testing.zookeeper_records import (
    WORLD,
    Decoder,
    EventType,
    OpCode,
    buffer,
    create_body,
    create_of,
    int32,
    multi_body,
    text,
)

PARENT: Final = "/scale-expiry"
TIMEOUT_MS: Final = 4_000
"""The least that ZooKeeper allows by default."""

EXPIRY_S_MAX: Final = 40.0
WRITERS: Final = 8
SAMPLES: Final = 100
DATA: Final = b"." * 100
EPHEMERAL: Final = 1
AROUND_S: Final = 1.0
"""So long before and after the expiry."""

CLOSE_S: Final = 0.1
"""The same, of what was right beside it."""

STEADY_S: Final = 1.0


@dataclass(slots=True)
class Seen:
    """Of the samples, at all servers."""

    wanted: int
    done: asyncio.Future[None]
    at: array[float] = field(default_factory=lambda: array("d"))
    zxids: set[int] = field(default_factory=set)

    def on_event(self, event: Event) -> None:
        if event.kind != EventType.DELETED or len(self.at) == self.wanted:
            raise PipeError(f"unexpected: {event}")
        self.at.append(time.perf_counter())
        self.zxids.add(event.zxid)
        if len(self.at) == self.wanted:
            self.done.set_result(None)


class Writer:
    """One write after the other; each is kept: (sent at, acknowledged at)."""

    def __init__(self, pipe: Pipe, path: str) -> None:
        self._pipe = pipe
        self._body = text(path) + buffer(DATA) + int32(-1)
        self._sent_at = 0.0
        self.writes: list[tuple[float, float]] = []
        self._version = 0
        self.is_stopping = False
        self.stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def send(self) -> None:
        self._sent_at = time.perf_counter()
        self._pipe.send(OpCode.SET_DATA, self._body, self._acked)

    def _acked(self, reply: Reply) -> None:
        self.writes.append((self._sent_at, time.perf_counter()))
        self._version += 1
        if reply.error or Decoder(reply.body).stat().version != self._version:
            raise PipeError(f"{reply} to write {self._version}")
        if self.is_stopping:
            self.stopped.set_result(None)
        else:
            self.send()


async def measure(
    system: ScaleSystem, ephemerals: int, number: int, say: Callable[[str], None]
) -> ScaleRun:
    """One run. PipeError: an ephemeral is left, or missing too early, or an event is."""
    endpoints = list(zookeeper_endpoints(system).values())
    parent = f"{PARENT}-{number}"
    pipe = await Pipe.open(endpoints[0])
    await pipe.ask(OpCode.CREATE, create_body(parent, b"", 0, WORLD))
    paths = [f"{parent}/ephemeral-{each:06}" for each in range(ephemerals)]
    dying = await Pipe.open(endpoints[0], timeout_ms=TIMEOUT_MS)
    await _create(dying, paths)
    seen, observers = await _observe(endpoints, paths)
    writers = await _start_writers(endpoints, pipe, parent)
    say(f"{ephemerals:,} ephemerals; their session is left to expire")
    gc.collect()
    gc.disable()
    await asyncio.sleep(AROUND_S + STEADY_S)
    died_at = time.perf_counter()
    await dying.stat(text(parent))
    dying.abort()
    await within(EXPIRY_S_MAX, seen.done, "the expiry")
    await asyncio.sleep(AROUND_S)
    gc.enable()
    for writer, writing in writers:
        writer.is_stopping = True
        await within(ANSWER_S_MAX, writer.stopped, "a last write")
        await writing.close()
    if min(seen.at) < died_at + TIMEOUT_MS / 1000:
        raise PipeError(f"expired {min(seen.at) - died_at:.3f} s after its last request")
    await _check_gone([pipe, *observers], parent, ephemerals + WRITERS, seen)
    for each in (pipe, *observers):
        await each.close()
    writes = [write for writer, _ in writers for write in writer.writes]
    return _run(system.name, writes, seen, died_at)


async def _create(pipe: Pipe, paths: Sequence[str]) -> None:
    """All of them, and that the session still lives then."""
    bodies = [
        multi_body([create_of(path, b"", flags=EPHEMERAL) for path in batch])
        for batch in batches(paths, CREATES_AT_ONCE)
    ]
    await pipe.ask_each(OpCode.MULTI, bodies, in_flight=2)


async def _observe(endpoints: Sequence[str], paths: Sequence[str]) -> tuple[Seen, list[Pipe]]:
    sampled = paths[:: max(1, len(paths) // SAMPLES)]
    done = asyncio.get_running_loop().create_future()
    seen = Seen(len(sampled) * len(endpoints), done)
    observers = []
    for endpoint in endpoints:
        observer = await Pipe.open(endpoint, on_event=seen.on_event)
        await observer.stat(text(paths[-1]))
        bodies = [text(path) + b"\1" for path in sampled]
        # PipeError: an ephemeral is not there.
        await observer.ask_each(OpCode.EXISTS, bodies, in_flight=64)
        observers.append(observer)
    return seen, observers


async def _start_writers(
    endpoints: Sequence[str], pipe: Pipe, parent: str
) -> list[tuple[Writer, Pipe]]:
    writers = []
    for number in range(WRITERS):
        path = f"{parent}/writer-{number}"
        await pipe.ask(OpCode.CREATE, create_body(path, DATA, 0, WORLD))
        endpoint = endpoints[number % len(endpoints)]
        writing = await Pipe.open(endpoint)
        await writing.stat(text(path))
        writers.append((Writer(writing, path), writing))
    for writer, _ in writers:
        writer.send()
    return writers


async def _check_gone(pipes: Sequence[Pipe], parent: str, created: int, seen: Seen) -> None:
    """PipeError: at a server the parent did not see all of them come, and go at one zxid."""
    for pipe in pipes:
        pipe.check()
        stat = await pipe.stat(text(parent))
        # Each that came counts, and each that went.
        wanted = (WRITERS, 2 * created - WRITERS, max(seen.zxids))
        if (stat.num_children, stat.cversion, stat.pzxid) != wanted:
            raise PipeError(f"(children, cversion, pzxid) of {parent}: {stat}, not {wanted}")


def _run(name: str, writes: Sequence[tuple[float, float]], seen: Seen, died_at: float) -> ScaleRun:
    first, last = min(seen.at), max(seen.at)
    around = latencies(writes, first - AROUND_S, last + AROUND_S)
    close = latencies(writes, first - CLOSE_S, last + CLOSE_S)
    before = latencies(writes, 0.0, first - AROUND_S)
    p50, p99, most = percentiles(around, (50.0, 99.0, 100.0))
    return ScaleRun(
        system=name,
        value=1e3 * p99,
        details={
            "most ms": 1e3 * most,
            f"p99 ms within {CLOSE_S:g} s of it": 1e3 * percentiles(close, (99.0,))[0],
            "p50 ms": 1e3 * p50,
            "p99 ms before it": 1e3 * percentiles(before, (99.0,))[0],
            "transactions": len(seen.zxids),
            "ms from the first to the last event": 1e3 * (last - first),
            "s from the last request to the expiry": first - died_at,
            "writes around it": len(around),
        },
    )


def latencies(writes: Sequence[tuple[float, float]], begin: float, end: float) -> array[float]:
    """Of the writes that were under way at any moment between the two."""
    return array("d", [acked - sent for sent, acked in writes if acked >= begin and sent <= end])
