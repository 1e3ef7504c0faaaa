"""What ZooKeeper does not survive. It comes last: the servers asked are gone afterwards; after the
second request for good, because they find it in their logs when they are started again."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import OpCode, text
from tests.differential import shapes
from tests.differential.case import Ask, Group, ask, differs
from tests.differential.requests import create_ttl
from tests.differential.runner import FOLDER
from tests.differential.steps import connect
from tests.differential.world import ALONE

GROUP = Group("last")

GROUP.case(
    "what ends ZooKeeper",
    differs(
        "create-unreadable",
        Ask(
            "a create cut short", OpCode.CREATE, lambda world: text(world.path("~/a")), shapes.path
        ),
        zookeeper="connection closed",
        coordsvc="MARSHALLINGERROR",
    ),
    connect("B", server=ALONE),
    differs(
        "ttl-of-a-plain-znode",
        ask(create_ttl(f"{FOLDER}-ttl", -1, flags=0), on="B"),
        zookeeper="connection closed",
        coordsvc="BADARGUMENTS",
    ),
)
