"""TLS with real processes: certificates and authorities replaced while calls go on, and who is let
in."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from coordsvc.client.options import ClientConfig, TlsOptions
from coordsvc.client.retry import UnreachableError
from coordsvc.client.tls import open_channel
from coordsvc.client.unary import UnaryClient
from coordsvc.errors import NoAuthError
from coordsvc.exit_status import ExitStatus
from coordsvc.testing.certificates import Authority, Pair, replace_file
from coordsvc.testing.cluster import LocalCluster, wait_for
from coordsvc.v1 import common_pb2, coordination_pb2

CALLS_MIN = 100
CONNECTIONS_MIN = 20
"""What must have gone through in each phase, and on how many new connections of it."""

RENEWED_SECONDS = 5.0


@dataclass(frozen=True)
class Secured:
    """A cluster with TLS towards clients and among its replicas."""

    cluster: LocalCluster
    directory: Path
    authority: Authority
    """Of clients and replicas; what is trusted is `trusted`, a bundle."""

    @property
    def trusted(self) -> Path:
        return self.directory / "trusted.pem"

    def server_pair(self, replica_id: int) -> Pair:
        return pair(self.directory, f"replica-{replica_id}")

    @property
    def client(self) -> TlsOptions:
        return options(self.trusted, pair(self.directory, "alice"))

    def trust(self, *authorities: Authority) -> None:
        replace_file(self.trusted, b"".join(each.certificate.read_bytes() for each in authorities))

    def wait_loaded(self, count: int) -> None:
        """Until every replica has loaded for both its ports what changed last: `count` times."""
        for replica_id in self.cluster.ids:
            for purpose in ("clients", "peers"):
                wait_for(
                    lambda r=replica_id, p=purpose: loads(self.cluster, r, p) >= count,  # type: ignore[misc]
                    f"replica {replica_id} to load for {purpose}",
                )


def pair(directory: Path, name: str) -> Pair:
    return Pair(directory / f"{name}.pem", directory / f"{name}.key")


def options(trusted: Path, own: Pair | None = None) -> TlsOptions:
    if own is None:
        return TlsOptions(str(trusted))
    return TlsOptions(str(trusted), str(own.certificate), str(own.key))


def log_lines(cluster: LocalCluster, replica_id: int) -> list[dict[str, object]]:
    """Each line is JSON: grpc writes none of its own, whoever knocks."""
    return [json.loads(line) for line in cluster.log_path(replica_id).read_text().splitlines()]


def loads(cluster: LocalCluster, replica_id: int, purpose: str) -> int:
    return sum(
        line["event"] == "tls.loaded" and line["purpose"] == purpose
        for line in log_lines(cluster, replica_id)
    )


@pytest.fixture
def secured(make_cluster: Callable[..., LocalCluster], tmp_path: Path) -> Secured:
    """Three replicas that serve, each with a certificate for both its ports."""
    directory = tmp_path / "certificates"
    authority = Authority.make(directory, "ca-1")
    trusted = directory / "trusted.pem"
    replace_file(trusted, authority.certificate.read_bytes())
    authority.issue("alice", "/O=Example, Inc./CN=alice")
    environments = {}
    for replica_id in (1, 2, 3):
        own = authority.issue(f"replica-{replica_id}")
        environments[replica_id] = {
            f"COORDSVC_{prefix}TLS_{name}": str(path)
            for prefix, ca in (("", "CLIENT_CA"), ("PEER_", "CA"))
            for name, path in (("CERT", own.certificate), ("KEY", own.key), (ca, trusted))
        }
    cluster = make_cluster(
        3, environments=environments, tls=options(trusted, pair(directory, "alice"))
    )
    made = Secured(cluster, directory, authority)
    cluster.start()
    return made


# ------------------------------------------------------------------------------------------- load


class Load:
    """Writers on connections that stay, and on new ones. A call is made once: the first one that
    fails ends the test."""

    def __init__(self, secured: Secured) -> None:
        self._endpoints = secured.cluster.endpoints
        self.client = secured.client
        """What new connections show and trust from now on."""
        self._tasks: list[asyncio.Task[None]] = []
        self.calls = 0
        self.connections = 0

    async def __aenter__(self) -> Load:
        for endpoint in self._endpoints:
            self._tasks += [
                asyncio.create_task(self._on_one_connection(endpoint)),
                asyncio.create_task(self._on_new_connections(endpoint)),
            ]
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        failures = [each for each in ended if not isinstance(each, asyncio.CancelledError)]
        assert not failures, failures

    async def passes(self) -> None:
        """Until a phase's worth of traffic has gone through from now on; fails with the load."""
        calls, connections = self.calls + CALLS_MIN, self.connections + CONNECTIONS_MIN
        async with asyncio.timeout(30):
            while self.calls < calls or self.connections < connections:
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def _on_one_connection(self, endpoint: str) -> None:
        async with self._channel(endpoint) as channel:
            while True:
                await self._write(channel)

    async def _on_new_connections(self, endpoint: str) -> None:
        while True:
            async with self._channel(endpoint) as channel:
                await self._write(channel)
                self.connections += 1

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        config = ClientConfig((endpoint,), tls=self.client)
        return open_channel(
            endpoint, config, [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
        )

    async def _write(self, channel: grpc.aio.Channel) -> None:
        request = coordination_pb2.SetDataRequest(path="/", data=b"x")
        call = channel.unary_unary(
            "/coordsvc.v1.Coordination/SetData",
            request_serializer=coordination_pb2.SetDataRequest.SerializeToString,
            response_deserializer=coordination_pb2.SetDataResponse.FromString,
        )
        await call(request, timeout=10)
        self.calls += 1


def certificate_shown(endpoint: str, client: TlsOptions) -> bytes:
    """The certificate that a new connection is shown, in DER. The client's is shown too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(client.certificate, client.key)
    host, port = endpoint.split(":")
    with (
        socket.create_connection((host, int(port)), 5) as plain,
        context.wrap_socket(plain) as connection,
    ):
        shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def issue_anew(secured: Secured, authority: Authority) -> None:
    """New certificates for all replicas, put in place as an operator does it; returns once every
    replica shows its new one."""
    fresh = Authority(secured.directory / "fresh", authority.pair)
    fresh.directory.mkdir(exist_ok=True)
    for replica_id in secured.cluster.ids:
        fresh.issue(f"replica-{replica_id}").install(secured.server_pair(replica_id))
    for replica_id, replica in secured.cluster.replicas.items():
        wanted = ssl.PEM_cert_to_DER_cert(secured.server_pair(replica_id).certificate.read_text())
        wait_for(
            lambda w=wanted, e=replica.endpoint: certificate_shown(e, secured.client) == w,  # type: ignore[misc]
            f"replica {replica_id} to show its new certificate",
            RENEWED_SECONDS,
        )


async def test_certificates_and_the_authority_are_replaced_without_a_failed_call(
    secured: Secured,
) -> None:
    """Goal: nobody notices. Method: calls without retries on old and new connections to every
    replica, through each step of a renewal and of a rotation of the authority; after each step the
    new certificate is what new connections get, and at the end the old authority opens nothing."""
    old, cluster = secured.authority, secured.cluster
    new = Authority.make(secured.directory, "ca-2")
    async with Load(secured) as load:
        await load.passes()
        await asyncio.to_thread(issue_anew, secured, old)
        await load.passes()
        # The authority: first both are trusted everywhere, then new certificates, then one.
        await asyncio.to_thread(secured.trust, old, new)
        await asyncio.to_thread(secured.wait_loaded, 3)
        await load.passes()
        await asyncio.to_thread(issue_anew, secured, new)
        load.client = options(secured.trusted, new.issue("new-alice"))
        await load.passes()
        await asyncio.to_thread(secured.trust, new)
        await asyncio.to_thread(secured.wait_loaded, 5)
        await load.passes()
    for endpoint in cluster.endpoints:
        with pytest.raises(UnreachableError, match="does not accept this client's certificate"):
            await status(endpoint, secured.client)
        with pytest.raises(UnreachableError, match="certificate is not accepted"):
            await status(endpoint, replace(load.client, authority=str(old.certificate)))
    # And a replica that starts now is linked by the new certificates alone.
    cluster.tls = load.client
    follower = await asyncio.to_thread(follower_of, cluster)
    await asyncio.to_thread(restart, cluster, follower)
    await caught_up(cluster, follower, load.client)


async def test_a_replica_restarted_while_peers_certificates_change_joins(secured: Secured) -> None:
    """In the middle of a rotation: the restarted one has a certificate of the new authority, the
    others still show the old one's, and all trust both."""
    cluster = secured.cluster
    new = Authority.make(secured.directory, "ca-2")
    secured.trust(secured.authority, new)
    await asyncio.to_thread(secured.wait_loaded, 2)
    follower = await asyncio.to_thread(follower_of, cluster)
    fresh = Authority(secured.directory / "fresh", new.pair)
    fresh.directory.mkdir()
    fresh.issue(f"replica-{follower}").install(secured.server_pair(follower))
    await asyncio.to_thread(restart, cluster, follower)
    await caught_up(cluster, follower, secured.client)
    # A certificate that names another replica does not make it this one.
    other = next(each for each in cluster.ids if each != follower)
    secured.server_pair(other).install(secured.server_pair(follower))
    cluster.kill(follower)
    cluster.start_replica(follower)
    leader = await asyncio.to_thread(cluster.wait_leader)
    await asyncio.to_thread(
        wait_for,
        lambda: any(
            line["event"] == "peer.protocol_error" and f"replica-{other}" in str(line["error"])
            for line in log_lines(cluster, leader)
        ),
        "the leader to refuse a certificate of another replica",
    )
    assert not cluster.is_serving(follower)


def follower_of(cluster: LocalCluster) -> int:
    leader = cluster.wait_leader()
    return next(each for each in cluster.ids if each != leader)


def restart(cluster: LocalCluster, replica_id: int) -> None:
    cluster.kill(replica_id)
    cluster.start_replica(replica_id)
    cluster.wait_ready()


async def caught_up(cluster: LocalCluster, replica_id: int, client: TlsOptions) -> None:
    """A write elsewhere is seen at this replica."""
    others = tuple(r.endpoint for i, r in cluster.replicas.items() if i != replica_id)
    endpoint = cluster.replicas[replica_id].endpoint
    async with UnaryClient(ClientConfig(others, tls=client)) as there:
        written = await there.set_data("/", b"seen everywhere")
    async with UnaryClient(ClientConfig((endpoint,), tls=client)) as here:
        await here.digest(min_zxid=written.header.zxid)


async def status(endpoint: str, tls: TlsOptions | None) -> None:
    config = ClientConfig((endpoint,), unreachable_timeout_ms=200, tls=tls)
    async with UnaryClient(config) as client:
        await client.status()


# ----------------------------------------------------------------------------------- who is let in


async def test_who_is_let_in_and_what_an_identity_opens(secured: Secured) -> None:
    endpoint = secured.cluster.endpoints[0]
    foreign = Authority.make(secured.directory / "foreign", "ca-1").issue("alice")
    bob = secured.authority.issue("bob", "/O=Example, Inc./CN=bob")
    for tls, reason in (
        (None, "it speaks TLS"),
        (options(secured.trusted), "asks for a client certificate"),
        (options(secured.trusted, foreign), "does not accept this client's certificate"),
    ):
        with pytest.raises(UnreachableError, match=reason):
            await status(endpoint, tls)
    acl = common_pb2.Acl(permissions=31, scheme="x509", id="CN=alice,O=Example\\, Inc.")
    config = ClientConfig(secured.cluster.endpoints, tls=secured.client)
    async with UnaryClient(config) as alice:
        await alice.create("/open")
        await create_for(endpoint, secured.client, "/hers", acl)
        assert (await alice.get_data("/hers")).data == b"secret"
        await alice.create("/hers/old")
    for each in secured.cluster.endpoints:
        async with UnaryClient(
            replace(config, endpoints=(each,), tls=options(secured.trusted, bob))
        ) as client:
            await client.sync()
            assert (await client.get_data("/open")).stat.version == 0
            for refused in (
                lambda c=client: c.get_data("/hers"),
                lambda c=client: c.set_data("/hers", b""),
                lambda c=client: c.delete("/hers/old"),
                lambda c=client: c.create("/hers/child"),
                lambda c=client: anext(aiter(c.get_children("/hers"))),
            ):
                with pytest.raises(NoAuthError):
                    await refused()
    for replica_id in secured.cluster.ids:
        assert log_lines(secured.cluster, replica_id), "every line of it is JSON"


def test_files_that_do_not_fit_end_the_start_and_are_named(
    make_cluster: Callable[..., LocalCluster], tmp_path: Path
) -> None:
    authority = Authority.make(tmp_path / "certificates", "ca")
    one, two = authority.issue("one"), authority.issue("two")
    cluster = make_cluster(
        1, extra_arguments=("--tls-cert", str(one.certificate), "--tls-key", str(two.key))
    )
    cluster.start(wait=False)
    assert cluster.wait_end(1) == ExitStatus.USAGE
    (refused,) = [line for line in log_lines(cluster, 1) if line["event"] == "process.refused"]
    assert f"--tls-key {two.key}" in str(refused["error"])


async def create_for(endpoint: str, tls: TlsOptions, path: str, acl: common_pb2.Acl) -> None:
    channel = open_channel(endpoint, ClientConfig((endpoint,), tls=tls), ())
    async with channel:
        create = channel.unary_unary(
            "/coordsvc.v1.Coordination/Create",
            request_serializer=coordination_pb2.CreateRequest.SerializeToString,
            response_deserializer=coordination_pb2.CreateResponse.FromString,
        )
        request = coordination_pb2.CreateRequest(path=path, data=b"secret", acl=[acl])
        await create(request, timeout=10)
