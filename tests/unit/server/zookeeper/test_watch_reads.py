"""Requests about watches: which are set, found and removed, and what is answered."""

from __future__ import annotations

import pytest

from coordsvc.core.commands import Refusal
from coordsvc.core.watches import PERSISTENT, PERSISTENT_RECURSIVE
from coordsvc.errors import BadArgumentsError, ErrorCode, MarshallingError
from coordsvc.server.zookeeper.jute import JuteError
from coordsvc.server.zookeeper.requests import READS
from coordsvc.testing.zookeeper_records import (
    OpCode,
    WatcherType,
    WatchMode,
    int32,
    int64,
    text,
    texts,
)
from tests.unit.server.zookeeper.request_harness import Front, reader_of


@pytest.fixture
def front() -> Front:
    return Front()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(WatchMode.PERSISTENT, PERSISTENT), (WatchMode.PERSISTENT_RECURSIVE, PERSISTENT_RECURSIVE)],
)
def test_a_watch_is_added_also_where_nothing_is(front: Front, mode: int, kind: int) -> None:
    reply = front.read(OpCode.ADD_WATCH, text("/none") + int32(mode))
    assert reply.int32() == 0
    reply.end()
    assert front.watches.added == [("/none", kind)]


def test_a_watch_that_is_refused(front: Front) -> None:
    front.watches.refusal = Refusal(int(ErrorCode.LIMIT_EXCEEDED))
    assert front.refusal(OpCode.ADD_WATCH, text("/a") + int32(0)) is ErrorCode.LIMIT_EXCEEDED


@pytest.mark.parametrize(
    ("op", "known"),
    [
        (OpCode.ADD_WATCH, tuple(WatchMode)),
        (OpCode.CHECK_WATCHES, tuple(WatcherType)),
        (OpCode.REMOVE_WATCHES, tuple(WatcherType)),
    ],
)
def test_unknown_numbers_are_what_zookeeper_cannot_read(op: int, known: tuple[int, ...]) -> None:
    for number in (-(2**31), -1, 0, 1, 2, 3, 4, 5, 6):
        body = text("/a") + int32(number)
        if number in known:
            READS[op].decode(reader_of(body))
        else:
            with pytest.raises(MarshallingError):
                READS[op].decode(reader_of(body))


@pytest.mark.parametrize(
    ("op", "name"), [(OpCode.CHECK_WATCHES, "contains"), (OpCode.REMOVE_WATCHES, "remove")]
)
def test_watches_are_found_or_not(front: Front, op: int, name: str) -> None:
    for watcher_type in WatcherType:
        body = text("/a") + int32(watcher_type)
        front.watches.known = True
        front.read(op, body).end()
        front.watches.known = False
        assert front.refusal(op, body) is ErrorCode.NO_WATCHER
        assert front.watches.asked == [(name, "/a", watcher_type)] * 2
        front.watches.asked.clear()


def test_watches_are_set_again(front: Front) -> None:
    data, exist, child = ["/a", "/ä"], [], ["/c"]
    body = int64(2**40) + texts(data) + texts(exist) + texts(child)
    front.read(OpCode.SET_WATCHES, body).end()
    assert front.watches.asked == [(2**40, data, exist, child)]
    front.watches.asked.clear()
    front.read(OpCode.SET_WATCHES2, body + texts(["/p"]) + texts(["/r", "/s"])).end()
    assert front.watches.asked == [(2**40, data, exist, child, ["/p"], ["/r", "/s"])]


def test_null_lists_are_empty(front: Front) -> None:
    front.read(OpCode.SET_WATCHES2, int64(-1) + int32(-1) * 5).end()
    assert front.watches.asked == [(-1, [], [], [], [], [])]


@pytest.mark.parametrize(("op", "count"), [(OpCode.SET_WATCHES, 3), (OpCode.SET_WATCHES2, 5)])
def test_lists_that_cannot_be(op: int, count: int) -> None:
    body = int64(5) + texts(["/a", "/bc"]) * count
    READS[op].decode(reader_of(body))
    for size in range(len(body)):
        with pytest.raises(JuteError):
            READS[op].decode(reader_of(body[:size]))
    empty = texts([]) * (count - 1)
    with pytest.raises(MarshallingError):
        READS[op].decode(reader_of(int64(5) + int32(1) + text(None) + empty))
    with pytest.raises(BadArgumentsError):
        READS[op].decode(reader_of(int64(5) + texts(["/" + "x" * 4096]) + empty))
