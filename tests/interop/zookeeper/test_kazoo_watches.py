"""kazoo: watches of each kind, and the two classes that keep one set."""

from __future__ import annotations

import queue
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.protocol.states import EventType, KazooState, KeeperState, WatchedEvent

from tests.interop.zookeeper.conftest import Connect
from tests.interop.zookeeper.forwarding import Forwarder
from tests.interop.zookeeper.waiting import next_of, wait_until


@pytest.fixture
def events() -> queue.Queue[WatchedEvent]:
    return queue.Queue()


def told(kind: str, path: str) -> WatchedEvent:
    return WatchedEvent(kind, KeeperState.CONNECTED, path)


def test_exists_waits_for_a_creation_at_another_replica(
    connect: Connect, client: KazooClient, root: str, events: queue.Queue[WatchedEvent]
) -> None:
    watcher = connect(1)
    watcher.sync(root)
    assert watcher.exists(f"{root}/a", watch=events.put) is None
    client.create(f"{root}/a")
    assert next_of(events) == told(EventType.CREATED, f"{root}/a")


def test_a_watch_fires_once(
    client: KazooClient, root: str, events: queue.Queue[WatchedEvent]
) -> None:
    client.get(root, watch=events.put)
    client.set(root, b"1")
    client.set(root, b"2")
    assert next_of(events) == told(EventType.CHANGED, root)
    # A watch that is set later is told later: nothing came in between.
    client.get(root, watch=events.put)
    client.delete(root)
    assert next_of(events) == told(EventType.DELETED, root)
    assert events.empty()


def test_children_are_watched_without_their_data(
    client: KazooClient, root: str, events: queue.Queue[WatchedEvent]
) -> None:
    client.create(f"{root}/a")
    client.get_children(root, watch=events.put)
    client.set(root, b"")
    client.set(f"{root}/a", b"")
    client.create(f"{root}/a/deeper")
    client.create(f"{root}/b")
    assert next_of(events) == told(EventType.CHILD, root)
    client.get_children(f"{root}/b", watch=events.put)
    client.delete(f"{root}/b")
    assert next_of(events) == told(EventType.DELETED, f"{root}/b")
    assert events.empty()


def test_the_event_comes_before_the_reply_that_reveals_it(
    connect: Connect, client: KazooClient, root: str
) -> None:
    """Callbacks run in a thread of their own, in the order of arrival; so do completions."""
    watcher = connect(1)
    for n in range(20):
        order: queue.Queue[str] = queue.Queue()
        watcher.sync(root)
        watcher.get(root, watch=lambda _, order=order: order.put("event"))
        client.set(root, b"%d" % n)
        watcher.sync(root)
        assert watcher.get(root)[0] == b"%d" % n
        assert next_of(order) == "event"


def test_a_read_that_fails_sets_no_watch(
    client: KazooClient, root: str, events: queue.Queue[WatchedEvent]
) -> None:
    with pytest.raises(NoNodeError):
        client.get(f"{root}/a", watch=events.put)
    with pytest.raises(NoNodeError):
        client.get_children(f"{root}/a", watch=events.put)
    client.create(f"{root}/a")
    client.get(f"{root}/a", watch=events.put)
    client.delete(f"{root}/a")
    assert next_of(events) == told(EventType.DELETED, f"{root}/a")
    assert events.empty()


def test_the_end_of_a_session_is_seen_as_a_deletion(
    connect: Connect, client: KazooClient, root: str, events: queue.Queue[WatchedEvent]
) -> None:
    owner = connect(2)
    owner.sync(root)
    owner.create(f"{root}/e", ephemeral=True)
    client.sync(root)
    client.exists(f"{root}/e", watch=events.put)
    owner.stop()
    assert next_of(events) == told(EventType.DELETED, f"{root}/e")


def test_a_data_watch_calls_with_each_state_of_the_znode(
    connect: Connect, client: KazooClient, root: str
) -> None:
    seen: queue.Queue[bytes | None] = queue.Queue()
    watcher = connect(1)
    watcher.DataWatch(f"{root}/a", lambda data, stat: seen.put(data))
    assert next_of(seen) is None
    client.create(f"{root}/a", b"1")
    assert next_of(seen) == b"1"
    client.set(f"{root}/a", b"2")
    assert next_of(seen) == b"2"
    client.delete(f"{root}/a")
    assert next_of(seen) is None
    client.create(f"{root}/a", b"3")
    assert next_of(seen) == b"3"


def test_a_children_watch_ends_when_its_function_says_so(
    connect: Connect, client: KazooClient, root: str
) -> None:
    seen: queue.Queue[list[str]] = queue.Queue()

    def watch(children: list[str]) -> bool:
        seen.put(sorted(children))
        return len(children) < 2

    watcher = connect(1)
    watcher.sync(root)
    watcher.ChildrenWatch(root, watch)
    assert next_of(seen) == []
    client.create(f"{root}/a")
    assert next_of(seen) == ["a"]
    client.create(f"{root}/b")
    assert next_of(seen) == ["a", "b"]
    client.create(f"{root}/c")
    watcher.sync(root)
    assert len(watcher.get_children(root)) == 3
    assert seen.empty()


def test_a_data_watch_learns_what_it_missed_while_cut_off(
    connect: Connect, client: KazooClient, root: str, doors: list[Forwarder]
) -> None:
    seen: queue.Queue[tuple[Any, int]] = queue.Queue()
    watcher = connect(hosts=doors[1].address)
    watcher.sync(root)
    watcher.DataWatch(root, lambda data, stat: seen.put((data, stat.version)))
    assert next_of(seen) == (b"", 0)
    states: queue.Queue[str] = queue.Queue()
    watcher.add_listener(lambda state: states.put(state))
    doors[1].cut()
    assert next_of(states) == KazooState.SUSPENDED
    client.set(root, b"missed")
    client.set(root, b"the last")
    doors[1].mend()
    wait_until(lambda: not seen.empty() and seen.queue[-1] == (b"the last", 2), "the last state")
