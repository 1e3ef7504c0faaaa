"""What load generators in Python share: the time that is measured, the pace, the end.

A generator adds its protocol: how sessions are opened, and what a `Driver` sends and checks.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bench.load import MEASURED, MEASURING, Load, Outcome, percentiles

CONNECT_S_MAX: Final = 30.0
ANSWER_S_MAX: Final = 60.0
"""For the last replies, once no more requests leave."""

TICK_S: Final = 0.002
"""With a rate, what is due leaves so often, all at once."""


class LoadError(Exception):
    """What came back is not what was asked for, or nothing came back."""


class Meter:
    """What all connections count together."""

    def __init__(self) -> None:
        self.acked = 0
        self.late = 0
        self.samples = array("d")
        self.is_measuring = False
        self.is_stopping = False

    def answered(self, count: int, seconds: float) -> None:
        if self.is_measuring:
            if count == 1:
                self.samples.append(seconds)
            else:
                self.samples.extend([seconds] * count)


class Driver(Protocol):
    """One connection, or session. `ended` is done when it was stopped and everything is answered,
    or has the error."""

    ended: asyncio.Future[None]
    acked: int

    @property
    def verified(self) -> int:
        """Replies of which the data was compared."""
        ...

    def begin(self) -> None:
        """A closed loop: as many as may be under way, and from then on one for each reply."""
        ...

    def send_due(self, since: float) -> None:
        """One, with a rate; as soon as it may."""
        ...

    def stop(self) -> None:
        """The meter says that nothing more is to begin."""
        ...


@dataclass(frozen=True, slots=True)
class _Window:
    operations: int
    seconds: float
    cpu_s: float


class Generator(ABC):
    def __init__(self, load: Load, say: Callable[[str], None]) -> None:
        self.load = load
        self.meter = Meter()
        self._say = say

    @property
    @abstractmethod
    def drivers(self) -> Sequence[Driver]: ...

    @abstractmethod
    async def create(self) -> None:
        """The znodes, so that every server has them."""

    @abstractmethod
    async def connect(self) -> None:
        """Open the sessions."""

    @abstractmethod
    async def close(self) -> None:
        """Whatever was opened, also when it has failed."""

    @abstractmethod
    async def verify(self) -> int:
        """How many znodes were compared, over all servers. LoadError: one is not as it must be."""

    async def run(self) -> Outcome:
        """LoadError: something did not come back as it must."""
        await self.create()
        try:
            await within(CONNECT_S_MAX, self.connect(), "sessions")
            window = await self._measure()
        finally:
            await self.close()
        found = await self.verify()
        return Outcome(
            operations=window.operations,
            seconds=window.seconds,
            total=sum(each.acked for each in self.drivers),
            verified=found + sum(each.verified for each in self.drivers),
            generator_cpu_s=window.cpu_s,
            latencies_s=percentiles(self.meter.samples),
            late=self.meter.late,
        )

    async def _measure(self) -> _Window:
        """Any connection that fails ends it."""
        ended: asyncio.Future[list[None]] = asyncio.gather(*(each.ended for each in self.drivers))
        begun = asyncio.create_task(self._pace() if self.load.rate else self._begin())
        await _pass(ended, begun, self.load.ramp_s)
        window = await self._window(ended, begun)
        begun.cancel()
        self.meter.is_stopping = True
        for driver in self.drivers:
            driver.stop()
        await within(ANSWER_S_MAX, ended, "the last replies")
        return window

    async def _begin(self) -> None:
        for driver in self.drivers:
            driver.begin()
        await asyncio.Event().wait()

    async def _window(self, ended: asyncio.Future[Any], begun: asyncio.Future[Any]) -> _Window:
        meter = self.meter
        self._say(MEASURING)
        before, cpu_s, began = meter.acked, time.process_time(), time.perf_counter()
        meter.is_measuring = True
        await _pass(ended, begun, self.load.seconds)
        meter.is_measuring = False
        seconds = time.perf_counter() - began
        window = _Window(meter.acked - before, seconds, time.process_time() - cpu_s)
        self._say(MEASURED)
        return window

    async def _pace(self) -> None:
        """What is due at a tick is counted from then, whenever the loop comes round to it."""
        drivers = self.drivers
        began = time.perf_counter()
        begun = 0
        tick = 0
        while True:
            tick += 1
            at = began + tick * TICK_S
            await asyncio.sleep(at - time.perf_counter())
            for number in range(begun, int(tick * TICK_S * self.load.rate)):
                drivers[number % len(drivers)].send_due(at)
                begun += 1


async def _pass(ended: asyncio.Future[Any], begun: asyncio.Future[Any], seconds: float) -> None:
    """Let the time pass; what failed meanwhile is raised."""
    done, _ = await asyncio.wait(
        [ended, begun], timeout=seconds, return_when=asyncio.FIRST_COMPLETED
    )
    for each in done:
        each.result()
        raise LoadError("the load ended early")


async def within(seconds: float, wanted: Any, what: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wanted
    except TimeoutError:
        raise LoadError(f"{what} did not come within {seconds:g} s") from None
