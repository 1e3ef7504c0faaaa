"""Where a replica's configuration comes from: defaults < TOML file < environment < flags.

Nothing else in the program reads the environment. Values of all sources are parsed by the same
table, so that a key means the same wherever it is written.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from coordsvc.server.addresses import Address, parse_address, parse_peers
from coordsvc.server.config_model import (
    CLUSTER_KEYS,
    ClusterConfig,
    Fault,
    ServerConfig,
    validate,
)

__all__ = ["ClusterConfig", "ConfigError", "Fault", "ServerConfig", "load_config"]

ENVIRONMENT_PREFIX = "COORDSVC_"

NOT_KEYS = frozenset({"CONFIG", "ENDPOINTS"})
"""Names with our prefix that are no keys of a replica: the TOML file's path, and what the client
commands read. A replica started from the same shell must not refuse them."""


class ConfigError(Exception):
    """The configuration is refused; `faults` says everything that is wrong with it."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = "".join(f"\n  {fault}" for fault in faults)
        super().__init__(f"{count} in the configuration:{lines}")


def load_config(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    toml_path: str | Path | None = None,
) -> ServerConfig:
    """The configuration these sources add up to. Raises ConfigError with all faults at once.

    `flags` are by key, None standing for one that was not given. Without `toml_path` the file
    named by COORDSVC_CONFIG is read, if any.
    """
    loader = _Loader()
    file_path = toml_path or environ.get(f"{ENVIRONMENT_PREFIX}CONFIG")
    if file_path:
        loader.take_toml(Path(file_path))
    loader.take_environment(environ)
    loader.take_flags(flags)
    return loader.build()


# ------------------------------------------------------------------------------- parsing values


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


def _address(value: object) -> Address:
    return parse_address(_text(value))


def _optional_address(value: object) -> Address | None:
    text = _text(value)
    return parse_address(text) if text else None


def _peers(value: object) -> dict[int, Address]:
    return parse_peers(_text(value))


_PARSERS: dict[str, Callable[[object], object]] = {
    "replica_id": _integer,
    "data_dir": _text,
    "listen": _address,
    "peer_listen": _optional_address,
    "peers": _peers,
    "advertise": _optional_address,
    "admin_listen": _optional_address,
    "insecure": _boolean,
    "peer_tls_cert": _text,
    "peer_tls_key": _text,
    "peer_tls_ca": _text,
    "log_format": _text,
    "log_level": _text,
    **dict.fromkeys(sorted(CLUSTER_KEYS), _integer),
}

KEYS = tuple(_PARSERS)


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
        try:
            table = tomllib.loads(file_path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            self._faults.append(Fault("config", str(file_path), f"cannot be read: {error}"))
            return
        for key, value in table.items():
            if key in _PARSERS:
                self._take(key, value, str(file_path))
            else:
                self._faults.append(Fault(key, str(file_path), _unknown("key", key, KEYS)))

    def take_environment(self, environ: Mapping[str, str]) -> None:
        names = {ENVIRONMENT_PREFIX + key.upper(): key for key in KEYS}
        for name, value in sorted(environ.items()):
            if not name.startswith(ENVIRONMENT_PREFIX):
                continue
            if name in names:
                self._take(names[name], value, f"environment {name}")
            elif name.removeprefix(ENVIRONMENT_PREFIX) not in NOT_KEYS and not is_kubernetes_name(
                name, value
            ):
                message = _unknown("name", name, names)
                self._faults.append(Fault(name, "environment", message))

    def take_flags(self, flags: Mapping[str, object]) -> None:
        for key, value in flags.items():
            flag = "--" + key.replace("_", "-")
            if value is None:
                continue
            if key in _PARSERS:
                self._take(key, value, flag)
            else:
                self._faults.append(Fault(key, flag, _unknown("key", key, KEYS)))

    def _take(self, key: str, value: object, origin: str) -> None:
        try:
            self._values[key] = _PARSERS[key](value)
            self._origins[key] = origin
        except ValueError as error:
            self._faults.append(Fault(key, origin, str(error)))

    def build(self) -> ServerConfig:
        """Raises ConfigError. A key that was not understood is not judged a second time."""
        cluster = {key: value for key, value in self._values.items() if key in CLUSTER_KEYS}
        server = {key: value for key, value in self._values.items() if key not in CLUSTER_KEYS}
        config = ServerConfig(**server, cluster=ClusterConfig(**cluster))  # type: ignore[arg-type]
        seen = {fault.key for fault in self._faults}
        more = [fault for fault in validate(config, self._origins) if fault.key not in seen]
        if self._faults or more:
            raise ConfigError((*self._faults, *more))
        return config


def _unknown(what: str, given: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(given, list(known), n=1, cutoff=0.6)
    return f"unknown {what}" + (f"; did you mean {nearest[0]}?" if nearest else "")
