"""Runs `numbered_load` beside a test, and checks afterwards that what it was told is there."""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from coordsvc.client.options import ClientConfig
from coordsvc.client.unary import LINEARIZABLE, UnaryClient
from coordsvc.testing.cluster import wait_for
from tests.integration import numbered_load

RATE_SECONDS = 1.0


class LoadRun:
    """A load in a process of its own; its records are there once it was stopped."""

    def __init__(
        self, directory: Path, endpoints: tuple[str, ...], *, sessions: int = 32, name: str = "a"
    ) -> None:
        self._out_path = directory / f"load-{name}.json"
        self._log_path = directory / f"load-{name}.log"
        self._progress: collections.deque[dict[str, Any]] = collections.deque(maxlen=2_000)
        self.records: list[dict[str, Any]] = []
        self.retries = 0
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.integration.numbered_load"),
                    *("--endpoints", ",".join(endpoints), "--sessions", str(sessions)),
                    *("--name", name, "--out", str(self._out_path)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> LoadRun:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._progress.append(json.loads(line))

    @property
    def acked(self) -> int:
        return self._progress[-1]["acked"] if self._progress else 0

    def rate(self) -> float:
        """Acknowledged writes a second, over the last second."""
        progress = list(self._progress)
        if not progress:
            return 0.0
        since = progress[-1]["time"] - RATE_SECONDS
        first = next(step for step in progress if step["time"] >= since)
        seconds = progress[-1]["time"] - first["time"]
        if seconds < 0.9 * RATE_SECONDS:
            return 0.0  # It has only just begun.
        return (progress[-1]["acked"] - first["acked"]) / seconds

    def wait_rate(self, least: float, timeout_seconds: float = 15.0) -> float:
        """Wait until the load runs at `least` writes a second; the floor below which a test of
        faults proves nothing."""
        try:
            wait_for(lambda: self.rate() >= least, f"{least} writes/s", timeout_seconds)
        except Exception as error:
            log = self._log_path.read_text()[-2000:]
            raise AssertionError(f"{error}: {self.rate():.0f}/s, {self._progress}\n{log}") from None
        return self.rate()

    def stop(self) -> None:
        """Let what is in flight be answered, and read the records."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(20) == 0, self._log_path.read_text()[-2000:]
        self._reader.join()
        outcome = json.loads(self._out_path.read_text())
        self.records, self.retries = outcome["records"], outcome["retries"]
        failures = [record["failure"] for record in self.records if record["failure"]]
        assert not failures, failures

    def longest_gap_seconds(self, start: float, end: float) -> float:
        """The longest time between two moments (time.monotonic) that any session went without an
        acknowledgement: what the unluckiest client saw."""
        return max(
            _longest_gap(
                [start, *(ack[1] for ack in record["acks"] if start <= ack[1] <= end), end]
            )
            for record in self.records
        )

    # --------------------------------------------------------------------------------- checks

    async def check_tree(self, endpoints: tuple[str, ...]) -> int:
        """Each acknowledged write is there, in order, once; how many were acknowledged."""
        async with UnaryClient(ClientConfig(endpoints)) as client:
            await client.sync()
            for record in self.records:
                await self._check_record(client, record)
        return sum(len(record["acks"]) for record in self.records)

    async def _check_record(self, client: UnaryClient, record: dict[str, Any]) -> None:
        children = {}
        pages = client.get_children(
            record["path"], include_data=True, include_stat=True, consistency=LINEARIZABLE
        )
        async for page in pages:
            for child in page.children:
                children[f"{record['path']}/{child.name}"] = child
        numbers = [int(child.data) for child in children.values()]
        assert numbers == list(range(1, len(numbers) + 1)), (
            f"{record['path']}: not 1, 2, 3, ...: {_around_break(numbers)}"
        )
        for number, _, path, zxid in record["acks"]:
            child = children.get(path)
            assert child is not None, f"acknowledged and lost: {path}, number {number}"
            assert (int(child.data), child.stat.czxid) == (number, zxid), f"{path} is another's"
        most = len(record["acks"]) + (record["pending"] is not None)
        assert len(numbers) <= most, f"{record['path']}: {len(numbers)} written, {most} asked for"
        zxids = [ack[3] for ack in record["acks"]]
        assert zxids == sorted(set(zxids)), f"{record['path']}: zxids do not rise"

    async def check_retries(self, endpoints: tuple[str, ...]) -> int:
        """Repeated under its number, each of the last writes is answered as the first time; how
        many were repeated."""
        config = ClientConfig(endpoints, **numbered_load.CONFIG)
        async with UnaryClient(config) as client:
            counts = await asyncio.gather(*(self._retry(client, record) for record in self.records))
        return sum(counts)

    async def _retry(self, client: UnaryClient, record: dict[str, Any]) -> int:
        last = record["acks"][-numbered_load.RESULTS_KEPT :]
        for number, _, path, zxid in last:
            again = await numbered_load.send(client, record, number)
            assert again == (path, zxid), f"number {number} answered {again} the second time"
        return len(last)


def _longest_gap(times: list[float]) -> float:
    return max(later - earlier for earlier, later in itertools.pairwise(times))


def _around_break(numbers: list[int]) -> str:
    for index, number in enumerate(numbers):
        if number != index + 1:
            return f"...{numbers[max(0, index - 3) : index + 4]}... at {index}"
    return str(numbers[-5:])
