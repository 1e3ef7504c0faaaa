"""A configuration printed as TOML: it loads back to the same, and keeps its secrets."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from coordsvc.core.auth import digest_id
from coordsvc.server.config import Loaded, ServerConfig, load
from coordsvc.server.config_keys import KEYS
from coordsvc.server.config_print import render

DIGEST = digest_id("super:secret")


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    """Something from every source, with text that TOML must escape."""
    file_path = tmp_path / "given.toml"
    file_path.write_text(
        '[replica]\nid = 2\ndata_dir = "a \\"b\\" \\\\ c\\té\\u007f"\n'
        '[peers]\n1 = "127.0.0.1:1"\n2 = "[::1]:2"\n'
        "[limits]\nwatches_max = 20_000\n"
    )
    return load(
        {"listen": "127.0.0.1:9", "admin_listen": "none"},
        {"COORDSVC_TICK_MS": "400", "COORDSVC_INSECURE": "yes"},
        file_path,
        ["storage.log_keep_bytes=1000"],
    )


@pytest.mark.parametrize("with_origin", [False, True])
def test_it_loads_back_to_the_same(loaded: Loaded, tmp_path: Path, with_origin: bool) -> None:
    file_path = tmp_path / "printed.toml"
    file_path.write_text(render(loaded, with_origin=with_origin))
    assert loaded.config != ServerConfig()
    assert load({}, {}, file_path).config == loaded.config


def test_every_key_is_in_it(loaded: Loaded) -> None:
    tables = tomllib.loads(render(loaded))
    for key in KEYS.values():
        assert key.table in tables
        if key.toml_name:
            assert key.toml_name in tables[key.table], key.label


def test_each_line_says_where_its_value_is_from(loaded: Loaded, tmp_path: Path) -> None:
    lines: dict[str, str] = {}
    table = ""
    for line in render(loaded, with_origin=True).splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        elif line:
            lines[f"{table}.{line.split(' = ')[0]}"] = line.split("# ", 1)[1]
    given = str(tmp_path / "given.toml")
    for label in ("replica.id", "peers.1", "peers.2", "limits.watches_max"):
        assert lines[label] == given
    assert lines["replica.listen"] == "--listen"
    assert lines["zookeeper.listen"] == "default"
    assert lines["cluster.tick_ms"] == "environment COORDSVC_TICK_MS"
    assert lines["storage.log_keep_bytes"] == "--set storage.log_keep_bytes"
    assert lines["cluster.sessions_max"] == "default"


@pytest.mark.parametrize("with_origin", [False, True])
def test_secrets_are_never_in_it(tmp_path: Path, with_origin: bool) -> None:
    file_path = tmp_path / "secret.toml"
    file_path.write_text(f'[access]\nsuperuser_digest = "{DIGEST}"\n')
    loaded = load({}, {}, file_path)
    text = render(loaded, with_origin=with_origin)
    assert DIGEST.split(":")[1] not in text
    assert "superuser_digest is set, and not shown" in text
    assert tomllib.loads(text)["access"] == {"insecure": False}


def test_what_must_not_be_shown_is_known_to_be_secret() -> None:
    assert [key.label for key in KEYS.values() if key.is_secret] == ["access.superuser_digest"]
