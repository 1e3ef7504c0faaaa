"""Bodies of requests against a machine of the core: what a connection does, without one.

What is sent and what comes back is written and read by the tests' own records, which share nothing
with the door's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from coordsvc.core.commands import (
    AuthId,
    Caller,
    CreateOp,
    MultiOp,
    Refusal,
    Reply,
)
from coordsvc.core.state import State
from coordsvc.errors import ErrorCode
from coordsvc.server.config_model import ClusterConfig
from coordsvc.server.zookeeper.asking import Answer
from coordsvc.server.zookeeper.jute import Reader
from coordsvc.server.zookeeper.multi import multi_refused
from coordsvc.server.zookeeper.requests import READS, WRITES
from coordsvc.testing.zookeeper_records import Decoder, Stat
from tests.unit.core.harness import Harness

LIMITS = ClusterConfig()
SUPER = (AuthId("super", ""),)
FRINGE = b"\x7f" * 64
"""Around every body: what a reader must not take for a part of it."""


@dataclass
class RecordedWatches:
    """Stands for a connection's watches. `refusal` is what the next one is refused with."""

    added: list[tuple[str, int]] = field(default_factory=list)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    known: bool = True
    refusal: Refusal | None = None

    def add(self, path: str, kind: int) -> Refusal | None:
        if self.refusal is None:
            self.added.append((path, kind))
        return self.refusal

    def remove(self, path: str, watcher_type: int) -> bool:
        self.asked.append(("remove", path, watcher_type))
        return self.known

    def contains(self, path: str, watcher_type: int) -> bool:
        self.asked.append(("contains", path, watcher_type))
        return self.known

    def catch_up(self, after_zxid: int, *paths: Sequence[str]) -> Iterator[bytes]:
        self.asked.append((after_zxid, *map(list, paths)))
        return iter((b"", b""))


class Front:
    """A tree, a session, and who asks."""

    def __init__(self) -> None:
        self.harness = Harness()
        self.session_id = self.harness.open_session()
        self.watches = RecordedWatches()
        self.ids: tuple[AuthId, ...] = ()
        self.config = b"server.1=a:1:1:participant\nversion=0"

    @property
    def state(self) -> State:
        return self.harness.state

    def config_data(self) -> bytes:
        return self.config

    def create(self, *paths: str, data: bytes | None = b"") -> None:
        for path in paths:
            self.harness.write(CreateOp(path, data))
            assert path in self.state.znodes

    def stat(self, path: str) -> Stat:
        """As it ought to be told."""
        stat = self.state.znodes[path].stat
        return Stat(
            stat.czxid,
            stat.mzxid,
            stat.ctime_ms,
            stat.mtime_ms,
            stat.version,
            stat.cversion,
            stat.aversion,
            stat.ephemeral_owner,
            stat.data_length,
            stat.num_children,
            stat.pzxid,
        )

    # ------------------------------------------------------------------------------------ asking

    def answer(self, op: int, body: bytes) -> Answer:
        read = READS[op].decode(reader_of(body))
        return read.answer(self)  # type: ignore[arg-type]

    def read(self, op: int, body: bytes) -> Decoder:
        """Of one that succeeds, with all of its pieces."""
        answer = self.answer(op, body)
        assert not isinstance(answer, Refusal), answer
        return Decoder(answer if isinstance(answer, bytes) else b"".join(answer))

    def refusal(self, op: int, body: bytes) -> ErrorCode:
        """Of a read."""
        answer = self.answer(op, body)
        assert isinstance(answer, Refusal), answer
        return ErrorCode(answer.code)

    # ------------------------------------------------------------------------------------ writing

    def submit(self, op: int, body: bytes) -> tuple[Any, Reply]:
        """The operation, and what the core says to it, after it went through a log entry."""
        asked = WRITES[op].decode(reader_of(body), LIMITS)
        return asked, self.harness.write(asked, Caller(session_id=self.session_id, ids=self.ids))

    def write(self, op: int, body: bytes) -> Decoder:
        """Of one that succeeds."""
        asked, reply = self.submit(op, body)
        assert not isinstance(reply.result, Refusal), reply
        return Decoder(WRITES[op].encode(reply.result, asked))

    def refused(self, op: int, body: bytes) -> ErrorCode:
        """Of a write that the core refuses."""
        _, reply = self.submit(op, body)
        assert isinstance(reply.result, Refusal), reply
        return ErrorCode(reply.result.code)

    def refused_multi(self, op: int, body: bytes) -> bytes | None:
        asked, reply = self.submit(op, body)
        assert isinstance(asked, MultiOp) and isinstance(reply.result, Refusal), reply
        return multi_refused(asked, reply.result)


def reader_of(body: bytes) -> Reader:
    return Reader(FRINGE + body + FRINGE, len(FRINGE), len(FRINGE) + len(body))
