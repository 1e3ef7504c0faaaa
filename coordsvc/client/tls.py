"""Channels with TLS, and without: made in one place, so that none is made plain by mistake."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence

import grpc
from grpc import aio

from coordsvc.client.options import ClientConfig, TlsOptions
from coordsvc.errors import BadArgumentsError

READ_ATTEMPTS = 3
"""How often files that change while they are read are read again."""


def open_channel(
    endpoint: str, config: ClientConfig, options: Sequence[tuple[str, int]]
) -> aio.Channel:
    """As `config` says. BadArgumentsError: a certificate file cannot be used. The files are read
    now, so a channel made later shows what has replaced them."""
    if config.tls is None:
        return aio.insecure_channel(endpoint, options=options)
    all_options: list[tuple[str, int | str]] = list(options)
    if config.tls.server_name:
        all_options.append(("grpc.ssl_target_name_override", config.tls.server_name))
    return aio.secure_channel(endpoint, channel_credentials(config.tls), options=all_options)


def channel_credentials(tls: TlsOptions) -> grpc.ChannelCredentials:
    """BadArgumentsError names the file that cannot be used."""
    for _ in range(READ_ATTEMPTS):
        contents = _read_all(tls)
        ssl_context(tls)
        # What was checked are the files. If they are still the same, it was these bytes.
        if _read_all(tls) == contents:
            authority, key, certificate = contents
            return grpc.ssl_channel_credentials(authority, key, certificate)
    raise BadArgumentsError(f"{tls.certificate or tls.authority} changes all the time")


def ssl_context(tls: TlsOptions) -> ssl.SSLContext:
    """The same as a context of Python's, which says in words what is wrong. BadArgumentsError as
    above."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    path = authority_path(tls)
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise _unusable(path, "authority", error) from error
    if tls.certificate or tls.key:
        if not (tls.certificate and tls.key):
            raise BadArgumentsError("a client certificate and its key are given together or not")
        try:
            context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise _unusable(tls.certificate, f"certificate with key {tls.key}", error) from error
    return context


def authority_path(tls: TlsOptions) -> str:
    """The system's authorities when none is named: gRPC alone would take those it brings along."""
    if tls.authority:
        return tls.authority
    paths = ssl.get_default_verify_paths()
    for path in (paths.cafile, paths.openssl_cafile):
        if path and os.path.isfile(path):
            return path
    raise BadArgumentsError("this system has no file of authorities; name one for TLS")


def _read_all(tls: TlsOptions) -> tuple[bytes, bytes | None, bytes | None]:
    return (
        _read(authority_path(tls)),
        _read(tls.key) if tls.key else None,
        _read(tls.certificate) if tls.certificate else None,
    )


def _no_password() -> str:
    """The library would ask at the terminal."""
    raise ValueError("the key is encrypted")


def _unusable(path: str, what: str, error: Exception) -> BadArgumentsError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).lower().replace("_", " ")
    return BadArgumentsError(f"cannot use {path} as TLS {what}: {reason}")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _unusable(path, "file", error) from error
