"""A leader's wall clock that jumps is reported, once for each jump.

Goal: people go by the times in Stat, so a leader whose clock is set while it leads says so; a clock
that is slowly put right, or another leader's clock, is no jump.
"""

from __future__ import annotations

import pytest

from coordsvc.raft.proposer import WallClockWatch
from tests.unit.raft.replica_scene import ready


def jumps(*stamps: tuple[float, float]) -> int:
    """Of a clock read at these (wall, monotonic) seconds."""
    watch = WallClockWatch()
    for wall_s, monotonic_s in stamps:
        watch.stamped(int(wall_s * 1000), monotonic_s)
    return watch.jumps


def test_time_that_passes_is_no_jump() -> None:
    assert jumps((100.0, 5.0), (100.5, 5.5), (160.0, 65.0), (4000.0, 3905.0)) == 0


@pytest.mark.parametrize("by_s", [1.1, -1.1, 3600.0, -3600.0])
def test_more_than_a_second_is_one(by_s: float) -> None:
    assert jumps((10_000.0, 5.0), (10_001.0 + by_s, 6.0)) == 1
    assert jumps((10_000.0, 5.0), (10_001.0 + by_s, 6.0), (10_002.0 + by_s, 7.0)) == 1, "once"
    assert jumps((10_000.0, 5.0), (10_001.0 + by_s, 6.0), (10_002.0, 7.0)) == 2, "there and back"


def test_less_is_none() -> None:
    assert jumps((100.0, 5.0), (101.9, 6.0), (102.0, 7.0)) == 0


def test_a_clock_that_is_slowly_put_right_is_none() -> None:
    """500 parts in a million is the most that is done; an hour without an entry adds up."""
    assert jumps((0.0, 5.0), (7200.0 * 1.0005, 7205.0)) == 0


def test_the_leader_reports_a_jump_of_its_own_clock(caplog: pytest.LogCaptureFixture) -> None:
    with ready() as simulation:
        leader = simulation.leader
        assert leader is not None
        wall_ms = simulation.clock.wall_ms
        for _ in range(3):
            simulation.done(simulation.write(leader.replica_id))
        assert leader.statistics().clock_jumps == 0
        simulation.clock.wall_ms = lambda: wall_ms() + 5_000  # type: ignore[method-assign]
        for _ in range(3):
            simulation.done(simulation.write(leader.replica_id))
        assert leader.statistics().clock_jumps == 1
        assert [r.by_ms for r in caplog.records if r.message == "clock.jumped"] == [5_000]  # type: ignore[attr-defined]
        follower = simulation.replica(simulation.follower_ids[0])
        assert follower.statistics().clock_jumps == 0


def test_what_the_clock_did_while_another_led_is_not_its_leaders_concern() -> None:
    with ready() as simulation:
        first = simulation.leader
        assert first is not None
        simulation.done(simulation.write(first.replica_id))
        process = simulation.processes[first.replica_id]
        assert simulation.done(process.loop.create_task(first.hand_over())) is True
        wall_ms = simulation.clock.wall_ms
        simulation.clock.wall_ms = lambda: wall_ms() + 5_000  # type: ignore[method-assign]
        second = simulation.leader
        assert second is not None and second is not first
        second_process = simulation.processes[second.replica_id]
        assert simulation.done(second_process.loop.create_task(second.hand_over())) is True
        before = first.statistics().clock_jumps
        while simulation.leader is not first:
            leader = simulation.leader
            assert leader is not None
            task = simulation.processes[leader.replica_id].loop.create_task(leader.hand_over())
            simulation.done(task)
            simulation.run_for(0.1)
        simulation.done(simulation.write(first.replica_id))
        assert first.statistics().clock_jumps == before == 0
