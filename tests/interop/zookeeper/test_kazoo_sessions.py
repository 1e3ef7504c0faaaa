"""kazoo: sessions, and what becomes of them when connections and replicas come and go."""

from __future__ import annotations

import queue
from collections.abc import Sequence

from kazoo.client import KazooClient
from kazoo.protocol.states import KazooState

from tests.interop.zookeeper.conftest import Connect
from tests.interop.zookeeper.forwarding import Forwarder
from tests.interop.zookeeper.waiting import next_of, wait_until

PASSWORD_BYTES = 16
SHORT_SECONDS = 2.0


def test_each_client_has_a_session_of_its_own(connect: Connect) -> None:
    identities = [connect(replica).client_id for replica in range(3)]
    assert len({session_id for session_id, _ in identities}) == 3
    assert all(session_id > 0 for session_id, _ in identities)
    assert [len(password) for _, password in identities] == [PASSWORD_BYTES] * 3


def test_the_end_of_a_client_ends_its_session(
    connect: Connect, client: KazooClient, root: str
) -> None:
    owner = connect(1)
    owner.sync(root)
    owner.create(f"{root}/e", ephemeral=True)
    owner.stop()
    client.sync(root)
    assert client.exists(f"{root}/e") is None


def test_a_session_goes_on_at_another_replica(
    connect: Connect, client: KazooClient, root: str, doors: list[Forwarder]
) -> None:
    """The connection is cut, and the client finds the next address by itself."""
    states: queue.Queue[str] = queue.Queue()
    wanderer = connect(hosts=",".join(each.address for each in doors[1:]), randomize_hosts=False)
    wanderer.add_listener(lambda state: states.put(state))
    before = wanderer.client_id
    wanderer.sync(root)
    path = wanderer.create(f"{root}/e", b"mine", ephemeral=True)
    doors[1].cut()
    assert next_of(states) == KazooState.SUSPENDED
    assert next_of(states) == KazooState.CONNECTED
    assert wanderer.client_id == before
    assert wanderer.get(path)[0] == b"mine"
    assert wanderer.set(path, b"still").owner_session_id == before[0]
    client.sync(root)
    assert client.exists(path).version == 1


def test_a_session_is_attached_by_its_id_and_password(
    connect: Connect, client: KazooClient, root: str, doors: list[Forwarder]
) -> None:
    """As a program does that starts again."""
    first = connect(hosts=doors[1].address)
    first.sync(root)
    path = first.create(f"{root}/e", ephemeral=True)
    before = first.client_id
    doors[1].cut()
    second = connect(2, client_id=before)
    assert second.client_id == before
    assert second.exists(path).owner_session_id == second.client_id[0]


def test_a_wrong_password_is_answered_as_expired(connect: Connect, root: str) -> None:
    """kazoo then opens a session of its own."""
    owner = connect(0)
    owner.create(root, ephemeral=True)
    session_id, password = owner.client_id
    thief = connect(1, client_id=(session_id, bytes(PASSWORD_BYTES)))
    assert thief.client_id != (session_id, password)
    assert thief.client_id[0] != session_id
    assert owner.exists(root).owner_session_id == session_id


def test_a_session_out_of_reach_expires(
    connect: Connect, client: KazooClient, root: str, doors: list[Forwarder]
) -> None:
    states: queue.Queue[str] = queue.Queue()
    lost = connect(hosts=doors[2].address, timeout=SHORT_SECONDS)
    lost.add_listener(lambda state: states.put(state))
    first_id, _ = lost.client_id
    lost.sync(root)
    lost.create(f"{root}/e", ephemeral=True)
    gone = client.handler.event_object()
    client.sync(root)
    assert client.exists(f"{root}/e", watch=lambda _: gone.set()) is not None
    doors[2].cut()
    assert next_of(states) == KazooState.SUSPENDED
    assert gone.wait(30)
    doors[2].mend()
    assert next_of(states) == KazooState.LOST
    assert next_of(states) == KazooState.CONNECTED
    assert lost.client_id[0] != first_id
    assert lost.retry(lost.get_children, root) == []


def test_a_quiet_client_keeps_its_session(connect: Connect, client: KazooClient, root: str) -> None:
    """Its pings do: nothing else is sent for longer than its timeout."""
    states: queue.Queue[str] = queue.Queue()
    quiet = connect(1, timeout=1.0)
    quiet.sync(root)
    quiet.create(f"{root}/e", ephemeral=True)
    quiet.add_listener(lambda state: states.put(state))
    gone = client.handler.event_object()
    client.sync(root)
    client.exists(f"{root}/e", watch=lambda _: gone.set())
    assert not gone.wait(3.0)
    # A busy machine may have held up a ping: the session may be suspended, never lost.
    assert KazooState.LOST not in states.queue


def test_four_letter_words(client: KazooClient) -> None:
    assert client.command(b"ruok") == "imok"
    assert "Zookeeper version: " in client.command(b"srvr")
    assert "Mode: " in client.command(b"stat")
    assert "zk_znode_count" in client.command(b"mntr")
    assert client.command(b"isro") == "rw"


def test_the_version_of_the_server(client: KazooClient) -> None:
    major, minor, *_ = client.server_version()
    assert (major, minor) == (3, 9)


def test_a_restart_of_the_client_is_a_new_session(client: KazooClient, root: str) -> None:
    path = client.create(f"{root}/e", ephemeral=True)
    before = client.client_id
    client.restart()
    assert client.client_id != before
    assert client.exists(path) is None


def test_other_hosts_are_used_from_the_next_connection_on(
    connect: Connect, hosts: Sequence[str], root: str, doors: list[Forwarder]
) -> None:
    client = connect(hosts=doors[0].address)
    path = client.create(root, ephemeral=True)
    before = client.client_id
    client.set_hosts(hosts[1])
    doors[0].cut()
    wait_until(lambda: client.connected and str(peer_port(client)) in hosts[1], "the other replica")
    assert client.client_id == before
    assert client.retry(client.exists, path).owner_session_id == before[0]
    client.delete(path)


def peer_port(client: KazooClient) -> int:
    port: int = client._connection._socket.getpeername()[1]
    return port
