"""Which four-letter words there are, and who may be asked them. Loads nothing: the configuration is
checked with it, also by commands that run no replica.

Ref: ZooKeeper Administrator's Guide, "The Four Letter Words"; server/command/FourLetterCommands.
"""

from __future__ import annotations

from typing import Final, TypeAlias

WORDS: Final = frozenset(
    {"conf", "cons", "dump", "envi", "isro", "mntr", "ruok", "srvr", "stat", "wchs"}
)
"""What is answered, if allowed."""

_NOT_SERVED: Final = frozenset({"crst", "dirs", "gtmk", "hash", "srst", "stmk", "wchc", "wchp"})
"""What ZooKeeper knows beside."""

_AS_BYTES: Final = frozenset(word.encode() for word in WORDS | _NOT_SERVED)

_ALWAYS_ALLOWED: Final = frozenset({"srvr"})
"""ZooKeeper's own script asks for it."""

Allowed: TypeAlias = frozenset[str]
"""The words that are answered."""


def is_word(first: bytes) -> bool:
    """Whether four bytes are one of ZooKeeper's words, and no length. Those that are not served
    have an answer as well: that they are not allowed."""
    return first in _AS_BYTES


def parse_allowed(text: str) -> Allowed:
    """A list as for ZooKeeper's `4lw.commands.whitelist`: words and commas, `*` for all. `srvr`
    is always allowed. Raises ValueError with a word that is not served."""
    words = {word.strip() for word in text.split(",")} - {""}
    if "*" in words:
        words = words - {"*"} | WORDS
    unknown = sorted(words - WORDS)
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(sorted(WORDS))}")
    return frozenset(words) | _ALWAYS_ALLOWED
