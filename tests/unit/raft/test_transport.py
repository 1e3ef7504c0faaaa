"""Connections between replicas, over real sockets on loopback.

Goal: two replicas find each other after any break and agree on one connection; with certificates,
only those that the authority signed. Method: `PeerNetwork` against itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from coordsvc.raft.messages import (
    Forward,
    Message,
    Round,
    TimeoutNow,
    encode_frame,
)
from coordsvc.testing.ports import free_port
from tests.unit.raft.peer_scene import HOST, Cluster, wait_for

# ---------------------------------------------------------------------- finding each other


async def test_two_replicas_link_and_talk(cluster: Cluster) -> None:
    one, two = await cluster.pair()
    messages: list[Message] = [Round(n, 0) for n in range(1000)]
    one.say(2, *messages)
    two.say(1, *messages)
    await wait_for(lambda: len(one.heard) == len(two.heard) == 1000)
    assert two.heard == [(1, 5, message) for message in messages], "in order, none twice"
    assert (one.linked[2].uuid, two.linked[1].uuid) == (two.uuid, one.uuid)


@pytest.mark.parametrize("piece", [1, 3, 7, 64, 1000])
async def test_frames_come_in_any_pieces(cluster: Cluster, piece: int) -> None:
    one, two = await cluster.pair()
    messages: list[Message] = [Forward(n, n, n, b"x" * (n % 90)) for n in range(40)]
    data = b"".join(encode_frame(5, message) for message in messages)
    link = two.network._links[1]
    for start in range(0, len(data), piece):
        link.data_received(data[start : start + piece])
    assert two.heard == [(1, 5, message) for message in messages]
    assert one.heard == []


async def test_three_replicas_link_each_with_each(cluster: Cluster) -> None:
    members = [await cluster.start(i) for i in (1, 2, 3)]
    for member in members:
        member.network.dial()
    await wait_for(lambda: all(len(member.linked) == 2 for member in members))


@pytest.mark.parametrize("dialler", [1, 2])
async def test_either_side_may_dial(cluster: Cluster, dialler: int) -> None:
    """A firewall or a missing route lets one direction through only."""
    one, two = await cluster.start(1), await cluster.start(2)
    {1: one, 2: two}[dialler].network.dial()
    await wait_for(lambda: 2 in one.linked and 1 in two.linked)


@pytest.mark.parametrize("attempt", range(8))
async def test_both_dial_at_once_and_keep_the_same_connection(
    cluster: Cluster, attempt: int
) -> None:
    one, two = await cluster.start(1), await cluster.start(2)
    dials = [one.network._dial_once(2), two.network._dial_once(1)]
    if attempt % 2:
        dials.reverse()
    await asyncio.gather(*dials)
    await wait_for(lambda: 2 in one.linked and 1 in two.linked)
    await wait_for(lambda: not one.network._strangers and not two.network._strangers)
    ends = one.network._links[2], two.network._links[1]
    assert [end.dialled_by() for end in ends] in ([1, 1], [2, 2])
    addresses = [
        {end._transport.get_extra_info(name) for name in ("sockname", "peername")}  # type: ignore[union-attr]
        for end in ends
    ]
    assert addresses[0] == addresses[1], "each keeps another connection"
    one.say(2, Round(1, 0))
    two.say(1, Round(2, 0))
    await wait_for(lambda: bool(one.heard and two.heard))


async def test_a_lower_ids_connection_replaces_a_higher_ones(cluster: Cluster) -> None:
    one, two = await cluster.start(1), await cluster.start(2)
    await two.network._dial_once(1)
    await wait_for(lambda: 2 in one.linked and 1 in two.linked)
    await one.network._dial_once(2)
    await wait_for(lambda: one.ups == two.ups == 2)
    await two.network._dial_once(1)
    await wait_for(lambda: not one.network._strangers and not two.network._strangers)
    for _ in range(20):
        await asyncio.sleep(0)
    assert [one.network._links[2].dialled_by(), two.network._links[1].dialled_by()] == [1, 1]
    assert 2 in one.linked and 1 in two.linked
    assert one.downs == two.downs == 0, "a replaced connection is not a lost peer"


async def test_a_broken_connection_is_told_and_made_again(cluster: Cluster) -> None:
    one, two = await cluster.pair()
    for round_number in range(3):
        ups = one.ups, two.ups
        one.network._links[2]._transport.abort()  # type: ignore[union-attr]
        await wait_for(lambda ups=ups: one.ups > ups[0] and two.ups > ups[1])  # type: ignore[misc]
        two.heard.clear()
        one.say(2, Round(round_number, 0))
        await wait_for(lambda: bool(two.heard))


async def test_frames_do_not_outlive_their_connection(cluster: Cluster) -> None:
    one, two = await cluster.pair()
    one.network.send(2, encode_frame(5, Round(1, 0)))
    one.network._links[2].close()
    one.network.send(2, encode_frame(5, Round(2, 0)))
    await wait_for(lambda: 2 in one.linked and 1 in two.linked)
    one.say(2, Round(3, 0))
    await wait_for(lambda: bool(two.heard))
    assert [message for _, _, message in two.heard] == [Round(3, 0)]


async def test_a_member_may_come_back_at_another_port(cluster: Cluster) -> None:
    one, two = await cluster.pair()
    await two.network.close()
    cluster.members.remove(two)
    await wait_for(lambda: not one.linked)
    cluster.ports[2] = free_port()
    again = await cluster.start(2)
    again.network.dial()
    await wait_for(lambda: 2 in one.linked and 1 in again.linked)


async def test_names_are_resolved_at_each_attempt(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await cluster.start(1), await cluster.start(2)
    loop = asyncio.get_running_loop()
    resolve, asked = loop.getaddrinfo, []

    async def look_up(host: Any, port: Any, **options: Any) -> Any:
        asked.append(host)
        if len(asked) < 3:
            raise socket.gaierror(socket.EAI_NONAME, "not yet")
        return await resolve(HOST, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    one.settings.peers[2] = ("replica-2.example", cluster.ports[2])  # type: ignore[index]
    one.settings.peers[3] = (HOST, free_port())  # type: ignore[index]
    one.network.dial()
    await wait_for(lambda: 2 in one.linked and 1 in two.linked)
    assert asked.count("replica-2.example") >= 3


async def test_a_name_that_cannot_be_looked_up_does_not_end_the_dialling(
    cluster: Cluster,
) -> None:
    """Not every fault of a name is an OSError: an empty label is a UnicodeError."""
    one, two = await cluster.start(1), await cluster.start(2)
    one.settings.peers[2] = ("replica..example", cluster.ports[2])  # type: ignore[index]
    one.network.dial()
    for _ in range(50):
        await asyncio.sleep(0.001)
    one.settings.peers[2] = (HOST, cluster.ports[2])  # type: ignore[index]
    await wait_for(lambda: 2 in one.linked and 1 in two.linked, timeout=3.0)


async def test_what_a_peer_forgot_is_told_to_it_and_to_us(cluster: Cluster) -> None:
    one, two = await cluster.start(1), await cluster.start(2)
    one.forgetful.add(2)
    one.network.dial()
    two.network.dial()
    await wait_for(lambda: 2 in one.linked and 1 in two.linked)
    assert one.linked[2].forgotten and not two.linked[1].forgotten
    assert two.told_forgotten_by and not one.told_forgotten_by


async def test_a_taken_address_is_reported(cluster: Cluster) -> None:
    await cluster.start(1)
    with pytest.raises(OSError):
        await cluster.start(1)


async def test_closing_frees_the_port_and_tells_nobody_of_lost_peers(cluster: Cluster) -> None:
    one, two = await cluster.pair()
    one.say(2, TimeoutNow())
    await one.network.close()
    assert 2 in one.linked, "one's own end is no loss of a peer"
    await wait_for(lambda: bool(two.heard) and not two.linked)
    assert two.heard == [(1, 5, TimeoutNow())], "the last words arrive"
    cluster.members.remove(one)
    again = await cluster.start(1)
    assert not again.linked


# ---------------------------------------------------------------------- mutual TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, certificates for replicas 1 to 3, and one that another authority signed."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        command = ["openssl", *arguments]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1\n")
    for authority in ("ca", "other"):
        openssl(
            *("req", "-x509", *new_key, "-keyout", f"{authority}.key", "-out", f"{authority}.pem"),
            *("-days", "2", "-subj", f"/CN={authority}"),
        )
    names = [("1", "ca"), ("2", "ca"), ("3", "ca"), ("stranger", "other")]
    for name, authority in names:
        subject = f"/CN=replica-{name}" if name != "stranger" else "/CN=replica-2"
        openssl(
            *("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        )
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem"),
            *("-CAkey", f"{authority}.key", "-CAcreateserial", "-days", "2"),
            *("-out", f"{name}.pem", "-extfile", "extensions"),
        )
    return folder


def contexts(folder: Path, name: str) -> dict[str, ssl.SSLContext]:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(folder / "ca.pem"))
    for context in (server, client):
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return {"peer_ssl_server": server, "peer_ssl_client": client}


async def test_members_with_certificates_link(cluster: Cluster, certificates: Path) -> None:
    one = await cluster.start(1, **contexts(certificates, "1"))
    two = await cluster.start(2, **contexts(certificates, "2"))
    one.network.dial()
    two.network.dial()
    await wait_for(lambda: 2 in one.linked and 1 in two.linked)
    one.say(2, Round(1, 0))
    await wait_for(lambda: bool(two.heard))


async def test_a_certificate_speaks_for_the_replica_it_names_only(
    cluster: Cluster, certificates: Path
) -> None:
    one = await cluster.start(1, **contexts(certificates, "1"))
    two = await cluster.start(2, **contexts(certificates, "3"))
    await two.network._dial_once(1)
    await one.network._dial_once(2)
    await wait_for(lambda: not one.network._strangers and not two.network._strangers)
    assert one.ups == 0


@pytest.mark.parametrize("kind", ["plain", "another authority"])
async def test_who_has_no_certificate_of_the_authority_is_shut_out(
    cluster: Cluster, certificates: Path, kind: str
) -> None:
    one = await cluster.start(1, **contexts(certificates, "1"))
    tls = {} if kind == "plain" else contexts(certificates, "stranger")
    two = await cluster.start(2, **tls)
    for near, far in ((two, 1), (one, 2)):
        try:
            await near.network._dial_once(far)
        except OSError:
            pass  # However the refusal shows itself.
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert one.ups == two.ups == 0
