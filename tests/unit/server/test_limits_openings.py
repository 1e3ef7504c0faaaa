"""Opening sessions and streams: a burst, a rate, and a lagging loop that makes both smaller."""

from __future__ import annotations

import pytest

from coordsvc.errors import ThrottledError
from coordsvc.server.config_model import LimitsConfig
from coordsvc.server.limits_openings import (
    FLOOR_BURST,
    FLOOR_PER_S,
    LAG_CLOSED_S,
    LAG_FREE_S,
    RETRY_MS_MIN,
    RETRY_SPREAD_S,
    Openings,
)
from coordsvc.server.stall import TURN_SECONDS

RATE, BURST = 1_000, 400


def openings() -> Openings:
    return Openings(LimitsConfig(openings_per_s_max=RATE, openings_burst_max=BURST))


def admitted(bucket: Openings, now: float, *, is_returning: bool = False) -> int:
    """How many are let in at this moment, one after the other."""
    count = 0
    while True:
        try:
            bucket.admit(now, is_returning=is_returning)
        except ThrottledError:
            return count
        count += 1


def lag(bucket: Openings, now: float, seconds: float) -> float:
    """Two turns, the second one late; the time after it."""
    bucket.turn(now)
    now += TURN_SECONDS + seconds
    bucket.turn(now)
    return now


def test_a_burst_and_then_the_rate() -> None:
    bucket = openings()
    assert admitted(bucket, 0.0) == BURST * 3 // 4
    assert admitted(bucket, 0.0, is_returning=True) == BURST // 4
    # Empty: after 0.2 s there are 200, of which a quarter of the burst is not for new ones.
    assert admitted(bucket, 0.2) == pytest.approx(0.2 * RATE - BURST / 4, abs=1)
    assert bucket.burst_used == pytest.approx(BURST * 3 / 4, abs=1)


@pytest.mark.parametrize("burst", [1, 2, 3, 4, 5])
def test_the_smallest_bucket_lets_somebody_in(burst: int) -> None:
    bucket = Openings(LimitsConfig(openings_per_s_max=1, openings_burst_max=burst))
    assert admitted(bucket, 0.0) == burst - burst // 4
    assert admitted(bucket, burst + 1.0) == burst - burst // 4


def test_it_holds_no_more_than_the_burst_however_long_nobody_came() -> None:
    bucket = openings()
    assert admitted(bucket, 0.0, is_returning=True) == BURST
    assert admitted(bucket, 1e6, is_returning=True) == BURST


def test_those_that_come_back_go_before_new_ones() -> None:
    bucket = openings()
    admitted(bucket, 0.0)
    with pytest.raises(ThrottledError):
        bucket.admit(0.0)
    bucket.admit(0.0, is_returning=True)


def test_a_lagging_loop_closes_it_to_the_floor_and_a_sound_one_opens_it_again() -> None:
    bucket = openings()
    now = lag(bucket, 0.0, LAG_CLOSED_S)
    assert admitted(bucket, now, is_returning=True) == FLOOR_BURST
    later = now + TURN_SECONDS
    assert admitted(bucket, later, is_returning=True) == pytest.approx(
        FLOOR_PER_S * TURN_SECONDS, abs=1
    )
    # One good turn is not enough; half a second of them is.
    bucket.turn(later)
    assert bucket.lag_s > LAG_FREE_S
    for _ in range(10):
        later += TURN_SECONDS
        bucket.turn(later)
    assert bucket.lag_s <= LAG_FREE_S
    assert admitted(bucket, later + 10.0, is_returning=True) == BURST


def test_halfway_it_is_half_open() -> None:
    bucket = openings()
    now = lag(bucket, 0.0, (LAG_FREE_S + LAG_CLOSED_S) / 2)
    assert admitted(bucket, now, is_returning=True) == pytest.approx(BURST / 2, abs=1)


def test_a_little_lag_refuses_nobody() -> None:
    bucket = openings()
    now = lag(bucket, 0.0, LAG_FREE_S)
    assert admitted(bucket, now, is_returning=True) == BURST


def test_the_floor_is_never_above_what_is_configured() -> None:
    bucket = Openings(LimitsConfig(openings_per_s_max=5, openings_burst_max=5))
    now = lag(bucket, 0.0, 10.0)
    assert admitted(bucket, now, is_returning=True) == 5
    assert admitted(bucket, now + 1.0, is_returning=True) == 5


def test_those_refused_are_told_different_times_within_the_spread() -> None:
    """Goal: a herd comes back evenly. Method: ten thousand are refused at once, and their times
    are counted by tenths of a second."""
    bucket = openings()
    admitted(bucket, 0.0)
    times = []
    for _ in range(10_000):
        with pytest.raises(ThrottledError) as caught:
            bucket.admit(0.0)
        times.append(caught.value.retry_after_ms)
    assert min(times) >= RETRY_MS_MIN
    assert max(times) < RETRY_MS_MIN + RETRY_SPREAD_S * 1000
    tenths = [sum(1 for each in times if each // 100 == n) for n in range(1, 21)]
    assert sum(tenths) == 10_000
    assert max(tenths) <= 1.2 * min(tenths), tenths


def test_a_herd_that_keeps_to_its_times_is_in_within_its_size_over_the_rate() -> None:
    """Goal: nobody waits much longer than the rate demands. Method: 5,000 clients come at once
    and come again when they are told to, on a clock of this test."""
    bucket = openings()
    waiting = [0.0] * 5_000
    let_in = 0
    last = 0.0
    while waiting:
        waiting.sort()
        now, *waiting = waiting
        try:
            bucket.admit(now, is_returning=True)
        except ThrottledError as error:
            waiting.append(now + error.retry_after_ms / 1000)
            assert len(waiting) + let_in == 5_000
            continue
        let_in, last = let_in + 1, now
    assert let_in == 5_000
    assert last <= 5_000 / RATE + RETRY_SPREAD_S
