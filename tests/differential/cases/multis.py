"""multi and multiRead: each byte of their results."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import WORLD, Acl, OpCode, boolean, int32
from tests.differential import shapes
from tests.differential.case import Ask, Group, differs, loosely
from tests.differential.requests import (
    check,
    children,
    children2,
    create,
    create2,
    create_container,
    create_ttl,
    delete,
    exists,
    get_data,
    multi,
    multi_read,
    set_acl,
    set_data,
    sync,
)
from tests.differential.steps import ending, ends, mark, zxids_since

GROUP = Group("multis")
case = GROUP.case

READ_ALL = (Acl(1, "world", "anyone"),)

case("one create", multi(create("~/a", b"x")), get_data("~/a"))
case("one create2", multi(create2("~/a", b"x")), get_data("~/a"))
case("one delete", create("~/a"), multi(delete("~/a")), exists("~/a"))
case("one setData", create("~/a"), multi(set_data("~/a", b"x", 0)), get_data("~/a"))
case("one check", create("~/a"), multi(check("~/a", 0)), multi(check("~/a", -1)))
case("one container", multi(create_container("~/a")), exists("~/a"))
case("one TTL znode", multi(create_ttl("~/a", 60_000)), exists("~/a"))
case("nothing", multi(), mark("m"), multi(), zxids_since("m"))
case(
    "one of each",
    create("~/old"),
    multi(
        check("~/old", 0),
        create("~/a", b"1"),
        create2("~/b", b"2", flags=1),
        create("~/n-", flags=2),
        create_container("~/c"),
        create_ttl("~/t", 60_000),
        set_data("~/a", b"22", 0),
        delete("~/old"),
    ),
    children2("~"),
)
case(
    "later ones see earlier ones",
    multi(create("~/a"), create("~/a/b"), set_data("~/a", b"x"), create2("~/a/c"), delete("~/a/b")),
    children2("~/a"),
)
case("created and deleted", multi(create("~/a"), delete("~/a")), children2("~"))
case(
    "deleted and created", create("~/a"), multi(delete("~/a"), create("~/a", b"y")), get_data("~/a")
)
case(
    "set twice",
    create("~/a"),
    multi(set_data("~/a", b"1", 0), set_data("~/a", b"2", 1)),
    get_data("~/a"),
)
case("a check of what was just created", multi(create("~/a"), check("~/a", 0), check("~/a", 1)))
case(
    "sequential ones share the counter",
    multi(create("~/a-", flags=2), create("~/b-", flags=3), create("~/x"), create("~/c-", flags=2)),
    children2("~"),
)
case(
    "a refused multi burns no number, and takes one zxid",
    create("~/n-", flags=2),
    mark("m"),
    multi(create("~/n-", flags=2), create("~/n-", flags=2), check("~/none", 0)),
    zxids_since("m"),
    create("~/n-", flags=2),
    children2("~"),
)
case(
    "an ephemeral and a child of it", multi(create("~/e", flags=1), create("~/e/c")), exists("~/e")
)
case(
    "refused at the first place",
    multi(check("~/none", 0), create("~/a"), create("~/b")),
    children2("~"),
)
case(
    "refused in the middle",
    multi(create("~/a"), check("~", 9), delete("~/c")),
    children2("~"),
)
case(
    "refused at the last place",
    multi(create("~/a"), create("~/b"), delete("~/none")),
    children2("~"),
)
case("the first refusal counts", multi(create("~/a"), delete("~/none"), check("~/none", 0)))
for name, operation in (
    ("NONODE", set_data("~/none", b"")),
    ("NODEEXISTS", create("~/there")),
    ("NOTEMPTY", delete("~/full")),
    ("BADVERSION of a check", check("~/there", 9)),
    ("BADVERSION of setData", set_data("~/there", b"", 9)),
    ("BADVERSION of delete", delete("~/there", 9)),
    ("NOCHILDRENFOREPHEMERALS", create("~/e/a")),
    ("INVALIDACL", create("~/a", acl=())),
    ("BADARGUMENTS of a path", create("~/.")),
    ("BADARGUMENTS of a TTL", create_ttl("~/a", 0)),
    ("NOAUTH", create("~/readable/a")),
    ("a path without a slash", create("a")),
    ("setData of a bad path", set_data("~/", b"")),
    ("check of a bad path", check("~//", 0)),
    ("check of an empty path", check("", 0)),
    ("delete of a special znode", delete("/zookeeper/quota")),
):
    case(
        f"refused with {name}",
        create("~/there"),
        create("~/full"),
        create("~/full/a"),
        create("~/e", flags=1),
        create("~/readable", acl=READ_ALL),
        multi(set_data("~/there", b"x"), operation, create("~/b")),
        multi(operation),
        exists("~/there"),
    )
for name, operation in (
    ("setACL", set_acl("~", WORLD)),
    ("getData", get_data("~")),
    ("exists", exists("~")),
    ("sync", sync("~")),
    ("a multi", multi(create("~/b"))),
    ("unknown flags", create("~/a", flags=99)),
):
    case(
        f"a multi with {name} inside",
        create("~/a"),
        loosely(multi(set_data("~/a", b"x"), operation)),
        loosely(exists("~/a")),
        ending(),
    )
case(
    "a multi that cannot be read, and its zxid",
    create("~/a"),
    mark("m"),
    loosely(multi(sync("~"))),
    loosely(set_data("~/a", b"x")),
    differs("unreadable-zxid", zxids_since("m"), zookeeper="2", coordsvc="1"),
)
case(
    "a check by itself",
    differs("unknown-operation", ends(check("~", 0)), zookeeper="closed", coordsvc="stays open"),
)
case(
    "many operations",
    multi(*(create(f"~/{number}") for number in range(500))),
    children("~"),
    multi(*(delete(f"~/{number}") for number in range(500))),
)
case(
    "more operations than are taken here",
    differs(
        "multi-operations",
        multi(*(check("~", -1) for _ in range(4_097))),
        zookeeper="OK results=",
        coordsvc="QUOTAEXCEEDED",
    ),
)
case("as many operations as are taken", multi(*(check("~", -1) for _ in range(4_096))))
case("null data in a multi", multi(create("~/a", None), set_data("~", None)), get_data("~/a"))

case(
    "multiRead",
    create("~/a", b"x"),
    multi_read(get_data("~/a"), children("~"), get_data("~"), children("~/a")),
)
case(
    "multiRead with refusals",
    create("~/a", b"x"),
    create("~/b", acl=(Acl(2, "world", "anyone"),)),
    multi_read(
        get_data("~/none"), get_data("~/a"), children("~/none"), get_data("~/b"), children("~")
    ),
)
case("multiRead of nothing", multi_read())
case(
    "multiRead takes no zxid",
    exists("~"),
    mark("m"),
    multi_read(get_data("~")),
    exists("~"),
    zxids_since("m"),
)
case("multiRead with exists", multi_read(exists("~")), ending())
case(
    "multiRead with a write",
    differs(
        "unreadable-body",
        multi_read(create("~/a")),
        zookeeper="MARSHALLINGERROR and ffffffff01ffffffff",
        coordsvc="MARSHALLINGERROR",
    ),
    exists("~"),
)
case("multiRead of null data", create("~/a", None), multi_read(get_data("~/a")))
case("multiRead of bad paths", multi_read(get_data("~/"), get_data("a"), children("~//")))


def result_header(op: int, is_done: bool, error: int) -> bytes:
    return int32(op) + boolean(is_done) + int32(error)


for name, body in (
    ("without an end", result_header(OpCode.CHECK, False, -1)),
    ("empty", b""),
    ("with an end of another type", result_header(OpCode.CREATE, True, -1)),
    ("with an end of another error", result_header(-1, True, 0)),
    ("of an unknown type", result_header(99, False, -1) + result_header(-1, True, -1)),
    ("with more behind its end", result_header(-1, True, -1) + b"more"),
):
    case(
        f"a multi {name}",
        loosely(Ask(f"multi {name}", OpCode.MULTI, lambda _, body=body: body, shapes.results)),
        loosely(exists("~")),
        ending(),
    )
