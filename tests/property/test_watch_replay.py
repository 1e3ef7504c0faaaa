"""Watches against a naive model: random changes; streams that come, go and come back; a history and
buffers so small that both run over. Every event is there once, in order and readable, or a gap
says that it is not."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordsvc.core.commands import (
    ALL,
    NO_CALLER,
    OPEN_ACL,
    Acl,
    AuthId,
    Change,
    CreateOp,
    DeleteOp,
    MultiOp,
    Op,
    SetAclOp,
    SetDataOp,
    SubOp,
    Write,
)
from coordsvc.core.history import CHANGE_OVERHEAD_BYTES
from coordsvc.core.watches import PERSISTENT, PERSISTENT_RECURSIVE
from coordsvc.errors import NoAuthError, NoNodeError
from coordsvc.server.config_model import LimitsConfig
from coordsvc.server.watch_hub import Spec, WatchHub
from coordsvc.v1 import watch_pb2
from tests.property.watch_model import ITEM, ModelWatch, StreamCheck
from tests.unit.core.harness import Harness

ME = AuthId("digest", "me:hash")
CLOSED = (Acl(ALL, "digest", "me:hash"), Acl(ALL & ~1, "world", "anyone"))
PATHS = ("/", "/a", "/b", "/a/x", "/a/y", "/a/x/1", "/ab")


class Stream:
    """A client's stream: it takes what comes, and knows how far it has everything."""

    def __init__(self, world: World, ids: tuple[AuthId, ...]) -> None:
        self.world = world
        self.ids = ids
        self.calls = 0
        self.watcher = world.hub.open(lambda: ids, self._on_items)
        self.check = StreamCheck(world.changes, ids, {}, True, world.is_overflowing)
        self.position = 0
        self.set_at = 0
        """When the last of its watches was set first: no client resumes from before that."""

    def _on_items(self) -> None:
        self.calls += 1

    def add(self, specs: list[Spec]) -> None:
        """As many of them as can be set."""
        for spec in specs:
            try:
                zxid = self.watcher.add([spec])
            except (NoNodeError, NoAuthError):
                continue
            self.check.watches[spec.watch_id] = ModelWatch(*spec, zxid)
        self.position = self.set_at = self.world.hub.state.zxid

    def resume(self, specs: list[Spec], after_zxid: int) -> None:
        zxid = self.watcher.begin_resume(specs, after_zxid)
        self.check.watches = {spec.watch_id: ModelWatch(*spec, after_zxid) for spec in specs}
        self.position = after_zxid
        self.check.is_resumed = True
        self.note_history()
        assert zxid == (after_zxid if self.check.is_exact else self.world.hub.state.zxid)

    def note_history(self) -> None:
        """While it resumes, the history may drop what it needs."""
        first = min([watch.zxid for watch in self.check.watches.values()], default=0)
        if self.world.hub.history.complete_after > first:
            self.check.is_exact = False

    def take(self, bytes_max: int, up_to_zxid: int | None = None) -> None:
        for zxid, item in self.watcher.take(up_to_zxid, bytes_max):
            assert up_to_zxid is None or zxid <= up_to_zxid
            self.check.items.append(item)
            if isinstance(item, watch_pb2.WatchEvent) and item.last_of_zxid:
                self.position = item.zxid
        if not self.check.is_exact:
            return  # what the Stat shows may stand for more than its own zxid
        # A note of the same zxid that a watch is gone may still wait.
        assert self.watcher.position >= self.position - 1

    def left(self) -> list[Spec]:
        """The watches that are still set, or were used up by what is not complete yet."""
        used_up: set[int] = set()
        for item in self.check.items:
            if self._uses_up(item):
                used_up.update(item.watch_ids)
        return [
            Spec(watch.watch_id, watch.path, watch.kind, watch.include_data)
            for watch in self.check.watches.values()
            if watch.watch_id not in self.check.removed_at
            and not (watch.is_one_shot and watch.watch_id in used_up)
        ]

    def _uses_up(self, item: ITEM) -> bool:
        if isinstance(item, watch_pb2.WatchGap):
            return False
        return isinstance(item, watch_pb2.WatchRemoved) or item.zxid <= self.position

    def finish(self) -> None:
        while self.watcher.has_items:
            self.take(10**6)
        assert self.watcher.position == self.world.hub.state.zxid
        assert not self.watcher.is_resuming
        self.check.run()
        self.watcher.close()


class World:
    def __init__(self, history_changes: int, buffer_events: int) -> None:
        self.harness = Harness()
        self.changes: list[Change] = []
        self.is_overflowing = buffer_events < 100
        limits = LimitsConfig(
            watch_history_bytes_max=history_changes * (CHANGE_OVERHEAD_BYTES + 200),
            watch_buffer_events_max=buffer_events,
        )
        self.harness.create("/a", "/a/x")
        self.hub = WatchHub(self.harness.state, limits)
        self.streams: list[Stream] = []

    def write(self, ops: list[Op]) -> None:
        self.harness.submit(*[Write(NO_CALLER, op) for op in ops])
        applied = self.harness.last_applied
        self.changes += applied.changes
        self.hub.on_applied(applied)
        for stream in self.streams:
            if stream.watcher.is_resuming:
                stream.note_history()

    def leave(self, stream: Stream) -> None:
        """The client goes in the middle; what it has is checked as far as it goes."""
        stream.watcher.close()
        self.streams.remove(stream)


# --------------------------------------------------------------------------------------- strategies

paths = st.sampled_from(PATHS[1:])
data = st.sampled_from([b"", b"x", b"y" * 150, None])
acls = st.sampled_from([OPEN_ACL, OPEN_ACL, CLOSED])
sub_ops: st.SearchStrategy[SubOp] = st.one_of(
    st.builds(CreateOp, paths, data, acl=acls),
    st.builds(DeleteOp, paths),
    st.builds(SetDataOp, st.sampled_from(PATHS), data),
)
ops: st.SearchStrategy[Op] = st.one_of(
    sub_ops,
    sub_ops,
    st.builds(MultiOp, st.lists(sub_ops, min_size=1, max_size=4).map(tuple)),
    st.builds(SetAclOp, paths, acls),
)
wanted = st.tuples(st.sampled_from(PATHS), st.integers(1, PERSISTENT_RECURSIVE), st.booleans())
# Most resumes are of streams without a recursive watch: they go another way.
plain = st.tuples(st.sampled_from(PATHS), st.integers(1, PERSISTENT), st.booleans())
which = st.integers(0, 3)
write = st.tuples(st.just("write"), st.lists(ops, min_size=1, max_size=6))
resumed = st.tuples(st.just("resume"), which, st.integers(0, 6), st.booleans())
actions = st.one_of(
    write,
    write,
    write,
    st.tuples(st.just("open"), st.booleans(), st.lists(wanted, min_size=1, max_size=5)),
    st.tuples(st.just("open"), st.booleans(), st.lists(plain, min_size=1, max_size=3)),
    st.tuples(st.just("take"), which, st.sampled_from([1, 150, 10**6]), st.booleans()),
    st.tuples(st.just("advance"), which),
    st.tuples(st.just("remove"), which, which),
    resumed,
    resumed,
)
programs = st.lists(actions, min_size=20, max_size=60)


def run(world: World, action: tuple[Any, ...]) -> None:
    name, *arguments = action
    if name == "write":
        world.write(arguments[0])
        return
    if name == "open":
        is_me, wants = arguments
        stream = Stream(world, (ME,) if is_me else ())
        stream.add([Spec(number, *want) for number, want in enumerate(wants, start=1)])
        world.streams.append(stream)
        return
    if not world.streams:
        return
    stream = world.streams[arguments[0] % len(world.streams)]
    if name == "take":
        up_to = world.hub.state.zxid - 1 if arguments[2] else None
        stream.take(arguments[1], up_to)
    elif name == "advance":
        stream.watcher.advance()
    elif name == "remove":
        remove(stream, arguments[1])
    else:
        resume(world, stream, *arguments[1:])


def remove(stream: Stream, index: int) -> None:
    left = [spec.watch_id for spec in stream.left()]
    # One whose event was taken is gone here, though its group is not complete.
    known = [watch_id for watch_id in left if watch_id in stream.watcher._watches]
    if known:
        watch_id = known[index % len(known)]
        stream.watcher.remove([watch_id])
        stream.check.removed_at[watch_id] = len(stream.check.items)


def resume(world: World, stream: Stream, back: int, is_checked: bool) -> None:
    """The client goes, with all taken or not, and comes back on a new stream, from where it has
    everything, or even from before."""
    specs, position, ids = stream.left(), stream.position, stream.ids
    if is_checked:
        stream.finish()
        specs, position = stream.left(), stream.position
        world.streams.remove(stream)
    else:
        world.leave(stream)
    if specs:
        again = Stream(world, ids)
        again.set_at = stream.set_at
        again.resume(specs, max(again.set_at, position - back))
        world.streams.append(again)


# --------------------------------------------------------------------------------------- the tests


def play(world: World, played: list[tuple[Any, ...]]) -> None:
    for action in played:
        run(world, action)
    for stream in list(world.streams):
        stream.finish()
        assert stream.calls >= 0
    hub = world.hub.statistics()
    assert (hub.watches, hub.watchers, len(world.hub.table)) == (0, 0, 0)
    assert hub.history_bytes <= world.hub.limits.watch_history_bytes_max


settings_here = settings(
    max_examples=100,
    report_multiple_bugs=False,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@settings_here
@given(programs)
def test_with_a_history_that_has_it_all_nothing_is_missing(played: list[tuple[Any, ...]]) -> None:
    world = World(10_000, 10_000)
    play(world, played)
    assert world.hub.gaps_total == 0


@settings_here
@given(programs, st.integers(0, 6))
def test_with_a_tiny_history(played: list[tuple[Any, ...]], changes: int) -> None:
    play(World(changes, 10_000), played)


@settings_here
@given(programs, st.integers(1, 4))
def test_with_tiny_buffers(played: list[tuple[Any, ...]], events: int) -> None:
    play(World(10_000, events), played)


@settings_here
@given(programs, st.integers(0, 6), st.integers(1, 4))
def test_with_both(played: list[tuple[Any, ...]], changes: int, events: int) -> None:
    play(World(changes, events), played)
