"""Access lists and identities."""

from __future__ import annotations

from dataclasses import replace

from coordsvc.testing.zookeeper_records import WORLD, Acl
from tests.differential import shapes
from tests.differential.case import Group, ask, differs, loosely
from tests.differential.requests import (
    add_watch,
    all_children_number,
    auth,
    check,
    children,
    create,
    create2,
    create_container,
    create_ttl,
    delete,
    digest,
    exists,
    get_acl,
    get_data,
    multi,
    multi_read,
    set_acl,
    set_data,
    sync,
    who_am_i,
)
from tests.differential.steps import connect, drop, ending, events

GROUP = Group("acls")
case = GROUP.case

READ, WRITE, CREATE, DELETE, ADMIN, ALL = 1, 2, 4, 8, 16, 31
ANN = digest("ann", "secret")
BEN = digest("ben", "other")


def world(permissions: int) -> tuple[Acl, ...]:
    return (Acl(permissions, "world", "anyone"),)


def of_ann(permissions: int = ALL) -> tuple[Acl, ...]:
    return (Acl(permissions, "digest", ANN),)


REFUSED = {
    "an unknown scheme": Acl(ALL, "unheard", "of"),
    "an empty scheme": Acl(ALL, "", "anyone"),
    "world with another id": Acl(ALL, "world", "someone"),
    "world without an id": Acl(ALL, "world", ""),
    "digest without a hash": Acl(ALL, "digest", "ann"),
    "digest with two colons": Acl(ALL, "digest", "a:b:c"),
    "digest without an id": Acl(ALL, "digest", ""),
    "ip with a name": Acl(ALL, "ip", "localhost"),
    "ip with too many bits": Acl(ALL, "ip", "10.0.0.0/33"),
    "ip with negative bits": Acl(ALL, "ip", "10.0.0.0/-1"),
    "ip with three numbers": Acl(ALL, "ip", "10.0.0"),
    "ip with a number too large": Acl(ALL, "ip", "10.0.0.256"),
    "ip without an id": Acl(ALL, "ip", ""),
    "auth without an identity": Acl(ALL, "auth", ""),
    "x509 without a name": Acl(ALL, "x509", ""),
    "sasl": Acl(ALL, "sasl", "ann"),
    "super": Acl(ALL, "super", "ann:x"),
}
TAKEN = {
    "a digest that is no hash": Acl(ALL, "digest", "ann:x"),
    "a digest with an empty hash": Acl(ALL, "digest", "ann:"),
    "a digest with an empty user": Acl(ALL, "digest", ":x"),
    "ip": Acl(ALL, "ip", "127.0.0.1"),
    "ip with bits": Acl(ALL, "ip", "127.0.0.0/8"),
    "ip of no bits": Acl(ALL, "ip", "127.0.0.1/0"),
    "IPv6": Acl(ALL, "ip", "::1"),
    "the super user": Acl(ALL, "digest", "super:x"),
}
for name, acl in REFUSED.items():
    case(f"create: {name}", create("~/a", acl=(acl,)), exists("~/a"))
    case(f"setACL: {name}", create("~/a"), set_acl("~/a", (acl,)), get_acl("~/a"))
for name, acl in TAKEN.items():
    case(f"taken: {name}", create("~/a", acl=(acl, *world(READ))), get_acl("~/a"), get_data("~/a"))
case(
    "an x509 name",
    differs(
        "x509-acl",
        create("~/a", acl=(Acl(ALL, "x509", "CN=ann"), *WORLD)),
        zookeeper="INVALIDACL",
        coordsvc="OK path=",
    ),
)
for permissions in (0, -1, 33):
    case(
        f"rights of {permissions}",
        differs(
            "acl-permissions",
            create("~/a", acl=(Acl(permissions, "world", "anyone"),)),
            zookeeper="OK path=",
            coordsvc="INVALIDACL",
        ),
        create("~/b"),
        differs(
            "acl-permissions",
            set_acl("~/b", (Acl(permissions, "world", "anyone"),)),
            zookeeper="OK stat",
            coordsvc="INVALIDACL",
        ),
    )
case("an empty ACL", create("~/a", acl=()), create2("~/a", acl=()), set_acl("~", ()))
case("a null ACL", create("~/a", acl=None), create2("~/a", acl=None), set_acl("~", None))
case(
    "an empty ACL of other kinds",
    create_container("~/a", acl=()),
    create_ttl("~/a", 1000, acl=()),
    multi(create("~/a", acl=())),
)
case("a good entry and a bad one", create("~/a", acl=(*WORLD, REFUSED["ip with a name"])))
case("an entry twice", create("~/a", acl=(*WORLD, *WORLD)), get_acl("~/a"))
case(
    "several entries keep their order",
    create("~/a", acl=(*world(READ), *of_ann(), *world(ADMIN), Acl(1, "ip", "10.0.0.1"))),
    get_acl("~/a"),
)

case("getACL of nothing", get_acl("~/a"))
case("getACL without rights", create("~/a", acl=world(WRITE | CREATE | DELETE)), get_acl("~/a"))
case("getACL with READ hides hashes", create("~/a", acl=(*world(READ), *of_ann())), get_acl("~/a"))
case(
    "getACL with ADMIN shows hashes", create("~/a", acl=(*world(ADMIN), *of_ann())), get_acl("~/a")
)
case(
    "getACL hides a digest without a hash",
    create("~/a", acl=(*world(READ), Acl(ALL, "digest", "ann:"), Acl(ALL, "ip", "1.2.3.4"))),
    get_acl("~/a"),
)

for name, permissions in (
    ("READ", READ), ("WRITE", WRITE), ("CREATE", CREATE), ("DELETE", DELETE), ("ADMIN", ADMIN),
):  # fmt: skip
    case(
        f"with {name} alone",
        create("~/a"),
        create("~/a/b"),
        set_acl("~/a", world(permissions)),
        exists("~/a"),
        get_data("~/a"),
        children("~/a"),
        all_children_number("~/a"),
        get_acl("~/a"),
        sync("~/a"),
        multi_read(get_data("~/a"), children("~/a")),
        set_data("~/a", b"x"),
        multi(check("~/a", -1)),
        create("~/a/c"),
        delete("~/a/b"),
        delete("~/a/c"),
        set_acl("~/a", world(permissions)),
    )
case(
    "rights on the child do not matter for its delete",
    create("~/a", acl=world(READ)),
    create("~/a/b"),
    delete("~/a"),
)
case("rights are not inherited", create("~/a"), set_acl("~", world(ALL & ~READ)), get_data("~/a"))

case("addAuth digest", auth("digest", b"ann:secret"), who_am_i())
case("addAuth twice", auth("digest", b"ann:secret"), auth("digest", b"ann:secret"), who_am_i())
case("addAuth of two", auth("digest", b"ann:secret"), auth("digest", b"ben:other"), who_am_i())
for name, credential in (
    ("without a colon", b"ann"),
    ("of nothing", b""),
    ("of a password alone", b":secret"),
    ("of bytes that are not UTF-8", b"\xff:\xfe"),
):
    case(f"addAuth {name}", auth("digest", credential), who_am_i())
case("addAuth with two colons", auth("digest", b"ann:a:b"), who_am_i())
case("addAuth null", auth("digest", None), ending())
case("addAuth ip", auth("ip", b""), who_am_i())
case("addAuth ip of another address", auth("ip", b"10.0.0.1"), who_am_i())
case("addAuth world", auth("world", b"anyone"), ending())
case("addAuth auth", auth("auth", b""), ending())
case("addAuth of an unknown scheme", auth("unheard", b"of"), ending())
case("addAuth of an empty scheme", auth("", b"x"), ending())
case("addAuth of no scheme", auth(None, b"x"), ending())
case("addAuth x509 without a certificate", auth("x509", b"CN=ann"), ending())
case("addAuth sasl", auth("sasl", b"x"), ending())
case("addAuth super with a wrong password", auth("digest", b"super:admin"), who_am_i())
case("addAuth of another type", auth("digest", b"ann:secret", kind=7), who_am_i())
case("whoAmI of one who says nothing", who_am_i())

case(
    "auth becomes the caller's identities",
    auth("digest", b"ann:secret"),
    create("~/a", acl=(Acl(ALL, "auth", ""),)),
    get_acl("~/a"),
    create("~/b", acl=(Acl(READ, "auth", "whatever"), *world(READ))),
    get_acl("~/b"),
    auth("digest", b"ben:other"),
    create("~/c", acl=(Acl(READ, "auth", ""),)),
    # ZooKeeper's order of the two is that of a hash set.
    replace(get_acl("~/c"), shape=shapes.sorted_acl),
)
case(
    "auth as a client library sends it",
    auth("digest", b"ann:secret"),
    create("~/a", acl=(Acl(ALL, "auth", ""), Acl(ALL, "auth", ""))),
    get_acl("~/a"),
    set_acl("~/a", (Acl(READ | ADMIN, "auth", ""),)),
    get_acl("~/a"),
)
case(
    "ip alone is no identity for auth", auth("ip", b""), create("~/a", acl=(Acl(ALL, "auth", ""),))
)
case(
    "a digest opens what is its own",
    create("~/a", b"x", acl=of_ann()),
    get_data("~/a"),
    exists("~/a"),
    auth("digest", b"ann:wrong"),
    get_data("~/a"),
    auth("digest", b"ann:secret"),
    get_data("~/a"),
    set_data("~/a", b"y", 0),
    get_acl("~/a"),
)
case(
    "identities are the connection's",
    auth("digest", b"ann:secret"),
    create("~/a", b"x", acl=of_ann()),
    drop("A"),
    connect("B", of="A"),
    loosely(ask(who_am_i(), on="B")),
    loosely(ask(get_data("~/a"), on="B")),
)
case(
    "an address opens what is its own",
    create("~/a", b"x", acl=(Acl(READ, "ip", "127.0.0.1"),)),
    get_data("~/a"),
    set_data("~/a", b""),
)
case(
    "another address does not",
    create("~/a", b"x", acl=(Acl(ALL, "ip", "10.0.0.1"),)),
    get_data("~/a"),
)
case(
    "a network opens what is its own",
    create("~/a", acl=(Acl(ALL, "ip", "127.9.9.9/8"),)),
    get_data("~/a"),
)
case("a network of no bits", create("~/a", acl=(Acl(ALL, "ip", "10.0.0.0/0"),)), get_data("~/a"))
case(
    "no READ, no event",
    connect("B"),
    create("~/a"),
    ask(exists("~/a", watch=True), on="B"),
    ask(add_watch("~/a"), on="B"),
    auth("digest", b"ann:secret"),
    set_acl("~/a", of_ann()),
    set_data("~/a", b"x"),
    events("B"),
    set_acl("~/a", WORLD),
    set_data("~/a", b"y"),
    events("B"),
    set_acl("~/a", of_ann()),
    delete("~/a"),
    events("B"),
)
