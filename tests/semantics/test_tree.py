"""Statements 1 to 9 and 27 to 32: names, stats, versions, the order of refusals, multi.

Ref: ZooKeeper 3.9 PrepRequestProcessor, DataTree, DataNode.
"""

from __future__ import annotations

import pytest

from coordsvc.core.commands import (
    ADMIN,
    ALL,
    CREATE,
    DELETE,
    EPHEMERAL,
    PERSISTENT_SEQUENTIAL,
    READ,
    WRITE,
    Acl,
    CheckOp,
    Created,
    CreateOp,
    DataSet,
    DeleteOp,
    SetDataOp,
)
from coordsvc.errors import (
    BadVersionError,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
)
from tests.semantics.drivers import Client, Driver


def world(permissions: int) -> tuple[Acl, ...]:
    return (Acl(permissions, "world", "anyone"),)


async def test_01_first_sequential_after_plain_create(client: Client) -> None:
    """Given an empty `/q`, when `/q/a` is created plainly and then `/q/n-` sequentially, then the
    name is `/q/n-0000000001`."""
    await client.create("/q")
    await client.create("/q/a")
    created = await client.create("/q/n-", mode=PERSISTENT_SEQUENTIAL)
    assert created.path == "/q/n-0000000001"


async def test_02_sequence_numbers_are_never_reused(client: Client) -> None:
    """Given `/q/n-0000000000` was created and deleted, when another sequential create runs, then
    it gets `0000000001`, never a reused number."""
    await client.create("/q")
    first = await client.create("/q/n-", mode=PERSISTENT_SEQUENTIAL)
    assert first.path == "/q/n-0000000000"
    await client.delete(first.path)
    second = await client.create("/q/n-", mode=PERSISTENT_SEQUENTIAL)
    assert second.path == "/q/n-0000000001"


async def test_03_prefixes_share_one_counter(client: Client) -> None:
    """Given prefixes `a-` and `b-` under one parent, when both are created sequentially, then
    they share one counter."""
    await client.create("/q")
    first = await client.create("/q/a-", mode=PERSISTENT_SEQUENTIAL)
    second = await client.create("/q/b-", mode=PERSISTENT_SEQUENTIAL)
    assert (first.path, second.path) == ("/q/a-0000000000", "/q/b-0000000001")


async def test_04_parent_after_child_came_and_went(driver: Driver, client: Client) -> None:
    """Given `/p`, when a child is created and deleted, then Stat(/p).cversion rose by 2,
    numChildren is unchanged, pzxid is the delete's zxid, version, mzxid and mtime are
    unchanged."""
    before = (await client.create("/p")).stat
    await client.create("/p/c")
    deleted = await client.delete("/p/c")
    after = (await client.exists("/p")).stat
    assert before is not None and after is not None
    assert after.cversion == before.cversion + 2
    assert after.num_children == before.num_children == 0
    assert after.pzxid == deleted.zxid
    assert (after.version, after.mzxid, after.mtime_ms) == (
        before.version,
        before.mzxid,
        before.mtime_ms,
    )


async def test_05_childs_data_is_not_the_parents(client: Client) -> None:
    """Given `/p/c`, when setData(`/p/c`) runs, then Stat(/p) does not change at all (cversion and
    pzxid included)."""
    await client.create("/p")
    await client.create("/p/c")
    before = (await client.exists("/p")).stat
    await client.set_data("/p/c", b"x")
    assert (await client.exists("/p")).stat == before


async def test_06_grandchild_is_not_the_grandparents(client: Client) -> None:
    """Given a grandchild is created, then the grandparent's pzxid, cversion and numChildren do
    not change."""
    await client.create("/g")
    await client.create("/g/p")
    before = (await client.exists("/g")).stat
    await client.create("/g/p/c")
    assert (await client.exists("/g")).stat == before


async def test_07_same_bytes_are_a_change(client: Client, other: Client) -> None:
    """Given data "x", when setData writes "x" again, then version, mzxid, mtime change and a data
    watch fires. (The watch: test_07_same_bytes_fire_a_data_watch.)"""
    created = (await client.create("/a", b"x")).stat
    written = await other.set_data("/a", b"x")
    assert created is not None and written.stat is not None
    assert written.stat.version == created.version + 1
    assert written.stat.mzxid == written.zxid > created.mzxid
    assert (await client.exists("/a")).stat == written.stat


async def test_07_mtime_of_same_bytes(driver: Driver, client: Client) -> None:
    """Statement 7: setting the same bytes changes mtime, not ctime."""
    driver.need("clock")
    created = (await client.create("/a", b"x")).stat
    await driver.advance(5)
    written = (await client.set_data("/a", b"x")).stat
    assert created is not None and written is not None
    assert written.mtime_ms == created.mtime_ms + 5
    assert written.ctime_ms == created.ctime_ms


async def test_08_set_acl_changes_aversion_only(client: Client) -> None:
    """Given a node, when setACL runs, then only aversion changes and no watch fires. (The watch:
    test_08_set_acl_fires_no_watch.)"""
    before = (await client.create("/a", b"x")).stat
    await client.set_acl("/a", world(READ | WRITE | ADMIN))
    after = (await client.exists("/a")).stat
    assert before is not None and after is not None
    assert after.aversion == before.aversion + 1
    fields = before.__struct_fields__
    changed = [name for name in fields if getattr(before, name) != getattr(after, name)]
    assert changed == ["aversion"]


async def test_09_refused_write_takes_a_zxid(client: Client) -> None:
    """Given a failing write (BADVERSION), then the next successful write's zxid shows that the
    failed one consumed a zxid."""
    created = await client.create("/a")
    with pytest.raises(BadVersionError) as refused:
        await client.set_data("/a", b"x", version=7)
    written = await client.set_data("/a", b"x")
    assert refused.value.zxid == created.zxid + 1
    assert written.zxid == created.zxid + 2


async def test_27_bad_version_before_not_empty(client: Client) -> None:
    """Given delete with wrong version on a node with children, then BADVERSION, not NOTEMPTY."""
    await client.create("/a")
    await client.create("/a/b")
    with pytest.raises(BadVersionError):
        await client.delete("/a", version=5)
    with pytest.raises(NotEmptyError):
        await client.delete("/a", version=0)


async def test_28_order_of_refusals_of_create(client: Client) -> None:
    """Given no CREATE right on the parent, when an existing child is created again, then NOAUTH,
    not NODEEXISTS; given a missing parent, NONODE comes before NOAUTH; given an ephemeral parent,
    NOCHILDRENFOREPHEMERALS."""
    await client.create("/p")
    await client.create("/p/c")
    with pytest.raises(NodeExistsError):
        await client.create("/p/c")
    await client.set_acl("/p", world(ALL & ~CREATE))
    with pytest.raises(NoAuthError):
        await client.create("/p/c")
    with pytest.raises(NoNodeError):
        await client.create("/p/missing/c")
    await client.create("/e", mode=EPHEMERAL)
    with pytest.raises(NoChildrenForEphemeralsError):
        await client.create("/e/c")


async def test_29_no_auth_before_no_node_in_delete(client: Client) -> None:
    """Given no DELETE right on the parent, when a missing child is deleted, then NOAUTH, not
    NONODE."""
    await client.create("/p")
    with pytest.raises(NoNodeError):
        await client.delete("/p/missing")
    await client.set_acl("/p", world(ALL & ~DELETE))
    with pytest.raises(NoAuthError):
        await client.delete("/p/missing")


async def test_30_refused_multi_leaves_nothing(client: Client) -> None:
    """Given `/b` at version 0, when multi [create /a, check /b version 9, delete /c] runs, then
    results are [0, BADVERSION, RUNTIMEINCONSISTENCY], nothing is applied, and no sequence number
    is burnt. (Here: BAD_VERSION with operation_index 1.)"""
    await client.create("/b")
    await client.create("/c")
    root = (await client.exists("/")).stat
    with pytest.raises(BadVersionError) as refused:
        await client.multi(
            CreateOp("/a", b"", PERSISTENT_SEQUENTIAL),
            CheckOp("/b", 9),
            DeleteOp("/c"),
        )
    assert refused.value.operation_index == 1
    assert refused.value.path == "/b"
    assert (await client.exists("/c")).stat is not None
    assert (await client.exists("/")).stat == root
    plain = await client.create("/q-", mode=PERSISTENT_SEQUENTIAL)
    assert plain.path == "/q-0000000002"


async def test_31_later_operations_see_earlier_ones(client: Client) -> None:
    """Given multi [create /a, create /a/b, setData /a], then it succeeds: later ops see earlier
    ones."""
    answer = await client.multi(
        CreateOp("/a", b""), CreateOp("/a/b", b""), SetDataOp("/a", b"x", version=0)
    )
    first, second, third = answer.results
    assert isinstance(first, Created) and isinstance(second, Created)
    assert isinstance(third, DataSet)
    assert third.stat.num_children == 1
    assert first.stat.czxid == second.stat.czxid == third.stat.mzxid == answer.zxid
    assert (await client.get_data("/a")).data == b"x"


async def test_32_version_minus_one_skips_the_check(client: Client) -> None:
    """Given version -1, then delete, setData and setACL skip the check; the first setData after
    create yields version 1."""
    await client.create("/a")
    written = (await client.set_data("/a", b"x", version=-1)).stat
    assert written is not None and written.version == 1
    changed = (await client.set_acl("/a", world(ALL), version=-1)).stat
    assert changed is not None and changed.aversion == 1
    with pytest.raises(BadVersionError):
        await client.set_acl("/a", world(ALL), version=0)
    await client.delete("/a", version=-1)
    assert (await client.exists("/a")).stat is None
