"""How many setData a second one client gets through a Session stream, against local replicas.

    .venv/bin/python -m bench.pipelined_sets [--replicas 3] [--writes 20000] [--in-flight 1000]

Replicas, each a process, and the client share this machine. Every write is 100 bytes and
acknowledged after a majority has synced it. Prints each run, and the median; fails if a write
that was acknowledged is not there afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import coordsvc
from coordsvc.testing.cluster import LocalCluster

DATA_BYTES = 100


async def run(endpoints: str, path: str, writes: int, in_flight: int) -> float:
    """Writes a second."""
    async with coordsvc.Client(endpoints) as client:
        await client.create(path, bytes(DATA_BYTES))
        acknowledged = 0
        free = asyncio.Semaphore(in_flight)

        def answered(future: asyncio.Future[coordsvc.Stat]) -> None:
            nonlocal acknowledged
            free.release()
            if not future.cancelled() and future.exception() is None:
                acknowledged += 1

        began = time.perf_counter()
        operations = client.nowait
        for number in range(writes):
            await free.acquire()
            future = operations.set_data(path, b"%0*d" % (DATA_BYTES, number))
            future.add_done_callback(answered)
        await future
        seconds = time.perf_counter() - began
        found = await client.get_data(path)
        assert acknowledged == writes == found.stat.version, (acknowledged, found.stat.version)
        assert found.data == b"%0*d" % (DATA_BYTES, writes - 1)
        return writes / seconds


async def run_all(endpoints: str, arguments: argparse.Namespace) -> list[float]:
    rates = []
    for number in range(arguments.runs):
        path = f"/bench{number}"
        rates.append(await run(endpoints, path, arguments.writes, arguments.in_flight))
        print(f"run {number + 1}: {rates[-1]:,.0f} setData/s")
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--writes", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        with LocalCluster(Path(directory), arguments.replicas) as cluster:
            cluster.start()
            rates = asyncio.run(run_all(cluster.endpoints_text, arguments))
    print(
        f"median {statistics.median(rates):,.0f}/s, from {min(rates):,.0f} to {max(rates):,.0f}: "
        f"{arguments.replicas} replicas, {arguments.in_flight} in flight, {DATA_BYTES} bytes"
    )


if __name__ == "__main__":
    main()
