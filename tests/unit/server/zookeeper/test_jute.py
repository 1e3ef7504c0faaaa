"""The encoding: every field both ways, and no field beyond the end."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from coordsvc.core.commands import OPEN_ACL, Acl, Stat
from coordsvc.server.zookeeper import jute
from coordsvc.server.zookeeper.jute import JuteError, Reader
from coordsvc.testing import zookeeper_records as records
from tests.unit.server.zookeeper.request_harness import FRINGE, reader_of

FIELDS: tuple[tuple[Callable[[Reader], Any], bytes, Any], ...] = (
    (Reader.int32, b"\xff\xff\xff\xfe", -2),
    (Reader.int32, b"\x7f\xff\xff\xff", 2**31 - 1),
    (Reader.int64, b"\x80" + bytes(7), -(2**63)),
    (Reader.int64, bytes(7) + b"\x05", 5),
    (Reader.boolean, b"\0", False),
    (Reader.boolean, b"\1", True),
    (Reader.boolean, b"\x80", True),
    (Reader.buffer, b"\xff\xff\xff\xff", None),
    (Reader.buffer, b"\0\0\0\0", b""),
    (Reader.buffer, b"\0\0\0\3\0ab", b"\0ab"),
    (Reader.text, b"\xff\xff\xff\xff", None),
    (Reader.text, b"\0\0\0\0", ""),
    (Reader.text, b"\0\0\0\6a\xc3\xa4\xe2\x82\xac", "aä€"),
    (Reader.text, b"\0\0\0\4\xf0\x9f\xa6\x80", "\U0001f980"),
)


@pytest.mark.parametrize(("read", "data", "value"), FIELDS)
def test_a_field_is_read_and_nothing_behind_it(
    read: Callable[[Reader], Any], data: bytes, value: Any
) -> None:
    reader = reader_of(data + b"\x09")
    got = read(reader)
    assert (got, type(got)) == (value, type(value))
    assert not reader.at_end
    assert reader.boolean() and reader.at_end


@pytest.mark.parametrize(("read", "data", "value"), FIELDS)
def test_a_field_that_goes_beyond_the_end_is_refused(
    read: Callable[[Reader], Any], data: bytes, value: Any
) -> None:
    """Although there are more bytes behind the end."""
    del value
    for size in range(len(data)):
        with pytest.raises(JuteError):
            read(Reader(FRINGE + data + FRINGE, len(FRINGE), len(FRINGE) + size))
        with pytest.raises(JuteError):
            read(Reader(data[:size]))


@pytest.mark.parametrize("read", [Reader.buffer, Reader.text])
@pytest.mark.parametrize("size", [-2, -(2**31)])
def test_a_negative_length_other_than_null_is_refused(
    read: Callable[[Reader], Any], size: int
) -> None:
    with pytest.raises(JuteError, match=str(size)):
        read(Reader(records.int32(size) + bytes(20)))


@pytest.mark.parametrize(
    "data",
    [
        b"/a\xff",
        b"/\xc3",
        b"\x80/",
        b"/\xed\xa0\x80",  # Half of a pair, as Java's own clients write beyond the BMP.
        b"/\xc0\x80",  # U+0000 as Java's modified UTF-8 has it.
        b"/\xf5\x80\x80\x80",
    ],
)
def test_what_is_not_utf_8_is_told_by_a_character_that_no_path_holds(data: bytes) -> None:
    text = Reader(records.buffer(data)).text()
    assert text is not None and "\ufffd" in text
    text.encode()


def test_a_vector_has_no_more_elements_than_there_is_room_for() -> None:
    assert Reader(records.int32(2) + bytes(8)).count() == 2
    with pytest.raises(JuteError, match="3 elements"):
        reader_of(records.int32(3) + bytes(11)).count()
    for none in (0, -1, -2, -(2**31)):
        assert Reader(records.int32(none)).count() == 0


@pytest.mark.parametrize("read", [Reader.buffer, Reader.text, Reader.count])
def test_nothing_is_allocated_by_a_claimed_length(read: Callable[[Reader], Any]) -> None:
    reader = reader_of(records.int32(2**31 - 1) + bytes(100))
    tracemalloc.start()
    try:
        with pytest.raises(JuteError):
            read(reader)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_what_is_written_is_what_others_write() -> None:
    assert jute.int32(-2) == records.int32(-2)
    assert jute.int64(-(2**40)) == records.int64(-(2**40))
    assert (jute.boolean(True), jute.boolean(False)) == (b"\1", b"\0")
    for data in (None, b"", b"\0abc"):
        assert jute.buffer(data) == records.buffer(data)
    for text in (None, "", "/ä\U0001f980"):
        assert jute.text(text) == records.text(text)
    for texts in ([], ["a"], ["/ä", "", "b" * 300]):
        assert jute.texts(texts) == records.texts(texts)
        assert jute.int32(len(texts)) + jute.elements(texts) == records.texts(texts)


def test_acls_are_written_with_the_permissions_first() -> None:
    some = (Acl(1, "world", "anyone"), Acl(-1, "ip", "10.0.0.0/8"), Acl(31, "digest", "ü:x="))
    for acl in ((), OPEN_ACL, some, (Acl(31, "world", "anyone"),)):
        entries = [records.Acl(each.permissions, each.scheme, each.id) for each in acl]
        assert jute.acls(acl) == records.acls(entries)


def test_a_stat_is_written_in_zookeepers_order() -> None:
    stat = Stat(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)
    assert records.Decoder(jute.stat(stat)).stat() == records.Stat(
        czxid=1,
        mzxid=2,
        ctime_ms=4,
        mtime_ms=5,
        version=6,
        cversion=7,
        aversion=8,
        ephemeral_owner=9,
        data_length=10,
        num_children=11,
        pzxid=3,
    )


def test_numbers_larger_than_the_protocols_are_its_largest() -> None:
    """Each by itself; the numbers of 64 bits are told in full."""
    largest = 2**31 - 1
    for name in ("version", "cversion", "aversion", "data_length", "num_children"):
        for value, told in ((largest, largest), (largest + 1, largest), (2**63 - 1, largest)):
            fields = dict.fromkeys(Stat.__struct_fields__, 3) | {name: value}
            stat = records.Decoder(jute.stat(Stat(**fields))).stat()
            assert stat._asdict() == dict.fromkeys(records.Stat._fields, 3) | {name: told}
    many = 2**63 - 1
    fields = dict.fromkeys(Stat.__struct_fields__, many)
    stat = records.Decoder(jute.stat(Stat(**fields))).stat()
    assert (stat.czxid, stat.mzxid, stat.pzxid, stat.ephemeral_owner) == (many,) * 4
    assert (stat.ctime_ms, stat.mtime_ms, stat.version) == (many, many, largest)
