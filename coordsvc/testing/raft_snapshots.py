"""Checkpoints and snapshots in memory, with the delays of a disk, for replicas in simulated time.

A `CheckpointDisk` is what one replica has on disk besides its WAL; it survives a crash. The copies
are real bytes of the machine's records, so what is received is decoded and its digest compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from coordsvc.core.machine import Machine
from coordsvc.core.state import State
from coordsvc.raft.replica_types import SnapshotPort
from coordsvc.testing.manual_wal import ManualWal
from coordsvc.testing.virtual_loop import ProcessLoop

READ_S = 0.0005
VERIFY_S = 0.02


class Info(msgspec.Struct, frozen=True):
    index: int
    term: int
    zxid: int
    digest: int


class Content(msgspec.Struct, frozen=True):
    records: tuple[tuple[int, bytes, bytes], ...]


@dataclass(frozen=True)
class Copy:
    """A snapshot. `info` and `data` are what a checkpoint holds; the id is a hash of it, so two
    copies of one checkpoint are the same."""

    snapshot_id: bytes
    info: Info
    data: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.data)


def encode_machine(machine: Machine) -> bytes:
    return msgspec.msgpack.encode(Content(tuple(machine.state.export_records())))


def decode_machine(data: bytes) -> Machine:
    """Raises msgspec.MsgspecError, KeyError or ValueError for what is no machine."""
    content = msgspec.msgpack.decode(data, type=Content)
    return Machine(State.from_records(content.records))


class CheckpointDisk:
    """`checkpoint` is the one that a start loads; `received` a snapshot that was verified, and
    takes its place once the WAL says so."""

    def __init__(self) -> None:
        self.checkpoint: tuple[Info, bytes] | None = None
        self.received: tuple[Info, bytes] | None = None
        self.made = 0
        self.dropped = 0
        self.installed = 0

    def load(self, wal: ManualWal) -> tuple[Machine | None, tuple[int, int]]:
        """What a start finds: the machine (None: no checkpoint) and the entry it ends with."""
        if self.received is not None:
            info = self.received[0]
            if wal.recovered.installed == (info.index, info.term):
                self.checkpoint = self.received
        self.received = None
        if self.checkpoint is None:
            return None, (1, 0)
        info, data = self.checkpoint
        machine = decode_machine(data)
        assert machine.digest() == info.digest, "the checkpoint is damaged"
        return machine, (info.index, info.term)

    def write(self, machine: Machine, point: tuple[int, int]) -> Callable[[], int]:
        """Captures the state; the call that it returns puts it on disk, and returns its index."""
        info = Info(*point, machine.state.zxid, machine.digest())
        data, installed = encode_machine(machine), self.installed

        def written() -> int:
            # Else a snapshot has taken the place of that state, or a later one was faster.
            is_newest = self.checkpoint is None or self.checkpoint[0].index <= info.index
            if installed == self.installed and is_newest:
                self.checkpoint = (info, data)
            return info.index

        return written


class OutgoingCopies:
    """See `OutgoingSnapshots`. `make_s`: how long a copy takes."""

    def __init__(self, disk: CheckpointDisk, loop: ProcessLoop) -> None:
        self._disk = disk
        self._loop = loop
        self._next = 0.0
        self.make_s = 0.01
        self.held: dict[bytes, Copy] = {}
        self._users: Counter[bytes] = Counter()
        self.damage: Callable[[int, bytes], bytes] = lambda offset, data: data
        """What reading makes of the bytes at an offset."""
        self.is_full = False
        self.is_unreadable = False
        self.refused_at: list[float] = []

    def make(self, done: Callable[[Any | None], None]) -> None:
        assert self._disk.checkpoint is not None, "nothing to copy"
        if self.is_full:
            self.refused_at.append(self._loop.time())
            self._loop.call_later(self.make_s, done, None)
            return
        info, data = self._disk.checkpoint
        copy = Copy(blake2b(data, digest_size=16).digest(), info, data)
        self._disk.made += 1
        self.held[copy.snapshot_id] = copy
        self._users[copy.snapshot_id] += 1
        self._loop.call_later(self.make_s, done, copy)

    def read(
        self, snapshot: Any, offset: int, size: int, done: Callable[[bytes | None], None]
    ) -> None:
        copy = self.held[snapshot.snapshot_id]
        assert 0 <= offset and offset + size <= copy.size_bytes
        self._next = max(self._next + 1e-7, self._loop.time() + READ_S)
        data = None
        if not self.is_unreadable:
            data = self.damage(offset, copy.data[offset : offset + size])
        self._loop.call_later(self._next - self._loop.time(), done, data)

    def drop(self, snapshot: Any) -> None:
        self._disk.dropped += 1
        self._users[snapshot.snapshot_id] -= 1
        if not self._users[snapshot.snapshot_id]:
            del self.held[snapshot.snapshot_id]


class IncomingCopy:
    """See `IncomingSnapshot`."""

    def __init__(self, disk: CheckpointDisk, wal: ManualWal, loop: ProcessLoop) -> None:
        self._disk = disk
        self._wal = wal
        self._loop = loop
        self._next = 0.0
        self._run = 0
        """Calls of another run were discarded."""
        self._info: Any = None
        self._size = 0
        self._data = bytearray()
        self.write_s = READ_S
        self.verify_s = VERIFY_S
        self.steps: list[str] = []
        """What was done, in order; a test may crash the process at one of them."""
        self.on_step: Callable[[str], None] = lambda step: None
        self.full_at: set[str] = set()
        """Steps that a full disk refuses: begin, write, verify."""
        self._refused: Callable[[], None] = lambda: None

    def _is_refused(self, step: str) -> bool:
        if step not in self.full_at:
            return False
        self._run += 1
        self._disk.received = None
        self._step("refused")
        self._refused()
        return True

    def _later(self, seconds: float, job: Callable[[], None]) -> None:
        """In the order of the calls, unless discarded before."""
        self._next = max(self._next + 1e-7, self._loop.time() + seconds)
        run = self._run

        def do() -> None:
            if run == self._run:
                job()

        self._loop.call_later(self._next - self._loop.time(), do)

    def _step(self, step: str) -> None:
        self.steps.append(step)
        self.on_step(step)

    def begin(
        self,
        snapshot_id: bytes,
        info: Any,
        size_bytes: int,
        done: Callable[[], None],
        refused: Callable[[], None],
    ) -> None:
        self._run += 1
        self._refused = refused
        self._info = Info(info.index, info.term, info.zxid, info.digest)
        self._size, self._data = size_bytes, bytearray()
        self._step("begin")
        self._later(self.write_s, lambda: None if self._is_refused("begin") else done())

    def write(self, offset: int, data: bytes, done: Callable[[], None]) -> None:
        def write() -> None:
            if self._is_refused("write"):
                return
            assert offset == len(self._data), f"a write at {offset} after {len(self._data)}"
            self._data += data
            self._step("write")
            done()

        self._later(self.write_s, write)

    def verify(self, done: Callable[[bool], None]) -> None:
        assert len(self._data) == self._size

        def verify() -> None:
            if self._is_refused("verify"):
                return
            is_good = self._is_good()
            if is_good:
                self._disk.received = (self._info, bytes(self._data))
            self._step("verify")
            done(is_good)

        self._later(self.verify_s, verify)

    def _is_good(self) -> bool:
        try:
            machine = decode_machine(bytes(self._data))
        except (msgspec.MsgspecError, KeyError, ValueError):
            return False
        digest: int = self._info.digest
        return machine.digest() == digest

    def install(self, done: Callable[[], None]) -> None:
        received = self._disk.received
        assert received is not None, "only what was verified is installed"
        self._wal.install(received[0].index, received[0].term)
        self._wal.flush()
        end_lsn = self._wal.end_lsn
        self._step("install")

        def when_synced() -> None:
            if self._wal.synced_lsn < end_lsn:
                self._later(0.001, when_synced)
                return
            self._step("synced")
            self._later(self.write_s, renamed)

        def renamed() -> None:
            self._disk.checkpoint, self._disk.received = received, None
            self._disk.installed += 1
            self._step("renamed")
            done()

        self._later(0.0, when_synced)

    def discard(self) -> None:
        self._run += 1
        self._disk.received = None
        self._step("discard")


@dataclass
class FakePort:
    outgoing: OutgoingCopies
    incoming: IncomingCopy

    def port(self) -> SnapshotPort:
        return SnapshotPort(self.outgoing, self.incoming)


def make_port(disk: CheckpointDisk, wal: ManualWal, loop: ProcessLoop) -> FakePort:
    return FakePort(OutgoingCopies(disk, loop), IncomingCopy(disk, wal, loop))
