"""setWatches: what a client that comes back is told of the time it was away."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import WORLD, Acl, OpCode, int32, int64
from tests.differential.case import Ask, Group, ask, differs
from tests.differential.requests import (
    check_watches,
    create,
    delete,
    exists,
    set_acl,
    set_data,
    set_watches,
)
from tests.differential.steps import connect, ends, events, mark

GROUP = Group("catch-up")
case = GROUP.case


def away(*changes: Ask) -> tuple[object, ...]:
    """~/a is there; ~/none is not; then the changes happen."""
    return (create("~/a"), create("~/p"), create("~/p/c"), mark("m"), *changes, connect("B"))


ALL = {"data": ["~/a"], "exist": ["~/none"], "child": ["~/p"]}

case(
    "nothing has happened",
    *away(),
    ask(set_watches("m", **ALL), on="B"),
    set_data("~/a", b""),
    create("~/none"),
    create("~/p/d"),
    events("B"),
)
case(
    "data has changed",
    *away(set_data("~/a", b"x")),
    ask(set_watches("m", **ALL), on="B"),
    events("B"),
    set_data("~/a", b"y"),
    events("B"),
)
case(
    "it has gone",
    *away(delete("~/a")),
    ask(set_watches("m", **ALL), on="B"),
    events("B"),
    create("~/a"),
    events("B"),
)
case(
    "it has gone and come back",
    *away(delete("~/a"), create("~/a")),
    ask(set_watches("m", **ALL), on="B"),
    events("B"),
)
case(
    "it has come",
    *away(create("~/none")),
    ask(set_watches("m", **ALL), on="B"),
    events("B"),
    set_data("~/none", b"x"),
    events("B"),
)
case(
    "it has come and gone",
    *away(create("~/none"), delete("~/none")),
    ask(set_watches("m", **ALL), on="B"),
    events("B"),
    create("~/none"),
    events("B"),
)
case(
    "a child has come",
    *away(create("~/p/d")),
    ask(set_watches("m", **ALL), on="B"),
    events("B"),
    create("~/p/e"),
    events("B"),
)
case("a child has gone", *away(delete("~/p/c")), ask(set_watches("m", **ALL), on="B"), events("B"))
case(
    "a child has changed",
    *away(set_data("~/p/c", b"")),
    ask(set_watches("m", **ALL), on="B"),
    events("B"),
    create("~/p/e"),
    events("B"),
)
case(
    "the parent has gone",
    *away(delete("~/p/c"), delete("~/p")),
    ask(set_watches("m", **ALL), on="B"),
    events("B"),
)
case(
    "the ACL has changed",
    *away(set_acl("~/a", WORLD)),
    ask(set_watches("m", **ALL), on="B"),
    events("B"),
)
case(
    "no right any more",
    *away(set_data("~/a", b""), set_acl("~/a", (Acl(30, "world", "anyone"),))),
    differs(
        "catch-up-rights",
        ask(set_watches("m", data=["~/a"]), on="B"),
        zookeeper="event DATA_CHANGED ~/a",
        coordsvc="reply",
    ),
    events("B"),
)
case(
    "several of each",
    *away(create("~/b"), create("~/c"), set_data("~/a", b"")),
    ask(
        set_watches(
            "m",
            data=["~/a", "~/p", "~/gone"],
            exist=["~/b", "~/c", "~/d"],
            child=["~/p", "~/gone2"],
        ),
        on="B",
    ),
    events("B"),
)
case(
    "the same path in all",
    *away(set_data("~/a", b"")),
    ask(set_watches("m", data=["~/a"], exist=["~/a"], child=["~/a"]), on="B"),
    delete("~/a"),
    events("B"),
)
case(
    "the same path twice",
    *away(set_data("~/a", b"")),
    ask(set_watches("m", data=["~/a", "~/a"]), on="B"),
    events("B"),
)
case("nothing asked for", *away(), ask(set_watches("m"), on="B"))
case("since 0", *away(), ask(set_watches(0, **ALL), on="B"), events("B"))
case(
    "since a zxid to come",
    *away(),
    ask(set_watches(2**62, **ALL), on="B"),
    set_data("~/a", b""),
    events("B"),
)
case("since a negative zxid", *away(), ask(set_watches(-5, data=["~/a"]), on="B"), events("B"))
case(
    "bad paths",
    *away(),
    ask(set_watches("m", data=["a", "~/"], exist=["~//"], child=["b"]), on="B"),
    events("B"),
)
case("data alone", *away(delete("~/a")), ask(set_watches("m", data=["~/a"]), on="B"), events("B"))
case(
    "exist alone, and it is still not there",
    *away(),
    ask(set_watches("m", exist=["~/none"]), on="B"),
    ask(check_watches("~/none", 2), on="B"),
    create("~/none"),
    events("B"),
)
case(
    "setWatches is no answer to a numbered request",
    *away(),
    ask(set_watches("m", **ALL), on="B"),
    ask(exists("~/a"), on="B"),
)
case(
    "setWatches2 without persistent ones",
    *away(set_data("~/a", b"")),
    ask(set_watches("m", **ALL, persistent=[], recursive=[]), on="B"),
    events("B"),
)
case(
    "setWatches2: nothing has happened",
    *away(),
    ask(set_watches("m", persistent=["~/a"], recursive=["~/p"]), on="B"),
    set_data("~/a", b"x"),
    create("~/p/d"),
    set_data("~/p/d", b""),
    events("B"),
)
case(
    "setWatches2: persistent on nothing",
    *away(),
    ask(set_watches("m", persistent=["~/none"]), on="B"),
    create("~/none"),
    delete("~/none"),
    events("B"),
)
case(
    "setWatches2: changes while away, of a persistent one",
    *away(set_data("~/a", b"x"), create("~/a/b"), set_data("~/a/b", b"y")),
    differs(
        "persistent-catch-up",
        ask(set_watches("m", persistent=["~/a"]), on="B"),
        zookeeper="reply",
        coordsvc="event DATA_CHANGED ~/a",
    ),
    set_data("~/a", b"z"),
    events("B"),
)
case(
    "setWatches2: changes while away, of a recursive one",
    *away(create("~/p/d"), set_data("~/p/d", b"y"), delete("~/p/d")),
    differs(
        "persistent-catch-up",
        ask(set_watches("m", recursive=["~/p"]), on="B"),
        zookeeper="reply",
        coordsvc="event CREATED ~/p/d",
    ),
    create("~/p/e"),
    events("B"),
)
case(
    "a setWatches cut short",
    ends(Ask("set_watches", OpCode.SET_WATCHES, lambda _: int64(0) + int32(1), xid=-8)),
)
