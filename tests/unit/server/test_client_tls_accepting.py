"""TLS for clients that do not speak gRPC: who gets in, and certificates that are replaced."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from coordsvc.server.addresses import Address
from coordsvc.server.client_tls import ClientTls, client_tls
from coordsvc.server.config_model import ServerConfig
from coordsvc.testing.certificates import Authority, Pair, replace_file
from coordsvc.testing.local_servers import LOOPBACK, LocalServers

CURVE = "ec_paramgen_curve:P-521"
"""With a key of it gRPC takes no connection."""

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """On both loops that a replica may run on: each makes TLS connections with code of its own."""

    def run_it(scenario: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scenario)

    return run_it


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path, "ca")


@pytest.fixture
def config(authority: Authority) -> ServerConfig:
    """With TLS, asking clients for certificates of `authority`."""
    pair = authority.issue("server")
    return ServerConfig(
        tls_cert=str(pair.certificate),
        tls_key=str(pair.key),
        tls_client_ca=str(authority.certificate),
    )


def tls_of(config: ServerConfig) -> ClientTls:
    tls = client_tls(config)
    assert tls is not None
    return tls


@asynccontextmanager
async def listening(tls: ClientTls) -> AsyncIterator[int]:
    """The port of a server that says whom it sees, for each byte it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1):
            writer.write(f"{common_name(writer)}\n".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls.accepting)
    yield server.sockets[0].getsockname()[1]
    server.close()


def common_name(writer: asyncio.StreamWriter) -> str:
    """Empty when the other side has shown no certificate."""
    certificate: dict[str, Any] = writer.get_extra_info("peercert")
    if not certificate:
        return ""
    return str(dict(part[0] for part in certificate["subject"])["commonName"])


def context_of(authority: Authority, pair: Pair | None) -> ssl.SSLContext:
    """Of a client that trusts `authority`, and shows `pair`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(authority.certificate)
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


class Link:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def dial(cls, port: int, context: ssl.SSLContext) -> Link:
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    async def names(self) -> tuple[str, str]:
        """(as the server knows the client, as the client knows the server). OSError: it was
        refused."""
        self._writer.write(b"?")
        async with asyncio.timeout(10):
            line = await self._reader.readline()
        if not line:  # Not even that of somebody without a name.
            raise ConnectionResetError("the server has closed")
        return line.decode().strip(), common_name(self._writer)

    def close(self) -> None:
        self._writer.close()


async def names(port: int, context: ssl.SSLContext) -> tuple[str, str]:
    """Of a new connection."""
    link = await Link.dial(port, context)
    try:
        return await link.names()
    finally:
        link.close()


def test_a_client_with_a_certificate_of_the_authority_gets_in(
    run: Run, config: ServerConfig, authority: Authority
) -> None:
    async def scenario() -> None:
        async with listening(tls_of(config)) as port:
            alice = context_of(authority, authority.issue("alice"))
            assert await names(port, alice) == ("alice", "server")

    run(scenario())


def test_without_an_authority_no_certificate_is_asked_for(
    run: Run, config: ServerConfig, authority: Authority
) -> None:
    async def scenario() -> None:
        async with listening(tls_of(replace(config, tls_client_ca=""))) as port:
            assert await names(port, context_of(authority, None)) == ("", "server")
            # Nor is one looked at that nobody has signed for.
            alice = context_of(authority, authority.issue("alice"))
            assert await names(port, alice) == ("", "server")

    run(scenario())


@pytest.mark.parametrize("kind", ["none", "another authority", "own signature"])
def test_who_has_no_certificate_of_the_authority_is_refused(
    run: Run, config: ServerConfig, authority: Authority, kind: str
) -> None:
    pair = None
    if kind == "another authority":
        # Of the same name: what counts is the signature.
        pair = Authority.make(authority.directory / "other", "ca").issue("alice")
    if kind == "own signature":
        pair = Authority.make(authority.directory, "alice").pair

    async def scenario() -> None:
        async with listening(tls_of(config)) as port:
            with pytest.raises(OSError):
                await names(port, context_of(authority, pair))

    run(scenario())


def test_what_is_older_than_tls_1_2_is_not_spoken(config: ServerConfig) -> None:
    assert tls_of(config).accepting.current.minimum_version == ssl.TLSVersion.TLSv1_2


def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    run: Run, config: ServerConfig, authority: Authority
) -> None:
    async def scenario() -> None:
        tls = tls_of(config)
        alice = context_of(authority, authority.issue("alice"))
        async with listening(tls) as port:
            old = await Link.dial(port, alice)
            assert await old.names() == ("alice", "server")
            authority.issue("server", "/CN=second")
            tls.watch.check()
            assert await names(port, alice) == ("alice", "second")
            assert await old.names() == ("alice", "server")
            old.close()

    run(scenario())


def test_an_authority_that_is_gone_lets_nobody_in_any_more(
    run: Run, config: ServerConfig, authority: Authority
) -> None:
    async def scenario() -> None:
        client_ca = authority.directory / "client-ca.pem"
        replace_file(client_ca, authority.certificate.read_bytes())
        tls = tls_of(replace(config, tls_client_ca=str(client_ca)))
        other = Authority.make(authority.directory / "other", "other")
        alice = context_of(authority, authority.issue("alice"))
        bob = context_of(authority, other.issue("bob"))
        async with listening(tls) as port:
            old = await Link.dial(port, alice)
            assert await old.names() == ("alice", "server")
            replace_file(client_ca, other.certificate.read_bytes())
            tls.watch.check()
            assert await names(port, bob) == ("bob", "server")
            with pytest.raises(OSError):
                await names(port, alice)
            assert await old.names() == ("alice", "server")
            old.close()

    run(scenario())


def test_what_grpc_cannot_serve_with_is_taken_over_by_neither(
    run: Run, config: ServerConfig, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """Both ports show one certificate, always."""

    async def scenario() -> None:
        tls = tls_of(config)
        alice = context_of(authority, authority.issue("alice"))
        authority.issue("server", "/CN=second", key_kind=("ec", "-pkeyopt", CURVE))
        tls.watch.check()
        assert "tls.not_loaded" in caplog.messages
        async with listening(tls) as port:
            assert await names(port, alice) == ("alice", "server")

    run(scenario())


async def test_the_port_for_zookeepers_clients_speaks_nothing_else(
    tmp_path: Path, config: ServerConfig, authority: Authority
) -> None:
    changes = {name: getattr(config, name) for name in ("tls_cert", "tls_key", "tls_client_ca")}
    async with LocalServers(
        str(tmp_path / "data"),
        1,
        zookeeper_listen=Address(LOOPBACK, 0),
        zookeeper_four_letter_words="ruok",
        **changes,
    ) as servers:
        host, _, port = servers.servers[1].zookeeper_endpoint.partition(":")
        alice = context_of(authority, authority.issue("alice"))
        assert await are_you_ok(host, int(port), alice) == b"imok"
        for context in (None, context_of(authority, None)):
            assert await are_you_ok(host, int(port), context) == b""


async def are_you_ok(host: str, port: int, context: ssl.SSLContext | None) -> bytes:
    """What it says to that word; nothing when it refuses the connection."""
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(b"ruok\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    except OSError:
        return b""
    return answer
