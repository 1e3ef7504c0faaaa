"""Watches that fire once."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import WORLD, Acl
from tests.differential.case import Group, ask, loosely
from tests.differential.requests import (
    children,
    children2,
    close_session,
    create,
    delete,
    exists,
    get_data,
    multi,
    multi_read,
    set_acl,
    set_data,
    sync,
)
from tests.differential.steps import connect, drop, events, pipeline, until_gone

GROUP = Group("watches")
case = GROUP.case

case(
    "exists on nothing, then created",
    exists("~/a", True),
    create("~/a"),
    set_data("~/a", b"x"),
    events(),
)
case("exists on nothing, created ephemeral", exists("~/a", True), create("~/a", flags=1), events())
case(
    "exists on nothing, created sequential",
    exists("~/a-0000000000", True),
    create("~/a-", flags=2),
    events(),
)
case(
    "exists, then changed",
    create("~/a"),
    exists("~/a", True),
    set_data("~/a", b"x"),
    set_data("~/a", b"y"),
    events(),
)
case(
    "exists, then deleted",
    create("~/a"),
    exists("~/a", True),
    delete("~/a"),
    create("~/a"),
    events(),
)
case(
    "getData, then changed",
    create("~/a"),
    get_data("~/a", True),
    set_data("~/a", b""),
    delete("~/a"),
    events(),
)
case("getData, then deleted", create("~/a"), get_data("~/a", True), delete("~/a"), events())
case("getData of nothing leaves no watch", get_data("~/a", True), create("~/a"), events())
case(
    "getChildren of nothing leaves no watch",
    children("~/a", True),
    create("~/a"),
    create("~/a/b"),
    events(),
)
case("getChildren, then a child comes", children("~", True), create("~/a"), create("~/b"), events())
case(
    "getChildren2, then a child goes", create("~/a"), children2("~", True), delete("~/a"), events()
)
case(
    "getChildren, then a child changes",
    create("~/a"),
    children("~", True),
    set_data("~/a", b"x"),
    events(),
)
case(
    "getChildren, then a grandchild comes",
    create("~/a"),
    children("~", True),
    create("~/a/b"),
    events(),
)
case(
    "getChildren, then the parent goes",
    create("~/p"),
    children("~/p", True),
    delete("~/p"),
    events(),
)
case(
    "getChildren, then the parent changes",
    create("~/p"),
    children("~/p", True),
    set_data("~/p", b""),
    events(),
)
case(
    "all kinds on one that goes",
    create("~/p"),
    exists("~/p", True),
    get_data("~/p", True),
    children("~/p", True),
    children("~", True),
    delete("~/p"),
    create("~/p"),
    events(),
)
case(
    "asked twice, told once",
    create("~/a"),
    get_data("~/a", True),
    get_data("~/a", True),
    set_data("~/a", b""),
    events(),
)
case(
    "exists and getData are one",
    create("~/a"),
    exists("~/a", True),
    get_data("~/a", True),
    delete("~/a"),
    events(),
)
case(
    "one that is not asked for again",
    exists("~/a", True),
    exists("~/a", False),
    create("~/a"),
    events(),
)
case(
    "setACL tells nobody",
    create("~/a"),
    get_data("~/a", True),
    children("~/a", True),
    set_acl("~/a", WORLD),
    events(),
)
case(
    "what is refused tells nobody",
    create("~/a"),
    get_data("~/a", True),
    set_data("~/a", b"", 9),
    delete("~/a", 9),
    create("~/a"),
    events(),
)
case(
    "a sync and a check tell nobody",
    create("~/a"),
    get_data("~/a", True),
    sync("~/a"),
    multi(),
    events(),
)
case(
    "the event comes before the reply to the write",
    create("~/a"),
    get_data("~/a", True),
    children("~", True),
    delete("~/a"),
)
case(
    "the event comes before a read that shows the change",
    create("~/a"),
    get_data("~/a", True),
    pipeline(set_data("~/a", b"x"), get_data("~/a")),
)
case(
    "another session is told, too",
    connect("B"),
    create("~/a"),
    ask(get_data("~/a", True), on="B"),
    ask(children("~", True), on="B"),
    set_data("~/a", b"x"),
    delete("~/a"),
    events("B"),
)
case(
    "a multi's events, in the order of its operations",
    create("~/old"),
    exists("~/a", True),
    exists("~/a/b", True),
    get_data("~/old", True),
    children("~", True),
    multi(create("~/a"), create("~/a/b"), set_data("~/a", b"x"), delete("~/old")),
    events(),
)
case(
    "a refused multi tells nobody",
    exists("~/a", True),
    children("~", True),
    multi(create("~/a"), delete("~/none")),
    events(),
)
case(
    "created and deleted in one multi",
    exists("~/a", True),
    children("~", True),
    multi(create("~/a"), delete("~/a")),
    events(),
)
case(
    "the end of a session",
    connect("B"),
    ask(create("~/e", flags=1), on="B"),
    exists("~/e", True),
    children("~", True),
    ask(close_session(), on="B"),
    until_gone("~/e", 10, "A"),
    events(),
)
case(
    "a watch goes with its connection",
    create("~/a"),
    get_data("~/a", True),
    drop("A"),
    connect("B", of="A"),
    loosely(ask(set_data("~/a", b"x"), on="B")),
    events("B"),
)
case(
    "multiRead leaves no watch",
    create("~/a"),
    multi_read(get_data("~/a", True), children("~", True)),
    set_data("~/a", b""),
    create("~/b"),
    events(),
)
case(
    "exists without READ leaves no watch",
    create("~/a", acl=(Acl(30, "world", "anyone"),)),
    exists("~/a", True),
    set_data("~/a", b""),
    set_acl("~/a", WORLD),
    delete("~/a"),
    events(),
)
case(
    "getData without READ leaves no watch",
    create("~/a", acl=(Acl(30, "world", "anyone"),)),
    get_data("~/a", True),
    set_acl("~/a", WORLD),
    delete("~/a"),
    events(),
)
