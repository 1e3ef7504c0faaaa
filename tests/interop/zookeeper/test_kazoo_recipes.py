"""kazoo: the other recipes, with clients on three replicas."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.recipe.cache import TreeCache, TreeEvent

from tests.interop.zookeeper.conftest import Connect
from tests.interop.zookeeper.test_kazoo_locks import running
from tests.interop.zookeeper.waiting import PATIENCE_SECONDS, next_of, wait_until


@pytest.fixture
def clients(connect: Connect) -> list[KazooClient]:
    return [connect(replica) for replica in range(3)]


def test_a_barrier_holds_until_it_is_removed(clients: list[KazooClient], root: str) -> None:
    barrier, *others = [client.Barrier(f"{root}/barrier") for client in clients]
    barrier.create()
    clients[1].sync(root)
    assert not others[0].wait(0.2)
    passed: queue.Queue[bool] = queue.Queue()
    with running(*(lambda b=b: passed.put(b.wait(PATIENCE_SECONDS)) for b in others)):
        assert barrier.remove()
    assert list(passed.queue) == [True, True]
    assert not barrier.remove()


def test_a_double_barrier_waits_for_all_on_both_sides(
    clients: list[KazooClient], root: str
) -> None:
    counted = threading.Lock()
    entering, leaving, seen = [0], [0], []

    def cross(client: KazooClient, name: str) -> None:
        barrier = client.DoubleBarrier(f"{root}/barrier", 3, name)
        with counted:
            entering[0] += 1
        barrier.enter()
        seen.append(entering[0])
        with counted:
            leaving[0] += 1
        barrier.leave()
        seen.append(leaving[0])

    with running(*(lambda c=c, n=n: cross(c, n) for n, c in zip("abc", clients, strict=True))):
        pass
    assert seen == [3] * 6


def test_a_counter_counts_each_addition_once(clients: list[KazooClient], root: str) -> None:
    def count(client: KazooClient) -> None:
        counter = client.Counter(f"{root}/counter")
        for _ in range(10):
            counter += 2
            counter -= 1

    with running(*(lambda c=c: count(c) for c in clients)):
        pass
    clients[0].sync(root)
    assert clients[0].Counter(f"{root}/counter").value == 30


def test_a_counter_that_curator_reads(clients: list[KazooClient], root: str) -> None:
    counter = clients[0].Counter(f"{root}/counter", support_curator=True)
    counter += 258
    assert clients[0].get(f"{root}/counter")[0] == b"\x00\x00\x01\x02"


def test_a_party_knows_who_is_there(clients: list[KazooClient], root: str) -> None:
    parties = [c.Party(f"{root}/party", n) for n, c in zip("abc", clients, strict=True)]
    for party in parties:
        party.join()
    for client, party in zip(clients, parties, strict=True):
        client.sync(root)
        assert sorted(party) == ["a", "b", "c"]
    parties[0].leave()
    clients[1].stop()
    clients[2].sync(root)
    assert list(parties[2]) == ["c"]


def test_a_shallow_party_has_its_names_in_its_znodes(clients: list[KazooClient], root: str) -> None:
    parties = [c.ShallowParty(f"{root}/party", n) for n, c in zip("abc", clients, strict=True)]
    for party in parties:
        party.join()
    clients[0].sync(root)
    assert sorted(parties[0]) == ["a", "b", "c"]
    assert len(parties[0]) == 3


def test_a_queue_gives_by_priority_and_age(clients: list[KazooClient], root: str) -> None:
    inbox, outbox = clients[0].Queue(f"{root}/queue"), clients[1].Queue(f"{root}/queue")
    assert outbox.get() is None
    for value, priority in ((b"later", 100), (b"last", 100), (b"first", 1)):
        inbox.put(value, priority)
    clients[1].sync(root)
    assert len(outbox) == 3
    assert [outbox.get() for _ in range(3)] == [b"first", b"later", b"last"]


def test_each_entry_of_a_locking_queue_is_consumed_once(
    clients: list[KazooClient], root: str
) -> None:
    consumed: queue.Queue[bytes] = queue.Queue()
    path = f"{root}/queue"
    values = [b"%d" % n for n in range(12)]

    def consume(client: KazooClient) -> None:
        entries = client.LockingQueue(path)
        while (value := entries.get(timeout=2)) is not None:
            assert entries.holds_lock()
            assert entries.consume()
            consumed.put(value)

    clients[0].LockingQueue(path).put_all(values)
    with running(*(lambda c=c: consume(c) for c in clients)):
        pass
    assert sorted(consumed.queue) == sorted(values)


def test_an_entry_goes_back_when_its_holder_ends(clients: list[KazooClient], root: str) -> None:
    holder, other = (client.LockingQueue(f"{root}/queue") for client in clients[:2])
    holder.put(b"entry")
    assert holder.get(timeout=PATIENCE_SECONDS) == b"entry"
    clients[1].sync(root)
    assert other.get(timeout=0.2) is None
    clients[0].stop()
    assert other.get(timeout=PATIENCE_SECONDS) == b"entry"
    assert other.release()
    assert other.get(timeout=PATIENCE_SECONDS) == b"entry"
    assert other.consume()
    assert len(other) == 0


def test_a_set_is_split_among_its_members(clients: list[KazooClient], root: str) -> None:
    items = tuple(range(7))

    def joined(client: KazooClient, name: str) -> Any:
        return client.SetPartitioner(
            f"{root}/set", set=items, identifier=name, time_boundary=0.3, max_reaction_time=0.3
        )

    members = [joined(c, n) for n, c in zip("abc", clients, strict=True)]

    def settle() -> bool:
        for member in members:
            if member.release:
                member.release_set()
            assert not member.failed
        return all(member.acquired for member in members)

    def is_split() -> bool:
        return settle() and sorted(item for each in members for item in each) == list(items)

    wait_until(is_split, "the set to be split by three")
    assert sorted(len(list(each)) for each in members) == [2, 2, 3]
    members.pop().finish()
    wait_until(is_split, "the set to be split by two")
    assert sorted(len(list(each)) for each in members) == [3, 4]
    for member in members:
        member.finish()


def test_a_tree_cache_follows_a_subtree(clients: list[KazooClient], root: str) -> None:
    writer, reader, _ = clients
    writer.create(f"{root}/a/b", b"1", makepath=True)
    reader.sync(root)
    events: queue.Queue[TreeEvent] = queue.Queue()
    cache = TreeCache(reader, root)
    cache.listen(events.put)
    cache.start()

    def next_kind() -> tuple[int, str]:
        event = next_of(events)
        return event.event_type, event.event_data.path if event.event_data else ""

    kinds = [next_kind() for _ in range(4)]
    assert kinds[-1] == (TreeEvent.INITIALIZED, "")
    assert sorted(kinds[:-1]) == [
        (TreeEvent.NODE_ADDED, path) for path in (root, f"{root}/a", f"{root}/a/b")
    ]
    assert cache.get_data(f"{root}/a/b").data == b"1"
    writer.set(f"{root}/a/b", b"2")
    assert next_kind() == (TreeEvent.NODE_UPDATED, f"{root}/a/b")
    writer.create(f"{root}/a/c")
    assert next_kind() == (TreeEvent.NODE_ADDED, f"{root}/a/c")
    writer.delete(f"{root}/a/b")
    assert next_kind() == (TreeEvent.NODE_REMOVED, f"{root}/a/b")
    assert cache.get_data(f"{root}/a/b") is None
    assert cache.get_children(f"{root}/a") == frozenset({"c"})
    cache.close()
