"""`dev` and `serve`: command lines, layouts and messages, without starting a replica."""

from __future__ import annotations

import io
import json
import shlex
import sys
import threading
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from coordsvc.cli.console import LINES_MAX, Console
from coordsvc.cli.dev import claim_data_dir, command_line
from coordsvc.cli.dev_child import describe_end, environment
from coordsvc.cli.local_layout import (
    dev_replicas,
    endpoints_text,
    serve_arguments,
    zookeeper_hosts,
)
from coordsvc.cli.main import main
from coordsvc.server.config import load_config
from coordsvc.storage.data_dir import DataDir
from coordsvc.storage.files import FileSystem


def test_the_layout_of_dev() -> None:
    replicas = dev_replicas(3, Path("data"), 7400)
    assert endpoints_text(replicas) == "127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403"
    assert [replica.peer_port for replica in replicas] == [7501, 7502, 7503]
    assert zookeeper_hosts(replicas) == "127.0.0.1:7601,127.0.0.1:7602,127.0.0.1:7603"
    assert [replica.admin_port for replica in replicas] == [7701, 7702, 7703]
    assert replicas[1].data_dir == Path("data/2")


@pytest.mark.parametrize("count", [1, 3, 5])
def test_its_command_lines_are_understood(count: int) -> None:
    """What `dev` starts is what the configuration accepts."""
    replicas = dev_replicas(count, Path("a b"), 7400)
    for replica in replicas:
        command, *arguments = serve_arguments(replica, replicas)
        assert command == "serve"
        context = main.commands["serve"].make_context("serve", arguments)
        flags = {key: value for key, value in context.params.items() if value is not None}
        config = load_config(flags, {})
        assert config.replica_id == replica.replica_id
        assert str(config.listen) == replica.endpoint
        assert str(config.admin_listen) == replica.admin_endpoint
        assert str(config.zookeeper_listen) == replica.zookeeper_endpoint
        assert config.data_dir == str(replica.data_dir)
        assert len(config.peers) == (count if count > 1 else 0)
        if count > 1:
            assert str(config.peer_address) == replica.peer_endpoint


def test_a_replica_without_a_zookeeper_port_serves_no_such_clients() -> None:
    (replica,) = dev_replicas(1, Path("data"), 7400)
    without = replace(replica, zookeeper_port=0)
    assert "--zookeeper-listen" in replica.ports()
    assert "--zookeeper-listen" not in without.ports()
    assert "--zookeeper-listen" not in serve_arguments(without, [without])


def test_dev_answers_all_words_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "COORDSVC_ZOOKEEPER_FOUR_LETTER_WORDS"
    monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COORDSVC_ZOOKEEPER_ADVERTISE", "front:2181")
    assert environment()[name] == "*"
    assert "COORDSVC_ZOOKEEPER_ADVERTISE" not in environment(), "it is one replica's"
    monkeypatch.setenv(name, "ruok")
    assert environment()[name] == "ruok"


def test_only_given_options_outrank_the_environment() -> None:
    context = main.commands["serve"].make_context("serve", ["--replica-id", "2"])
    given = {key for key, value in context.params.items() if value is not None}
    assert given == {"replica_id"}


def test_serve_lists_all_faults_at_once() -> None:
    result = CliRunner().invoke(
        main,
        ["serve", "--replica-id", "0", "--listen", "0.0.0.0:7401", "--peers", "1=x"],
        env={"COORDSVC_LISTN": "x"},
    )
    assert result.exit_code == 2
    for name in ("--replica-id", "--listen", "--peers", "COORDSVC_LISTN"):
        assert name in result.stderr, result.stderr
    assert "--insecure" in result.stderr


def test_serve_names_an_unknown_key_of_the_file(tmp_path: Path) -> None:
    file_path = tmp_path / "c.toml"
    file_path.write_text('data_dri = "x"\n')
    result = CliRunner().invoke(main, ["serve", "--config", str(file_path)])
    assert result.exit_code == 2
    assert "data_dri" in result.stderr and "data_dir" in result.stderr


def test_serve_says_when_the_file_is_missing(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["serve", "--config", str(tmp_path / "none.toml")])
    assert result.exit_code == 2
    assert "none.toml" in result.stderr


@pytest.mark.parametrize(
    ("argv0", "expected"),
    [
        ("/home/me/p/.venv/bin/coordsvc", ".venv/bin/coordsvc"),
        (".venv/bin/coordsvc", ".venv/bin/coordsvc"),
        ("/usr/bin/coordsvc", "/usr/bin/coordsvc"),
        ("/home/me/p/coordsvc", "./coordsvc"),
        ("/opt/my tools/coordsvc", "'/opt/my tools/coordsvc'"),
    ],
)
def test_the_line_to_paste_runs_this_program(argv0: str, expected: str) -> None:
    assert command_line(Path(argv0), Path("/home/me/p")) == expected


def test_run_as_a_module_the_line_still_runs_it() -> None:
    line = command_line(Path("/x/coordsvc/__main__.py"), Path("/home/me"))
    script = Path(sys.executable).parent / "coordsvc"
    python = f"{shlex.quote(sys.executable)} -m coordsvc"
    assert line == (shlex.quote(str(script)) if script.exists() else python)


def test_another_number_of_replicas_is_another_cluster(tmp_path: Path) -> None:
    claim_data_dir(tmp_path / "new" / "deep", 3)
    claim_data_dir(tmp_path, 1)
    claim_data_dir(tmp_path, 3)
    for name in ("1", "2", "3", "notes"):
        (tmp_path / name).mkdir()
    claim_data_dir(tmp_path, 3)
    for count in (1, 5):
        with pytest.raises(click.UsageError, match="--replicas 3"):
            claim_data_dir(tmp_path, count)


def test_a_start_that_was_cut_short_can_be_repeated(tmp_path: Path) -> None:
    """Some of the folders are there, because the first start was interrupted; or one is missing,
    because somebody tries what happens when a replica loses its disk."""
    claim_data_dir(tmp_path, 3)
    (tmp_path / "1").mkdir()
    claim_data_dir(tmp_path, 3)


def test_a_data_dir_that_cannot_be_one_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(click.UsageError, match="file"):
        claim_data_dir(tmp_path / "file" / "deeper", 3)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (3, "ended with status 3 (address in use)"),
        (0, "ended with status 0 (ok)"),
        (99, "ended with status 99"),
        (-9, "was killed by SIGKILL"),
    ],
)
def test_ends_in_words(status: int, words: str) -> None:
    assert describe_end(status) == words


class StuckStream(io.StringIO):
    """A terminal after Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.go_on.wait(10)
        return super().write(text)


def test_a_terminal_that_stands_still_stops_nobody() -> None:
    out = StuckStream()
    console = Console(out, out)
    for number in range(LINES_MAX + 500):
        console.child_line(1, f"line {number}")
    out.go_on.set()
    console.close(5)
    lines = out.getvalue().splitlines()
    assert lines[0] == "[1] line 0"
    assert any("lines dropped" in line for line in lines)
    assert len(lines) <= LINES_MAX + 5


def test_a_reader_that_is_gone_stops_nobody() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    log = io.StringIO()
    console = Console(Gone(), log)
    console.say("to nobody")
    console.child_line(2, "heard")
    console.close(5)
    assert log.getvalue() == "[2] heard\n"


def test_inspect_prints_what_is_there_and_touches_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "1"
    DataDir.open(str(folder), 1, FileSystem()).close()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = CliRunner().invoke(main, ["inspect", str(folder), "-o", "json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["meta"]["replica_id"] == 1
    assert "replica id" in CliRunner().invoke(main, ["inspect", str(folder)]).stdout
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_inspect_of_what_is_no_data_dir(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    result = CliRunner().invoke(main, ["inspect", str(tmp_path)])
    assert result.exit_code == 4
    assert f"perhaps you mean one of {tmp_path / '1'}" in result.stderr
    assert CliRunner().invoke(main, ["inspect", str(tmp_path / "none")]).exit_code == 2


def test_inspect_of_damage_is_status_5(tmp_path: Path) -> None:
    DataDir.open(str(tmp_path), 1, FileSystem()).close()
    meta = tmp_path / "META"
    content = meta.read_bytes()
    meta.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    result = CliRunner().invoke(main, ["inspect", str(tmp_path)])
    assert result.exit_code == 5, result.output
    assert "META" in result.output
