"""Packets that are none, and those that are too long."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import (
    WORLD,
    OpCode,
    acls,
    buffer,
    int32,
    int64,
    packet,
    request,
    text,
)
from tests.differential import shapes
from tests.differential.case import Ask, Group, Step, differs
from tests.differential.requests import children, create, delete, exists, get_data, multi
from tests.differential.steps import ends, raw, tcp
from tests.differential.world import ALONE, World

GROUP = Group("packets", server=ALONE)
case = GROUP.case

PACKET_MAX = 0xFFFFF
"""jute.maxbuffer: bytes behind the length."""


for name, data in (
    ("a length of -1", int32(-1)),
    ("the least length", int32(-(2**31))),
    ("the largest length", int32(2**31 - 1)),
    ("a length one above the largest packet", int32(PACKET_MAX + 1)),
    ("a length of 0", int32(0)),
    ("a header cut short", packet(int32(1))),
    ("a header cut shorter", packet(b"\0")),
):
    case(f"{name}", raw(name, data))
    case(f"{name}, as the first", tcp("B"), raw(name, data, "B"), is_bare=True)
for name, data in (
    ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("the beginning of TLS", bytes.fromhex("16030100a5010000a10303") + bytes(160)),
    ("zeros", bytes(64)),
    ("ones", b"\xff" * 64),
    ("letters", b"abcdefghijklmnopqrstuvwxyz"),
):
    case(f"{name}, as the first", tcp("B"), raw(name, data, "B"), is_bare=True)
    case(f"{name}, in a session", raw(name, data))

FIELDS = text("/differential") + buffer(b"x") + acls(WORLD) + int32(0)
NONE = text("/differential/none")
SET = NONE + buffer(b"x") + int32(-1)
for name, op, body in (
    ("create without a body", OpCode.CREATE, b""),
    ("create cut within the path", OpCode.CREATE, FIELDS[:7]),
    ("create cut within the ACL", OpCode.CREATE, FIELDS[:-12]),
    ("create without flags", OpCode.CREATE, FIELDS[:-4]),
    ("create2 cut short", OpCode.CREATE2, FIELDS[:-2]),
    ("createTTL without a TTL", OpCode.CREATE_TTL, FIELDS),
    ("createContainer cut short", OpCode.CREATE_CONTAINER, FIELDS[:-1]),
    ("create with a path of negative length", OpCode.CREATE, int32(-2) + FIELDS[17:]),
    ("setData without a body", OpCode.SET_DATA, b""),
    ("setData cut within the path", OpCode.SET_DATA, SET[:7]),
    ("setData cut behind the path", OpCode.SET_DATA, NONE),
    ("setData cut within the data", OpCode.SET_DATA, SET[:-5]),
    ("setData with a path longer than the packet", OpCode.SET_DATA, int32(10_000) + b"/a"),
    ("setData with a path of negative length", OpCode.SET_DATA, int32(-2) + SET[-9:]),
    ("setData with data of negative length", OpCode.SET_DATA, NONE + int32(-2) + int32(-1)),
    ("setData with data longer than the largest packet", OpCode.SET_DATA, NONE + int32(2**30)),
    ("setACL with an ACL of many entries", OpCode.SET_ACL, NONE + int32(2**31 - 1) + acls(WORLD)),
    ("setACL with an ACL of negative length", OpCode.SET_ACL, NONE + int32(-5) + int32(-1)),
    ("setACL cut within the ACL", OpCode.SET_ACL, NONE + acls(WORLD)[:-3]),
    ("setACL without a version", OpCode.SET_ACL, NONE + acls(WORLD)),
    ("delete without a version", OpCode.DELETE, text("/differential/none")),
    ("setData without a version", OpCode.SET_DATA, text("/differential/none") + buffer(b"")),
    ("setACL without a body", OpCode.SET_ACL, b""),
    ("getData without a watch", OpCode.GET_DATA, text("/differential")),
    ("getData without a body", OpCode.GET_DATA, b""),
    ("getData with a path longer than the packet", OpCode.GET_DATA, int32(99) + b"/a"),
    ("exists without a body", OpCode.EXISTS, b""),
    ("getACL without a body", OpCode.GET_ACL, b""),
    ("getChildren without a body", OpCode.GET_CHILDREN, b""),
    ("getChildren2 without a body", OpCode.GET_CHILDREN2, b""),
    ("sync without a body", OpCode.SYNC, b""),
    ("getEphemerals without a body", OpCode.GET_EPHEMERALS, b""),
    ("getAllChildrenNumber without a body", OpCode.GET_ALL_CHILDREN_NUMBER, b""),
    ("addWatch without a mode", OpCode.ADD_WATCH, text("/differential")),
    ("checkWatches without a type", OpCode.CHECK_WATCHES, text("/differential")),
    ("removeWatches without a body", OpCode.REMOVE_WATCHES, b""),
    ("setWatches without a body", OpCode.SET_WATCHES, b""),
    ("setWatches2 without the last vectors", OpCode.SET_WATCHES2, int64(0) + int32(0) * 3),
    ("setWatches with many paths", OpCode.SET_WATCHES, int64(0) + int32(2**30)),
):
    case(name, Ask(name, op, lambda _, body=body: body, shapes.stat), exists("~"))
for name, body in (("without a body", b""), ("cut short", int32(0) + text("digest"))):
    case(
        f"addAuth {name}",
        differs(
            "auth-unreadable",
            Ask(f"addAuth {name}", OpCode.AUTH, lambda _, body=body: body),
            zookeeper="connection closed",
            coordsvc="MARSHALLINGERROR",
        ),
    )
case(
    "getData with more behind it",
    Ask(
        "more", OpCode.GET_DATA, lambda world: text(world.folder) + b"\0more", shapes.data_and_stat
    ),
    exists("~"),
)
case(
    "a ping with a body",
    Ask("ping with a body", OpCode.PING, lambda _: b"body", xid=-2),
    exists("~"),
)
case(
    "a closeSession with a body",
    ends(Ask("closeSession with a body", OpCode.CLOSE_SESSION, lambda _: b"body")),
)
case(
    "whoAmI with a body",
    Ask("whoAmI with a body", OpCode.WHO_AM_I, lambda _: b"body", shapes.identities),
)

# ------------------------------------------------------------------------------------- sizes


def filling(size: int) -> Ask:
    """A setData whose packet has `size` bytes."""

    def body(world: World) -> bytes:
        path = text(world.path("~/a"))
        data = bytes(size - 8 - len(path) - 4 - 4)
        return path + buffer(data) + int32(-1)

    return Ask(f"setData, a packet of {size} bytes", OpCode.SET_DATA, body, shapes.stat)


case("the largest packet", create("~/a"), filling(PACKET_MAX), exists("~/a"))
case("one byte more than the largest packet", create("~/a"), ends(filling(PACKET_MAX + 1)))
case("a large packet, and its reply", create("~/a"), filling(PACKET_MAX - 1000), get_data("~/a"))
case("a create of 1,000,000 bytes", create("~/a", b"x" * 1_000_000), get_data("~/a"), delete("~/a"))


def _in_pieces(world: World) -> list[str]:
    link = world.links["A"]
    link.awaited[5] = shapes.path
    ask_for = create("~/a", b"x")
    for byte in request(5, ask_for.op, ask_for.body(world)):
        link.wire.send(bytes([byte]))
    return world.replies(link)


case("a packet in pieces", Step("a create, byte by byte", _in_pieces), exists("~/a"))
case(
    "a list of children larger than a packet",
    *(
        multi(*(create(f"~/{'n' * 200}{block:03}{number:03}") for number in range(500)))
        for block in range(12)
    ),
    children("~"),
    exists("~"),
)
