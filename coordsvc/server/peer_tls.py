"""TLS among the replicas: both sides show a certificate of the cluster's own authority. Renewed
when the files change, for new connections; those that are there go on."""

from __future__ import annotations

import ssl

from coordsvc.server.certificate_files import CertificateFiles, CertificateWatch, Loaded
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.renewed_context import RenewedContext, make_context

OPTIONS = ("--peer-tls-cert", "--peer-tls-key", "--peer-tls-ca")


class PeerTls:
    """Between `start` and `stop` the files are watched. Raises CertificateFilesError when they
    cannot be used.

    Host names are not compared: replicas are told apart by the handshake's ids, and any certificate
    of this authority is a replica's. So the authority must sign for nobody else."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self.accepting = RenewedContext(ssl.PROTOCOL_TLS_SERVER)
        self.dialling = RenewedContext(ssl.PROTOCOL_TLS_CLIENT)
        self.dialling.check_hostname = False
        self.watch = CertificateWatch(files, self._take)

    def start(self) -> None:
        self.watch.start()

    def stop(self) -> None:
        self.watch.stop()

    def _take(self, loaded: Loaded) -> None:
        accepting = make_context(ssl.PROTOCOL_TLS_SERVER, self._files, loaded)
        dialling = make_context(ssl.PROTOCOL_TLS_CLIENT, self._files, loaded)
        self.accepting.current, self.dialling.current = accepting, dialling


def peer_tls(config: ServerConfig) -> PeerTls | None:
    """None when TLS among the replicas is not configured."""
    if not config.has_peer_tls:
        return None
    paths = (config.peer_tls_cert, config.peer_tls_key, config.peer_tls_ca)
    return PeerTls(CertificateFiles("peers", *paths, options=OPTIONS))
