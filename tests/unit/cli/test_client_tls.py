"""A client with TLS; and when it cannot connect, the message that says why."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from coordsvc.cli.main import main
from coordsvc.client.options import ClientConfig, TlsOptions
from coordsvc.client.retry import UnreachableError
from coordsvc.client.tls import authority_path, channel_credentials
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import BadArgumentsError
from coordsvc.server.certificate_files import CertificateWatch
from coordsvc.testing.certificates import Authority, Pair
from tests.unit.server.harness import Harness, local_server

GIVE_UP_MS = 300


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path, "ca")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "other", "other")


@asynccontextmanager
async def serving(authority: Authority, *, asks: bool = True) -> AsyncIterator[Harness]:
    pair = authority.issue("server")
    async with local_server(
        tls_cert=str(pair.certificate),
        tls_key=str(pair.key),
        tls_client_ca=str(authority.certificate) if asks else "",
    ) as server:
        yield server


def options(authority: Authority, pair: Pair | None = None, server_name: str = "") -> TlsOptions:
    return TlsOptions(
        authority=str(authority.certificate),
        certificate=str(pair.certificate) if pair is not None else "",
        key=str(pair.key) if pair is not None else "",
        server_name=server_name,
    )


async def create(server: Harness, tls: TlsOptions | None, *, host: str = "127.0.0.1") -> str:
    endpoint = f"{host}:{server.server.address.port}"
    config = ClientConfig((endpoint,), unreachable_timeout_ms=GIVE_UP_MS, tls=tls)
    async with UnaryClient(config) as client:
        return (await client.create("/a", b"1")).path


async def fault(server: Harness, tls: TlsOptions | None, **keywords: str) -> str:
    """What the caller is told; it does not hang, nothing was applied."""
    began = time.monotonic()
    with pytest.raises(UnreachableError) as caught:
        await create(server, tls, **keywords)
    assert time.monotonic() - began < 9, "it used up the whole of its 10 s"
    assert not server.server.door.calls_total
    return caught.value.message


async def test_a_client_that_trusts_the_authority(authority: Authority) -> None:
    async with serving(authority, asks=False) as server:
        assert await create(server, options(authority)) == "/a"


async def test_a_client_with_a_certificate(authority: Authority) -> None:
    async with serving(authority) as server:
        assert await create(server, options(authority, authority.issue("alice"))) == "/a"


async def test_a_replica_of_another_authority(authority: Authority, stranger: Authority) -> None:
    async with serving(authority, asks=False) as server:
        assert "certificate is not accepted: unable to get" in await fault(
            server, options(stranger)
        )


async def test_a_certificate_for_another_host(authority: Authority) -> None:
    async with serving(authority, asks=False) as server:
        message = await fault(server, options(authority, server_name="elsewhere.example"))
        assert re.search("certificate is not accepted: Hostname mismatch", message)
        named = options(authority, server_name="localhost")
        assert await create(server, named) == "/a"


async def test_a_certificate_that_has_expired(authority: Authority) -> None:
    async with serving(authority, asks=False) as server:
        authority.issue("server", days=-1)
        assert server.server.tls is not None
        watch: CertificateWatch = server.server.tls.watch
        watch.check()
        assert "has expired" in await fault(server, options(authority))


async def test_a_plain_client_at_a_port_with_tls(authority: Authority) -> None:
    for asks in (True, False):
        async with serving(authority, asks=asks) as server:
            assert "it speaks TLS" in await fault(server, None)


async def test_a_client_with_tls_at_a_plain_port(authority: Authority) -> None:
    async with local_server() as server:
        assert "it does not speak TLS" in await fault(server, options(authority))


async def test_a_client_without_the_certificate_that_is_asked_for(authority: Authority) -> None:
    async with serving(authority) as server:
        assert "asks for a client certificate" in await fault(server, options(authority))


async def test_a_client_whose_certificate_is_not_accepted(
    authority: Authority, stranger: Authority
) -> None:
    async with serving(authority) as server:
        mine = stranger.issue("alice")
        message = await fault(server, options(authority, mine))
        assert f"does not accept this client's certificate {mine.certificate}" in message


async def test_nobody_there_is_no_matter_of_tls(authority: Authority) -> None:
    async with serving(authority) as server:
        endpoint = str(server.server.address)
    config = ClientConfig((endpoint,), unreachable_timeout_ms=GIVE_UP_MS, tls=options(authority))
    async with UnaryClient(config) as client:
        with pytest.raises(UnreachableError) as caught:
            await client.status()
    assert caught.value.message == f"cannot connect to {endpoint}"


# -------------------------------------------------------------------------------------- the files


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    pair = authority.issue("alice")
    empty = tmp_path / "empty"
    empty.write_text("")
    other = authority.issue("other")
    wrong = {
        "nowhere": TlsOptions(authority="nowhere"),
        str(empty): TlsOptions(authority=str(empty)),
        "no-key": TlsOptions(str(authority.certificate), str(pair.certificate), "no-key"),
        str(other.certificate): TlsOptions(
            str(authority.certificate), str(other.certificate), str(empty)
        ),
        "mismatch": TlsOptions(str(authority.certificate), str(pair.certificate), str(other.key)),
        "together": TlsOptions(str(authority.certificate), str(pair.certificate), ""),
    }
    for word, tls in wrong.items():
        with pytest.raises(BadArgumentsError, match=re.escape(word)):
            channel_credentials(tls)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tls-cert", "a", "--tls-key", "b"), "--tls-ca is needed too"),
        (("--tls-ca", "a", "--tls-cert", "b"), "given together"),
        (("--tls-ca", "nowhere"), "cannot use nowhere"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(
    arguments: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(main, ["get", "/", *arguments])
    assert result.exit_code != 0 and message in result.output


async def test_the_commands_take_them(authority: Authority) -> None:
    pair = authority.issue("alice")
    async with serving(authority) as server:
        environment = {
            "COORDSVC_ENDPOINTS": str(server.server.address),
            "COORDSVC_CLIENT_TLS_CA": str(authority.certificate),
            "COORDSVC_CLIENT_TLS_CERT": str(pair.certificate),
            "COORDSVC_CLIENT_TLS_KEY": str(pair.key),
        }
        arguments = ["create", "/a", "x"]
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments, env=environment)
        assert result.exit_code == 0, result.output
        assert server.replica.machine.state.znodes["/a"].data == b"x"


def test_without_an_authority_the_systems_are_trusted(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    assert authority_path(TlsOptions()) == str(authority.certificate)
