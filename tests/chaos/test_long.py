"""The long forms: each fault three times, in a run of its own."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import clock_faults, disk_faults, partitions, process_faults
from tests.chaos.world import Fault, make_world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

TIMES = 3
HOLD_SECONDS_MAX = 6.0
"""Longer than sessions wait for their clients, and often shorter."""


def hold_seconds() -> float:
    return random.uniform(0.0, HOLD_SECONDS_MAX)


def name_of(fault: Fault) -> str:
    return fault.__name__


def strike(directory: Path, fault: Fault, size: int = 3, **options: Any) -> None:
    with make_world(directory, size, **options) as world:
        for _ in range(TIMES):
            world.strike(fault, hold_seconds())


FAULTS: list[Fault] = [
    partitions.isolated_leader,
    partitions.isolated_from_peers,
    partitions.minority,
    partitions.bridge,
    partitions.mute_leader,
    partitions.deaf_leader,
    partitions.half_heard_follower,
    process_faults.paused_leader,
    process_faults.paused_follower,
    process_faults.killed_leader,
    process_faults.killed_follower,
    process_faults.all_killed,
]


@pytest.mark.parametrize("fault", FAULTS, ids=name_of)
def test_of_three(tmp_path: Path, fault: Fault) -> None:
    strike(tmp_path, fault)


def test_of_three_in_any_order(tmp_path: Path) -> None:
    """One run, so that each fault finds what the others have left."""
    with make_world(tmp_path) as world:
        for fault in random.sample(FAULTS, len(FAULTS)):
            world.strike(fault, hold_seconds() / 2)


@pytest.mark.parametrize(
    "fault", [partitions.isolated_leader, partitions.minority, partitions.bridge], ids=name_of
)
def test_of_five(tmp_path: Path, fault: Fault) -> None:
    strike(tmp_path, fault, 5)


@pytest.mark.parametrize(
    "fault", [process_faults.wiped_follower, process_faults.rejoined_leader], ids=name_of
)
def test_with_nothing(tmp_path: Path, fault: Fault) -> None:
    strike(tmp_path, fault, settings=process_faults.SMALL_LOG, has_truth=False)


def test_a_single_replica_is_killed(tmp_path: Path) -> None:
    strike(tmp_path, process_faults.all_killed, 1)


def test_wrong_clocks(tmp_path: Path) -> None:
    clocks = clock_faults.Clocks(tmp_path)
    environments = clock_faults.environments(tmp_path, 3)
    with make_world(tmp_path, environments=environments, has_truth=False) as world:
        for _ in range(TIMES):
            world.strike(clocks.leader_ahead, hold_seconds())
            world.strike(clocks.leader_replaced_by_one_behind, hold_seconds())


def test_full_disks(tmp_path: Path) -> None:
    with disk_faults.small_disks(tmp_path, (1, 2, 3)) as reason:
        if reason:
            pytest.skip(reason)
        with make_world(tmp_path, settings=disk_faults.SETTINGS, has_truth=False) as world:
            for fault in (disk_faults.full_follower, disk_faults.full_leader) * 2:
                world.strike(fault, hold_seconds())
