"""TLS for clients: the gRPC server's credentials, and the context of the port for ZooKeeper's
clients, renewed when their files change.

gRPC asks for the certificates at each handshake, in a thread of its own. What it gets was loaded
and checked before, so it neither waits nor fails; connections that are there keep what they began
with.
"""

from __future__ import annotations

import ssl

import grpc

from coordsvc.server.certificate_files import (
    CertificateFiles,
    CertificateFilesError,
    CertificateWatch,
    Loaded,
)
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.renewed_context import RenewedContext, make_context

OPTIONS = ("--tls-cert", "--tls-key", "--tls-client-ca")

KEY_KINDS = ("RSA", "P-256", "P-384")
"""With other keys gRPC's TLS library takes no connection at all, and says so at the first one."""


class ClientTls:
    """Between `start` and `stop` the files are watched. `accepting` is for a listening socket that
    does not speak gRPC; it asks clients for certificates as `credentials` does. Raises
    CertificateFilesError when the files cannot be used."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._configuration: grpc.ServerCertificateConfiguration
        self.accepting = RenewedContext(ssl.PROTOCOL_TLS_SERVER)
        self.watch = CertificateWatch(files, self._take)

    def credentials(self) -> grpc.ServerCredentials:
        """For one port. Without an authority clients are asked for no certificate; with one, those
        that have none of it are refused."""
        known = self._configuration

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            """None: as before."""
            nonlocal known
            if self._configuration is known:
                return None
            known = self._configuration
            return known

        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            known,
            renewed,  # type: ignore[arg-type]  # the stubs know nothing of None
            require_client_authentication=bool(self._files.authority),
        )
        return credentials

    def start(self) -> None:
        self.watch.start()

    def stop(self) -> None:
        self.watch.stop()

    def _take(self, loaded: Loaded) -> None:
        kind = loaded.own.key_kind
        if kind not in KEY_KINDS:
            raise CertificateFilesError(
                OPTIONS[0],
                self._files.certificate,
                f"gRPC cannot serve with a key of kind {kind}; known are {', '.join(KEY_KINDS)}",
            )
        # May refuse, so it comes first: both doors have the same certificates.
        context = make_context(ssl.PROTOCOL_TLS_SERVER, self._files, loaded)
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(loaded.key, loaded.certificate)], root_certificates=loaded.authority or None
        )
        self.accepting.current = context


def client_tls(config: ServerConfig) -> ClientTls | None:
    """None when TLS for clients is not configured."""
    paths = (config.tls_cert, config.tls_key, config.tls_client_ca)
    if not any(paths):
        return None
    for option, path in zip(OPTIONS[:2], paths, strict=False):
        if not path:
            raise CertificateFilesError(option, "''", "is needed for TLS")
    return ClientTls(CertificateFiles("clients", *paths, options=OPTIONS))
