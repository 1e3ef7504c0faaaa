"""Options that every client command has, and how their values are read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from coordsvc.client.options import DEFAULT_ENDPOINT, ClientConfig, TlsOptions, parse_endpoints
from coordsvc.errors import BadArgumentsError

TIMEOUT_DEFAULT_SECONDS = 10.0
UNREACHABLE_TIMEOUT_MS = 2_000
"""Somebody at a terminal would rather hear soon that nobody listens there."""

SYSTEM_AUTHORITIES = "system"

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What the user chose: where to go, and how to print."""

    config: ClientConfig
    as_json: bool


def client_options(command: CommandT) -> Callable[..., Any]:
    """Adds them, and hands the command a ClientOptions as `options`."""

    @click.option(
        "--endpoints", callback=_endpoints, default=DEFAULT_ENDPOINT, show_default=True,
        metavar="HOST:PORT,...", envvar="COORDSVC_ENDPOINTS", show_envvar=True,
        help="The replicas; any of them will do, all of them is safer.",
    )  # fmt: skip
    @click.option(
        "--tls-ca", metavar="FILE", envvar="COORDSVC_CLIENT_TLS_CA", show_envvar=True,
        help="Talk TLS; who signs the replicas' certificates. "
        f"'{SYSTEM_AUTHORITIES}': whom this system trusts.",
    )  # fmt: skip
    @click.option(
        "--tls-cert", metavar="FILE", envvar="COORDSVC_CLIENT_TLS_CERT", show_envvar=True,
        help="This client's certificate, if the replicas ask for one.",
    )  # fmt: skip
    @click.option(
        "--tls-key", metavar="FILE", envvar="COORDSVC_CLIENT_TLS_KEY", show_envvar=True,
        help="The certificate's private key.",
    )  # fmt: skip
    @click.option(
        "--timeout", type=click.FloatRange(min=0.001, max=3600), metavar="SECONDS",
        default=TIMEOUT_DEFAULT_SECONDS, show_default=True, help="Give up after this long.",
    )  # fmt: skip
    @click.option(
        "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
        help="How to print the answer.",
    )  # fmt: skip
    @wraps(command)
    def wrapped(
        endpoints: tuple[str, ...],
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        timeout: float,
        output: str,
        **arguments: Any,
    ) -> None:
        timeout_ms = max(1, round(timeout * 1000))
        config = ClientConfig(
            endpoints=endpoints,
            timeout_ms=timeout_ms,
            unreachable_timeout_ms=min(timeout_ms, UNREACHABLE_TIMEOUT_MS),
            tls=_tls(tls_ca, tls_cert, tls_key),
        )
        command(options=ClientOptions(config, output == "json"), **arguments)

    return wrapped


linearizable_option = click.option(
    "--linearizable", is_flag=True,
    help="See every write acknowledged before, by any replica. Without it the replica that is "
    "asked may be a moment behind the others.",
)  # fmt: skip

version_option = click.option(
    "--version", "version", type=click.IntRange(-1, 2**63 - 1), metavar="N",
    help="Only if this is its version now (see stat). Without it, or -1: whatever the version.",
)  # fmt: skip


def read_data(text: str | None) -> bytes | None:
    """What DATA stands for: `-` is standard input, absent is null, "" is empty. Arguments that are
    no UTF-8 come through as the bytes they are."""
    if text is None:
        return None
    if text == "-":
        return sys.stdin.buffer.read()
    return text.encode("utf-8", "surrogateescape")


def _tls(authority: str | None, certificate: str | None, key: str | None) -> TlsOptions | None:
    """Whether the files are of use is seen where they are read."""
    if not authority:
        if certificate or key:
            raise click.UsageError("--tls-cert and --tls-key are for TLS: --tls-ca is needed too")
        return None
    if bool(certificate) != bool(key):
        raise click.UsageError("--tls-cert and --tls-key are given together or not")
    return TlsOptions(
        authority="" if authority == SYSTEM_AUTHORITIES else authority,
        certificate=certificate or "",
        key=key or "",
    )


def _endpoints(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    try:
        return parse_endpoints(value)
    except BadArgumentsError as error:
        raise click.BadParameter(error.message, context, parameter) from None
