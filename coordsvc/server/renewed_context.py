"""TLS contexts whose certificates are replaced while sockets use them: what replicas, and clients
that do not speak gRPC, are served with."""

from __future__ import annotations

import ssl

from coordsvc.server.certificate_files import CertificateFiles, CertificateFilesError, Loaded


class RenewedContext(ssl.SSLContext):
    """Stands for the context that is used now. A listening socket keeps the context it was made
    with, and a context cannot forget an authority; so each connection's TLS is made by the newest
    one instead."""

    current: ssl.SSLContext

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        return self.current.wrap_bio(
            incoming, outgoing, server_side, server_hostname, session=session
        )


def make_context(protocol: int, files: CertificateFiles, loaded: Loaded) -> ssl.SSLContext:
    """One that shows the certificate of `files`, and with an authority lets nobody in who has no
    certificate of it. Host names are not compared. Raises CertificateFilesError when the files have
    changed since they were read."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if files.authority else ssl.CERT_NONE
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.authority:
            # Whatever is not ASCII stands between the certificates.
            context.load_verify_locations(cadata=loaded.authority.decode("ascii", "ignore"))
    except OSError as error:  # ssl.SSLError is one.
        reason = f"has changed again: {error}"
        raise CertificateFilesError(files.options[0], files.certificate, reason) from error
    return context
