"""The digest as a sum over records: anyone who has the records' bytes can count it."""

from __future__ import annotations

import random

from coordsvc.core.commands import NO_CALLER, OPEN_ACL, Caller, CreateOp, SetDataOp, Write
from coordsvc.core.digest import _PAGE_BITS, _NumberedHashes, record_hash
from tests.unit.core.harness import Harness, rebuilt


def test_sum_over_exported_records() -> None:
    """So that a loader can check what it reads before it decodes it."""
    harness = Harness()
    session_id = harness.open_session()
    harness.submit(*(Write(NO_CALLER, CreateOp(f"/{number}", b"")) for number in range(700)))
    harness.write(SetDataOp("/1", b"x"), Caller(session_id, 0, 1))
    exported = list(harness.state.export_records())
    assert {table for table, _, _ in exported} == {1, 2, 3, 4, 5}
    total = sum(record_hash(table, key, value) for table, key, value in exported)
    assert harness.machine.digest() == total % 2**64


def test_hashes_by_number_are_those_of_a_dict() -> None:
    """Whatever comes and goes; and when all has gone nothing is left."""
    chance = random.Random(3)
    hashes, model = _NumberedHashes(), dict[int, int]()
    for step in range(20_000):
        key = chance.randrange(step // 10 + 1, step // 10 + 200)
        if chance.random() < 0.5:
            hashes[key] = model[key] = chance.choice([1, 2**64 - 1, chance.getrandbits(64) or 1])
        else:
            assert hashes.pop(key, 0) == model.pop(key, 0)
        other = chance.randrange(step // 10 + 200)
        assert hashes.get(other, 0) == model.get(other, 0)
        assert len(hashes) == len(model)
    assert len(hashes._pages) <= len({key >> _PAGE_BITS for key in model})
    for key in model:
        assert hashes.pop(key, 0) == model[key]
    assert not hashes._pages and not hashes._counts


def test_hash_depends_on_all_three_parts() -> None:
    """The same bytes in another table, or under another key, are another record."""
    hashes = {
        record_hash(table, key, value)
        for table in (1, 2)
        for key in (b"k" * 8, b"l" * 8)
        for value in (b"v", b"w")
    }
    assert len(hashes) == 8
    assert all(0 <= each < 2**64 for each in hashes)


def test_values_are_fixed() -> None:
    """Wire format: replicas of different versions compare digests."""
    assert Harness().machine.digest() == 16731216063488722792
    assert record_hash(1, b"key", b"value") == 8688143795937319145


def test_rebuilt_records_share_their_acls() -> None:
    """Rights on the open ACL are told by identity, which loading must keep."""
    harness = Harness()
    harness.create("/a")
    assert rebuilt(harness.machine).state.znodes["/a"].acl is OPEN_ACL
