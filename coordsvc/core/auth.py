"""Identities and access control lists.

An ACL is a list of (permissions, identity); any entry that matches one of the caller's
identities and holds the bit is enough. There is no deny and no inheritance. A caller with an
identity of scheme ``super`` passes every check. Knows nothing of sessions or of the tree.
Ref: ZooKeeper ZooKeeperServer.checkACL, PrepRequestProcessor.fixupACL.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1

from coordsvc.core.commands import ALL, OPEN_ACL, Acl, AuthId, Refusal
from coordsvc.core.ip_address import is_in_network, parse_network
from coordsvc.core.records import ACL_ENTRIES_MAX, ID_BYTES_MAX
from coordsvc.core.refusals import refuse
from coordsvc.errors import ErrorCode

WORLD, AUTH, DIGEST, IP, X509, SUPER = "world", "auth", "digest", "ip", "x509", "super"

SUPER_ID = AuthId(SUPER, "")

_PROVEN_SCHEMES = (DIGEST, X509)
"""Schemes whose identity says who somebody is, so that ``auth`` may stand for it. An address
does not, and ``super`` passes everything anyhow."""

_SESSION_SCHEMES = (DIGEST, IP, X509, SUPER)
"""Schemes of identities that a caller can have."""


def digest_id(user_and_password: str) -> str:
    """The digest scheme's id of ``user:password``: the user and base64(SHA-1) of the whole.

    Ref: ZooKeeper DigestAuthenticationProvider.generateDigest.
    """
    user = user_and_password.split(":", 1)[0]
    digest = sha1(user_and_password.encode(), usedforsecurity=False).digest()
    return f"{user}:{b64encode(digest).decode()}"


def check(acl: tuple[Acl, ...], permission: int, ids: tuple[AuthId, ...]) -> bool:
    """Whether `acl` grants any bit of `permission` to a caller known as `ids`."""
    for entry in acl:
        if entry.permissions & permission:
            scheme = entry.scheme
            if scheme == WORLD:
                return True
            for auth_id in ids:
                if auth_id.scheme == scheme and _matches(scheme, auth_id.id, entry.id):
                    return True
    return is_super(ids)


def is_super(ids: tuple[AuthId, ...]) -> bool:
    return any(auth_id.scheme == SUPER for auth_id in ids)


def _matches(scheme: str, own: str, wanted: str) -> bool:
    if scheme == IP:
        return is_in_network(own, wanted)
    return own == wanted


def validate_acl(
    acl: tuple[Acl, ...], ids: tuple[AuthId, ...], path: str = ""
) -> tuple[Acl, ...] | Refusal:
    """The ACL to store: without duplicates, ``auth`` replaced by the caller's own identities.

    Refused as INVALID_ACL: an empty list, an unknown scheme, an id its scheme cannot have,
    permissions of no bit or beyond the five, ``auth`` of a caller who has proven no identity, and
    lists longer than the limit.
    """
    if acl == OPEN_ACL:
        return OPEN_ACL
    if not acl:
        return refuse(ErrorCode.INVALID_ACL, path, "an ACL has at least one entry")
    if len(acl) > ACL_ENTRIES_MAX:
        return _too_long(path)
    stored: dict[Acl, None] = {}
    for entry in acl:
        fault = _entry_fault(entry)
        if fault is not None:
            return refuse(ErrorCode.INVALID_ACL, path, fault)
        if entry.scheme != AUTH:
            stored[entry] = None
            continue
        proven = [auth_id for auth_id in ids if auth_id.scheme in _PROVEN_SCHEMES]
        if not proven:
            fault = "scheme 'auth' needs a caller with an identity: add one first"
            return refuse(ErrorCode.INVALID_ACL, path, fault)
        for auth_id in proven:
            stored[Acl(entry.permissions, auth_id.scheme, auth_id.id)] = None
    if len(stored) > ACL_ENTRIES_MAX:
        return _too_long(path)
    return tuple(stored)


def _too_long(path: str) -> Refusal:
    return refuse(ErrorCode.INVALID_ACL, path, f"an ACL has at most {ACL_ENTRIES_MAX} entries")


def _entry_fault(entry: Acl) -> str | None:
    if not 1 <= entry.permissions <= ALL:
        return f"permissions are a sum of bits from 1 to {ALL}"
    scheme, own = entry.scheme, entry.id
    if not is_bounded_id(scheme, own):
        return f"an ACL's id has at most {ID_BYTES_MAX} bytes"
    if scheme == AUTH:
        return None
    if scheme == WORLD:
        return None if own == "anyone" else "scheme 'world' has the one id 'anyone'"
    if scheme == DIGEST:
        _user, colon, digest = own.partition(":")
        is_valid = bool(colon and digest) and ":" not in digest
        return None if is_valid else "an id of scheme 'digest' is user:base64(sha1)"
    if scheme == IP:
        is_valid = parse_network(own) is not None
        return None if is_valid else "an id of scheme 'ip' is an address, or address/bits"
    if scheme == X509:
        return None if own else "an id of scheme 'x509' is a certificate's subject"
    return "unknown scheme: known are world, auth, digest, ip and x509"


def is_session_id(auth_id: AuthId) -> bool:
    """Whether a session may carry this identity."""
    return auth_id.scheme in _SESSION_SCHEMES and is_bounded_id(auth_id.scheme, auth_id.id)


def is_bounded_id(scheme: str, own: str) -> bool:
    # Four bytes are the most that one character takes, so the short ones need no counting.
    if len(scheme) + len(own) <= ID_BYTES_MAX // 4:
        return True
    return len(scheme.encode()) + len(own.encode()) <= ID_BYTES_MAX


def without_digests(acl: tuple[Acl, ...]) -> tuple[Acl, ...]:
    """The ACL as those see it who may not change it: digests' hashes are hidden."""
    return tuple(
        Acl(entry.permissions, entry.scheme, f"{entry.id.partition(':')[0]}:x")
        if entry.scheme == DIGEST
        else entry
        for entry in acl
    )
