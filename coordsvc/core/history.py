"""The latest changes of the tree, so that watches which resume miss nothing. Per replica, in
memory only.

Changes have numbers here, counted from 1; they come and go with the entry of the log that made
them, so that a multi is remembered as a whole or not at all. A change can be linked with the change
before it and after it of the same znode, and of the same parent's children: what a watch has missed
is found by following links, at the cost of what it finds, however long the history is. As every
write comes here and few watches ever resume, links are made only when somebody wants to follow
them, for all that is not linked yet, in steps.

What it takes is counted in bytes: for each change its path, its data and CHANGE_OVERHEAD_BYTES,
and once for each ACL that any of its changes carries, other than the open one, the size of that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection
from typing import Final

import msgspec

from coordsvc.core.commands import DATA_CHANGED, OPEN_ACL, Acl, Change
from coordsvc.paths import parent_of

CHANGE_OVERHEAD_BYTES: Final = 900
"""What a change of a znode of its own takes in CPython beside its path and data: the change and
its stat, the numbers in both, and when it is linked the links, and its places in the two
indexes."""

ACL_ENTRY_OVERHEAD_BYTES: Final = 160

_COMPACTED_AT: Final = 1024
"""Empty places at the front of the list of changes before it is moved together."""


class Links(msgspec.Struct, gc=False):
    """Numbers of a change's neighbours, 0 when there is none. `next_own` and `previous_own` are of
    the same znode; the other two of the same parent, among the creations and deletions of its
    children."""

    previous_own: int
    previous_child: int
    next_own: int = 0
    next_child: int = 0


class _Group(msgspec.Struct, frozen=True, gc=False):
    """What one entry has changed. `acls`: each time that one other than the open one is carried."""

    count: int
    size: int
    zxid: int
    acls: tuple[tuple[Acl, ...], ...]


class History:
    """`zxid`: the last one before it begins. `bytes_max`: the oldest groups go when it takes
    more."""

    def __init__(self, zxid: int, *, bytes_max: int) -> None:
        self.complete_after = zxid
        """It has every change after this zxid."""
        self.bytes = 0
        self.first = 1
        """The number of the oldest change it has, or would have."""
        self._bytes_max = bytes_max
        self._changes: list[Change | None] = []
        self._empty = 0
        self._groups: deque[_Group] = deque()
        self._acls: dict[tuple[Acl, ...], int] = {}
        self._links: dict[int, Links] = {}
        self._linked = 0
        """The number of the newest change that is linked; all that it has before it are."""
        self._last_own: dict[str, int] = {}
        self._last_child: dict[str, int] = {}
        self._looked_at = 0
        """Changes that were looked at one by one since the last were linked."""

    def __len__(self) -> int:
        return len(self._changes) - self._empty

    @property
    def last(self) -> int:
        """The number of the newest change; `first` - 1 when there is none."""
        return self.first + len(self) - 1

    # ---------------------------------------------------------------------------------- growing

    def append(self, changes: Collection[Change]) -> None:
        """All changes of one entry of the log, in order."""
        size = CHANGE_OVERHEAD_BYTES * len(changes)
        zxid, acls = 0, []
        for change in changes:
            data = change.data
            size += 4 * len(change.path) + len(data) if data else 4 * len(change.path)
            if change.acl is not OPEN_ACL:
                acls.append(change.acl)
            if change.parent_acl is not OPEN_ACL:
                acls.append(change.parent_acl)
            zxid = change.zxid
        if acls:
            self._keep_acls(acls)
        if size:
            self._changes += changes
            self._groups.append(_Group(len(changes), size, zxid, tuple(acls)))
            self.bytes += size
        if self.bytes > self._bytes_max:
            self._make_room()

    def _make_room(self) -> None:
        """The oldest groups go, until what is left fits."""
        groups = self._groups
        while self.bytes > self._bytes_max and groups:
            self._drop(groups.popleft())
        if self._empty > _COMPACTED_AT and 2 * self._empty > len(self._changes):
            del self._changes[: self._empty]
            self._empty = 0

    def _drop(self, group: _Group) -> None:
        after = self.first + group.count
        for number in range(self.first, min(after, self._linked + 1)):
            self._unlink(number)
        end = self._empty + group.count
        self._changes[self._empty : end] = [None] * group.count
        self._empty = end
        self.first = after
        self.bytes -= group.size
        self.complete_after = group.zxid
        for acl in group.acls:
            self._release_acl(acl)

    def _keep_acls(self, acls: list[tuple[Acl, ...]]) -> None:
        for acl in acls:
            count = self._acls.get(acl, 0)
            if not count:
                self.bytes += _acl_size(acl)
            self._acls[acl] = count + 1

    def _release_acl(self, acl: tuple[Acl, ...]) -> None:
        count = self._acls[acl] - 1
        if count:
            self._acls[acl] = count
        else:
            del self._acls[acl]
            self.bytes -= _acl_size(acl)

    # ----------------------------------------------------------------------------------- linking

    def is_worth_linking(self, changes: int) -> bool:
        """So many are to be looked at now, if there are no links. When that adds up to as many as
        are not linked, they are better linked, for whoever comes next."""
        self._looked_at += changes
        return self._looked_at >= self.last - max(self._linked, self.first - 1)

    def link(self, count: int, last: int) -> bool:
        """Link so many more, up to number `last`. Whether all of these are linked now."""
        begin = max(self._linked + 1, self.first)
        end = min(begin + count, last + 1)
        for number in range(begin, end):
            self._link(number)
        self._linked = max(self._linked, end - 1)
        if self._linked < last:
            return False
        self._looked_at = 0
        return True

    def _link(self, number: int) -> None:
        change, links = self.change(number), self._links
        path = change.path
        if previous_own := self._last_own.get(path, 0):
            links[previous_own].next_own = number
        self._last_own[path] = number
        previous_child = 0
        if change.type != DATA_CHANGED:
            parent_path = parent_of(path)
            if previous_child := self._last_child.get(parent_path, 0):
                links[previous_child].next_child = number
            self._last_child[parent_path] = number
        links[number] = Links(previous_own, previous_child)

    def _unlink(self, number: int) -> None:
        """The oldest."""
        change, own = self.change(number), self._links.pop(number)
        path = change.path
        if own.next_own:
            self._links[own.next_own].previous_own = 0
        else:
            del self._last_own[path]
        if change.type != DATA_CHANGED:
            if own.next_child:
                self._links[own.next_child].previous_child = 0
            else:
                del self._last_child[parent_of(path)]

    # ----------------------------------------------------------------------------------- reading

    def change(self, number: int) -> Change:
        change = self._changes[number - self.first + self._empty]
        assert change is not None
        return change

    def links(self, number: int) -> Links:
        """Of one that is linked. `next_own` and `next_child` as far as those are."""
        return self._links[number]

    def first_after(self, zxid: int) -> int:
        """The number of the first change after `zxid`; `last` + 1 when there is none."""
        place = bisect_right(self._changes, zxid, lo=self._empty, key=_zxid_of)
        return place - self._empty + self.first

    def last_of(self, path: str, of_children: bool) -> int:
        """The number of the newest linked change of this znode, or of its children coming or going;
        0: there is none."""
        return (self._last_child if of_children else self._last_own).get(path, 0)

    def paths_after(self, zxid: int) -> set[str]:
        """Of the znodes that changed after `zxid`. Looks at every change since."""
        begin = self.first_after(zxid) - self.first + self._empty
        return {change.path for change in self._changes[begin:] if change is not None}


def _zxid_of(change: Change | None) -> int:
    assert change is not None
    return change.zxid


def _acl_size(acl: tuple[Acl, ...]) -> int:
    return sum(ACL_ENTRY_OVERHEAD_BYTES + len(entry.scheme) + len(entry.id) for entry in acl)
