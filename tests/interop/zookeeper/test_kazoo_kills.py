"""kazoo's recipes while replicas are killed: what they promise holds, and work goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry

from tests.interop.zookeeper.conftest import Connect
from tests.interop.zookeeper.ensembles import Ensemble
from tests.interop.zookeeper.killing import KILLS, PERIOD_SECONDS, kill_in_turn, windows_percent
from tests.interop.zookeeper.test_kazoo_locks import running
from tests.interop.zookeeper.waiting import wait_until

SESSION_SECONDS = 30.0
"""Longer than the longest of elections: no session is to expire."""

WINDOWS_PERCENT_MIN = 80.0
WRITE_PAUSE_SECONDS = 0.05

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
]


@pytest.fixture
def clients(connect: Connect, mortal_ensemble: Ensemble) -> Iterator[list[KazooClient]]:
    """Each knows all replicas."""
    options = {"hosts": ",".join(mortal_ensemble.hosts), "timeout": SESSION_SECONDS}
    options["connection_retry"] = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.5)
    options["command_retry"] = KazooRetry(max_tries=-1, delay=0.05, max_delay=0.5)
    clients = [connect(**options) for _ in range(3)]
    lost: list[str] = []
    for client in clients:
        client.add_listener(lambda state: lost.append(state) if state == KazooState.LOST else None)
    yield clients
    assert lost == [], "a session expired"


def kill_while(ensemble: Ensemble, *functions: Callable[[threading.Event], None]) -> None:
    """They are called in threads with an event, at which they are to return."""
    over = threading.Event()
    with running(*(lambda function=each: function(over) for each in functions)):
        try:
            kill_in_turn(ensemble)
        finally:
            over.set()


def test_a_lock_has_one_holder(
    mortal_ensemble: Ensemble, clients: list[KazooClient], root: str
) -> None:
    """Each holder draws a token, the next version of a znode: later holders have higher ones."""
    clients[0].create(root)
    clients[0].create(f"{root}/fence")
    inside: list[str] = []
    tokens: list[int] = []

    def hold(client: KazooClient, name: str) -> Callable[[threading.Event], None]:
        def held(over: threading.Event) -> None:
            while not over.is_set():
                with client.Lock(f"{root}/lock", name):
                    inside.append(name)
                    assert inside == [name]
                    tokens.append(client.retry(client.set, f"{root}/fence", b"").version)
                    assert inside == [name]
                    inside.remove(name)
                # Else the one that held it would be the next again.
                over.wait(0.02)

        return held

    kill_while(mortal_ensemble, *(hold(c, n) for n, c in zip("abc", clients, strict=True)))
    assert tokens == sorted(set(tokens))
    assert len(tokens) > KILLS
    print(f"\nkazoo's lock was held {len(tokens)} times")


def test_additions_are_neither_lost_nor_doubled(
    mortal_ensemble: Ensemble, clients: list[KazooClient], root: str
) -> None:
    """By compare and set of a znode with a number of each client: when an answer was lost, its
    own number tells the client whether the addition was done."""
    clients[0].create(root, b"0 0 0")
    counted = [0, 0, 0]

    def count(own: int) -> Callable[[threading.Event], None]:
        client = clients[own]

        def numbers() -> tuple[list[int], int]:
            data, stat = client.retry(client.get, root)
            return [int(each) for each in data.split()], stat.version

        def add(over: threading.Event) -> None:
            while not over.is_set():
                found, version = numbers()
                if found[own] > counted[own]:
                    counted[own] += 1  # Done, and the answer was lost.
                    continue
                found[own] += 1
                try:
                    client.retry(client.set, root, b"%d %d %d" % tuple(found), version=version)
                    counted[own] += 1
                except BadVersionError:
                    pass  # Another one's addition, or this one, which was sent again.
                over.wait(0.02)
            client.retry(client.sync, root)
            if numbers()[0][own] > counted[own]:
                counted[own] += 1

        return add

    kill_while(mortal_ensemble, *(count(n) for n in range(3)))
    clients[0].sync(root)
    assert [int(each) for each in clients[0].get(root)[0].split()] == counted
    assert min(counted) > KILLS
    print(f"\nkazoo's clients added {sum(counted)} times")


def test_most_seconds_have_an_acknowledged_write(
    mortal_ensemble: Ensemble, clients: list[KazooClient], root: str
) -> None:
    client = clients[0]
    client.create(root)
    acknowledged: list[float] = []

    def write(over: threading.Event) -> None:
        while not over.is_set():
            client.retry(client.set, root, b"x")
            acknowledged.append(time.monotonic())
            over.wait(WRITE_PAUSE_SECONDS)

    start = time.monotonic()
    kill_while(mortal_ensemble, write)
    percent = windows_percent(acknowledged, start, start + KILLS * PERIOD_SECONDS)
    print(f"\nkazoo: {percent:.0f} % of one-second windows had an acknowledged write")
    assert percent >= WINDOWS_PERCENT_MIN


def test_ephemerals_and_watches_outlive_the_replicas(
    mortal_ensemble: Ensemble, clients: list[KazooClient], root: str
) -> None:
    owner, watcher, writer = clients
    owner.create(f"{root}/e", makepath=True, ephemeral=True)
    watcher.sync(root)
    seen: list[Sequence[str]] = []
    states: list[bytes | None] = []
    watcher.ChildrenWatch(root, lambda children: seen.append(sorted(children)))
    watcher.DataWatch(root, lambda data, stat: states.append(data))
    written: list[bytes] = []

    def write(over: threading.Event) -> None:
        while not over.is_set():
            written.append(b"%d" % len(written))
            writer.retry(writer.set, root, written[-1])
            over.wait(0.2)

    kill_while(mortal_ensemble, write)
    wait_until(lambda: states[-1] == written[-1], "the last state")
    assert owner.retry(owner.exists, f"{root}/e").owner_session_id == owner.client_id[0]
    assert all(children == ["e"] for children in seen)
    owner.retry(owner.delete, f"{root}/e")
    wait_until(lambda: seen[-1] == [], "the last children")
