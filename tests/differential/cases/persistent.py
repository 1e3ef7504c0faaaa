"""Watches that stay."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import WORLD, Acl, WatchMode
from tests.differential.case import Group, ask, differs
from tests.differential.requests import (
    add_watch,
    children,
    close_session,
    create,
    delete,
    get_data,
    multi,
    set_acl,
    set_data,
)
from tests.differential.steps import connect, events, until_gone

GROUP = Group("persistent watches")
case = GROUP.case

IN_DEPTH = WatchMode.PERSISTENT_RECURSIVE


case(
    "persistent: the znode and its children",
    create("~/a"),
    add_watch("~/a"),
    set_data("~/a", b"1"),
    create("~/a/b"),
    set_data("~/a/b", b"2"),
    create("~/a/b/c"),
    delete("~/a/b/c"),
    delete("~/a/b"),
    delete("~/a"),
    create("~/a"),
    events(),
)
case(
    "persistent and recursive: everything below",
    create("~/a"),
    add_watch("~/a", IN_DEPTH),
    set_data("~/a", b"1"),
    create("~/a/b"),
    set_data("~/a/b", b"2"),
    create("~/a/b/c"),
    delete("~/a/b/c"),
    delete("~/a/b"),
    create("~/ab"),
    delete("~/a"),
    create("~/a"),
    events(),
)
case(
    "persistent on nothing",
    add_watch("~/a"),
    create("~/a"),
    delete("~/a"),
    create("~/a", flags=1),
    events(),
)
case("recursive on nothing", add_watch("~/a", IN_DEPTH), create("~/a"), create("~/a/b"), events())
case(
    "recursive on the folder above",
    add_watch("~", IN_DEPTH),
    create("~/a"),
    set_data("~", b"x"),
    events(),
)
case(
    "both on one path",
    create("~/a"),
    add_watch("~/a"),
    add_watch("~/a", IN_DEPTH),
    set_data("~/a", b""),
    create("~/a/b"),
    delete("~/a/b"),
    delete("~/a"),
    events(),
)
case(
    "recursive, then persistent",
    create("~/a"),
    add_watch("~/a", IN_DEPTH),
    add_watch("~/a"),
    create("~/a/b"),
    set_data("~/a/b", b""),
    events(),
)
case(
    "persistent, and one that fires once",
    create("~/a"),
    add_watch("~/a"),
    get_data("~/a", True),
    children("~/a", True),
    set_data("~/a", b""),
    create("~/a/b"),
    set_data("~/a", b"2"),
    delete("~/a/b"),
    delete("~/a"),
    events(),
)
case(
    "one that fires once, then persistent",
    create("~/a"),
    get_data("~/a", True),
    add_watch("~/a"),
    set_data("~/a", b""),
    set_data("~/a", b""),
    delete("~/a"),
    events(),
)
case(
    "recursive above, and one that fires once",
    create("~/a"),
    add_watch("~", IN_DEPTH),
    children("~", True),
    get_data("~/a", True),
    set_data("~/a", b""),
    create("~/b"),
    delete("~/a"),
    create("~/c"),
    events(),
)
case(
    "recursive at two levels",
    create("~/a"),
    add_watch("~", IN_DEPTH),
    add_watch("~/a", IN_DEPTH),
    create("~/a/b"),
    set_data("~/a/b", b""),
    delete("~/a/b"),
    events(),
)
case(
    "addWatch twice",
    create("~/a"),
    add_watch("~/a"),
    add_watch("~/a"),
    set_data("~/a", b""),
    events(),
)
case(
    "addWatch of an unknown mode",
    create("~/a"),
    add_watch("~/a", 2),
    add_watch("~/a", -1),
    set_data("~/a", b""),
    events(),
)
case("addWatch of a bad path", add_watch("~/"), add_watch("a"), add_watch("~//a"), events())
case("addWatch of an empty path", add_watch(""), events())
case(
    "addWatch of null",
    differs("null-path", add_watch(None), zookeeper="OK", coordsvc="MARSHALLINGERROR"),
)
case(
    "addWatch asks for no right",
    create("~/a", acl=(Acl(30, "world", "anyone"),)),
    add_watch("~/a"),
    set_data("~/a", b"x"),
    set_acl("~/a", WORLD),
    set_data("~/a", b"y"),
    events(),
)
case(
    "recursive at the root",
    connect("B"),
    ask(add_watch("/", IN_DEPTH), on="B"),
    create("~/a"),
    delete("~/a"),
    events("B"),
)
case(
    "recursive: a multi",
    add_watch("~", IN_DEPTH),
    multi(create("~/a"), create("~/a/b"), set_data("~/a", b""), delete("~/a/b")),
    events(),
)
case(
    "recursive: the end of a session",
    connect("B"),
    ask(create("~/e", flags=1), on="B"),
    add_watch("~", IN_DEPTH),
    ask(close_session(), on="B"),
    until_gone("~/e", 10, "A"),
    events(),
)
case(
    "recursive without READ below",
    add_watch("~", IN_DEPTH),
    create("~/a", acl=(Acl(30, "world", "anyone"),)),
    set_data("~/a", b""),
    create("~/a/b"),
    delete("~/a/b"),
    delete("~/a"),
    events(),
)
