"""The clients of one run, seen from the test: a process at the network's hub."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

import msgspec

from coordsvc.testing.cluster import ClusterError, wait_for
from coordsvc.testing.history import Fault
from coordsvc.testing.namespaces import HUB, Network

RATE_SECONDS = 1.0
END_SECONDS = 30.0
LOG_TAIL = 2_000


class ClientsRun:
    """Runs within its block. The history is in `history_path` once it was stopped."""

    def __init__(
        self, network: Network, directory: Path, endpoints: tuple[str, ...], seed: int
    ) -> None:
        self.history_path = directory / "history.jsonl"
        self.began = 0.0
        """When the history began (time.monotonic)."""
        self._log_path = directory / "clients.log"
        self._progress: collections.deque[tuple[float, int]] = collections.deque(maxlen=200)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *network.command(HUB),
                    *(sys.executable, "-m", "tests.chaos.clients", "--seed", str(seed)),
                    *("--endpoints", ",".join(endpoints), "--out", str(self.history_path)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> ClientsRun:
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
            progress = json.loads(line)
            self.began = progress["began"]
            self._progress.append((progress["time"], progress["operations"]))

    @property
    def operations(self) -> int:
        """How many were answered until now, by all clients."""
        return self._progress[-1][1] if self._progress else 0

    def rate(self) -> float:
        """Operations answered a second, over the last second."""
        progress = list(self._progress)
        if not progress:
            return 0.0
        last, operations = progress[-1]
        first, before = next(step for step in progress if step[0] >= last - RATE_SECONDS)
        if last - first < 0.9 * RATE_SECONDS:
            return 0.0  # It has only just begun.
        return (operations - before) / (last - first)

    def wait_rate(self, least: float, timeout_seconds: float = 20.0) -> float:
        """Wait until so many operations a second are answered: with fewer, a fault proves nothing.
        The rate."""
        rates = [0.0]

        def is_reached() -> bool:
            self._check_runs()
            rates.append(self.rate())
            return rates[-1] >= least

        try:
            wait_for(is_reached, f"{least} operations/s", timeout_seconds)
        except ClusterError as error:
            raise ClusterError(f"{error}: at most {max(rates):.0f}/s") from None
        return rates[-1]

    def wait_more(self, operations: int, timeout_seconds: float = 20.0) -> None:
        """Wait until the clients were answered so many more times."""
        enough = self.operations + operations

        def is_reached() -> bool:
            self._check_runs()
            return self.operations >= enough

        wait_for(is_reached, "the clients to go on", timeout_seconds)

    def tell(self, fault: str, replicas: list[int], **details: object) -> None:
        """Have it in the history."""
        assert self._process.stdin is not None
        record = Fault(0.0, fault, replicas, details)
        self._process.stdin.write(msgspec.json.encode(record) + b"\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """Let what is in flight be answered, and the history be written."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"the clients do not end: {self._log_path.read_text()}") from None
        assert status == 0, self._log_path.read_text()[-LOG_TAIL:]
        self._reader.join()

    def _check_runs(self) -> None:
        if self._process.poll() is not None:
            raise ClusterError(f"the clients ended: {self._log_path.read_text()[-LOG_TAIL:]}")
