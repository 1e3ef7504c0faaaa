"""Setting a replica's state aside: complete, repeatable after a kill, and never by accident."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordsvc.cli.main import main
from coordsvc.exit_status import ExitStatus
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.errors import CorruptionError, DataDirRefusedError
from coordsvc.storage.files import FileSystem
from coordsvc.storage.meta import Meta, decode_meta, encode_meta
from coordsvc.storage.rejoin import Rejoined, rejoin
from coordsvc.testing.fake_disk import SimulatedCrash
from tests.unit.storage.mirror_disk import Images, MirrorDisk
from tests.unit.storage.replica_files import Replica

MEMBERS = (1, 2, 3)
NOON = 1_700_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A stopped replica of three with a log, a checkpoint and a snapshot under way."""
    path = str(tmp_path / "data")
    make(path, MEMBERS)
    return path


def make(path: str, members: tuple[int, ...]) -> None:
    replica = Replica(path, members=members)
    replica.data_dir.set_cluster_id(b"c" * 16)
    replica.run(30)
    replica.checkpoint()
    replica.drop_before(replica.index + 1)
    replica.opened.wal.set_voter(True)
    replica.flush()
    replica.stop()
    os.makedirs(os.path.join(path, "incoming"))
    Path(path, "incoming", "receiving.mdb").write_bytes(b"half")


def set_aside(path: str, **options: bool) -> Rejoined:
    return rejoin(path, FileSystem(), now=lambda: NOON, **options)


def meta_of(path: str) -> Meta:
    return decode_meta(Path(path, "META").read_bytes(), path)


def test_everything_is_set_aside_and_the_replica_has_forgotten(path: str) -> None:
    before = meta_of(path)
    done = set_aside(path)
    assert done.set_aside == os.path.join(path, "set-aside-20231114T221320Z")
    assert done.moved == ("wal", "checkpoint.mdb", "incoming")
    assert sorted(os.listdir(path)) == ["LOCK", "META", "set-aside-20231114T221320Z"]
    assert sorted(os.listdir(done.set_aside)) == ["META", "checkpoint.mdb", "incoming", "wal"]
    after = meta_of(path)
    assert done.meta == after and after.uuid != before.uuid
    assert (after.replica_id, after.members) == (1, MEMBERS)
    assert after.cluster_id == before.cluster_id == (b"c" * 16).hex()
    assert (after.has_log, after.lmdb_engine, after.synced_lsn) == (False, "", 0)
    again = Replica(path, members=MEMBERS)
    log = again.opened.wal.recovered
    assert again.opened.store.info is None and log.is_new and not log.voter
    assert again.data_dir.cluster_id == b"c" * 16


def test_what_was_set_aside_can_be_put_back(path: str) -> None:
    done = set_aside(path)
    for name in ("META", "wal", "checkpoint.mdb"):
        os.rename(os.path.join(done.set_aside, name), os.path.join(path, name))
    assert Replica(path, members=MEMBERS).opened.info.index > 20


def test_twice(path: str) -> None:
    first = set_aside(path)
    second = set_aside(path)
    assert second.moved == () and second.set_aside == ""
    assert first.meta is not None and second.meta is not None
    assert second.meta.uuid != first.meta.uuid
    Replica(path, members=MEMBERS).stop()
    third = set_aside(path)
    assert third.moved == ("wal",) and third.set_aside == first.set_aside + "-2"


def damage(path: str) -> None:
    content = bytearray(Path(path, "META").read_bytes())
    content[40] ^= 1
    Path(path, "META").write_bytes(content)


def lose(path: str) -> None:
    os.unlink(os.path.join(path, "META"))


@pytest.mark.parametrize(("spoil", "moved"), [(damage, ("META",)), (lose, ())])
def test_without_a_meta_the_next_start_decides(
    path: str, spoil: Callable[[str], None], moved: tuple[str, ...]
) -> None:
    spoil(path)
    with pytest.raises(CorruptionError, match="coordsvc rejoin"):
        Replica(path, members=MEMBERS)
    done = set_aside(path)
    assert done.meta is None and done.moved == ("wal", "checkpoint.mdb", "incoming", *moved)
    assert set_aside(path) == Rejoined("", (), None), "once more there is nothing left to do"
    again = Replica(path, members=MEMBERS)
    assert again.data_dir.is_new and again.opened.wal.recovered.is_new


@pytest.mark.parametrize("name", ["wal", "checkpoint.mdb"])
def test_what_is_missing_is_no_obstacle(path: str, name: str) -> None:
    os.rename(os.path.join(path, name), os.path.join(path, "gone"))
    with pytest.raises(CorruptionError, match="coordsvc rejoin"):
        Replica(path, members=MEMBERS)
    set_aside(path)
    assert Replica(path, members=MEMBERS).opened.wal.recovered.is_new


def test_the_only_replica_does_not_lose_everything_by_accident(tmp_path: Path) -> None:
    path = str(tmp_path / "alone")
    make(path, (1,))
    before = sorted(os.listdir(path))
    with pytest.raises(DataDirRefusedError, match="all of it would be lost.*--discard-only-copy"):
        set_aside(path)
    assert sorted(os.listdir(path)) == before
    Replica(path).stop()
    done = set_aside(path, discard_only_copy=True)
    assert done.meta is not None and done.meta.cluster_id == "", "it is another cluster from now on"
    assert Replica(path).opened.wal.recovered.is_new


def test_one_in_use_is_refused(path: str) -> None:
    running = Replica(path, members=MEMBERS)
    with pytest.raises(DataDirRefusedError, match=f"in use by process {os.getpid()}"):
        set_aside(path)
    running.stop()
    set_aside(path)


def test_what_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataDirRefusedError, match="is no data directory"):
            set_aside(str(path))
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_newer_format_is_refused(path: str) -> None:
    meta = decode_meta(Path(path, "META").read_bytes(), path)
    newer = Meta(format=99, replica_id=1, members=meta.members, uuid=meta.uuid)
    Path(path, "META").write_bytes(encode_meta(newer))
    with pytest.raises(DataDirRefusedError, match="has format 99"):
        set_aside(path)
    assert os.path.exists(os.path.join(path, "wal"))


@pytest.mark.parametrize("spoil", [None, damage], ids=["whole META", "damaged META"])
def test_killed_at_each_step_it_can_be_repeated(
    path: str, tmp_path: Path, spoil: Callable[[str], None] | None
) -> None:
    """What a kill or a power cut leaves at each step is either not begun, or refused by a start,
    or done; and repeating it completes it. Nothing is ever lost."""
    if spoil is not None:
        spoil(path)
    disk = MirrorDisk(path)
    images = Images(path, tmp_path / "images")

    def before(name: str) -> None:
        images.add(f"killed before {name}", disk.fake.kill())
        images.add(f"power cut before {name}", disk.fake.power_cut())
        names = range(disk.fake.unsynced_names)
        images.add(f"power cut before {name}, data lost", disk.fake.power_cut((), names))

    disk.on_operation(before)
    rejoin(path, disk, now=lambda: NOON)
    images.add("done", disk.fake.power_cut())
    assert len(images.found) > 5
    starts = {"as before": 0, "refused": 0, "forgotten": 0}
    for label, directory in images.found:
        starts[how_it_starts(directory)] += 1
        rejoin(directory, FileSystem(), now=lambda: NOON + 60)
        assert how_it_starts(directory) == "forgotten", label
        kept = [name for _, _, names in os.walk(directory) for name in names]
        assert "checkpoint.mdb" in kept, label
    assert starts["refused"] > 0 and starts["forgotten"] > 0, starts
    assert (starts["as before"] > 0) == (spoil is None), starts


def how_it_starts(path: str) -> str:
    try:
        replica = Replica(path, members=MEMBERS)
    except (CorruptionError, DataDirRefusedError) as error:
        assert "coordsvc rejoin" in str(error)
        return "refused"
    log = replica.opened.wal.recovered
    replica.stop()
    if log.voter:
        assert replica.opened.info.index > 20
        return "as before"
    assert log.is_new and replica.opened.store.info is None
    return "forgotten"


def test_a_crash_gives_the_lock_back(path: str) -> None:
    disk = MirrorDisk(path)
    disk.fake.crash_at(3)
    with pytest.raises(SimulatedCrash):
        rejoin(path, disk)
    DataDir.open(path, 1, FileSystem(), members=MEMBERS).close()


# ----------------------------------------------------------------------------- the command


def test_the_command_tells_what_it_did(path: str) -> None:
    result = CliRunner().invoke(main, ["rejoin", path])
    assert result.exit_code == ExitStatus.OK
    assert result.output.startswith("set aside: wal, checkpoint.mdb, incoming, in " + path)
    assert "replica 1 fetches everything from the replicas 2, 3 when it is started" in result.output


def test_the_command_refuses_with_the_status_of_a_refused_directory(tmp_path: Path) -> None:
    path = str(tmp_path / "alone")
    make(path, (1,))
    result = CliRunner().invoke(main, ["rejoin", path])
    assert result.exit_code == ExitStatus.DATA_DIR_REFUSED
    assert "error: " in result.output and "--discard-only-copy" in result.output
    result = CliRunner().invoke(main, ["rejoin", path, "--discard-only-copy"])
    assert result.exit_code == ExitStatus.OK and "begins a new cluster" in result.output


def test_the_command_says_when_the_owner_is_not_known(path: str) -> None:
    damage(path)
    result = CliRunner().invoke(main, ["rejoin", path])
    assert result.exit_code == ExitStatus.OK
    assert "META was damaged or missing" in result.output


def test_the_command_wants_a_directory(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["rejoin", str(tmp_path / "nowhere")])
    assert result.exit_code == ExitStatus.USAGE
    assert CliRunner().invoke(main, ["rejoin", str(tmp_path)]).exit_code == 4
