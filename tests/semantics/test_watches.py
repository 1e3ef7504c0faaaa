"""Statements 7 and 8 (their second halves) and 10 to 26: watches.

Ref: ZooKeeper 3.9 WatchManager, DataTree; Programmer's Guide, "Watches".
"""

from __future__ import annotations

import pytest

from coordsvc.core.commands import (
    ADMIN,
    ALL,
    CREATED,
    DATA_CHANGED,
    DELETED,
    OPEN_ACL,
    READ,
    Acl,
    CreateOp,
    DeleteOp,
    SetDataOp,
)
from coordsvc.core.watches import (
    CHILDREN,
    CHILDREN_CHANGED,
    DATA,
    EXISTS,
    PERSISTENT,
    PERSISTENT_RECURSIVE,
)
from coordsvc.errors import NoNodeError
from tests.semantics.drivers import GAP, Answer, Client, Driver, Event


@pytest.fixture(autouse=True)
def _watches(driver: Driver) -> None:
    driver.need("watches")


async def seen(client: Client) -> list[tuple[int, str]]:
    """The events that arrived: (type, path)."""
    return [(event.type, event.path) for event in await client.take_events()]


async def test_07_same_bytes_fire_a_data_watch(client: Client, other: Client) -> None:
    """Statement 7: setting the same bytes fires a data watch."""
    await client.create("/a", b"x")
    await client.get_data("/a", watch=True)
    await other.set_data("/a", b"x")
    assert await seen(client) == [(DATA_CHANGED, "/a")]


async def test_08_set_acl_fires_no_watch(client: Client, other: Client) -> None:
    """Statement 8: setACL fires no watch of any kind."""
    await client.create("/a")
    await client.get_data("/a", watch=True)
    await client.exists("/a", watch=True)
    await client.get_children("/a", watch=True)
    await client.watch("/a", PERSISTENT)
    await client.watch("/", PERSISTENT_RECURSIVE)
    await other.set_acl("/a", (Acl(ALL, "world", "anyone"), Acl(READ, "ip", "10.0.0.1")))
    assert await seen(client) == []


async def test_10_get_data_on_nothing_leaves_no_watch(client: Client, other: Client) -> None:
    """Given a missing node, when getData(watch) returns NONODE and the node is then created, then
    no event arrives; with exists(watch) exactly one NodeCreated arrives."""
    for read in (client.get_data, client.get_children):
        with pytest.raises(NoNodeError):
            await read("/a", watch=True)
    await other.create("/a")
    assert await seen(client) == []
    await client.exists("/b", watch=True)
    await other.create("/b")
    await other.set_data("/b", b"x")
    assert await seen(client) == [(CREATED, "/b")]


async def test_11_exists_watch_is_one_shot(client: Client, other: Client) -> None:
    """Given exists(watch) on an existing node, when its data changes, then NodeDataChanged
    arrives once and a second change is silent."""
    await client.create("/a")
    await client.exists("/a", watch=True)
    await other.set_data("/a", b"1")
    await other.set_data("/a", b"2")
    assert await seen(client) == [(DATA_CHANGED, "/a")]


async def test_12_one_deleted_for_data_and_child_watch(
    driver: Driver, client: Client, other: Client
) -> None:
    """Given one connection with a data watch and a child watch on `/a`, when `/a` is deleted,
    then exactly one NodeDeleted arrives, and a child watch on `/` gets NodeChildrenChanged."""
    await client.create("/a")
    first = await client.get_data("/a", watch=True)
    second = await client.get_children("/a", watch=True)
    await client.get_children("/", watch=True)
    await other.delete("/a")
    events = await client.take_events()
    assert [(event.type, event.path) for event in events] == [
        (DELETED, "/a"),
        (CHILDREN_CHANGED, "/"),
    ]
    if "watch_ids" in driver.capabilities:
        assert events[0].watch_ids == (first.watch_id, second.watch_id)
    await other.create("/a")
    await other.delete("/a")
    assert await seen(client) == []


async def test_13_child_watch_ignores_childs_data(client: Client, other: Client) -> None:
    """Given a child watch on `/p`, when a child's data changes, then nothing arrives."""
    await client.create("/p")
    await client.create("/p/c")
    await client.get_children("/p", watch=True)
    await other.set_data("/p/c", b"x")
    await other.set_data("/p", b"x")
    assert await seen(client) == []


async def test_14_child_watch_on_deleted_parent(client: Client, other: Client) -> None:
    """Given a child watch on `/p`, when `/p` itself is deleted, then NodeDeleted `/p` arrives,
    not NodeChildrenChanged."""
    await client.create("/p")
    await client.get_children("/p", watch=True)
    await other.delete("/p")
    assert await seen(client) == [(DELETED, "/p")]


async def test_15_persistent_watch(client: Client, other: Client) -> None:
    """Given a persistent watch on `/a`, when `/a/b` gets data, then nothing arrives; when `/a/b`
    is created, NodeChildrenChanged `/a` arrives, each time."""
    await client.create("/a")
    await client.watch("/a", PERSISTENT)
    for _ in range(2):
        await other.create("/a/b")
        assert await seen(client) == [(CHILDREN_CHANGED, "/a")]
        await other.set_data("/a/b", b"x")
        assert await seen(client) == []
        await other.delete("/a/b")
        assert await seen(client) == [(CHILDREN_CHANGED, "/a")]


async def test_16_recursive_watch_gets_no_children_changed(
    driver: Driver, client: Client, other: Client
) -> None:
    """Given a recursive watch on `/a`, when `/a/b/c` is created, then the recursive watch gets
    NodeCreated `/a/b/c` and never NodeChildrenChanged, also when a standard child watch on `/a/b`
    exists (which does fire, for itself)."""
    await client.create("/a")
    await client.create("/a/b")
    recursive = await client.watch("/a", PERSISTENT_RECURSIVE)
    child = (await client.get_children("/a/b", watch=True)).watch_id
    await other.create("/a/b/c")
    events = await client.take_events()
    assert [(event.type, event.path) for event in events] == [
        (CREATED, "/a/b/c"),
        (CHILDREN_CHANGED, "/a/b"),
    ]
    if "watch_ids" in driver.capabilities:
        assert [event.watch_ids for event in events] == [(recursive,), (child,)]
    await other.delete("/a/b/c")
    assert await seen(client) == [(DELETED, "/a/b/c")]


async def test_17_recursive_watch_matches_components(client: Client, other: Client) -> None:
    """Given a recursive watch on `/a`, when `/ab` changes, then nothing arrives (component match,
    not string prefix)."""
    await client.create("/a")
    await client.watch("/a", PERSISTENT_RECURSIVE)
    await other.create("/ab")
    await other.set_data("/ab", b"x")
    await other.delete("/ab")
    assert await seen(client) == []
    await other.create("/a/b")
    assert await seen(client) == [(CREATED, "/a/b")]


async def test_19_event_before_any_reply_that_shows_it(
    driver: Driver, client: Client, other: Client
) -> None:
    """Given a client with a data watch, when another writes v2, then no reply showing v2 reaches
    the client before the event."""
    driver.need("order")
    await client.create("/a", b"v1")
    await client.get_data("/a", watch=True)
    await other.set_data("/a", b"v2")
    await client.get_data("/a")
    last_two = client.inbox[-2:]
    assert isinstance(last_two[0], Event) and last_two[0].type == DATA_CHANGED
    assert isinstance(last_two[1], Answer) and last_two[1].data == b"v2"


async def test_20_own_event_before_own_reply(driver: Driver, client: Client) -> None:
    """Given a client that watches its own node, when it writes, then its event precedes its own
    write reply."""
    driver.need("order")
    await client.create("/a", b"v1")
    await client.get_data("/a", watch=True)
    written = await client.set_data("/a", b"v2")
    last_two = client.inbox[-2:]
    assert isinstance(last_two[0], Event) and last_two[0].zxid == written.zxid
    assert last_two[1] == written


async def test_21_events_of_a_multi(client: Client, other: Client) -> None:
    """Given a multi with three changes, then all events carry the same zxid in op order, and no
    reader sees a part of it."""
    await client.create("/a", b"1")
    await client.create("/c", b"1")
    await client.watch("/", PERSISTENT_RECURSIVE)
    done = await other.multi(SetDataOp("/a", b"2"), CreateOp("/b", b"2"), DeleteOp("/c"))
    events = await client.take_events()
    assert [(event.type, event.path) for event in events] == [
        (DATA_CHANGED, "/a"),
        (CREATED, "/b"),
        (DELETED, "/c"),
    ]
    assert {event.zxid for event in events} == {done.zxid}
    assert (await client.get_children("/")).names == ("a", "b", "zookeeper")


async def test_22_deleted_and_made_again_while_away(
    driver: Driver, client: Client, other: Client
) -> None:
    """Given a client disconnected at zxid R with a data watch, when the node was deleted and
    re-created meanwhile, then on reconnect it gets NodeDataChanged, not NodeDeleted."""
    driver.need("resume")
    await client.create("/a")
    known = (await client.get_data("/a", watch=True)).zxid
    await client.disconnect()
    await other.delete("/a")
    await other.create("/a")
    await client.resume("/a", DATA, known)
    assert await seen(client) == [(DATA_CHANGED, "/a")]


async def test_22_other_kinds_while_away(driver: Driver, client: Client, other: Client) -> None:
    """The other rows of ZooKeeper's setWatches: what is told at once, and what is armed again."""
    driver.need("resume")
    for path in ("/gone", "/parent", "/same"):
        await client.create(path)
    known = (await client.sync()).zxid
    await client.disconnect()
    await other.delete("/gone")
    await other.create("/parent/c")
    await other.create("/new")
    for path, kind in (
        ("/gone", DATA),
        ("/gone", CHILDREN),
        ("/parent", CHILDREN),
        ("/new", EXISTS),
        ("/same", DATA),
        ("/never", EXISTS),
    ):
        await client.resume(path, kind, known)
    # A service that resumes them together tells of the one change in one event.
    assert list(dict.fromkeys(await seen(client))) == [
        (DELETED, "/gone"),
        (CHILDREN_CHANGED, "/parent"),
        (CREATED, "/new"),
    ]
    await other.set_data("/same", b"x")
    await other.create("/never")
    assert await seen(client) == [(DATA_CHANGED, "/same"), (CREATED, "/never")]


async def test_23_created_and_deleted_while_away(
    driver: Driver, client: Client, other: Client
) -> None:
    """Given an exists watch on a missing node, when it was created and deleted during the gap,
    then ZooKeeper sends nothing and re-arms; a history-based service does better: it tells of the
    first change, or of a gap."""
    driver.need("resume", "one_shot_history")
    known = (await client.exists("/a", watch=True)).zxid
    await client.disconnect()
    await other.create("/a")
    await other.delete("/a")
    await client.resume("/a", EXISTS, known)
    assert await seen(client) in ([(CREATED, "/a")], [(GAP, "/a")])


async def test_24_persistent_watch_and_a_gap(driver: Driver, client: Client, other: Client) -> None:
    """Given a persistent watch and a gap, then ZooKeeper loses the events; coordsvc replays from
    the zxid or sends an explicit gap marker."""
    driver.need("resume", "history")
    await client.create("/a")
    await client.watch("/a", PERSISTENT_RECURSIVE)
    known = (await client.sync()).zxid
    await client.disconnect()
    await other.create("/a/b")
    await other.delete("/a/b")
    await client.resume("/a", PERSISTENT_RECURSIVE, known)
    assert await seen(client) in (
        [(CREATED, "/a/b"), (DELETED, "/a/b")],
        [(GAP, "/a")],
    )


async def test_25_end_of_a_group_is_marked(driver: Driver, client: Client, other: Client) -> None:
    """Given events of one multi only half delivered before a cut, when the client resumes from
    the last *event* zxid, then the rest must still come (resume position is per event or per
    complete group). Here: the last event of a zxid that a client gets is marked, and a client
    resumes after complete groups only."""
    driver.need("groups")
    await client.create("/p")
    await client.watch("/p", PERSISTENT_RECURSIVE)
    await other.watch("/p/1", PERSISTENT)
    await other.multi(CreateOp("/p/1", b""), CreateOp("/p/2", b""), CreateOp("/elsewhere", b""))
    marks = [(event.path, event.last_of_zxid) for event in await client.take_events()]
    assert marks == [("/p/1", False), ("/p/2", True)]
    marks = [(event.path, event.last_of_zxid) for event in await other.take_events()]
    assert marks == [("/p/1", True)]


async def test_25_resume_after_half_a_group(driver: Driver, client: Client, other: Client) -> None:
    """Statement 25, the resumption itself."""
    driver.need("resume", "history")
    await client.create("/p")
    known = (await client.sync()).zxid
    await client.disconnect()
    await other.multi(CreateOp("/p/1", b""), CreateOp("/p/2", b""))
    # As one who saw the first event, not the mark: the zxid before the group is the position.
    await client.resume("/p", PERSISTENT_RECURSIVE, known)
    assert await seen(client) in ([(CREATED, "/p/1"), (CREATED, "/p/2")], [(GAP, "/p")])


async def test_26_no_event_without_read(client: Client, other: Client) -> None:
    """Given a watcher whose READ right was removed, when the node changes, then no event is
    delivered."""
    await other.add_auth("digest", "owner:secret")
    await other.create("/p")
    await other.create("/p/a", b"1")
    await client.get_data("/p/a", watch=True)
    await client.watch("/p", PERSISTENT_RECURSIVE)
    await client.watch("/p", PERSISTENT)
    await other.set_acl("/p/a", (Acl(ALL, "auth", ""), Acl(ADMIN, "world", "anyone")))
    await other.set_data("/p/a", b"2")
    assert await seen(client) == []
    await other.delete("/p/a")
    # The parent may still be read, and its children changed.
    assert await seen(client) == [(CHILDREN_CHANGED, "/p")]
    await other.create("/p/a", acl=OPEN_ACL)
    await other.set_acl("/p", (Acl(ALL, "auth", ""),))
    assert await seen(client) == [(CREATED, "/p/a"), (CHILDREN_CHANGED, "/p")]
    await other.create("/p/b", acl=OPEN_ACL)
    assert await seen(client) == [(CREATED, "/p/b")]
