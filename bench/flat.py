"""What operations cost as the tree grows: the row of scale named FLAT, as tables by size.

A run's details name the size before what was measured there: {"10,000 znodes operations/s": 61e3}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from bench import scale_results
from bench.scale_results import ScaleResult

ROW: Final = "FLAT"

_KEY: Final = re.compile(r"(?P<size>\d[\d,]*) znodes (?P<what>.+)")

Table = Mapping[str, Mapping[int, list[float]]]
"""What the runs found: by system, by znodes in the tree."""


def load() -> dict[str, Table]:
    """By what was measured; empty: nothing was, so far."""
    result = scale_results.load(ROW)
    return {} if result is None else tables(result)


def tables(result: ScaleResult) -> dict[str, Table]:
    """Of what was measured at two sizes or more."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for run in result.runs:
        for key, value in run.details.items():
            if match := _KEY.fullmatch(key):
                systems = found.setdefault(match["what"], {})
                size = int(match["size"].replace(",", ""))
                systems.setdefault(run.system, {}).setdefault(size, []).append(value)
    return {what: table for what, table in found.items() if len(sizes_of(table)) > 1}


def sizes_of(table: Table) -> list[int]:
    return sorted({size for samples in table.values() for size in samples})
