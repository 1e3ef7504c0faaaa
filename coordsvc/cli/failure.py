"""What a user is told when a request fails: the code, the path, and what to do about it."""

from __future__ import annotations

import json

from coordsvc.client.retry import ForeignAnswerError, UnreachableError
from coordsvc.errors import (
    Applied,
    CoordError,
    ErrorCode,
    InternalError,
    OutcomeUnknownError,
    UnavailableError,
)

PATH_SHOWN_MAX = 200

HINTS = {
    ErrorCode.NO_NODE: "see what there is with: coordsvc ls",
    ErrorCode.NODE_EXISTS: "write it with: coordsvc set",
    ErrorCode.BAD_VERSION: "see its version with: coordsvc stat",
    ErrorCode.NOT_EMPTY: "delete its children first; see them with: coordsvc ls",
    ErrorCode.NO_AUTH: "this command has no identity to show",
    ErrorCode.SESSION_EXPIRED: "its ephemerals go with it",
    ErrorCode.NO_QUORUM: "too few replicas are up and in touch; look with: coordsvc status",
    ErrorCode.NOT_CAUGHT_UP: "the replica lags behind; try again, or other --endpoints",
    ErrorCode.SHUTTING_DOWN: "the replica is stopping; name others with --endpoints",
    ErrorCode.OUTCOME_UNKNOWN: "it may have been applied; look before you try again",
    ErrorCode.SYSTEM_ERROR: "the replica's log says more",
}


def code_name(error: CoordError) -> str:
    """The wire code's name; UNAVAILABLE when no replica answered, which has no code of its own."""
    if type(error).code is ErrorCode.SYSTEM_ERROR and isinstance(error, UnavailableError):
        return "UNAVAILABLE"
    return error.code.name


def hint(error: CoordError) -> str:
    """What to do, in a few words; empty: the message says it all."""
    if isinstance(error, UnreachableError):
        return "is a cluster running there? Start one with: coordsvc dev"
    if isinstance(error, UnavailableError) and code_name(error) == "UNAVAILABLE":
        return "try again, or name more --endpoints"
    if isinstance(error, ForeignAnswerError):
        return "is that the client address of a replica, without a proxy before it?"
    if isinstance(error, OutcomeUnknownError | InternalError):
        return HINTS[error.code]
    return HINTS.get(error.code, "")


def describe_failure(error: CoordError, path: str | None, *, as_json: bool = False) -> str:
    """One line. `path` is what the user typed, for errors that name none of their own."""
    about = error.path or path
    if as_json:
        return json.dumps(
            {
                "error": code_name(error),
                "path": about,
                "message": error.message,
                "applied": {Applied.NO: "no", Applied.YES: "yes"}.get(error.applied, "unknown"),
                "hint": hint(error),
            }
        )
    parts = [f"error: {code_name(error)}"]
    if about:
        parts.append(shorten(about))
    text = _one_line(error.message.removeprefix(f"{about!r}: "))
    if text and text != error.code.name:
        parts.append(f"- {text}")
    advice = hint(error)
    return " ".join(parts) + (f" ({advice})" if advice else "")


def shorten(path: str) -> str:
    """A path for a line on a terminal: printable, and not a screenful."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)
    return shown if len(shown) <= PATH_SHOWN_MAX else shown[:PATH_SHOWN_MAX] + "..."


def _one_line(text: str) -> str:
    return " ".join(text.split())
