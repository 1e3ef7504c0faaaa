"""Where a replica's configuration comes from: defaults < TOML file < environment < flags.

Nothing else in the program reads the environment. Values of all sources are parsed by one table
(`config_keys.py`), so that a key means the same wherever it is written.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordsvc.server.config_checks import Fault, validate
from coordsvc.server.config_keys import (
    ENVIRONMENT_PREFIX,
    GROUPS,
    KEY_OF_LABEL,
    KEYS,
    PEERS_TABLE,
    TABLES,
    Key,
)
from coordsvc.server.config_model import ClusterConfig, ServerConfig

__all__ = [
    "ClusterConfig",
    "ConfigError",
    "Fault",
    "Loaded",
    "ServerConfig",
    "load",
    "load_config",
]

NOT_KEYS = frozenset({"CONFIG", "ENDPOINTS", "CLIENT_TLS_CA", "CLIENT_TLS_CERT", "CLIENT_TLS_KEY"})
"""Names with our prefix that are no keys of a replica: the TOML file's path, and what the client
commands read. A replica started from the same shell must not refuse them."""


class ConfigError(Exception):
    """The configuration is refused; `faults` says everything that is wrong with it."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "".join(f"\n  {fault}" for fault in faults)
        super().__init__(f"{count} in the configuration:{lines}")


@dataclass(frozen=True)
class Loaded:
    """A configuration, and for each key that was given where its value is from, by flat name."""

    config: ServerConfig
    origins: Mapping[str, str]


def load_config(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    toml_path: str | Path | None = None,
    settings: Sequence[str] = (),
) -> ServerConfig:
    """The configuration that these sources add up to. Raises ConfigError; see `load`."""
    return load(flags, environ, toml_path, settings).config


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    toml_path: str | Path | None = None,
    settings: Sequence[str] = (),
) -> Loaded:
    """What these sources add up to. Raises ConfigError with all faults at once.

    `flags` are by flat name, None standing for one that was not given; `settings` are those given
    as `--set TABLE.KEY=VALUE`. Without `toml_path` the file named by COORDSVC_CONFIG is read, if
    any.
    """
    loader = _Loader()
    file_path = toml_path or environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    if file_path:
        loader.take_toml(Path(file_path))
    loader.take_environment(environ)
    loader.take_flags(flags)
    loader.take_settings(settings)
    return loader.build()


# ----------------------------------------------------------------------- names Kubernetes injects

_SERVICE_NAMES = (
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:ADDR|PORT|PROTO))?)"
)
_OF_OUR_SERVICE = re.compile(rf"COORDSVC_(?:PORT|{_SERVICE_NAMES})")
_OF_A_RELATED_SERVICE = re.compile(rf"COORDSVC_[A-Z0-9_]+_{_SERVICE_NAMES}")
_OF_A_RELATED_PORT = re.compile(r"COORDSVC_[A-Z0-9_]+_PORT")


def is_kubernetes_name(name: str, value: str) -> bool:
    """Whether Kubernetes puts this name into every pod beside a service called `coordsvc`, or
    `coordsvc-SOMETHING`. Of the latter a bare ..._PORT counts only with the URL that Kubernetes
    writes there: somebody's COORDSVC_LISTEN_PORT=7401 is a mistake worth reporting."""
    if _OF_OUR_SERVICE.fullmatch(name) or _OF_A_RELATED_SERVICE.fullmatch(name):
        return True
    is_url = value.startswith(("tcp://", "udp://", "sctp://"))
    return is_url and _OF_A_RELATED_PORT.fullmatch(name) is not None


# ------------------------------------------------------------------------------------- sources


class _Loader:
    """Adds up the sources in the order they are taken, remembering where each value is from."""

    def __init__(self) -> None:
        self._values: dict[str, object] = {}
        self._origins: dict[str, str] = {}
        self._faults: list[Fault] = []

    def take_toml(self, file_path: Path) -> None:
        origin = str(file_path)
        try:
            tables = tomllib.loads(file_path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            self._fault("config", origin, f"cannot be read: {error}")
            return
        for name, value in tables.items():
            if name not in TABLES:
                self._fault(name, origin, _no_table(name, value))
            elif not isinstance(value, dict):
                self._fault(name, origin, f"is a table: write [{name}], and its keys below")
            elif name == PEERS_TABLE:
                self._take(KEYS["peers"], value, origin)
            else:
                self._take_table(name, value, origin)

    def _take_table(self, table: str, values: Mapping[str, Any], origin: str) -> None:
        for name, value in values.items():
            if name in TABLES[table]:
                self._take(TABLES[table][name], value, origin)
            else:
                self._fault(f"{table}.{name}", origin, _unknown_in_toml(name, table))

    def take_environment(self, environ: Mapping[str, str]) -> None:
        names = {key.environment_name: key for key in KEYS.values()}
        for name, value in sorted(environ.items()):
            if not name.startswith(ENVIRONMENT_PREFIX):
                continue
            if name in names:
                self._take(names[name], value, f"environment {name}")
            elif name.removeprefix(ENVIRONMENT_PREFIX) not in NOT_KEYS and not is_kubernetes_name(
                name, value
            ):
                self._fault(name, "environment", f"unknown name{_nearest(name, names)}")

    def take_flags(self, flags: Mapping[str, object]) -> None:
        for name, value in flags.items():
            flag = "--" + name.replace("_", "-")
            if value is None:
                continue
            if name in KEYS:
                self._take(KEYS[name], value, flag)
            else:
                self._fault(flag, "flag", f"unknown key{_nearest(name, KEYS)}")

    def take_settings(self, settings: Sequence[str]) -> None:
        taken: set[str] = set()
        for setting in settings:
            label, separator, value = setting.partition("=")
            label = label.strip()
            key, origin = KEY_OF_LABEL.get(label), f"--set {label}"
            if not separator:
                self._fault(setting, "--set", "is not TABLE.KEY=VALUE")
            elif key is None:
                self._fault(label, "--set", f"unknown key{_nearest(label, KEY_OF_LABEL)}")
            elif label in taken or self._origins.get(key.name, "").startswith("--"):
                first = origin if label in taken else self._origins[key.name]
                self._fault(label, origin, f"is given twice; the first is {first}")
            else:
                taken.add(label)
                self._take(key, value.strip(), origin)

    def _take(self, key: Key, value: object, origin: str) -> None:
        try:
            self._values[key.name] = key.parse(value)
            self._origins[key.name] = origin
        except ValueError as error:
            self._fault(key.label, origin, str(error))

    def _fault(self, key: str, origin: str, message: str) -> None:
        self._faults.append(Fault(key, origin, message))

    def build(self) -> Loaded:
        """Raises ConfigError. A key that was not understood is not judged a second time."""
        config = self._config()
        seen = {fault.key for fault in self._faults}
        more = [fault for fault in validate(config, self._origins) if fault.key not in seen]
        if self._faults or more:
            raise ConfigError((*self._faults, *more))
        return Loaded(config, self._origins)

    def _config(self) -> ServerConfig:
        groups: dict[str, dict[str, object]] = {"": {}, **{group: {} for group in GROUPS}}
        for name, value in self._values.items():
            groups[KEYS[name].group][name] = value
        records = {group: record(**groups[group]) for group, record in GROUPS.items()}
        return ServerConfig(**groups[""], **records)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------- what may be meant


def _no_table(name: str, value: object) -> str:
    """Of something at the top of a TOML file that is none of the tables."""
    if isinstance(value, dict):
        tables = " ".join(f"[{table}]" for table in TABLES)
        return f"unknown table{_nearest(name, TABLES)}; the tables are {tables}"
    return f"a key must stand in a table{_place_of(name)}"


def _unknown_in_toml(name: str, table: str) -> str:
    return f"unknown key{_nearest(name, TABLES[table]) or _place_of(name)}"


def _place_of(name: str) -> str:
    """In which table a key of this name stands, or the nearest one that there is."""
    keys = {key.toml_name: key for key in KEYS.values() if key.toml_name} | dict(KEYS)
    found = _closest(name, keys)
    if found is None:
        return ""
    key = keys[found]
    place = f"{key.toml_name}, in [{key.table}]" if key.toml_name else f"the table [{key.table}]"
    return f"; this one is {place}" if found == name else f"; did you mean {place}?"


def _nearest(given: str, known: Iterable[str]) -> str:
    found = _closest(given, known)
    return f"; did you mean {found}?" if found is not None else ""


def _closest(given: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)), None)
