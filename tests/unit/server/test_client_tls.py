"""TLS for clients: who gets in, and certificates that are replaced while calls go on."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc import aio

from coordsvc.server import certificate_files
from coordsvc.server.addresses import Address
from coordsvc.server.certificate_files import CertificateFilesError, CertificateWatch
from coordsvc.server.client_tls import client_tls
from coordsvc.server.config_model import ServerConfig
from coordsvc.server.x509 import read_der
from coordsvc.testing.certificates import Authority, Pair, replace_file
from tests.unit.server.harness import Harness, eventually, local_server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path, "ca")


@pytest.fixture
def config(authority: Authority) -> ServerConfig:
    """With TLS, asking clients for certificates of `authority`."""
    pair = authority.issue("server")
    return ServerConfig(
        listen=Address("127.0.0.1", 0),
        tls_cert=str(pair.certificate),
        tls_key=str(pair.key),
        tls_client_ca=str(authority.certificate),
    )


def credentials(authority: Authority, pair: Pair | None) -> grpc.ChannelCredentials:
    """Of a client that trusts `authority`, and shows `pair`."""
    root = authority.certificate.read_bytes()
    if pair is None:
        return grpc.ssl_channel_credentials(root)
    return grpc.ssl_channel_credentials(root, pair.key.read_bytes(), pair.certificate.read_bytes())


@asynccontextmanager
async def serving(
    config: ServerConfig, channel_credentials: grpc.ChannelCredentials
) -> AsyncIterator[Harness]:
    changes = {name: getattr(config, name) for name in ("tls_cert", "tls_key", "tls_client_ca")}
    async with local_server(channel_credentials, **changes) as harness:
        yield harness


# ----------------------------------------------------------------------------------- who gets in


async def test_a_client_with_a_certificate_of_the_authority_gets_in(
    config: ServerConfig, authority: Authority
) -> None:
    async with serving(config, credentials(authority, authority.issue("alice"))) as server:
        assert (await server.call("Create", path="/a")).path == "/a"


async def test_without_an_authority_no_certificate_is_asked_for(
    config: ServerConfig, authority: Authority
) -> None:
    config = replace(config, tls_client_ca="")
    async with serving(config, credentials(authority, None)) as server:
        assert (await server.call("Create", path="/a")).path == "/a"


@pytest.mark.parametrize("kind", ["none", "another authority", "own signature"])
async def test_who_has_no_certificate_of_the_authority_is_refused(
    config: ServerConfig, authority: Authority, kind: str
) -> None:
    pair = None
    if kind == "another authority":
        # Of the same name: what counts is the signature.
        pair = Authority.make(authority.directory / "other", "ca").issue("alice")
    if kind == "own signature":
        pair = Authority.make(authority.directory, "alice").pair
    async with serving(config, credentials(authority, pair)) as server:
        with pytest.raises(aio.AioRpcError) as caught:
            await server.call("Create", path="/a")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not server.server.door.calls_total


async def test_who_speaks_no_tls_is_refused(config: ServerConfig) -> None:
    async with serving(config, None) as server:  # type: ignore[arg-type]
        with pytest.raises(aio.AioRpcError) as caught:
            await server.call("Create", path="/a")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not server.server.door.calls_total


# -------------------------------------------------------------------------------------- the files


def test_without_files_there_is_no_tls() -> None:
    assert client_tls(ServerConfig()) is None


@pytest.mark.parametrize("missing", ["tls_cert", "tls_key"])
def test_a_certificate_without_a_key_is_no_plain_port(config: ServerConfig, missing: str) -> None:
    with pytest.raises(CertificateFilesError, match=missing.replace("_", "-")):
        client_tls(replace(config, **{missing: ""}))


@pytest.mark.parametrize("curve", ["P-521", "secp256k1"])
def test_a_key_that_grpc_cannot_serve_with_is_refused(
    config: ServerConfig, authority: Authority, curve: str
) -> None:
    """It would take the certificate and then no connection."""
    authority.issue("server", key_kind=("ec", "-pkeyopt", f"ec_paramgen_curve:{curve}"))
    with pytest.raises(CertificateFilesError, match="--tls-cert .*P-384"):
        client_tls(config)


@pytest.mark.parametrize("key_kind", [("rsa:2048",), ("ec", "-pkeyopt", "ec_paramgen_curve:P-384")])
async def test_other_kinds_of_key_serve(
    config: ServerConfig, authority: Authority, key_kind: tuple[str, ...]
) -> None:
    authority.issue("server", key_kind=key_kind)
    async with serving(config, credentials(authority, authority.issue("alice"))) as server:
        await server.call("Create", path="/a")


# -------------------------------------------------------------------------------------- replacing


def shown(address: Address, context: ssl.SSLContext) -> str:
    """The subject of the certificate a new connection is shown. Blocks."""
    with (
        socket.create_connection((address.host, address.port), 5) as plain,
        context.wrap_socket(plain) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    assert der is not None
    return read_der(der).subject


def watch_of(server: Harness) -> CertificateWatch:
    assert server.server.tls is not None
    return server.server.tls.watch


def trusting_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def test_new_connections_get_the_new_certificate_and_old_ones_go_on(
    config: ServerConfig, authority: Authority
) -> None:
    async with serving(config, credentials(authority, authority.issue("alice"))) as server:
        await server.call("Create", path="/a")
        context = trusting_all()
        assert await asyncio.to_thread(shown, server.server.address, context) == "CN=server"
        authority.issue("server", "/CN=second")
        watch_of(server).check()
        for _ in range(3):
            assert await asyncio.to_thread(shown, server.server.address, context) == "CN=second"
        await server.call("SetData", path="/a", data=b"on the old connection")


async def test_an_authority_that_is_gone_lets_nobody_in_any_more(
    config: ServerConfig, authority: Authority
) -> None:
    """By way of a bundle of both, as one rotates it; and connections that are there go on."""
    new = Authority.make(authority.directory / "new", "new")
    bundle = Path(config.tls_client_ca + "-bundle")
    replace_file(bundle, authority.certificate.read_bytes())
    config = replace(config, tls_client_ca=str(bundle))
    old_client = credentials(authority, authority.issue("alice"))
    # They trust the server's authority, which stays.
    pair = new.issue("bob")
    new_client = grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(), pair.key.read_bytes(), pair.certificate.read_bytes()
    )
    async with serving(config, old_client) as server:
        await server.call("Create", path="/a")
        assert [await gets_in(server, each) for each in (old_client, new_client)] == [True, False]
        replace_file(bundle, authority.certificate.read_bytes() + new.certificate.read_bytes())
        watch_of(server).check()
        assert [await gets_in(server, each) for each in (old_client, new_client)] == [True, True]
        replace_file(bundle, new.certificate.read_bytes())
        watch_of(server).check()
        assert [await gets_in(server, each) for each in (old_client, new_client)] == [False, True]
        await server.call("SetData", path="/a", data=b"on the old connection")


async def gets_in(server: Harness, channel_credentials: grpc.ChannelCredentials) -> bool:
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with aio.secure_channel(
        str(server.server.address), channel_credentials, options=options
    ) as channel:
        try:
            await Harness(server.server, server.replica, channel).call("Exists", path="/")
        except aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False
        return True


async def test_certificates_replaced_while_many_connect(
    config: ServerConfig, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handshakes and replacements cross; none of the calls fails."""
    monkeypatch.setattr(certificate_files, "CHECK_S", 0.002)
    client = credentials(authority, authority.issue("alice"))
    pairs = [authority.issue(f"server-{i}") for i in range(2)]
    target = Pair(Path(config.tls_cert), Path(config.tls_key))
    async with serving(config, client) as server:
        stop = asyncio.Event()
        calls = [asyncio.create_task(connect_often(server, client, stop)) for _ in range(8)]
        watch = watch_of(server)
        watch.start()
        for i in range(30):
            await asyncio.to_thread(pairs[i % 2].install, target)
            wanted = f"CN=server-{i % 2}"
            await eventually(lambda wanted=wanted: watch.loaded.own.subject == wanted)
        watch.stop()
        stop.set()
        assert sum([await each for each in calls]) >= 60
        assert await asyncio.to_thread(shown, server.server.address, trusting_all()) == wanted


async def connect_often(
    server: Harness, client: grpc.ChannelCredentials, stop: asyncio.Event
) -> int:
    count = 0
    while not stop.is_set():
        assert await gets_in(server, client)
        count += 1
    return count
