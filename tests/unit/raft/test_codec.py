"""The bytes replicas exchange.

Goal: whatever bytes arrive, the outcome is a message or a PeerProtocolError, never another
exception, never code that runs; a member's nonsense harms no more than its own connection.
"""

from __future__ import annotations

import pickle
import random
import zlib
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsvc.raft.messages import (
    FORMAT_VERSION,
    FORMAT_VERSION_MIN,
    LENGTH,
    MAGIC,
    SKIPS_THE_DISK,
    AppendEntries,
    AppendReply,
    Forward,
    Held,
    Hello,
    Message,
    PeerProtocolError,
    Ping,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    ReplicaInfo,
    RequestVote,
    ResponseVote,
    Round,
    RoundReply,
    SnapshotAck,
    SnapshotChunk,
    SnapshotOffer,
    TermNotice,
    TimeoutNow,
    Touch,
    TouchAck,
    Verdict,
    decode_handshake,
    decode_message,
    encode_frame,
    encode_handshake,
)
from coordsvc.raft.node import TwoLeadersError
from coordsvc.testing.raft_harness import RaftCluster

EXAMPLES: list[Message] = [
    AppendEntries(7, 3, 6, ((3, b"\x01"), (4, b"\x00abc"))),
    AppendReply(True, 9, False),
    RequestVote(12, 4),
    ResponseVote(True),
    TimeoutNow(),
    PreVote(1, 5, 12, 4),
    PreVoteReply(1, True, False),
    Round(77, 76),
    RoundReply(77, False),
    ReadIndex(4),
    ReadIndexReply(4, 1234),
    Forward(10, 2, 1, b"\x94"),
    TermNotice(),
    Ping(),
    Held(1234),
    SnapshotOffer(bytes(16), 1, 900, 3, 1234, 1 << 63, 1 << 20),
    SnapshotChunk(bytes(16), 1, 65536, b"page"),
    SnapshotAck(bytes(16), 1, 0, 131072, False),
    Touch(4, 9, ((0x1A, 250),)),
    TouchAck(4, 9),
    ReplicaInfo(1, 2, "a:1", "a:2", 4, 100, 90, 91, 5, "0.1", ("x",)),
]
KINDS = (*EXAMPLES, Hello("m", 1, 1, b"", 1, 2, b"u", 0, 1, 9, (1, 2)), Verdict(True, False, ""))


def body_of(frame: bytes) -> bytes:
    (length,) = LENGTH.unpack_from(frame)
    assert length == len(frame) - LENGTH.size
    return frame[LENGTH.size :]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_there_and_back(message: Message) -> None:
    assert decode_message(body_of(encode_frame(3, message))) == (3, message)


def test_every_kind_has_an_example() -> None:
    kinds = {kind for alias in get_args(Message) for kind in (get_args(alias) or (alias,))}
    assert {type(message) for message in EXAMPLES} == kinds


def test_tags_are_wire_format() -> None:
    """A number is never reused and never changed: replicas of two versions talk to each other."""
    tags = {type(message).__name__: type(message).__struct_config__.tag for message in KINDS}
    assert tags == {
        "Hello": 1,
        "Verdict": 2,
        "AppendEntries": 10,
        "AppendReply": 11,
        "RequestVote": 12,
        "ResponseVote": 13,
        "TimeoutNow": 14,
        "PreVote": 15,
        "PreVoteReply": 16,
        "Round": 17,
        "RoundReply": 18,
        "ReadIndex": 19,
        "ReadIndexReply": 20,
        "Forward": 21,
        "TermNotice": 22,
        "Ping": 23,
        "Held": 24,
        "SnapshotOffer": 30,
        "SnapshotChunk": 31,
        "SnapshotAck": 32,
        "Touch": 40,
        "TouchAck": 41,
        "ReplicaInfo": 42,
    }


def test_what_promises_waits_for_the_disk() -> None:
    waiting = {type(message) for message in EXAMPLES} - SKIPS_THE_DISK
    # ReplicaInfo is only told, but it is rare: it may wait.
    assert waiting - {ReplicaInfo} == {
        AppendReply,
        RequestVote,
        ResponseVote,
        TermNotice,
        Held,
    }


def test_fields_of_a_later_version_are_ignored() -> None:
    frame = msgspec.msgpack.encode((3, [14, "something new"]))
    assert decode_message(frame) == (3, TimeoutNow())


@pytest.mark.parametrize("tag", [0, 1, 2, 9, 25, 39, 43, 1000, -1, "10", None])
def test_unknown_kinds_are_refused(tag: Any) -> None:
    with pytest.raises(PeerProtocolError):
        decode_message(msgspec.msgpack.encode((3, [tag, 1, 2, 3, 4])))


def test_the_librarys_own_messages_are_refused() -> None:
    """Snapshot chunks and parts of entries would move the commit index past what was checked."""
    for message in (
        {"type": "append_entries", "term": 3, "commit_index": 50, "serialized": (b"", True, True)},
        {"type": "append_entries", "term": 3, "transmission": "start", "data": b"x"},
        {"type": "apply_command", "command": b"x"},
    ):
        for body in (
            msgspec.msgpack.encode((3, message)),
            pickle.dumps(message, 2),
            zlib.compress(pickle.dumps(message, 2)),
        ):
            with pytest.raises(PeerProtocolError):
                decode_message(body)
            with pytest.raises(PeerProtocolError):
                decode_handshake(body)


def test_a_handshake_is_no_message_and_a_message_no_handshake() -> None:
    hello = encode_handshake(Verdict(True, False, ""))
    with pytest.raises(PeerProtocolError):
        decode_message(body_of(hello))
    with pytest.raises(PeerProtocolError):
        decode_handshake(body_of(encode_frame(3, Ping())))


def test_the_handshake_names_this_protocol() -> None:
    assert MAGIC == "coordsvc-peer"
    assert 1 <= FORMAT_VERSION_MIN <= FORMAT_VERSION


@given(st.binary(max_size=300))
def test_garbage_is_refused(body: bytes) -> None:
    for decode in (decode_message, decode_handshake):
        try:
            decode(body)
        except PeerProtocolError:
            pass


@pytest.mark.parametrize(
    "body", [b"\x91" * 100_000, b"\x81\xa1a" * 50_000, b"\xdd\xff\xff\xff\xff"]
)
def test_deep_and_huge_structures_are_refused(body: bytes) -> None:
    for decode in (decode_message, decode_handshake):
        with pytest.raises(PeerProtocolError):
            decode(body)


def test_each_bit_of_a_frame_may_flip() -> None:
    for message in EXAMPLES:
        body = bytearray(body_of(encode_frame(3, message)))
        for bit in range(len(body) * 8):
            body[bit // 8] ^= 1 << bit % 8
            try:
                decode_message(bytes(body))
            except PeerProtocolError:
                pass
            body[bit // 8] ^= 1 << bit % 8


def test_a_truncated_frame_is_refused() -> None:
    for message in EXAMPLES:
        body = body_of(encode_frame(3, message))
        for length in range(len(body)):
            with pytest.raises(PeerProtocolError):
                decode_message(body[:length])


@pytest.mark.parametrize("seed", range(20))
def test_a_members_nonsense_harms_its_connection_only(seed: int) -> None:
    """Well-formed messages with numbers of any size, from a member: the node takes them, refuses
    them, or finds two leaders; no other exception, and its log and commit index stay in order."""
    rng = random.Random(seed)
    cluster = RaftCluster(3, seed=seed)
    cluster.elect()
    numbers = [0, 1, 2, 3, 4, 5, 10, -1, -5, 2**31, 2**40, 2**63, 2**64 - 1]

    def number() -> int:
        return rng.choice(numbers)

    def entries() -> tuple[tuple[int, bytes], ...]:
        return tuple((number(), b"\x00x") for _ in range(rng.randint(0, 3)))

    for _ in range(500):
        host = cluster.hosts[rng.randint(1, 3)]
        message: Message = rng.choice(
            [
                AppendEntries(number(), number(), number(), entries()),
                AppendReply(rng.random() < 0.5, number(), rng.random() < 0.5),
                RequestVote(number(), number()),
                ResponseVote(rng.random() < 0.5),
                TimeoutNow(),
                PreVote(number(), number(), number(), number()),
                PreVoteReply(number(), rng.random() < 0.5, rng.random() < 0.5),
                TermNotice(),
            ]
        )
        source = rng.choice([i for i in cluster.ids if i != host.replica_id])
        term = host.node.term + rng.choice([-1, 0, 0, 0, 0, 0, 1])
        before = host.node.commit_index
        try:
            host.node.receive(source, term, message, cluster.clock.now)
        except (PeerProtocolError, TwoLeadersError):
            pass
        assert before <= host.node.commit_index <= host.journal.last_index
        host.node.tick(cluster.clock.now)
        host.end_turn(cluster.clock.now)
        host.wal.sync_all()
        cluster.clock.now += 0.01


@pytest.mark.parametrize("term", [-1, 2**62, 2**63, 2**64 - 1])
def test_a_term_no_cluster_reaches_is_refused(term: int) -> None:
    """A term is taken over from whoever says it and kept on disk: one flipped bit must not bring
    the cluster to the last number there is, from where no election can go on."""
    with pytest.raises(PeerProtocolError):
        decode_message(msgspec.msgpack.encode((term, TermNotice())))
