"""Paths of znodes: what is legal, and how they split. Knows nothing of the tree.

A path is ``/`` or a ``/`` before each component. Components are compared as they are: no
normalisation, no case folding. Refused are empty components, ``.`` and ``..`` as a whole
component, a trailing slash, the control ranges and U+FFF0 to U+FFFF; every other Unicode scalar
value is allowed, also the private use area and those beyond the BMP, which ZooKeeper refuses.
Ref: ZooKeeper PathUtils.validatePath.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from coordsvc.errors import BadArgumentsError

ROOT = "/"

PATH_BYTES_MAX = 4096
"""In UTF-8, the sequence number included. Bounds the depth, and so every walk up a path."""

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufff0-\uffff]")
_BYTES_PER_CHARACTER_MAX = 4
_SHOWN_CHARACTERS_MAX = 128


def path_fault(path: str) -> str | None:
    """Say why `path` is malformed, or None when it is legal."""
    if not path:
        return "the path is empty"
    if path[0] != "/":
        return "a path begins with '/'"
    if len(path) == 1:
        return None
    if path[-1] == "/":
        return "a path does not end with '/'"
    if "//" in path:
        return "a component is empty ('//')"
    if "/." in path:
        for component in path.split("/"):
            if component in (".", ".."):
                return f"'{component}' is not allowed as a component"
    if forbidden := _FORBIDDEN.search(path):
        return f"the character U+{ord(forbidden.group()):04X} is not allowed"
    if len(path) * _BYTES_PER_CHARACTER_MAX > PATH_BYTES_MAX:
        size = len(path.encode())
        if size > PATH_BYTES_MAX:
            return f"it has {size} bytes in UTF-8, and {PATH_BYTES_MAX} is the most"
    return None


def validate_path(path: str) -> None:
    """Raise BadArgumentsError, naming the path and its fault, unless `path` is legal."""
    fault = path_fault(path)
    if fault is not None:
        raise BadArgumentsError(f"bad path {shown(path)}: {fault}", path=path)


def parent_of(path: str) -> str:
    """The parent's path; the root is its own."""
    return path[: path.rfind("/")] or ROOT


def name_of(path: str) -> str:
    """The last component; empty for the root."""
    return path[path.rfind("/") + 1 :]


def join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if len(parent) > 1 else f"/{name}"


def ancestors_of(path: str) -> Iterator[str]:
    """`path` itself, its parent, and so on up to the root."""
    while True:
        yield path
        if path == ROOT:
            return
        path = parent_of(path)


def is_at_or_below(path: str, ancestor: str) -> bool:
    """Whether `path` is `ancestor` or below it, by component: ``/ab`` is not below ``/a``."""
    return ancestor == ROOT or path == ancestor or path.startswith(ancestor + "/")


def shown(path: str) -> str:
    """`path` as a message names it: quoted, cut when long, the characters that no path may hold
    escaped. Messages are replicated, so this must not ask Python what is printable: that depends
    on its version's Unicode tables."""
    text = _FORBIDDEN.sub(_escape, path[:_SHOWN_CHARACTERS_MAX])
    return f"'{text}'" if len(path) <= _SHOWN_CHARACTERS_MAX else f"'{text}...'"


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"
