"""Who a caller is: by the connection a request came on, and by what it has proven with AddAuth.

`ids_of` serves every door, unary calls and streams alike. A connection's identities are never part
of a session: they hold for what comes on that connection.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from grpc import aio

from coordsvc.core.auth import DIGEST, IP, SUPER_ID, X509, digest_id, is_bounded_id
from coordsvc.core.commands import AuthId
from coordsvc.errors import AuthFailedError
from coordsvc.server.x509 import CertificateError, read_pem

logger = logging.getLogger(__name__)

CREDENTIAL_BYTES_MAX = 4096


def ids_of(context: aio.ServicerContext[Any, Any]) -> tuple[AuthId, ...]:
    """The address, scheme `ip`, and with a client certificate its subject, scheme `x509`."""
    ids = ids_of_peer(context.peer())
    # Only certificates that the TLS layer has verified are in here; and it is asked each time,
    # because the next connection from the same address and port may be somebody else's.
    for pem in context.auth_context().get("x509_pem_cert", ()):
        ids += ids_of_certificate(pem)
    return ids


@lru_cache(maxsize=1024)
def ids_of_peer(peer: str) -> tuple[AuthId, ...]:
    """gRPC writes a peer as ipv4:ADDRESS:PORT, ipv6:%5BADDRESS%5D:PORT or unix:PATH; the last has
    no address."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ()
    host = unquote(rest).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        logger.warning("rpc.strange_peer", extra={"peer": peer[:128]})
        return ()
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return (AuthId(IP, str(address.ipv4_mapped)),)
    return (AuthId(IP, str(address)),)


@lru_cache(maxsize=4096)
def ids_of_certificate(pem: bytes) -> tuple[AuthId, ...]:
    """Its subject; nothing when it has none, or one longer than an identity may be."""
    try:
        subject = read_pem(pem)[0].subject
    except CertificateError as error:
        logger.warning("rpc.strange_certificate", extra={"error": str(error)})
        return ()
    if not subject or not is_bounded_id(X509, subject):
        logger.warning("rpc.strange_certificate", extra={"error": f"subject {subject[:128]!r}"})
        return ()
    return (AuthId(X509, subject),)


def derive_ids(scheme: str, credential: bytes, *, superuser_digest: str) -> tuple[AuthId, ...]:
    """The identities that a credential proves. Only they go on; the credential ends here.

    `superuser_digest` is the digest id of the one user who also gets the identity that passes every
    ACL; empty: nobody does. Somebody else's password for that user proves what any password does.
    Raises AuthFailedError. Ref: ZooKeeper DigestAuthenticationProvider.handleAuthentication.
    """
    if scheme != DIGEST:
        raise AuthFailedError("only scheme 'digest' can be added")
    try:
        text = credential.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    user, colon, _ = text.partition(":")
    if not colon or not user or len(credential) > CREDENTIAL_BYTES_MAX:
        raise AuthFailedError("a digest credential is user:password in UTF-8")
    own = digest_id(text)
    is_super = bool(superuser_digest) and hmac.compare_digest(
        own.encode(), superuser_digest.encode()
    )
    return (*((SUPER_ID,) if is_super else ()), AuthId(DIGEST, own))
