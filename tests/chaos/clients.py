"""The clients of one run, as a program: eight at once, whose history it keeps.

It prints its progress on stdout, one JSON object a line. What was done to the replicas is told to
it on stdin, one history.Fault a line, so that it stands in the history at its time. When stdin is
closed, the clients come to their ends and the history goes to the file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

import msgspec

from coordsvc.testing.history import Fault, Recorder, Run, save
from coordsvc.testing.workload import Workload, WorkloadSettings

SETTINGS = WorkloadSettings(clients=8, rate=300.0)
PROGRESS_SECONDS = 0.05
END_SECONDS = 20.0
"""Clients that have not come to their ends after this are shown, for they hang."""


async def run(endpoints: tuple[str, ...], seed: int, out: Path) -> None:
    recorder = Recorder(time.monotonic)
    recorder.add(Run(recorder.time, "processes", len(endpoints), seed))
    workload = Workload(endpoints, recorder, random.Random(seed), SETTINGS)
    reporter = asyncio.create_task(_report(workload, recorder))
    try:
        await workload.setup()
        async with asyncio.TaskGroup() as group:
            for number in range(1, SETTINGS.clients + 1):
                group.create_task(workload.run_client(number))
            group.create_task(_stop_when_told(workload, recorder))
    finally:
        reporter.cancel()
        save(out, recorder.records)


async def _stop_when_told(workload: Workload, recorder: Recorder) -> None:
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    while line := await orders.readline():
        fault = msgspec.json.decode(line, type=Fault)
        fault.time = recorder.time
        recorder.add(fault)
    workload.stop()
    asyncio.get_running_loop().call_later(END_SECONDS, _show_tasks)


def _show_tasks() -> None:
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


async def _report(workload: Workload, recorder: Recorder) -> None:
    while True:
        now = time.monotonic()
        line = {
            "time": now,
            "began": now - recorder.time,
            "operations": workload.operations.total(),
        }
        print(json.dumps(line), flush=True)
        await asyncio.sleep(PROGRESS_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(run(tuple(options.endpoints.split(",")), options.seed, options.out))


if __name__ == "__main__":
    main()
