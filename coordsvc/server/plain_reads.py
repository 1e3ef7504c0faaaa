"""The plain reads of one stream or connection: where they stand among its writes (decision 6).

Each is done right behind the last write before it, in the moment in which that has run. When there
is none to wait for, it is *ready*: it is done when it is the first in its queue, or before that
when another write follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from coordsvc.server.write_outcome import ReadBehind, WriteOutcome


class PlainReads:
    def __init__(self) -> None:
        self._last: WriteOutcome | None = None
        """What is not this write or before it is answered."""
        self._ready: deque[ReadBehind] = deque()
        """No write before them is undecided, and none came after them."""

    def write_comes(self, write: WriteOutcome) -> None:
        if self._ready:
            self.read_ready()
        self._last = write

    def read_comes(self, read: ReadBehind, slots: Sequence[object]) -> None:
        """It is the last of `slots`."""
        write = self._last
        if write is not None and write.done():
            write = self._last = _undecided_before(write, slots)
        if write is not None:
            write.add_reader(read)
        else:
            read.is_ready = True
            self._ready.append(read)

    def all_answered(self) -> None:
        """Nothing is in the queue: a write that was large is not kept."""
        self._last = None

    def read_ready(self, last: ReadBehind | None = None) -> None:
        """Do those that wait for nothing but their turn, up to that one, or all."""
        ready = self._ready
        while ready:
            read = ready.popleft()
            read.read()
            if read is last:
                break


def place_behind(read: ReadBehind, write: WriteOutcome, slots: Sequence[object]) -> None:
    """`write` never runs: the read belongs behind the one before that."""
    before = _undecided_before(write, slots)
    if before is not None:
        before.add_reader(read)
    else:
        read.read()


def _undecided_before(write: WriteOutcome, slots: Sequence[object]) -> WriteOutcome | None:
    """The last write before it that is not done. Rarely asked for: writes are done in their order,
    but for those that are refused before they are proposed."""
    found = False
    for other in reversed(slots):
        if found and isinstance(other, WriteOutcome) and not other.done():
            return other
        found = found or other is write
    return None
