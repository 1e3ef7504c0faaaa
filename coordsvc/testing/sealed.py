"""A world without another source of time or chance than its own.

Within `sealed(...)` the modules `time`, `random`, `os` and `secrets` tell simulated time and draw
from one seed, in this whole Python process. `sealed` also keeps the collector from running: what it
would close at moments of its own would not be the same twice.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

from coordsvc.testing.timeline import SimulatedLoop, Timeline

EPOCH_S = 1_700_000_000.0
"""The wall clocks' time at 0."""


@contextmanager
def sealed(timeline: Timeline, rng: random.Random) -> Iterator[None]:
    def monotonic() -> float:
        return timeline.now

    def wall() -> float:
        loop: object = asyncio._get_running_loop()
        offset_s = loop.wall_offset_s if isinstance(loop, SimulatedLoop) else 0.0
        return EPOCH_S + timeline.now + offset_s

    def nothing(*args: object) -> int:
        return 0

    replaced = (
        (time, "monotonic", monotonic),
        (time, "perf_counter", monotonic),
        (time, "time", wall),
        (time, "time_ns", lambda: int(wall() * 1_000_000) * 1_000),
        (os, "urandom", rng.randbytes),
        (random, "_urandom", rng.randbytes),
        (gc, "collect", nothing),
        (gc, "freeze", nothing),
        (gc, "unfreeze", nothing),
    )
    state, was_enabled = random.getstate(), gc.isenabled()
    with ExitStack() as stack:
        for module, name, replacement in replaced:
            stack.enter_context(mock.patch.object(module, name, replacement))
        random.seed(rng.randbytes(16))
        gc.disable()
        try:
            yield
        finally:
            random.setstate(state)
            if was_enabled:
                gc.enable()
