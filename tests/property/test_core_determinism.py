"""Same entries, same bytes: in processes with another hash seed and time zone, and when the
machine is made anew from its records again and again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.property.core_replay import replay
from tests.property.test_core_model import Walk

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def payloads() -> list[bytes]:
    walk = Walk(seed=99)
    for _ in range(600):
        walk.step()
    return walk.pair.core.payloads


@pytest.mark.parametrize(
    ("hash_seed", "time_zone", "rebuild_every"),
    [("0", "UTC", 0), ("1", "Pacific/Kiritimati", 100), ("4242", "America/St_Johns", 7)],
)
def test_other_process(
    payloads: list[bytes], tmp_path: Path, hash_seed: str, time_zone: str, rebuild_every: int
) -> None:
    file_path = tmp_path / "entries"
    file_path.write_bytes(msgspec.msgpack.encode(payloads))
    ran = subprocess.run(
        [sys.executable, "-m", "tests.property.core_replay", str(file_path), str(rebuild_every)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": time_zone, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == replay(payloads, 0)


@pytest.mark.parametrize("rebuild_every", [1, 100])
def test_rebuilt_from_records(payloads: list[bytes], rebuild_every: int) -> None:
    """What is not a record is an index: nothing else may be carried from entry to entry."""
    assert replay(payloads, rebuild_every) == replay(payloads, 0)


def test_replay_notices_a_difference(payloads: list[bytes]) -> None:
    """The comparison can fail: with one entry left out, it does."""
    assert replay(payloads[:-1], 0) != replay(payloads, 0)
