"""A load of numbered writes: a program that writes until told to stop, and what proves its writes.

Each session creates one sequential znode after the other below a znode of its own, with the
request's number as data, and repeats an attempt under its number until it is answered. So the
children of each must be 1, 2, 3, ... in this order, each once, and all that were acknowledged.

As a program it prints its progress on stdout, one JSON object a line, and ends when its stdin is
closed, with the record of all acknowledgements in a file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from coordsvc.client.methods import CREATE, OPEN_SESSION
from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import NodeExistsError, OutcomeUnknownError, UnavailableError
from coordsvc.v1 import common_pb2, coordination_pb2

ROOT = "/load"
SESSION_TIMEOUT_MS = 120_000
RESULTS_KEPT = 50
"""How many of a session's last results the cluster keeps, for the check of retries."""

SESSIONS_PER_CLIENT = 8
PROGRESS_SECONDS = 0.05

CONFIG = {"timeout_ms": 30_000, "retry_delay_ms_max": 50, "unreachable_timeout_ms": 30_000}


def create_request(record: dict[str, Any], number: int) -> coordination_pb2.CreateRequest:
    """Number `number` of this session; the same each time it is asked for."""
    return coordination_pb2.CreateRequest(
        context=common_pb2.RequestContext(
            session=common_pb2.SessionCredentials(
                session_id=record["session_id"], password=bytes.fromhex(record["password"])
            ),
            request_number=number,
            done_below=max(1, number - RESULTS_KEPT),
        ),
        path=f"{record['path']}/n-",
        data=str(number).encode(),
        mode=common_pb2.CREATE_MODE_PERSISTENT_SEQUENTIAL,
    )


async def send(client: UnaryClient, record: dict[str, Any], number: int) -> tuple[str, int]:
    """Repeat it until it is answered; the path created, and the zxid."""
    request = create_request(record, number)
    while True:
        try:
            answer = await client.call(CREATE, request)
            return answer.path, answer.header.zxid
        except (OutcomeUnknownError, UnavailableError):
            continue  # The client had its time for this call; the number is still to be done.


async def open_writer(client: UnaryClient, name: str) -> dict[str, Any]:
    """A session, and the znode its writes go below."""
    request = coordination_pb2.OpenSessionRequest(timeout_ms=SESSION_TIMEOUT_MS, client_name=name)
    answer = await client.call(OPEN_SESSION, request)
    path = f"{ROOT}/{name}"
    await client.create(path)
    return {
        "path": path,
        "session_id": answer.credentials.session_id,
        "password": answer.credentials.password.hex(),
        "acks": [],
        "pending": None,
        "failure": None,
    }


async def write_until(stop: asyncio.Event, client: UnaryClient, record: dict[str, Any]) -> None:
    acks: list[tuple[int, float, str, int]] = record["acks"]
    while not stop.is_set():
        number = len(acks) + 1
        record["pending"] = number
        try:
            path, zxid = await send(client, record, number)
        except Exception as error:
            record["failure"] = f"number {number}: {error!r}"
            return
        acks.append((number, time.monotonic(), path, zxid))
        record["pending"] = None


async def run(endpoints: tuple[str, ...], sessions: int, name: str) -> dict[str, Any]:
    """Until stdin is closed; the sessions' records, and how often something was repeated."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, stop.set)
    clients = []
    for index in range(-(-sessions // SESSIONS_PER_CLIENT)):
        turn = index % len(endpoints)
        clients.append(UnaryClient(ClientConfig(endpoints[turn:] + endpoints[:turn], **CONFIG)))
    try:
        await clients[0].create(ROOT)
    except NodeExistsError:
        pass  # An earlier load's.
    records = []
    for index in range(sessions):
        records.append(await open_writer(clients[index % len(clients)], f"{name}-{index}"))
    writers = [
        asyncio.create_task(write_until(stop, clients[index % len(clients)], record))
        for index, record in enumerate(records)
    ]
    reporter = asyncio.create_task(_report(records))
    await stop.wait()
    _, late = await asyncio.wait(writers, timeout=10)
    for writer in late:
        writer.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    reporter.cancel()
    await asyncio.gather(*(client.close() for client in clients))
    return {"records": records, "retries": sum(client.retries for client in clients)}


async def _report(records: list[dict[str, Any]]) -> None:
    while True:
        acked = sum(len(record["acks"]) for record in records)
        failures = [record["failure"] for record in records if record["failure"]]
        line = {"time": time.monotonic(), "acked": acked, "failures": failures}
        print(json.dumps(line), flush=True)
        await asyncio.sleep(PROGRESS_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--sessions", type=int, default=32)
    parser.add_argument("--name", default="a")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    endpoints = tuple(options.endpoints.split(","))
    outcome = asyncio.run(run(endpoints, options.sessions, options.name))
    options.out.write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
