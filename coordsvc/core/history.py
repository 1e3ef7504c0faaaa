"""The latest changes of the tree, so that watches which resume miss nothing. Per replica, in
memory only.

Changes have numbers here, counted from 1; they come and go in whole groups of one zxid, so that a
multi is remembered as a whole or not at all. Each change is linked with the change before it and
after it of the same znode, and of the same parent's children: what a watch has missed is found by
following links, at the cost of what it finds, however long the history is.

What it takes is counted in bytes: for each change its path, its data and CHANGE_OVERHEAD_BYTES,
and once for each ACL that any of its changes carries, other than the open one, the size of that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

import msgspec

from coordsvc.core.commands import DATA_CHANGED, OPEN_ACL, Acl, Change
from coordsvc.paths import parent_of

CHANGE_OVERHEAD_BYTES: Final = 900
"""What a change of a znode of its own takes in CPython beside its path and data: the change and
its stat, the numbers in both, the links, and its places in the two indexes."""

ACL_ENTRY_OVERHEAD_BYTES: Final = 160

_COMPACTED_AT: Final = 1024
"""Empty places at the front of the list of records before it is moved together."""


class Record(msgspec.Struct, gc=False):
    """A change and its links: numbers of the neighbours, 0 when there is none. `next_own` and
    `previous_own` are of the same znode; the other two of the same parent, among the creations
    and deletions of its children."""

    change: Change
    previous_own: int
    previous_child: int
    next_own: int = 0
    next_child: int = 0


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
        self._records: list[Record | None] = []
        self._empty = 0
        self._last_own: dict[str, int] = {}
        self._last_child: dict[str, int] = {}
        self._acls: dict[tuple[Acl, ...], int] = {}

    def __len__(self) -> int:
        return len(self._records) - self._empty

    @property
    def last(self) -> int:
        """The number of the newest change; `first` - 1 when there is none."""
        return self.first + len(self) - 1

    # ---------------------------------------------------------------------------------- growing

    def append(self, changes: Iterable[Change]) -> None:
        """Whole groups, in order: all changes of one entry of the log."""
        records, last_own, last_child = self._records, self._last_own, self._last_child
        offset = self._empty - self.first
        number = self.last
        size = 0
        for change in changes:
            number += 1
            path = change.path
            previous_own = last_own.get(path, 0)
            if previous_own:
                records[previous_own + offset].next_own = number  # type: ignore[union-attr]
            last_own[path] = number
            previous_child = 0
            if change.type != DATA_CHANGED:
                parent_path = parent_of(path)
                previous_child = last_child.get(parent_path, 0)
                if previous_child:
                    records[previous_child + offset].next_child = number  # type: ignore[union-attr]
                last_child[parent_path] = number
            records.append(Record(change, previous_own, previous_child))
            size += _size(change)
            if change.acl is not OPEN_ACL:
                self._keep_acl(change.acl)
            if change.parent_acl is not OPEN_ACL:
                self._keep_acl(change.parent_acl)
        self.bytes += size
        if self.bytes > self._bytes_max:
            self._make_room()

    def _make_room(self) -> None:
        """The oldest groups go, until what is left fits."""
        records = self._records
        end = len(records)
        while self.bytes > self._bytes_max and self._empty < end:
            zxid = _zxid_of(records[self._empty])
            self._drop_first()
            while self._empty < end and _zxid_of(records[self._empty]) == zxid:
                self._drop_first()
            self.complete_after = zxid
        if self._empty > _COMPACTED_AT and 2 * self._empty > len(self._records):
            del self._records[: self._empty]
            self._empty = 0

    def _drop_first(self) -> None:
        records, empty, number = self._records, self._empty, self.first
        offset = empty - number
        record = records[empty]
        assert record is not None
        change = record.change
        path = change.path
        if record.next_own:
            records[record.next_own + offset].previous_own = 0  # type: ignore[union-attr]
        else:
            del self._last_own[path]
        if change.type != DATA_CHANGED:
            if record.next_child:
                records[record.next_child + offset].previous_child = 0  # type: ignore[union-attr]
            else:
                del self._last_child[parent_of(path)]
        self.bytes -= _size(change)
        if change.acl is not OPEN_ACL:
            self._release_acl(change.acl)
        if change.parent_acl is not OPEN_ACL:
            self._release_acl(change.parent_acl)
        records[empty] = None
        self._empty = empty + 1
        self.first = number + 1

    def _keep_acl(self, acl: tuple[Acl, ...]) -> None:
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

    # ----------------------------------------------------------------------------------- reading

    def record(self, number: int) -> Record:
        record = self._records[number - self.first + self._empty]
        assert record is not None
        return record

    def first_after(self, zxid: int) -> int:
        """The number of the first change after `zxid`; `last` + 1 when there is none."""
        place = bisect_right(self._records, zxid, lo=self._empty, key=_zxid_of)
        return place - self._empty + self.first

    def last_of(self, path: str, of_children: bool) -> int:
        """The number of the newest change of this znode, or of its children coming or going; 0:
        there is none."""
        return (self._last_child if of_children else self._last_own).get(path, 0)


def _zxid_of(record: Record | None) -> int:
    assert record is not None
    return record.change.zxid


def _size(change: Change) -> int:
    data = change.data
    size = CHANGE_OVERHEAD_BYTES + 4 * len(change.path)
    return size + len(data) if data is not None else size


def _acl_size(acl: tuple[Acl, ...]) -> int:
    return sum(ACL_ENTRY_OVERHEAD_BYTES + len(entry.scheme) + len(entry.id) for entry in acl)
