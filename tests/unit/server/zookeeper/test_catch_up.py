"""Watches that are set again on another connection: what they are told of the time between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordsvc.core.auth import check
from coordsvc.core.commands import (
    CREATED,
    DATA_CHANGED,
    DELETED,
    OPEN_ACL,
    READ,
    Change,
    CreateOp,
    DeleteOp,
    MultiOp,
    Op,
    SetAclOp,
    SetDataOp,
)
from coordsvc.core.history import CHANGE_OVERHEAD_BYTES
from coordsvc.core.watches import (
    CHILDREN,
    CHILDREN_CHANGED,
    EXISTS,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
)
from coordsvc.server.zookeeper import catch_up
from coordsvc.server.zookeeper.protocol import (
    WATCHER_ANY,
    WATCHER_CHILDREN,
    WATCHER_DATA,
    WATCHER_PERSISTENT,
    WATCHER_PERSISTENT_RECURSIVE,
)
from tests.unit.server.zookeeper.watches_harness import (
    ME,
    MINE,
    Connection,
    SlowClock,
    Told,
    World,
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slice is one step long."""
    monkeypatch.setattr(catch_up, "time", SlowClock())


# -------------------------------------------------------------------------------------- one-shot

AGAIN = (DeleteOp("/p/o"), CreateOp("/p/o", b""))
CHILD = CreateOp("/p/o/c", b"")


@pytest.mark.parametrize(
    ("kind", "ops", "told"),
    [
        ("data", [], None),
        ("data", [SetDataOp("/p/o", b"")], DATA_CHANGED),
        ("data", [DeleteOp("/p/o")], DELETED),
        # "disconnected ... deleted and re-created meanwhile": the change, not the deletion.
        ("data", AGAIN, DATA_CHANGED),
        ("data", [CHILD], None),
        ("data", [SetAclOp("/p/o", OPEN_ACL)], None),
        ("exist", [DeleteOp("/p/o")], None),
        ("exist", [DeleteOp("/p/o"), CreateOp("/p/o", b"")], CREATED),
        # Whether or not it was there all the time.
        ("exist", [], CREATED),
        ("exist", [SetDataOp("/p/o", b"")], CREATED),
        ("child", [], None),
        ("child", [SetDataOp("/p/o", b"")], None),
        ("child", [CHILD], CHILDREN_CHANGED),
        ("child", [CHILD, DeleteOp("/p/o/c")], CHILDREN_CHANGED),
        ("child", [DeleteOp("/p/o")], DELETED),
        ("child", AGAIN, CHILDREN_CHANGED),
    ],
)
def test_what_the_stat_shows(world: World, kind: str, ops: list[Op], told: int | None) -> None:
    after_zxid = world.write(CreateOp("/p/o", b""))
    for op in ops:
        world.write(op)
    connection = world.connect()
    expected = [] if told is None else [Told(told, "/p/o", -1)]
    assert connection.catch_up(after_zxid, **{kind: ["/p/o"]}) == expected
    # Told or set, never both.
    watcher_type = WATCHER_CHILDREN if kind == "child" else WATCHER_DATA
    assert connection.watches.contains("/p/o", watcher_type) == (told is None)
    assert len(connection.watches) == world.hub.watches == len(world.hub.table) == (told is None)


def test_an_existence_that_came_and_went_is_not_told(world: World) -> None:
    """What ZooKeeper cannot tell either; the watch is set, and tells of what comes then."""
    after_zxid = world.zxid
    world.write(CreateOp("/n", b""), DeleteOp("/n"))
    connection = world.connect()
    assert connection.catch_up(after_zxid, exist=["/n"]) == []
    zxid = world.write(CreateOp("/n", b""))
    assert connection.take() == [Told(CREATED, "/n", zxid)]


def test_each_list_tells_for_itself(world: World) -> None:
    connection = world.connect()
    told = connection.catch_up(0, data=["/x", "/p"], exist=["/p"], child=["/x", "/"])
    assert [each[:2] for each in told] == [
        (DELETED, "/x"),
        (DATA_CHANGED, "/p"),
        (CREATED, "/p"),
        (DELETED, "/x"),
        (CHILDREN_CHANGED, "/"),
    ]
    assert world.counts()[:2] == (0, 0)


def test_malformed_paths_are_those_of_missing_znodes(world: World) -> None:
    paths = ["", "p", "/p/", "//", "/\udc00", "/" + "x" * 100_000]
    connection = world.connect()
    packets = []
    kinds: dict[str, list[str]] = dict.fromkeys(("data", "exist", "child"), paths)
    kinds["persistent"] = kinds["recursive"] = paths
    for _ in connection.begin_catch_up(0, **kinds):
        packets += connection.watches.take()
    packets += connection.watches.take()
    assert len(packets) == 2 * len(paths) and world.counts()[:2] == (0, 0)


@pytest.mark.parametrize("kind", ["data", "exist", "child"])
def test_what_may_not_be_read_is_not_told_when_caught_up(world: World, kind: str) -> None:
    world.write(SetAclOp("/p", MINE))
    other, me = world.connect(), world.connect(ME)
    assert other.catch_up(0, **{kind: ["/p"]}) == []
    assert len(me.catch_up(0, **{kind: ["/p"]})) == 1
    assert world.counts()[:2] == (0, 0)


@pytest.mark.usefixtures("slow")
def test_changes_between_the_slices(world: World) -> None:
    """Goal: each znode is looked at, and its watch set, in one turn; so what changes in other turns
    is told, once. Method: after each slice, change a znode that was looked at and one that was
    not."""
    paths = [f"/p/{number}" for number in range(8)]
    after_zxid = world.write(*[CreateOp(path, b"") for path in paths])
    connection = world.connect()
    pieces = connection.begin_catch_up(after_zxid, data=paths)
    for number, piece in enumerate(pieces):
        assert piece == b""
        world.write(SetDataOp(paths[0], b""), SetDataOp(paths[(number + 1) % 8], b""))
    told = connection.take()
    assert [each.path for each in told if each.zxid > 0] == [paths[0]]
    assert [each.path for each in told if each.zxid == -1] == paths[1:]


# ------------------------------------------------------------------------------------ persistent


def test_persistent_watches_are_told_everything(world: World) -> None:
    after_zxid = world.zxid
    zxids = [
        world.write(op)
        for op in (
            CreateOp("/p/n", b""),
            SetDataOp("/p/n", b""),
            SetDataOp("/p", b""),
            DeleteOp("/p/n"),
            CreateOp("/q", b""),
        )
    ]
    connection = world.connect()
    assert connection.catch_up(after_zxid, persistent=["/p"]) == [
        Told(CHILDREN_CHANGED, "/p", zxids[0]),
        Told(DATA_CHANGED, "/p", zxids[2]),
        Told(CHILDREN_CHANGED, "/p", zxids[3]),
    ]
    connection = world.connect()
    assert connection.catch_up(after_zxid, recursive=["/p"]) == [
        Told(CREATED, "/p/n", zxids[0]),
        Told(DATA_CHANGED, "/p/n", zxids[1]),
        Told(DATA_CHANGED, "/p", zxids[2]),
        Told(DELETED, "/p/n", zxids[3]),
    ]
    # And then of what follows.
    zxid = world.write(CreateOp("/p/n", b""))
    assert connection.take() == [Told(CREATED, "/p/n", zxid)]
    assert world.counts() == (2, 2, 2)


def test_one_change_is_told_once_to_watches_that_catch_up_together(world: World) -> None:
    after_zxid = world.zxid
    zxid = world.write(SetDataOp("/p", b""))
    connection = world.connect()
    told = connection.catch_up(after_zxid, persistent=["/p", "/p"], recursive=["/p", "/"])
    assert told == [Told(DATA_CHANGED, "/p", zxid)]
    assert world.counts() == (3, 3, 1)


def test_what_happened_is_told_before_what_is_so(world: World) -> None:
    """Events that have a zxid come first; those of one-shot watches tell of a later state."""
    after_zxid = world.zxid
    zxid = world.write(SetDataOp("/p", b""))
    connection = world.connect()
    told = connection.catch_up(after_zxid, data=["/p"], persistent=["/p"])
    assert told == [Told(DATA_CHANGED, "/p", zxid), Told(DATA_CHANGED, "/p", -1)]


@pytest.mark.parametrize("kind", ["persistent", "recursive"])
def test_what_the_history_does_not_have_is_not_told(kind: str) -> None:
    """As in ZooKeeper, which tells nothing of the time between; and set they are."""
    world = World(watch_history_bytes_max=2 * (CHANGE_OVERHEAD_BYTES + 100))
    world.write(SetDataOp("/p", b""))
    complete_after = world.zxid
    zxids = [world.write(SetDataOp("/p", b"")) for _ in range(2)]
    assert world.hub.history.complete_after == complete_after
    for after_zxid, told in (
        (complete_after, zxids),
        (complete_after - 1, []),
        (0, []),
        (-(2**63), []),
        (world.zxid, []),
        (world.zxid + 1, []),
        (2**63 - 1, []),
    ):
        connection = world.connect()
        caught_up = connection.catch_up(after_zxid, **{kind: ["/p"]})
        assert [each.zxid for each in caught_up] == told
        assert len(connection.watches) == 1
    zxid = world.write(SetDataOp("/p", b""))
    assert connection.take() == [Told(DATA_CHANGED, "/p", zxid)]


@pytest.mark.usefixtures("slow")
def test_the_history_drops_what_comes_next() -> None:
    world = World(watch_history_bytes_max=4 * (CHANGE_OVERHEAD_BYTES + 100))
    after_zxid = world.zxid
    zxids = [world.write(SetDataOp("/p", b"")) for _ in range(4)]
    connection = world.connect()
    pieces = connection.begin_catch_up(after_zxid, recursive=["/p"])
    while not connection.watches.has_events:
        next(pieces)
    world.write(*[SetDataOp("/p", b"") for _ in range(10)])
    for _ in pieces:
        pass
    assert [told.zxid for told in connection.take()] == zxids[:1]
    zxid = world.write(SetDataOp("/p", b""))
    assert connection.take() == [Told(DATA_CHANGED, "/p", zxid)]


@pytest.mark.usefixtures("slow")
def test_changes_while_persistent_watches_catch_up(world: World) -> None:
    """Goal: every change is told, and once, though each turn sets one watch at most and the tree
    changes between all of them."""
    paths = [f"/p/{number}" for number in range(6)]
    after_zxid = world.write(*[CreateOp(path, b"") for path in paths])
    connection = world.connect()
    expected = []
    for path in 2 * paths:
        expected.append((path, world.write(SetDataOp(path, b""))))
    sets = set()
    for number, _ in enumerate(connection.begin_catch_up(after_zxid, persistent=paths)):
        sets.add(len(connection.watches))
        # Six changes in nine turns: there is time to catch up, and for one or two to be set.
        if number % 9 == 0:
            for path in paths:
                expected.append((path, world.write(SetDataOp(path, b""))))
    assert sets == set(range(7)), "they were not set one by one"
    told = connection.take()
    assert sorted((each.path, each.zxid) for each in told) == sorted(expected)
    for path in paths:
        zxids = [each.zxid for each in told if each.path == path]
        assert zxids == sorted(zxids)


def test_read_is_that_of_each_change(world: World) -> None:
    after_zxid = world.zxid
    first = world.write(SetDataOp("/p", b""))
    world.write(SetAclOp("/p", MINE))
    second = world.write(SetDataOp("/p", b""))
    other, me = world.connect(), world.connect(ME)
    told = other.catch_up(after_zxid, persistent=["/p"])
    assert [each.zxid for each in told] == [first]
    told = me.catch_up(after_zxid, persistent=["/p"])
    assert [each.zxid for each in told] == [first, second]


# ---------------------------------------------------------------------------------- connections


def test_several_batches_on_one_connection(world: World) -> None:
    """Clients send what fits into a packet, one after the other; and what is live stays so."""
    after_zxid = world.zxid
    world.write(CreateOp("/q", b""), CreateOp("/p/n", b""))
    connection = world.connect()
    connection.add("/p", EXISTS, PERSISTENT)
    assert connection.catch_up(after_zxid, data=["/p"], persistent=["/p"]) == []
    assert len(connection.catch_up(after_zxid, child=["/"], recursive=["/q"])) == 2
    assert connection.catch_up(world.zxid, child=["/"]) == []
    assert (len(connection.watches), *world.counts()) == (4, 4, 4, 1)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("kind", ["data", "persistent"])
def test_closed_while_it_catches_up(world: World, kind: str) -> None:
    paths = [f"/{number}" for number in range(20)]
    after_zxid = world.write(*[CreateOp(path, b"") for path in paths])
    world.write(SetDataOp("/0", b""))
    connection = world.connect()
    pieces = connection.begin_catch_up(after_zxid, **{kind: paths})
    while not len(connection.watches):
        next(pieces)
    connection.watches.close()
    assert list(pieces) in ([], [b""])
    assert (len(connection.watches), *world.counts()) == (0, 0, 0, 0)
    assert not connection.watches.has_events


@pytest.mark.parametrize("kind", ["data", "exist", "child", "persistent", "recursive"])
def test_no_room_for_what_was_set(kind: str) -> None:
    """Goal: the connection ends; a client does not see that one of its watches is not set."""
    world = World(watches_max=5)
    paths = [f"/{number}" for number in range(8)]
    if kind != "exist":
        world.write(*[CreateOp(path, b"") for path in paths])
    connection = world.connect()
    assert connection.catch_up(world.zxid, **{kind: paths[:5]}) == []
    assert not connection.watches.is_overflowing and len(connection.watches) == 5
    assert connection.catch_up(world.zxid, **{kind: paths}) == []
    assert connection.watches.is_overflowing and connection.calls == 1
    assert (len(connection.watches), *world.counts()) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ["data", "recursive"])
def test_what_is_found_does_not_overflow(kind: str) -> None:
    """Goal: who missed more than may wait catches up nevertheless; else it would be closed for it
    on each new connection, for ever."""
    world = World(watch_buffer_bytes_max=100, watch_buffer_events_max=1)
    after_zxid = world.zxid
    for _ in range(50):
        world.write(SetDataOp("/p", b"x"))
    connection = world.connect()
    paths = {"data": 50 * ["/p"], "recursive": ["/p"]}[kind]
    assert len(connection.catch_up(after_zxid, **{kind: paths})) == 50
    assert not connection.watches.is_overflowing


@pytest.mark.parametrize("after", ["all", "nothing", "never"])
def test_the_loop_is_not_stopped(world: World, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Goal: no slice is longer than its time, whatever it does: preparing, telling, setting.
    Method: a clock that runs by one for each time it is asked, and slices of 50; count what is
    done between two pieces."""
    monkeypatch.setattr(catch_up, "time", SlowClock())
    monkeypatch.setattr(catch_up, "SLICE_S", 50.0)
    done = 0

    def counted(call: Any) -> Any:
        def count(*args: Any) -> Any:
            nonlocal done
            done += 1
            return call(*args)

        return count

    monkeypatch.setattr(catch_up, "Watch", counted(catch_up.Watch))
    monkeypatch.setattr(catch_up, "notification", counted(catch_up.notification))
    world.hub.table.put = counted(world.hub.table.put)  # type: ignore[method-assign]
    paths = [f"/{number}" for number in range(1_000)]
    before = world.zxid
    world.write(*[CreateOp(path, b"") for path in paths[::2]])
    after_zxid = {"all": before, "nothing": world.zxid, "never": world.zxid + 1}[after]
    connection = world.connect()
    taken, done_most = [], 0
    for _ in connection.begin_catch_up(
        after_zxid, data=paths, exist=paths, child=paths, persistent=paths, recursive=paths
    ):
        taken += connection.watches.take()
        done_most, done = max(done_most, done), 0
    assert 25 < max(done_most, done) <= 51
    told = len(taken) + len(connection.take())
    # Half of the paths are there. What they missed; the others' DELETED; the CREATED.
    assert told == (500 + 500 + 500 if after == "all" else 0) + 500 + 500 + 500


def test_who_takes_is_called_for_what_is_caught_up(world: World) -> None:
    connection = world.connect()
    for _ in connection.begin_catch_up(0, data=["/p", "/n"]):
        pass
    assert (connection.calls, connection.watches.waiting_bytes) == (1, 2 * 34)


def test_order_of_taking_what_was_caught_up(world: World) -> None:
    """What is older than what waits already does not leave it out, nor overtake it."""
    after_zxid = world.zxid
    first = world.write(CreateOp("/q", b""))
    connection = world.connect()
    connection.add("/p", EXISTS)
    second = world.write(SetDataOp("/p", b""))
    for _ in connection.begin_catch_up(after_zxid, recursive=["/q"], exist=["/p"]):
        pass
    assert connection.take(first) == []
    assert [told.zxid for told in connection.take(second)] == [second, first, -1]


# ----------------------------------------------------------------------------------- by a model

PATHS = ("/", "/p", "/p/a", "/p/a/x", "/p/b", "/pq")
KINDS = (EXISTS, CHILDREN, PERSISTENT, PERSISTENT_RECURSIVE)
TYPES = {
    WATCHER_DATA: (EXISTS,),
    WATCHER_CHILDREN: (CHILDREN,),
    WATCHER_PERSISTENT: (PERSISTENT,),
    WATCHER_PERSISTENT_RECURSIVE: (PERSISTENT_RECURSIVE,),
    WATCHER_ANY: KINDS,
}


class Model:
    """ZooKeeper's rules, written naively: two tables of (path, mode), one that data and persistent
    watches are in and one of children; one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.watches: set[tuple[str, int]] = set()
        self.told: list[tuple[int, str, int]] = []

    def apply(self, change: Change) -> None:
        path, zxid = change.path, change.zxid
        parent = path.rsplit("/", 1)[0] or "/"
        is_told = self._trigger_own(path)
        if change.type == DELETED and (path, CHILDREN) in self.watches:
            self.watches.discard((path, CHILDREN))
            is_told = True
        if is_told:
            self._tell(change.type, path, zxid, change.acl)
        is_watched = {(parent, CHILDREN), (parent, PERSISTENT)} & self.watches
        if change.type != DATA_CHANGED and is_watched:
            self.watches.discard((parent, CHILDREN))
            self._tell(CHILDREN_CHANGED, parent, zxid, change.parent_acl)

    def _trigger_own(self, path: str) -> bool:
        found = {(path, EXISTS), (path, PERSISTENT)} & self.watches
        self.watches.discard((path, EXISTS))
        at = path
        while True:
            found |= {(at, PERSISTENT_RECURSIVE)} & self.watches
            if at == "/":
                return bool(found)
            at = at.rsplit("/", 1)[0] or "/"

    def _tell(self, event_type: int, path: str, zxid: int, acl: Any) -> None:
        if check(acl, READ, self.connection.ids):
            self.told.append((event_type, path, zxid))

    def catch_up(self, world: World, after_zxid: int, paths: dict[str, list[str]]) -> None:
        znodes = world.hub.state.znodes
        replayed = Model(self.connection)
        replayed.watches = {(path, PERSISTENT) for path in paths["persistent"]} - self.watches
        replayed.watches |= {
            (path, PERSISTENT_RECURSIVE) for path in paths["recursive"]
        } - self.watches
        self.watches |= replayed.watches
        if after_zxid <= world.zxid:
            for change in world.changes:  # type: ignore[attr-defined]
                if change.zxid > after_zxid:
                    replayed.apply(change)
        self.told += replayed.told
        for path in paths["data"]:
            self._catch_up_one(znodes.get(path), path, EXISTS, DATA_CHANGED, "mzxid", after_zxid)
        for path in paths["exist"]:
            if path in znodes:
                self._tell(CREATED, path, -1, znodes[path].acl)
            else:
                self.watches.add((path, EXISTS))
        for path in paths["child"]:
            self._catch_up_one(
                znodes.get(path), path, CHILDREN, CHILDREN_CHANGED, "pzxid", after_zxid
            )

    def _catch_up_one(
        self, znode: Any, path: str, kind: int, event_type: int, field: str, after_zxid: int
    ) -> None:
        if znode is None:
            self.told.append((DELETED, path, -1))
        elif getattr(znode.stat, field) > after_zxid:
            self._tell(event_type, path, -1, znode.acl)
        else:
            self.watches.add((path, kind))


some_paths = st.lists(st.sampled_from(PATHS), max_size=3)
steps = st.one_of(
    st.tuples(st.just("create"), st.sampled_from(PATHS[2:]), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(PATHS[2:])),
    st.tuples(st.just("set"), st.sampled_from(PATHS)),
    st.tuples(st.just("acl"), st.sampled_from(PATHS), st.booleans()),
    st.tuples(st.just("multi"), st.sampled_from(PATHS[:4])),
    st.tuples(st.just("add"), st.sampled_from(PATHS), st.sampled_from(KINDS)),
    st.tuples(st.just("remove"), st.sampled_from(PATHS), st.sampled_from(list(TYPES))),
    st.tuples(st.just("take")),
    st.tuples(st.just("again"), st.integers(-3, 12), *[some_paths] * 5),
)


def op_of(step: tuple[Any, ...]) -> Op | None:
    name, path = step[0], step[1]
    if name == "create":
        return CreateOp(path, b"", acl=MINE if step[2] else OPEN_ACL)
    if name == "delete":
        return DeleteOp(path)
    if name == "set":
        return SetDataOp(path, b"")
    if name == "acl":
        return SetAclOp(path, MINE if step[2] else OPEN_ACL)
    if name == "multi":
        return MultiOp((SetDataOp(path, b"1"), SetDataOp(path, b"2")))
    return None


@given(st.lists(steps, max_size=30), st.booleans())
def test_zookeepers_rules(script: list[tuple[Any, ...]], is_me: bool) -> None:
    """Goal: what is told, in order, and what is set, is what a naive model of ZooKeeper's tables
    says; with the catch-up of persistent watches that ZooKeeper does not have."""
    world = World()
    world.changes = []  # type: ignore[attr-defined]
    connection = world.connect(*([ME] if is_me else []))
    model = Model(connection)
    told: list[Told] = []
    for step in script:
        name = step[0]
        if name == "take":
            told += connection.take()
        elif name == "add":
            connection.add(step[1], step[2])
            model.watches.add((step[1], step[2]))
        elif name == "remove":
            there = {(step[1], kind) for kind in TYPES[step[2]]} & model.watches
            assert connection.watches.contains(step[1], step[2]) == bool(there)
            assert connection.watches.remove(step[1], step[2]) == bool(there)
            model.watches -= there
        elif name == "again":
            after_zxid = max(world.hub.history.complete_after, world.zxid - step[1])
            names = ("data", "exist", "child", "persistent", "recursive")
            paths = dict(zip(names, step[2:], strict=True))
            model.catch_up(world, after_zxid, paths)
            told += connection.take() + connection.catch_up(after_zxid, **paths)
        elif (op := op_of(step)) is not None:
            world.write(op)
            changes = world.harness.last_applied.changes
            world.changes += changes  # type: ignore[attr-defined]
            for change in changes:
                model.apply(change)
        counts = (len(connection.watches), *world.counts()[:2])
        assert counts == 3 * (len(model.watches),)
        assert set(connection.watches.paths()) == {path for path, _ in model.watches}
    told += connection.take()
    assert [tuple(each) for each in told] == model.told
    connection.watches.close()
    assert world.counts() == (0, 0, 0)
