"""Simulated time: what is due happens in order, one after the other, and the clock jumps to it.

Each simulated process has a loop of its own (`SimulatedLoop`), which is the running loop while
something of that process runs. So everything it does (tasks, futures, timers) belongs to it, and
stops with it: a paused process does what fell due when it is resumed, a dead one nothing.
Nothing here depends on the real time, on addresses of objects or on the order of a set.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, cast

TRACE_MASK = (1 << 61) - 1
STEP_S = 1e-6
"""What each step takes: time must go on even if nothing waits."""


class Timeline:
    """`now` in seconds. `run_until` does what is due until a condition holds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = self._began = now
        self.steps = 0
        self.failure: BaseException | None = None
        """Set in the middle of something that may catch it: it is raised at the next step."""
        self.trace = 0
        """A sum over what happened when: the same in two runs that were the same."""
        self._due: list[tuple[float, int, SimulatedLoop, asyncio.Handle]] = []
        self._number = 0
        self._loops = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.now - self._began

    def next_loop(self) -> int:
        self._loops += 1
        return self._loops

    def add(self, at: float, loop: SimulatedLoop, handle: asyncio.Handle) -> None:
        self._number += 1
        heapq.heappush(self._due, (at, self._number, loop, handle))

    def step(self) -> None:
        at, _, loop, handle = heapq.heappop(self._due)
        self.now = max(self.now, at) + STEP_S
        self.steps += 1
        if self.failure is not None:
            raise self.failure
        self.trace = (self.trace * 31 + int(self.now * 1e9) + loop.number) & TRACE_MASK
        loop.run_handle(handle)

    def run_until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """False when it does not hold after `limit_s`."""
        end = self.now + limit_s
        while not condition():
            if self.now >= end or not self._due:
                return False
            self.step()
        return True

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.step()
        self.now = max(self.now, end)


class SimulatedLoop:
    """One process's loop: as much of asyncio's interface as is used. `on_exception(context)` is
    told what nobody handled; `wall_offset_s` is by how much its wall clock is wrong."""

    def __init__(
        self, timeline: Timeline, name: str, on_exception: Callable[[dict[str, Any]], None]
    ) -> None:
        self.timeline = timeline
        self.name = name
        self.number = timeline.next_loop()
        self.is_paused = False
        self.is_dead = False
        self.wall_offset_s = 0.0
        self._on_exception = on_exception
        self._waiting: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self.asyncio_loop = cast(asyncio.AbstractEventLoop, self)

    def run_handle(self, handle: asyncio.Handle) -> None:
        if self.is_dead or handle.cancelled():
            return
        if self.is_paused:
            self._waiting.append(handle)
            return
        events._set_running_loop(self.asyncio_loop)
        try:
            handle._run()
        finally:
            events._set_running_loop(None)

    def resume(self) -> None:
        """What fell due meanwhile happens now, in its order."""
        self.is_paused = False
        waiting, self._waiting = self._waiting, []
        for handle in waiting:
            self.timeline.add(self.timeline.now, self, handle)

    def kill(self) -> None:
        """Its tasks are kept: were they let go, they would run their last lines."""
        self.is_dead = True
        self._waiting.clear()

    # -------------------------------------------------------------------- asyncio's interface

    def time(self) -> float:
        return self.timeline.now

    def call_soon(
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self.asyncio_loop, context)
        self.timeline.add(self.timeline.now, self, handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.timeline.now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self.asyncio_loop, context)
        self.timeline.add(when, self, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled one is left where it is, and skipped."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self.asyncio_loop)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self.asyncio_loop, name=name or "task", context=context)
        self._tasks.append(task)
        if len(self._tasks) > 200:
            self._tasks = [task for task in self._tasks if not task.done()]
        return task

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """In a step of its own, a moment later."""
        future = self.create_future()

        def run() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_later(0.001, run)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return not self.is_dead

    def is_closed(self) -> bool:
        return self.is_dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_dead:
            self._on_exception(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)
