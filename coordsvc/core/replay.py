"""What watches have missed: changes of the history, one after the other, in small steps.

Whoever resumes takes a step, looks how long it has taken, and goes on in another turn of the loop;
meanwhile the history grows at its end and shrinks at its beginning. When nothing is left, the
watches that are left over are to be set in the same turn, so that nothing falls between. When the
history drops what comes next, the place is lost, and that is told.

Plain watches follow the links of their znodes; with a recursive one among them, or when little is
left, every change is looked at.

To a one-shot watch a znode that was deleted and is there again was changed, not deleted: it fires
where the znode was made again, with the type that the znode would show. Ref: ZooKeeper
DataTree.setWatches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Final, NamedTuple

from coordsvc.core.commands import CREATED, DATA_CHANGED, DELETED, Change
from coordsvc.core.history import History
from coordsvc.core.watches import (
    CHILDREN_CHANGED,
    DATA,
    ONE_SHOT,
    Found,
    Match,
    Watch,
    WatchTable,
)

_LINKS_PER_STEP: Final = 64
"""Links followed, or made, in one step, at most: a step is about as long as looking at a few
changes."""


class PlaceLostError(Exception):
    """The history has dropped what comes next."""


class Step(NamedTuple):
    """`change` None: only the way to the next one was made. `is_group_end`: no other change of
    this zxid comes."""

    change: Change | None
    matches: list[Match]
    is_group_end: bool


_ON_THE_WAY: Final = Step(None, [], False)


class Replay:
    """The history must be complete after `after_zxid`. The watches are in `table` until they are
    used up. `is_there(path)`: whether there is such a znode now."""

    def __init__(
        self,
        history: History,
        watches: Iterable[Watch],
        after_zxid: int,
        is_there: Callable[[str], bool],
    ) -> None:
        self.table = WatchTable()
        for watch in watches:
            self.table.put(watch)
        self.position = after_zxid
        """Everything up to this zxid was replayed."""
        self._is_there = is_there
        self._history = history
        self._next = history.first_after(after_zxid)
        """Every change before this number was looked at, or concerns no watch."""
        self._end = self._next - 1
        """The last number of the round: of the stretch for which the way is known."""
        self._is_scanning = False
        self._is_linking = False
        self._chains: list[tuple[str, bool]] = []
        """Whose first change of the round is still to be found."""
        self._walk = (0, 0)
        """For the last of them: (the earliest change found so far, the one to look at next)."""
        self._heads: list[tuple[int, bool, str]] = []
        """A heap: (number of the next change, whether of children, path)."""

    def step(self) -> Step | None:
        """Go on. None: nothing is left at this moment. Raises PlaceLostError."""
        if not self.table or (self._next > self._end and not self._begin_round()):
            return None
        if self._is_linking:
            self._link()
            return _ON_THE_WAY
        if self._chains:
            self._find_heads()
            return _ON_THE_WAY
        return self._scan() if self._is_scanning else self._follow()

    def _begin_round(self) -> bool:
        """Find the way through everything the history has now; False when there is no more."""
        history, table = self._history, self.table
        if self._next > history.last:
            return False
        if self._next < history.first:
            raise PlaceLostError
        self._end = history.last
        left = self._end - self._next + 1
        self._is_scanning = (
            table.has_recursive or left <= len(table) or not history.is_worth_linking(left)
        )
        self._is_linking = not self._is_scanning
        self._chains = [] if self._is_scanning else list(table.chains())
        self._walk = (0, 0)
        return True

    def _link(self) -> None:
        if self._next < self._history.first:
            raise PlaceLostError
        self._is_linking = not self._history.link(_LINKS_PER_STEP, self._end)

    def _find_heads(self) -> None:
        """The first change of each chain, by following it backwards, a few links at a time."""
        if self._next < self._history.first:
            raise PlaceLostError
        found, at = self._walk
        for _ in range(_LINKS_PER_STEP):
            path, of_children = self._chains[-1]
            if not found and not at:
                at = self._history.last_of(path, of_children)
            if at >= self._next:
                links = self._history.links(at)
                found, at = at, links.previous_child if of_children else links.previous_own
                continue
            if 0 < found <= self._end:
                heappush(self._heads, (found, of_children, path))
            found = at = 0
            self._chains.pop()
            if not self._chains:
                self._settle()
                break
        self._walk = (found, at)

    def _follow(self) -> Step:
        """Along the links: the next change of any chain."""
        number = self._heads[0][0]
        if number < self._history.first:
            raise PlaceLostError
        change, links = self._history.change(number), self._history.links(number)
        matches = self._match(change)
        while self._heads and self._heads[0][0] == number:
            _, of_children, path = heappop(self._heads)
            following = links.next_child if of_children else links.next_own
            if 0 < following <= self._end and self.table.has_chain(path, of_children):
                heappush(self._heads, (following, of_children, path))
        self._settle()
        return self._step_of(change, matches)

    def _settle(self) -> None:
        self._next = self._heads[0][0] if self._heads else self._end + 1

    def _scan(self) -> Step:
        """The next change, whatever it is of."""
        number = self._next
        if number < self._history.first:
            raise PlaceLostError
        change = self._history.change(number)
        self._next = number + 1
        return self._step_of(change, self._match(change))

    def _match(self, change: Change) -> list[Match]:
        matches = self.table.match(change)
        if change.type == DELETED and self._is_there(change.path):
            return self._put_off(change.path, matches)
        if change.type == CREATED:
            return self._made_again(change, matches)
        return matches

    def _put_off(self, path: str, matches: list[Match]) -> list[Match]:
        """One-shot watches wait for the znode to be made again, which comes further on."""
        left: list[Match] = []
        for event_type, at, acl, found in matches:
            kept = found
            if at == path and event_type == DELETED:
                kept = {}
                for watcher, watches in found.items():
                    if lasting := [watch for watch in watches if watch.kind not in ONE_SHOT]:
                        kept[watcher] = lasting
                    for watch in watches:
                        if watch.kind in ONE_SHOT:
                            self.table.put(watch)
            if kept:
                left.append((event_type, at, acl, kept))
        return left

    def _made_again(self, change: Change, matches: list[Match]) -> list[Match]:
        """DATA and CHILDREN watches are set on a znode that is there: that it is created means
        that they missed its deletion."""
        path = change.path
        created: Found = {}
        data_changed: Found = {}
        others: list[Match] = []
        for match in matches:
            if match[0] != CREATED:
                others.append(match)
                continue
            for watcher, watches in match[3].items():
                for watch in watches:
                    found = data_changed if watch.kind == DATA else created
                    found.setdefault(watcher, []).append(watch)
        children_changed = self.table.take_children_watches(path)
        own = {CREATED: created, DATA_CHANGED: data_changed, CHILDREN_CHANGED: children_changed}
        return [(told, path, change.acl, found) for told, found in own.items() if found] + others

    def _step_of(self, change: Change, matches: list[Match]) -> Step:
        # A round ends where a group ends, for the history holds whole groups.
        is_group_end = (
            self._next > self._end or self._history.change(self._next).zxid != change.zxid
        )
        self.position = change.zxid if is_group_end else change.zxid - 1
        return Step(change, matches, is_group_end)
