"""What can be asked by this door, each type once: how its body is read, and what is answered.

`decode` raises JuteError for what cannot be read, and a CoordError for what is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from coordsvc.core.commands import Op
from coordsvc.server.config_model import ClusterConfig
from coordsvc.server.zookeeper import lists, multi, protocol, reads, watch_reads, writes
from coordsvc.server.zookeeper.asking import Read
from coordsvc.server.zookeeper.jute import Reader


@dataclass(frozen=True, slots=True)
class WriteKind:
    """`encode(result, op)` is the body of a success, where `op` is the object `decode` gave."""

    name: str
    decode: Callable[[Reader, ClusterConfig], Op]
    encode: Callable[[Any, Any], bytes]


@dataclass(frozen=True, slots=True)
class ReadKind:
    name: str
    decode: Callable[[Reader], Read]


WRITES: Final[Mapping[int, WriteKind]] = {
    protocol.CREATE: WriteKind("create", writes.create, writes.encode_path),
    protocol.CREATE2: WriteKind("create2", writes.create, writes.encode_path_and_stat),
    protocol.CREATE_CONTAINER: WriteKind(
        "create_container", writes.create_container, writes.encode_path_and_stat
    ),
    protocol.CREATE_TTL: WriteKind("create_ttl", writes.create_ttl, writes.encode_path_and_stat),
    protocol.DELETE: WriteKind("delete", writes.delete, writes.encode_nothing),
    protocol.SET_DATA: WriteKind("set_data", writes.set_data, writes.encode_stat),
    protocol.SET_ACL: WriteKind("set_acl", writes.set_acl, writes.encode_stat),
    protocol.MULTI: WriteKind("multi", multi.decode, multi.encode),
    protocol.CLOSE_SESSION: WriteKind("close_session", writes.close_session, writes.encode_nothing),
}
"""By type."""

READS: Final[Mapping[int, ReadKind]] = {
    protocol.EXISTS: ReadKind("exists", reads.exists),
    protocol.GET_DATA: ReadKind("get_data", reads.get_data),
    protocol.GET_ACL: ReadKind("get_acl", reads.get_acl),
    protocol.GET_CHILDREN: ReadKind("get_children", lists.get_children),
    protocol.GET_CHILDREN2: ReadKind("get_children2", lists.get_children2),
    protocol.SYNC: ReadKind("sync", reads.sync),
    protocol.GET_EPHEMERALS: ReadKind("get_ephemerals", lists.get_ephemerals_of_session),
    protocol.GET_ALL_CHILDREN_NUMBER: ReadKind(
        "get_all_children_number", lists.get_all_children_number
    ),
    protocol.WHO_AM_I: ReadKind("who_am_i", reads.who_am_i),
    protocol.MULTI_READ: ReadKind("multi_read", lists.multi_read),
    protocol.ADD_WATCH: ReadKind("add_watch", watch_reads.add_watch),
    protocol.CHECK_WATCHES: ReadKind("check_watches", watch_reads.check_watches),
    protocol.REMOVE_WATCHES: ReadKind("remove_watches", watch_reads.remove_watches),
    protocol.SET_WATCHES: ReadKind("set_watches", watch_reads.set_watches),
    protocol.SET_WATCHES2: ReadKind("set_watches2", watch_reads.set_watches2),
}
"""By type."""
