"""Whether the pages of a checkpoint's LMDB file are what LMDB keeps its promises with.

The records have their hashes, but LMDB's own pages have none. A bit that flips in the list of free
pages, or in a page number, changes no record; it makes LMDB write over pages in use later, when the
log before is gone. So whoever reads a checkpoint to see whether it is whole looks at its pages
first: each page of the file must be used once, or be free, or be one of the two that the file
begins with; each must say itself which one it is; each key must lie where it is looked for.

Reads the file only, and only what lies in it. The layout is that of LMDB 0.9 in the machine's own
byte order::

    meta    = page header, magic, version, address, map size, free list, records, last page, txnid
    tree    = page size (of the first), flags, depth, branch, leaf, overflow pages, entries, root
    page    = number, pad, flags, end of the offsets, start of the nodes; offsets of nodes
    node    = size or page number (32 bits), flags or page number (16 bits), size of key; key, data
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple, NoReturn

from coordsvc.storage.errors import CorruptionError, disk_errors

METAS: Final = 2
NO_PAGE: Final = 2**64 - 1
MAGIC: Final = 0xBEEFC0DE
VERSION: Final = 1

BRANCH, LEAF, OVERFLOW = 1, 2, 4
BIG_DATA: Final = 1
"""Of a node: its data is on pages of its own."""
INTEGER_KEYS: Final = 0x08
NO_SUBDIR: Final = 0x4000

DEPTH_MAX: Final = 32
"""LMDB's own."""

PAGES_MIN: Final = 1 << 24
"""So many are counted one by one, if the file says that it has so many; a byte each."""

_META = struct.Struct("=IIQQ")
_TREE = struct.Struct("=IHHQQQQQ")
_META_END = struct.Struct("=QQ")
_PAGE = struct.Struct("=QHHHH")
_OVERFLOW = struct.Struct("=QHHI")
_NODE = struct.Struct("=HHHH")
_NUMBER = struct.Struct("=Q")


class _Tree(NamedTuple):
    page_bytes: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


class _Meta(NamedTuple):
    free: _Tree
    records: _Tree
    last_page: int
    txnid: int


@dataclass
class _Counts:
    branch_pages: int = 0
    leaf_pages: int = 0
    overflow_pages: int = 0
    entries: int = 0
    depth: int = 0
    data: list[tuple[bytes, bytes]] = field(default_factory=list)


def check_pages(file_path: str) -> None:
    """Raise CorruptionError unless all pages are accounted for and are what they say; DiskError."""
    with disk_errors(f"cannot read {file_path}"), open(file_path, "rb") as file:
        if not file.seek(0, 2):
            raise CorruptionError(file_path, 0, "it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Pages(file_path, data).check()


class _Pages:
    def __init__(self, file_path: str, data: mmap.mmap) -> None:
        self._file_path = file_path
        self._data = data
        self._page_bytes = 0
        self._seen = bytearray()
        """A byte for each page that is accounted for."""

    def check(self) -> None:
        meta = self._newest_meta()
        self._page_bytes = meta.free.page_bytes
        pages = len(self._data) // self._page_bytes
        # Pages at the end that were freed before they were written are not in the file.
        if not METAS <= meta.last_page + 1 <= max(4 * pages, PAGES_MIN):
            self._refuse(0, f"it says that its last page is {meta.last_page}; it has {pages}")
        self._seen = bytearray(meta.last_page + 1)
        self._seen[:METAS] = b"\x01" * METAS
        self._check_tree(meta.records, 0, "the records")
        free = self._check_tree(meta.free, INTEGER_KEYS, "the free list")
        for key, numbers in free:
            self._take_free(key, numbers, meta)
        missing = self._seen.find(0)
        if missing >= 0:
            self._refuse(missing, "the page is neither used nor free")

    def _newest_meta(self) -> _Meta:
        metas = [self._meta(number) for number in self._meta_offsets()]
        return max(metas, key=lambda meta: meta.txnid)

    def _meta_offsets(self) -> tuple[int, int]:
        """The second one's place depends on the page size, which the first one tells."""
        if len(self._data) < METAS * 512:
            self._refuse(0, "it is too short")
        page_bytes = self._tree(_PAGE.size + _META.size).page_bytes
        is_size = 512 <= page_bytes <= 1 << 16 and not page_bytes & (page_bytes - 1)
        if not is_size or len(self._data) < METAS * page_bytes:
            self._refuse(0, f"it says that its pages have {page_bytes} bytes")
        return 0, page_bytes

    def _meta(self, offset: int) -> _Meta:
        offset += _PAGE.size
        magic, version, _, _ = _META.unpack_from(self._data, offset)
        if (magic, version) != (MAGIC, VERSION):
            self._refuse(0, "it is no LMDB file")
        offset += _META.size
        free, records = self._tree(offset), self._tree(offset + _TREE.size)
        return _Meta(free, records, *_META_END.unpack_from(self._data, offset + 2 * _TREE.size))

    def _tree(self, offset: int) -> _Tree:
        return _Tree(*_TREE.unpack_from(self._data, offset))

    def _check_tree(self, tree: _Tree, flags: int, name: str) -> list[tuple[bytes, bytes]]:
        """The data of the free list; of the records, which are read elsewhere, nothing."""
        if tree.flags & ~NO_SUBDIR != flags:
            self._refuse(0, f"{name} have the flags {tree.flags:#x}")
        counts = _Counts()
        if tree.root != NO_PAGE:
            self._walk(tree.root, 1, flags, counts, (None, None))
        said = tree.branch_pages, tree.leaf_pages, tree.overflow_pages, tree.entries, tree.depth
        found = (
            counts.branch_pages,
            counts.leaf_pages,
            counts.overflow_pages,
            counts.entries,
            counts.depth,
        )
        if said != found:
            self._refuse(0, f"{name} should be {said} pages, entries, levels; there are {found}")
        return counts.data

    def _walk(
        self,
        number: int,
        depth: int,
        flags: int,
        counts: _Counts,
        between: tuple[bytes | None, bytes | None],
    ) -> None:
        """`between`: where its keys lie: from the first on, before the second; None: no bound."""
        self._take(number)
        kind, nodes = self._nodes_of(number)
        counts.depth = max(counts.depth, depth)
        if kind == LEAF:
            counts.leaf_pages += 1
            self._check_leaf(number, nodes, depth, flags, counts, between)
            return
        counts.branch_pages += 1
        if len(nodes) < 2 or depth >= DEPTH_MAX:
            self._refuse(number, "a branch without branches")
        keys: list[bytes | None] = [self._key(number, node, flags) for node in nodes[1:]]
        bounds = [between[0], *keys, between[1]]
        self._check_order(number, bounds, flags)
        for place, node in enumerate(nodes):
            low, high, top, _ = _NODE.unpack_from(self._data, node)
            child = low | high << 16 | top << 32
            self._walk(child, depth + 1, flags, counts, (bounds[place], bounds[place + 1]))

    def _check_leaf(
        self,
        number: int,
        nodes: list[int],
        depth: int,
        flags: int,
        counts: _Counts,
        between: tuple[bytes | None, bytes | None],
    ) -> None:
        if depth != counts.depth:
            self._refuse(number, "a leaf on another level than the others")
        keys = [self._key(number, node, flags) for node in nodes]
        low, high = between
        self._check_order(number, keys, flags)
        if keys and low is not None and _sorted_by(keys[0], flags) < _sorted_by(low, flags):
            self._refuse(number, "a key before those that belong there")
        if keys and high is not None and _sorted_by(keys[-1], flags) >= _sorted_by(high, flags):
            self._refuse(number, "a key behind those that belong there")
        counts.entries += len(nodes)
        for node, key in zip(nodes, keys, strict=True):
            data = self._data_of(number, node, counts, is_wanted=flags == INTEGER_KEYS)
            if flags == INTEGER_KEYS:
                counts.data.append((key, data))

    def _data_of(self, number: int, node: int, counts: _Counts, *, is_wanted: bool) -> bytes:
        low, high, node_flags, key_bytes = _NODE.unpack_from(self._data, node)
        size, start = low | high << 16, node + _NODE.size + key_bytes
        if node_flags & ~BIG_DATA:
            self._refuse(number, f"an entry with the flags {node_flags:#x}")
        if not node_flags:
            if start + size > (number + 1) * self._page_bytes:
                self._refuse(number, "an entry that ends beyond its page")
        else:
            start = self._take_overflow(number, start, size, counts)
        return self._data[start : start + size] if is_wanted else b""

    def _take_overflow(self, number: int, start: int, size: int, counts: _Counts) -> int:
        """Where the data begins that the entry on page `number` has elsewhere."""
        if start + _NUMBER.size > (number + 1) * self._page_bytes:
            self._refuse(number, "an entry that ends beyond its page")
        first: int = _NUMBER.unpack_from(self._data, start)[0]
        self._take(first)
        offset = first * self._page_bytes
        own, _, page_flags, pages = _OVERFLOW.unpack_from(self._data, offset)
        # More than it needs now, if the data before was longer.
        is_enough = pages * self._page_bytes >= _PAGE.size + size
        if own != first or page_flags != OVERFLOW or not is_enough:
            self._refuse(first, "it does not begin with what data of an entry begins with")
        for page in range(first + 1, first + pages):
            self._take(page)
        counts.overflow_pages += pages
        return offset + _PAGE.size

    def _take(self, number: int) -> None:
        """A page in use: one of the file, and not in use for anything else."""
        if number >= len(self._seen) or (number + 1) * self._page_bytes > len(self._data):
            self._refuse(number, "the page is used, but lies beyond the end")
        if self._seen[number]:
            self._refuse(number, "the page is used twice")
        self._seen[number] = 1

    def _take_free(self, key: bytes, numbers: bytes, meta: _Meta) -> None:
        """A record of the free list: of which transaction; how many pages, and which."""
        (txnid,) = _NUMBER.unpack(key) if len(key) == _NUMBER.size else (0,)
        listed = [number for (number,) in _NUMBER.iter_unpack(numbers[: len(numbers) & ~7])]
        if not 0 < txnid <= meta.txnid or not listed or listed[0] >= len(listed):
            self._refuse(0, f"the free list has an entry {key.hex()} that cannot be")
        before = len(self._seen)
        for number in listed[1 : listed[0] + 1]:
            if number >= before:
                self._refuse(number, f"the free list is not in order after page {before}")
            if self._seen[number]:
                self._refuse(number, "the page is free, and used or free elsewhere, too")
            self._seen[number] = 1
            before = number

    def _nodes_of(self, number: int) -> tuple[int, list[int]]:
        """Whether a branch or a leaf, and where its nodes are in the file."""
        start = number * self._page_bytes
        own, _, kind, lower, upper = _PAGE.unpack_from(self._data, start)
        is_whole = _PAGE.size <= lower <= upper <= self._page_bytes and not lower % 2
        if own != number or kind not in (BRANCH, LEAF) or not is_whole:
            self._refuse(number, "it does not begin with what a page begins with")
        count = (lower - _PAGE.size) // 2
        offsets = struct.unpack_from(f"={count}H", self._data, start + _PAGE.size)
        for offset in offsets:
            if not upper <= offset <= self._page_bytes - _NODE.size:
                self._refuse(number, "an entry that lies where there are none")
        return kind, [start + offset for offset in offsets]

    def _key(self, number: int, node: int, flags: int) -> bytes:
        key_bytes = _NODE.unpack_from(self._data, node)[3]
        start = node + _NODE.size
        if start + key_bytes > (number + 1) * self._page_bytes:
            self._refuse(number, "a key that ends beyond its page")
        if flags == INTEGER_KEYS and key_bytes != _NUMBER.size:
            self._refuse(number, "a key of the free list that is no number")
        return self._data[start : start + key_bytes]

    def _check_order(self, number: int, keys: list[bytes | None] | list[bytes], flags: int) -> None:
        ordered = [_sorted_by(key, flags) for key in keys if key is not None]
        if any(first >= second for first, second in pairwise(ordered)):
            self._refuse(number, "its keys are not in order")

    def _refuse(self, number: int, reason: str) -> NoReturn:
        """`number`: of the page."""
        raise CorruptionError(self._file_path, number * (self._page_bytes or 1), reason)


def _sorted_by(key: bytes, flags: int) -> bytes:
    """Bytes in LMDB's order of the keys."""
    if flags != INTEGER_KEYS:
        return key
    number: int = _NUMBER.unpack(key)[0]
    return number.to_bytes(_NUMBER.size, "big")
