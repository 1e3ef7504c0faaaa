"""F1: how long it takes until all of many watchers of one znode have heard of a write.

The watchers (`scale_watchers`) set one-shot data watches, again in each round. The writer is
another process (`scale_writer`), and writes at one server after the other. A round counts only if
each watcher got exactly one event, of that write's zxid, and then reads what was written.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench.load import percentiles
from bench.scale_pipe import ANSWER_S_MAX, Pipe, PipeError, run
from bench.scale_results import ScaleRun
from bench.scale_systems import ScaleSystem, zookeeper_endpoints
from bench.scale_watchers import Watchers
from coordsvc.testing.zookeeper_records import WORLD, OpCode, buffer, create_body, int32, text

PATH: Final = "/scale-fan-out"
QUIET_S: Final = 0.3
"""After the last round nothing more may come."""

WARM_UP_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class Rounds:
    """Seconds of each to its last event, from the acknowledgement and from the sending; and what
    the watchers' process used of the CPU meanwhile."""

    from_ack: array[float] = field(default_factory=lambda: array("d"))
    from_sent: array[float] = field(default_factory=lambda: array("d"))
    cpu: array[float] = field(default_factory=lambda: array("d"))


def measure(
    system: ScaleSystem, watchers_count: int, rounds: int, say: Callable[[str], None]
) -> ScaleRun:
    """One run. PipeError: an event is missing, too many, or of another write."""
    endpoints = list(zookeeper_endpoints(system).values())
    run(_prepare(endpoints))
    watchers = Watchers(endpoints, watchers_count, PATH)
    with subprocess.Popen(
        [sys.executable, "-m", "bench.scale_writer", PATH, *endpoints],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        try:
            watchers.open()
            say(f"{watchers_count:,} watchers are connected")
            found = _rounds(watchers, writer, rounds)
            watchers.close()
            assert writer.stdin is not None
            writer.stdin.close()
            if writer.wait(ANSWER_S_MAX):
                raise PipeError("the writer failed")
        finally:
            watchers.abort()
            writer.kill()
    return _run(system.name, found)


async def _prepare(endpoints: Sequence[str]) -> None:
    """The znode, at every server."""
    for endpoint in endpoints:
        pipe = await Pipe.open(endpoint)
        if endpoint == endpoints[0]:
            await pipe.ask(OpCode.CREATE, create_body(PATH, b"", 0, WORLD), allowed=(-110,))
            await pipe.ask(OpCode.SET_DATA, text(PATH) + buffer(b"0") + int32(-1))
        await pipe.stat(text(PATH))
        await pipe.close()


def _rounds(watchers: Watchers, writer: subprocess.Popen[bytes], rounds: int) -> Rounds:
    assert writer.stdin is not None and writer.stdout is not None
    found = Rounds()
    for number in range(1, WARM_UP_ROUNDS + rounds + 1):
        watchers.watch()
        check_data(watchers.data, str(number - 1).encode())
        gc.collect()
        gc.disable()
        used = time.process_time()
        writer.stdin.write(f"{number}\n".encode())
        writer.stdin.flush()
        last_at = watchers.hear()
        used = time.process_time() - used
        gc.enable()
        line = writer.stdout.readline()
        if not line:
            raise PipeError("the writer failed")
        sent_at, acked_at, zxid = line.split()
        check_zxids(watchers.zxids, int(zxid))
        if number > WARM_UP_ROUNDS:
            found.from_ack.append(last_at - float(acked_at))
            found.from_sent.append(last_at - float(sent_at))
            found.cpu.append(used)
    watchers.check_quiet(QUIET_S)
    return found


def check_zxids(zxids: Sequence[int], zxid: int) -> None:
    """PipeError: an event is of another write."""
    if others := set(zxids) - {zxid}:
        raise PipeError(f"events of zxids {sorted(others)[:3]}; the write's is {zxid}")


def check_data(data: Sequence[bytes], wanted: bytes) -> None:
    """PipeError: a watcher read something else than what its last event told of."""
    if others := set(data) - {wanted}:
        raise PipeError(f"{sorted(others)[:3]} was read with the watches, not {wanted!r}")


def _run(name: str, found: Rounds) -> ScaleRun:
    ack, sent = (percentiles(each, (50.0, 99.0)) for each in (found.from_ack, found.from_sent))
    return ScaleRun(
        system=name,
        value=1e3 * ack[0],
        details={
            "p99 ms": 1e3 * ack[1],
            "p50 ms from the write's sending": 1e3 * sent[0],
            "p99 ms from the write's sending": 1e3 * sent[1],
            "ms of CPU of the watchers": 1e3 * percentiles(found.cpu, (50.0,))[0],
            "rounds": len(found.from_ack),
        },
    )
