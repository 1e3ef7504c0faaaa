"""A configuration as a TOML file that loads back to the same, and where each value is from."""

from __future__ import annotations

from collections.abc import Iterator

from coordsvc.server.config import Loaded
from coordsvc.server.config_keys import PEERS_TABLE, TABLES

DEFAULT = "default"
HIDDEN = "is set, and not shown"


def render(loaded: Loaded, *, with_origin: bool = False) -> str:
    """All settings, by table. Secrets are left out, with a comment if they are set: the file loads
    back to the same but for them. `with_origin`: a comment at each line says where its value is
    from."""
    tables = (_table(name, loaded, with_origin=with_origin) for name in TABLES)
    return "\n\n".join("\n".join(lines) for lines in tables) + "\n"


def _table(name: str, loaded: Loaded, *, with_origin: bool) -> Iterator[str]:
    yield f"[{name}]"
    pairs = list(_peers(loaded) if name == PEERS_TABLE else _settings(name, loaded))
    width = max((len(line) for line, _ in pairs if not line.startswith("#")), default=0)
    for line, origin in pairs:
        yield f"{line:<{width}}  # {origin}" if with_origin else line


def _settings(table: str, loaded: Loaded) -> Iterator[tuple[str, str]]:
    """(a line, where its value is from)."""
    for key in TABLES[table].values():
        value = key.value_in(loaded.config)
        origin = loaded.origins.get(key.name, DEFAULT)
        if key.is_secret and value:
            yield f"# {key.toml_name} {HIDDEN}", origin
        else:
            yield f"{key.toml_name} = {key.render(value)}", origin


def _peers(loaded: Loaded) -> Iterator[tuple[str, str]]:
    origin = loaded.origins.get("peers", DEFAULT)
    for replica_id, address in loaded.config.peers.items():
        yield f'{replica_id} = "{address}"', origin
