"""A cluster of simulated replicas with a counter, and what its callers were told."""

from __future__ import annotations

import asyncio
from typing import Any

from coordsvc.core.commands import (
    NO_CALLER,
    DataSet,
    Reply,
    SetDataOp,
    Write,
)
from coordsvc.errors import (
    NoQuorumError,
    OutcomeUnknownError,
    ShuttingDownError,
)
from coordsvc.testing.raft_simulation import Simulation

Futures = list["asyncio.Future[Reply]"]

INCREMENT = Write(NO_CALLER, SetDataOp("/counter"))
REFUSED = (ShuttingDownError, NoQuorumError)


def ready(size: int = 3, **changes: Any) -> Simulation:
    simulation = Simulation(size, **changes)
    simulation.run_until_ready()
    simulation.done(simulation.create(1, "/counter"))
    return simulation


def version(simulation: Simulation, replica_id: int) -> int:
    return simulation.processes[replica_id].machine.state.znodes["/counter"].stat.version


def tally(futures: Futures) -> tuple[int, int]:
    """(acknowledged, perhaps applied); every increment must have been answered one way."""
    acknowledged = unknown = 0
    versions = []
    for future in futures:
        assert future.done(), "somebody was never answered"
        if future.cancelled() or isinstance(future.exception(), OutcomeUnknownError):
            unknown += 1
        elif future.exception() is None:
            result = future.result().result
            assert isinstance(result, DataSet), result
            versions.append(result.stat.version)
            acknowledged += 1
        else:
            assert isinstance(future.exception(), NoQuorumError | ShuttingDownError)
    assert len(set(versions)) == len(versions), "two increments made the same version"
    return acknowledged, unknown


def assert_counted(simulation: Simulation, futures: Futures) -> None:
    simulation.run_until_equal()
    acknowledged, unknown = tally(futures)
    counted = version(simulation, simulation.leader_id)
    assert acknowledged <= counted <= acknowledged + unknown
