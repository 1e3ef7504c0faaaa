"""The loop's side of a test: jobs run, syncs complete and timers fire when the test says so.

`ManualExecutor` stands in for `coordsvc.storage.executor.ThreadExecutor`, `ManualTimers` for the
loop's clock and `call_later`. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordsvc.storage.executor import Done, Job


class ManualExecutor:
    """Jobs run when the test says so; `start` and `finish` keep a sync's end from its report."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Job, Done]] = []
        self._finished: list[tuple[Done, object, BaseException | None]] = []

    def submit(self, job: Job, done: Done) -> None:
        self.jobs.append((job, done))

    def start(self) -> None:
        """Run the next job; the loop does not know yet."""
        job, done = self.jobs.pop(0)
        try:
            self._finished.append((done, job(), None))
        except Exception as error:
            self._finished.append((done, None, error))

    def finish(self) -> None:
        """Tell the loop of everything that ran."""
        while self._finished:
            done, result, error = self._finished.pop(0)
            done(result, error)

    def run_next(self) -> None:
        self.start()
        self.finish()

    def run_all(self) -> None:
        self.finish()
        while self.jobs:
            self.run_next()


@dataclass
class ManualTimer:
    due: float
    callback: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


class ManualTimers:
    """A clock that stands still until `advance`, and its timers."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[ManualTimer] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer(self.now + seconds, callback)
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass, firing what falls due, in order."""
        end = self.now + seconds
        while due := [t for t in self.timers if t.due <= end and not t.is_cancelled]:
            timer = min(due, key=lambda t: t.due)
            self.timers.remove(timer)
            self.now = max(self.now, timer.due)
            timer.callback()
        self.now = end
