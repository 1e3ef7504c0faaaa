"""The bodies of requests about the watches of their connection.

Ref: ZooKeeper FinalRequestProcessor, Watcher.WatcherType, ZooDefs.AddWatchModes.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from coordsvc.core.commands import Refusal
from coordsvc.core.watches import PERSISTENT, PERSISTENT_RECURSIVE
from coordsvc.errors import ErrorCode, MarshallingError
from coordsvc.server.zookeeper import jute
from coordsvc.server.zookeeper.asking import Answer, Asker, Read
from coordsvc.server.zookeeper.jute import Reader
from coordsvc.server.zookeeper.protocol import (
    ADD_PERSISTENT,
    ADD_PERSISTENT_RECURSIVE,
    OK,
    WATCHER_ANY,
    WATCHER_CHILDREN,
    WATCHER_DATA,
    WATCHER_PERSISTENT,
    WATCHER_PERSISTENT_RECURSIVE,
)
from coordsvc.server.zookeeper.reads import path_of

_KINDS: Final = {
    ADD_PERSISTENT: PERSISTENT,
    ADD_PERSISTENT_RECURSIVE: PERSISTENT_RECURSIVE,
}
_WATCHER_TYPES: Final = (
    WATCHER_CHILDREN,
    WATCHER_DATA,
    WATCHER_ANY,
    WATCHER_PERSISTENT,
    WATCHER_PERSISTENT_RECURSIVE,
)

_NO_WATCHER: Final = Refusal(int(ErrorCode.NO_WATCHER))


def set_watches(reader: Reader) -> Read:
    """What a client has after a new connection: of data, of existence, of children."""
    after_zxid = reader.int64()
    return Read(partial(_set_watches, after_zxid, [_paths(reader) for _ in range(3)]))


def set_watches2(reader: Reader) -> Read:
    """And persistent ones, and recursive ones."""
    after_zxid = reader.int64()
    return Read(partial(_set_watches, after_zxid, [_paths(reader) for _ in range(5)]))


def _set_watches(after_zxid: int, paths: list[list[str]], asker: Asker) -> Answer:
    return asker.watches.catch_up(after_zxid, *paths)


def _paths(reader: Reader) -> list[str]:
    return [path_of(reader) for _ in range(reader.count())]


def add_watch(reader: Reader) -> Read:
    """MARSHALLING_ERROR, as in ZooKeeper, for an unknown mode."""
    path, mode = path_of(reader), reader.int32()
    kind = _KINDS.get(mode)
    if kind is None:
        raise MarshallingError(f"unknown mode {mode} of watches", path=path)
    return Read(partial(_add_watch, path, kind))


def _add_watch(path: str, kind: int, asker: Asker) -> Answer:
    """Whether or not anything is there, and whoever may read it."""
    refusal = asker.watches.add(path, kind)
    return refusal if refusal is not None else jute.int32(OK)


def check_watches(reader: Reader) -> Read:
    path, watcher_type = _watcher(reader)
    return Read(lambda asker: _found(asker.watches.contains(path, watcher_type)))


def remove_watches(reader: Reader) -> Read:
    path, watcher_type = _watcher(reader)
    return Read(lambda asker: _found(asker.watches.remove(path, watcher_type)))


def _watcher(reader: Reader) -> tuple[str, int]:
    """MARSHALLING_ERROR, as in ZooKeeper, for an unknown type."""
    path, watcher_type = path_of(reader), reader.int32()
    if watcher_type not in _WATCHER_TYPES:
        raise MarshallingError(f"unknown type {watcher_type} of watches", path=path)
    return path, watcher_type


def _found(is_found: bool) -> Answer:
    return b"" if is_found else _NO_WATCHER
