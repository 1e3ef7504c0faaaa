"""kazoo: the recipes that let one or some in, with clients on three replicas."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import CancelledError, LockTimeout
from kazoo.protocol.states import KazooState

from tests.interop.zookeeper.conftest import Connect
from tests.interop.zookeeper.forwarding import Forwarder
from tests.interop.zookeeper.waiting import PATIENCE_SECONDS, next_of, wait_until


@pytest.fixture
def clients(connect: Connect) -> list[KazooClient]:
    return [connect(replica) for replica in range(3)]


@contextmanager
def running(*functions: Callable[[], None]) -> Iterator[list[threading.Thread]]:
    """Each in a thread of its own; all have ended after the block, and none has raised."""
    errors: list[BaseException] = []

    def run(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=run, args=(each,), daemon=True) for each in functions]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)


def test_a_lock_has_one_holder(clients: list[KazooClient], root: str) -> None:
    inside: list[str] = []
    entries: list[str] = []

    def work(client: KazooClient, name: str) -> None:
        for _ in range(5):
            with client.Lock(f"{root}/lock", name):
                inside.append(name)
                # The others would have come in meanwhile.
                client.exists(root)
                assert inside == [name]
                inside.remove(name)
                entries.append(name)

    with running(*(lambda c=c, n=n: work(c, n) for n, c in zip("abc", clients, strict=True))):
        pass
    assert sorted(entries) == sorted("abc" * 5)


def test_a_lock_is_fair_and_names_its_contenders(clients: list[KazooClient], root: str) -> None:
    locks = [c.Lock(f"{root}/lock", n) for n, c in zip("abc", clients, strict=True)]
    order: queue.Queue[str] = queue.Queue()

    def take(lock: object, name: str) -> Callable[[], None]:
        def taken() -> None:
            with lock:
                order.put(name)

        return taken

    assert locks[0].acquire()
    with running(take(locks[1], "b")):
        wait_until(lambda: locks[0].contenders() == ["a", "b"], "b to queue up")
        with running(take(locks[2], "c")):
            wait_until(lambda: locks[0].contenders() == ["a", "b", "c"], "c to queue up")
            assert order.empty()
            locks[0].release()
    assert list(order.queue) == ["b", "c"]


def test_a_lock_can_be_refused_timed_out_and_cancelled(
    clients: list[KazooClient], root: str
) -> None:
    holder, other = clients[0].Lock(f"{root}/lock"), clients[1].Lock(f"{root}/lock")
    assert holder.acquire()
    assert not other.acquire(blocking=False)
    with pytest.raises(LockTimeout):
        other.acquire(timeout=0.2)
    cancelled: queue.Queue[bool] = queue.Queue()

    def wait() -> None:
        try:
            other.acquire()
        except CancelledError:
            cancelled.put(True)

    with running(wait):
        wait_until(lambda: len(holder.contenders()) == 2, "the other one to queue up")
        other.cancel()
        assert next_of(cancelled)
    assert len(holder.contenders()) == 1
    holder.release()
    assert other.acquire(timeout=PATIENCE_SECONDS)


def test_the_end_of_a_session_frees_its_lock(clients: list[KazooClient], root: str) -> None:
    assert clients[0].Lock(f"{root}/lock").acquire()
    waiting = clients[1].Lock(f"{root}/lock")
    with running(lambda: waiting.acquire(timeout=PATIENCE_SECONDS)):
        wait_until(lambda: len(waiting.contenders()) == 2, "the other one to queue up")
        clients[0].stop()
    assert waiting.is_acquired


def test_a_holder_who_moves_to_another_replica_still_holds(
    connect: Connect, root: str, doors: list[Forwarder]
) -> None:
    holder = connect(hosts=",".join(each.address for each in doors[:2]), randomize_hosts=False)
    other = connect(2)
    assert holder.Lock(f"{root}/lock").acquire()
    before = holder.client_id
    states: queue.Queue[str] = queue.Queue()
    holder.add_listener(lambda state: states.put(state))
    doors[0].cut()
    assert next_of(states) == KazooState.SUSPENDED
    assert next_of(states) == KazooState.CONNECTED
    assert holder.client_id == before
    assert not other.Lock(f"{root}/lock").acquire(blocking=False)


def test_readers_share_and_a_writer_is_alone(clients: list[KazooClient], root: str) -> None:
    readers = [clients[0].ReadLock(f"{root}/lock"), clients[1].ReadLock(f"{root}/lock")]
    writer = clients[2].WriteLock(f"{root}/lock")
    assert all(each.acquire(timeout=PATIENCE_SECONDS) for each in readers)
    assert not writer.acquire(blocking=False)
    with running(lambda: writer.acquire(timeout=PATIENCE_SECONDS)):
        wait_until(lambda: len(clients[0].get_children(f"{root}/lock")) == 3, "the writer to wait")
        # It comes before readers who come later.
        assert not clients[0].ReadLock(f"{root}/lock").acquire(blocking=False)
        readers[0].release()
        assert not writer.is_acquired
        readers[1].release()
    assert writer.is_acquired
    assert not readers[0].acquire(blocking=False)
    writer.release()
    assert readers[0].acquire(timeout=PATIENCE_SECONDS)


def test_a_semaphore_lets_as_many_in_as_it_has_leases(
    clients: list[KazooClient], root: str
) -> None:
    leases = [
        client.Semaphore(f"{root}/semaphore", name, max_leases=2)
        for name, client in zip("abc", clients, strict=True)
    ]
    assert leases[0].acquire()
    assert leases[1].acquire()
    assert not leases[2].acquire(blocking=False)
    assert sorted(leases[2].lease_holders()) == ["a", "b"]
    with running(lambda: leases[2].acquire(timeout=PATIENCE_SECONDS)):
        leases[0].release()
    assert sorted(leases[0].lease_holders()) == ["b", "c"]
    with pytest.raises(ValueError, match="leases"):
        clients[0].Semaphore(f"{root}/semaphore", max_leases=3).acquire()


def test_an_election_has_one_winner_at_a_time(clients: list[KazooClient], root: str) -> None:
    elections = [
        client.Election(f"{root}/election", name)
        for name, client in zip("abc", clients, strict=True)
    ]
    leading: queue.Queue[str] = queue.Queue()
    resign = {name: threading.Event() for name in "abc"}

    def lead(name: str) -> None:
        leading.put(name)
        assert resign[name].wait(PATIENCE_SECONDS)

    runs = [lambda e=e, n=n: e.run(lead, n) for n, e in zip("abc", elections, strict=True)]
    with running(*runs):
        wait_until(lambda: len(elections[0].contenders()) == 3, "all three to stand")
        order = elections[0].contenders()
        for name in order:
            assert next_of(leading) == name
            assert leading.empty()
            resign[name].set()
    assert elections[0].contenders() == []
