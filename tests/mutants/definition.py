"""Mutants: one-line sabotages, each of which breaks one promise and is caught by a named test.

They are defined in the `*.toml` beside this file, in the order of their names; `scripts/mutants.py`
runs them. A definition quotes the source it replaces, whole lines or the beginning of one. If that
text is not there exactly once any more the mutant no longer fits and must be rewritten: a mutant
that changes nothing would be caught by nothing, and one that changes the wrong place proves
nothing.

    [[mutant]]
    id = "no-fsync"
    promise = "What the log reports as synced survives a power cut."
    file = "coordsvc/storage/wal_writer.py"
    old = ...              # with new, in triple quotes; the last line's end is not part of it
    new = ...
    catcher = "..."        # a pytest node id, or "simulation"
    expect = "..."         # in what the catcher says of its failure: not just any will do
    simulation = true      # optional: the simulation finds it by itself, too
    violation = "..."      # optional: of the violation that the simulation finds then; without it
                           # any will do but "no bug" and "liveness", which say little
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("tests/mutants")
FOUND_FILE = FOLDER / "found_by_simulation.toml"
DOCS_FILE = Path("docs/mutants.md")
SIMULATION = "simulation"


class Mutant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    promise: str
    file: str
    old: str
    new: str
    catcher: str
    expect: str = ""
    simulation: bool = False
    violation: str = ""

    @property
    def is_for_simulation(self) -> bool:
        return self.simulation or self.catcher == SIMULATION

    def apply(self, source: str) -> str:
        """The sabotaged source. Raises ValueError when this one does not fit it."""
        old, new = self.old.removesuffix("\n"), self.new.removesuffix("\n")
        count = source.count(old)
        if count != 1:
            raise ValueError(f"{self.id} no longer fits: {self.file} has its text {count} times")
        mutated = source.replace(old, new)
        try:
            changed = _meaning(mutated) != _meaning(source)
        except SyntaxError as error:
            raise ValueError(f"{self.id} makes no valid source of {self.file}: {error}") from error
        if not changed:
            raise ValueError(f"{self.id} changes nothing in {self.file}")
        return mutated


@lru_cache(maxsize=64)  # of the package's files; each is asked for many times
def _meaning(source: str) -> str:
    """Without its comments and its layout. Raises SyntaxError."""
    return ast.dump(ast.parse(source))


class Found(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first seed at which the simulation notices a mutant, and the check that does."""

    seed: int
    check: str


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of definitions."""

    title: str
    mutant: list[Mutant]


def load_groups(root: Path = ROOT) -> list[Group]:
    paths = sorted((root / FOLDER).glob("[0-9]*.toml"))
    return [msgspec.toml.decode(path.read_bytes(), type=Group) for path in paths]


def load(root: Path = ROOT) -> list[Mutant]:
    return [mutant for group in load_groups(root) for mutant in group.mutant]


def faults(mutants: Sequence[Mutant], root: Path = ROOT) -> list[str]:
    """Everything that is wrong with the definitions; empty: nothing."""
    found = []
    seen: set[str] = set()
    for mutant in mutants:
        if mutant.id in seen:
            found.append(f"{mutant.id} is defined twice")
        seen.add(mutant.id)
        try:
            mutant.apply((root / mutant.file).read_text())
        except (OSError, ValueError) as error:
            found.append(str(error))
        found += _catcher_faults(mutant, root)
    return found


def _catcher_faults(mutant: Mutant, root: Path) -> list[str]:
    if mutant.catcher == SIMULATION:
        return []
    if not mutant.expect:
        return [f"{mutant.id} does not say how its catcher fails"]
    file_name, _, name = mutant.catcher.partition("::")
    name = name.partition("[")[0]
    path = root / file_name
    if not path.is_file() or not re.search(rf"\bdef {name}\(", path.read_text()):
        return [f"{mutant.id} is caught by {mutant.catcher}, which is not there"]
    return []


# ------------------------------------------------------------------------------------------ docs


def load_found(root: Path = ROOT) -> dict[str, Found]:
    """What the simulation found by itself, when it was last asked."""
    path = root / FOUND_FILE
    if not path.exists():
        return {}
    return msgspec.toml.decode(path.read_bytes(), type=dict[str, Found])


def save_found(found: dict[str, Found], root: Path = ROOT) -> None:
    head = "# Written by `scripts/mutants.py --simulation --docs`.\n"
    lines = [
        f'{mutant_id} = {{seed = {found[mutant_id].seed}, check = "{found[mutant_id].check}"}}\n'
        for mutant_id in sorted(found)
    ]
    (root / FOUND_FILE).write_text(head + "".join(lines))


def render_docs(root: Path = ROOT) -> str:
    groups, found = load_groups(root), load_found(root)
    mutants = [mutant for group in groups for mutant in group.mutant]
    by_simulation = sum(mutant.id in found for mutant in mutants)
    lines = [
        "# Mutants: how we know that the tests can fail",
        "",
        "<!-- Do not edit: written by `.venv/bin/python scripts/mutants.py --docs`. -->",
        "",
        "Each of these is a small sabotage of the source that breaks one promise. `make mutants`",
        "applies them one at a time to a copy of the tree, and requires that the test named here",
        "passes without the sabotage and fails with it, for the reason given: what the table",
        "quotes is in its failure. The definitions are in [`tests/mutants`](../tests/mutants).",
        "",
        f"{len(mutants)} mutants. {by_simulation} of them the simulation, which knows nothing of",
        "them, finds by itself within 50 seeds: at the first one given, by the check given",
        "(`.venv/bin/python scripts/mutants.py --simulation`).",
    ]
    for group in groups:
        lines += ["", f"## {group.title}", ""]
        lines += [
            "| mutant | the promise it breaks | caught by | which says | simulation |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(mutant, found) for mutant in group.mutant]
    return "\n".join(lines) + "\n"


def _row(mutant: Mutant, found: dict[str, Found]) -> str:
    by_simulation = found.get(mutant.id)
    cells = (
        f"`{mutant.id}`",
        mutant.promise,
        _shown_catcher(mutant.catcher),
        _code(mutant.expect),
        f"seed {by_simulation.seed}: {by_simulation.check}" if by_simulation else "",
    )
    return f"| {' | '.join(cells)} |"


def _shown_catcher(catcher: str) -> str:
    if catcher == SIMULATION:
        return "the simulation"
    file_name, _, name = catcher.partition("::")
    return f"[`{name}`](../{file_name})"


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""
