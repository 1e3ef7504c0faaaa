"""Four-letter words: their texts, as programs take them apart, and who may ask."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from coordsvc import __version__
from coordsvc.server.zookeeper import monitoring
from coordsvc.server.zookeeper.four_letter import WORDS, answer, is_word, parse_allowed
from coordsvc.server.zookeeper.monitoring import full_version
from coordsvc.v1 import cluster_pb2
from tests.unit.server.zookeeper.monitoring_harness import FACTS, PEERS, Scene, monitored

ALL = parse_allowed("*")
NOT_SERVING = "This ZooKeeper instance is not currently serving requests\n"


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with monitored() as scene:
        yield scene


def values_of(text: str) -> dict[str, str]:
    """Of `mntr`."""
    return dict(line.split("\t") for line in text.splitlines())


# ------------------------------------------------------------------------------------ who may ask


def test_what_zookeeper_knows_is_a_word_and_anything_else_is_a_length() -> None:
    for word in (*WORDS, "wchp", "wchc", "stmk", "gtmk", "crst", "srst", "dirs", "hash"):
        assert is_word(word.encode()), word
    for first in (b"ruoK", b"abcd", b"\0\0\0-", b"srv", b"srvrx", b"    ", b"\xff\xf4\xff\xfd"):
        assert not is_word(first), first


def test_the_list_is_words_and_commas_and_srvr_is_always_there() -> None:
    assert parse_allowed("srvr") == parse_allowed("") == {"srvr"}
    assert parse_allowed(" ruok , mntr,") == {"ruok", "mntr", "srvr"}
    assert parse_allowed("*") == parse_allowed("ruok, *") == WORDS


@pytest.mark.parametrize(
    ("text", "word"), [("ruok,wchp", "wchp"), ("*,rouk", "rouk"), ("**", "**")]
)
def test_a_word_that_is_not_served_is_named(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(word)) + " is none of conf, cons, "):
        parse_allowed(text)


@pytest.mark.parametrize("word", ["mntr", "wchp", "ruok", "envi"])
async def test_a_word_that_is_not_allowed_is_answered_with_that(scene: Scene, word: str) -> None:
    expected = f"{word} is not executed because it is not in the whitelist.\n"
    assert answer(word, scene.about, parse_allowed("srvr")) == expected


async def test_all_are_those_that_are_served(scene: Scene) -> None:
    assert answer("wchp", scene.about, ALL).endswith("not in the whitelist.\n")
    for word in WORDS:
        assert "whitelist" not in answer(word, scene.about, ALL)


# ------------------------------------------------------------------------------------- the texts


async def test_ruok_and_isro_have_no_end_of_line(scene: Scene) -> None:
    assert answer("ruok", scene.about, ALL) == "imok"
    assert answer("isro", scene.about, ALL) == "rw"


async def test_srvr(scene: Scene) -> None:
    await scene.harness.open_session()
    await scene.harness.call("Create", path="/a")
    zxid = scene.harness.replica.machine.state.zxid
    assert answer("srvr", scene.about, ALL) == (
        f"Zookeeper version: {full_version()}\n"
        "Latency min/avg/max: 0/12.0001/27\n"
        "Received: 19\n"
        "Sent: 21\n"
        "Connections: 2\n"
        "Outstanding: 2\n"
        f"Zxid: 0x{zxid:x}\n"
        "Mode: standalone\n"
        "Node count: 5\n"
    )


async def test_stat_has_the_clients_before_the_rest(scene: Scene) -> None:
    version, rest = answer("srvr", scene.about, ALL).split("\n", 1)
    assert answer("stat", scene.about, ALL) == (
        f"{version}\n"
        "Clients:\n"
        " /127.0.0.1:47240[1](queued=2,recved=4,sent=5)\n"
        " /[::1]:47288[1](queued=0,recved=1,sent=0)\n"
        "\n"
        f"{rest}"
    )


async def test_cons_tells_more_of_a_connection_with_a_session(scene: Scene) -> None:
    assert answer("cons", scene.about, ALL) == (
        " /127.0.0.1:47240[1](queued=2,recved=4,sent=5,sid=0x2a,lop=getData,est=1795407281855,"
        "to=10000,lcxid=0x3,lzxid=0x1f,lresp=1795407282000,llat=18,minlat=0,avglat=12,maxlat=27)\n"
        " /[::1]:47288[1](queued=0,recved=1,sent=0)\n"
        "\n"
    )


async def test_cons_leaves_out_the_number_of_a_request_that_has_none(scene: Scene) -> None:
    assert scene.door is not None
    silent = replace(FACTS.connections[0], last_xid=-1)
    scene.door.told = replace(FACTS, connections=(silent,))
    assert ",to=10000,lzxid=0x1f," in answer("cons", scene.about, ALL)


async def test_conf(scene: Scene) -> None:
    scene.configure(data_dir="/data", superuser_digest="super:c2VjcmV0")
    assert answer("conf", scene.about, ALL) == (
        "clientPort=2181\n"
        "secureClientPort=-1\n"
        "dataDir=/data\n"
        "dataLogDir=/data\n"
        "tickTime=500\n"
        "maxClientCnxns=10000\n"
        "minSessionTimeout=1000\n"
        "maxSessionTimeout=120000\n"
        "serverId=1\n"
    )


async def test_conf_of_a_member_tells_the_others(scene: Scene) -> None:
    scene.configure(peers=PEERS)
    assert answer("conf", scene.about, ALL).split("serverId=1\n")[1] == (
        "electionPort=17001\n"
        "quorumPort=17001\n"
        "peerType=0\n"
        "membership: \n"
        "server.1=10.0.0.1:17001:17001:participant\n"
        "version=0\n"
    )


async def test_with_tls_the_port_is_the_secure_one(scene: Scene) -> None:
    scene.configure(tls_cert="cert.pem", tls_key="key.pem")
    assert answer("conf", scene.about, ALL).startswith("clientPort=-1\nsecureClientPort=2181\n")


async def test_dump_lists_sessions_and_their_ephemerals(scene: Scene) -> None:
    context = await scene.harness.open_session(timeout_ms=7_000)
    await scene.harness.open_session(timeout_ms=8_000)
    await scene.harness.call("Create", path="/e", context=context, mode="CREATE_MODE_EPHEMERAL")
    first, second = scene.harness.replica.machine.state.sessions
    assert answer("dump", scene.about, ALL) == (
        "SessionTracker dump:\n"
        "Global Sessions(2):\n"
        f"0x{first:x}\t7000ms\n"
        f"0x{second:x}\t8000ms\n"
        "ephemeral nodes dump:\n"
        "Sessions with Ephemerals (1):\n"
        f"0x{first:x}:\n"
        "\t/e\n"
        "Connections dump:\n"
        "\tip: /127.0.0.1:47240 sessionId: 0x2a\n"
        "\tip: /[::1]:47288 sessionId: 0x0\n"
    )


async def test_dump_lists_no_more_than_some_and_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of sessions nor of paths, whoever owns them."""
    monkeypatch.setattr(monitoring, "LISTED_MAX", 3)
    contexts = [await scene.harness.open_session() for _ in range(4)]
    for i, context in enumerate((contexts[0], contexts[0], contexts[1], contexts[1], contexts[2])):
        path, mode = f"/e{i}", "CREATE_MODE_EPHEMERAL"
        await scene.harness.call("Create", path=path, context=context, mode=mode)
    lines = answer("dump", scene.about, ALL).splitlines()
    assert "Global Sessions(4):" in lines and "Sessions with Ephemerals (3):" in lines
    assert [line for line in lines if line.startswith("\t/")] == ["\t/e0", "\t/e1", "\t/e2"]
    assert sum(line.endswith("0ms") for line in lines) == 3
    assert lines[-2:] == ["1 more sessions are not listed", "2 more ephemerals are not listed"]


async def test_wchs_counts_watchers_paths_and_watches(scene: Scene) -> None:
    assert answer("wchs", scene.about, ALL) == "0 connections watching 0 paths\nTotal watches:0\n"
    scene.watch("/a", watcher="one", watch_id=1)
    scene.watch("/b", watcher="one", watch_id=2)
    scene.watch("/b", watcher="two", watch_id=1)
    scene.watch("/b", watcher="two", watch_id=2, kind=3)
    assert answer("wchs", scene.about, ALL) == "2 connections watching 2 paths\nTotal watches:4\n"


async def test_wchs_looks_at_some_and_says_so(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitoring, "WATCHES_LOOKED_AT_MAX", 2)
    for i in range(3):
        scene.watch(f"/{i}", watcher=f"w{i}", watch_id=1)
    assert answer("wchs", scene.about, ALL) == (
        "2 connections watching 2 paths\n"
        "Total watches:3\n"
        "connections and paths are those of 2 watches; there are more\n"
    )


async def test_mntr(scene: Scene) -> None:
    """What it tells is what is known; the rest of ZooKeeper's keys is not there."""
    context = await scene.harness.open_session()
    await scene.harness.call("Create", path="/a", data=b"12345")
    await scene.harness.call("Create", path="/e", context=context, mode="CREATE_MODE_EPHEMERAL")
    scene.watch("/a", watcher="one", watch_id=1)
    values = values_of(answer("mntr", scene.about, ALL))
    assert 1_500 <= int(values.pop("zk_uptime")) < 600_000
    assert 3 < int(values.pop("zk_open_file_descriptor_count")) < 100_000
    assert int(values.pop("zk_max_file_descriptor_count")) > 3
    assert values == {
        "zk_version": full_version(),
        "zk_server_state": "standalone",
        "zk_avg_latency": "12.0001",
        "zk_max_latency": "27",
        "zk_min_latency": "0",
        "zk_packets_received": "19",
        "zk_packets_sent": "21",
        "zk_num_alive_connections": "2",
        "zk_outstanding_requests": "2",
        "zk_znode_count": "6",
        "zk_watch_count": "1",
        "zk_ephemerals_count": "1",
        "zk_approximate_data_size": "5",
        "zk_global_sessions": "1",
        "zk_local_sessions": "0",
    }


async def test_the_leader_tells_of_its_followers() -> None:
    """One that is not heard of is none; one that is still catching up is not synced."""
    async with monitored(peers=PEERS) as scene:
        values = values_of(answer("mntr", scene.about, ALL))
        assert values["zk_server_state"] == "leader" and values["zk_quorum_size"] == "3"
        assert values["zk_learners"] == values["zk_synced_followers"] == "0"
        scene.hear(2, cluster_pb2.REPLICA_ROLE_FOLLOWER)
        scene.hear(3, cluster_pb2.REPLICA_ROLE_JOINING)
        values = values_of(answer("mntr", scene.about, ALL))
        assert values["zk_learners"] == "2" and values["zk_synced_followers"] == "1"
        assert values["zk_synced_observers"] == values["zk_synced_non_voting_followers"] == "0"
        assert "Mode: leader\n" in answer("srvr", scene.about, ALL)


async def test_a_member_without_others_is_standalone() -> None:
    """It listens for no peer, and has no one to tell of."""
    async with monitored(peers={1: PEERS[1]}) as scene:
        values = values_of(answer("mntr", scene.about, ALL))
        assert values["zk_server_state"] == "standalone" and "zk_quorum_size" not in values
        assert answer("conf", scene.about, ALL).endswith("serverId=1\n")


async def test_a_follower_tells_of_none() -> None:
    async with monitored(peers=PEERS) as scene:
        scene.harness.replica.is_leader = False
        scene.harness.replica.leader_id = 2
        values = values_of(answer("mntr", scene.about, ALL))
        assert values["zk_server_state"] == "follower" and values["zk_quorum_size"] == "3"
        assert not {"zk_learners", "zk_synced_followers"} & set(values)
        assert "Mode: follower\n" in answer("srvr", scene.about, ALL)


async def test_envi_tells_the_version_that_clients_go_by(scene: Scene) -> None:
    """As kazoo's server_version() takes it apart."""
    lines = answer("envi", scene.about, ALL).splitlines()
    assert lines[0] == "Environment:"
    values = dict(line.split("=", 1) for line in lines[1:])
    assert values["zookeeper.version"] == full_version()
    numbers = re.match(r"([\d\.]*).*", values["zookeeper.version"])
    assert numbers is not None and numbers.group(1) == "3.9.5"
    assert all(values.values())


def test_the_version_has_zookeeper_s_form() -> None:
    pattern = (
        rf"3\.9\.5-coordsvc-{re.escape(__version__)}, built on \d{{4}}-\d\d-\d\d \d\d:\d\d UTC"
    )
    assert re.fullmatch(pattern, full_version())


# ----------------------------------------------------------------------------------- not serving


@pytest.mark.parametrize("word", sorted(WORDS - {"ruok", "isro", "envi"}))
async def test_without_a_majority_it_says_that_it_does_not_serve(scene: Scene, word: str) -> None:
    scene.harness.replica.has_quorum = False
    assert answer(word, scene.about, ALL) == NOT_SERVING


async def test_without_a_majority_the_process_is_still_there(scene: Scene) -> None:
    scene.harness.replica.has_quorum = False
    assert answer("ruok", scene.about, ALL) == "imok"
    assert answer("isro", scene.about, ALL) == "null"
    assert answer("envi", scene.about, ALL).startswith("Environment:\n")


async def test_no_word_walks_the_tree(scene: Scene) -> None:
    """There may be millions of znodes, and one turn of the loop for an answer."""
    scene.forbid_walks()
    for word in sorted(WORDS):
        assert answer(word, scene.about, ALL)
