"""TLS among the replicas, renewed: new connections use what is new, old ones go on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from coordsvc.server.assembly import replica_settings
from coordsvc.server.certificate_files import CertificateFilesError
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.peer_tls import PeerTls, peer_tls
from coordsvc.testing.certificates import Authority, Pair, replace_file

Scenario = Callable[["Listener"], Coroutine[Any, Any, None]]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, authority: Authority) -> Callable[[Scenario], None]:
    """Runs a scenario with a listener of replica 1, on both loops that a replica may run on: each
    makes TLS connections with code of its own."""

    async def scenario_with_listener(scenario: Scenario) -> None:
        tls = tls_of(authority.issue("replica-1"), authority.certificate)
        async with Listener(tls) as listener:
            await scenario(listener)

    def run_it(scenario: Scenario) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scenario_with_listener(scenario))

    return run_it


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path, "ca")


def tls_of(pair: Pair, authority: Path) -> PeerTls:
    config = ServerConfig(
        peer_tls_cert=str(pair.certificate), peer_tls_key=str(pair.key), peer_tls_ca=str(authority)
    )
    tls = peer_tls(config)
    assert tls is not None
    return tls


class Listener:
    """What a replica listens with; says the subject of whoever comes, back to him."""

    def __init__(self, tls: PeerTls) -> None:
        self.tls = tls
        self.port = 0
        self._server: asyncio.Server

    async def __aenter__(self) -> Listener:
        self._server = await asyncio.start_server(
            self._answer, "127.0.0.1", 0, ssl=self.tls.accepting
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1):
            writer.write(f"{common_name(writer)}\n".encode())
        writer.close()


def common_name(writer: asyncio.StreamWriter) -> str:
    """Empty when the other side has shown no certificate."""
    certificate: dict[str, Any] = writer.get_extra_info("peercert")
    if not certificate:
        return ""
    return str(dict(part[0] for part in certificate["subject"])["commonName"])


class Link:
    """A connection of one replica to another; `names` asks who each is to the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def names(self) -> tuple[str, str]:
        """(as the listener knows the dialler, as the dialler knows the listener)"""
        self._writer.write(b"?")
        async with asyncio.timeout(5):
            line = await self._reader.readline()
        if not line:  # Not even that of somebody without a name.
            raise ConnectionResetError("the listener has closed")
        return line.decode().strip(), common_name(self._writer)

    def close(self) -> None:
        self._writer.close()


async def dial(listener: Listener, tls: PeerTls) -> Link:
    connection = await asyncio.open_connection("127.0.0.1", listener.port, ssl=tls.dialling)
    return Link(*connection)


def test_both_sides_show_who_they_are(
    run: Callable[[Scenario], None], authority: Authority
) -> None:
    async def scenario(listener: Listener) -> None:
        link = await dial(listener, tls_of(authority.issue("replica-2"), authority.certificate))
        assert await link.names() == ("replica-2", "replica-1")
        link.close()

    run(scenario)


def test_new_connections_use_new_certificates_and_old_ones_go_on(
    run: Callable[[Scenario], None], authority: Authority
) -> None:
    async def scenario(listener: Listener) -> None:
        dialling = tls_of(authority.issue("replica-2"), authority.certificate)
        old = await dial(listener, dialling)
        assert await old.names() == ("replica-2", "replica-1")
        authority.issue("replica-1", "/CN=first-anew")
        authority.issue("replica-2", "/CN=second-anew")
        listener.tls.watch.check()
        link = await dial(listener, dialling)
        assert await link.names() == ("replica-2", "first-anew")
        dialling.watch.check()
        newest = await dial(listener, dialling)
        assert await newest.names() == ("second-anew", "first-anew")
        assert await old.names() == ("replica-2", "replica-1")
        for each in (old, link, newest):
            each.close()

    run(scenario)


def test_an_authority_that_is_gone_is_trusted_no_more_on_either_side(
    run: Callable[[Scenario], None], authority: Authority, tmp_path: Path
) -> None:
    async def scenario(listener: Listener) -> None:
        dialling = tls_of(authority.issue("replica-2"), authority.certificate)
        (await dial(listener, dialling)).close()
        other = Authority.make(tmp_path / "other", "other")
        # A dialler that trusts both and shows the old one's: the listener must refuse it.
        bundle = tmp_path / "bundle"
        replace_file(bundle, authority.certificate.read_bytes() + other.certificate.read_bytes())
        trusting_both = tls_of(Pair(tmp_path / "replica-2.pem", tmp_path / "replica-2.key"), bundle)
        other.issue("fresh", "/CN=replica-1").install(
            Pair(tmp_path / "replica-1.pem", tmp_path / "replica-1.key")
        )
        replace_file(authority.certificate, other.certificate.read_bytes())
        listener.tls.watch.check()
        with pytest.raises(OSError):
            link = await dial(listener, trusting_both)
            await link.names()
        # And a dialler that has forgotten the old one refuses a listener that still shows it.
        dialling.watch.check()
        async with Listener(trusting_both) as old_listener:
            with pytest.raises(ssl.SSLCertVerificationError):
                await dial(old_listener, dialling)

    run(scenario)


@pytest.mark.parametrize("kind", ["plain", "another authority"])
def test_who_has_no_certificate_of_the_authority_is_shut_out(
    run: Callable[[Scenario], None], authority: Authority, tmp_path: Path, kind: str
) -> None:
    async def scenario(listener: Listener) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(authority.certificate)
        if kind == "another authority":
            pair = Authority.make(tmp_path / "other", "ca").issue("replica-2")
            context.load_cert_chain(pair.certificate, pair.key)
        with pytest.raises(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
            await Link(reader, writer).names()

    run(scenario)


def test_files_that_do_not_fit_leave_the_old_in_use(
    run: Callable[[Scenario], None], authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(listener: Listener) -> None:
        dialling = tls_of(authority.issue("replica-2"), authority.certificate)
        fresh = authority.issue("fresh")
        replace_file(authority.directory / "replica-1.pem", fresh.certificate.read_bytes())
        listener.tls.watch.check()
        assert "tls.not_loaded" in caplog.messages
        link = await dial(listener, dialling)
        assert await link.names() == ("replica-2", "replica-1")
        link.close()

    run(scenario)


def test_replicas_are_given_the_contexts_that_are_renewed(authority: Authority) -> None:
    config = ServerConfig()
    assert replica_settings(config, None).peer_ssl_server is None
    tls = tls_of(authority.issue("replica-1"), authority.certificate)
    settings = replica_settings(config, tls)
    assert settings.peer_ssl_server is tls.accepting
    assert settings.peer_ssl_client is tls.dialling


def test_unusable_files_are_refused(authority: Authority) -> None:
    pair = authority.issue("replica-1")
    pair.key.write_text("")
    with pytest.raises(CertificateFilesError, match="--peer-tls-key"):
        tls_of(pair, authority.certificate)
