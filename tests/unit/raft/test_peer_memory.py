"""What a peer acknowledged to this process, held against what it says it holds on its return."""

from __future__ import annotations

from typing import Any

import pytest

from coordsvc.raft.messages import FORMAT_VERSION, FORMAT_VERSION_MIN, MAGIC, Hello
from coordsvc.raft.peer_memory import PeerMemories
from coordsvc.raft.transport import LinkInfo

PEER = 2
UUID, OTHER_UUID = b"u" * 16, b"w" * 16
FIRST, SECOND = b"first process", b"second process"


def hello(term: int, last_index: int, uuid: bytes = UUID, process: bytes = SECOND) -> Hello:
    fields: dict[str, Any] = {
        "magic": MAGIC,
        "format_version": FORMAT_VERSION,
        "format_version_min": FORMAT_VERSION_MIN,
        "cluster_id": b"",
        "replica_id": PEER,
        "wanted_id": 1,
        "uuid": uuid,
        "term": term,
        "last_index": last_index,
        "frame_bytes_max": 1,
        "member_ids": (1, 2, 3),
        "process": process,
    }
    return Hello(**fields)


def memories() -> PeerMemories:
    """The peer's first process acknowledged everything up to 50 in term 7."""
    memories = PeerMemories((2, 3))
    memories.linked(PEER, LinkInfo(UUID, FIRST, False))
    memories.acknowledged(PEER, 7, 50)
    return memories


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (hello(7, 50), False),
        (hello(7, 80), False),
        (hello(8, 20), False),  # In a later term a log may rightly be shorter.
        (hello(7, 49), True),
        (hello(6, 90), True),
        (hello(0, 1, uuid=OTHER_UUID), True),
        (hello(9, 90, uuid=OTHER_UUID), True),  # It caught up, but voted for who knows whom.
    ],
)
def test_a_new_process_is_compared_with_the_one_before(said: Hello, expected: bool) -> None:
    assert memories().has_forgotten(said) is expected


def test_who_was_never_met_has_forgotten_nothing() -> None:
    assert not PeerMemories((2, 3)).has_forgotten(hello(0, 1))


def test_a_process_that_runs_has_forgotten_nothing() -> None:
    """What it said on one connection may be older than what it acknowledged on the other."""
    assert not memories().has_forgotten(hello(7, 40, process=FIRST))


def test_a_vote_is_remembered_as_its_term() -> None:
    kept = memories()
    kept.acknowledged(PEER, 9, 0)
    assert kept.has_forgotten(hello(8, 99))
    assert not kept.has_forgotten(hello(9, 1))


def test_an_earlier_acknowledgement_takes_nothing_back() -> None:
    kept = memories()
    kept.acknowledged(PEER, 7, 30)
    kept.acknowledged(PEER, 5, 90)
    assert kept.has_forgotten(hello(7, 49))


def test_a_new_disk_begins_anew() -> None:
    kept = memories()
    kept.linked(PEER, LinkInfo(OTHER_UUID, SECOND, True))
    assert not kept.has_forgotten(hello(0, 1, uuid=OTHER_UUID, process=b"third process"))


def test_a_rolled_back_disk_stays_on_record_until_it_has_caught_up() -> None:
    kept = memories()
    kept.linked(PEER, LinkInfo(UUID, SECOND, True))
    assert kept.has_forgotten(hello(7, 45, process=b"third process"))
    assert not kept.has_forgotten(hello(7, 50, process=b"third process"))


def test_who_may_not_have_been_told_is_told_on_the_next_connection() -> None:
    """The connection broke after this side took it for made, before the verdict was read there."""
    kept = memories()
    kept.linked(PEER, LinkInfo(UUID, SECOND, True))
    assert kept.has_forgotten(hello(7, 45, process=SECOND))
