"""Which paths are taken, in writes and in reads, without a client library that checks before."""

from __future__ import annotations

from coordsvc.testing.zookeeper_records import WORLD, OpCode, acls, boolean, buffer, int32
from tests.differential import shapes
from tests.differential.case import Ask, Group, differs
from tests.differential.requests import (
    all_children_number,
    children,
    children2,
    create,
    delete,
    exists,
    get_acl,
    get_data,
    get_ephemerals,
    set_acl,
    set_data,
    sync,
)
from tests.differential.world import World

GROUP = Group("paths")
case = GROUP.case

BAD = {
    "null": None,
    "empty": "",
    "no slash": "a",
    "a slash at the end": "~/a/",
    "two slashes": "~//a",
    "two slashes alone": "//",
    "a dot": "~/.",
    "a dot within": "~/./a",
    "two dots": "~/..",
    "two dots within": "~/../a",
    "U+0000": "~/a\0b",
    "U+0000 at the end": "~/a\0",
    "U+0001": "~/a\x01",
    "U+001F": "~/\x1fa",
    "U+007F": "~/\x7f",
    "U+009F": "~/\x9f",
    "U+FFF0": "~/\ufff0",
    "U+FFFF": "~/\uffff",
}
ODD = {
    "three dots": "~/...",
    "a dot before a name": "~/.a",
    "a dot behind a name": "~/a.",
    "two dots before a name": "~/..a",
    "a space": "~/ ",
    "U+00A0": "~/\xa0",
    "letters": "~/äöü-ß-é",
    "decomposed and composed": "~/e\u0301",
    "U+D7FF": "~/\ud7ff",
    "U+F900": "~/\uf900",
    "U+FFEF": "~/\uffef",
    "other scripts": "~/日本-Ελ-עב",
    "a percent sign": "~/%2e%2e",
    "a backslash": "~/\\..\\",
    "a line separator": "~/\u2028",
    "a byte order mark": "~/\ufeff",
}
OURS_ONLY = {
    "U+E000": "~/\ue000",
    "U+F8FF": "~/\uf8ff",
    "U+1F600": "~/\U0001f600",
    "U+10FFFF": "~/\U0010ffff",
}

for name, path in BAD.items():
    case(f"create, {name}", create(path))
    case(f"sequential create, {name}", create(path, flags=2))
    if path is None:
        continue
    case(f"other writes, {name}", delete(path), set_data(path, b""), set_acl(path, WORLD))
    if path:
        reads = (exists(path), get_data(path), children(path), children2(path), get_acl(path))
        case(f"reads, {name}", *reads)
case(
    "reads and a delete, null",
    delete(None),
    exists(None),
    get_data(None),
    children(None),
    children2(None),
    get_acl(None),
)
for step in (set_data(None, b""), set_acl(None, WORLD)):
    case(
        f"{step.text}, null",
        differs("null-path", step, zookeeper="BADARGUMENTS", coordsvc="MARSHALLINGERROR"),
    )
for step in (exists(""), get_data(""), children(""), children2(""), get_acl("")):
    case(
        f"{step.text}, empty",
        differs("empty-path", step, zookeeper="OK ", coordsvc="NONODE"),
    )
for name, path in ODD.items():
    case(
        f"allowed: {name}",
        create(path, b"x"),
        exists(path),
        get_data(path),
        children("~"),
        delete(path),
    )
for name, path in OURS_ONLY.items():
    case(
        f"allowed here alone: {name}",
        differs(
            "path-characters", create(path, b"x"), zookeeper="BADARGUMENTS", coordsvc="OK path="
        ),
        differs("path-characters", get_data(path), zookeeper="NONODE", coordsvc="OK data=b'x'"),
        differs("path-characters", delete(path), zookeeper="NONODE", coordsvc="OK"),
    )
for name, path in (("a slash at the end", "~/"), ("a name and a slash", "~/a/")):
    case(f"sequential, {name}", create(path, flags=2), create(path, flags=3), children("~"))
case("sequential, a folder and a slash", create("~/a"), create("~/a/", flags=2), children("~/a"))

case(
    "sync of any path",
    sync("~"),
    sync("~/a"),
    sync("/"),
    sync(""),
    sync("a"),
    sync("~//"),
    sync(None),
)
case(
    "getEphemerals of odd paths",
    get_ephemerals("~/a"),
    get_ephemerals("~//"),
    get_ephemerals("a"),
    get_ephemerals(""),
    get_ephemerals(None),
)
case(
    "getAllChildrenNumber of odd paths",
    all_children_number("~"),
    all_children_number("~/a"),
    all_children_number("~//"),
    all_children_number("~/"),
    all_children_number("a"),
)
case(
    "getAllChildrenNumber of an empty path",
    differs("empty-path", all_children_number(""), zookeeper="OK ", coordsvc="NONODE"),
)
case("getAllChildrenNumber of null", all_children_number(None))


for name, raw in (
    ("a byte that is not UTF-8", b"\xff"),
    ("a surrogate in UTF-8", b"\xed\xa0\x80"),
    ("a name cut in the middle of a character", b"\xc3"),
    ("an overlong slash", b"\xc0\xafa"),
):

    def spelled(world: World, raw: bytes = raw) -> bytes:
        return buffer(f"{world.folder}/".encode() + raw)

    case(
        f"create, {name}",
        Ask(
            "create",
            OpCode.CREATE,
            lambda world, spelled=spelled: spelled(world) + buffer(b"") + acls(WORLD) + int32(0),
            shapes.path,
        ),
        children("~"),
    )
    case(
        f"exists, {name}",
        Ask(
            "exists",
            OpCode.EXISTS,
            lambda world, spelled=spelled: spelled(world) + boolean(False),
            shapes.stat,
        ),
    )

for depth in (200, 1000):
    case(
        f"{depth} components, none of which exists",
        create("~" + "/a" * depth),
        exists("~" + "/a" * depth),
    )
case(
    "a name of 1,000 characters",
    create("~/" + "a" * 1000),
    exists("~/" + "a" * 1000),
    children("~"),
)
case(
    "a name of 5,000 characters",
    differs(
        "path-length", create("~/" + "a" * 5000), zookeeper="OK path=", coordsvc="BADARGUMENTS"
    ),
    differs("path-length", exists("~/" + "a" * 5000), zookeeper="OK stat", coordsvc="BADARGUMENTS"),
)
