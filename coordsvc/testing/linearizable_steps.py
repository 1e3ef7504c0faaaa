"""Puts a component of a history into the steps of the model that the search tries to order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from coordsvc.core.state import SPECIAL_PATHS
from coordsvc.paths import name_of, path_fault
from coordsvc.testing.linearizable_components import Component, Footprint, Variable
from coordsvc.testing.linearizable_operations import FOREVER, READS, Operation, Part
from coordsvc.testing.znode_model import (
    ABSENT,
    EMPTY,
    NO_CREATES,
    NO_PLACE,
    ROOT_ZNODE,
    Action,
    Answer,
    Check,
    Create,
    CreateSequential,
    Delete,
    EndSession,
    Exists,
    GetChildren,
    GetData,
    Multi,
    Refused,
    SetData,
    Tree,
)


@dataclass(slots=True, eq=False)
class Step:
    """An operation, or the end of a session (`operation` is None)."""

    operation: Operation | None
    action: Action
    answer: Answer | None
    """None: any, and it may never happen."""
    invoked: int
    returned: int
    changes: bool
    reads: int
    writes: int
    """Bits for variables: of two steps of which neither writes what the other touches, either may
    be first, and nobody can tell."""
    session: str = ""
    """The one that ends, or that a write needs, if its end is a step."""


@dataclass(slots=True, eq=False)
class Steps:
    places: dict[str, int]
    """Of the znodes in `tree`."""
    tree: Tree
    """Before the first step."""
    steps: list[Step]


def steps_of(component: Component) -> Steps:
    return _Builder(component).build()


class _Builder:
    """Gives the variables of one component their places in the tree, and their bits."""

    def __init__(self, component: Component) -> None:
        self._knowledge = component.knowledge
        self._footprints = component.footprints
        variables = sorted({one for each in component.footprints for one in each.variables})
        self._bits = {variable: 1 << number for number, variable in enumerate(variables)}
        self._places: dict[str, int] = {}
        self._counters: dict[str, int] = {}
        tree = list(EMPTY)
        for kind, path in variables:
            if kind == "c":
                self._counters[path] = len(tree)
                tree.append(NO_CREATES)
            elif path not in self._places:
                self._places[path] = len(tree)
                tree.append(ROOT_ZNODE if path in SPECIAL_PATHS else None)
        self._tree = tuple(tree)

    def build(self) -> Steps:
        ends = self._session_ends()
        steps = [self._step(footprint, ends) for footprint in self._footprints]
        steps.extend(ends.values())
        return Steps(self._places, self._tree, steps)

    def _mask(self, variables: Iterable[Variable]) -> int:
        return sum(self._bits[variable] for variable in variables)

    def _session_ends(self) -> dict[str, Step]:
        """By session, of those that may have ephemerals here. The end has a bit of its own, which
        the session's writes look at: they are before it."""
        touched: dict[str, set[Variable]] = defaultdict(set)
        for footprint in self._footprints:
            operation = footprint.operation
            if operation.is_write and any(part.is_ephemeral for part in operation.parts):
                touched[operation.invoke.session] |= footprint.writes
        ends = {}
        for number, session in enumerate(sorted(touched), len(self._bits)):
            variables = touched[session]
            places = {self._places[path] for kind, path in variables if kind != "c"}
            counters = {self._counters[path] for kind, path in variables if kind == "c"}
            action = EndSession(session, tuple(sorted(places)), tuple(sorted(counters)))
            mask = self._mask(variables) | 1 << number
            invoked = self._knowledge.alive_at[session]
            ends[session] = Step(None, action, None, invoked, FOREVER, True, mask, mask, session)
        return ends

    def _step(self, footprint: Footprint, ends: dict[str, Step]) -> Step:
        operation = footprint.operation
        invoke = operation.invoke
        actions = tuple(self._action(part, operation) for part in operation.parts)
        reads, session = self._mask(footprint.reads), ""
        end = ends.get(invoke.session)
        if end is not None and invoke.name not in READS:
            session = invoke.session
            # The only bit of the end that is no variable's.
            reads |= 1 << end.reads.bit_length() - 1
        return Step(
            operation,
            Multi(actions) if invoke.name == "multi" else actions[0],
            operation.answer,
            operation.invoked,
            operation.returned,
            operation.is_write,
            reads,
            self._mask(footprint.writes),
            session,
        )

    # ------------------------------------------------------------------------- actions

    def _action(self, part: Part, operation: Operation) -> Action:
        if _is_refused(part):
            return Refused()
        if part.name == "create":
            return self._create(part, operation)
        place = self._places[part.path]
        if part.name == "set_data":
            return SetData(place, part.data, part.version)
        if part.name == "check":
            return Check(place, part.version)
        if part.name == "exists":
            return Exists(place)
        if part.name == "get_data":
            return GetData(place)
        counter = self._counters.get(part.path, NO_PLACE)
        children = self._children(part, operation)
        if part.name == "get_children":
            return GetChildren(place, children, counter)
        if part.name == "delete":
            return Delete(place, part.version, tuple(place for _, place in children), counter)
        raise ValueError(f"op {operation.invoke.op}: {part.name} is not modelled")

    def _create(self, part: Part, operation: Operation) -> Action:
        parent = self._place_to_look_at(part.parent, operation)
        counter = self._counters.get(part.parent, NO_PLACE)
        if not part.is_sequential:
            own_counter = self._counters.get(part.path, NO_PLACE)
            place = self._places[part.path]
            return Create(part.path, place, parent, part.data, part.owner, counter, own_counter)
        places = {
            path: (self._places[path], self._counters.get(path, NO_PLACE))
            for path in self._knowledge.paths_of(part)
        }
        return CreateSequential(part.path, parent, part.data, part.owner, counter, places)

    def _place_to_look_at(self, path: str, operation: Operation) -> int:
        certain = self._knowledge.certain_place(path, operation)
        return self._places[path] if certain is None else certain

    def _children(self, part: Part, operation: Operation) -> tuple[tuple[str, int], ...]:
        children = [
            (name_of(path), self._place_to_look_at(path, operation))
            for path in sorted(self._knowledge.children.get(part.path, ()))
        ]
        return tuple(child for child in children if child[1] != ABSENT)


def _is_refused(part: Part) -> bool:
    """Whatever the znodes are. A sequential create may end in the slash before the number."""
    if part.name == "delete" and part.path in SPECIAL_PATHS:
        return True
    if part.is_ephemeral and not part.owner:
        return True
    return path_fault(part.path + "0" if part.is_sequential else part.path) is not None
