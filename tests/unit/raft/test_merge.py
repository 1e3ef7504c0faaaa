"""The leader's queue: order, copies, gaps, bounds; and what a forwarded batch must be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsvc.core.commands import (
    NO_CALLER,
    Batch,
    DeleteOp,
    Entry,
    InitCluster,
    RegisterOrigin,
    Write,
)
from coordsvc.core.machine import decode_entry
from coordsvc.raft.adapter import REGULAR
from coordsvc.raft.merge import MergeQueue, check_forwarded
from coordsvc.raft.messages import Forward, PeerProtocolError
from coordsvc.raft.settings import ReplicaSettings

NO_DIGEST = (0, 0)


def queue(**limits: int) -> MergeQueue:
    return MergeQueue(ReplicaSettings(1, **limits))


def raw(replica_id: int = 2, incarnation: int = 10, seq: int = 1, commands: int = 1) -> bytes:
    writes = tuple(Write(NO_CALLER, DeleteOp(f"/{seq}")) for _ in range(commands))
    return msgspec.msgpack.encode(Batch(replica_id, incarnation, seq, writes))


def add(merge: MergeQueue, seq: int, replica_id: int = 2, incarnation: int = 10) -> bool:
    return merge.add(replica_id, incarnation, seq, 1, raw(replica_id, incarnation, seq))


def entries(merge: MergeQueue) -> list[Entry]:
    payloads = list(merge.entries(5, 6, NO_DIGEST))
    assert all(payload[:1] == REGULAR for payload in payloads)
    return [decode_entry(payload[1:]) for payload in payloads]


def seqs(merge: MergeQueue) -> list[int]:
    return [batch.seq for entry in entries(merge) for batch in entry.batches]


def test_everything_of_one_turn_is_one_entry_in_order() -> None:
    merge = queue()
    add(merge, 1, replica_id=2)
    add(merge, 1, replica_id=3)
    add(merge, 2, replica_id=2)
    merge.propose(InitCluster(4, b"c" * 16))
    (entry,) = entries(merge)
    assert [(batch.replica_id, batch.seq) for batch in entry.batches] == [(2, 1), (3, 1), (2, 2)]
    assert entry.leader_commands == (InitCluster(4, b"c" * 16),)
    assert (entry.time_ms, entry.clock_ms) == (5, 6)
    assert not merge


def test_only_the_first_entry_carries_the_digest() -> None:
    """It speaks of the state before all of them."""
    merge = queue(entry_commands_max=1)
    add(merge, 1), add(merge, 2)
    digests = [
        (entry.digest_zxid, entry.digest)
        for entry in (decode_entry(payload[1:]) for payload in merge.entries(0, 0, (7, 99)))
    ]
    assert digests == [(7, 99), (0, 0)]


def test_an_entry_is_cut_by_commands() -> None:
    merge = queue(entry_commands_max=5)
    for seq in range(1, 5):
        merge.add(2, 10, seq, 2, raw(seq=seq, commands=2))
    assert [len(entry.batches) for entry in entries(merge)] == [2, 2]


def test_an_entry_is_cut_by_bytes_but_takes_one_batch_at_least() -> None:
    size = len(raw())
    merge = queue(entry_bytes_max=2 * size)
    for seq in range(1, 6):
        add(merge, seq)
    merge.add(3, 1, 1, 1, raw(3, 1, 1, commands=20))
    assert [len(entry.batches) for entry in entries(merge)] == [2, 2, 1, 1]


def test_a_copy_is_not_taken_twice() -> None:
    merge = queue()
    assert add(merge, 1) and add(merge, 2)
    assert add(merge, 1), "it is in the log already: nothing to send again"
    assert seqs(merge) == [1, 2]
    assert add(merge, 2)
    assert seqs(merge) == [], "also after it has left the queue"


def test_an_earlier_incarnations_copy_is_not_taken() -> None:
    merge = queue()
    add(merge, 1, incarnation=20)
    add(merge, 7, incarnation=10)
    assert seqs(merge) == [1]


def test_a_new_incarnation_begins_anew() -> None:
    merge = queue()
    add(merge, 7, incarnation=10)
    add(merge, 1, incarnation=20)
    assert seqs(merge) == [7, 1]


def test_registrations_are_always_taken() -> None:
    """The state machine answers a copy as the first time, and the origin needs that answer."""
    merge = queue()
    registration = msgspec.msgpack.encode(Batch(2, 0, 0, (RegisterOrigin(2, b"n" * 16),)))
    for _ in range(2):
        assert merge.add(2, 0, 0, 1, registration)
    assert seqs(merge) == [0, 0]


def test_a_full_queue_takes_nothing_and_says_so() -> None:
    merge = queue(merge_bytes_max=2 * len(raw()))
    assert add(merge, 1) and add(merge, 2)
    assert not add(merge, 3)
    assert seqs(merge) == [1, 2]
    assert add(merge, 3)
    assert seqs(merge) == [3]


def test_what_did_not_fit_is_taken_when_it_comes_again() -> None:
    """A large batch is refused, a small one behind it would fit: the origin sends both again, and
    the missing one must not pass for a copy."""
    large = raw(seq=2, commands=50)
    merge = queue(merge_bytes_max=len(large) + len(raw()) - 1)
    assert add(merge, 1)
    assert not merge.add(2, 10, 2, 50, large)
    add(merge, 3)
    taken = seqs(merge)
    assert merge.add(2, 10, 2, 50, large)
    taken += seqs(merge)
    add(merge, 3)
    assert taken + seqs(merge) in ([1, 2, 3], [1, 3, 2, 3])


def test_what_was_lost_before_the_first_is_taken_when_it_comes() -> None:
    merge = queue()
    add(merge, 6)
    assert seqs(merge) == [6]
    assert add(merge, 5) and add(merge, 6) and add(merge, 7)
    assert seqs(merge) == [5, 6, 7]


def test_leaving_the_term_drops_everything() -> None:
    merge = queue()
    add(merge, 1)
    merge.propose(InitCluster(4, b"c" * 16))
    merge.clear()
    assert not merge
    assert add(merge, 1)
    assert seqs(merge) == [1]


def test_the_queue_accounts_for_what_left_it() -> None:
    merge = queue(merge_bytes_max=3 * len(raw()))
    for seq in range(1, 100):
        assert add(merge, seq), f"full at {seq}"
        assert seqs(merge) == [seq]


@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=80))
def test_an_origin_that_sends_again_gets_everything_through(
    arrivals: list[tuple[int, bool]],
) -> None:
    """Any subset of any order arrives; then the origin sends all that was not applied, in order.
    Applied as the state machine does it, everything is, once."""
    merge = queue(merge_bytes_max=3 * len(raw()))
    applied = 0

    def apply() -> None:
        nonlocal applied
        for seq in seqs(merge):
            if seq == applied + 1:
                applied = seq

    for seq, is_turn_over in arrivals:
        add(merge, seq)
        if is_turn_over:
            apply()
    for _ in range(3):
        for seq in range(applied + 1, 7):
            add(merge, seq)
            apply()
    assert applied == 6


# ------------------------------------------------------------------------- forwarded batches


def forward(**changes: Any) -> Forward:
    fields: dict[str, Any] = {"incarnation": 10, "seq": 1, "commands": 1, "batch": raw()}
    return Forward(**(fields | changes))


def test_a_batch_that_is_what_its_envelope_says_passes() -> None:
    check_forwarded(2, forward(), 1000)


@pytest.mark.parametrize(
    "message",
    [
        forward(incarnation=11),
        forward(seq=2),
        forward(commands=2),
        forward(batch=raw(replica_id=3)),
        forward(batch=raw()[:-1]),
        forward(batch=b""),
        forward(batch=b"\xc1"),
        forward(batch=msgspec.msgpack.encode([2, 10, 1, [[99, "unknown kind"]]])),
        forward(batch=msgspec.msgpack.encode({"replica_id": 2})),
        forward(batch=b"\x91" * 5000),
    ],
    ids=range(10),
)
def test_anything_else_breaks_the_connection(message: Forward) -> None:
    """It would be fatal to every replica once it is in the log."""
    with pytest.raises(PeerProtocolError):
        check_forwarded(2, message, 100_000)


def test_an_oversized_batch_breaks_the_connection() -> None:
    with pytest.raises(PeerProtocolError, match="above 10"):
        check_forwarded(2, forward(), 10)
