"""The ZooKeeper door of a server, put together, and what those who watch over it are told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from coordsvc.server.config_model import ServerConfig
from coordsvc.server.members import Members
from coordsvc.server.pipeline import Pipeline
from coordsvc.server.replica_port import ReplicaPort
from coordsvc.server.session_reports import SessionReports
from coordsvc.server.watch_hub import WatchHub
from coordsvc.server.zookeeper import four_letter
from coordsvc.server.zookeeper.config_znode import config_data
from coordsvc.server.zookeeper.door import Door
from coordsvc.server.zookeeper.monitoring import Monitored


class HasParts(Protocol):
    """What of a Server it is made of."""

    config: ServerConfig
    pipeline: Pipeline
    replica: ReplicaPort
    reports: SessionReports
    hub: WatchHub
    members: Members
    zookeeper: Door | None

    @property
    def is_ready(self) -> bool: ...


def monitored(server: HasParts) -> Monitored:
    return Monitored(
        config=server.config,
        replica=server.replica,
        hub=server.hub,
        members=server.members,
        members_text=lambda: config_data(server.members),
        is_ready=lambda: server.is_ready,
        door=lambda: server.zookeeper,
        started_at=server.replica.clock.monotonic(),
    )


def make_door(server: HasParts, about: Monitored) -> Door:
    return Door(
        server.config,
        server.pipeline,
        server.replica,
        server.reports,
        server.hub,
        config_data=about.members_text,
        word_answer=_word_answer(about),
    )


def _word_answer(about: Monitored) -> Callable[[bytes], bytes | None]:
    allowed = four_letter.parse_allowed(about.config.zookeeper_four_letter_words)

    def answer(first: bytes) -> bytes | None:
        if not four_letter.is_word(first):
            return None
        return four_letter.answer(first.decode("ascii"), about, allowed).encode()

    return answer
