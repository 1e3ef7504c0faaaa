"""How each setting is written down: its table and name in TOML, its name elsewhere, its value.

A key has one flat name in the program, in the environment (`watches_max`: COORDSVC_WATCHES_MAX)
and as a flag (`--listen`), and stands in a table of a TOML file, where the table's name need not be
repeated (`tls_cert`: `cert` in `[tls]`). People are shown the latter: `tls.cert`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from coordsvc.server.addresses import Address, parse_address, parse_peers
from coordsvc.server.config_model import (
    NOWHERE,
    ClusterConfig,
    LimitsConfig,
    ServerConfig,
    StorageConfig,
)

ENVIRONMENT_PREFIX = "COORDSVC_"


@dataclass(frozen=True)
class Key:
    """One setting. `name` is the flat one, `toml_name` the one within `table`. `group` is the
    attribute of ServerConfig it lies in; empty: ServerConfig itself. `parse` takes what a source
    gives and raises ValueError with what is wrong; `render` is its value as TOML. `is_secret`: it
    is never shown."""

    name: str
    table: str
    toml_name: str
    group: str
    parse: Callable[[object], object]
    render: Callable[[Any], str]
    is_secret: bool = False

    @property
    def label(self) -> str:
        """What people call it: its place in a TOML file."""
        return f"{self.table}.{self.toml_name}" if self.toml_name else self.table

    @property
    def environment_name(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    def value_in(self, config: ServerConfig) -> Any:
        return getattr(getattr(config, self.group) if self.group else config, self.name)


# -------------------------------------------------------------------------------- parsing values


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    raise ValueError(f"{value!r} is not a whole number")


_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True,
             "false": False, "0": False, "no": False, "off": False}  # fmt: skip


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _BOOLEANS:
        return _BOOLEANS[value.strip().lower()]
    raise ValueError(f"{value!r} is neither true nor false")


def _text(value: object) -> str:
    if isinstance(value, str | Path):
        return str(value)
    raise ValueError(f"{value!r} is not a text")


def _secret(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("it is not a text")


def _address(value: object) -> Address:
    return parse_address(_text(value))


def _optional_address(value: object) -> Address | None:
    text = _text(value)
    return parse_address(text) if text else None


def _admin_address(value: object) -> Address | None:
    """`none`: nowhere. Empty: not given."""
    return NOWHERE if value == "none" else _optional_address(value)


def _peers(value: object) -> dict[int, Address]:
    """A table of addresses by id, or its form for one line: `1=HOST:PORT,2=HOST:PORT`."""
    if isinstance(value, Mapping):
        return parse_peers(",".join(f"{key}={_text(text)}" for key, text in value.items()))
    return parse_peers(_text(value))


# ------------------------------------------------------------------------------ rendering values


def _toml_integer(value: int) -> str:
    return str(value)


def _toml_boolean(value: bool) -> str:
    return "true" if value else "false"


def _toml_text(value: object) -> str:
    """TOML's basic strings have JSON's escapes, except that DEL must be escaped too, and that there
    are no surrogate pairs."""
    text = "" if value is None else str(value)
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_admin_address(value: Address | None) -> str:
    return _toml_text("none" if value == NOWHERE else value)


def _toml_peers(value: Mapping[int, Address]) -> str:
    """An inline table, for a place that has one line."""
    inside = ", ".join(f"{key} = {_toml_text(address)}" for key, address in value.items())
    return f"{{ {inside} }}" if inside else "{}"


# --------------------------------------------------------------------------------------- the keys

_INTEGER = (_integer, _toml_integer)
_BOOLEAN = (_boolean, _toml_boolean)
_TEXT = (_text, _toml_text)
_ADDRESS = (_address, _toml_text)
_OPTIONAL_ADDRESS = (_optional_address, _toml_text)

PEERS_TABLE = "peers"

_OWN_KEYS: tuple[tuple[str, str, str, tuple[Any, Any]], ...] = (
    ("replica_id", "replica", "id", _INTEGER),
    ("data_dir", "replica", "data_dir", _TEXT),
    ("listen", "replica", "listen", _ADDRESS),
    ("peer_listen", "replica", "peer_listen", _OPTIONAL_ADDRESS),
    ("advertise", "replica", "advertise", _OPTIONAL_ADDRESS),
    ("admin_listen", "replica", "admin_listen", (_admin_address, _toml_admin_address)),
    ("peers", PEERS_TABLE, "", (_peers, _toml_peers)),
    ("zookeeper_listen", "zookeeper", "listen", _OPTIONAL_ADDRESS),
    ("zookeeper_advertise", "zookeeper", "advertise", _OPTIONAL_ADDRESS),
    ("zookeeper_four_letter_words", "zookeeper", "four_letter_words", _TEXT),
    ("zookeeper_packet_bytes_max", "zookeeper", "packet_bytes_max", _INTEGER),
    ("zookeeper_connections_max", "zookeeper", "connections_max", _INTEGER),
    ("insecure", "access", "insecure", _BOOLEAN),
    ("superuser_digest", "access", "superuser_digest", (_secret, _toml_text)),
    ("tls_cert", "tls", "cert", _TEXT),
    ("tls_key", "tls", "key", _TEXT),
    ("tls_client_ca", "tls", "client_ca", _TEXT),
    ("peer_tls_cert", "peer_tls", "cert", _TEXT),
    ("peer_tls_key", "peer_tls", "key", _TEXT),
    ("peer_tls_ca", "peer_tls", "ca", _TEXT),
    ("log_format", "logging", "format", _TEXT),
    ("log_level", "logging", "level", _TEXT),
)

_SECRETS = frozenset({"superuser_digest"})
"""A password's hash can be tried against guesses, so it does not belong into a pasted listing."""

GROUPS: Mapping[str, type] = {
    "cluster": ClusterConfig,
    "limits": LimitsConfig,
    "storage": StorageConfig,
}
"""Records within ServerConfig, each of whole numbers and with a table of its own name."""

_NOT_SETTABLE = frozenset({"format_version"})


def _all_keys() -> Iterator[Key]:
    for name, table, toml_name, (parse, render) in _OWN_KEYS:
        yield Key(name, table, toml_name, "", parse, render, name in _SECRETS)
    for group, record in GROUPS.items():
        for field in fields(record):
            if field.name not in _NOT_SETTABLE:
                yield Key(field.name, group, field.name, group, *_INTEGER)


_ALL = tuple(_all_keys())

KEYS: Mapping[str, Key] = {key.name: key for key in _ALL}
"""By flat name, in the order in which people are shown them."""

assert len(KEYS) == len(_ALL), "two settings have one flat name"

KEY_OF_LABEL: Mapping[str, Key] = {key.label: key for key in KEYS.values()}

TABLES: Mapping[str, Mapping[str, Key]] = {
    table: {key.toml_name: key for key in KEYS.values() if key.table == table}
    for table in dict.fromkeys(key.table for key in KEYS.values())
}
"""Table -> name within it -> key. `[peers]` is a key itself: its names are replica ids."""


def label_of(name: str) -> str:
    """What people call the key `name`; a name that is no key's stays as it is."""
    return KEYS[name].label if name in KEYS else name
