"""The client against three replicas in this process, with everything real but the processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordsvc.client.client import Client
from coordsvc.client.one_shot import OneShot
from coordsvc.client.options import ClientConfig
from coordsvc.client.records import (
    Acl,
    Created,
    Guard,
    SessionState,
    WatchEvent,
    WatchEventType,
    WatchGap,
)
from coordsvc.client.watch_stream import WatchStream
from coordsvc.errors import (
    Applied,
    BadVersionError,
    GuardFailedError,
    LimitExceededError,
    NodeExistsError,
    NoNodeError,
    SessionMovedError,
)
from coordsvc.testing.local_servers import LocalServers

WAIT_SECONDS = 30.0


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalServers]:
    async with LocalServers(str(tmp_path), 3) as servers:
        yield servers


def endpoints(cluster: LocalServers) -> list[str]:
    return [server.endpoint for server in cluster.servers.values()]


@pytest.fixture
async def client(cluster: LocalServers) -> AsyncIterator[Client]:
    async with Client(endpoints(cluster)) as client:
        yield client


async def stop_server(cluster: LocalServers, client: Client) -> str:
    """The replica that it is attached to; its endpoint."""
    endpoint = client.endpoint
    (replica_id,) = [i for i, each in cluster.servers.items() if each.endpoint == endpoint]
    await cluster.servers.pop(replica_id).stop()
    return endpoint


async def test_every_operation(client: Client) -> None:
    created = await client.create("/a", b"one")
    assert created.path == "/a" and created.stat.czxid == created.stat.mzxid
    assert await client.get_data("/a") == (b"one", created.stat, client.zxid)
    stat = await client.set_data("/a", None, expected_version=0)
    assert (stat.version, (await client.get_data("/a")).data) == (1, None)
    assert await client.exists("/a", linearizable=True) == stat
    assert await client.exists("/nothing") is None
    sequential = await client.create("/a/n-", sequence=True, ephemeral=True)
    assert sequential.path == "/a/n-0000000000"
    assert sequential.stat.ephemeral_owner == client.session_id
    await client.create("/a/t", ttl_ms=60_000)
    await client.create("/a/c", container=True)
    assert await client.get_children("/a") == ["c", "n-0000000000", "t"]
    assert await client.sync() >= client.zxid
    mine = (Acl(31, "world", "anyone"), Acl(1, "auth", ""))
    (me,) = await client.add_auth("digest", b"me:secret")
    assert (await client.set_acl("/a/t", mine)).aversion == 1
    acl, _ = await client.get_acl("/a/t")
    assert acl == (Acl(31, "world", "anyone"), Acl(1, *me))
    zxid = await client.delete("/a/t", expected_version=0)
    assert zxid == client.zxid


async def test_refusals_are_typed_and_say_where(client: Client) -> None:
    await client.create("/a")
    with pytest.raises(NodeExistsError) as raised:
        await client.create("/a")
    assert (raised.value.path, raised.value.applied) == ("/a", Applied.NO)
    assert raised.value.zxid > 0
    with pytest.raises(BadVersionError):
        await client.set_data("/a", b"", expected_version=5)
    with pytest.raises(NoNodeError):
        await client.get_data("/b")


async def test_too_much_data_costs_nobody_else_their_turn(client: Client) -> None:
    """The door refuses it: its number goes to the write behind it."""
    await client.create("/a")
    results = await asyncio.gather(
        client.set_data("/a", b"1"),
        client.set_data("/a", b"x" * (1024 * 1024 + 1)),
        client.set_data("/a", b"2"),
        client.get_data("/a"),
        client.set_data("/a", b"3"),
        return_exceptions=True,
    )
    assert isinstance(results[1], LimitExceededError)
    read = results[3]
    assert isinstance(read, tuple) and read[0] == b"2"
    data, stat, _ = await client.get_data("/a")
    assert (data, stat.version) == (b"3", 3)


async def test_transactions(client: Client) -> None:
    await client.create("/a")
    transaction = client.transaction().check("/a", expected_version=0)
    transaction.create("/b", b"x").set_data("/b", b"y").delete("/a")
    check, created, stat, deleted = await transaction.commit()
    assert check is None and deleted is None
    assert isinstance(created, Created) and created.path == "/b"
    assert stat is not None and not isinstance(stat, Created) and stat.version == 1
    with pytest.raises(NoNodeError) as raised:
        await client.transaction().create("/c").delete("/nothing").commit()
    assert raised.value.operation_index == 1
    assert await client.exists("/c") is None


async def test_a_guard_keeps_late_writes_out(client: Client) -> None:
    lock = (await client.create("/lock", ephemeral=True)).stat
    guard = Guard("/lock", lock.czxid)
    await client.create("/a", guard=guard)
    await client.delete("/lock")
    await client.create("/lock")
    with pytest.raises(GuardFailedError):
        await client.set_data("/a", b"late", guard=guard)


async def test_pages(client: Client) -> None:
    await client.create("/a")
    names = [f"{number:04}" for number in range(250)]
    await asyncio.gather(*(client.create(f"/a/{name}", name.encode()) for name in names))
    pages = [
        page
        async for page in client.children_pages(
            "/a", page_size=100, include_data=True, include_stat=True
        )
    ]
    assert [len(page.children) for page in pages] == [100, 100, 50]
    children = [child for page in pages for child in page.children]
    assert [child.name for child in children] == names
    assert all(child.data == child.name.encode() for child in children)
    assert all(child.stat is not None and child.stat.data_length == 4 for child in children)
    assert await client.get_children("/a") == names


async def test_twenty_thousand_pipelined_writes_apply_once_and_in_order(client: Client) -> None:
    await client.create("/a")
    futures = [client.nowait.set_data("/a", b"%d" % number) for number in range(20_000)]
    stats = await asyncio.gather(*futures)
    assert [stat.version for stat in stats] == list(range(1, 20_001))
    assert (await client.get_data("/a")).data == b"19999"


async def test_writes_go_on_and_apply_once_when_the_replica_in_use_stops(
    cluster: LocalServers, client: Client
) -> None:
    await client.create("/a")
    acknowledged: list[int] = []
    stop_at, end_at = 2_000, 6_000

    async def write() -> None:
        while len(acknowledged) < end_at:
            acknowledged.append((await client.set_data("/a", b"x")).version)

    stopped: list[str] = []

    async def stop_it() -> None:
        while len(acknowledged) < stop_at:
            await asyncio.sleep(0)
        stopped.append(await stop_server(cluster, client))

    async with asyncio.timeout(WAIT_SECONDS):
        await asyncio.gather(*(write() for _ in range(200)), stop_it())
    assert sorted(acknowledged) == list(range(1, len(acknowledged) + 1))
    assert (await client.get_data("/a")).stat.version == len(acknowledged)
    assert client.endpoint not in ("", *stopped)


async def test_a_mirror_over_a_failover_misses_nothing(
    cluster: LocalServers, client: Client
) -> None:
    """Versions of one znode, as events bring them: each comes once, or a gap says so."""
    await client.create("/a")
    async with Client(endpoints(cluster)) as watcher:
        async with watcher.watch("/a", include_data=True) as changes:
            writes = [client.nowait.set_data("/a", b"%d" % number) for number in range(1_000)]
            versions: list[int] = []
            async with asyncio.timeout(WAIT_SECONDS):
                async for change in changes:
                    assert isinstance(change, WatchEvent), change
                    assert change.stat is not None
                    versions.append(change.stat.version)
                    if len(versions) == 100:
                        keeper = watcher._keeper
                        assert keeper is not None
                        # The stream breaks, as a connection does; the replica lives.
                        keeper._end_stream(SessionMovedError("cut by the test"))
                        keeper._unanswered_hellos += 1
                    if len(versions) == 1_000:
                        break
            await asyncio.gather(*writes)
        assert versions == list(range(1, 1_001))


async def test_an_event_comes_before_the_read_that_shows_it(
    cluster: LocalServers, client: Client
) -> None:
    await client.create("/a", b"0")
    async with Client(endpoints(cluster)) as reader:
        await reader.sync()
        for number in range(1, 200):
            changed = OneShot()
            data = (await reader.get_data("/a", watch=changed)).data
            writing = client.nowait.set_data("/a", b"%d" % number)
            while (await reader.get_data("/a")).data == data:
                assert writing is not None
            assert changed.has_fired
            await writing


async def test_ephemerals_outlive_a_change_of_replica_and_end_with_the_session(
    cluster: LocalServers, client: Client
) -> None:
    async with Client(endpoints(cluster), session_timeout_ms=20_000) as owner:
        await owner.create("/mine", ephemeral=True)
        await stop_server(cluster, owner)
        async with asyncio.timeout(WAIT_SECONDS):
            await owner.create("/also-mine", ephemeral=True)
            await client.sync()
            assert await client.exists("/mine") is not None
            gone = OneShot()
            assert await client.exists("/mine", watch=gone) is not None
    async with asyncio.timeout(WAIT_SECONDS):
        event = await gone
    assert isinstance(event, WatchEvent) and event.type is WatchEventType.DELETED
    assert await client.exists("/also-mine") is None


async def test_a_session_taken_over_elsewhere(cluster: LocalServers) -> None:
    first, second = Client(endpoints(cluster)), Client(endpoints(cluster))
    await first.start()
    keeper = first._keeper
    assert keeper is not None
    starting = asyncio.create_task(second.start())
    await asyncio.sleep(0)  # Its keeper is made, and nothing was sent yet.
    assert second._keeper is not None
    second._keeper.conversation.credentials = keeper.conversation.credentials
    second._keeper.conversation.lifetime = keeper.conversation.lifetime
    await starting
    assert second.session_id == first.session_id
    async with asyncio.timeout(WAIT_SECONDS):
        await first.wait_for_state(SessionState.LOST)
    assert isinstance(first.failure, SessionMovedError)
    await first.close()
    await second.create("/still-there")
    await second.close()


async def test_a_watch_without_a_session(cluster: LocalServers, client: Client) -> None:
    config = ClientConfig(tuple(endpoints(cluster)))
    created = await client.create("/a")
    async with WatchStream(config, "/a", recursive=True, start_after_zxid=0) as changes:
        await client.create("/a/b")
        await client.delete("/a/b")
        async with asyncio.timeout(WAIT_SECONDS):
            seen = [await anext(changes) for _ in range(3)]
    assert not any(isinstance(each, WatchGap) for each in seen), seen
    told = [(each.type.name, each.path) for each in seen if isinstance(each, WatchEvent)]
    assert told == [("CREATED", "/a"), ("CREATED", "/a/b"), ("DELETED", "/a/b")]
    assert isinstance(seen[0], WatchEvent) and seen[0].zxid == created.stat.czxid
