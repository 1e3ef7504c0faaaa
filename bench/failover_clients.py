"""Clients that write one thing after another, each a process, and what they tell of it."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from bench.failover_ensembles import Ensemble
from coordsvc.testing.cluster import ClusterError, wait_for
from coordsvc.testing.namespaces import HUB

SESSION_TIMEOUT_MS = 10_000
"""The default of our own client."""

INTERVAL_MS = 5
DATA_BYTES = 100
WAIT_SECONDS = 90.0
END_SECONDS = 30.0


class Writer:
    """It writes to `path` from when it is made, beginning at server `first`."""

    def __init__(self, ensemble: Ensemble, first: int, path: str, log: Path) -> None:
        others = [each for each in ensemble.ids if each != first]
        endpoints = ",".join(ensemble.endpoint(each) for each in (first, *others))
        numbers = (str(each) for each in (SESSION_TIMEOUT_MS, INTERVAL_MS, DATA_BYTES))
        hub = [] if ensemble.network is None else ensemble.network.command(HUB)
        self.first_endpoint = ensemble.endpoint(first)
        self.endpoint = ""
        """Of the server that acknowledged last."""
        self.acked: list[float] = []
        """When writes were acknowledged."""
        self.errors: Counter[str] = Counter()
        self.sessions_lost = 0
        self.version: int | None = None
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*hub, *ensemble.writer_command(), endpoints, path, *numbers],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            word, *values = line.split()
            if word == "acked":
                self.endpoint = values[2]
                self.acked.append(float(values[1]))
            elif word == "failed":
                self.errors[values[2]] += 1
            elif word == "session":
                self.sessions_lost += 1
            elif word == "version":
                self.version = int(values[0])

    def wait_acked(self, count: int, after: float) -> None:
        """Until so many writes were acknowledged after that time."""

        def is_done() -> bool:
            if self._process.poll() is not None:
                raise self._error("a client ended early")
            return len(self.acked) >= count and self.acked[-count] > after

        wait_for(is_done, f"{count} writes of a client", WAIT_SECONDS)

    def stop(self) -> None:
        """Ends it, and holds what it was told against what there is: no acknowledged write is lost,
        and nothing was written that it did not ask for."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._error("a client does not end") from None
        self._reader.join()
        if status or self.version is None:
            raise self._error(f"a client ended with {status}")
        acked, asked = len(self.acked), len(self.acked) + self.errors.total()
        if not acked <= self.version <= asked:
            raise self._error(f"{self.version} writes, {acked} acknowledged, {asked} asked for")

    def end(self) -> None:
        """However it is."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _error(self, what: str) -> ClusterError:
        return ClusterError(f"{what}\n{self._log.read_text()[-4_000:]}")


class Writers:
    """A writer at each of `firsts`, by server id, ready when they are attached to it and go on."""

    def __init__(self, ensemble: Ensemble, firsts: Sequence[int], name: str, log: Path) -> None:
        self.by_first: dict[int, Writer] = {}
        try:
            for first in firsts:
                self.by_first[first] = Writer(ensemble, first, f"/{name}-{first}", log)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Writers:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        for writer in self.by_first.values():
            writer.end()

    def wait_acked(self, count: int, after: float = 0.0) -> None:
        for writer in self.by_first.values():
            writer.wait_acked(count, after)

    def stop(self) -> None:
        for writer in self.by_first.values():
            writer.stop()
