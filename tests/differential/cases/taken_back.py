"""checkWatches and removeWatches."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import WatcherType, WatchMode
from tests.differential.case import Group, ask, differs
from tests.differential.requests import (
    add_watch,
    check_watches,
    children,
    create,
    delete,
    exists,
    get_data,
    remove_watches,
    set_data,
)
from tests.differential.steps import connect, events

GROUP = Group("watches taken back")
case = GROUP.case

CHILDREN, DATA, ANY, PERSISTENT, RECURSIVE = map(int, WatcherType)
IN_DEPTH = WatchMode.PERSISTENT_RECURSIVE


NAMES = {
    CHILDREN: "children",
    DATA: "data",
    ANY: "any",
    PERSISTENT: "persistent",
    RECURSIVE: "recursive",
}
for kind, name in NAMES.items():
    case(
        f"{name}: none is there",
        create("~/a"),
        check_watches("~/a", kind),
        remove_watches("~/a", kind),
    )
    case(
        f"{name}: all are there",
        create("~/a"),
        exists("~/a", True),
        children("~/a", True),
        add_watch("~/a"),
        check_watches("~/a", kind),
        remove_watches("~/a", kind),
        check_watches("~/a", kind),
        remove_watches("~/a", kind),
        set_data("~/a", b""),
        create("~/a/b"),
        delete("~/a/b"),
        delete("~/a"),
        events(),
    )
    case(
        f"{name}: a recursive one is there",
        create("~/a"),
        add_watch("~/a", IN_DEPTH),
        check_watches("~/a", kind),
        check_watches("~/a/b", kind),
        remove_watches("~/a", kind),
        check_watches("~/a", kind),
        create("~/a/b"),
        events(),
    )
    case(
        f"{name}: one that fires once beside a recursive one",
        create("~/a"),
        add_watch("~/a", IN_DEPTH),
        get_data("~/a", True),
        remove_watches("~/a", kind),
        set_data("~/a", b""),
        create("~/a/b"),
        events(),
    )
case(
    "data: only children are there",
    create("~/a"),
    children("~/a", True),
    check_watches("~/a", DATA),
    remove_watches("~/a", DATA),
)
case(
    "children: only data is there",
    create("~/a"),
    get_data("~/a", True),
    check_watches("~/a", CHILDREN),
    remove_watches("~/a", CHILDREN),
)
case(
    "data: an exists of nothing",
    exists("~/a", True),
    check_watches("~/a", DATA),
    remove_watches("~/a", DATA),
    create("~/a"),
    events(),
)
case(
    "one that has fired is gone",
    create("~/a"),
    get_data("~/a", True),
    set_data("~/a", b""),
    check_watches("~/a", DATA),
)
case(
    "those of others do not count",
    connect("B"),
    create("~/a"),
    ask(get_data("~/a", True), on="B"),
    check_watches("~/a"),
    remove_watches("~/a"),
    set_data("~/a", b""),
    events("B"),
)
case(
    "unknown types",
    create("~/a"),
    get_data("~/a", True),
    check_watches("~/a", 0),
    check_watches("~/a", 6),
    remove_watches("~/a", -1),
    events(),
)
case(
    "of bad paths", check_watches("a"), remove_watches("~//"), check_watches(""), remove_watches("")
)
case(
    "checkWatches and removeWatches of null",
    differs("null-path", check_watches(None), zookeeper="NOWATCHER", coordsvc="MARSHALLINGERROR"),
    differs("null-path", remove_watches(None), zookeeper="NOWATCHER", coordsvc="MARSHALLINGERROR"),
)
