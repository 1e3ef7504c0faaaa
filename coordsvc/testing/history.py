"""What clients did and saw, and what was done to the replicas, as JSON lines (docs/histories.md).

Simulated and real runs write the same records, so that one checker, of ours or of others, reads
both. A history is in the order of time; `time` is in seconds since the run began, on one clock for
all clients (simulated, or the monotonic one of the process in which all clients ran). A client's
invocations on one session are in the order in which it made them, also at equal times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

FORMAT = 1

OK = "ok"
"""Done, with this result."""
ERROR = "error"
"""Evaluated, and answered with this error: a write changed nothing, a read saw why."""
REFUSED = "refused"
"""Certainly not evaluated, and never will be."""
UNKNOWN = "unknown"
"""A write may have been applied, or may still be, at any time after it was invoked. A read that
ended so says nothing."""


class Run(msgspec.Struct, tag="run", tag_field="type", omit_defaults=True):
    """The first record. `source`: "simulation", "processes"."""

    time: float
    source: str
    replicas: int
    seed: int = 0
    format: int = FORMAT


class Invoke(msgspec.Struct, tag="invoke", tag_field="type", omit_defaults=True):
    """`op` numbers the operation in this history. `name` and `args` are in docs/histories.md.
    `session`: empty outside of one. `request_number` 0: not a numbered one; a repetition has the
    number of what it repeats, and `repeats` its `op`."""

    time: float
    op: int
    client: str
    name: str
    args: dict[str, Any]
    session: str = ""
    request_number: int = 0
    repeats: int = 0


class Return(msgspec.Struct, tag="return", tag_field="type", omit_defaults=True):
    """`zxid`: of the answer's header; 0 if it had none. `code`: the error's name. An operation
    without a Return was under way at the end: as UNKNOWN."""

    time: float
    op: int
    outcome: str
    zxid: int = 0
    code: str = ""
    result: dict[str, Any] = {}
    replica: int = 0


class Session(msgspec.Struct, tag="session", tag_field="type", omit_defaults=True):
    """What a client knows of its session. `state`: "opened" (with `timeout`), "connected",
    "suspended", "lost" (it takes it for lost, or was told), "closed" (it asked for that, and it was
    answered). `session` is the id in 16 hexadecimal digits."""

    time: float
    client: str
    session: str
    state: str
    timeout: float = 0.0


class Held(msgspec.Struct, tag="held", tag_field="type", omit_defaults=True):
    """From now on this client takes `resource` for its own; `fence` is the czxid of what says so.
    Until `Released`, which comes before the client does anything that gives it up, or at the
    moment it knows that it has lost it."""

    time: float
    client: str
    session: str
    resource: str
    fence: int


class Released(msgspec.Struct, tag="released", tag_field="type", omit_defaults=True):
    time: float
    client: str
    session: str
    resource: str


class WatchSet(msgspec.Struct, tag="watch_set", tag_field="type", omit_defaults=True):
    """`watch` names it in this history. `kind`: "data", "exist", "children" (one event), or
    "persistent", "persistent_recursive". It tells of changes after `zxid`, until its WatchEnd."""

    time: float
    client: str
    watch: str
    kind: str
    path: str
    zxid: int
    session: str = ""


class Event(msgspec.Struct, tag="event", tag_field="type", omit_defaults=True):
    """`event`: "created", "data_changed", "deleted", "children_changed"."""

    time: float
    client: str
    watch: str
    event: str
    path: str
    zxid: int


class Gap(msgspec.Struct, tag="gap", tag_field="type", omit_defaults=True):
    """Changes up to `zxid` may be missing; the watch tells of those after it."""

    time: float
    client: str
    watch: str
    zxid: int


class Progress(msgspec.Struct, tag="progress", tag_field="type", omit_defaults=True):
    """The watch has told of everything up to `zxid`."""

    time: float
    client: str
    watch: str
    zxid: int


class WatchEnd(msgspec.Struct, tag="watch_end", tag_field="type", omit_defaults=True):
    """It was removed, or its session ended."""

    time: float
    client: str
    watch: str


class Change(msgspec.Struct, omit_defaults=True):
    """What became of one znode: "created" (with `data`, `owner`), "data_changed" (with `data`),
    "deleted". `owner`: the session of an ephemeral."""

    change: str
    path: str
    data: str | None = None
    owner: str = ""


class Applied(msgspec.Struct, tag="applied", tag_field="type", omit_defaults=True):
    """The truth, where it is known: what this zxid changed, in order; `time` is when the first
    replica applied it. `opened`, `closed`: sessions that began or ended with it; `expired` is true
    when those did not ask for that."""

    time: float
    zxid: int
    changes: list[Change] = []
    opened: list[str] = []
    closed: list[str] = []
    expired: bool = False


class Fault(msgspec.Struct, tag="fault", tag_field="type", omit_defaults=True):
    """Something was done to these replicas, or to the lines between them; `fault` names it."""

    time: float
    fault: str
    replicas: list[int] = []
    details: dict[str, Any] = {}


Record: TypeAlias = (
    Run
    | Invoke
    | Return
    | Session
    | Held
    | Released
    | WatchSet
    | Event
    | Gap
    | Progress
    | WatchEnd
    | Applied
    | Fault
)

_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Record)


class Recorder:
    """Collects the records of one run. `clock` is in seconds; the run begins now."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._ops = 0
        self._watches = 0
        self.records: list[Record] = []

    @property
    def time(self) -> float:
        return round(self._clock() - self._began, 7)

    def add(self, record: Record) -> None:
        self.records.append(record)

    def next_op(self) -> int:
        self._ops += 1
        return self._ops

    def next_watch(self) -> str:
        self._watches += 1
        return f"w{self._watches}"


def encode(records: Iterable[Record]) -> bytes:
    return b"".join(_encoder.encode(record) + b"\n" for record in records)


def decode(lines: bytes) -> Iterator[Record]:
    """Raises ValueError naming the line that is no record."""
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield _decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise ValueError(f"line {number} is no record of a history: {error}") from error


def save(file_path: Path, records: Iterable[Record]) -> None:
    file_path.write_bytes(encode(records))


def load(file_path: Path) -> list[Record]:
    return list(decode(file_path.read_bytes()))
