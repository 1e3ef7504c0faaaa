"""The records: everything that apply reads, as immutable structs in five tables.

A record is never changed in place but replaced, so that a thread may write the old one to disk
while the loop goes on. Bytes of a record are msgpack arrays; fields are only ever appended.
Beside the records there are only indexes, which can be made again from them (`state.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final, TypeAlias

import msgspec

from coordsvc.core.commands import (
    CONTAINER,
    EPHEMERAL,
    EPHEMERAL_SEQUENTIAL,
    PERSISTENT,
    PERSISTENT_SEQUENTIAL,
    PERSISTENT_SEQUENTIAL_WITH_TTL,
    PERSISTENT_WITH_TTL,
    Acl,
    AuthId,
    Result,
    Stat,
)

# How a znode ends. Only this part of its create mode outlives the create.
KIND_PERSISTENT, KIND_EPHEMERAL, KIND_CONTAINER, KIND_TTL = 0, 1, 2, 3

MODES: Final[dict[int, tuple[int, bool]]] = {
    PERSISTENT: (KIND_PERSISTENT, False),
    EPHEMERAL: (KIND_EPHEMERAL, False),
    PERSISTENT_SEQUENTIAL: (KIND_PERSISTENT, True),
    EPHEMERAL_SEQUENTIAL: (KIND_EPHEMERAL, True),
    CONTAINER: (KIND_CONTAINER, False),
    PERSISTENT_WITH_TTL: (KIND_TTL, False),
    PERSISTENT_SEQUENTIAL_WITH_TTL: (KIND_TTL, True),
}
"""Create mode -> (kind, sequential)."""

INT64_MAX: Final = 2**63 - 1
"""Where versions, counters and times saturate: the API's integers are signed 64 bit."""

# Limits that apply keeps itself. They are part of the format: a replica with others would diverge.
DATA_BYTES_MAX: Final = 1024 * 1024
MULTI_OPS_MAX: Final = 4_096
"""Applied in one turn of the loop, in some ten milliseconds. The gRPC door takes fewer."""
TTL_MS_MAX: Final = 2**40 - 1
"""ZooKeeper's bound. Ref: EphemeralType.TTL."""
OUTSTANDING_REQUESTS_MAX: Final = 1000
"""Results that are kept per session: a client may have so many writes undone or unconfirmed."""
ACL_ENTRIES_MAX: Final = 256
AUTH_IDS_MAX: Final = 64
ID_BYTES_MAX: Final = 4096
"""A scheme and id together: an x509 subject can be long, a record must stay small."""
CLIENT_NAME_CHARACTERS_MAX: Final = 256
PASSWORD_BYTES: Final = 16
CLUSTER_ID_BYTES: Final = 16
NONCE_BYTES_MAX: Final = 64
TIMEOUT_MS_MAX: Final = 2**31 - 1
REPLICA_ID_MAX: Final = 2**31 - 1


class Znode(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A znode. `creates` counts its children ever created, whatever their mode: the sequence
    counter. `mtime_clock_ms` is the cluster's clock at the last change of data, for its TTL."""

    node_id: int
    path: str
    data: bytes | None
    acl: tuple[Acl, ...]
    stat: Stat
    creates: int = 0
    kind: int = KIND_PERSISTENT
    ttl_ms: int = 0
    mtime_clock_ms: int = 0


class Session(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A session. Results of the requests `done_below` to `last_request_number` are kept. Its
    ephemerals are an index: `State.ephemerals_of`."""

    session_id: int
    password: bytes
    timeout_ms: int
    client_name: str
    attach_epoch: int
    ids: tuple[AuthId, ...] = ()
    last_request_number: int = 0
    done_below: int = 1


class SavedResult(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a numbered request was answered, for its retries. `op_hash` is its operation's."""

    session_id: int
    request_number: int
    zxid: int
    op_hash: bytes
    result: Result


class Origin(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A replica as a source of batches: its present incarnation and the last batch applied."""

    replica_id: int
    incarnation: int
    nonce: bytes
    last_seq: int = 0


class Singletons(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The state's scalars. They change with every entry, so they are gathered when asked for."""

    zxid: int = 0
    time_ms: int = 0
    clock_ms: int = 0
    cluster_id: bytes = b""
    next_node_id: int = 1


Record: TypeAlias = Znode | Session | SavedResult | Origin | Singletons

ZNODES, SESSIONS, RESULTS, ORIGINS, SINGLETONS = 1, 2, 3, 4, 5
"""Numbers of the tables: they are in the digest and, later, on disk."""

_KEY = Struct(">Q")
_RESULT_KEY = Struct(">QQ")

encode_record = msgspec.msgpack.Encoder().encode

_DECODERS: Final[dict[int, msgspec.msgpack.Decoder[Record]]] = {
    ZNODES: msgspec.msgpack.Decoder(Znode),
    SESSIONS: msgspec.msgpack.Decoder(Session),
    RESULTS: msgspec.msgpack.Decoder(SavedResult),
    ORIGINS: msgspec.msgpack.Decoder(Origin),
    SINGLETONS: msgspec.msgpack.Decoder(Singletons),
}


def decode_record(table: int, value: bytes) -> Record:
    """The record whose bytes are `value`. Raises KeyError or msgspec.DecodeError."""
    return _DECODERS[table].decode(value)


key_bytes: Final = _KEY.pack
"""A record's key, a number, in bytes, sorted as the number is. Znodes have their node id as key,
for paths are longer than LMDB's keys may be."""


def result_key_bytes(key: tuple[int, int]) -> bytes:
    return _RESULT_KEY.pack(*key)


class ChangedRecords:
    """Which records changed, with their present value; None: it is gone. Taking this set is
    swapping one object, and what it holds stays as it is while the state goes on."""

    __slots__ = ("origins", "results", "sessions", "znodes")

    def __init__(self) -> None:
        self.znodes: dict[int, Znode | None] = {}
        self.sessions: dict[int, Session | None] = {}
        self.results: dict[tuple[int, int], SavedResult | None] = {}
        self.origins: dict[int, Origin | None] = {}

    def __len__(self) -> int:
        return len(self.znodes) + len(self.sessions) + len(self.results) + len(self.origins)

    def merge(self, later: ChangedRecords) -> None:
        """Add what changed `later`; its values win."""
        self.znodes.update(later.znodes)
        self.sessions.update(later.sessions)
        results = self.results
        for key, result in later.results.items():
            # As `State.drop_results`: it came and went.
            if result is not None or results.pop(key, None) is None:
                results[key] = result
        self.origins.update(later.origins)

    def items(self) -> Iterator[tuple[int, bytes, Record | None]]:
        """(table, key bytes, record or None), table by table."""
        for node_id, znode in self.znodes.items():
            yield ZNODES, key_bytes(node_id), znode
        for session_id, session in self.sessions.items():
            yield SESSIONS, key_bytes(session_id), session
        for result_key, result in self.results.items():
            yield RESULTS, result_key_bytes(result_key), result
        for replica_id, origin in self.origins.items():
            yield ORIGINS, key_bytes(replica_id), origin
