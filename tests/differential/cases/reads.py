"""What reads show, the znodes that are always there, and requests that are none."""

from __future__ import annotations

from dataclasses import replace

from coordsvc.testing.zookeeper_records import WORLD, OpCode, buffer, int32, int64, text
from tests.differential import shapes
from tests.differential.case import Ask, Group, ask, differs
from tests.differential.requests import (
    all_children_number,
    children,
    children2,
    create,
    create_container,
    delete,
    exists,
    get_acl,
    get_config,
    get_data,
    get_ephemerals,
    ping,
    set_acl,
    set_data,
    sync,
)
from tests.differential.steps import connect, ends, events, pipeline

GROUP = Group("reads")
case = GROUP.case

case(
    "nothing is there",
    exists("~/a"),
    get_data("~/a"),
    get_acl("~/a"),
    children("~/a"),
    children2("~/a"),
    all_children_number("~/a"),
    sync("~/a"),
)
case("a leaf", create("~/a", b"x"), children("~/a"), children2("~/a"), all_children_number("~/a"))
case(
    "descendants are counted",
    create("~/a"),
    create("~/a/b"),
    create("~/a/b/c"),
    create("~/ab"),
    create("~/a/d", flags=1),
    all_children_number("~/a"),
    all_children_number("~"),
    all_children_number("~/ab"),
)
case(
    "getEphemerals are the session's own",
    connect("B"),
    create("~/a", flags=1),
    create("~/p"),
    create("~/p/b", flags=1),
    create("~/c"),
    ask(create("~/d", flags=1), on="B"),
    get_ephemerals("~"),
    get_ephemerals("~/p"),
    get_ephemerals("/"),
    get_ephemerals("~/none"),
    ask(get_ephemerals("~"), on="B"),
    delete("~/a"),
    get_ephemerals("~"),
)
case(
    "getEphemerals takes a prefix",
    create("~/a", flags=1),
    create("~/ab", flags=1),
    get_ephemerals("~/ab"),
    differs(
        "ephemerals-by-component",
        get_ephemerals("~/a"),
        zookeeper="names=[~/a, ~/ab]",
        coordsvc="names=[~/a]",
    ),
)
case(
    "many children",
    *(create(f"~/child-{number:03}") for number in range(60)),
    children("~"),
    children2("~"),
)

case(
    "the root cannot be created or deleted",
    create("/"),
    create("/", flags=1),
    delete("/"),
    delete("/", 7),
)
case("a sequential znode at the root without an ACL", create("/", flags=2, acl=()))
for path in ("/zookeeper", "/zookeeper/quota", "/zookeeper/config"):
    case(f"{path} cannot be created or deleted", create(path), delete(path), delete(path, 3))
case("always there", children("/zookeeper"), children("/zookeeper/quota"))
for path in ("/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"):
    case(f"the ACL of {path}", replace(get_acl(path), shape=shapes.acl_alone))
case(
    "the versions of /zookeeper",
    differs(
        "special-stats", exists("/zookeeper"), zookeeper="v,cv,av=0,", coordsvc="v,cv,av=0,0,0"
    ),
)
case(
    "the version of /zookeeper/config",
    differs("special-stats", get_config(), zookeeper="version=-1", coordsvc="version=0"),
)
case("children of /zookeeper/config", children("/zookeeper/config"))
case("setData of /zookeeper/config", set_data("/zookeeper/config", b"x"))
case(
    "below /zookeeper",
    create("/zookeeper/differential", b"x"),
    get_data("/zookeeper/differential"),
    create("/zookeeper/config/a"),
    delete("/zookeeper/differential"),
)
case(
    "setData and setACL of the root",
    create("~/a"),
    set_data("/", b"x", 9),
    set_acl("/", WORLD, 9),
)
case(
    "/zookeeper/quota may be written below",
    create("/zookeeper/quota/differential-q"),
    delete("/zookeeper/quota/differential-q"),
)

case("sync and a read", create("~/a", b"x"), pipeline(sync("~/a"), get_data("~/a")))
case(
    "replies come in the order of the requests",
    pipeline(
        create("~/a"),
        get_data("~/a"),
        set_data("~/a", b"x"),
        exists("~/none"),
        sync("~"),
        get_data("~/a"),
        delete("~/a"),
        exists("~/a"),
    ),
)
case(
    "a refusal does not hold up the others",
    pipeline(delete("~/none"), create("~/a"), create("~/a"), get_data("~/a"), delete("~/a", 9)),
)


def with_xid(request: Ask, xid: int) -> Ask:
    return Ask(f"{request.text} xid={xid}", request.op, request.body, request.shape, xid)


case("an xid of 0", with_xid(exists("~"), 0))
case(
    "the largest xid, and the least",
    with_xid(exists("~"), 2**31 - 1),
    with_xid(exists("~"), -(2**31)),
)
case(
    "an xid that goes back",
    with_xid(exists("~"), 9),
    with_xid(exists("~"), 5),
    with_xid(exists("~"), 5),
)
case("the xid of pings on a read", with_xid(exists("~"), -2))
case("the xid of addAuth on a write", with_xid(create("~/a"), -4), exists("~/a"))
case("the xid of setWatches on a write", with_xid(set_data("~", b""), -8))
case("a ping", ping(), ping())
case("a ping with another xid", with_xid(ping(), 77), with_xid(ping(), 0))
case(
    "pings among requests", pipeline(create("~/a"), exists("~/a"), replies=2), ping(), exists("~/a")
)

for op in (0, 10, 18_000, 23, 99, 108, 200, -1, -2, -12, 2**31 - 1):
    case(
        f"an operation of type {int(op)}",
        differs(
            "unknown-operation",
            ends(Ask(f"type {int(op)}", op, lambda world: text(world.path("~")) + int32(0))),
            zookeeper="reply zxid=-1 UNIMPLEMENTED\nconnection closed",
            coordsvc="UNIMPLEMENTED\nconnection stays open",
        ),
    )
case(
    "sasl",
    differs(
        "sasl",
        Ask("sasl", OpCode.SASL, lambda _: buffer(b"token"), shapes.data),
        zookeeper="OK data=",
        coordsvc="UNIMPLEMENTED",
    ),
)
case(
    "reconfig",
    ends(
        Ask(
            "reconfig",
            OpCode.RECONFIG,
            lambda _: text(None) + text(None) + text("server.1=localhost:1:2;3") + int64(-1),
        )
    ),
)
case(
    "reconfig to join",
    ends(
        Ask(
            "reconfig",
            OpCode.RECONFIG,
            lambda _: text("server.9=localhost:1:2;3") + text(None) + text(None) + int64(-1),
        )
    ),
)
case(
    "deleteContainer",
    create_container("~/a"),
    differs(
        "delete-container",
        Ask(
            "deleteContainer ~/a",
            OpCode.DELETE_CONTAINER,
            lambda world: text(world.path("~/a")),
        ),
        zookeeper="OK",
        coordsvc="UNIMPLEMENTED",
    ),
)
case(
    "a boolean that is neither 0 nor 1",
    Ask(
        "getData watch=2",
        OpCode.GET_DATA,
        lambda world: text(world.path("~")) + b"\x02",
        shapes.data_and_stat,
    ),
    set_data("~", b"x"),
    events(),
)
