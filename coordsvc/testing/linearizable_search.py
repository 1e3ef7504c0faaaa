"""The search for an order of steps that explains all answers.

It is Wing and Gong's search with Lowe's improvements: a depth-first search over (what is done, the
state), which never looks twice at the same; and steps are put in order just in time, when the
earliest answer not yet explained needs it. What keeps it short, besides:

* A step that changes nothing is done as soon as the state fits it: nothing is lost by that.
* Before the step that must be explained next, only steps can matter that touch what it touches, or
  what those touch, and so on: all others can as well come after it.
* Of two ways to the same state that explain the same answers, the one that used fewer of the steps
  that need not happen leaves everything possible that the other does: the other is not followed.
* Steps that need not happen and do the same are used in the order of their invocations.
* Ways on which more of those that need not happen are put before one answer are tried only when
  the ones with fewer have all failed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from coordsvc.testing.linearizable_needs import (
    NEVER,
    Effect,
    Means,
    Need,
    effects_of,
    mays_needed,
    means_of,
    needs_of,
)
from coordsvc.testing.linearizable_steps import Step, Steps
from coordsvc.testing.znode_model import Action, Tree

_TREES_TOLD_MAX = 4


class Stuck(NamedTuple):
    """`step` is the first, in the order of the answers, up to which no order explains them all;
    `trees` are some of the states that the answers before it allow. Or the search was given up."""

    step: Step
    trees: list[Tree]
    is_given_up: bool = False


class _Point(NamedTuple):
    """`done` and `used` are sets of bits: of the steps that must happen, by the order of their
    answers, of which the first `first` are done; and of those that may."""

    first: int
    done: int
    used: int
    tree: Tree
    early: int
    """How many of those that may happen were used before anything made that necessary."""


class _Try:
    """A step, ready to be tried. `bit` is its own in `done` or in `used`; `end` and `before` are
    bits in `used`: that must not be there, that must."""

    __slots__ = ("answer", "apply", "before", "bit", "changes", "effects", "end", "needs", "step")

    def __init__(self, step: Step, bit: int, end: int, before: int) -> None:
        self.step = step
        self.bit = bit
        self.end = end
        self.before = before
        self.apply = step.action.apply
        self.answer = step.answer
        self.changes = step.changes
        # Most are never asked for.
        self.needs: list[Need] | None = None
        self.effects: list[Effect] | None = None


def _needs(one: _Try) -> list[Need]:
    if one.needs is None:
        one.needs = needs_of(one.step.action, one.answer) if one.answer is not None else []
    return one.needs


def _effects(one: _Try) -> list[Effect]:
    if one.effects is None:
        one.effects = list(effects_of(one.step.action))
    return one.effects


class _Here(NamedTuple):
    """A point within a stage, and the step by which it was reached, if that need not happen."""

    point: _Point
    before: _Point | None = None
    last: _Try | None = None


class _Near:
    """The steps that can matter to the one that is next."""

    def __init__(self, musts: list[_Try], mays: list[_Try]) -> None:
        self.musts = musts
        self.mays = mays
        self._means: Means | None = None

    def means(self) -> Means:
        if self._means is None:
            self._means = means_of(map(_effects, self.musts), map(_effects, self.mays))
        return self._means


class _GivenUpError(Exception):
    pass


class Search:
    """`count` is of the steps tried; at `count_max` the search is given up."""

    def __init__(self, steps: Steps, count_max: int) -> None:
        self.count = 0
        self._count_max = count_max
        musts = sorted(
            (step for step in steps.steps if step.answer is not None), key=lambda one: one.returned
        )
        mays = sorted(
            (step for step in steps.steps if step.answer is None), key=lambda one: one.invoked
        )
        self._mays = _tries(mays, mays)
        self._musts = _tries(musts, mays)
        self._pending = [[self._musts[one] for one in each] for each in _pending(musts)]
        self._looks = [[one for one in each if not one.changes] for each in self._pending]
        invoked = [step.invoked for step in mays]
        self._mays_invoked = [bisect_left(invoked, step.returned) for step in musts]
        self._start = self._settled(0, 0, 0, steps.tree, 0)
        self._bound = 0
        self._is_cut = False
        self._furthest = -1
        self._trees: list[Tree] = []

    def run(self) -> Stuck | None:
        """None: there is an order."""
        try:
            while not self._is_found():
                if not self._is_cut:
                    return self._stuck()
                self._bound += 1 + self._bound // 2
        except _GivenUpError:
            return self._stuck()._replace(is_given_up=True)
        return None

    def _stuck(self) -> Stuck:
        return Stuck(self._musts[self._furthest].step, self._trees)

    def _is_found(self) -> bool:
        self._is_cut = False
        seen = _Seen()
        ways = [iter([self._start])]
        while ways:
            point = next(ways[-1], None)
            if point is None:
                ways.pop()
            elif point.first == len(self._musts):
                return True
            elif seen.is_new(point):
                self._note(point)
                ways.append(self._ways(point))
        return False

    def _note(self, point: _Point) -> None:
        if point.first > self._furthest:
            self._furthest = point.first
            self._trees = []
        is_told = point.first < self._furthest or point.tree in self._trees
        if not is_told and len(self._trees) < _TREES_TOLD_MAX:
            self._trees.append(point.tree)

    # --------------------------------------------------------------- to the next answer

    def _ways(self, start: _Point) -> Iterator[_Point]:
        """The points just after the next answer from which the search has to go on; those that
        use the fewest steps which need not happen first."""
        first = start.first
        must = self._musts[first]
        near: _Near | None = None
        seen = _Seen()
        level = [_Here(start)]
        early = start.early
        is_answered = False
        for used in range(self._bound + 2):
            next_level: list[_Here] = []
            while level:
                here = level.pop()
                point = self._after_must(here.point, must) if must.changes else None
                if point is not None and not self._is_same_later(here, must, point):
                    is_answered = True
                    yield _at(point, early)
                if near is None:
                    near = self._near(start)
                if point is None and not self._may_help(must, here.point, near, used):
                    continue
                for one in near.musts:
                    point = self._after_must(here.point, one)
                    if point is None:
                        continue
                    if point.first > first:
                        is_answered = True
                        yield _at(point, early)
                    elif seen.is_new(point):
                        level.append(_Here(point))
                next_level += self._with_mays(here.point, near.mays, seen)
            if is_answered:
                early += 1
            if not next_level:
                return
            if early > self._bound:
                break
            next_level.reverse()
            level = []
            for here in next_level:
                if here.point.first > first:
                    is_answered = True
                    yield _at(here.point, early)
                else:
                    level.append(here)
        self._is_cut = True

    def _with_mays(self, here: _Point, mays: list[_Try], seen: _Seen) -> Iterator[_Here]:
        for one in mays:
            point = self._after_may(here, one)
            if point is not None and seen.is_new(point):
                yield _Here(point, here, one)

    def _is_same_later(self, here: _Here, must: _Try, point: _Point) -> bool:
        """Whether the step that led here could as well be put after the one that must follow."""
        if here.before is None or here.last is None:
            return False
        other = self._after_must(here.before, must)
        return other is not None and self._after_may(other, here.last) == point

    def _may_help(self, must: _Try, here: _Point, near: _Near, used: int) -> bool:
        """Whether as many steps as may still be used can lead to what the answer needs."""
        needed = mays_needed(_needs(must), here.tree, near.means())
        if needed <= self._bound + 1 - used:
            return True
        self._is_cut |= needed < NEVER
        return False

    def _near(self, start: _Point) -> _Near:
        must = self._musts[start.first]
        reads, writes = must.step.reads, must.step.writes
        musts = [one for one in self._pending[start.first] if not one.bit & start.done]
        mays = self._mays[: self._mays_invoked[start.first]]
        mays = [one for one in mays if not one.bit & start.used]
        left = [one for one in musts + mays if one is not must]
        near: set[int] = set()
        while True:
            found = [
                one for one in left if one.step.writes & (reads | writes) or one.step.reads & writes
            ]
            if not found:
                break
            for one in found:
                reads |= one.step.reads
                writes |= one.step.writes
                near.add(id(one))
            left = [one for one in left if id(one) not in near]
        musts = [one for one in musts if id(one) in near and one.changes]
        mays = [one for one in mays if id(one) in near]
        return _Near(musts, mays)

    # ------------------------------------------------------------------------ one step

    def _after_must(self, here: _Point, one: _Try) -> _Point | None:
        if here.done & one.bit or here.used & one.end:
            return None
        self._count_one()
        tree, answer = one.apply(here.tree)
        if answer != one.answer:
            return None
        return self._settled(here.first, here.done | one.bit, here.used, tree, here.early)

    def _after_may(self, here: _Point, one: _Try) -> _Point | None:
        used = here.used
        if used & (one.bit | one.end) or used & one.before != one.before:
            return None
        self._count_one()
        tree, _ = one.apply(here.tree)
        if tree is here.tree:
            return None
        return self._settled(here.first, here.done, used | one.bit, tree, here.early)

    def _count_one(self) -> None:
        self.count += 1
        if self.count > self._count_max:
            raise _GivenUpError

    def _settled(self, first: int, done: int, used: int, tree: Tree, early: int) -> _Point:
        """The point after all steps that change nothing and fit the state now."""
        began = -1
        while first != began and first < len(self._musts):
            began = first
            for one in self._looks[first]:
                if not done & one.bit and not used & one.end and one.apply(tree)[1] == one.answer:
                    done |= one.bit
            while done >> first & 1:
                first += 1
        return _Point(first, done, used, tree, early)


def _at(point: _Point, early: int) -> _Point:
    return point if point.early == early else point._replace(early=early)


class _Seen:
    """Points of one search; of those with the same answers explained and the same state."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, Tree], list[tuple[int, int]]] = {}

    def is_new(self, point: _Point) -> bool:
        """False when one as good was seen: nothing was used for it that is not used here, and no
        more was early."""
        key = (point.done, point.tree)
        others = self._seen.get(key)
        if others is None:
            self._seen[key] = [(point.used, point.early)]
            return True
        for used, early in others:
            if used & point.used == used and early <= point.early:
                return False
        others.append((point.used, point.early))
        return True


def _tries(steps: list[Step], mays: list[Step]) -> list[_Try]:
    ends = {one.session: 1 << bit for bit, one in enumerate(mays) if one.operation is None}
    last_same: dict[tuple[Action, str], int] = {}
    tries = []
    for number, step in enumerate(steps):
        bit, before = 1 << number, 0
        if step.answer is None:
            key = (step.action, step.session)
            before = last_same.get(key, 0)
            last_same[key] = bit
        tries.append(_Try(step, bit, ends.get(step.session, 0), before))
    return tries


def _pending(musts: list[Step]) -> list[list[int]]:
    """For each, those with no earlier answer that were invoked before its answer: it, and those
    that may come before it."""
    by_invocation = sorted(range(len(musts)), key=lambda one: musts[one].invoked)
    pending: list[list[int]] = []
    open_ones: list[int] = []
    invoked = 0
    for first, must in enumerate(musts):
        while invoked < len(musts) and musts[by_invocation[invoked]].invoked < must.returned:
            open_ones.append(by_invocation[invoked])
            invoked += 1
        open_ones = [one for one in open_ones if one >= first]
        pending.append(sorted(open_ones))
    return pending
