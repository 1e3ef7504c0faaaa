"""The load of `coordsvc bench`: clients that always have as many operations under way.

Each client keeps a session of its own, and an ephemeral znode of its own, below a container that is
made for the run. So nothing that was there is touched, and nothing stays, even when this program is
killed: the ephemerals go with their sessions, the container some time after them.

Afterwards every znode's version is held against the sets that were acknowledged.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from array import array
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Self

from coordsvc.cli.failure import code_name
from coordsvc.client.client import Client
from coordsvc.client.options import ClientConfig
from coordsvc.errors import Applied, CoordError, InternalError, NoNodeError

SET, GET, MIXED = "set", "get", "mixed"
OPERATIONS = (SET, GET, MIXED)
"""Mixed: a set and a get in turns."""

RAMP_SHARE, RAMP_S_MAX = 0.25, 1.0
"""What passes before anything is counted, of the time that is."""

TICK_S = 0.2
"""Between two looks at how it goes."""

REFUSED_PAUSE_S = 0.02
"""After answers that were all refusals: they may come at once, and would be asked for as fast."""

NAME = "coordsvc bench"


@dataclass(frozen=True, slots=True)
class Plan:
    """`path`: something random is put behind it, and that znode holds all of the run's."""

    operation: str
    clients: int
    in_flight: int
    seconds: float
    data_bytes: int
    path: str
    linearizable: bool = False
    """Of gets."""

    @property
    def ramp_s(self) -> float:
        return min(RAMP_S_MAX, RAMP_SHARE * self.seconds)


@dataclass(slots=True)
class Tally:
    """What all clients count together. `operations` and `latencies_s` are of the time that is
    measured, all else of all the run."""

    is_measuring: bool = False
    operations: int = 0
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    """By code."""

    def answered(self, seconds: float) -> None:
        if self.is_measuring:
            self.operations += 1
            self.latencies_s.append(seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`seconds` and `cpu_s` (what this program used) are of the time that was measured."""

    operations: int
    seconds: float
    cpu_s: float
    latencies_s: array[float]
    """Sorted."""

    errors: Counter[str]
    acknowledged_sets: int
    """In all the run, each of which was found."""

    @property
    def rate(self) -> float:
        return self.operations / self.seconds

    @property
    def client_cores(self) -> float:
        return self.cpu_s / self.seconds

    def latency_s(self, percent: float) -> float:
        """By nearest rank; 0 if there was none."""
        if not self.latencies_s:
            return 0.0
        # In whole numbers: 99.9 % of 1,000 is a little more than 999 in floating point.
        rank = -(-round(percent * 10) * len(self.latencies_s) // 1000)
        return self.latencies_s[max(0, rank - 1)]


class Worker:
    """One client. `acknowledged` and `doubtful` are sets that certainly, and perhaps, count."""

    def __init__(self, plan: Plan, config: ClientConfig, number: int, tally: Tally) -> None:
        turn = number % len(config.endpoints)
        endpoints = config.endpoints[turn:] + config.endpoints[:turn]
        self.client = Client(
            config=replace(config, endpoints=endpoints),
            client_name=NAME,
            randomize_endpoints=False,
        )
        self.path = ""
        self.is_open = False
        self.acknowledged = 0
        self.doubtful = 0
        self._number = number
        self._plan = plan
        self._tally = tally
        self._data = b"." * plan.data_bytes
        self._waiting: deque[tuple[asyncio.Future[Any], float, bool]] = deque()
        """(answer, since when, whether it is a set), oldest first."""
        self._submitted = 0

    async def open(self, root: str) -> None:
        await self.client.start()
        self.is_open = True
        self.path = f"{root}/client-{self._number}"
        await self.client.create(self.path, self._data, ephemeral=True)

    async def close(self) -> None:
        if self.is_open:
            await self.client.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, and all is answered. CoordError: the session is over."""
        try:
            while not stop.is_set():
                self._fill()
                await self._take()
            while self._waiting:
                await self._take()
        finally:
            # When it ends before its time, nobody looks at these any more.
            for answer, _, _ in self._waiting:
                answer.cancel()

    def _fill(self) -> None:
        nowait, now = self.client.nowait, time.perf_counter()
        while len(self._waiting) < self._plan.in_flight:
            is_set = self._plan.operation == SET or (
                self._plan.operation == MIXED and self._submitted % 2 == 0
            )
            self._submitted += 1
            answer: asyncio.Future[Any] = (
                nowait.set_data(self.path, self._data)
                if is_set
                else nowait.get_data(self.path, linearizable=self._plan.linearizable)
            )
            self._waiting.append((answer, now, is_set))

    async def _take(self) -> None:
        """The oldest answer, when it comes, and all that came with it."""
        oldest = self._waiting[0][0]
        if not oldest.done():
            await asyncio.wait([oldest])
        now = time.perf_counter()
        is_refused = True
        while self._waiting and self._waiting[0][0].done():
            answer, since, is_set = self._waiting.popleft()
            error = answer.exception()
            if error is None:
                self._answered(answer.result(), now - since, is_set)
                is_refused = False
            elif isinstance(error, CoordError):
                self.doubtful += is_set and error.applied is not Applied.NO
                self._tally.errors[code_name(error)] += 1
            else:
                raise error
        if is_refused:
            await asyncio.sleep(REFUSED_PAUSE_S)

    def _answered(self, result: Any, seconds: float, is_set: bool) -> None:
        if is_set:
            self.acknowledged += 1
        elif result.data != self._data:
            raise InternalError("other data was read than was written", path=self.path)
        self._tally.answered(seconds)

    async def check(self) -> None:
        """InternalError: acknowledged sets are not there, or more than were asked for are."""
        found = await self.client.get_data(self.path, linearizable=True)
        most = self.acknowledged + self.doubtful
        if not self.acknowledged <= found.stat.version <= most:
            raise InternalError(
                f"version {found.stat.version} after {self.acknowledged} acknowledged sets"
                + (f" and {self.doubtful} of unknown outcome" if self.doubtful else ""),
                path=self.path,
            )


class Load:
    """Within `async with`, sessions and znodes are there; leaving it ends and deletes them."""

    def __init__(self, plan: Plan, config: ClientConfig) -> None:
        self.tally = Tally()
        self._plan = plan
        self._root = ""
        """The container; empty: none was made."""
        self._keeper = Client(config=config, client_name=NAME)
        self._workers = [Worker(plan, config, each, self.tally) for each in range(plan.clients)]

    async def __aenter__(self) -> Self:
        """CoordError: no session, or no znode, can be had. Then nothing stays of it."""
        await self._keeper.start()
        try:
            root = f"{self._plan.path}-{secrets.token_hex(4)}"
            await self._keeper.create(root, None, container=True)
            self._root = root
            await _all(worker.open(root) for worker in self._workers)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._close()

    async def _close(self) -> None:
        """Sessions, with their ephemerals; then the znode above them."""
        await asyncio.gather(*(worker.close() for worker in self._workers))
        if self._root:
            # The service may have been quicker: it is a container.
            with suppress(NoNodeError):
                await self._keeper.delete(self._root)
        await self._keeper.close()

    async def measure(self, on_tick: Callable[[float, Tally], None]) -> Outcome:
        """`on_tick(seconds, tally)` now and then, of the time that is measured. CoordError: a
        session is over. InternalError: what was acknowledged is not there."""
        stop = asyncio.Event()
        running = [asyncio.create_task(worker.run(stop)) for worker in self._workers]
        try:
            await _pass(running, self._plan.ramp_s)
            self.tally.is_measuring = True
            cpu_s, began = time.process_time(), time.perf_counter()
            while (passed := time.perf_counter() - began) < self._plan.seconds:
                on_tick(passed, self.tally)
                await _pass(running, min(TICK_S, self._plan.seconds - passed))
            self.tally.is_measuring = False
            seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
            stop.set()
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
        await _all(worker.check() for worker in self._workers)
        return Outcome(
            operations=self.tally.operations,
            seconds=seconds,
            cpu_s=cpu_s,
            latencies_s=array("d", sorted(self.tally.latencies_s)),
            errors=self.tally.errors,
            acknowledged_sets=sum(worker.acknowledged for worker in self._workers),
        )


async def _all(wanted: Iterable[Awaitable[None]]) -> None:
    """All of them to their ends; then what the first one of those that failed raised."""
    for result in await asyncio.gather(*wanted, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _pass(running: Iterable[asyncio.Task[None]], seconds: float) -> None:
    """Let the time pass; what failed meanwhile is raised."""
    done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
