"""`coordsvc config`, and how `serve` is configured by it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coordsvc.cli.main import main
from coordsvc.cli.replica_options import replica_options
from coordsvc.core.auth import digest_id
from coordsvc.server.config import load_config
from coordsvc.server.config_keys import KEYS


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(main, ["config", *arguments], env=environ)


def test_what_it_prints_can_be_given_back(tmp_path: Path) -> None:
    file_path = tmp_path / "c.toml"
    file_path.write_text("[limits]\nwatches_max = 20000\n")
    printed = run(
        "print",
        *(
            "--config",
            str(file_path),
            "--listen",
            "127.0.0.1:9",
            "--set",
            "storage.log_keep_bytes=7",
        ),
        COORDSVC_TICK_MS="400",
    )
    assert printed.exit_code == 0, printed.output
    again = tmp_path / "again.toml"
    again.write_text(printed.stdout)
    config = load_config({}, {}, again)
    assert (config.limits.watches_max, config.cluster.tick_ms) == (20000, 400)
    assert (str(config.listen), config.storage.log_keep_bytes) == ("127.0.0.1:9", 7)
    assert run("print", "--config", str(again)).stdout == printed.stdout


def test_with_origin_it_says_where_each_is_from() -> None:
    lines = run("print", "--with-origin", "--listen", "127.0.0.1:9").stdout.splitlines()
    assert 'listen = "127.0.0.1:9"' in lines[3] and lines[3].endswith("# --listen")
    assert all(line.endswith("# default") for line in lines if line.startswith("watches_max"))


def test_it_prints_no_secret() -> None:
    digest = digest_id("super:secret")
    printed = run("print", "--with-origin", "--superuser-digest", digest)
    assert printed.exit_code == 0
    assert digest not in printed.output and "# --superuser-digest" in printed.stdout
    assert "superuser_digest" not in tomllib.loads(printed.stdout)["access"]


@pytest.mark.parametrize("command", ["print", "check"])
def test_all_faults_are_told_and_the_status_is_that_of_wrong_usage(
    tmp_path: Path, command: str
) -> None:
    file_path = tmp_path / "c.toml"
    file_path.write_text('listen = "x"\n[limits]\nwatches_max = 1\nwatchs = 2\n')
    options = ["--config", str(file_path)] if command == "print" else [str(file_path)]
    result = run(command, *options)
    assert result.exit_code == 2 and result.stdout == ""
    assert "3 faults" in result.stderr and str(file_path) in result.stderr
    for key in ("listen", "limits.watches_max", "limits.watchs"):
        assert f"\n  {key} (" in result.stderr
    assert "Traceback" not in result.output


def test_check_judges_the_file_by_itself(tmp_path: Path) -> None:
    file_path = tmp_path / "c.toml"
    file_path.write_text('[replica]\nid = 2\n[peers]\n1 = "127.0.0.1:1"\n2 = "127.0.0.1:2"\n')
    result = run("check", str(file_path), COORDSVC_TICK_MS="nonsense")
    assert result.exit_code == 0
    assert result.stdout == f"{file_path} is valid: replica 2 of a cluster of 2\n"
    missing = run("check", str(tmp_path / "none.toml"))
    assert missing.exit_code == 2 and "none.toml" in missing.stderr


def test_serve_takes_settings_too() -> None:
    result = CliRunner().invoke(main, ["serve", "--set", "limits.watches_max=0"])
    assert result.exit_code == 2
    assert "limits.watches_max (--set limits.watches_max)" in result.stderr


BY_SET_ONLY = {
    "zookeeper_four_letter_words",
    "zookeeper_packet_bytes_max",
    "zookeeper_connections_max",
}
"""Besides the records of numbers: what so few change that the list of options is better without."""


def test_every_option_is_a_key() -> None:
    """One that is not would be refused only when somebody gives it."""

    @replica_options
    def command() -> None: ...

    names = {option.name for option in command.__click_params__}  # type: ignore[attr-defined]
    assert names - {"toml_path", "settings"} <= set(KEYS)
    assert {name for name, key in KEYS.items() if not key.group} - names == BY_SET_ONLY
