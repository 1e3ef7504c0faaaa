"""What the clients of a workload share: where they work, how much, and what errors they expect.

Independent things have parents of their own, and only the parents of sequential znodes are ever
listed, so that a history falls into small parts for the search for an order. Registers that come
together in one multi are one part.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from coordsvc.client.records import Data, Stat
from coordsvc.errors import (
    BadVersionError,
    CoordError,
    InternalError,
    LimitExceededError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    OutcomeUnknownError,
    SessionError,
    ThrottledError,
    UnavailableError,
)
from coordsvc.testing.history import Recorder
from coordsvc.testing.recorded_client import Holds

T = TypeVar("T")

REGISTERS, QUEUE, UNIQUE, EPHEMERALS, MEMBERS, LOCKS = "/r", "/q", "/u", "/e", "/m", "/l"
COUNTER = "/c"
PARENTS = (REGISTERS, QUEUE, UNIQUE, EPHEMERALS, MEMBERS, LOCKS)

REGISTER_GROUPS = (
    (f"{REGISTERS}/a", f"{REGISTERS}/b", f"{REGISTERS}/c"),
    (f"{REGISTERS}/d", f"{REGISTERS}/e"),
    (f"{REGISTERS}/f",),
)
REGISTER_PATHS = tuple(path for group in REGISTER_GROUPS for path in group)
RESOURCES = ("x", "y")

PAUSE_S_MAX = 1.0

EXPECTED = (
    UnavailableError,
    OutcomeUnknownError,
    SessionError,
    ThrottledError,
    LimitExceededError,
    InternalError,
    NoNodeError,
    NodeExistsError,
    BadVersionError,
    NotEmptyError,
)
"""What a client may be answered with while replicas fail and others write. Anything else is a
bug, here or there."""

SHARES: Mapping[str, int] = {
    "read": 20,
    "write": 18,
    "create_or_delete": 7,
    "synced_read": 6,
    "multi": 9,
    "queue": 10,
    "count": 8,
    "unique": 4,
    "ephemeral": 6,
    "member": 4,
    "lock": 12,
    "watch": 7,
    "burst": 6,
    "end": 1,
}
"""Of the steps of a client with a session: one step is one operation or a few."""


@dataclass(frozen=True)
class WorkloadSettings:
    """`rate`: operations a second, of all clients together, as far as they are answered; what is
    answered late is not made up for. `operations_max`: the clients come to their ends once so many
    were answered; 0: only when they are told to. Every third client also follows a watch without a
    session, and every third also writes unary calls under numbers of its own; these are two more
    of the clients that share the rate. `shares`: see SHARES; a step that is not named is not made.
    """

    clients: int = 8
    rate: float = 60.0
    operations_max: int = 0
    session_timeout_ms: int = 4_000
    timeout_ms: int = 3_000
    shares: Mapping[str, int] = field(default_factory=lambda: SHARES)

    def has_stream(self, number: int) -> bool:
        """Whether that client, 1, 2, ..., also has a watch without a session."""
        return number % 3 == 1

    def has_numbers(self, number: int) -> bool:
        return number % 3 == 2

    @property
    def pause_s(self) -> float:
        """Between two operations of one client, on average."""
        numbers = range(1, self.clients + 1)
        writers = self.clients + sum(self.has_numbers(number) for number in numbers)
        return writers / self.rate


class Shared:
    """Of all clients of one run. It has no part in any event loop: each client may have its own."""

    def __init__(
        self, endpoints: Sequence[str], recorder: Recorder, settings: WorkloadSettings, seed: int
    ) -> None:
        self.endpoints = tuple(endpoints)
        self.recorder = recorder
        self.settings = settings
        self.holds = Holds(recorder)
        self.operations: Counter[str] = Counter()
        self.is_told_to_stop = False
        self._seed = seed

    @property
    def is_stopped(self) -> bool:
        enough = self.settings.operations_max
        return self.is_told_to_stop or 0 < enough <= self.operations.total()

    def rng(self, name: str) -> random.Random:
        """A client's own, whatever the others do."""
        return random.Random(f"{self._seed}.{name}")

    def pacer(self, rng: random.Random) -> Pacer:
        return Pacer(self.settings.pause_s, rng)

    def shuffled_endpoints(self, rng: random.Random) -> tuple[str, ...]:
        return tuple(rng.sample(self.endpoints, len(self.endpoints)))


class Pacer:
    """Exponential times between the steps of one client, counted from step to step. A client that
    is late begins anew."""

    def __init__(self, mean_s: float, rng: random.Random) -> None:
        self._mean_s = mean_s
        self._rng = rng
        self._at = 0.0

    async def wait(self) -> None:
        pause_s = self._rng.expovariate(1 / self._mean_s)
        now = time.monotonic()
        self._at = max(now, self._at + min(pause_s, PAUSE_S_MAX))
        await asyncio.sleep(self._at - now)


class Values:
    """Of one client: every value it writes is another one. What it knows of versions is here, too:
    often enough the latest."""

    def __init__(self, client: str) -> None:
        self._client = client
        self._count = 0
        self._versions: dict[str, int] = {}

    def next(self) -> str:
        self._count += 1
        return f"{self._client}.{self._count}"

    def version(self, path: str, rng: random.Random) -> int | None:
        """One to expect; None: whatever it is."""
        return self._versions.get(path) if rng.random() < 0.4 else None

    def note(self, path: str, answer: object) -> None:
        stat = answer.stat if isinstance(answer, Data) else answer
        if isinstance(stat, Stat):
            self._versions[path] = stat.version


async def settled(answer: Awaitable[T]) -> T | CoordError:
    """The answer, or the error if it is an expected one."""
    try:
        return await answer
    except EXPECTED as error:
        return error


def draw_ops(group: Sequence[str], values: Values, rng: random.Random) -> list[dict[str, object]]:
    """Two or three operations of one multi, in the words of histories."""
    ops: list[dict[str, object]] = []
    for path in rng.sample(group, min(len(group), rng.choice((2, 2, 3)))):
        kind = rng.choices(("set_data", "check", "create", "delete"), (10, 5, 1, 1))[0]
        op: dict[str, object] = {"name": kind, "path": path}
        if kind in ("set_data", "create"):
            op["data"] = values.next()
        if kind == "create":
            op["mode"] = "persistent"
        else:
            op["version"] = values.version(path, rng)
        ops.append(op)
    return ops
