"""How the core says no: a `Refusal`, which is a result like any other.

A refusal is replicated and may be kept for retries, so what it quotes of a request is bounded.
"""

from __future__ import annotations

from coordsvc.core.commands import Refusal
from coordsvc.errors import ErrorCode
from coordsvc.paths import PATH_BYTES_MAX, shown

_CUT_CHARACTERS = 1024


def refuse(code: ErrorCode, path: str, message: str) -> Refusal:
    """A refusal about `path`; its message begins with the path, unless there is none."""
    text = f"{shown(path)}: {message}" if path else message
    return Refusal(int(code), quoted(path), text)


def quoted(path: str) -> str:
    """`path`, cut and marked when it is longer than any znode's can be."""
    if len(path) <= PATH_BYTES_MAX:
        return path
    return f"{path[:_CUT_CHARACTERS]}..."
