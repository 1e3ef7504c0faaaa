"""What happened in a simulated run, to be read by people: one line each, in the order of time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from coordsvc.testing.history import Record
from coordsvc.testing.timeline import SimulatedLoop

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every log record has."""


class StoryTeller(logging.Handler):
    """Collects what the replicas and clients log: (seconds since the beginning, text)."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[tuple[float, str]] = []

    @contextmanager
    def listening(self) -> Iterator[None]:
        logger = logging.getLogger("coordsvc")
        before = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.level, logger.propagate = before

    def emit(self, record: logging.LogRecord) -> None:
        loop: object = asyncio._get_running_loop()
        if not isinstance(loop, SimulatedLoop):
            return
        more = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        told = " ".join(f"{name}={value}" for name, value in more.items())
        self.lines.append((loop.timeline.elapsed, f"{loop.name}: {record.getMessage()} {told}"))


def tell(records: Iterable[Record], lines: Iterable[tuple[float, str]]) -> list[tuple[float, str]]:
    """The history and the logs as one story."""
    story = [(at, f"{at:9.4f}  {text}") for at, text in lines]
    for record in records:
        fields: dict[str, Any] = msgspec.to_builtins(record)
        at, kind = fields.pop("time"), fields.pop("type")
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        story.append((at, f"{at:9.4f}  {kind} {told}"))
    return sorted(story, key=lambda item: item[0])
