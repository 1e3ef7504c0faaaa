"""Statements 18 and 33 to 40: sessions, ephemerals, and what a client may rely on when it moves.

Ref: ZooKeeper 3.9 SessionTrackerImpl, ExpiryQueue, DataTree.killSession.
"""

from __future__ import annotations

import pytest

from coordsvc.core.commands import DELETED, EPHEMERAL
from coordsvc.core.watches import CHILDREN_CHANGED, PERSISTENT
from coordsvc.errors import (
    CoordError,
    NotCaughtUpError,
    OutcomeUnknownError,
    SessionExpiredError,
    SessionMovedError,
    UnavailableError,
)
from tests.semantics.drivers import Client, Driver


async def test_18_ephemerals_below_a_prefix(driver: Driver, client: Client, other: Client) -> None:
    """Given getEphemerals with prefix `/a`, then ZooKeeper also lists `/ab` (string prefix);
    coordsvc goes by component."""
    driver.need("ephemerals")
    await client.create("/a")
    for path in ("/ab", "/a/c", "/a/b", "/b"):
        await client.create(path, mode=EPHEMERAL)
    await other.create("/a/other", mode=EPHEMERAL)
    assert (await client.get_ephemerals("/a")).names == ("/a/b", "/a/c")
    assert (await client.get_ephemerals()).names == ("/a/b", "/a/c", "/ab", "/b")


async def test_33_timeouts_are_clamped(driver: Driver) -> None:
    """Given a requested timeout of 1 ms (or 1 h), then the session gets 2 ticks (or 20 ticks) and
    the client uses the returned value. (Here the bounds are settings of their own.)"""
    driver.need("timeout_bounds")
    low, high = driver.timeout_bounds_ms
    assert (await driver.open_session(1)).timeout_ms == low
    assert (await driver.open_session(3_600_000)).timeout_ms == high


async def test_34_expiry_is_never_early_and_hardly_late(driver: Driver, client: Client) -> None:
    """Given silence of timeout - 1 ms, then the session is alive; it is expired no later than
    timeout + 1 tick (plus commit time); never early."""
    driver.need("time")
    silent = await driver.open_session(driver.timeout_bounds_ms[0])
    await silent.create("/e", mode=EPHEMERAL)
    # The create was heard before its answer came back, so this is not too early to look.
    await driver.sleep(silent.timeout_ms - 2 * driver.tick_ms)
    assert (await client.exists("/e")).stat is not None
    await silent.heartbeat()
    await driver.sleep(silent.timeout_ms - 2 * driver.tick_ms)
    assert (await client.exists("/e")).stat is not None
    await driver.sleep(4 * driver.tick_ms)
    assert (await client.exists("/e")).stat is None


async def test_35_reading_or_pinging_keeps_a_session(driver: Driver, client: Client) -> None:
    """Given a client on a follower that only reads or pings, then its session at the leader stays
    alive."""
    driver.need("time")
    reader = await driver.open_session(driver.timeout_bounds_ms[0])
    await reader.create("/e", mode=EPHEMERAL)
    for turn in range(8):
        await driver.sleep(reader.timeout_ms // 2)
        if turn % 2:
            await reader.heartbeat()
        else:
            await reader.get_data("/e")
    assert (await client.exists("/e")).stat is not None


async def test_36_new_leader_gives_the_full_timeout_again(driver: Driver, client: Client) -> None:
    """Given a leader change, then no session expires before one full timeout has passed under the
    new leader."""
    driver.need("time", "leader_change")
    silent = await driver.open_session(driver.timeout_bounds_ms[0])
    await silent.create("/e", mode=EPHEMERAL)
    await driver.sleep(silent.timeout_ms - 2 * driver.tick_ms)
    await driver.change_leader()
    await driver.sleep(silent.timeout_ms - 2 * driver.tick_ms)
    assert (await client.exists("/e")).stat is not None


async def test_37_older_attachment_is_refused(driver: Driver, client: Client) -> None:
    """Given a session that re-attached to server B, when a delayed request arrives at A, then it
    is refused (SESSIONMOVED) and has no effect."""
    driver.need("moves")
    await client.create("/a", b"1")
    newer = await client.attach()
    with pytest.raises(SessionMovedError):
        await client.set_data("/a", b"late")
    with pytest.raises(SessionMovedError):
        await client.close()
    assert (await newer.get_data("/a")).data == b"1"
    await newer.set_data("/a", b"2")
    assert (await newer.get_data("/a")).data == b"2"


async def test_38_server_behind_the_client(driver: Driver, client: Client) -> None:
    """Given a client that has seen zxid 100, when it connects to a server at 99, then it is
    refused and tries another."""
    driver.need("min_zxid")
    created = await client.create("/a")
    assert (await client.get_data("/a", min_zxid=created.zxid)).zxid >= created.zxid
    with pytest.raises(NotCaughtUpError):
        await client.get_data("/a", min_zxid=created.zxid + 1_000)


async def test_38_expired_session_stays_expired(driver: Driver, other: Client) -> None:
    """... a reconnect with an expired session must say Expired and must never get a new session
    silently."""
    client = await driver.open_session()
    await driver.expire(client)
    for _ in range(2):
        with pytest.raises(SessionExpiredError):
            await client.create("/a")
    with pytest.raises(SessionExpiredError):
        await client.close()
    if "moves" in driver.capabilities:
        with pytest.raises(SessionExpiredError):
            await client.attach()
    assert (await other.exists("/a")).stat is None


async def test_39_ephemerals_vanish_together(driver: Driver, other: Client) -> None:
    """Given an expired session with three ephemerals, then all three vanish at one zxid, a reader
    never sees one or two of them left, and each yields NodeDeleted + the parent's
    NodeChildrenChanged. (The events: test_39_events_of_ephemerals.)"""
    client = await driver.open_session()
    await other.create("/p")
    for name in ("c", "a", "b"):
        await client.create(f"/p/{name}", mode=EPHEMERAL)
    before = (await other.exists("/p")).stat
    await driver.expire(client)
    listed = await other.get_children("/p")
    assert before is not None and listed.stat is not None
    assert listed.names == ()
    assert listed.stat.cversion == before.cversion + 3
    assert before.pzxid < listed.stat.pzxid <= listed.zxid


async def test_39_events_of_ephemerals(driver: Driver, other: Client) -> None:
    """Statement 39, the events: all of one zxid, in order of the paths."""
    driver.need("watches")
    client = await driver.open_session()
    await other.create("/p")
    for name in ("c", "a", "b"):
        await client.create(f"/p/{name}", mode=EPHEMERAL)
        await other.exists(f"/p/{name}", watch=True)
    await other.watch("/p", PERSISTENT)
    await driver.expire(client)
    events = await other.take_events()
    assert [(event.type, event.path) for event in events] == [
        (DELETED, "/p/a"),
        (CHILDREN_CHANGED, "/p"),
        (DELETED, "/p/b"),
        (CHILDREN_CHANGED, "/p"),
        (DELETED, "/p/c"),
        (CHILDREN_CHANGED, "/p"),
    ]
    assert len({event.zxid for event in events}) == 1
    if "groups" in driver.capabilities:
        assert [event.last_of_zxid for event in events] == [False] * 5 + [True]


async def test_39_closing_ends_ephemerals_too(driver: Driver, other: Client) -> None:
    """A session that is closed takes its ephemerals with it, before the answer."""
    client = await driver.open_session()
    await client.create("/e", mode=EPHEMERAL)
    await other.create("/stays")
    await client.close()
    await other.sync()
    assert (await other.get_children("/")).names == ("stays", "zookeeper")


async def test_40_sync_then_read_sees_what_was_acknowledged(client: Client, other: Client) -> None:
    """Given client X's acknowledged write, when Y on a lagging follower does sync and then
    getData, then Y sees the write."""
    await client.create("/a", b"0")
    for version in range(20):
        value = str(version).encode()
        await client.set_data("/a", value)
        await other.sync("/a")
        assert (await other.get_data("/a")).data == value


async def test_40_sync_at_a_deposed_leader(driver: Driver, client: Client) -> None:
    """... and with a deposed, partitioned leader the sync must fail or wait rather than answer."""
    driver.need("partitions")
    await client.create("/a", b"1")
    cut_off, connected = await driver.isolate_leader()
    await connected.set_data("/a", b"2")
    with pytest.raises(CoordError) as refused:
        await cut_off.sync("/a")
    assert isinstance(refused.value, UnavailableError | OutcomeUnknownError)
