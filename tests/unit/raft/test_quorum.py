"""When agreeing members suffice, over all cases of up to five members."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from coordsvc.raft.quorum import is_quorum


def subsets(members: int) -> Iterator[frozenset[int]]:
    for size in range(members + 1):
        yield from map(frozenset, combinations(range(1, members + 1), size))


@pytest.mark.parametrize(
    ("members", "agreeing", "memoryless", "expected"),
    [
        (1, {1}, set(), True),
        (1, {1}, {1}, True),
        (2, {1}, set(), False),
        (2, {1, 2}, {1, 2}, True),
        (3, {1, 2}, set(), True),
        (3, {1, 2}, {3}, True),
        (3, {1, 2}, {2}, False),
        (3, {1, 2, 3}, {2}, True),
        (3, {1, 2, 3}, {1, 2, 3}, True),
        (4, {1, 2}, set(), False),
        (4, {1, 2, 3}, set(), True),
        (5, {1, 2, 3}, {4, 5}, True),
        (5, {1, 2, 3, 4}, {4}, True),
        (5, {1, 2, 3, 4}, {3, 4}, False),
    ],
)
def test_cases(members: int, agreeing: set[int], memoryless: set[int], expected: bool) -> None:
    assert is_quorum(members, agreeing, memoryless) is expected


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5])
def test_two_quorums_share_somebody_who_remembers(members: int) -> None:
    """Whatever one quorum promised, in any later one is a member that knows of it."""
    for forgotten in subsets(members):
        for first in subsets(members):
            if not is_quorum(members, first, ()):
                continue
            for second in subsets(members):
                if is_quorum(members, second, forgotten) and len(second) < members:
                    assert (first & second) - forgotten


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5])
def test_all_of_them_always_suffice(members: int) -> None:
    everybody = set(range(1, members + 1))
    assert all(is_quorum(members, everybody, forgotten) for forgotten in subsets(members))


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5])
def test_more_agreement_never_harms(members: int) -> None:
    for memoryless in subsets(members):
        for agreeing in subsets(members):
            if is_quorum(members, agreeing, memoryless):
                for further in subsets(members):
                    assert is_quorum(members, agreeing | further, memoryless)
