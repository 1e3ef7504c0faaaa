"""A client in a replica's own namespace, which no cut parts from it: how long does it go on to
answer what takes a majority?

As a program it asks again and again, a linearizable read and a write in turn, each within a short
time, and prints one JSON line for each answer or failure.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import threading
import time
from types import TracebackType
from typing import Any

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import LINEARIZABLE, UnaryClient
from coordsvc.errors import CoordError, NodeExistsError
from coordsvc.testing.cluster import wait_for
from coordsvc.testing.namespaces import Network

ASK_MS = 300
PAUSE_SECONDS = 0.02
PATH = "/asked-by-the-lone-client"


class LoneClient:
    """It asks within its block; `answers` has what it was told so far."""

    def __init__(self, network: Network, node: int, endpoint: str) -> None:
        self.answers: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [
                *network.command(node),
                *(sys.executable, "-m", "tests.chaos.lone_client", "--endpoint", endpoint),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> LoneClient:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.answers.append(json.loads(line))

    def wait_answered(self, since: float) -> None:
        """Until a read and a write that began after that moment (time.monotonic) were answered."""
        wait_for(
            lambda: len({a["kind"] for a in self.answers if a["ok"] and a["began"] > since}) == 2,
            "answers to the lone client",
        )

    def wait_refused(self, since: float) -> None:
        """Until a read and a write that began after that moment failed."""
        wait_for(
            lambda: (
                len({a["kind"] for a in self.answers if not a["ok"] and a["began"] > since}) == 2
            ),
            "failures of the lone client",
        )

    def last_answered(self) -> float:
        """When the last request that was answered was answered."""
        return max(answer["ended"] for answer in self.answers if answer["ok"])


async def run(endpoint: str) -> None:
    config = ClientConfig((endpoint,), timeout_ms=ASK_MS, retry_delay_ms_max=50)
    async with UnaryClient(config) as client:
        for kind in itertools.cycle(("read", "write")):
            began = time.monotonic()
            try:
                if kind == "read":
                    await client.get_data("/", consistency=LINEARIZABLE)
                else:
                    await client.create(PATH)
                is_ok = True
            except NodeExistsError:
                is_ok = True  # It was evaluated, in its place in the log.
            except CoordError:
                is_ok = False
            line = {"kind": kind, "began": began, "ended": time.monotonic(), "ok": is_ok}
            print(json.dumps(line), flush=True)
            await asyncio.sleep(PAUSE_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True)
    asyncio.run(run(parser.parse_args().endpoint))


if __name__ == "__main__":
    main()
