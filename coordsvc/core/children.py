"""The names of one znode's children, in a form that is cheap to change and cheap to list.

A leaf has no such object. Names stand in a dict; the sorted list is made when somebody lists and
then kept in step. Membership is never asked here: the tree itself is a dict by path.
"""

from __future__ import annotations

from bisect import bisect_left, insort

_SHIFTS_MAX = 16_384
"""A change in the middle of a list moves what stands behind it. Up to this many names that is a
few microseconds; beyond, the list is dropped and made again by the next listing."""


class Children:
    """The set of one znode's child names."""

    __slots__ = ("_names", "_sorted")

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._sorted: list[str] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str) -> None:
        assert name not in self._names
        self._names[name] = None
        names = self._sorted
        if names is None:
            return
        if not names or names[-1] < name:
            names.append(name)
        elif len(names) <= _SHIFTS_MAX:
            insort(names, name)
        else:
            self._sorted = None

    def remove(self, name: str) -> None:
        del self._names[name]
        names = self._sorted
        if names is None:
            return
        if len(names) <= _SHIFTS_MAX:
            del names[bisect_left(names, name)]
        elif names[-1] == name:
            names.pop()
        else:
            self._sorted = None

    def sorted(self) -> list[str]:
        """The names in order of code points. Not a copy: read it, do not keep it."""
        if self._sorted is None:
            self._sorted = sorted(self._names)
        return self._sorted
