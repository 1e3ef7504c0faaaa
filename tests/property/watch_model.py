"""A naive model of watches: every change ever made, and what each watch must be told of them."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordsvc.core.auth import check
from coordsvc.core.commands import CREATED, DATA_CHANGED, DELETED, READ, AuthId, Change
from coordsvc.core.watches import (
    CHILDREN,
    CHILDREN_CHANGED,
    DATA,
    EXISTS,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
)
from coordsvc.v1 import watch_pb2

ONE_SHOT = (DATA, EXISTS, CHILDREN)
ITEM = watch_pb2.WatchEvent | watch_pb2.WatchGap | watch_pb2.WatchRemoved

TOO_OLD = watch_pb2.WATCH_GAP_REASON_HISTORY_TOO_OLD
OVERFLOW = watch_pb2.WATCH_GAP_REASON_BUFFER_OVERFLOW


def parent(path: str) -> str:
    return path.rsplit("/", 1)[0] or "/"


def event_of(kind: int, path: str, change: Change) -> int | None:
    """The type of the event that a watch of this kind on `path` gets of the change. Written from
    the table in the API, kind by kind."""
    is_own = change.path == path
    is_child = parent(change.path) == path and change.path != "/"
    if kind in (DATA, EXISTS):
        return change.type if is_own else None
    if kind == CHILDREN:
        if is_own:
            return DELETED if change.type == DELETED else None
        return CHILDREN_CHANGED if is_child and change.type != DATA_CHANGED else None
    if kind == PERSISTENT:
        if is_own:
            return change.type
        return CHILDREN_CHANGED if is_child and change.type != DATA_CHANGED else None
    assert kind == PERSISTENT_RECURSIVE
    is_below = path == "/" or change.path.startswith(path + "/")
    return change.type if is_own or is_below else None


@dataclass
class Expected:
    """`place` orders events: by change, the znode's own before its parent's."""

    place: tuple[int, int]
    zxid: int
    type: int
    path: str
    change: Change
    may_read: bool

    def is_told_by(self, item: watch_pb2.WatchEvent) -> bool:
        return (self.type, self.path, self.zxid) == (item.type, item.path, item.zxid)


@dataclass
class ModelWatch:
    """`zxid`: what it was told goes so far. `is_over`: nothing more comes."""

    watch_id: int
    path: str
    kind: int
    include_data: bool
    zxid: int
    place: tuple[int, int] = (-1, 0)
    is_over: bool = False

    @property
    def is_one_shot(self) -> bool:
        return self.kind in ONE_SHOT


@dataclass
class StreamCheck:
    """Walks over what a stream was sent. `is_exact`: nobody had a reason for a gap of the history,
    so every event must be there."""

    changes: list[Change]
    ids: tuple[AuthId, ...]
    watches: dict[int, ModelWatch]
    is_exact: bool
    is_overflowing: bool
    is_resumed: bool = False
    items: list[ITEM] = field(default_factory=list)
    removed_at: dict[int, int] = field(default_factory=dict)
    """Watch id to how many items had come when the client removed it."""

    def expected(self, watch: ModelWatch) -> list[Expected]:
        """What the watch is still to be told."""
        if watch.is_over:
            return []
        found = []
        for index, change in enumerate(self.changes):
            if change.zxid <= watch.zxid and (index, 2) > watch.place:
                continue
            event_type = event_of(watch.kind, watch.path, change)
            if event_type is None or change.zxid <= watch.zxid:
                continue
            is_parents = event_type == CHILDREN_CHANGED
            place = (index, int(is_parents))
            if place <= watch.place:
                continue
            acl = change.parent_acl if is_parents else change.acl
            path = parent(change.path) if is_parents else change.path
            may_read = check(acl, READ, self.ids)
            found.append(Expected(place, change.zxid, event_type, path, change, may_read))
            if watch.is_one_shot:
                break
        return found if watch.is_one_shot else [each for each in found if each.may_read]

    def made_again(self, watch: ModelWatch, first: Expected) -> Expected | None:
        """What a one-shot watch that resumes may be told instead of a deletion: that the znode is
        there again."""
        if not (self.is_resumed and watch.is_one_shot and first.type == DELETED):
            return None
        for index in range(first.place[0] + 1, len(self.changes)):
            change = self.changes[index]
            if change.type == CREATED and change.path == watch.path:
                event_type = {DATA: DATA_CHANGED, EXISTS: CREATED}.get(watch.kind, CHILDREN_CHANGED)
                may_read = check(change.acl, READ, self.ids)
                return Expected((index, 0), change.zxid, event_type, watch.path, change, may_read)
        return None

    def was_gone(self, watch: ModelWatch) -> bool:
        """Whether it resumed on a znode that was not there: a gap stood for its deletion. It was
        set to know whether the znode changes, and so hears that it did, whatever else it hears."""
        if not self.is_resumed or watch.kind not in (DATA, CHILDREN):
            return False
        own = [each for each in self.changes if each.path == watch.path]
        before = [each for each in own if each.zxid <= watch.zxid]
        return bool(before) and before[-1].type == DELETED

    def run(self) -> None:
        last_place, last_zxid, last_type = (-1, 0), 0, 0
        for index, item in enumerate(self.items):
            for watch_id in item.watch_ids:
                assert watch_id in self.watches
                gone_at = self.removed_at.get(watch_id)
                assert gone_at is None or index < gone_at, "told after it was removed"
            if isinstance(item, watch_pb2.WatchGap):
                self._gap(item)
            elif isinstance(item, watch_pb2.WatchRemoved):
                self._removed(item)
            else:
                place = self._event(item)
                # In which order a group's changes were made, no Stat shows.
                is_after = place is None or not self.is_exact or place > last_place
                # One that is there again has changed for some, and was created for others.
                is_after |= self.is_resumed and place == last_place and item.type != last_type
                assert is_after, "out of order, or twice"
                last_place, last_type = place or last_place, item.type
                assert item.zxid >= last_zxid
                last_zxid = item.zxid
        self._check_groups()
        for watch in self.watches.values():
            if watch.watch_id not in self.removed_at:
                left = self.expected(watch)
                assert not left, f"{watch} was not told of {left[0]}"

    def _event(self, item: watch_pb2.WatchEvent) -> tuple[int, int] | None:
        place = None
        assert list(item.watch_ids) == sorted(set(item.watch_ids)) and item.watch_ids
        watches = [self.watches[watch_id] for watch_id in item.watch_ids]
        for watch in watches:
            expected = self.expected(watch)
            if self.was_gone(watch) and item.path == watch.path:
                watch.is_over = True
                continue
            assert expected, f"{watch} is told of {item}, of which it has nothing to hear"
            first = expected[0]
            again = self.made_again(watch, first)
            if again is not None and again.is_told_by(item):
                first = again
            if first.is_told_by(item) and first.may_read:
                place = first.place
                watch.place = first.place
                self._check_data(item, first, watches)
            else:
                assert not self.is_exact, f"{item} instead of {first}"
                assert watch.is_one_shot and item.path == watch.path, f"{item} after {first} missed"
            watch.is_over = watch.is_one_shot
        if place is not None:
            self._check_ids(item, place)
        return place

    def _check_ids(self, item: watch_pb2.WatchEvent, place: tuple[int, int]) -> None:
        """Nobody else of this stream was to be told of the same change: it is one event."""
        for watch in self.watches.values():
            if watch.watch_id in item.watch_ids or watch.watch_id in self.removed_at:
                continue
            if not self.is_exact or self.is_overflowing or (self.is_resumed and watch.is_one_shot):
                continue
            assert all(each.place != place for each in self.expected(watch)), (
                f"{watch} is missing in {item}"
            )

    def _check_data(
        self, item: watch_pb2.WatchEvent, first: Expected, watches: list[ModelWatch]
    ) -> None:
        is_asked = any(watch.include_data for watch in watches)
        is_there = is_asked and first.type in (CREATED, DATA_CHANGED)
        assert item.HasField("stat") == is_there
        if is_there and first.change.stat is not None:
            assert item.stat.mzxid == first.zxid
            if self.is_exact:  # the Stat shows the last one of several in a group
                assert item.stat.version == first.change.stat.version
                assert item.HasField("data") == (first.change.data is not None)
                assert item.data == (first.change.data or b"")
        else:
            assert not item.HasField("data")

    def _gap(self, item: watch_pb2.WatchGap) -> None:
        if item.reason == TOO_OLD:
            assert not self.is_exact, "the history had it"
        else:
            assert item.reason == OVERFLOW and self.is_overflowing
        for watch_id in item.watch_ids:
            watch = self.watches[watch_id]
            assert not watch.is_over, "a watch in a gap is still set"
            assert all(each.zxid > item.after_zxid for each in self.expected(watch)), (
                f"{watch} was not told of everything up to {item.after_zxid}"
            )
            watch.zxid = max(watch.zxid, item.resumed_at_zxid)

    def _removed(self, item: watch_pb2.WatchRemoved) -> None:
        for watch_id in item.watch_ids:
            watch = self.watches[watch_id]
            assert watch.is_one_shot and not watch.is_over
            expected = self.expected(watch)
            # What ended it may be among what a gap stands for.
            assert expected or self.is_overflowing, f"{watch} ended, and nothing had happened"
            if expected and self._is_sure(watch):
                again = self.made_again(watch, expected[0])
                assert not expected[0].may_read or (again is not None and not again.may_read)
            watch.is_over = True

    def _is_sure(self, watch: ModelWatch) -> bool:
        """What ended it was not among what a gap stands for."""
        return self.is_exact and not self.is_overflowing and not self.was_gone(watch)

    def _check_groups(self) -> None:
        """`last_of_zxid` is on the last event of each zxid, and only there; but a group of which
        the rest became a gap has none."""
        events = [item for item in self.items if not isinstance(item, watch_pb2.WatchRemoved)]
        for item, following in zip(events, [*events[1:], None], strict=False):
            if isinstance(item, watch_pb2.WatchGap):
                continue
            if isinstance(following, watch_pb2.WatchGap):
                # Instead of what the Stat shows it may begin before what was told of that.
                is_last = following.after_zxid >= item.zxid
                assert item.last_of_zxid == is_last or not self.is_exact
            else:
                is_last = following is None or following.zxid != item.zxid
                assert item.last_of_zxid == is_last or self.removed_at, item
