"""TLS among the replicas: both sides show a certificate of the cluster's own authority."""

from __future__ import annotations

import ssl

from coordsvc.server.config_model import ServerConfig


def peer_contexts(config: ServerConfig) -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
    """(for accepting, for dialling); None when TLS is not configured. Raises OSError, of which
    ssl.SSLError is one, when a file is not what it should be.

    Host names are not compared: replicas are told apart by the handshake's ids, and any certificate
    of this authority is a replica's. So the authority must sign for nobody else.
    """
    if not config.has_peer_tls:
        return None
    contexts = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
    )
    for context in contexts:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(config.peer_tls_cert, config.peer_tls_key)
        context.load_verify_locations(config.peer_tls_ca)
    return contexts
