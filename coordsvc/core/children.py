"""The names of one znode's children, in order, in a form that is cheap to change and to list.

Short sorted lists, in a row: a change moves what stands behind it in one of them, and a listing
begins anywhere. So neither a change nor a page costs more for a znode with many children, and there
is never a moment at which all of them are sorted. A leaf has no such object.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

_BLOCK_NAMES_MAX = 1024
"""A full one is cut in two. Moving half of so many names takes a tenth of a microsecond."""


class Children:
    """The set of one znode's child names."""

    __slots__ = ("_blocks", "_count", "_lasts")

    def __init__(self) -> None:
        self._blocks: list[list[str]] = []
        """None is empty."""
        self._lasts: list[str] = []
        """The last name of each."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: str) -> bool:
        at = bisect_left(self._lasts, name)
        if at == len(self._blocks):
            return False
        block = self._blocks[at]
        return block[bisect_left(block, name)] == name

    def add(self, name: str) -> None:
        """`name` is not among them."""
        blocks, lasts = self._blocks, self._lasts
        self._count += 1
        at = bisect_left(lasts, name)
        if at < len(blocks):
            block = blocks[at]
            insort(block, name)
        elif blocks:
            at -= 1
            block = blocks[at]
            block.append(name)
            lasts[at] = name
        else:
            blocks.append([name])
            lasts.append(name)
            return
        if len(block) > _BLOCK_NAMES_MAX:
            self._cut(at)

    def _cut(self, at: int) -> None:
        block = self._blocks[at]
        half = len(block) // 2
        self._blocks[at : at + 1] = [block[:half], block[half:]]
        self._lasts.insert(at, block[half - 1])

    def remove(self, name: str) -> None:
        """`name` is among them."""
        at = bisect_left(self._lasts, name)
        block = self._blocks[at]
        index = bisect_left(block, name)
        assert block[index] == name
        del block[index]
        self._count -= 1
        if not block:
            del self._blocks[at], self._lasts[at]
        elif index == len(block):
            self._lasts[at] = block[-1]

    def after(self, name: str) -> Iterator[str]:
        """The names behind `name`, which need not be among them, in order of code points. Not to be
        gone on with after a change."""
        first = bisect_right(self._lasts, name)
        if first == len(self._blocks):
            return
        block = self._blocks[first]
        yield from block[bisect_right(block, name) :]
        for at in range(first + 1, len(self._blocks)):
            yield from self._blocks[at]

    def sorted(self) -> list[str]:
        """All names in order of code points."""
        return [name for block in self._blocks for name in block]
