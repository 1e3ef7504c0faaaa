"""What znodes answer, given a state: the specification that histories are held against.

A state is a tuple, a `Tree`: hashable, and never changed. Which place in it belongs to which znode
is decided by who makes the actions (`linearizable_parts.py`), so that a state holds only what
matters to a part of a history. Two places are the same in every tree: at ABSENT nothing ever is,
at PRESENT there always is a persistent znode.

An action's `apply` gives the state after it, and the answer. A refused action, and one that only
looks, give the very tree they were given. Zxids, times and ACLs are not modelled; neither are
containers and znodes with a TTL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias


class Znode(NamedTuple):
    data: str | None
    version: int
    owner: str
    """The session of an ephemeral, or empty."""


class Counter(NamedTuple):
    """What a parent knows that gives numbers: how many children were ever created, and those of
    them that have no place of their own, as (name, owner)."""

    creates: int
    unplaced: frozenset[tuple[str, str]]


Tree: TypeAlias = tuple[Any, ...]
"""At each place a Znode, None where there is none, or a Counter."""

Answer: TypeAlias = tuple[Any, ...]
"""The name of the operation and what it returned; or "error", the code, and the index of the
operation of a multi that was refused (-1: no multi)."""

ABSENT = 0
PRESENT = 1
NO_PLACE = -1

ROOT_ZNODE = Znode("", 0, "")
NO_CREATES = Counter(0, frozenset())
EMPTY: Tree = (None, ROOT_ZNODE)

ERROR = "error"
NO_NODE: Answer = (ERROR, "NO_NODE", -1)
NODE_EXISTS: Answer = (ERROR, "NODE_EXISTS", -1)
BAD_VERSION: Answer = (ERROR, "BAD_VERSION", -1)
NOT_EMPTY: Answer = (ERROR, "NOT_EMPTY", -1)
NO_CHILDREN: Answer = (ERROR, "NO_CHILDREN_FOR_EPHEMERALS", -1)
BAD_ARGUMENTS: Answer = (ERROR, "BAD_ARGUMENTS", -1)

MODELLED_CODES = frozenset(
    answer[1] for answer in (NO_NODE, NODE_EXISTS, BAD_VERSION, NOT_EMPTY, NO_CHILDREN)
)
"""Errors that depend on the znodes alone."""

DELETED: Answer = ("delete",)
CHECKED: Answer = ("check",)
ENDED: Answer = ("end_session",)


class Action(Protocol):
    def apply(self, tree: Tree) -> tuple[Tree, Answer]: ...


def numbered(prefix: str, creates: int) -> str:
    """The name of a sequential child: ten digits, more only from the 10^10th on."""
    return f"{prefix}{creates:010d}"


@dataclass(frozen=True, slots=True)
class Create:
    path: str
    place: int
    parent: int
    data: str | None
    owner: str
    counter: int = NO_PLACE
    """The parent's Counter, where it has one."""
    own_counter: int = NO_PLACE
    """Begins anew with the znode."""

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        parent = tree[self.parent]
        if parent is None:
            return tree, NO_NODE
        if tree[self.place] is not None:
            return tree, NODE_EXISTS
        if parent.owner:
            return tree, NO_CHILDREN
        after = list(tree)
        after[self.place] = Znode(self.data, 0, self.owner)
        if self.counter >= 0:
            creates, unplaced = tree[self.counter]
            after[self.counter] = Counter(creates + 1, unplaced)
        if self.own_counter >= 0:
            after[self.own_counter] = NO_CREATES
        return tuple(after), ("create", self.path)


@dataclass(frozen=True, slots=True)
class CreateSequential:
    prefix: str
    """The path, without the number."""
    parent: int
    data: str | None
    owner: str
    counter: int
    places: Mapping[str, tuple[int, int]] = field(compare=False)
    """Of the children that have one: path -> (place, own counter)."""

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        parent = tree[self.parent]
        if parent is None:
            return tree, NO_NODE
        counter: Counter = tree[self.counter]
        path = numbered(self.prefix, counter.creates)
        place, own_counter = self.places.get(path, (NO_PLACE, NO_PLACE))
        if place >= 0 and tree[place] is not None:
            return tree, NODE_EXISTS
        if parent.owner:
            return tree, NO_CHILDREN
        after = list(tree)
        unplaced = counter.unplaced
        if place >= 0:
            after[place] = Znode(self.data, 0, self.owner)
        else:
            unplaced |= {(path[path.rfind("/") + 1 :], self.owner)}
        after[self.counter] = Counter(counter.creates + 1, unplaced)
        if own_counter >= 0:
            after[own_counter] = NO_CREATES
        return tuple(after), ("create", path)


@dataclass(frozen=True, slots=True)
class SetData:
    place: int
    data: str | None
    version: int | None

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        znode = tree[self.place]
        if znode is None:
            return tree, NO_NODE
        if self.version is not None and self.version != znode.version:
            return tree, BAD_VERSION
        version = znode.version + 1
        after = list(tree)
        after[self.place] = Znode(self.data, version, znode.owner)
        return tuple(after), ("set_data", version)


@dataclass(frozen=True, slots=True)
class Delete:
    place: int
    version: int | None
    children: tuple[int, ...]
    counter: int = NO_PLACE
    """Its own, which may know of more children."""

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        znode = tree[self.place]
        if znode is None:
            return tree, NO_NODE
        if self.version is not None and self.version != znode.version:
            return tree, BAD_VERSION
        for child in self.children:
            if tree[child] is not None:
                return tree, NOT_EMPTY
        if self.counter >= 0 and tree[self.counter].unplaced:
            return tree, NOT_EMPTY
        after = list(tree)
        after[self.place] = None
        return tuple(after), DELETED


@dataclass(frozen=True, slots=True)
class Check:
    """Of a version; in a multi only."""

    place: int
    version: int | None

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        znode = tree[self.place]
        if znode is None:
            return tree, NO_NODE
        if self.version is not None and self.version != znode.version:
            return tree, BAD_VERSION
        return tree, CHECKED


@dataclass(frozen=True, slots=True)
class Refused:
    """It is refused whatever the tree looks like."""

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        return tree, BAD_ARGUMENTS


@dataclass(frozen=True, slots=True)
class Multi:
    """All of them, each on top of those before it, or none."""

    actions: tuple[Action, ...]

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        after = tree
        answers = []
        for index, action in enumerate(self.actions):
            after, answer = action.apply(after)
            if answer[0] == ERROR:
                return tree, (ERROR, answer[1], index)
            answers.append(answer)
        return after, ("multi", tuple(answers))


@dataclass(frozen=True, slots=True)
class EndSession:
    """All ephemerals of a session vanish at once."""

    session: str
    places: tuple[int, ...]
    counters: tuple[int, ...]

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        after = list(tree)
        for place in self.places:
            znode = tree[place]
            if znode is not None and znode.owner == self.session:
                after[place] = None
        for place in self.counters:
            creates, unplaced = tree[place]
            left = frozenset(child for child in unplaced if child[1] != self.session)
            after[place] = Counter(creates, left)
        # Equal trees are the same tree to who asks whether anything changed.
        return (tuple(after) if after != list(tree) else tree), ENDED


@dataclass(frozen=True, slots=True)
class Exists:
    place: int

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        znode = tree[self.place]
        if znode is None:
            return tree, ("exists",)
        return tree, ("exists", znode.version, znode.owner)


@dataclass(frozen=True, slots=True)
class GetData:
    place: int

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        znode = tree[self.place]
        if znode is None:
            return tree, NO_NODE
        return tree, ("get_data", znode.data, znode.version)


@dataclass(frozen=True, slots=True)
class GetChildren:
    place: int
    children: tuple[tuple[str, int], ...]
    """(name, place), sorted by name."""
    counter: int = NO_PLACE

    def apply(self, tree: Tree) -> tuple[Tree, Answer]:
        if tree[self.place] is None:
            return tree, NO_NODE
        names = [name for name, place in self.children if tree[place] is not None]
        if self.counter >= 0 and tree[self.counter].unplaced:
            names = sorted(names + [name for name, _ in tree[self.counter].unplaced])
        return tree, ("get_children", tuple(names))
