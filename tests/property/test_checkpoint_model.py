"""Random histories with checkpoints in between: whatever a fresh load gives goes on exactly as the
machine that wrote it."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import msgspec
import pytest

from coordsvc.core.commands import Batch, Caller, Created, CreateOp, Entry, Write
from coordsvc.core.invariants import check_all
from coordsvc.core.machine import Machine, decode_entry
from coordsvc.storage.checkpoint import CheckpointInfo, CheckpointStore
from tests.property.test_core_model import Walk
from tests.unit.core.harness import TERM, Harness

CHECKPOINTS = 200


def replayed(machine: Machine, payloads: list[bytes]) -> list[bytes]:
    """What each entry did, in bytes."""
    return [
        msgspec.msgpack.encode(machine.apply_entry(decode_entry(payload), TERM))
        for payload in payloads
    ]


def copied(store: CheckpointStore, directory: Path) -> str:
    """The bytes of the file as they are now, as another process finds them."""
    directory.mkdir(exist_ok=True)
    shutil.copy(store.file_path, directory)
    return str(directory)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_of_many_checkpoints_loads_and_goes_on_the_same(tmp_path: Path, seed: int) -> None:
    """After each checkpoint: open the file anew, compare the digest, apply the rest of the history
    and compare every result, and the digest at the end."""
    walk = Walk(seed=seed)
    for _ in range(450):
        walk.step()
    payloads = walk.pair.core.payloads
    dice = Random(seed)
    points = sorted(dice.sample(range(1, len(payloads) + 1), CHECKPOINTS))
    live = Machine()
    results = replayed(live, payloads)
    end_digest = live.digest()

    writer = Machine()
    feed = writer.observe_changes(everything=True)
    store = CheckpointStore.open(str(tmp_path))
    done = 0
    for point in points:
        for payload in payloads[done:point]:
            writer.apply_entry(decode_entry(payload), TERM)
        done = point
        info = CheckpointInfo(point, TERM, writer.state.zxid, writer.digest())
        store.write(feed.take(), writer.state.singletons(), info)
        fresh = CheckpointStore.open(copied(store, tmp_path / "copy"))
        assert fresh.info == info
        machine = fresh.load()
        fresh.close()
        assert machine.digest() == info.digest
        check_all(machine.state)
        assert replayed(machine, payloads[point:]) == results[point:]
        assert machine.digest() == end_digest
    store.close()


def test_a_retry_after_the_log_before_it_is_gone(tmp_path: Path) -> None:
    """The result saved in the checkpoint is all that is left of the request."""
    harness = Harness()
    session_id = harness.open_session()
    caller = Caller(session_id, request_number=1, done_below=1)
    sequential = CreateOp("/n-", b"", 2)
    first = harness.write(sequential, caller)
    assert isinstance(first.result, Created) and first.result.path == "/n-0000000000"
    machine = harness.machine
    store = CheckpointStore.open(str(tmp_path))
    info = CheckpointInfo(9, TERM, machine.state.zxid, machine.digest())
    store.write(machine.observe_changes(everything=True).take(), machine.state.singletons(), info)
    loaded = store.load()
    retry = Batch(1, harness.incarnation, harness.seq + 1, (Write(caller, sequential),))
    applied = loaded.apply_entry(Entry(2_000, 1, (retry,)), TERM)
    assert applied.batches[0].replies == (first,)
    assert "/n-0000000001" not in loaded.state.znodes
    assert loaded.state.zxid == machine.state.zxid, "a duplicate takes no zxid"
    store.close()
