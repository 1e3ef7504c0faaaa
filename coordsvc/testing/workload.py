"""What clients do during a run, simulated or with real processes, all of it in one history.

    workload = Workload(endpoints, recorder, random.Random(7), WorkloadSettings(clients=4))
    await workload.setup()
    async with asyncio.TaskGroup() as group:
        for number in range(1, 5):
            group.create_task(workload.run_client(number))
        ...
        workload.stop()

It uses of asyncio what a simulated loop has, `time.monotonic()`, and the generator it is given: so
it does the same again wherever these do. Each client may run on an event loop of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Sequence

from coordsvc.errors import CoordError, NodeExistsError
from coordsvc.testing.history import Recorder
from coordsvc.testing.recorded_client import RecordedClient
from coordsvc.testing.workload_calls import NumberedClient, RoamingWatcher
from coordsvc.testing.workload_plan import (
    COUNTER,
    PARENTS,
    REGISTER_PATHS,
    Shared,
    settled,
)
from coordsvc.testing.workload_plan import WorkloadSettings as WorkloadSettings
from coordsvc.testing.workload_sessions import SessionClient

SETUP_SECONDS = 30.0
RETRY_SECONDS = 0.2


class Workload:
    """`operations` counts what was answered, by name. `endpoints`: "host:port" each."""

    def __init__(
        self,
        endpoints: Sequence[str],
        recorder: Recorder,
        rng: random.Random,
        settings: WorkloadSettings,
    ) -> None:
        self._shared = Shared(endpoints, recorder, settings, rng.getrandbits(64))

    @property
    def operations(self) -> Counter[str]:
        return self._shared.operations

    def stop(self) -> None:
        """The clients come to their ends: each in the time of a few operations."""
        self._shared.is_told_to_stop = True

    async def setup(self) -> None:
        """Makes the znodes that all else happens on, once the cluster serves. Raises the CoordError
        of the last attempt when it does not in SETUP_SECONDS."""
        give_up_at = time.monotonic() + SETUP_SECONDS
        for attempt in itertools.count(1):
            client = RecordedClient(
                self._shared.endpoints,
                self._shared.recorder,
                "setup",
                operations=self._shared.operations,
                timeout_ms=self._shared.settings.timeout_ms,
            )
            error = await settled(_make_znodes(client, f"setup.{attempt}"))
            if error is None:
                return
            if time.monotonic() >= give_up_at:
                raise error
            await asyncio.sleep(RETRY_SECONDS)

    async def run_client(self, number: int) -> None:
        """The life of client 1, 2, ...: until `stop`. Raises whatever is no expected error."""
        shared, settings = self._shared, self._shared.settings
        lives = [SessionClient(shared, number).run()]
        if settings.has_stream(number):
            lives.append(RoamingWatcher(shared, number).run())
        if settings.has_numbers(number):
            lives.append(NumberedClient(shared, number).run())
        async with asyncio.TaskGroup() as group:
            for life in lives:
                group.create_task(life)


async def _make_znodes(client: RecordedClient, value: str) -> None:
    await client.open()
    try:
        for path in PARENTS:
            await _make(client, path, None)
        await _make(client, COUNTER, f"0/{value}")
        for path in REGISTER_PATHS:
            await _make(client, path, f"{value}.{path}")
    finally:
        await client.close()


async def _make(client: RecordedClient, path: str, data: str | None) -> None:
    """Perhaps an attempt before this one has made it."""
    error = await settled(client.create(path, data))
    if isinstance(error, CoordError) and not isinstance(error, NodeExistsError):
        raise error
