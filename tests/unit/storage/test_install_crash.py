"""A crash at each step of receiving and installing a snapshot: the old state or the new one.

After every operation on the disk, in one run, what a killed process and what several power cuts
would leave is written to a directory of its own; a replica is then started on each.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from coordsvc.core.machine import decode_entry
from coordsvc.testing.fake_disk import FakeDisk
from tests.unit.core.harness import TERM
from tests.unit.storage.mirror_disk import Images, MirrorDisk
from tests.unit.storage.replica_files import Replica
from tests.unit.storage.test_snapshots import Receiver, Sender, whole

OLD_ENTRIES = 12


def crashes(images: Images, label: str, disk: FakeDisk, dice: Random) -> None:
    """A killed process; the power gone, with nothing unsynced left, all of it, or a part."""
    images.add(f"{label}: killed", disk.kill())
    images.add(f"{label}: power cut", disk.power_cut())
    every = range(disk.unsynced_names)
    images.add(f"{label}: names only", disk.power_cut((), every))
    images.add(f"{label}: data only", disk.power_cut(disk.dirty_sectors()))
    kept = [sector for sector in disk.dirty_sectors() if dice.random() < 0.5]
    names = [number for number in every if dice.random() < 0.5]
    images.add(f"{label}: a part", disk.power_cut(kept, names))


@pytest.mark.parametrize("has_checkpoint", [True, False], ids=["checkpoint", "log only"])
@pytest.mark.parametrize("has_entry", [True, False], ids=["same log", "short log"])
def test_the_old_state_or_the_new_one(
    tmp_path: Path, has_checkpoint: bool, has_entry: bool
) -> None:
    """`has_entry`: the receiver's log holds the snapshot's last entry already, and one more."""
    sender = Sender(tmp_path / "sender", entries=30)
    snapshot = sender.make()
    data = whole(sender, snapshot)
    path = tmp_path / "receiver"
    prepare(path, sender, has_checkpoint, has_entry)

    disk = MirrorDisk(str(path))
    images = Images(str(path), tmp_path / "images")
    receiver = Receiver(path, disk)
    old_info, old_digest = receiver.replica.opened.info, receiver.replica.machine.digest()
    old_entries = receiver.replica.opened.wal.recovered.entries
    assert old_info.index < snapshot.info.index
    dice = Random(1)
    step = [0]

    def before(name: str) -> None:
        step[0] += 1
        crashes(images, f"before {step[0]}, {name}", disk.fake, dice)

    disk.on_operation(before)
    receiver.receive(snapshot, data)
    assert receiver.is_verified()
    crashes(images, "verified", disk.fake, dice)
    receiver.install()
    installed_from = len(images.found)
    disk.fake.before_operation = None
    for label, left in (("killed", disk.fake.kill()), ("power cut", disk.fake.power_cut())):
        final = Images(str(path), tmp_path / f"final {label}")
        final.add(label, left)
        again = Replica(final.found[0][1])
        assert again.opened.info == snapshot.info, "an installed snapshot is gone"
        again.stop()

    assert installed_from > 15
    seen = {"old": 0, "new": 0, "completed": 0}
    for label, directory in images.found:
        was_pending = Path(directory, "incoming", "verified.mdb").exists()
        again = Replica(directory)
        log = again.opened.wal.recovered
        if again.opened.info == snapshot.info:
            seen["new"] += 1
            seen["completed"] += was_pending
            assert again.machine.digest() == snapshot.info.digest, label
            assert (log.base_index, log.base_term) == (snapshot.info.index, TERM), label
            tail = [entry for entry in old_entries if entry[1] > snapshot.info.index]
            assert log.entries == tail, label
        else:
            seen["old"] += 1
            assert again.opened.info == old_info, label
            assert log.entries == old_entries and log.installed is None, label
            assert again.machine.digest() == old_digest, label
        # And it goes on from there.
        again.opened.wal.append_entry(b"next", again.index + 1, TERM)
        again.flush()
        again.stop()
        assert Replica(directory).index == again.index + 1, label
    assert seen["old"] > 5 and seen["new"] > seen["completed"] > 0, seen


def prepare(path: Path, sender: Sender, has_checkpoint: bool, has_entry: bool) -> None:
    """A follower of the sender's that has its first entries, or all and one more."""
    replica = Replica(str(path))
    entries = list(sender.replica.harness.payloads)
    if has_entry:
        entries.append(entries[-1])
    else:
        entries = entries[:OLD_ENTRIES]
    for index, payload in enumerate(entries, start=2):
        replica.opened.wal.append_entry(payload, index, TERM)
    replica.flush()
    if has_checkpoint:
        covered = OLD_ENTRIES - 2
        for payload in entries[:covered]:
            replica.machine.apply_entry(decode_entry(payload), TERM)
        replica.index = 1 + covered
        replica.checkpoint()
    replica.stop()
