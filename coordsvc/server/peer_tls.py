"""TLS among the replicas: both sides show a certificate of the cluster's own authority. Renewed
when the files change, for new connections; those that are there go on."""

from __future__ import annotations

import ssl

from coordsvc.server.certificate_files import (
    CertificateFiles,
    CertificateFilesError,
    CertificateWatch,
    Loaded,
)
from coordsvc.server.config_model import ServerConfig

OPTIONS = ("--peer-tls-cert", "--peer-tls-key", "--peer-tls-ca")


class _RenewedContext(ssl.SSLContext):
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


class PeerTls:
    """Between `start` and `stop` the files are watched. Raises CertificateFilesError when they
    cannot be used."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self.accepting = _RenewedContext(ssl.PROTOCOL_TLS_SERVER)
        self.dialling = _RenewedContext(ssl.PROTOCOL_TLS_CLIENT)
        self.dialling.check_hostname = False
        self.watch = CertificateWatch(files, self._take)

    def start(self) -> None:
        self.watch.start()

    def stop(self) -> None:
        self.watch.stop()

    def _take(self, loaded: Loaded) -> None:
        try:
            accepting = _context(ssl.PROTOCOL_TLS_SERVER, self._files, loaded)
            dialling = _context(ssl.PROTOCOL_TLS_CLIENT, self._files, loaded)
        except OSError as error:  # ssl.SSLError is one.
            reason = f"has changed again: {error}"
            raise CertificateFilesError(OPTIONS[0], self._files.certificate, reason) from error
        self.accepting.current, self.dialling.current = accepting, dialling


def peer_tls(config: ServerConfig) -> PeerTls | None:
    """None when TLS among the replicas is not configured."""
    if not config.has_peer_tls:
        return None
    paths = (config.peer_tls_cert, config.peer_tls_key, config.peer_tls_ca)
    return PeerTls(CertificateFiles("peers", *paths, options=OPTIONS))


def _context(protocol: int, files: CertificateFiles, loaded: Loaded) -> ssl.SSLContext:
    """Host names are not compared: replicas are told apart by the handshake's ids, and any
    certificate of this authority is a replica's. So the authority must sign for nobody else."""
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(files.certificate, files.key)
    # Whatever is not ASCII stands between the certificates.
    context.load_verify_locations(cadata=loaded.authority.decode("ascii", "ignore"))
    return context
