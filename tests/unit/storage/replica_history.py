"""What a cluster decided: entries in order, the digest after each, snapshots of some of them.

A replica under test is given them as a follower is. Whatever it holds after a fault must be the
state after one of these entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from random import Random

from coordsvc.core.commands import CreateOp, DeleteOp, Op, SetDataOp
from coordsvc.core.machine import Machine
from coordsvc.storage.checkpoint import CheckpointInfo
from coordsvc.storage.files import FileSystem
from coordsvc.storage.snapshots import ID_BYTES
from tests.unit.storage.replica_files import Replica

SIZES = (10, 40, 200, 900, 3000, 9000)
"""The last two need overflow pages."""
SIZE_WEIGHTS = (6, 8, 8, 4, 2, 1)


class Unsynced(FileSystem):
    """For what has to outlive no machine."""

    def fdatasync(self, handle: int) -> None:
        pass

    def fsync_dir(self, dir_path: str) -> None:
        pass


@dataclass(frozen=True)
class SnapshotData:
    snapshot_id: bytes
    info: CheckpointInfo
    data: bytes


class History:
    """Entries from index 2 on; the state before them is an empty machine's, at index 1."""

    def __init__(self, directory: Path, entries: int, snapshot_every: int, seed: int = 1) -> None:
        self.snapshots: list[SnapshotData] = []
        self._digests = {1: Machine().digest()}
        self._dice = Random(seed)
        self._paths: list[str] = []
        self._made = 0
        replica = Replica(str(directory), Unsynced())
        self._note(replica)
        replica.harness.open_session()
        self._note(replica)
        while replica.index <= entries:
            replica.harness.write(self._choose())
            self._note(replica)
            if replica.index % snapshot_every == 0:
                self._snapshot(replica, directory)
        self._payloads = replica.harness.payloads
        replica.stop()

    @property
    def last_index(self) -> int:
        return len(self._payloads) + 1

    def payload(self, index: int) -> bytes:
        return self._payloads[index - 2]

    def digest(self, index: int) -> int:
        return self._digests[index]

    def _note(self, replica: Replica) -> None:
        """One entry. The first one of all is the harness's own."""
        replica.log_new()
        self._digests[replica.index] = replica.machine.digest()

    def _choose(self) -> Op:
        dice = self._dice
        size = dice.choices(SIZES, SIZE_WEIGHTS)[0]
        data = bytes([dice.randrange(256)]) * size
        kind = dice.random()
        if kind < 0.6 or len(self._paths) < 5:
            self._made += 1
            path = f"/znode-{self._made}"
            self._paths.append(path)
            return CreateOp(path, data)
        if kind < 0.85:
            return SetDataOp(dice.choice(self._paths), data)
        return DeleteOp(self._paths.pop(dice.randrange(len(self._paths))))

    def _snapshot(self, replica: Replica, directory: Path) -> None:
        replica.checkpoint()
        path = directory / f"copy-{replica.index}.mdb"
        info = replica.opened.store.copy_to(str(path))
        data = path.read_bytes()
        snapshot_id = blake2b(data, digest_size=ID_BYTES).digest()
        self.snapshots.append(SnapshotData(snapshot_id, info, data))
