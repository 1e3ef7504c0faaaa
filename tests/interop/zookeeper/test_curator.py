"""Curator: its recipes, by the program in `curator/`. Each is a test here, told by its line."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import pytest

from tests.interop.zookeeper.ensembles import Ensemble
from tests.interop.zookeeper.killing import KILLS, PERIOD_SECONDS, kill_in_turn
from tests.interop.zookeeper.tools import java_command

PROGRAM_SECONDS = 240

RECIPES = [
    "session",
    "znodes",
    "parents",
    "transactions",
    "acls",
    "ttl",
    "containers",
    "mutex",
    "read-write-lock",
    "semaphore",
    "leader-latch",
    "leader-selector",
    "double-barrier",
    "shared-count",
    "atomic-long",
    "cache",
    "persistent-watcher",
    "persistent-node",
    "group-member",
    "queue",
    "queue-with-locks",
]


def command(hosts: Sequence[str], *arguments: str) -> list[str]:
    return [*java_command("Main"), ",".join(hosts), *arguments]


@pytest.fixture(scope="module")
def done(ensemble: Ensemble) -> subprocess.CompletedProcess[str]:
    """The program, run once."""
    return subprocess.run(
        command(ensemble.hosts),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PROGRAM_SECONDS,
    )


@pytest.mark.timeout(PROGRAM_SECONDS + 60)
@pytest.mark.parametrize("name", RECIPES)
def test_recipe(done: subprocess.CompletedProcess[str], name: str) -> None:
    lines = done.stdout.splitlines()
    assert f"ok {name}" in lines, done.stdout


def test_the_program_ran_these_and_no_others(done: subprocess.CompletedProcess[str]) -> None:
    oks = [line for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert (done.returncode, oks) == (0, [f"ok {name}" for name in RECIPES]), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(PROGRAM_SECONDS + 60)
def test_recipes_go_on_while_replicas_are_killed(mortal_ensemble: Ensemble) -> None:
    """The mutex, by fencing tokens; additions to a znode, the cache of it, and a leader latch."""
    seconds = int(KILLS * PERIOD_SECONDS)
    program = command(mortal_ensemble.hosts, "under-kills", str(seconds))
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            kill_in_turn(mortal_ensemble)
            output, _ = running.communicate(timeout=PROGRAM_SECONDS)
        finally:
            running.kill()
    print("\nCurator: " + output)
    assert running.returncode == 0, output
    assert "ok under-kills" in output.splitlines()
