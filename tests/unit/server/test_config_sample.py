"""The sample file can be trusted: every key, its default, its unit, and a reason."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from coordsvc.server.config import ServerConfig, load_config
from coordsvc.server.config_keys import KEYS, PEERS_TABLE, TABLES, Key

SAMPLE = Path(__file__).parents[3] / "deploy" / "coordsvc.sample.toml"

KEY_LINE = re.compile(r"# ([a-z_]+) = (.*)")
TABLE_LINE = re.compile(r"\[([a-z_]+)\]")

UNITS = (
    ("bytes_per_s", "Bytes a second"),
    ("_per_s", "Sessions and streams a second"),
    ("_bytes", "Bytes"),
    ("_ms", "Milliseconds"),
    ("_s", "Seconds"),
)
"""By the end of a key's name, the first that fits: what its comment must begin with."""

REASON_CHARACTERS_MIN = 30


def documented() -> dict[str, tuple[str, str]]:
    """Label -> (value as TOML, the comment above it as one line)."""
    found: dict[str, tuple[str, str]] = {}
    table, comment = "", []
    for line in SAMPLE.read_text().splitlines():
        if match := TABLE_LINE.fullmatch(line):
            table, comment = match[1], []
        elif match := KEY_LINE.fullmatch(line):
            assert f"{table}.{match[1]}" not in found, f"{table}.{match[1]} is there twice"
            found[f"{table}.{match[1]}"] = (match[2], " ".join(comment))
            comment = []
        elif line.startswith("# "):
            comment.append(line.removeprefix("# "))
        else:
            comment = []
    return found


def unit_of(key: Key) -> str:
    """What the comment of a key must begin with; empty: something, at least."""
    name = key.toml_name.removesuffix("_max").removesuffix("_min")
    for ending, unit in UNITS:
        if name.endswith(ending):
            return unit
    return ""


def test_it_has_every_key_and_no_other() -> None:
    own = {key.label for key in KEYS.values() if key.name != PEERS_TABLE}
    assert set(documented()) == own
    assert set(tomllib.loads(SAMPLE.read_text())) == set(TABLES)


def test_as_it_is_it_changes_nothing() -> None:
    assert load_config({}, {}, SAMPLE) == ServerConfig()


def test_with_the_comment_signs_taken_off_it_has_the_defaults(tmp_path: Path) -> None:
    file_path = tmp_path / "sample.toml"
    file_path.write_text(re.sub(r"(?m)^# ([a-z_]+ = )", r"\1", SAMPLE.read_text()))
    tables = tomllib.loads(file_path.read_text())
    shown = sum(len(keys) for name, keys in tables.items() if name != PEERS_TABLE)
    assert shown == len(KEYS) - 1
    assert load_config({}, {}, file_path) == ServerConfig()


@pytest.mark.parametrize("label", sorted(key.label for key in KEYS.values() if key.toml_name))
def test_each_key_has_a_unit_and_a_reason(label: str) -> None:
    _, comment = documented()[label]
    key = next(key for key in KEYS.values() if key.label == label)
    unit, _, reason = comment.partition(". ")
    assert unit and unit.startswith(unit_of(key)), f"{label} must say its unit first: {comment!r}"
    assert len(reason) >= REASON_CHARACTERS_MIN, f"{label} needs a reason: {comment!r}"


def test_the_example_of_peers_is_one(tmp_path: Path) -> None:
    file_path = tmp_path / "sample.toml"
    text = re.sub(r"(?m)^# ([0-9] = )", r"\1", SAMPLE.read_text())
    file_path.write_text(text)
    assert len(load_config({"insecure": True}, {}, file_path).peers) == 3
