"""Kinds of znodes, sequence numbers, and the order of refusals of writes."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import Acl
from tests.differential.case import Group, differs
from tests.differential.requests import (
    children2,
    create,
    create2,
    create_container,
    create_ttl,
    delete,
    exists,
    get_data,
    set_acl,
    set_data,
)
from tests.differential.steps import connect, mark, zxids_since

GROUP = Group("creates")
case = GROUP.case

READ_ALL = (Acl(1, "world", "anyone"),)
TTL_MAX = 2**40 - 1

case("a plain znode", create("~/a", b"x"), get_data("~/a"), children2("~"))
case("create2 answers with the stat", create2("~/a", b"x"), exists("~/a"))
case("an ephemeral", create("~/a", b"x", flags=1), get_data("~/a"), create("~/a/b"))
case("an ephemeral by create2", create2("~/a", b"x", flags=1), delete("~/a"), exists("~/a"))
case(
    "a sequential one", create("~/a-", flags=2), create("~/a-", flags=2), get_data("~/a-0000000001")
)
case("a sequential ephemeral", create("~/a-", flags=3), exists("~/a-0000000000"))
case("sequential ones by create2", create2("~/a-", flags=2), create2("~/b-", flags=3))
case("a container by createContainer", create_container("~/a"), get_data("~/a"), create("~/a/b"))
case("a container that exists", create_container("~/a"), create_container("~/a"))
case("a container by create", create("~/a", flags=4), exists("~/a"))
case("a container by create2", create2("~/a", flags=4), exists("~/a"))
for name, flags in (("a plain znode", 0), ("an ephemeral", 1), ("a sequential one", 2)):
    case(
        f"createContainer with the flag of {name}",
        differs(
            "container-flags",
            create_container("~/a", flags=flags),
            zookeeper="OK path=~/a",
            coordsvc="BADARGUMENTS",
        ),
    )
case("createContainer with the flag of a TTL", create_container("~/a", flags=5), exists("~/a"))
case("a TTL znode", create_ttl("~/a", 60_000), get_data("~/a"), create("~/a/b"), exists("~/a"))
case("a sequential TTL znode", create_ttl("~/a-", 60_000, flags=6), create_ttl("~/a-", 1, flags=6))
case("the longest TTL", create_ttl("~/a", TTL_MAX), exists("~/a"))
case("a TTL too long", create_ttl("~/a", TTL_MAX + 1), exists("~/a"))
case("the largest number as a TTL", create_ttl("~/a", 2**63 - 1), exists("~/a"))
case("a TTL of 0", create_ttl("~/a", 0), exists("~/a"))
case("a TTL of -1", create_ttl("~/a", -1), exists("~/a"))
case("the least number as a TTL", create_ttl("~/a", -(2**63)), exists("~/a"))
case("createTTL with the flag of a plain znode", create_ttl("~/a", 60_000, flags=0), exists("~/a"))
case("createTTL with the flag of a container", create_ttl("~/a", 60_000, flags=4), exists("~/a"))
case("createTTL with the flag of an ephemeral", create_ttl("~/a", 60_000, flags=1), exists("~/a"))

for flags in (7, 8, 100, -1, -(2**31), 2**31 - 1):
    case(f"create with the unknown flags {flags}", create("~/a", flags=flags), exists("~/a"))
case("create with the flag of a TTL", create("~/a", flags=5), exists("~/a"))
case("create2 with the flag of a sequential TTL", create2("~/a", flags=6), exists("~/a"))
case("createTTL with unknown flags", create_ttl("~/a", 60_000, flags=7), exists("~/a"))
case("createContainer with unknown flags", create_container("~/a", flags=7), exists("~/a"))

case(
    "a plain create counts for the next sequential one",
    create("~/a"),
    create("~/n-", flags=2),
    children2("~"),
)
case(
    "a number is never used twice",
    create("~/n-", flags=2),
    delete("~/n-0000000000"),
    create("~/n-", flags=2),
    children2("~"),
)
case(
    "prefixes share one counter",
    create("~/a-", flags=2),
    create("~/b-", flags=3),
    create("~/", flags=2),
    create_ttl("~/c-", 60_000, flags=6),
    children2("~"),
)
case(
    "ephemerals and containers count too",
    create("~/e", flags=1),
    create_container("~/c"),
    create("~/n-", flags=2),
)
case(
    "a refused create does not count",
    create("~/a"),
    create("~/a"),
    create("~/n-", flags=2),
)
case(
    "each folder has its counter", create("~/a"), create("~/a/n-", flags=2), create("~/n-", flags=2)
)
case(
    "children change the parent's stat",
    create("~/p"),
    create("~/p/c"),
    delete("~/p/c"),
    exists("~/p"),
)
case(
    "what happens below a child does not change the parent",
    create("~/p"),
    create("~/p/c"),
    set_data("~/p/c", b"x"),
    create("~/p/c/d"),
    delete("~/p/c/d"),
    exists("~/p"),
)

case("null data", create("~/a", None), get_data("~/a"), set_data("~/a", b""), get_data("~/a"))
case("empty data", create("~/a", b""), get_data("~/a"), set_data("~/a", None), get_data("~/a"))
case("setData with what is there", create("~/a", b"x"), set_data("~/a", b"x"), get_data("~/a"))

case(
    "any version",
    create("~/a"),
    set_data("~/a", b"1", -1),
    set_data("~/a", b"2", -1),
    delete("~/a", -1),
)
case(
    "versions",
    create("~/a"),
    set_data("~/a", b"1", 1),
    set_data("~/a", b"1", 0),
    set_data("~/a", b"1", 0),
    delete("~/a", 0),
    delete("~/a", 2),
    delete("~/a", 1),
)
case(
    "version -2",
    create("~/a"),
    set_data("~/a", b"1", -2),
    delete("~/a", -2),
    set_acl("~/a", READ_ALL, -2),
)
case("the least version", create("~/a"), set_data("~/a", b"1", -(2**31)), delete("~/a", 2**31 - 1))
case(
    "setACL counts apart",
    create("~/a"),
    set_acl("~/a", READ_ALL, 1),
    set_acl("~/a", (Acl(31, "world", "anyone"),), 0),
    set_data("~/a", b"x", 0),
    set_acl("~/a", READ_ALL, 0),
    set_acl("~/a", READ_ALL, 1),
    exists("~/a"),
)
case(
    "delete of an ephemeral of another session",
    connect("B"),
    create("~/a", flags=1),
    delete("~/a"),
    exists("~/a"),
)
case("create of what is there", create("~/a", b"x"), create("~/a", b"y"), get_data("~/a"))
case("create over an ephemeral", create("~/a", flags=1), create("~/a"), create("~/a", flags=1))

case("create below nothing", create("~/a/b"), create("~/a/b", flags=2), create("~/a/b", flags=1))
case("delete of nothing", delete("~/a"), delete("~/a/b"), delete("~/a", 3))
case("setData of nothing", set_data("~/a", b""), set_data("~/a", b"", 3))
case("setACL of nothing", set_acl("~/a", READ_ALL), set_acl("~/a", READ_ALL, 3))
case("delete with children", create("~/a"), create("~/a/b"), delete("~/a"), delete("~/a", 0))
case("a wrong version comes before children", create("~/a"), create("~/a/b"), delete("~/a", 9))
case("what exists comes before an ephemeral parent", create("~/e", flags=1), create("~/e/b"))

case("an empty ACL comes before a missing parent", create("~/a/b", acl=()))
case("an unknown flag comes before an empty ACL", create("~/a/b", flags=99, acl=()))
case("a bad TTL comes before an empty ACL", create_ttl("~/a/b", 0, acl=()))
case("a missing parent comes before a bad name", create("~/a/b/."))
case("an empty ACL comes before a bad name", create("~/a//b", acl=()))
case(
    "no right comes before what exists",
    create("~/p"),
    create("~/p/a"),
    set_acl("~/p", READ_ALL),
    create("~/p/a"),
    create("~/p/b"),
)
case("no right comes before a bad name", create("~/p"), set_acl("~/p", READ_ALL), create("~/p/.."))
case("a bad name comes before what exists", create("~/a/"), create("~/."))
case(
    "no right comes before an ephemeral parent",
    create("~/e", flags=1, acl=READ_ALL),
    create("~/e/b"),
)
case(
    "delete: no right comes before a missing child",
    create("~/p", acl=READ_ALL),
    delete("~/p/a"),
    delete("~/p/a/b"),
)
case(
    "delete: no right comes before the version",
    create("~/p"),
    create("~/p/a"),
    set_acl("~/p", READ_ALL),
    delete("~/p/a", 7),
)
case(
    "setData: no right comes before the version",
    create("~/a", acl=READ_ALL),
    set_data("~/a", b"", 7),
)
case(
    "setACL: no right comes before the version",
    create("~/a", acl=READ_ALL),
    set_acl("~/a", READ_ALL, 7),
)
case("setACL: a bad ACL comes before a missing znode", set_acl("~/a", ()), set_acl("~/a", None, 5))
case("setACL: a bad ACL comes before no right", create("~/a", acl=READ_ALL), set_acl("~/a", (), 5))

case(
    "each write takes a zxid, a refused one too",
    create("~/a"),
    mark("m"),
    create("~/a"),
    delete("~/b"),
    set_data("~/a", b"", 7),
    create("~/a/", flags=0),
    set_data("~/a", b""),
    zxids_since("m"),
)
case(
    "a read takes no zxid",
    create("~/a"),
    mark("m"),
    exists("~/a"),
    get_data("~/b"),
    children2("~"),
    zxids_since("m"),
)
