"""How a client reaches a cluster. Pure: no grpc here."""

from __future__ import annotations

from dataclasses import dataclass

from coordsvc.errors import BadArgumentsError

DEFAULT_ENDPOINT = "127.0.0.1:7401"
"""Never "localhost": it may mean ::1 first, where nobody listens."""

PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS towards the replicas; file paths, in PEM. `authority` empty: those the system trusts.
    `certificate` and `key` are this client's own, both or none. `server_name` is compared with the
    replicas' certificates instead of the endpoint's host."""

    authority: str = ""
    certificate: str = ""
    key: str = ""
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Where the replicas are, and how long to try. Times in ms.

    `timeout_ms` bounds a call with all its retries. `attempt_timeout_ms` bounds one attempt of a
    call that may be retried, so that a replica that has stopped (its sockets stay open) does not
    use up the whole time. `connect_timeout_ms` bounds one connection attempt. A call gives up after
    `unreachable_timeout_ms` when no endpoint could be connected to at all: then they are more
    likely wrong than failing. `tls` None: connections are plain.
    """

    endpoints: tuple[str, ...] = (DEFAULT_ENDPOINT,)
    timeout_ms: int = 10_000
    attempt_timeout_ms: int = 2_000
    connect_timeout_ms: int = 1_000
    unreachable_timeout_ms: int = 10_000
    retry_delay_ms_min: int = 20
    retry_delay_ms_max: int = 500
    tls: TlsOptions | None = None
    requests_waiting_max: int = 100_000
    request_bytes_waiting_max: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        assert self.endpoints, "a client needs at least one endpoint"
        assert 0 < self.retry_delay_ms_min <= self.retry_delay_ms_max
        assert self.requests_waiting_max > 0
        assert self.request_bytes_waiting_max > 0


def parse_endpoints(text: str) -> tuple[str, ...]:
    """`host:port,host:port,...`, as typed; BadArgumentsError names the piece that is wrong."""
    pieces = [piece.strip() for piece in text.split(",")]
    endpoints = tuple(piece for piece in pieces if piece)
    if not endpoints:
        raise BadArgumentsError("no endpoint given; expected host:port,host:port,...")
    for endpoint in endpoints:
        _check_endpoint(endpoint)
    return endpoints


def _check_endpoint(endpoint: str) -> None:
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or (":" in host and not host.startswith("[")):
        raise BadArgumentsError(f"endpoint {endpoint!r} is not host:port (IPv6: [host]:port)")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= PORT_MAX):
        raise BadArgumentsError(f"endpoint {endpoint!r} has no port between 1 and {PORT_MAX}")
