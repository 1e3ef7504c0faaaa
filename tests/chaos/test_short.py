"""A leader cut off, a follower stopped and a leader killed, under load: the history is in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.partitions import isolated_leader
from tests.chaos.process_faults import killed_leader, paused_follower
from tests.chaos.world import make_world

pytestmark = pytest.mark.timeout(150)

HOLD_SECONDS = 1.0


def test_cut_off_paused_and_killed(tmp_path: Path) -> None:
    with make_world(tmp_path) as world:
        for fault in (isolated_leader, paused_follower, killed_leader):
            world.strike(fault, HOLD_SECONDS)
