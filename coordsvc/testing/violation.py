"""A promise that a history shows to be broken."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordsvc.testing.history import Record


@dataclass(frozen=True)
class Violation:
    """`check` names the promise; `text` says in a sentence what contradicts it; `records` are those
    that show it."""

    check: str
    text: str
    time: float
    records: list[Record] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.check} at {self.time:.4f} s: {self.text}"
