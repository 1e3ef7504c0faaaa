"""The messages replicas exchange, and their bytes.

A frame is four bytes of length and msgpack of `[sender's term, message]`. Nothing here is ever
pickled, and a message of a kind that is not in this file closes its connection. Every message
carries the term its sender was in when it was said: a reply of another term must not count.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec

FORMAT_VERSION = 1
FORMAT_VERSION_MIN = 1
MAGIC = "coordsvc-peer"
HELLO_BYTES_MAX = 4096
LENGTH = struct.Struct(">I")
TERM_END = 1 << 62
"""No cluster gets there by elections; a replica that took it over could never campaign again."""


class PeerProtocolError(Exception):
    """The other side broke the protocol; its connection is closed."""


# -------------------------------------------------------------------------------- handshake


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """First frame of either side. `cluster_id` is empty while not known; `term` and `last_index`
    let the other side notice that this one has forgotten what it once acknowledged."""

    magic: str
    format_version: int
    format_version_min: int
    cluster_id: bytes
    replica_id: int
    wanted_id: int
    uuid: bytes
    term: int
    last_index: int
    frame_bytes_max: int
    member_ids: tuple[int, ...]
    process: bytes = b""
    """Random per process: one that still runs has forgotten nothing."""


class Verdict(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """Second frame of either side. `forgotten`: you acknowledged more to me than you hold now."""

    accepted: bool
    forgotten: bool
    reason: str


Handshake: TypeAlias = Hello | Verdict

# ------------------------------------------------------------------------------------- Raft


class AppendEntries(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=10):
    """`entries` are (term, payload), contiguous from prev_index + 1."""

    prev_index: int
    prev_term: int
    commit_index: int
    entries: tuple[tuple[int, bytes], ...]


class AppendReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=11):
    """Success: everything below `next_index` is held. Otherwise `next_index` is a hint where to
    go on. `memoryless`: the sender may have forgotten; its word counts only if all agree."""

    success: bool
    next_index: int
    memoryless: bool


class RequestVote(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=12):
    last_index: int
    last_term: int


class ResponseVote(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=13):
    memoryless: bool


class TimeoutNow(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=14):
    pass


class PreVote(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=15):
    """Would you vote for me in `next_term`?"""

    attempt: int
    next_term: int
    last_index: int
    last_term: int


class PreVoteReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=16):
    attempt: int
    granted: bool
    memoryless: bool


class Round(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=17):
    """A leader asks who still follows it. `echo`: the `said_at` of an answer of the receiver that
    came before the latest confirmed round began, 0 if there is none."""

    number: int
    echo: float = 0.0


class RoundReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=18):
    """`said_at` is the sender's own clock, and means something to the sender only."""

    number: int
    memoryless: bool
    said_at: float = 0.0


class ReadIndex(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=19):
    request: int


class ReadIndexReply(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=20):
    request: int
    index: int


class Forward(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=21):
    """One batch of the sender, as it will stand in an entry."""

    incarnation: int
    seq: int
    commands: int
    batch: bytes


class TermNotice(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=22):
    """Answers a message of an older term; the envelope says the present one."""


class Ping(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=23):
    pass


class Held(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=24):
    """Whoever leads the envelope's term was told that the sender holds everything up to `index`; 0
    if nothing yet. For those who were not told: should the sender forget it, they know."""

    index: int


# ------------------------------------------------------------------------------- snapshots


class SnapshotOffer(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=30):
    """The leader has a snapshot of the state after entry `index` for a follower whose next entry
    its log no longer holds. `attempt` grows with each offer; chunks and acknowledgements of another
    attempt are late."""

    snapshot_id: bytes
    attempt: int
    index: int
    term: int
    zxid: int
    digest: int
    size_bytes: int


class SnapshotChunk(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=31):
    snapshot_id: bytes
    attempt: int
    offset: int
    data: bytes


SNAPSHOT_RECEIVED = 0
"""Everything before `position` (bytes) was received; go on there."""
SNAPSHOT_NOT_NEEDED = 1
"""The sender of this has applied everything up to `position` (an index) already."""
SNAPSHOT_DAMAGED = 2
"""All was received and is not the state that was announced."""
SNAPSHOT_REFUSED = 3
"""The follower's disk does not take it; perhaps later."""


class SnapshotAck(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=32):
    """Says nothing about the follower's log or disk, only that it follows and how far the transfer
    is. `memoryless` as in `AppendReply`."""

    snapshot_id: bytes
    attempt: int
    status: int
    position: int
    memoryless: bool


# ---------------------------------------------------------- side messages for the server


class Touch(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=40):
    """Sessions heard by the sender: (session_id, milliseconds since)."""

    term: int
    report_id: int
    sessions: tuple[tuple[int, int], ...]


class TouchAck(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=41):
    """The leader of `term` has taken the report, and a majority confirmed it since."""

    term: int
    report_id: int


class ReplicaInfo(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=42):
    """What a replica tells the others about itself, for Cluster.Status."""

    replica_id: int
    role: int
    client_address: str
    peer_address: str
    term: int
    applied_zxid: int
    applied_index: int
    commit_index: int
    sessions: int
    version: str
    features: tuple[str, ...]
    cluster_config: str = ""
    """Fingerprint of the settings that should be equal everywhere; empty: not told."""
    is_space_low: bool = False
    zookeeper_address: str = ""
    """What ZooKeeper's clients dial; empty: they are not served, or nothing is told."""


RaftMessage: TypeAlias = (
    AppendEntries
    | AppendReply
    | RequestVote
    | ResponseVote
    | TimeoutNow
    | PreVote
    | PreVoteReply
    | Round
    | RoundReply
    | ReadIndex
    | ReadIndexReply
    | Forward
    | TermNotice
    | Ping
    | Held
    | SnapshotOffer
    | SnapshotChunk
    | SnapshotAck
)
SideMessage: TypeAlias = Touch | TouchAck | ReplicaInfo
Message: TypeAlias = RaftMessage | SideMessage

SKIPS_THE_DISK: frozenset[type] = frozenset(
    {AppendEntries, TimeoutNow, PreVote, PreVoteReply, Round, RoundReply, ReadIndex,
     ReadIndexReply, Forward, Touch, TouchAck, Ping,
     SnapshotOffer, SnapshotChunk, SnapshotAck}
)  # fmt: skip
"""Messages that promise nothing about the sender's disk. All others leave only when everything
the sender had appended when it said them is synced."""

_encoder = msgspec.msgpack.Encoder()
_message_decoder = msgspec.msgpack.Decoder(tuple[int, Message])
_handshake_decoder: msgspec.msgpack.Decoder[Handshake] = msgspec.msgpack.Decoder(Handshake)


def encode_frame(term: int, message: Message) -> bytes:
    body = _encoder.encode((term, message))
    return LENGTH.pack(len(body)) + body


def encode_handshake(message: Handshake) -> bytes:
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


def decode_message(body: bytes | memoryview) -> tuple[int, Message]:
    try:
        term, message = _message_decoder.decode(body)
        if not 0 <= term < TERM_END:
            raise PeerProtocolError(f"term {term} is none that a cluster reaches")
        return term, message
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PeerProtocolError(f"undecodable message: {error}") from error


def decode_handshake(body: bytes | memoryview) -> Handshake:
    try:
        return _handshake_decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PeerProtocolError(f"undecodable handshake: {error}") from error
