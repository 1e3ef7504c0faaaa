"""How the share of seconds with an acknowledged write is counted."""

from __future__ import annotations

import pytest

from tests.interop.zookeeper.killing import windows_percent


@pytest.mark.parametrize(
    ("acknowledged", "percent"),
    [
        ([], 0),
        ([10.0, 10.1, 10.9], 25),
        ([10.5, 11.5, 12.5, 13.5], 100),
        ([9.9, 14.0, 14.1, 15.0], 0),
        ([10.0, 13.999], 50),
    ],
)
def test_windows(acknowledged: list[float], percent: float) -> None:
    assert windows_percent(acknowledged, 10.0, 14.7) == percent
