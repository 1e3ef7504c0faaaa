"""ACLs: what is stored, and whom it lets in. Ref: ZooKeeper PrepRequestProcessor.fixupACL."""

from __future__ import annotations

import pytest

from coordsvc.core.auth import SUPER_ID, check, digest_id, validate_acl, without_digests
from coordsvc.core.commands import ALL, CREATE, OPEN_ACL, READ, WRITE, Acl, AuthId, Refusal
from coordsvc.core.records import ACL_ENTRIES_MAX, ID_BYTES_MAX
from coordsvc.errors import ErrorCode

ALICE, BOB = AuthId("digest", "alice:a"), AuthId("digest", "bob:b")
X509, IP = AuthId("x509", "CN=app"), AuthId("ip", "10.1.2.3")
WORLD = Acl(ALL, "world", "anyone")


def test_digest_id() -> None:
    """ZooKeeper's own example: super:test."""
    assert digest_id("super:test") == "super:D/InIHSb7yEEbrWz8b9l71RjZJU="
    assert digest_id("user:pass:word").startswith("user:")


@pytest.mark.parametrize(
    ("entry", "ids", "expected"),
    [
        (WORLD, (), True),
        (Acl(READ, "world", "anyone"), (ALICE,), False),
        (Acl(WRITE, "digest", "alice:a"), (ALICE,), True),
        (Acl(WRITE, "digest", "alice:a"), (BOB, ALICE), True),
        (Acl(WRITE, "digest", "alice:a"), (BOB,), False),
        (Acl(WRITE, "x509", "CN=app"), (X509,), True),
        (Acl(WRITE, "x509", "CN=app"), (AuthId("x509", "CN=app2"),), False),
        (Acl(WRITE, "digest", "CN=app"), (X509,), False),
        (Acl(WRITE, "ip", "10.0.0.0/8"), (IP,), True),
        (Acl(WRITE, "ip", "10.1.2.4"), (IP,), False),
        (Acl(0, "world", "anyone"), (SUPER_ID,), True),
        (Acl(0, "world", "anyone"), (), False),
    ],
)
def test_check(entry: Acl, ids: tuple[AuthId, ...], expected: bool) -> None:
    assert check((entry,), WRITE, ids) is expected


def test_any_entry_is_enough_and_there_is_no_deny() -> None:
    acl = (
        Acl(0, "digest", "alice:a"),
        Acl(READ, "ip", "10.0.0.0/8"),
        Acl(WRITE, "digest", "bob:b"),
    )
    assert check(acl, WRITE, (ALICE, BOB))
    assert not check(acl, CREATE, (ALICE, BOB, IP))
    assert check(acl, CREATE, (ALICE, SUPER_ID))


@pytest.mark.parametrize(
    "entry",
    [
        Acl(ALL + 1, "world", "anyone"),
        Acl(-1, "world", "anyone"),
        Acl(ALL, "world", "everyone"),
        Acl(ALL, "digest", "alice"),
        Acl(ALL, "digest", "alice:"),
        Acl(ALL, "digest", "alice:a:b"),
        Acl(ALL, "ip", "10.0.0.0/33"),
        Acl(ALL, "x509", ""),
        Acl(ALL, "super", ""),
        Acl(ALL, "sasl", "alice"),
        Acl(ALL, "", ""),
        Acl(ALL, "x509", "x" * ID_BYTES_MAX),
        Acl(ALL, "x509", "é" * (ID_BYTES_MAX // 2)),
    ],
)
def test_invalid(entry: Acl) -> None:
    result = validate_acl((WORLD, entry), (ALICE,), "/a")
    assert isinstance(result, Refusal)
    assert (result.code, result.path) == (ErrorCode.INVALID_ACL, "/a")


def test_empty_and_too_long_lists() -> None:
    many = tuple(Acl(ALL, "x509", str(number)) for number in range(ACL_ENTRIES_MAX))
    assert validate_acl(many, ()) == many
    for acl in ((), (*many, WORLD)):
        assert isinstance(validate_acl(acl, ()), Refusal)


def test_auth_becomes_the_callers_identities() -> None:
    """Those that prove who somebody is: not an address, not `super`."""
    ids = (IP, ALICE, SUPER_ID, X509)
    assert validate_acl((Acl(READ, "auth", "ignored"), WORLD), ids) == (
        Acl(READ, "digest", "alice:a"),
        Acl(READ, "x509", "CN=app"),
        WORLD,
    )
    for unproven in ((), (IP,), (SUPER_ID,)):
        assert isinstance(validate_acl((WORLD, Acl(ALL, "auth", "")), unproven), Refusal)


def test_auth_cannot_exceed_the_limit() -> None:
    ids = tuple(AuthId("x509", str(number)) for number in range(60))
    acl = tuple(Acl(permissions, "auth", "") for permissions in range(5))
    assert isinstance(validate_acl(acl, ids), Refusal)


def test_duplicates_go_and_order_stays() -> None:
    acl = (Acl(READ, "digest", "b:b"), WORLD, Acl(READ, "digest", "b:b"), WORLD)
    assert validate_acl(acl, ()) == acl[:2]


def test_open_acl_is_one_object() -> None:
    """Checks are skipped for it by identity."""
    assert validate_acl((Acl(ALL, "world", "anyone"),), ()) is OPEN_ACL


def test_digests_are_hidden() -> None:
    acl = (Acl(ALL, "digest", "alice:secret"), Acl(READ, "x509", "CN=a:b"))
    assert without_digests(acl) == (Acl(ALL, "digest", "alice:x"), acl[1])
