"""Clients without a stream of a session: numbered unary writes, and watches that roam."""

from __future__ import annotations

import asyncio

from coordsvc.client.options import ClientConfig
from coordsvc.errors import CoordError
from coordsvc.testing.recorded_calls import RecordedCalls, Write, is_settled
from coordsvc.testing.recorded_watch import RecordedWatch, RecordedWatchStream
from coordsvc.testing.recording import Args
from coordsvc.testing.workload_plan import (
    QUEUE,
    REGISTER_GROUPS,
    REGISTER_PATHS,
    REGISTERS,
    UNIQUE,
    Shared,
    Values,
    draw_ops,
    settled,
)

CUT_SHARE, AGAIN_SHARE = 0.3, 0.25
CUT_AFTER_S = 0.004
RETRY_S = 0.1
WRITES_A_SESSION = 60
"""On average; then the next session begins."""

STREAM_WATCHES = (
    ("persistent", QUEUE),
    ("persistent", f"{REGISTERS}/a"),
    ("persistent_recursive", REGISTERS),
    ("persistent_recursive", UNIQUE),
    ("persistent_recursive", "/"),
)
STAY_S = 1.5


class NumberedClient:
    """Writes under numbers of its own. An attempt may be cut off, and whatever was not answered is
    repeated at any replica; sometimes also what was, which must be answered as the first time."""

    def __init__(self, shared: Shared, number: int) -> None:
        self._shared = shared
        self._name = f"n{number}"
        self._rng = shared.rng(self._name)
        self._pacer = shared.pacer(self._rng)
        self._values = Values(self._name)

    async def run(self) -> None:
        shared, settings = self._shared, self._shared.settings
        while not shared.is_stopped:
            calls = RecordedCalls(
                shared.shuffled_endpoints(self._rng),
                shared.recorder,
                self._name,
                operations=shared.operations,
                session_timeout_ms=settings.session_timeout_ms,
                timeout_ms=settings.timeout_ms,
            )
            if isinstance(await settled(calls.open(self._at(calls))), CoordError):
                await calls.stop()
                await self._pacer.wait()
                continue
            renewing = asyncio.create_task(self._renew(calls))
            try:
                await self._use(calls)
            finally:
                renewing.cancel()
                await asyncio.wait([renewing])
                await self._leave(calls)
            if not renewing.cancelled():
                renewing.result()

    def _at(self, calls: RecordedCalls) -> int:
        return self._rng.choice(calls.replicas)

    async def _renew(self, calls: RecordedCalls) -> None:
        while not calls.is_over:
            await asyncio.sleep(calls.renew_after_s)
            await calls.renew(self._at(calls))

    async def _use(self, calls: RecordedCalls) -> None:
        while not self._shared.is_stopped and not calls.is_over:
            await self._pacer.wait()
            if self._rng.random() < 0.3:
                path, is_linearizable = self._rng.choice(REGISTER_PATHS), self._rng.random() < 0.3
                data = await calls.get_data(path, self._at(calls), linearizable=is_linearizable)
                self._values.note(path, data)
            else:
                await self._write(calls)
            if self._rng.random() < 1 / WRITES_A_SESSION:
                return

    async def _leave(self, calls: RecordedCalls) -> None:
        if self._rng.random() < 0.7:
            await calls.close(self._at(calls))
        else:
            await calls.stop()

    async def _write(self, calls: RecordedCalls) -> None:
        """Until it is answered, or the session is over."""
        write = self._draw(calls)
        while not is_settled(await self._attempt(calls, write)):
            if calls.is_over:
                return
            await asyncio.sleep(self._rng.expovariate(1 / RETRY_S))
        while self._rng.random() < AGAIN_SHARE and not calls.is_over:
            await calls.attempt(write, self._at(calls))

    async def _attempt(self, calls: RecordedCalls, write: Write) -> str:
        is_cut = self._rng.random() < CUT_SHARE
        cut_after_s = self._rng.expovariate(1 / CUT_AFTER_S) if is_cut else None
        return await calls.attempt(write, self._at(calls), cut_after_s)

    def _draw(self, calls: RecordedCalls) -> Write:
        rng, values = self._rng, self._values
        kind, path = rng.random(), rng.choice(REGISTER_PATHS)
        args: Args
        if kind < 0.35:
            args = {"path": f"{UNIQUE}/id-", "data": values.next(), "mode": "persistent_sequential"}
            return calls.next_write("create", args)
        if kind < 0.65:
            version = values.version(path, rng)
            args = {"path": path, "data": values.next(), "version": version}
            return calls.next_write("set_data", args)
        if kind < 0.75:
            args = {"path": path, "data": values.next(), "mode": "persistent"}
            return calls.next_write("create", args)
        if kind < 0.85:
            args = {"path": path, "version": values.version(path, rng)}
            return calls.next_write("delete", args)
        return calls.next_write("multi", {"ops": draw_ops(REGISTER_GROUPS[0], values, rng)})


class RoamingWatcher:
    """Follows a watch without a session, from replica to replica."""

    def __init__(self, shared: Shared, number: int) -> None:
        self._shared = shared
        self._name = f"w{number}"
        self._rng = shared.rng(self._name)

    async def run(self) -> None:
        while not self._shared.is_stopped:
            kind, path = self._rng.choice(STREAM_WATCHES)
            watch = RecordedWatch(self._shared.recorder, self._name, kind, path)
            position: int | None = None
            try:
                for _ in range(self._rng.randint(1, 4)):
                    if not self._shared.is_stopped:
                        position = await self._follow(watch, position)
            finally:
                watch.end()

    async def _follow(self, watch: RecordedWatch, position: int | None) -> int | None:
        """By one stream, from `position` on. Where the next one may go on."""
        endpoints = self._shared.shuffled_endpoints(self._rng)
        config = ClientConfig(endpoints, timeout_ms=self._shared.settings.timeout_ms)
        stream = RecordedWatchStream(config, watch, position)
        if isinstance(await settled(stream.__aenter__()), CoordError):
            return position
        try:
            stays = self._rng.randint(1, 4)
            while (stays > 0 or not watch.is_whole) and not self._shared.is_stopped:
                await self._stay(stream)
                watch.progress(stream.position)
                stream.roam()
                stays -= 1
        finally:
            await stream.close()
        return max(position or 0, stream.position)

    async def _stay(self, stream: RecordedWatchStream) -> None:
        try:
            async with asyncio.timeout(min(self._rng.expovariate(1 / STAY_S), 3 * STAY_S)):
                async for _ in stream:
                    pass
        except TimeoutError:
            return
