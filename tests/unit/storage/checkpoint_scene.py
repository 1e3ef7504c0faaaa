"""A machine with a checkpoint, and the entries to drive it with."""

from __future__ import annotations

import shutil
from pathlib import Path

from coordsvc.core.commands import (
    AppliedEntry,
    Batch,
    Caller,
    CreateOp,
    DeleteOp,
    Entry,
    Op,
    RegisterOrigin,
    SetDataOp,
    Write,
)
from coordsvc.core.machine import Machine
from coordsvc.storage.checkpoint import CheckpointInfo, CheckpointStore, CheckpointWritten
from tests.unit.core.harness import TERM, Harness


class Kept:
    """A machine whose changes go into a store."""

    def __init__(self, directory: Path, store: CheckpointStore | None = None) -> None:
        self.harness = Harness()
        self.machine: Machine = self.harness.machine
        self.store = store or CheckpointStore.open(str(directory))
        self.feed = self.machine.observe_changes(everything=True)
        self.index = 1

    def info(self) -> CheckpointInfo:
        return CheckpointInfo(self.index, TERM, self.machine.state.zxid, self.machine.digest())

    def checkpoint(self) -> CheckpointWritten:
        self.index += 10
        info = self.info()
        return self.store.write(self.feed.take(), self.machine.state.singletons(), info)

    def create(self, count: int, size: int = 20) -> None:
        for number in range(count):
            self.harness.write(CreateOp(f"/n{self.index}-{number}", bytes([number % 251]) * size))

    def set(self, path: str, data: bytes) -> None:
        self.harness.write(SetDataOp(path, data))

    def delete(self, path: str) -> None:
        self.harness.write(DeleteOp(path))


def copied(file_path: str, directory: Path) -> CheckpointStore:
    """Another store over the bytes of the file as they are."""
    directory.mkdir()
    shutil.copy(file_path, directory / "checkpoint.mdb")
    return CheckpointStore.open(str(directory))


class Bulk:
    """A machine with many znodes, made without checking every entry."""

    def __init__(self, znodes: int) -> None:
        self.machine = Machine()
        self._seq = 0
        register = Batch(1, 0, 0, (RegisterOrigin(1, b"nonce"),))
        self.machine.apply_entry(Entry(1, 1, (register,)), TERM)
        self.write(*(CreateOp(f"/d{number}", b"") for number in range(100)))
        for start in range(0, znodes, 500):
            numbers = range(start, min(start + 500, znodes))
            self.write(*(CreateOp(f"/d{n % 100}/n{n}", b"x" * 100) for n in numbers))

    def write(self, *ops: Op) -> AppliedEntry:
        self._seq += 1
        incarnation = self.machine.state.origins[1].incarnation
        batch = Batch(1, incarnation, self._seq, tuple(Write(Caller(), op) for op in ops))
        return self.machine.apply_entry(Entry(1, 1, (batch,)), TERM)
