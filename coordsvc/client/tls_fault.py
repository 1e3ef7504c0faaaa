"""Why a replica that listens cannot be talked to: TLS here and none there, or certificates.

gRPC says "Socket closed" of most of it. So when a connection has failed, this dials once more with
Python's own TLS, which has words.
"""

from __future__ import annotations

import asyncio
import ssl

from coordsvc.client.options import TlsOptions
from coordsvc.client.tls import ssl_context

PROBE_SECONDS = 0.5

_NO_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"}
)


async def tls_fault(endpoint: str, tls: TlsOptions | None, seconds: float = PROBE_SECONDS) -> str:
    """In words, for a message; empty when TLS is not what is wrong, or nobody listens. Takes at
    most `seconds`, and PROBE_SECONDS."""
    try:
        async with asyncio.timeout(min(seconds, PROBE_SECONDS)):
            return await (_as_plain_client(endpoint) if tls is None else _dial(endpoint, tls))
    except (OSError, TimeoutError):
        return ""


async def _as_plain_client(endpoint: str) -> str:
    """Whether it would rather have spoken TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host, port = _split(endpoint)
    try:
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        if error.reason in _NO_TLS or "ALERT" not in (error.reason or ""):
            return ""
    else:
        writer.close()
    return "it speaks TLS, and this client was not told to (an authority's certificate is needed)"


async def _dial(endpoint: str, tls: TlsOptions) -> str:
    host, port = _split(endpoint)
    name = tls.server_name or host
    try:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=ssl_context(tls), server_hostname=name
        )
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not accepted: {error.verify_message}"
    except ssl.SSLError as error:
        if error.reason in _NO_TLS:
            return "it does not speak TLS"
        return f"TLS failed: {_words(error)}"
    try:
        # From TLS 1.3 on the server judges the client's certificate after the client is done. A
        # replica that is content speaks first.
        if await reader.read(1):
            return ""
        reason = "it closed the connection"
    except ssl.SSLError as error:
        reason = _words(error)
    except ConnectionError:
        reason = "it closed the connection"
    finally:
        writer.close()
    if tls.certificate:
        return f"it does not accept this client's certificate {tls.certificate} ({reason})"
    return f"it probably asks for a client certificate, and none was given ({reason})"


def _split(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")
