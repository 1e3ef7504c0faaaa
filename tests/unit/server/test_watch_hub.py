"""The hub: what is told to whom, in which order and bounds; setting, resuming, removing."""

from __future__ import annotations

from typing import Any

import pytest

from coordsvc.core.commands import (
    ALL,
    NO_CALLER,
    Acl,
    AuthId,
    Caller,
    CloseSessionOp,
    CreateOp,
    DeleteOp,
    MultiOp,
    Op,
    SetAclOp,
    SetDataOp,
    Write,
)
from coordsvc.core.watches import (
    CHILDREN,
    DATA,
    EXISTS,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
)
from coordsvc.errors import (
    BadArgumentsError,
    LimitExceededError,
    NoAuthError,
    NoNodeError,
    NoWatcherError,
)
from coordsvc.server.config_model import LimitsConfig
from coordsvc.server.watch_hub import Spec, Watcher, WatchHub
from coordsvc.v1 import watch_pb2
from tests.unit.core.harness import Harness

CLOSED = (Acl(ALL & ~1, "world", "anyone"),)
SUPER = AuthId("super", "")


class Hub:
    def __init__(self, **limits: int) -> None:
        self.harness = Harness()
        self.harness.create("/p")
        self.hub = WatchHub(self.harness.state, LimitsConfig(**limits))
        self.told = 0

    @property
    def zxid(self) -> int:
        return self.harness.state.zxid

    def write(self, *ops: Op) -> int:
        """In one entry; the last one's zxid."""
        replies = self.harness.submit(*[Write(NO_CALLER, op) for op in ops])
        self.hub.on_applied(self.harness.last_applied)
        return replies[-1].zxid

    def open(self, *specs: Spec, ids: tuple[AuthId, ...] = ()) -> Watcher:
        watcher = self.hub.open(lambda: ids, self._on_items)
        if specs:
            watcher.add(specs)
        return watcher

    def _on_items(self) -> None:
        self.told += 1


def brief(items: list[tuple[int, Any]]) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for _, item in items:
        if isinstance(item, watch_pb2.WatchEvent):
            found.append((item.type, item.path, item.zxid, list(item.watch_ids)))
        elif isinstance(item, watch_pb2.WatchGap):
            gap = (item.after_zxid, item.resumed_at_zxid)
            found.append(("gap", *gap, list(item.watch_ids)))
        else:
            found.append(("removed", list(item.watch_ids)))
    return found


@pytest.fixture
def hub() -> Hub:
    return Hub()


# ---------------------------------------------------------------------------------------- setting


def test_all_or_none(hub: Hub) -> None:
    watcher = hub.open()
    for specs, error in (
        ([Spec(1, "/p", DATA), Spec(2, "/none", DATA)], NoNodeError),
        ([Spec(1, "/p", DATA), Spec(2, "/none", CHILDREN)], NoNodeError),
        ([Spec(1, "/p", DATA), Spec(1, "/p", EXISTS)], BadArgumentsError),
    ):
        with pytest.raises(error):
            watcher.add(specs)
        assert (hub.hub.watches, len(hub.hub.table)) == (0, 0)
    assert watcher.add([Spec(1, "/none", EXISTS), Spec(2, "/none", PERSISTENT)]) == hub.zxid
    with pytest.raises(BadArgumentsError):
        watcher.add([Spec(2, "/p", DATA)])


@pytest.mark.parametrize("kind", [DATA, EXISTS, CHILDREN, PERSISTENT, PERSISTENT_RECURSIVE])
def test_setting_needs_read_on_what_is_there(hub: Hub, kind: int) -> None:
    hub.write(SetAclOp("/p", CLOSED))
    with pytest.raises(NoAuthError):
        hub.open(Spec(1, "/p", kind))
    hub.open(Spec(1, "/p", kind), ids=(SUPER,))


def test_limits() -> None:
    hub = Hub(watches_per_stream_max=3, watches_max=5)
    first = hub.open(*[Spec(number, "/p", DATA) for number in (1, 2, 3)])
    with pytest.raises(LimitExceededError, match="watches_per_stream_max"):
        first.add([Spec(4, "/p", DATA)])
    second = hub.open()
    with pytest.raises(LimitExceededError, match="watches_max"):
        second.begin_resume([Spec(number, "/p", DATA) for number in (1, 2, 3)], hub.zxid)
    second.add([Spec(1, "/p", DATA), Spec(2, "/p", DATA)])
    first.close()
    first.close()
    assert hub.hub.watches == 2


def test_an_id_is_free_again_once_its_event_was_taken(hub: Hub) -> None:
    watcher = hub.open(Spec(1, "/p", DATA))
    hub.write(SetDataOp("/p", b""))
    with pytest.raises(BadArgumentsError):
        watcher.add([Spec(1, "/p", DATA)])
    assert hub.hub.watches == 1
    watcher.take()
    assert hub.hub.watches == 0
    watcher.add([Spec(1, "/p", DATA)])


# --------------------------------------------------------------------------------------- telling


def test_once_until_taken(hub: Hub) -> None:
    watcher = hub.open(Spec(1, "/p", PERSISTENT))
    for _ in range(3):
        hub.write(SetDataOp("/p", b""))
    assert hub.told == 1 and watcher.has_items
    assert len(watcher.take()) == 3
    assert not watcher.has_items
    hub.write(SetDataOp("/p", b""))
    assert hub.told == 2


def test_taking_up_to_a_zxid_and_in_pieces(hub: Hub) -> None:
    watcher = hub.open(Spec(1, "/p", PERSISTENT))
    zxids = [hub.write(SetDataOp("/p", b"")) for _ in range(5)]
    assert watcher.position == zxids[0] - 1
    assert [zxid for zxid, _ in watcher.take(zxids[1])] == zxids[:2]
    assert watcher.position == zxids[2] - 1
    assert [zxid for zxid, _ in watcher.take(None, 1)] == [zxids[2]]
    assert [zxid for zxid, _ in watcher.take(zxids[2])] == []
    assert [zxid for zxid, _ in watcher.take()] == zxids[3:]
    hub.write(CreateOp("/other", b""))
    assert watcher.position == hub.zxid


def test_one_message_for_all_who_are_told_the_same(hub: Hub) -> None:
    watchers = [hub.open(Spec(1, "/p", PERSISTENT)) for _ in range(5)]
    with_data = hub.open(Spec(1, "/p", PERSISTENT, True))
    hub.write(SetDataOp("/p", b"x"))
    messages = [watcher.take()[0][1] for watcher in watchers]
    assert all(message is messages[0] for message in messages)
    assert with_data.take()[0][1].data == b"x"


def test_last_of_zxid_counts_what_this_stream_is_told(hub: Hub) -> None:
    """Also when what follows in the group is of others, or may not be read."""
    hub.write(CreateOp("/closed", b"", acl=CLOSED), CreateOp("/q", b""))
    mine = hub.open(Spec(1, "/", PERSISTENT_RECURSIVE))
    others = hub.open(Spec(1, "/q", DATA), ids=(SUPER,))
    hub.write(
        MultiOp((SetDataOp("/p", b""), SetDataOp("/q", b""), SetDataOp("/closed", b""))),
        SetDataOp("/p", b""),
    )
    lasts = [(item.path, item.last_of_zxid) for _, item in mine.take()]
    assert lasts == [("/p", False), ("/q", True), ("/p", True)]
    assert [item.last_of_zxid for _, item in others.take()] == [True]


def test_identities_are_those_of_the_moment(hub: Hub) -> None:
    hub.write(CreateOp("/closed", b"", acl=CLOSED))
    ids: list[AuthId] = [SUPER]
    watcher = hub.hub.open(lambda: tuple(ids), lambda: None)
    watcher.add([Spec(1, "/closed", PERSISTENT), Spec(2, "/closed", DATA)])
    first = hub.write(SetDataOp("/closed", b""))
    watcher.add([Spec(3, "/closed", DATA)])
    ids.clear()
    hub.write(SetDataOp("/closed", b""))
    ids.append(SUPER)
    second = hub.write(SetDataOp("/closed", b""))
    assert brief(watcher.take()) == [
        (3, "/closed", first, [1, 2]),
        ("removed", [3]),
        (3, "/closed", second, [1]),
    ]


# --------------------------------------------------------------------------------------- overflow


def test_overflow_is_one_gap_and_everything_stays_set() -> None:
    hub = Hub(watch_buffer_events_max=3)
    watcher = hub.open(Spec(1, "/p", PERSISTENT), Spec(2, "/p", DATA), Spec(3, "/none", EXISTS))
    taken = hub.write(SetDataOp("/p", b""))
    assert brief(watcher.take()) == [(3, "/p", taken, [1, 2])]
    watcher.add([Spec(4, "/p", DATA)])
    zxids = [hub.write(SetDataOp("/p", b"")) for _ in range(6)]
    assert brief(watcher.take(zxids[0] - 1)) == []
    assert brief(watcher.take(zxids[0])) == [("gap", taken, zxids[-1], [1, 4])]
    assert hub.hub.gaps_total == 1
    after = hub.write(SetDataOp("/p", b""))
    hub.write(CreateOp("/none", b""))
    assert brief(watcher.take())[0] == (3, "/p", after, [1, 4]), "a one-shot watch is armed again"
    assert hub.hub.watches == 1


def test_overflow_by_bytes_but_a_single_event_is_never_a_gap() -> None:
    hub = Hub(watch_buffer_bytes_max=1000)
    watcher = hub.open(Spec(1, "/p", PERSISTENT, True))
    hub.write(SetDataOp("/p", bytes(5000)))
    assert len(watcher.take()[0][1].data) == 5000
    hub.write(SetDataOp("/p", bytes(600)), SetDataOp("/p", bytes(600)))
    assert brief(watcher.take())[0][0] == "gap"


def test_half_a_group_that_was_taken_is_in_the_gap() -> None:
    hub = Hub(watch_buffer_events_max=2)
    watcher = hub.open(Spec(1, "/p", PERSISTENT_RECURSIVE))
    before = hub.zxid
    group = hub.write(MultiOp((CreateOp("/p/1", b""), CreateOp("/p/2", b""))))
    assert brief(watcher.take(None, 1)) == [(1, "/p/1", group, [1])]
    for _ in range(3):
        hub.write(SetDataOp("/p", b""))
    assert brief(watcher.take()) == [("gap", before, hub.zxid, [1])]


def test_a_note_that_a_watch_is_gone_outlives_an_overflow() -> None:
    hub = Hub(watch_buffer_events_max=2)
    watcher = hub.open(Spec(1, "/p", DATA), Spec(2, "/q", PERSISTENT))
    hub.write(SetAclOp("/p", CLOSED), SetDataOp("/p", b""), CreateOp("/q", b""))
    for _ in range(5):
        hub.write(SetDataOp("/q", b""))
    items = brief(watcher.take())
    assert [item[0] for item in items] == ["gap", "removed"] and items[1][1] == [1]
    assert items[0][3] == [2]


# --------------------------------------------------------------------------------------- removing


def test_nothing_is_told_of_what_is_removed(hub: Hub) -> None:
    watcher = hub.open(Spec(1, "/", PERSISTENT_RECURSIVE), Spec(2, "/p", PERSISTENT))
    group = hub.write(MultiOp((SetDataOp("/p", b""), CreateOp("/q", b""))))
    with pytest.raises(NoWatcherError):
        watcher.remove([1, 9])
    watcher.remove([1, 1])
    ((_, event),) = watcher.take()
    assert (event.path, event.zxid, list(event.watch_ids)) == ("/p", group, [2])
    assert event.last_of_zxid, "what came after it in the group is gone"
    hub.write(CreateOp("/r", b""))
    assert not watcher.has_items and hub.hub.watches == 1
    watcher.remove([2])
    assert (hub.hub.watches, len(hub.hub.table)) == (0, 0)


def test_a_removed_watch_is_in_no_gap() -> None:
    hub = Hub(watch_buffer_events_max=1)
    watcher = hub.open(Spec(1, "/p", PERSISTENT), Spec(2, "/p", DATA))
    for _ in range(4):
        hub.write(SetDataOp("/p", b""))
    watcher.remove([2])
    assert brief(watcher.take())[0][3] == [1]
    for _ in range(4):
        hub.write(SetDataOp("/p", b""))
    watcher.remove([1])
    assert not watcher.has_items and watcher.position == hub.zxid


# --------------------------------------------------------------------------------------- resuming


async def test_everything_is_there_when_resume_returns(hub: Hub) -> None:
    start = hub.zxid
    zxids = [hub.write(SetDataOp("/p", b"")) for _ in range(500)]
    watcher = hub.open()
    assert await watcher.resume([Spec(1, "/p", PERSISTENT)], start) == start
    assert not watcher.is_resuming and hub.told == 1
    last = hub.write(SetDataOp("/p", b""))
    assert [zxid for zxid, _ in watcher.take(None, 10**9)] == [*zxids, last]


async def test_more_than_there_is_room_for_waits_in_the_history() -> None:
    hub = Hub(watch_buffer_events_max=10)
    start = hub.zxid
    zxids = [hub.write(SetDataOp("/p", b"")) for _ in range(100)]
    watcher = hub.open()
    await watcher.resume([Spec(1, "/p", PERSISTENT), Spec(2, "/p", DATA)], start)
    assert watcher.is_resuming and len(watcher._buffer) == 10
    zxids += [hub.write(SetDataOp("/p", b"")) for _ in range(50)]
    seen = []
    while watcher.has_items:
        items = watcher.take()
        assert items or not watcher.is_resuming, "nothing only when there is nothing"
        seen += [zxid for zxid, _ in items]
    assert seen == zxids and not watcher.is_resuming and hub.hub.gaps_total == 0


async def test_what_the_history_drops_meanwhile_is_a_gap() -> None:
    hub = Hub(watch_buffer_events_max=10, watch_history_bytes_max=100_000)
    start = hub.zxid
    for _ in range(50):
        hub.write(SetDataOp("/p", b""))
    watcher = hub.open()
    await watcher.resume([Spec(1, "/p", PERSISTENT)], start)
    for _ in range(200):
        hub.write(SetDataOp("/p", b""))
    items = []
    while watcher.has_items:
        items += brief(watcher.take())
    assert [item[2] for item in items[:-1]] == list(range(start + 1, start + 11))
    assert items[-1] == ("gap", start + 10, hub.zxid, [1])
    last = hub.write(SetDataOp("/p", b""))
    assert brief(watcher.take()) == [(3, "/p", last, [1])]


async def test_a_group_that_lost_its_rest_has_no_last_event() -> None:
    """The history drops a group of which a half was handed out: its zxid is no place to resume
    from, and the gap begins before it."""
    hub = Hub(watch_buffer_events_max=2, watch_history_bytes_max=20_000)
    start = hub.zxid
    group = hub.write(MultiOp(tuple(CreateOp(f"/p/{number}", b"") for number in range(10))))
    watcher = hub.open()
    await watcher.resume([Spec(1, "/", PERSISTENT_RECURSIVE)], start)
    items = watcher.take()
    for _ in range(40):
        hub.write(SetDataOp("/p", b""))
    while watcher.has_items:
        items += watcher.take()
    *events, gap = [item for _, item in items]
    assert 0 < len(events) < 10
    assert {(event.zxid, event.last_of_zxid) for event in events} == {(group, False)}
    assert (gap.after_zxid, gap.resumed_at_zxid) == (start, hub.zxid)


async def test_resuming_on_what_is_gone_is_no_error(hub: Hub) -> None:
    """Deleted after, it is replayed; deleted before, it is told all the same: as long as somebody
    believes it to be there, there is something to tell."""
    start = hub.zxid
    deleted = hub.write(DeleteOp("/p"))
    for after in (start, hub.zxid):
        watcher = hub.open()
        await watcher.resume([Spec(1, "/p", DATA), Spec(2, "/p", CHILDREN)], after)
        assert brief(watcher.take()) == [(2, "/p", deleted, [1, 2])]
        assert hub.hub.watches == 0


async def test_after_a_start_the_stat_tells_or_a_gap(hub: Hub) -> None:
    start = hub.zxid
    hub.write(CreateOp("/gone", b""), CreateOp("/same", b""), CreateOp("/parent", b""))
    known = hub.zxid
    hub.write(SetDataOp("/p", b"new"), DeleteOp("/gone"), CreateOp("/parent/c", b""))
    hub.hub = WatchHub(hub.harness.state, LimitsConfig())
    watcher = hub.open()
    specs = [
        Spec(1, "/p", DATA, True),
        Spec(2, "/gone", DATA),
        Spec(3, "/same", DATA),
        Spec(4, "/parent", CHILDREN),
        Spec(5, "/never", EXISTS),
        Spec(6, "/p", PERSISTENT_RECURSIVE),
        Spec(7, "/p", EXISTS),
    ]
    assert await watcher.resume(specs, known) == hub.zxid
    items = watcher.take()
    assert brief(items) == [
        ("gap", known, hub.zxid, [5, 6]),
        (3, "/p", known + 1, [1, 7]),
        (2, "/gone", known + 2, [2]),
        (4, "/parent", known + 3, [4]),
    ]
    assert items[1][1].data == b"new"
    assert start < known
    last = hub.write(SetDataOp("/same", b""), SetDataOp("/p", b""), CreateOp("/never", b""))
    assert brief(watcher.take()) == [
        (3, "/same", last - 2, [3]),
        (3, "/p", last - 1, [6]),
        (1, "/never", last, [5]),
    ]


async def test_what_was_missed_and_may_not_be_read(hub: Hub) -> None:
    start = hub.zxid
    hub.write(SetAclOp("/p", CLOSED), SetDataOp("/p", b"secret"))
    specs = [Spec(1, "/p", DATA), Spec(2, "/p", PERSISTENT)]
    replayed = hub.open()
    await replayed.resume(specs, start)
    assert brief(replayed.take()) == [("removed", [1])]
    hub.hub = WatchHub(hub.harness.state, LimitsConfig())
    by_stat = hub.open()
    await by_stat.resume(specs, start)
    assert brief(by_stat.take()) == [("gap", start, hub.zxid, [2]), ("removed", [1])]


async def test_a_start_ahead_of_everything_is_another_history(hub: Hub) -> None:
    watcher = hub.open()
    assert await watcher.resume([Spec(1, "/none", DATA)], hub.zxid + 5) == hub.zxid
    ((_, gap),) = watcher.take()
    assert gap.reason == watch_pb2.WATCH_GAP_REASON_OTHER_HISTORY
    assert (gap.after_zxid, gap.resumed_at_zxid) == (hub.zxid + 5, hub.zxid)


async def test_closed_while_it_resumes() -> None:
    hub = Hub(watch_buffer_events_max=2)
    start = hub.zxid
    for _ in range(10):
        hub.write(SetDataOp("/p", b""))
    watcher = hub.open()
    await watcher.resume([Spec(1, "/p", PERSISTENT)], start)
    watcher.close()
    assert not watcher.is_resuming
    statistics = hub.hub.statistics()
    assert (statistics.watches, statistics.watchers, len(hub.hub.table)) == (0, 0, 0)


def test_statistics(hub: Hub) -> None:
    begin = hub.zxid
    hub.open(Spec(1, "/p", DATA), Spec(2, "/p", EXISTS))
    hub.write(CreateOp("/q", b"x" * 100))
    statistics = hub.hub.statistics()
    assert (statistics.watches, statistics.watchers, statistics.gaps_total) == (2, 1, 0)
    assert statistics.history_bytes > 100 and statistics.history_from_zxid == begin + 1


def test_sessions_that_ended_are_told_of_after_their_changes(hub: Hub) -> None:
    session_id = hub.harness.open_session()
    watcher = hub.open(Spec(1, "/", PERSISTENT_RECURSIVE))
    seen: list[tuple[tuple[int, ...], bool]] = []
    hub.hub.on_sessions_closed = lambda ids: seen.append((ids, watcher.has_items))
    caller = Caller(session_id=session_id)
    hub.harness.write(CreateOp("/e", b"", mode=1), caller)
    hub.harness.write(CloseSessionOp(), caller)
    hub.hub.on_applied(hub.harness.last_applied)
    assert seen == [((session_id,), True)]
