"""P2: how long a server with a large tree takes to serve again after a kill -9.

Serving: its door for ZooKeeper's clients opens a session, and answers a read with what was written
right before the kill. In the end everything that was ever written is looked for at every server.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Final

from bench.scale_pipe import Pipe, PipeError
from bench.scale_results import ScaleRun
from bench.scale_systems import ScaleSystem, zookeeper_endpoints
from bench.scale_writer import REPLY, read_packet
from coordsvc.testing.zookeeper_records import (
    WORLD,
    Decoder,
    OpCode,
    TruncatedError,
    buffer,
    connect_request,
    create_body,
    int32,
    request,
    text,
)

MARK: Final = "/scale-restart"
SERVING_S_MAX: Final = 180.0
POLL_S: Final = 0.02
ASK_S: Final = 5.0


async def mark(system: ScaleSystem, value: bytes) -> None:
    """Write it; what a server must have, to serve."""
    endpoints = list(zookeeper_endpoints(system).values())
    pipe = await Pipe.open(endpoints[0])
    await pipe.ask(OpCode.CREATE, create_body(MARK, b"", 0, WORLD), allowed=(-110,))
    await pipe.ask(OpCode.SET_DATA, text(MARK) + buffer(value) + int32(-1))
    await pipe.close()


def restart_one(
    system: ScaleSystem, server: int, value: bytes, say: Callable[[str], None]
) -> ScaleRun:
    """PipeError: it does not serve in time. `value` was marked before."""
    system.kill(server)
    began = time.perf_counter()
    system.start_again(server)
    seconds = wait_serving(zookeeper_endpoints(system)[server], value) - began
    say(f"server {server} serves after {seconds:.1f} s")
    return ScaleRun(system=system.name, value=seconds, details={"server": server})


def restart_all(system: ScaleSystem, value: bytes, say: Callable[[str], None]) -> dict[str, float]:
    """All killed, then all started: seconds until the first of them serves, and until all do."""
    servers = list(system.pids())
    for server in servers:
        system.kill(server)
    began = time.perf_counter()
    for server in servers:
        system.start_again(server)
    ends = wait_all_serving(list(zookeeper_endpoints(system).values()), value)
    seconds = sorted(end - began for end in ends)
    say(f"the whole cluster serves after {seconds[-1]:.1f} s")
    return {"s, all killed: the first": seconds[0], "s, all killed: the last": seconds[-1]}


def with_cluster(runs: Sequence[ScaleRun], cluster: dict[str, float]) -> list[ScaleRun]:
    """What was seen of the whole cluster goes to the run in the middle."""
    middle = statistics.median_low([run.value for run in runs])
    return [
        ScaleRun(run.system, run.value, {**run.details, **cluster}) if run.value == middle else run
        for run in runs
    ]


def wait_serving(endpoint: str, value: bytes) -> float:
    """When it did, by time.perf_counter."""
    return wait_all_serving([endpoint], value)[0]


def wait_all_serving(endpoints: Sequence[str], value: bytes) -> list[float]:
    ends: dict[str, float] = {}
    deadline = time.perf_counter() + SERVING_S_MAX
    while len(ends) < len(endpoints):
        for endpoint in endpoints:
            if endpoint not in ends and _serves(endpoint, value):
                ends[endpoint] = time.perf_counter()
        if time.perf_counter() > deadline:
            raise PipeError(f"only {list(ends)} serve after {SERVING_S_MAX:g} s")
        time.sleep(POLL_S)
    return [ends[endpoint] for endpoint in endpoints]


def _serves(endpoint: str, value: bytes) -> bool:
    host, _, port = endpoint.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), ASK_S) as asked:
            asked.sendall(connect_request(timeout_ms=10_000))
            session_id = int.from_bytes(read_packet(asked)[8:16], "big")
            asked.sendall(request(1, OpCode.GET_DATA, text(MARK) + b"\0"))
            reply = read_packet(asked)
            asked.sendall(request(2, OpCode.CLOSE_SESSION))
            read_packet(asked)
    except (OSError, EOFError):
        return False
    _, _, error = REPLY.unpack_from(reply)
    try:
        return bool(session_id) and not error and Decoder(reply[REPLY.size :]).buffer() == value
    except TruncatedError as broken:
        raise PipeError(f"{endpoint}: {broken}") from None
