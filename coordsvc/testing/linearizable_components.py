"""Cuts a history into components that say nothing about each other.

An order of all operations exists exactly when one exists for each component (linearizability is
local), and the search for it takes exponential time, so small ones are worth much. What an
operation touches are variables, three for a path: whether the znode exists ("e"), what it holds
("d"), and the counter for its sequential children ("c", where somebody asked for a number). What
one operation touches is in one component. Left out is what is certain without any order: a
znode that was never made; and one that was made once, persistently, and that nothing in the history
can have deleted, for all who came before that was asked for or after it was answered. So the
znodes that a workload makes first and keeps, and under which everything happens, tie nothing
together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from coordsvc.core.state import SPECIAL_PATHS
from coordsvc.paths import ROOT, parent_of
from coordsvc.testing.linearizable_operations import (
    FOREVER,
    WRITES,
    Operation,
    Part,
    is_numbered,
)
from coordsvc.testing.znode_model import ABSENT, PRESENT

Variable = tuple[str, str]


@dataclass(slots=True)
class _Existence:
    """What may have made or deleted the znode of a path."""

    first_invoked: int = FOREVER
    changes: int = 0
    settled_at: int = FOREVER
    """When its one change, the creation of a persistent znode, had been answered."""


@dataclass(slots=True, eq=False)
class Footprint:
    operation: Operation
    reads: set[Variable] = field(default_factory=set)
    writes: set[Variable] = field(default_factory=set)

    @property
    def variables(self) -> Iterator[Variable]:
        yield from self.reads
        yield from self.writes


class Component(NamedTuple):
    """Operations by the time of the invocation, with what they touch."""

    knowledge: Knowledge
    footprints: list[Footprint]


def components_of(operations: Sequence[Operation]) -> list[Component]:
    knowledge = Knowledge(operations)
    roots = _Roots()
    footprints = [knowledge.footprint(operation) for operation in operations if operation.parts]
    for footprint in footprints:
        roots.join(footprint.variables)
    gathered: dict[Variable, list[Footprint]] = defaultdict(list)
    for footprint in footprints:
        gathered[roots.find(next(iter(footprint.variables)))].append(footprint)
    return [Component(knowledge, together) for together in gathered.values()]


class _Roots:
    """Union-find."""

    def __init__(self) -> None:
        self._parents: dict[Variable, Variable] = {}

    def find(self, variable: Variable) -> Variable:
        parents = self._parents
        root = variable
        while (above := parents.setdefault(root, root)) != root:
            root = above
        while (above := parents[variable]) != root:
            parents[variable], variable = root, above
        return root

    def join(self, variables: Iterable[Variable]) -> None:
        first: Variable | None = None
        for variable in variables:
            root = self.find(variable)
            if first is None:
                first = root
            self._parents[root] = first


class Knowledge:
    """What is known of paths from all operations together."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.children: dict[str, set[str]] = defaultdict(set)
        self.existence: dict[str, _Existence] = defaultdict(_Existence)
        self.numbering: set[str] = set()
        """Parents whose counters somebody asked."""
        self.alive_at: dict[str, int] = defaultdict(int)
        """When the last write of a session that was answered had been invoked: it lived after."""
        for path in SPECIAL_PATHS[1:]:
            self.children[parent_of(path)].add(path)
        for operation in operations:
            for part in operation.parts:
                if part.is_sequential:
                    self.numbering.add(part.parent)
                if part.made or not part.is_sequential:
                    path = part.made or part.path
                    if path != ROOT:
                        self.children[parent_of(path)].add(path)
        for operation in operations:
            self._note(operation)
            if operation.invoke.name == "multi":
                operation.made_inside = frozenset(
                    path
                    for part in operation.parts
                    if part.name in ("create", "delete")
                    for path in self.paths_of(part)
                )

    def _note(self, operation: Operation) -> None:
        session = operation.invoke.session
        if operation.answer is not None and operation.invoke.name in WRITES:
            self.alive_at[session] = max(self.alive_at[session], operation.invoked)
        if not operation.is_write:
            return
        for part in operation.parts:
            if part.name not in ("create", "delete"):
                continue
            is_settled = (
                part.name == "create"
                and not part.is_ephemeral
                and bool(part.made)
                and operation.answer is not None
            )
            for path in self.paths_of(part):
                existence = self.existence[path]
                existence.changes += 1
                existence.first_invoked = min(existence.first_invoked, operation.invoked)
                is_only = is_settled and existence.changes == 1
                existence.settled_at = operation.returned if is_only else FOREVER

    def paths_of(self, part: Part) -> list[str]:
        """The one it is about; for a sequential create whose number is not known, all that it may
        have made and that anything is known of."""
        if not part.is_sequential or part.made:
            return [part.made or part.path]
        parent = part.parent
        children = sorted(self.children.get(parent, ()))
        return [path for path in children if is_numbered(path, part.path, parent)]

    def certain_place(self, path: str, operation: Operation) -> int | None:
        """ABSENT or PRESENT where that is certain during all of the operation."""
        if path in SPECIAL_PATHS:
            return PRESENT
        if path in operation.made_inside:
            return None
        existence = self.existence.get(path)
        if existence is None or operation.returned < existence.first_invoked:
            return ABSENT
        return PRESENT if existence.settled_at < operation.invoked else None

    def footprint(self, operation: Operation) -> Footprint:
        footprint = Footprint(operation)
        for part in operation.parts:
            self._add_part(footprint, part)
        if not operation.is_write:
            footprint.reads |= footprint.writes
            footprint.writes.clear()
        return footprint

    def _add_part(self, footprint: Footprint, part: Part) -> None:
        reads, writes = footprint.reads, footprint.writes
        for path in self.paths_of(part):
            if part.name in ("create", "delete"):
                writes |= {("e", path), ("d", path)}
                if path in self.numbering:
                    writes.add(("c", path))
            elif part.name == "set_data":
                reads.add(("e", path))
                writes.add(("d", path))
            elif part.name == "get_children":
                reads.add(("e", path))
            else:
                reads |= {("e", path), ("d", path)}
        if part.name == "create":
            parent = part.parent
            self._look(footprint, parent)
            if parent in self.numbering:
                writes.add(("c", parent))
        elif part.name in ("delete", "get_children"):
            for child in self.children.get(part.path, ()):
                self._look(footprint, child)
            if part.path in self.numbering:
                reads.add(("c", part.path))

    def _look(self, footprint: Footprint, path: str) -> None:
        """It asks only whether that exists."""
        if self.certain_place(path, footprint.operation) is None:
            footprint.reads.add(("e", path))
