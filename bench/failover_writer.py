"""A client of our service that writes one thing after another, and tells when it was answered.

    python -m bench.failover_writer ENDPOINTS PATH SESSION_TIMEOUT_MS INTERVAL_MS DATA_BYTES

It begins at the first endpoint, and ends when its input does. Every line it prints is a word and
its values, times by the clock that all processes of this machine share:

    acked SENT ACKNOWLEDGED ENDPOINT    by the replica at ENDPOINT
    failed SENT FAILED ERROR            the next write follows
    session TIME                        the session is lost, another one is opened
    version NUMBER                      at the end: how many writes the znode has seen

`bench/zookeeper/Writer.java` does the same with ZooKeeper's own client.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import coordsvc
from coordsvc.errors import CoordError, SessionError


class Writer:
    def __init__(self, arguments: list[str]) -> None:
        self._endpoints, self._path = arguments[:2]
        self._session_timeout_ms, interval_ms, self._data_bytes = map(int, arguments[2:])
        self._interval_s = interval_ms / 1000
        self._is_stopping = threading.Event()
        threading.Thread(target=self._wait_for_end, daemon=True).start()

    def _wait_for_end(self) -> None:
        sys.stdin.read()
        self._is_stopping.set()

    async def run(self) -> None:
        is_new = True
        while not self._is_stopping.is_set():
            client = coordsvc.Client(
                self._endpoints,
                session_timeout_ms=self._session_timeout_ms,
                randomize_endpoints=False,
            )
            async with client:
                if is_new:
                    await client.create(self._path)
                    is_new = False
                await self._write(client)
                if self._is_stopping.is_set():
                    found = await client.get_data(self._path, linearizable=True)
                    print("version", found.stat.version)
            # Lost, unless the end was asked for.

    async def _write(self, client: coordsvc.Client) -> None:
        """Until the end, or the session's."""
        number = 0
        while not self._is_stopping.is_set():
            number += 1
            sent = time.monotonic()
            try:
                await client.set_data(self._path, b"%0*d" % (self._data_bytes, number))
                print("acked", sent, time.monotonic(), client.endpoint, flush=True)
            except CoordError as error:
                print("failed", sent, time.monotonic(), type(error).__name__, flush=True)
                if isinstance(error, SessionError):
                    print("session", time.monotonic(), flush=True)
                    return
            await asyncio.sleep(max(0.0, sent + self._interval_s - time.monotonic()))


if __name__ == "__main__":
    asyncio.run(Writer(sys.argv[1:]).run())
