"""What is made of the times at which writes were acknowledged. Times are in seconds."""

from __future__ import annotations

import pytest

from bench.failover_gaps import Silence, gap_end, longest_silence_s, percentile, silences

FAULT = 10.0


def steady(start: float, end: float) -> list[float]:
    """Acknowledgements every 10 ms."""
    return [start + number / 100 for number in range(round((end - start) * 100))]


def test_silences_around_the_time_looked_at() -> None:
    acked = [1.0, 2.0, 4.0, 7.0, 11.0, 12.0]
    assert silences(acked, 3.0, 8.0) == [Silence(2.0, 4.0), Silence(4.0, 7.0), Silence(7.0, 11.0)]
    assert longest_silence_s(acked, 3.0, 8.0) == 4.0


def test_silences_at_the_very_times() -> None:
    """One that ends with the fault is none of its silences."""
    assert silences([1.0, 2.0, 4.0, 7.0], 2.0, 4.0) == [Silence(2.0, 4.0)]


@pytest.mark.parametrize("acked", [[], [1.0, 2.0], [5.0, 6.0], [3.0]])
def test_a_silence_without_an_end_has_no_length(acked: list[float]) -> None:
    with pytest.raises(ValueError, match="no acknowledgement"):
        silences(acked, 3.0, 4.0)


def test_the_gap_ends_with_the_longest_silence() -> None:
    """Not with the reply that was under way when the fault came, nor with a hiccup after it."""
    acked = [*steady(9, 10), FAULT + 0.002, *steady(11.4, 12), *steady(12.2, 15)]
    assert gap_end(acked, FAULT, 14.0) == 11.4


def test_a_short_gap_does_not_end_with_the_reply_that_was_under_way() -> None:
    acked = [*steady(9, 10), FAULT + 0.002, *steady(10.1, 12)]
    assert gap_end(acked, FAULT, 11.0) == 10.1


def test_a_long_silence_soon_after_the_first_belongs_to_the_gap() -> None:
    acked = [*steady(9, 10), 11.4, *steady(12.5, 13), *steady(13.4, 15), *steady(17, 19)]
    assert gap_end(acked, FAULT, 14.5) == 13.4


def test_a_long_silence_much_later_is_another_matter() -> None:
    acked = [*steady(9, 10), *steady(11.4, 13), *steady(13.9, 15)]
    assert gap_end(acked, FAULT, 14.5) == 11.4
    assert longest_silence_s(acked, 11.4, 14.5) == pytest.approx(0.91)


def test_what_comes_before_the_fault_is_no_gap() -> None:
    acked = [*steady(5, 6), *steady(9, 10), *steady(10.5, 12)]
    assert gap_end(acked, FAULT, 11.0) == 10.5


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(20, 50, 10), (20, 99, 20), (100, 99, 99), (101, 99, 100), (1, 50, 1), (3, 50, 2)],
)
def test_percentiles_are_values_that_were_measured(
    count: int, percent: float, expected: int
) -> None:
    values = [float(each) for each in range(count, 0, -1)]
    assert percentile(values, percent) == expected
