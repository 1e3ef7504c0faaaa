"""Simulated runs: the same seed does the same, wherever it runs; what goes wrong is told, with the
command that shows it again. The seeds themselves are run by `make sim`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from coordsvc.raft.node import RaftNode
from coordsvc.testing import simulate, simulated_faults
from coordsvc.testing.history import decode

SEED = 11


def run(hash_seed: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "coordsvc.testing.simulate", "--seed", str(SEED), "--seconds", "6"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_seed_does_the_same_in_every_process(tmp_path: Path) -> None:
    """Also with other hashes, and with other names of directories."""
    told = []
    for hash_seed in ("0", "4711"):
        directory = tmp_path / hash_seed
        directory.mkdir()
        told.append(re.sub(r"simulated in [\d.]+ s", "", run(hash_seed, directory)))
    assert told[0] == told[1]
    assert re.search(r"trace (?!0+ )[0-9a-f]+", told[0])


def test_another_seed_does_something_else(capsys: pytest.CaptureFixture[str]) -> None:
    traces = set()
    for seed in ("1", "2"):
        assert simulate.main(["--seed", seed, "--seconds", "4"]) == 0
        found = re.search(r"trace ([0-9a-f]+)", capsys.readouterr().out)
        assert found is not None
        traces.add(found[1])
    assert len(traces) == 2


@pytest.fixture
def anybody_is_a_majority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftNode, "_is_quorum", lambda node, holders: True)


@pytest.mark.usefixtures("anybody_is_a_majority")
def test_what_is_broken_is_told_with_the_command_that_shows_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert simulate.main(["--seeds", "5", "--jobs", "1", "--stop-at-first"]) == 1
    out = capsys.readouterr().out
    found = re.search(r"make sim SEED=(\d+)", out)
    assert found, out
    assert simulate.main(["--seed", found[1], "--out", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "What happened around it" in told
    assert list(decode((tmp_path / f"seed-{found[1]}.jsonl").read_bytes()))
    assert "replica.leading" in (tmp_path / f"seed-{found[1]}.txt").read_text()


def test_a_run_that_does_too_little_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulated_faults, "WEIGHTS", {"clock_jump": 1.0})
    monkeypatch.setattr(simulate, "SEEDS_FOR_MEANS", 2)
    assert simulate.main(["--seeds", "2", "--jobs", "1", "--seconds", "3"]) == 1
    assert "too little: 0.0 crashes on average" in capsys.readouterr().out


def test_a_seed_that_ends_its_process_counts_as_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simulate, "simulate", lambda *args, **options: os._exit(9))
    assert simulate.main(["--seeds", "1", "--jobs", "1"]) == 1
    assert "its process ended with 9" in capsys.readouterr().out
