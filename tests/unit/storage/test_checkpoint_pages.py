"""The look at LMDB's pages finds no fault with what LMDB writes, and each fault that it looks for.

Flips of single bits are in `test_bit_rot`; here are the faults by name, written into a file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import lmdb
import pytest

from coordsvc.storage.checkpoint_pages import check_pages
from coordsvc.storage.errors import CorruptionError
from tests.unit.storage.lmdb_pages import PAGE_BYTES, pages_by_kind

KEY_BYTES = (4, 9, 30, 200)
VALUE_BYTES = (0, 10, 100, 1000, 1900, 2100, 4000, 9000, 70_000)


def opened(file_path: str, map_bytes: int = 64 << 30) -> lmdb.Environment:
    return lmdb.open(file_path, subdir=False, lock=False, max_dbs=0, map_size=map_bytes, sync=False)


def change(txn: lmdb.Transaction, keys: list[bytes], dice: Random) -> None:
    for _ in range(dice.choice([0, 1, 5, 50, 300])):
        kind = dice.random()
        if kind < 0.55 or not keys:
            keys.append(dice.randbytes(dice.choice(KEY_BYTES)))
            txn.put(keys[-1], bytes(dice.choice(VALUE_BYTES)))
        elif kind < 0.75:
            txn.put(dice.choice(keys), bytes(dice.choice(VALUE_BYTES)))
        else:
            txn.delete(keys.pop(dice.randrange(len(keys))))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_lmdb_writes_is_whole(scratch: Path, seed: int) -> None:
    """Commits, aborted transactions, maps that are full and grow, readers that hold pages back,
    files opened again, and copies of both kinds."""
    dice = Random(seed)
    file_path = str(scratch / "data.mdb")
    environment = opened(file_path, 1 << 20)
    keys: list[bytes] = []
    for _ in range(40):
        aborts, reads = dice.random() < 0.1, dice.random() < 0.2
        reader = environment.begin() if reads else None
        txn = environment.begin(write=True)
        try:
            change(txn, keys, dice)
            txn.abort() if aborts else txn.commit()
        except lmdb.MapFullError:
            txn.abort()
            if reader is not None:
                reader.abort()
            environment.set_mapsize(environment.info()["map_size"] * 2)
            continue
        check_pages(file_path)
        if reader is not None:
            reader.abort()
        if dice.random() < 0.2:
            copy = scratch / "copy.mdb"
            environment.copy(str(copy), compact=dice.random() < 0.7)
            check_pages(str(copy))
            copy.unlink()
        if dice.random() < 0.1:
            environment.close()
            environment = opened(file_path)
    environment.close()


Pages = dict[str, list[int]]
Damage = Callable[[bytearray, Pages], None]


def put(data: bytearray, page: int, offset: int, layout: str, value: int) -> None:
    struct.pack_into(layout, data, page * PAGE_BYTES + offset, value)


def newest_meta(data: bytearray) -> int:
    return max((0, 1), key=lambda page: struct.unpack_from("<Q", data, page * PAGE_BYTES + 144))


def list_used_page_as_free(data: bytearray, pages: Pages) -> None:
    listed = struct.pack("<Q", pages["free"][0])
    at = data.find(listed, pages["free list"][-1] * PAGE_BYTES + 16)
    struct.pack_into("<Q", data, at, pages["leaf"][-1])


def forget_free_page(data: bytearray, pages: Pages) -> None:
    """The count that comes before the pages that a transaction freed."""
    listed = struct.pack("<Q", pages["free"][0])
    at = data.find(listed, pages["free list"][-1] * PAGE_BYTES + 16) - 8
    struct.pack_into("<Q", data, at, struct.unpack_from("<Q", data, at)[0] - 1)


def swap_two_nodes(data: bytearray, pages: Pages) -> None:
    start = pages["leaf"][0] * PAGE_BYTES + 16
    data[start : start + 4] = data[start + 2 : start + 4] + data[start : start + 2]


def move_bound(data: bytearray, pages: Pages, by: int) -> None:
    """The key from which on the branch's second child is asked."""
    start = pages["branch"][0] * PAGE_BYTES
    (node,) = struct.unpack_from("<H", data, start + 18)
    key = slice(start + node + 8, start + node + 13)
    data[key] = b"%05d" % (int(data[key]) + by)


DAMAGE: dict[str, Damage] = {
    "free, and used": list_used_page_as_free,
    "neither used nor free": forget_free_page,
    "keys are not in order": swap_two_nodes,
    "a key before those": lambda data, pages: move_bound(data, pages, 1),
    "a key behind those": lambda data, pages: move_bound(data, pages, -1),
    "what a page begins with": lambda data, pages: put(data, pages["leaf"][0], 0, "<Q", 99),
    "data of an entry begins with": lambda data, pages: put(
        data, pages["overflow"][0], 12, "<I", 1
    ),
    "the free list should be": lambda data, pages: put(data, newest_meta(data), 72, "<Q", 77),
    "the records should be": lambda data, pages: put(data, newest_meta(data), 120, "<Q", 77),
    "the records have the flags": lambda data, pages: put(data, newest_meta(data), 92, "<H", 4),
    "its last page is": lambda data, pages: put(data, newest_meta(data), 136, "<Q", 1 << 45),
    "lies beyond the end": lambda data, pages: put(data, newest_meta(data), 128, "<Q", 1 << 20),
    "is no LMDB file": lambda data, pages: put(data, 1, 16, "<I", 0),
    "its pages have": lambda data, pages: put(data, 0, 40, "<I", 4097),
}


@pytest.mark.parametrize("reason", DAMAGE)
def test_each_fault_is_named(scratch: Path, reason: str) -> None:
    file_path = scratch / "data.mdb"
    environment = opened(str(file_path))
    for start in range(4):
        with environment.begin(write=True) as txn:
            for number in range(start, 200, 2):
                txn.put(b"%05d" % number, bytes(100 + start))
            txn.put(b"large", bytes(9000 + start))
    environment.close()
    check_pages(str(file_path))
    data = bytearray(file_path.read_bytes())
    DAMAGE[reason](data, pages_by_kind(bytes(data)))
    file_path.write_bytes(data)
    with pytest.raises(CorruptionError, match=reason):
        check_pages(str(file_path))


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 8191])
def test_a_file_that_was_cut_short(tmp_path: Path, size: int) -> None:
    file_path = tmp_path / "data.mdb"
    environment = opened(str(file_path))
    with environment.begin(write=True) as txn:
        txn.put(b"key", b"value")
    environment.close()
    file_path.write_bytes(file_path.read_bytes()[:size])
    with pytest.raises(CorruptionError):
        check_pages(str(file_path))
