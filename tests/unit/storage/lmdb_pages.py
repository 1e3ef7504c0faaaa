"""What each page of an LMDB file is for, by LMDB's own account."""

from __future__ import annotations

import struct
from collections import defaultdict

PAGE_BYTES = 4096
META_BYTES = 152
"""Of a meta page; the rest is not used."""
NO_PAGE = 2**64 - 1


def pages_by_kind(data: bytes) -> dict[str, list[int]]:
    """Page numbers: meta, branch, leaf, overflow, free list, free."""
    kinds: dict[str, list[int]] = defaultdict(list)
    kinds["meta"] = [0, 1]
    free_root, records_root = max(_meta(data, 0), _meta(data, 1))[1:]
    _walk(data, records_root, kinds)
    lists: dict[str, list[int]] = defaultdict(list)
    for listed in _walk(data, free_root, lists):
        count, *numbers = struct.unpack(f"<{len(listed) // 8}Q", listed)
        kinds["free"] += numbers[:count]
    kinds["free list"] = [number for pages in lists.values() for number in pages]
    return dict(kinds)


def _meta(data: bytes, number: int) -> tuple[int, int, int]:
    """(transaction, root of the free list, root of the records)"""
    start = number * PAGE_BYTES
    roots = [struct.unpack_from("<Q", data, start + 80 + 48 * tree)[0] for tree in (0, 1)]
    (transaction,) = struct.unpack_from("<Q", data, start + 144)
    return transaction, roots[0], roots[1]


def _walk(data: bytes, root: int, kinds: dict[str, list[int]]) -> list[bytes]:
    """The data of the leaves, where it lies in them."""
    if root == NO_PAGE:
        return []
    start = root * PAGE_BYTES
    flags, lower = struct.unpack_from("<HH", data, start + 10)
    nodes = struct.unpack_from(f"<{(lower - 16) // 2}H", data, start + 16)
    kinds["branch" if flags & 1 else "leaf"].append(root)
    found: list[bytes] = []
    for node in nodes:
        low, high, top, key_bytes = struct.unpack_from("<4H", data, start + node)
        at = start + node + 8 + key_bytes
        if flags & 1:
            found += _walk(data, low | high << 16 | top << 32, kinds)
        elif top & 1:
            (first,) = struct.unpack_from("<Q", data, at)
            (count,) = struct.unpack_from("<I", data, first * PAGE_BYTES + 12)
            kinds["overflow"] += range(first, first + count)
        else:
            found.append(data[at : at + (low | high << 16)])
    return found
