"""Tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def head(columns: Sequence[str]) -> list[str]:
    return [line(*columns), "|" + "---|" * len(columns)]


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float], form: str) -> str:
    """The median, and from the least to the most."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"
