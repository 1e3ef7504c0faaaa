"""Sessions: how they begin, go on elsewhere, and end."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import int32, int64, packet
from tests.differential.case import Group, Step, ask, differs, loosely
from tests.differential.requests import (
    children,
    close_session,
    create,
    exists,
    get_data,
    get_ephemerals,
    ping,
    sync,
)
from tests.differential.steps import (
    connect,
    drop,
    ending,
    ends,
    mark,
    pause,
    pipeline,
    raw,
    tcp,
    until_gone,
    zxids_since,
)
from tests.differential.world import OTHER, World

GROUP = Group("sessions")
case = GROUP.case

WRONG = b"a wrong password"

case("a session", connect("B"), ask(exists("~"), on="B"), ask(close_session(), on="B"), ending("B"))
case(
    "a client from before there was readOnly",
    connect("B", read_only=None),
    ask(exists("~"), on="B"),
)
case(
    "a client that would be content with reads alone",
    connect("B", read_only=True),
    ask(create("~/a"), on="B"),
)
for asked in (4_000, 10_000, 40_000):
    case(f"a timeout of {asked} ms", connect("B", timeout_ms=asked))
for asked, theirs, ours in (
    (3_999, 4_000, 3_999),
    (1, 4_000, 1_000),
    (0, 4_000, 1_000),
    (-1, 4_000, 1_000),
    (-(2**31), 4_000, 1_000),
    (40_001, 40_000, 40_001),
    (2**31 - 1, 40_000, 120_000),
):
    case(
        f"a timeout of {asked} ms",
        differs(
            "timeout-bounds",
            connect("B", timeout_ms=asked),
            zookeeper=f"timeout={theirs} session=s",
            coordsvc=f"timeout={ours} session=s",
        ),
    )
case("a new session's password does not matter", connect("B", password=WRONG))
case("a new session with an empty password", connect("B", password=b""))
case(
    "a new session's zxid of 0 and of the past",
    mark("m"),
    connect("B", last_zxid="m"),
    connect("C"),
)
case(
    "a client that has seen more",
    create("~/a"),
    mark("m"),
    connect("B", last_zxid="m", ahead=1_000_000),
)
case("a client that has seen the largest zxid", connect("B", last_zxid=2**63 - 1))
case("a client that has seen a negative zxid", connect("B", last_zxid=-7))

case(
    "the session is taken up again",
    create("~/e", b"x", flags=1),
    drop("A"),
    connect("B", of="A"),
    loosely(ask(get_data("~/e"), on="B")),
    loosely(ask(get_ephemerals("~"), on="B")),
    loosely(ask(create("~/f", flags=1), on="B")),
    loosely(ask(close_session(), on="B")),
    connect("C"),
    loosely(ask(exists("~/e"), on="C")),
    loosely(ask(exists("~/f"), on="C")),
)
case(
    "to take a session up is a write",
    create("~/a"),
    mark("m"),
    drop("A"),
    connect("B", of="A"),
    loosely(ask(exists("~"), on="B")),
    differs("attach-zxid", zxids_since("m", on="B"), zookeeper="0", coordsvc="1"),
)
case(
    "it is taken up with another timeout",
    drop("A"),
    connect("B", of="A", timeout_ms=20_000),
    loosely(ask(exists("~"), on="B")),
)
case(
    "it is taken up while its connection lives",
    connect("B", of="A"),
    ending("A"),
    loosely(ask(exists("~"), on="B")),
)
case(
    "it is taken up elsewhere",
    drop("A"),
    connect("B", of="A", server=OTHER),
    loosely(ask(create("~/a"), on="B")),
    loosely(ask(sync("~"), on="B")),
    connect("C"),
    loosely(ask(sync("~"), on="C")),
    loosely(ask(exists("~/a"), on="C")),
)
case(
    "it is taken up elsewhere, and the old connection writes",
    connect("B", of="A", server=OTHER),
    loosely(ask(exists("~"), on="B")),
    differs(
        "session-moved",
        loosely(ends(create("~/a"))),
        zookeeper="connection closed",
        coordsvc="SESSIONMOVED\nconnection closed",
    ),
    loosely(ask(sync("~"), on="B")),
    loosely(ask(exists("~/a"), on="B")),
)
case("with a wrong password", drop("A"), connect("B", of="A", password=WRONG), connect("C", of="A"))
case("with an empty password", drop("A"), connect("B", of="A", password=b""))
case("with a short password", drop("A"), connect("B", of="A", password=b"short"))
case("elsewhere with a wrong password", drop("A"), connect("B", of="A", password=WRONG, server=1))
case(
    "a wrong password, and the right one is still connected",
    connect("B", of="A", password=WRONG),
    differs("wrong-password", exists("~"), zookeeper="closed", coordsvc="OK stat"),
)
case("an unknown session", connect("B", session_id=0x1234567812345678, password=WRONG))
case(
    "an unknown session elsewhere",
    connect("B", session_id=0x1234567812345678, password=WRONG, server=1),
)
case("a negative session", connect("B", session_id=-3, password=WRONG))
case(
    "a session that was closed",
    connect("B"),
    ask(close_session(), on="B"),
    ending("B"),
    connect("C", of="B"),
)
case("an old session and a zxid to come", drop("A"), connect("B", of="A", last_zxid=2**62))

case("closeSession", ends(close_session()))
case("closeSession with a negative xid", ends(close_session(-9)))
case(
    "closeSession deletes the ephemerals at one zxid",
    connect("B"),
    ask(create("~/a", flags=1), on="B"),
    ask(create("~/b", flags=1), on="B"),
    exists("~/a", True),
    exists("~/b", True),
    mark("m"),
    ask(close_session(), on="B"),
    until_gone("~/b", 10, "A"),
    zxids_since("m"),
    children("~"),
)
case(
    "what comes behind closeSession is not answered",
    pipeline(create("~/a"), close_session(), create("~/b"), replies=3),
    connect("B"),
    ask(children("~"), on="B"),
)
case(
    "a session expires",
    connect("B", timeout_ms=4_000),
    ask(create("~/e", flags=1), on="B"),
    exists("~/e", True),
    drop("B"),
    until_gone("~/e", 20, "A"),
    connect("C", of="B"),
)
case(
    "pings keep it",
    connect("B", timeout_ms=4_000),
    ask(create("~/e", flags=1), on="B"),
    pause(2),
    loosely(ask(ping(), on="B")),
    pause(2),
    loosely(ask(ping(), on="B")),
    pause(2),
    loosely(ask(exists("~/e"), on="B")),
)
case(
    "reads keep it",
    connect("B", timeout_ms=4_000),
    ask(create("~/e", flags=1), on="B"),
    pause(2.5),
    loosely(ask(exists("~"), on="B")),
    pause(2.5),
    loosely(ask(exists("~/e"), on="B")),
)
case(
    "silence ends the connection and the session",
    connect("B", timeout_ms=4_000),
    ask(create("~/e", flags=1), on="B"),
    until_gone("~/e", 20, "A"),
    ending("B"),
)
case("requests before the session", tcp("B"), raw("exists", packet(int32(1) + int32(3)), "B"))

for name, body in (
    ("cut short", int32(0) + int64(0)),
    ("empty", b""),
    ("without a password", int32(0) + int64(0) + int32(10_000) + int64(0)),
    (
        "with a password longer than the packet",
        int32(0) + int64(0) + int32(10_000) + int64(0) + int32(99),
    ),
):
    case(f"a connect request {name}", tcp("B"), raw(name, packet(body), "B"), is_bare=True)


def odd_connect(what: str, body: bytes) -> Step:
    def run(world: World) -> list[str]:
        link = world.open("B")
        link.wire.send(packet(body))
        return world.connected(link)

    return Step(f"connect: {what}", run)


PLAIN = int32(0) + int64(0) + int32(10_000) + int64(0) + int32(16) + bytes(16)
case("a protocol version of 7", odd_connect("version 7", int32(7) + PLAIN[4:] + b"\0"))
case("a null password", odd_connect("null", PLAIN[:-20] + int32(-1) + b"\0"))
case("more behind the connect request", odd_connect("more", PLAIN + b"\0more"))
case("a readOnly byte that is neither 0 nor 1", odd_connect("readOnly 5", PLAIN + b"\5"))
