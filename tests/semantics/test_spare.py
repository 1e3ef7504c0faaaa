"""The spare statements, and what coordsvc's own rules add to them: containers, TTLs, paths.

Ref: ZooKeeper 3.9 ContainerManager, EphemeralType, PathUtils.
"""

from __future__ import annotations

import pytest

from coordsvc.core.commands import (
    CONTAINER,
    CREATED,
    EPHEMERAL,
    PERSISTENT_SEQUENTIAL,
    PERSISTENT_SEQUENTIAL_WITH_TTL,
    PERSISTENT_WITH_TTL,
)
from coordsvc.core.watches import PERSISTENT
from coordsvc.errors import BadArgumentsError, BadVersionError, NodeExistsError, NoNodeError
from tests.semantics.drivers import Client, Driver


async def test_unused_container_is_not_collected(driver: Driver, client: Client) -> None:
    """Container with cversion 0 is not collected; one that had a child is, once it is empty."""
    driver.need("clock")
    await client.create("/unused", mode=CONTAINER)
    await client.create("/used", mode=CONTAINER)
    await client.create("/used/c")
    await driver.collect()
    await client.delete("/used/c")
    await driver.collect()
    assert (await client.get_children("/")).names == ("unused", "zookeeper")


async def test_ttl_with_children_is_never_collected(driver: Driver, client: Client) -> None:
    """TTL node with children is never collected."""
    driver.need("clock")
    await client.create("/t", mode=PERSISTENT_WITH_TTL, ttl_ms=100)
    await client.create("/t/c")
    await driver.advance(10_000)
    await driver.collect()
    assert (await client.exists("/t")).stat is not None
    await client.delete("/t/c")
    await driver.collect()
    assert (await client.exists("/t")).stat is None


async def test_ttl_runs_from_the_last_set_data(driver: Driver, client: Client) -> None:
    """setData restarts a TTL; child changes and setACL do not."""
    driver.need("clock")
    for path in ("/data", "/acl", "/child"):
        await client.create(path, mode=PERSISTENT_WITH_TTL, ttl_ms=100)
    await driver.advance(100)
    await driver.collect()
    acl = (await client.get_acl("/acl")).acl
    await client.set_data("/data", b"")
    await client.set_acl("/acl", acl)
    await client.create("/child/c")
    await client.delete("/child/c")
    await driver.advance(1)
    await driver.collect()
    assert (await client.get_children("/")).names == ("data", "zookeeper")
    await driver.advance(100)
    await driver.collect()
    assert (await client.get_children("/")).names == ("zookeeper",)


@pytest.mark.parametrize("mode", [CONTAINER, PERSISTENT_WITH_TTL])
async def test_ephemeral_owner_is_zero_unless_ephemeral(client: Client, mode: int) -> None:
    """Stat.ephemeralOwner is 0 for container/TTL."""
    ttl_ms = 0 if mode == CONTAINER else 60_000
    stat = (await client.create("/a", mode=mode, ttl_ms=ttl_ms)).stat
    assert stat is not None and stat.ephemeral_owner == 0
    stat = (await client.create("/e", mode=EPHEMERAL)).stat
    assert stat is not None and stat.ephemeral_owner == client.session_id


@pytest.mark.parametrize("path", ["/a/.", "/a/..", "/a/", "/a/\0", "/a/\x1f", "/a/\x7f", "a", ""])
async def test_malformed_paths_are_refused(driver: Driver, client: Client, path: str) -> None:
    """`/a/./b`, `/a//b`, `/a/` refused. Where reads do not look at a path's form, only U+0000 is
    refused by exists."""
    await client.create("/a")
    for call in (client.create(path), client.set_data(path, b"")):
        with pytest.raises(BadArgumentsError):
            await call
    if "checked_reads" in driver.capabilities or "\0" in path:
        with pytest.raises(BadArgumentsError):
            await client.exists(path)
    else:
        assert (await client.exists(path)).stat is None


@pytest.mark.parametrize("path", ["/a/./b", "/a//b", "//"])
async def test_paths_with_a_malformed_parent_are_refused(
    driver: Driver, client: Client, path: str
) -> None:
    """A create looks for the parent before it looks at the whole path, as in ZooKeeper."""
    await client.create("/a")
    with pytest.raises((BadArgumentsError, NoNodeError)):
        await client.create(path)
    with pytest.raises(
        BadArgumentsError if "checked_reads" in driver.capabilities else NoNodeError
    ):
        await client.get_data(path)


@pytest.mark.parametrize("name", ["...", ".b", "b.", "a b", "\ue000", "\U0001f600", "é", "\xa0"])
async def test_odd_names_are_allowed(client: Client, name: str) -> None:
    """`/a/...` and `/a/.b` allowed; so is any scalar value outside the control ranges."""
    await client.create("/a")
    await client.create(f"/a/{name}", b"x")
    assert (await client.get_children("/a")).names == (name,)
    assert (await client.get_data(f"/a/{name}")).data == b"x"


async def test_trailing_slash_of_a_sequential_create(client: Client) -> None:
    """Trailing slash is legal only when the create is sequential (`/q/` becomes
    `/q/0000000000`)."""
    await client.create("/q")
    created = await client.create("/q/", mode=PERSISTENT_SEQUENTIAL)
    assert created.path == "/q/0000000000"


async def test_sync_on_a_missing_path(client: Client) -> None:
    """sync on a missing path succeeds; its path is echoed."""
    assert (await client.sync("/missing")).path == "/missing"


async def test_watch_on_a_missing_path(driver: Driver, client: Client, other: Client) -> None:
    """addWatch on a missing path succeeds."""
    driver.need("watches")
    await client.watch("/a", PERSISTENT)
    await other.create("/a")
    events = await client.take_events()
    assert [(event.type, event.path) for event in events] == [(CREATED, "/a")]


async def test_children_are_sorted(client: Client) -> None:
    """getChildren order is unspecified in ZooKeeper; here it is sorted by name."""
    await client.create("/p")
    for name in ("b", "é", "a", "B", "\U0001f600", "a0"):
        await client.create(f"/p/{name}")
    listed = await client.get_children("/p")
    assert listed.names == ("B", "a", "a0", "b", "é", "\U0001f600")


async def test_null_data_is_not_empty_data(client: Client) -> None:
    """Null and empty data are told apart; both have length 0."""
    for path, data in (("/null", None), ("/empty", b"")):
        await client.create(path, data)
        answer = await client.get_data(path)
        assert answer.data == data
        assert answer.stat is not None and answer.stat.data_length == 0
    await client.set_data("/empty", None)
    assert (await client.get_data("/empty")).data is None


@pytest.mark.parametrize(
    ("mode", "ttl_ms"),
    [
        (PERSISTENT_WITH_TTL, 0),
        (PERSISTENT_WITH_TTL, -1),
        (PERSISTENT_SEQUENTIAL_WITH_TTL, 2**40),
        (CONTAINER, 1),
        (EPHEMERAL, 1),
    ],
)
async def test_ttl_out_of_range(client: Client, mode: int, ttl_ms: int) -> None:
    """ttl must be 1..2^40-1 ms, otherwise BADARGUMENTS; a ttl on a non-TTL mode is BADARGUMENTS
    too."""
    with pytest.raises(BadArgumentsError):
        await client.create("/t", mode=mode, ttl_ms=ttl_ms)


async def test_ttl_bounds(client: Client) -> None:
    for ttl_ms in (1, 2**40 - 1):
        created = await client.create("/t-", mode=PERSISTENT_SEQUENTIAL_WITH_TTL, ttl_ms=ttl_ms)
        assert created.path.startswith("/t-000000000")


async def test_special_znodes(client: Client) -> None:
    """Create `/` gives NODEEXISTS; delete of `/`, `/zookeeper`, `/zookeeper/quota`,
    `/zookeeper/config` gives BADARGUMENTS."""
    with pytest.raises(NodeExistsError):
        await client.create("/")
    for path in ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"):
        with pytest.raises(BadArgumentsError):
            await client.delete(path)
    stat = (await client.exists("/")).stat
    assert stat is not None
    assert (stat.czxid, stat.mzxid, stat.cversion, stat.num_children) == (0, 0, 0, 1)
    assert (await client.get_children("/zookeeper")).names == ("config", "quota")


async def test_first_sequential_child_of_the_root(client: Client) -> None:
    """The znodes that are there from the beginning do not count."""
    assert (await client.create("/n-", mode=PERSISTENT_SEQUENTIAL)).path == "/n-0000000000"


async def test_bad_expected_versions(driver: Driver, client: Client) -> None:
    """Any negative expected version but -1 is BAD_ARGUMENTS, also where the node is missing. In
    ZooKeeper it is one like any other, that no znode has."""
    is_checked = "checked_versions" in driver.capabilities
    await client.create("/a")
    for path, otherwise in (("/a", BadVersionError), ("/missing", NoNodeError)):
        for call in (client.delete(path, -2), client.set_data(path, b"", -2)):
            with pytest.raises(BadArgumentsError if is_checked else otherwise):
                await call
