"""What `inspect` says of the checkpoint, alone and together with the log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordsvc.cli.main import main
from coordsvc.exit_status import ExitStatus
from coordsvc.storage.inspect import inspect, render_text, to_dict
from tests.unit.storage.replica_files import Replica


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    replica = Replica(str(tmp_path / "data"))
    replica.run(30)
    return replica


def path_of(replica: Replica) -> str:
    return replica.data_dir.path


def test_without_a_checkpoint(replica: Replica) -> None:
    replica.stop()
    report = inspect(path_of(replica))
    assert report.checkpoint is None and report.problems == ()
    assert "checkpoint      none\n" in render_text(report)
    assert "log begins      after entry 1, term 0\n" in render_text(report)


def test_everything_in_the_checkpoint_is_shown(replica: Replica) -> None:
    replica.checkpoint()
    info = replica.info()
    replica.drop_before(replica.index + 1)
    replica.stop()
    report = inspect(path_of(replica))
    shown = report.checkpoint
    assert shown is not None and shown.contents is not None and shown.is_verified
    assert shown.contents.info == info and shown.contents.records["znodes"] == 29 + 4
    assert shown.size_bytes == os.stat(replica.opened.store.file_path).st_size
    assert report.problems == () and report.log.base_index > 10
    text = render_text(report)
    assert f"  covers        entries up to index {info.index}, term 7\n" in text
    assert f"  state         zxid {info.zxid}, digest {info.digest:016x}\n" in text
    assert "  records       33 znodes, 0 sessions, 0 results, 1 origins, 1 singletons (" in text
    assert f"log begins      after entry {report.log.base_index}, term 7\n" in text
    contents = to_dict(report)["checkpoint"]["contents"]  # type: ignore[index]
    assert contents["digest"] == f"{info.digest:016x}"


def test_a_damaged_checkpoint_is_shown_and_is_a_problem(replica: Replica) -> None:
    replica.checkpoint()
    replica.stop()
    file = Path(replica.opened.store.file_path)
    file.write_bytes(file.read_bytes().replace(b"/n9", b"/N9"))
    before = file.read_bytes()
    result = CliRunner().invoke(main, ["inspect", path_of(replica)])
    assert result.exit_code == ExitStatus.CORRUPTION
    assert "checkpoint      checkpoint.mdb, " in result.output and ", damaged" in result.output
    assert result.output.count("is not what was written") == 1
    assert file.read_bytes() == before


def test_whole_by_themselves_but_not_together(replica: Replica) -> None:
    replica.checkpoint()
    replica.drop_before(replica.index + 1)
    replica.stop()
    os.unlink(replica.opened.store.file_path)
    (problem,) = inspect(path_of(replica)).problems
    assert "checkpoint.mdb is damaged: it is missing" in problem


def test_of_a_running_replica(replica: Replica) -> None:
    replica.checkpoint()
    replica.run(3)
    # The file of an environment that is open in this process is read by another one.
    result = CliRunner().invoke(main, ["inspect", path_of(replica), "-o", "json"])
    assert result.exit_code == ExitStatus.OK
    report = json.loads(result.output)
    assert report["checkpoint"]["contents"]["index"] == replica.index - 3
    assert report["in_use_by"] == os.getpid()
    replica.stop()


def test_a_snapshot_whose_installation_was_decided_is_no_problem(replica: Replica) -> None:
    """A start would complete it."""
    replica.checkpoint()
    info = replica.info()
    incoming = Path(path_of(replica), "incoming")
    incoming.mkdir()
    replica.opened.store.copy_to(str(incoming / "verified.mdb"))
    os.unlink(replica.opened.store.file_path)
    replica.data_dir._change(lmdb_engine="")
    replica.opened.wal.install(info.index, info.term)
    replica.flush()
    replica.stop()
    report = inspect(path_of(replica))
    assert report.problems == () and report.log.base_index == info.index
    again = Replica(path_of(replica))
    assert again.opened.info == info
    again.stop()
