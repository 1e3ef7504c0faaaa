"""Linear least squares with coefficients that are not negative, for a handful of them."""

from __future__ import annotations

from collections.abc import Sequence

Matrix = list[list[float]]

TINY = 1e-12


class UndeterminedError(Exception):
    """The measurements do not tell the coefficients apart."""


def fit(rows: Sequence[Sequence[float]], wanted: Sequence[float]) -> list[float]:
    """Coefficients x for which `rows` times x is close to `wanted`; what would be negative is 0.
    Each equation counts by how far it misses in percent. UndeterminedError."""
    assert len(rows) == len(wanted) and all(value > 0 for value in wanted)
    scaled = [[value / goal for value in row] for row, goal in zip(rows, wanted, strict=True)]
    used = list(range(len(rows[0])))
    while used:
        found = _solve([[row[place] for place in used] for row in scaled])
        if min(found) >= 0:
            known = dict(zip(used, found, strict=True))
            return [known.get(place, 0.0) for place in range(len(rows[0]))]
        used.pop(found.index(min(found)))
    return [0.0] * len(rows[0])


def _solve(rows: Sequence[Sequence[float]]) -> list[float]:
    """The normal equations of rows times x = 1, by elimination with pivots."""
    size = len(rows[0])
    system: Matrix = [
        [sum(row[i] * row[j] for row in rows) for j in range(size)] + [sum(row[i] for row in rows)]
        for i in range(size)
    ]
    for column in range(size):
        pivot = max(range(column, size), key=lambda i: abs(system[i][column]))
        if abs(system[pivot][column]) < TINY * max(1.0, *map(abs, system[pivot])):
            raise UndeterminedError(f"coefficient {column} of {size}")
        system[column], system[pivot] = system[pivot], system[column]
        for i in range(size):
            if i != column:
                factor = system[i][column] / system[column][column]
                system[i] = [a - factor * b for a, b in zip(system[i], system[column], strict=True)]
    return [system[i][size] / system[i][i] for i in range(size)]
