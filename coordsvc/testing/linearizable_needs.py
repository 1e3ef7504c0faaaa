"""What an answer needs of the state before it, and what steps can do about that.

The search need not look for ways to a state when it can count that too few steps lead there: a
znode's version only goes up, one set at a time, until the znode is deleted and made again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from coordsvc.testing.znode_model import (
    ERROR,
    NO_NODE,
    NODE_EXISTS,
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
    SetData,
    Tree,
)

GONE = -1
THERE = -2

NEVER = 1_000_000
"""More steps than there are."""


class Need(NamedTuple):
    """A znode at `place`: GONE, THERE, or of that version; then also with this data and of this
    owner, where given. Or a counter at `place` that has counted so many."""

    place: int
    version: int = THERE
    data: tuple[str | None, ...] = ()
    owner: tuple[str, ...] = ()
    counted: int = -1


Effect = tuple[str, int]
"""What a step may do, and at which place: "make", "delete", "set", "count"."""


class Means(NamedTuple):
    """The effects there are at hand: by steps that must happen, and by those that may; and the
    most that one of the latter has at once."""

    musts: Counter[Effect]
    mays: Counter[Effect]
    at_once: dict[Effect, int]


NO_MEANS = Means(Counter(), Counter(), {})


def needs_of(action: Action, answer: Answer) -> list[Need]:
    """None of them is more than the answer says; together they may be less."""
    if isinstance(action, Multi):
        return _multi_needs(action, answer)
    if isinstance(action, Create | CreateSequential):
        return _create_needs(action, answer)
    if isinstance(action, GetChildren):
        if answer[0] == ERROR:
            return [Need(action.place, GONE)]
        names = set(answer[1])
        children = [
            Need(place, THERE if name in names else GONE) for name, place in action.children
        ]
        return [Need(action.place), *children]
    if not isinstance(action, SetData | Delete | Check | Exists | GetData):
        return []
    if answer == NO_NODE or answer == ("exists",):
        return [Need(action.place, GONE)]
    if answer[0] == ERROR:
        return [Need(action.place)]
    if isinstance(action, SetData):
        return [Need(action.place, answer[1] - 1)]
    if isinstance(action, Exists):
        return [Need(action.place, answer[1], owner=(answer[2],))]
    if isinstance(action, GetData):
        return [Need(action.place, answer[2], data=(answer[1],))]
    version = [Need(action.place, THERE if action.version is None else action.version)]
    if isinstance(action, Delete):
        version += [Need(place, GONE) for place in action.children]
    return version


def _create_needs(action: Create | CreateSequential, answer: Answer) -> list[Need]:
    if answer == NO_NODE:
        return [Need(action.parent, GONE)]
    needs = [Need(action.parent)]
    if isinstance(action, Create):
        needs.append(Need(action.place, THERE if answer == NODE_EXISTS else GONE))
    elif answer[0] != ERROR:
        number = answer[1][len(action.prefix) :]
        needs.append(Need(action.counter, counted=int(number) if number.isdecimal() else NEVER))
    return needs


def _multi_needs(multi: Multi, answer: Answer) -> list[Need]:
    """Of each place, for the first part that changes it and those before."""
    if answer[0] == ERROR:
        return []
    needs: list[Need] = []
    changed: set[int] = set()
    for action, got in zip(multi.actions, answer[1], strict=True):
        needs += [need for need in needs_of(action, got) if need.place not in changed]
        changed |= {place for _, place in effects_of(action)}
    return needs


def effects_of(action: Action) -> Iterator[Effect]:
    if isinstance(action, Multi):
        for part in action.actions:
            yield from effects_of(part)
    elif isinstance(action, SetData):
        yield ("set", action.place)
    elif isinstance(action, Delete):
        yield ("delete", action.place)
    elif isinstance(action, EndSession):
        for place in action.places:
            yield ("delete", place)
    elif isinstance(action, Create | CreateSequential):
        if isinstance(action, Create):
            made = [(action.place, action.own_counter)]
        else:
            made = list(action.places.values())
        for place, own_counter in made:
            yield ("make", place)
            yield ("make", own_counter)
        yield ("count", action.counter)


def means_of(musts: Iterable[list[Effect]], mays: Iterable[list[Effect]]) -> Means:
    means = Means(Counter(), Counter(), {})
    for effects in musts:
        means.musts.update(effects)
    for effects in mays:
        means.mays.update(effects)
        for effect in effects:
            at_once = effects.count(effect)
            means.at_once[effect] = max(means.at_once.get(effect, 1), at_once)
    return means


def mays_needed(needs: list[Need], tree: Tree, means: Means) -> int:
    """At least so many of the steps that may happen have to; NEVER: no number will do."""
    return max((_mays_needed(need, tree, means) for need in needs), default=0)


def _mays_needed(need: Need, tree: Tree, means: Means) -> int:
    place = need.place
    here = tree[place]
    if need.counted >= 0:
        counted = here.creates
        if counted == need.counted:
            return 0
        anew = max(_some(means, "make", place), _some(means, "count", place, need.counted))
        if counted > need.counted:
            return anew
        return min(anew, _some(means, "count", place, need.counted - counted))
    if need.version == GONE:
        return 0 if here is None else _some(means, "delete", place)
    if need.version == THERE:
        return 0 if here is not None else _some(means, "make", place)
    anew = max(_some(means, "make", place), _some(means, "set", place, need.version))
    if here is None:
        return anew
    owner_fits = not need.owner or need.owner[0] == here.owner
    if here.version == need.version and owner_fits and need.data in ((), (here.data,)):
        return 0
    anew = max(anew, _some(means, "delete", place))
    if here.version >= need.version or not owner_fits:
        return anew
    return min(anew, _some(means, "set", place, need.version - here.version))


def _some(means: Means, what: str, place: int, count: int = 1) -> int:
    effect = (what, place)
    left = count - means.musts[effect]
    if left <= 0:
        return 0
    if left > means.mays[effect]:
        return NEVER
    return -(-left // means.at_once[effect])
