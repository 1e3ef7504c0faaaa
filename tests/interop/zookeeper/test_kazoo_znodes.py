"""kazoo: what a client does with znodes."""

from __future__ import annotations

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    BadArgumentsError,
    BadVersionError,
    InvalidACLError,
    NoAuthError,
    NoChildrenForEphemeralsError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.security import OPEN_ACL_UNSAFE, make_acl, make_digest_acl

from tests.interop.zookeeper.conftest import Connect

SIZE_BYTES_MAX = 1024 * 1024 - 1
"""jute.maxbuffer; a request must be smaller as a whole."""


def test_create_says_the_path_and_the_stat(client: KazooClient, root: str) -> None:
    path, stat = client.create(f"{root}/a", b"data", include_data=True)
    assert path == f"{root}/a"
    assert (stat.version, stat.cversion, stat.aversion) == (0, 0, 0)
    assert (stat.dataLength, stat.numChildren, stat.ephemeralOwner) == (4, 0, 0)
    assert stat.czxid == stat.mzxid == stat.pzxid
    assert client.get(path) == (b"data", stat)


def test_create_with_missing_parents(client: KazooClient, root: str) -> None:
    with pytest.raises(NoNodeError):
        client.create(f"{root}/a/b/c")
    assert client.create(f"{root}/a/b/c", b"x", makepath=True) == f"{root}/a/b/c"
    assert client.get(f"{root}/a/b")[0] == b""
    assert client.ensure_path(f"{root}/a/d/e") == f"{root}/a/d/e"
    assert client.exists(f"{root}/a").numChildren == 2


def test_create_what_exists(client: KazooClient, root: str) -> None:
    with pytest.raises(NodeExistsError):
        client.create(root, b"again")
    assert client.get(root)[0] == b""


def test_sequential_names_count_up_for_each_parent(client: KazooClient, root: str) -> None:
    names = [client.create(f"{root}/{prefix}-", sequence=True) for prefix in "aba"]
    assert names == [f"{root}/{prefix}-{n:010d}" for n, prefix in enumerate("aba")]
    client.delete(names[2])
    assert client.create(f"{root}/", sequence=True) == f"{root}/{3:010d}"


def test_ephemerals_have_an_owner_and_no_children(client: KazooClient, root: str) -> None:
    path = client.create(f"{root}/e-", ephemeral=True, sequence=True)
    session_id, _ = client.client_id
    assert client.exists(path).owner_session_id == session_id
    with pytest.raises(NoChildrenForEphemeralsError):
        client.create(f"{path}/child")


def test_set_checks_the_version(client: KazooClient, root: str) -> None:
    assert client.set(root, b"one").version == 1
    assert client.set(root, b"two", version=1).version == 2
    with pytest.raises(BadVersionError):
        client.set(root, b"three", version=1)
    data, stat = client.get(root)
    assert (data, stat.version) == (b"two", 2)
    assert stat.mzxid > stat.czxid
    assert stat.last_modified >= stat.created
    with pytest.raises(NoNodeError):
        client.set(f"{root}/none", b"")


def test_delete_checks_the_version_and_the_children(client: KazooClient, root: str) -> None:
    client.create(f"{root}/a/b", makepath=True)
    with pytest.raises(NotEmptyError):
        client.delete(f"{root}/a")
    with pytest.raises(BadVersionError):
        client.delete(f"{root}/a/b", version=7)
    client.delete(f"{root}/a/b", version=0)
    assert client.exists(f"{root}/a/b") is None
    with pytest.raises(NoNodeError):
        client.delete(f"{root}/a/b")
    client.delete(f"{root}", recursive=True)
    assert client.exists(root) is None


def test_children_and_the_stat_of_their_parent(client: KazooClient, root: str) -> None:
    for name in ("c", "a", "b"):
        client.create(f"{root}/{name}")
    client.delete(f"{root}/b")
    children, stat = client.get_children(root, include_data=True)
    assert sorted(children) == ["a", "c"]
    assert (stat.numChildren, stat.children_count, stat.children_version) == (2, 2, 4)
    assert sorted(client.get_children(root)) == ["a", "c"]
    assert client.get_children(f"{root}/a") == []
    with pytest.raises(NoNodeError):
        client.get_children(f"{root}/none")


def test_empty_and_null_data_differ_no_more_than_kazoo_lets_them(
    client: KazooClient, root: str
) -> None:
    client.create(f"{root}/empty", b"")
    assert client.get(f"{root}/empty")[0] == b""
    client.set(f"{root}/empty", None)
    data, stat = client.get(f"{root}/empty")
    assert not data
    assert stat.dataLength == 0


@pytest.mark.parametrize("name", ["märz", "日本語", "with space", "a.b", "...", "~", "%2F"])
def test_names_of_any_script(client: KazooClient, root: str, name: str) -> None:
    assert client.create(f"{root}/{name}", name.encode()) == f"{root}/{name}"
    assert client.get_children(root) == [name]
    assert client.get(f"{root}/{name}")[0] == name.encode()


@pytest.mark.parametrize("name", ["\x01", "\x7f", "\x85"])
def test_names_that_no_znode_has(client: KazooClient, root: str, name: str) -> None:
    with pytest.raises(BadArgumentsError):
        client.create(f"{root}/{name}")


def test_data_nearly_as_large_as_a_packet(client: KazooClient, root: str) -> None:
    data = bytes(range(256)) * (SIZE_BYTES_MAX // 256 - 4)
    client.create(f"{root}/large", data)
    assert client.get(f"{root}/large")[0] == data
    client.set(f"{root}/large", data[::-1])
    assert client.get(f"{root}/large")[0] == data[::-1]


def test_many_requests_under_way_are_answered_in_order(client: KazooClient, root: str) -> None:
    results = [client.create_async(f"{root}/n-", sequence=True) for _ in range(300)]
    results += [client.get_children_async(root)]
    answers = [each.get(timeout=30) for each in results]
    assert answers[:-1] == [f"{root}/n-{n:010d}" for n in range(300)]
    assert len(answers[-1]) == 300


def test_what_one_replica_acknowledged_another_one_reads_after_sync(
    connect: Connect, client: KazooClient, root: str
) -> None:
    readers = [connect(1), connect(2)]
    for n in range(20):
        client.set(root, b"%d" % n)
        for reader in readers:
            assert reader.sync(root) == root
            assert reader.get(root)[0] == b"%d" % n


def test_a_chroot_is_before_every_path(connect: Connect, client: KazooClient, root: str) -> None:
    client.create(f"{root}/service")
    below = connect(chroot=f"{root}/service")
    below.create("/a")
    below.set("/a", b"from below")
    assert below.create("/a/n-", sequence=True) == "/a/n-0000000000"
    assert below.get_children("/") == ["a"]
    client.sync(root)
    assert client.get(f"{root}/service/a")[0] == b"from below"
    seen = []
    event = below.handler.event_object()
    below.get("/a", watch=lambda each: (seen.append(each), event.set()))
    client.set(f"{root}/service/a", b"from above")
    assert event.wait(30)
    assert [(each.type, each.path) for each in seen] == [("CHANGED", "/a")]


# ------------------------------------------------------------------------------------ access


def test_acls_are_read_and_replaced_by_version(client: KazooClient, root: str) -> None:
    acls, stat = client.get_acls(root)
    assert acls == OPEN_ACL_UNSAFE
    assert stat.aversion == 0
    wanted = [
        make_acl("world", "anyone", read=True, admin=True),
        make_acl("ip", "127.0.0.1", all=True),
    ]
    assert client.set_acls(root, wanted, version=0).aversion == 1
    assert client.get_acls(root)[0] == wanted
    with pytest.raises(BadVersionError):
        client.set_acls(root, wanted, version=0)


def test_an_acl_of_an_unknown_scheme_is_invalid(client: KazooClient, root: str) -> None:
    with pytest.raises(InvalidACLError):
        client.set_acls(root, [make_acl("nonesuch", "x", all=True)])


def test_digest_users_own_what_they_make(connect: Connect, client: KazooClient, root: str) -> None:
    owner = connect(1)
    assert owner.add_auth("digest", "jan:secret")
    acl = make_digest_acl("jan", "secret", all=True)
    owner.sync(root)
    owner.create(f"{root}/mine", b"hidden", acl=[acl])
    client.sync(root)
    for refused in (
        lambda: client.get(f"{root}/mine"),
        lambda: client.exists(f"{root}/mine"),
        lambda: client.set(f"{root}/mine", b"x"),
        lambda: client.get_children(f"{root}/mine"),
        lambda: client.create(f"{root}/mine/child"),
        lambda: client.set_acls(f"{root}/mine", [acl]),
    ):
        with pytest.raises(NoAuthError):
            refused()
    client.add_auth("digest", "jan:secret")
    assert client.get(f"{root}/mine")[0] == b"hidden"
    assert owner.get_acls(f"{root}/mine")[0] == [acl]


def test_identities_given_at_the_start_are_given_again(
    connect: Connect, client: KazooClient, root: str
) -> None:
    options = {"auth_data": [("digest", "eva:pw")]}
    options["default_acl"] = [make_digest_acl("eva", "pw", all=True)]
    eva = connect(**options)
    eva.create(f"{root}/eva")
    with pytest.raises(NoAuthError):
        client.set(f"{root}/eva", b"")
    eva.stop()
    eva.start(30)
    assert eva.set(f"{root}/eva", b"").version == 1


def test_a_wrong_scheme_fails_the_session(connect: Connect) -> None:
    client = connect()
    with pytest.raises(AuthFailedError):
        client.add_auth("nonesuch", "x:y")


# ------------------------------------------------------------------------------ transactions


def test_a_transaction_is_done_as_a_whole(client: KazooClient, root: str) -> None:
    client.create(f"{root}/old")
    transaction = client.transaction()
    transaction.check(root, version=0)
    transaction.create(f"{root}/new", b"1")
    transaction.set_data(f"{root}/new", b"2", version=0)
    transaction.create(f"{root}/n-", sequence=True, ephemeral=True)
    transaction.delete(f"{root}/old", version=0)
    checked, created, stat, sequential, deleted = transaction.commit()
    assert (checked, created, deleted) == (True, f"{root}/new", True)
    assert sequential == f"{root}/n-{2:010d}"
    assert stat.version == 1
    assert client.get(f"{root}/new") == (b"2", stat)
    assert client.exists(sequential).czxid == stat.czxid


def test_a_refused_transaction_does_nothing(client: KazooClient, root: str) -> None:
    transaction = client.transaction()
    transaction.create(f"{root}/a")
    transaction.check(root, version=99)
    transaction.delete(f"{root}/a")
    results = transaction.commit()
    kinds = [type(each) for each in results]
    assert kinds == [RolledBackError, BadVersionError, RuntimeInconsistency]
    assert client.get_children(root) == []


def test_a_transaction_as_a_block(client: KazooClient, root: str) -> None:
    with client.transaction() as transaction:
        transaction.create(f"{root}/a", b"x")
        transaction.create(f"{root}/a/b")
    assert client.get_children(f"{root}/a") == ["b"]
    assert client.transaction().commit() == []
