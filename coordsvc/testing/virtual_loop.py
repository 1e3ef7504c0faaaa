"""An event loop in simulated time, and processes on it that can be paused and killed."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer instead of waiting for it."""

    now = 1000.0

    def __init__(self) -> None:
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        assert events or timeout is not None, "nothing will ever happen again"
        if not events and timeout:
            self._loop.now += timeout
        return events


class SimulatedClock:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        return self._loop.now

    def wall_ms(self) -> int:
        return int(self._loop.now * 1000)


class ProcessLoop:
    """One process's view of the loop: while it is paused what falls due waits, once it is dead
    nothing of it runs."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.is_paused = False
        self.is_dead = False
        self._waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def call_soon(self, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        return self._loop.call_soon(self._run, callback, args)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any
    ) -> asyncio.TimerHandle:
        return self._loop.call_later(delay, self._run, callback, args)

    def create_future(self) -> asyncio.Future[Any]:
        return self._loop.create_future()

    def create_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.append(task)
        return task

    def time(self) -> float:
        return self._loop.time()

    def _run(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.is_paused:
            self._waiting.append((callback, args))
        elif not self.is_dead:
            callback(*args)

    def resume(self) -> None:
        self.is_paused = False
        waiting, self._waiting = self._waiting, []
        for callback, args in waiting:
            self.call_soon(callback, *args)

    def kill(self) -> None:
        self.is_dead = True
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
