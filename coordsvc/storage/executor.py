"""Where blocking disk calls run: one thread, answers back on the loop.

The loop never waits for a disk. Jobs run one after the other in the order of submission, so what
they touch (the open segment) needs no lock. Knows nothing of what it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol, TypeAlias, runtime_checkable

Job: TypeAlias = Callable[[], object]
Done: TypeAlias = Callable[[object, BaseException | None], None]


class Executor(Protocol):
    def submit(self, job: Job, done: Done) -> None:
        """Run `job` off the loop, after those submitted before; then, on the loop,
        `done(result, None)` or `done(None, exception)`."""
        ...


class Timer(Protocol):
    def cancel(self) -> None: ...


CallLater: TypeAlias = Callable[[float, Callable[[], None]], Timer]
"""`call_later(seconds, callback)`, as an asyncio loop has it."""


@runtime_checkable
class TimedExecutor(Executor, Protocol):
    """One that knows a loop: what it runs can also be put off, and it ends with its owner."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer: ...

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """End after the jobs there are; False when that took too long. Blocks."""
        ...


class Loop(Protocol):
    """What is needed of the asyncio loop."""

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: object) -> object: ...

    def call_later(self, delay: float, callback: Callable[..., object], /) -> Timer: ...

    def is_closed(self) -> bool: ...


class ThreadExecutor:
    """One daemon thread: a disk that hangs must not keep the process from ending."""

    def __init__(self, loop: Loop, name: str = "wal") -> None:
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Job, Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, done: Done) -> None:
        self._jobs.put((job, done))

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self._loop.call_later(seconds, callback)

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """End the thread after the jobs it has; False when it did not end in time."""
        self._jobs.put(None)
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            item = self._jobs.get()
            if item is None:
                return
            job, done = item
            result: object = None
            failure: BaseException | None = None
            try:
                result = job()
            except BaseException as error:  # handed to the loop, which decides
                failure = error
            try:
                self._loop.call_soon_threadsafe(done, result, failure)
            except RuntimeError:
                if not self._loop.is_closed():  # only then is there nobody left to tell
                    raise
