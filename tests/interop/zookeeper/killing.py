"""Replicas that are killed one after another while clients go on."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.interop.zookeeper.ensembles import IDS, Ensemble

KILLS = 6
PERIOD_SECONDS = 10.0
DOWN_SECONDS = 1.0


def kill_in_turn(ensemble: Ensemble) -> None:
    """Every ten seconds the next replica is killed, and started again a second later. To be called
    from the main thread: replicas end with the thread that started them."""
    for n in range(KILLS):
        due = time.monotonic() + PERIOD_SECONDS
        victim = IDS[n % len(IDS)]
        ensemble.kill(victim)
        # The times are the schedule that is tested; nothing is waited for.
        time.sleep(DOWN_SECONDS)
        ensemble.start(victim)
        time.sleep(max(0.0, due - time.monotonic()))


def windows_percent(acknowledged: Sequence[float], start: float, end: float) -> float:
    """How many of the one-second windows from `start` on contain an acknowledged write. The last
    window, if it is not a whole second, does not count."""
    count = int(end - start)
    assert count > 0, "less than one window"
    filled = {int(each - start) for each in acknowledged if start <= each < start + count}
    return 100 * len(filled) / count
