"""The watches of one connection: which there are, what is told of them, and within which bounds.

Sentences in quotes are of the ZooKeeper Programmer's Guide, "ZooKeeper Watches".
"""

from __future__ import annotations

from struct import pack

import pytest

from coordsvc.core.commands import (
    CREATED,
    DATA_CHANGED,
    DELETED,
    EPHEMERAL,
    OPEN_ACL,
    Caller,
    CloseSessionOp,
    CreateOp,
    DeleteOp,
    MultiOp,
    Op,
    Refusal,
    SetAclOp,
    SetDataOp,
    Write,
)
from coordsvc.core.watches import (
    CHILDREN,
    CHILDREN_CHANGED,
    EXISTS,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
)
from coordsvc.errors import ErrorCode
from coordsvc.server.zookeeper.protocol import (
    WATCHER_ANY,
    WATCHER_CHILDREN,
    WATCHER_DATA,
    WATCHER_PERSISTENT,
    WATCHER_PERSISTENT_RECURSIVE,
)
from tests.unit.server.zookeeper.watches_harness import ME, MINE, Connection, Told, World

KINDS = (EXISTS, CHILDREN, PERSISTENT, PERSISTENT_RECURSIVE)
TYPES = (
    WATCHER_DATA,
    WATCHER_CHILDREN,
    WATCHER_PERSISTENT,
    WATCHER_PERSISTENT_RECURSIVE,
)
"""Of watchers, in the order of KINDS."""


@pytest.fixture
def world() -> World:
    return World()


# ------------------------------------------------------------------------------------- packets


def test_a_notification_on_the_wire(world: World) -> None:
    connection = world.connect()
    path = "/p/ä€"
    connection.add(path, EXISTS)
    zxid = world.write(CreateOp(path, b""))
    (packet,) = connection.watches.take()
    text = path.encode()
    body = pack(">iqi", -1, zxid, 0) + pack(">ii", CREATED, 3) + pack(">i", len(text)) + text
    assert packet == pack(">i", len(body)) + body


def test_an_event_is_encoded_once_for_all(world: World) -> None:
    """Goal: a thousand connections that watch one znode cost one packet."""
    connections = [world.connect() for _ in range(1_000)]
    for connection in connections:
        connection.add("/p", EXISTS)
    assert world.counts() == (1_000, 1_000, 1_000)
    world.write(SetDataOp("/p", b"x"))
    packets = [packet for connection in connections for packet in connection.watches.take()]
    assert len(packets) == 1_000 and len({id(packet) for packet in packets}) == 1
    assert world.counts()[:2] == (0, 0)


# ------------------------------------------------------------------------------ what is told


@pytest.mark.parametrize(
    ("kind", "path", "op", "told"),
    [
        (EXISTS, "/p/n", CreateOp("/p/n", b""), (CREATED, "/p/n")),
        (EXISTS, "/p/o", SetDataOp("/p/o", b"1"), (DATA_CHANGED, "/p/o")),
        (EXISTS, "/p/o", DeleteOp("/p/o"), (DELETED, "/p/o")),
        (EXISTS, "/p", CreateOp("/p/n", b""), None),
        (CHILDREN, "/p", CreateOp("/p/n", b""), (CHILDREN_CHANGED, "/p")),
        (CHILDREN, "/p", DeleteOp("/p/o"), (CHILDREN_CHANGED, "/p")),
        (CHILDREN, "/p", SetDataOp("/p/o", b"1"), None),
        (CHILDREN, "/p/o", DeleteOp("/p/o"), (DELETED, "/p/o")),
        (CHILDREN, "/p", SetDataOp("/p", b"1"), None),
        (PERSISTENT, "/p/n", CreateOp("/p/n", b""), (CREATED, "/p/n")),
        (PERSISTENT, "/p/o", SetDataOp("/p/o", b"1"), (DATA_CHANGED, "/p/o")),
        (PERSISTENT, "/p", SetDataOp("/p/o", b"1"), None),
        (PERSISTENT, "/p", CreateOp("/p/n", b""), (CHILDREN_CHANGED, "/p")),
        (PERSISTENT, "/p/o", DeleteOp("/p/o"), (DELETED, "/p/o")),
        (PERSISTENT_RECURSIVE, "/", CreateOp("/p/n", b""), (CREATED, "/p/n")),
        (PERSISTENT_RECURSIVE, "/p", SetDataOp("/p/o", b"1"), (DATA_CHANGED, "/p/o")),
        (PERSISTENT_RECURSIVE, "/p/o", DeleteOp("/p/o"), (DELETED, "/p/o")),
        # By component: /pq is not below /p.
        (PERSISTENT_RECURSIVE, "/p", CreateOp("/pq", b""), None),
    ],
)
def test_what_each_kind_is_told(
    world: World, kind: int, path: str, op: Op, told: tuple[int, str] | None
) -> None:
    world.write(CreateOp("/p/o", b""))
    connection = world.connect()
    connection.add(path, kind)
    zxid = world.write(op)
    assert connection.take() == ([] if told is None else [Told(*told, zxid)])


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_the_acl_and_refused_writes_are_not_told(world: World, kind: int) -> None:
    connection = world.connect()
    connection.add("/p", kind)
    world.write(SetAclOp("/p", MINE), SetDataOp("/p", b"", 99), DeleteOp("/none"))
    assert connection.take() == [] and connection.calls == 0


def test_watches_trigger_once(world: World) -> None:
    """ "One-time trigger"; persistent ones stay."""
    one_shot, lasting = world.connect(), world.connect()
    one_shot.add("/p", EXISTS, CHILDREN)
    lasting.add("/p", PERSISTENT)
    for number in range(3):
        world.write(SetDataOp("/p", b""), CreateOp(f"/p/{number}", b""))
    assert one_shot.told() == [(DATA_CHANGED, "/p"), (CHILDREN_CHANGED, "/p")]
    assert lasting.told() == 3 * [(DATA_CHANGED, "/p"), (CHILDREN_CHANGED, "/p")]
    assert (len(one_shot.watches), len(lasting.watches)) == (0, 1)


def test_a_deletion_is_told_once_for_a_path(world: World) -> None:
    """Goal: to one connection with every kind of watch on it; its parent's is another."""
    world.write(CreateOp("/p/o", b""))
    connection = world.connect()
    connection.add("/p/o", *KINDS)
    connection.add("/p", *KINDS)
    zxid = world.write(DeleteOp("/p/o"))
    assert connection.take() == [Told(DELETED, "/p/o", zxid), Told(CHILDREN_CHANGED, "/p", zxid)]
    # Those of the children of /p/o and of its data are used up; of /p, that of its children.
    assert {path: _kinds(connection, path) for path in ("/p", "/p/o")} == {
        "/p": [EXISTS, PERSISTENT, PERSISTENT_RECURSIVE],
        "/p/o": [PERSISTENT, PERSISTENT_RECURSIVE],
    }


def test_children_watches_below_a_recursive_one(world: World) -> None:
    connection = world.connect()
    connection.add("/p", PERSISTENT_RECURSIVE)
    connection.add("/p/o", CHILDREN)
    world.write(CreateOp("/p/o", b""))
    connection.take()
    world.write(CreateOp("/p/o/c", b""))
    assert connection.told() == [(CREATED, "/p/o/c"), (CHILDREN_CHANGED, "/p/o")]


def test_a_multi_is_told_in_order_under_one_zxid(world: World) -> None:
    connection = world.connect()
    connection.add("/p", PERSISTENT)
    connection.add("/p/n", EXISTS)
    zxid = world.write(
        MultiOp((SetDataOp("/p", b"1"), CreateOp("/p/n", b""), SetDataOp("/p/n", b"2")))
    )
    assert connection.take() == [
        Told(DATA_CHANGED, "/p", zxid),
        Told(CREATED, "/p/n", zxid),
        Told(CHILDREN_CHANGED, "/p", zxid),
    ]


def test_the_ephemerals_of_a_session_that_ends(world: World) -> None:
    session = world.harness.open_session()
    caller = Caller(session)
    for path in ("/p/e1", "/p/e2"):
        world.harness.write(CreateOp(path, b"", EPHEMERAL), caller)
    connection = world.connect()
    connection.add("/p", CHILDREN)
    connection.add("/p/e1", EXISTS)
    connection.add("/p/e2", EXISTS)
    world.harness.submit(Write(caller, CloseSessionOp()))
    world.hub.on_applied(world.harness.last_applied)
    told = connection.take()
    assert sorted(each[:2] for each in told) == sorted(
        [(DELETED, "/p/e1"), (DELETED, "/p/e2"), (CHILDREN_CHANGED, "/p")]
    )
    assert len({each.zxid for each in told}) == 1


# -------------------------------------------------------------------------------------- READ


@pytest.mark.parametrize("kind", [EXISTS, CHILDREN])
def test_what_may_not_be_read_is_not_told_and_uses_up(world: World, kind: int) -> None:
    other, me = world.connect(), world.connect(ME)
    for connection in (other, me):
        connection.add("/p", kind)
    world.write(SetAclOp("/p", MINE))
    change = SetDataOp("/p", b"") if kind == EXISTS else CreateOp("/p/n", b"")
    world.write(change)
    assert (other.take(), other.calls) == ([], 0)
    assert len(me.take()) == 1
    assert world.counts()[:2] == (0, 0)
    # It was used up: what may be read again is not told.
    world.write(SetAclOp("/p", OPEN_ACL), DeleteOp("/p/n"), SetDataOp("/p", b""))
    assert other.take() == []


def test_read_is_that_of_the_moment(world: World) -> None:
    """Goal: a persistent watch goes on where READ comes back, or the connection's ids change."""
    connection = world.connect()
    connection.add("/p", PERSISTENT)
    world.write(SetAclOp("/p", MINE), SetDataOp("/p", b"1"))
    connection.ids = (ME,)
    zxid = world.write(SetDataOp("/p", b"2"))
    assert connection.take() == [Told(DATA_CHANGED, "/p", zxid)]


def test_a_deletion_goes_by_the_acl_that_the_znode_had(world: World) -> None:
    world.write(CreateOp("/p/mine", b"", acl=MINE))
    connection = world.connect()
    connection.add("/p/mine", EXISTS)
    connection.add("/p", CHILDREN)
    world.write(DeleteOp("/p/mine"))
    assert connection.told() == [(CHILDREN_CHANGED, "/p")]


# -------------------------------------------------------------------------- setting, removing


def _kinds(connection: Connection, path: str) -> list[int]:
    return [
        kind
        for kind, watcher_type in zip(KINDS, TYPES, strict=True)
        if connection.watches.contains(path, watcher_type)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_set_twice_is_one(world: World, kind: int) -> None:
    connection = world.connect()
    connection.add("/p/n", kind, kind)
    assert (len(connection.watches), *world.counts()) == (1, 1, 1, 1)
    world.write(CreateOp("/p/n", b"")) if kind != CHILDREN else world.write(
        CreateOp("/p/n", b""), CreateOp("/p/n/c", b"")
    )
    assert len(connection.take()) == 1


@pytest.mark.parametrize("watcher_type", TYPES)
def test_each_type_covers_its_own(world: World, watcher_type: int) -> None:
    connection = world.connect()
    connection.add("/p", *KINDS)
    assert _kinds(connection, "/p") == list(KINDS)
    assert connection.watches.remove("/p", watcher_type)
    assert not connection.watches.contains("/p", watcher_type)
    assert not connection.watches.remove("/p", watcher_type)
    left = [kind for kind, of in zip(KINDS, TYPES, strict=True) if of != watcher_type]
    assert _kinds(connection, "/p") == left
    assert (len(connection.watches), *world.counts()[:2]) == (3, 3, 3)
    assert not connection.watches.contains("/p/n", WATCHER_ANY)


def test_any_covers_all(world: World) -> None:
    connection, other = world.connect(), world.connect()
    other.add("/p", *KINDS)
    assert not connection.watches.contains("/p", WATCHER_ANY)
    assert not connection.watches.remove("/p", WATCHER_ANY)
    for kind in KINDS:
        connection.add("/p", kind)
        assert connection.watches.contains("/p", WATCHER_ANY)
        assert connection.watches.remove("/p", WATCHER_ANY)
    connection.add("/p", *KINDS)
    assert connection.watches.remove("/p", WATCHER_ANY)
    assert world.counts()[:2] == (4, 4)
    world.write(SetDataOp("/p", b""))
    assert connection.take() == [] and other.told() == [(DATA_CHANGED, "/p")]


def test_what_waits_is_told_though_its_watch_is_removed(world: World) -> None:
    connection = world.connect()
    connection.add("/p", PERSISTENT)
    world.write(SetDataOp("/p", b""))
    assert connection.watches.remove("/p", WATCHER_PERSISTENT)
    assert connection.told() == [(DATA_CHANGED, "/p")]


def test_no_more_than_the_replica_has_room_for() -> None:
    world = World(watches_max=3)
    first, second = world.connect(), world.connect()
    first.add("/p", EXISTS, CHILDREN)
    second.add("/p", PERSISTENT)
    refusal = second.watches.add("/q", EXISTS)
    assert isinstance(refusal, Refusal) and refusal.code == ErrorCode.THROTTLED
    assert not second.watches.contains("/q", WATCHER_ANY) and world.counts() == (3, 3, 2)
    # What is set already takes no room, and what is used up gives some.
    second.add("/p", PERSISTENT)
    world.write(SetDataOp("/p", b""))
    second.add("/q", EXISTS)


def test_the_limit_of_a_stream_does_not_count_here() -> None:
    world = World(watches_per_stream_max=2)
    connection = world.connect()
    for number in range(5):
        connection.add(f"/{number}", EXISTS)
    assert len(connection.watches) == 5


@pytest.mark.parametrize("kind", [EXISTS, PERSISTENT, PERSISTENT_RECURSIVE])
@pytest.mark.parametrize("path", ["", "p", "/p/", "/p//n", "/p/../p", "/\0", "/" + "x" * 5000])
def test_malformed_paths_take_no_room(world: World, kind: int, path: str) -> None:
    connection = world.connect()
    connection.add(path, kind)
    assert world.counts() == (0, 0, 0)


def test_paths(world: World) -> None:
    connection = world.connect()
    connection.add("/p", *KINDS)
    connection.add("/q", EXISTS)
    assert set(connection.watches.paths()) == {"/p", "/q"} and len(connection.watches) == 5
    world.write(CreateOp("/q", b""))
    assert set(connection.watches.paths()) == {"/p"} and len(connection.watches) == 4


# ------------------------------------------------------------------------------- what waits


def test_taking_up_to_a_zxid(world: World) -> None:
    connection = world.connect()
    connection.add("/p", PERSISTENT)
    zxids = [world.write(SetDataOp("/p", b"")) for _ in range(4)]
    size = connection.watches.waiting_bytes
    assert connection.take(zxids[0] - 1) == []
    assert [told.zxid for told in connection.take(zxids[1])] == zxids[:2]
    assert connection.watches.waiting_bytes == size // 2
    assert connection.watches.has_events
    assert [told.zxid for told in connection.take()] == zxids[2:]
    assert connection.watches.waiting_bytes == 0
    assert not connection.watches.has_events and connection.take(zxids[3]) == []


def test_who_takes_is_called_once(world: World) -> None:
    connection = world.connect()
    connection.add("/p", PERSISTENT)
    world.write(SetDataOp("/p", b""), SetDataOp("/p", b""))
    world.write(SetDataOp("/p", b""))
    assert connection.calls == 1
    assert len(connection.take()) == 3
    world.write(SetDataOp("/p", b""))
    assert connection.calls == 2


@pytest.mark.parametrize(
    ("limits", "fit"),
    [
        # 10 times watch_buffer_events_max; or packets of 34 bytes.
        ({"watch_buffer_events_max": 2}, 20),
        ({"watch_buffer_bytes_max": 5 * 34 + 33}, 5),
    ],
)
def test_too_much_waits(limits: dict[str, int], fit: int) -> None:
    """Goal: then nothing is kept, nothing grows, and who must close it is told."""
    world = World(**limits)
    connection = world.connect()
    connection.add("/p", PERSISTENT)
    connection.add("/q", EXISTS)
    world.write(*[SetDataOp("/p", b"") for _ in range(fit)])
    assert not connection.watches.is_overflowing and connection.watches.waiting_bytes == fit * 34
    world.write(SetDataOp("/p", b""))
    assert connection.watches.is_overflowing and connection.calls == 2
    for _ in range(2):
        world.write(SetDataOp("/p", b""))
        assert (connection.watches.has_events, connection.watches.waiting_bytes) == (False, 0)
    assert connection.take() == [] and connection.watches.is_overflowing
    connection.watches.close()
    assert (len(connection.watches), *world.counts()) == (0, 0, 0, 0)


def test_overflowing_is_told_at_once() -> None:
    """Goal: also to who was told of what waits, and could not take it: a client that does not
    read."""
    world = World(watch_buffer_bytes_max=40)
    connection = world.connect()
    connection.add("/p", PERSISTENT)
    for calls in (1, 2):
        world.write(SetDataOp("/p", b""))
        assert (connection.watches.is_overflowing, connection.calls) == (calls == 2, calls)
    world.write(SetDataOp("/p", b""))
    assert connection.calls == 2


# ------------------------------------------------------------------------------------ leaving


def test_closing_leaves_nothing(world: World) -> None:
    connection, other = world.connect(), world.connect()
    other.add("/p", *KINDS)
    for number in range(100):
        connection.add(f"/{number}", *KINDS)
    connection.add("/p", *KINDS)
    world.write(SetDataOp("/p", b""))
    assert connection.watches.has_events
    for _ in range(2):
        connection.watches.close()
        assert (len(connection.watches), len(connection.watches.paths())) == (0, 0)
        assert world.counts() == (3, 3, 1)
        assert (connection.watches.has_events, connection.watches.waiting_bytes) == (False, 0)
    other.watches.close()
    assert world.counts() == (0, 0, 0)
    # As ZooKeeper's server: nobody watches for a connection that is gone.
    connection.add("/p", EXISTS)
    assert connection.catch_up(0, data=["/p"], persistent=["/p"]) == []
    assert world.counts() == (0, 0, 0)


def test_closing_in_the_middle_of_an_event(world: World) -> None:
    """Goal: whoever is told of an event may close another connection that is to be told of it."""
    first, second = world.connect(), world.connect()
    for connection in (first, second):
        connection.add("/p", EXISTS, PERSISTENT)
    first._on_events = lambda: None  # type: ignore[method-assign]
    first.watches._on_events = second.watches.close
    world.write(SetDataOp("/p", b""))
    assert len(first.take()) == 1 and second.take() == []
    first.watches.close()
    assert world.counts() == (0, 0, 0)
