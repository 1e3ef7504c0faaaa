"""Who a connection is: its address, its certificate, and what it has proven with addAuth.

Unlike at the gRPC door, what is proven belongs to the connection and not to the session: clients of
ZooKeeper prove it again on each connection. Ref: ZooKeeper AuthPacket, ServerCnxn.addAuthInfo.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl

from coordsvc.core.auth import DIGEST, IP, digest_id
from coordsvc.core.commands import AuthId
from coordsvc.server.identities import CREDENTIAL_BYTES_MAX, derive_ids, ids_of_certificate


def ids_of_transport(transport: asyncio.BaseTransport) -> tuple[AuthId, ...]:
    """The address, and with a client certificate its subject."""
    ids: tuple[AuthId, ...] = ()
    peer = transport.get_extra_info("peername")
    if peer:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        ids += (AuthId(IP, str(address)),)
    tls = transport.get_extra_info("ssl_object")
    if tls is not None:
        certificate = tls.getpeercert(binary_form=True)
        if certificate:
            ids += ids_of_certificate(ssl.DER_cert_to_PEM_cert(certificate).encode())
    return ids


def added_ids(
    scheme: str, credential: bytes | None, known: tuple[AuthId, ...], superuser_digest: str
) -> tuple[AuthId, ...] | None:
    """All that is known after this credential; None: it proves nothing. Scheme `ip` proves what is
    known of a connection anyway. As in ZooKeeper, a digest's credential need not have a colon, nor
    be UTF-8: it is only hashed."""
    if scheme == IP:
        return known
    if scheme != DIGEST or credential is None or len(credential) > CREDENTIAL_BYTES_MAX:
        return None
    text = credential.decode("utf-8", "replace")
    derived: tuple[AuthId, ...] = (AuthId(DIGEST, digest_id(text)),)
    if text.partition(":")[0] and ":" in text:
        derived = derive_ids(scheme, text.encode(), superuser_digest=superuser_digest)
    return known + tuple(auth_id for auth_id in derived if auth_id not in known)
