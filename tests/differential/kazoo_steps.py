"""What kazoo, a client library that others wrote, makes of a server: results and exceptions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import KazooException
from kazoo.protocol.states import WatchedEvent, ZnodeStat
from kazoo.security import ACL

from coordsvc.testing.zookeeper_records import Stat
from tests.differential.case import Step
from tests.differential.masks import stat_text
from tests.differential.world import World

# It says when connections are lost, which some cases mean to happen.
logging.getLogger("kazoo").setLevel(logging.CRITICAL)

START_SECONDS = 15.0
EVENT_SECONDS = 10.0

Asked = Callable[[KazooClient, str], Any]
"""Of a client, and of the case's folder."""


@contextmanager
def client(world: World) -> Any:
    host, port = world.servers[world.server]
    kazoo = KazooClient(hosts=f"{host}:{port}", timeout=10.0)
    kazoo.start(START_SECONDS)
    try:
        yield kazoo
    finally:
        kazoo.stop()
        kazoo.close()


def kazoo(text: str, *asked: Asked) -> Step:
    """One client does these one after another."""

    def run(world: World) -> list[str]:
        with client(world) as own:
            return [_outcome(own, world, each) for each in asked]

    return Step(f"kazoo: {text}", run)


def _outcome(own: KazooClient, world: World, asked: Asked) -> str:
    try:
        return shown(asked(own, world.folder), world)
    except KazooException as error:
        return f"raises {type(error).__name__}"


def shown(value: Any, world: World) -> str:
    if isinstance(value, ZnodeStat):
        return stat_text(Stat(*value), world.sessions)
    if isinstance(value, WatchedEvent):
        return f"{value.type} {value.state} {world.shown(value.path)}"
    if isinstance(value, ACL):
        return f"{value.perms}:{value.id.scheme}:{value.id.id}"
    if isinstance(value, Exception):
        return type(value).__name__
    if isinstance(value, str):
        return world.shown(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(shown(each, world) for each in value)}]"
    return repr(value)


class Seen:
    """A watcher that keeps what it is called with."""

    def __init__(self) -> None:
        self._events: list[WatchedEvent] = []
        self._came = threading.Condition()

    def __call__(self, event: WatchedEvent) -> None:
        with self._came:
            self._events.append(event)
            self._came.notify()

    def take(self, count: int) -> list[WatchedEvent]:
        """As soon as there are so many; fewer, if they do not come."""
        with self._came:
            self._came.wait_for(lambda: len(self._events) >= count, EVENT_SECONDS)
            return list(self._events)
