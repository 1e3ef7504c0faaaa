"""What is told below /commands: ZooKeeper's names and keys, and nothing secret."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from coordsvc.server.zookeeper import monitoring
from coordsvc.server.zookeeper.json_commands import page
from coordsvc.server.zookeeper.monitoring import NOT_SERVING, environment, full_version
from coordsvc.server.zookeeper.words import WORDS
from coordsvc.v1 import cluster_pb2
from tests.unit.server.zookeeper.monitoring_harness import PEERS, Scene, monitored

ROOT = Path(__file__).parents[4]

NAMES = {
    "configuration": ("conf", "config"),
    "connections": ("cons",),
    "dump": (),
    "environment": ("env", "envi"),
    "is_read_only": ("isro",),
    "monitor": ("mntr",),
    "ruok": (),
    "server_stats": ("srvr",),
    "stats": ("stat",),
    "watch_summary": ("wchs",),
}


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with monitored() as scene:
        yield scene


def ask(scene: Scene, name: str) -> dict[str, Any]:
    """The content of an answer without a fault, without `command` and `error`."""
    answer = page(name, scene.about)
    content: dict[str, Any] = json.loads(answer.body)
    assert answer.status == HTTPStatus.OK and content.pop("error") is None
    assert content.pop("command")
    return content


# -------------------------------------------------------------------------------------- the names


async def test_the_list_names_each(scene: Scene) -> None:
    assert ask(scene, "") == {"commands": list(NAMES)}


@pytest.mark.parametrize("name", NAMES)
async def test_each_gives_its_own_name_by_whatever_name_it_was_asked(
    scene: Scene, name: str
) -> None:
    for asked in (name, *NAMES[name]):
        content = json.loads(page(asked, scene.about).body)
        assert content["command"] == name and content["error"] is None
        assert list(content)[-2:] == ["command", "error"]


@pytest.mark.parametrize("name", ["nope", "RUOK", "ruok/", '"\n<b>', "shed_connections"])
async def test_what_is_not_there_is_named_and_not_found(scene: Scene, name: str) -> None:
    for about in (scene.about, None):
        answer = page(name, about)
        expected = {"command": name, "error": f"Unknown command: {name}"}
        assert (answer.status, json.loads(answer.body)) == (HTTPStatus.NOT_FOUND, expected)


@pytest.mark.parametrize("name", ["", *NAMES])
def test_before_the_data_is_loaded_nothing_is_known(name: str) -> None:
    answer = page(name, None)
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert json.loads(answer.body) == {"command": name, "error": NOT_SERVING}


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"environment"}))
async def test_without_a_majority_it_says_that_it_does_not_serve(scene: Scene, name: str) -> None:
    """With 200, as ZooKeeper does: the fault is in `error`."""
    scene.harness.replica.has_quorum = False
    answer = page(name, scene.about)
    assert answer.status == HTTPStatus.OK
    assert json.loads(answer.body) == {"command": name, "error": NOT_SERVING}
    assert ask(scene, "environment") == environment()


async def test_the_documentation_names_each_word_and_its_command(scene: Scene) -> None:
    row = re.compile(r"^\| `(\w{4})` \| .* \| `(\w+)` \|$", re.MULTILINE)
    told = dict(row.findall((ROOT / "docs" / "monitoring.md").read_text()))
    assert told.keys() == WORDS and set(told.values()) == NAMES.keys()
    for word, name in told.items():
        assert json.loads(page(word, scene.about).body)["command"] == name


# ------------------------------------------------------------------------------------- the content


async def test_server_stats_and_stats(scene: Scene) -> None:
    await scene.harness.open_session()
    content = ask(scene, "server_stats")
    assert 1_500 <= content["server_stats"].pop("uptime") < 600_000
    assert content == {
        "version": full_version(),
        "read_only": False,
        "server_stats": {
            "packets_sent": 21,
            "packets_received": 19,
            "server_state": "standalone",
            "min_latency": 0,
            "avg_latency": 12.0001,
            "max_latency": 27,
            "outstanding_requests": 2,
            "last_processed_zxid": scene.harness.replica.machine.state.zxid,
            "num_alive_client_connections": 2,
            "provider_null": False,
        },
        "node_count": 4,
    }
    more = ask(scene, "stats")
    del more["server_stats"]["uptime"]
    brief = {
        "remote_socket_address": "127.0.0.1:47240",
        "interest_ops": 1,
        "outstanding_requests": 2,
        "packets_received": 4,
        "packets_sent": 5,
    }
    assert more.pop("connections")[0] == brief and more.pop("secure_connections") == []
    assert more == content


async def test_connections(scene: Scene) -> None:
    content = ask(scene, "connections")
    first, second = content["connections"]
    assert first == {
        "remote_socket_address": "127.0.0.1:47240",
        "interest_ops": 1,
        "outstanding_requests": 2,
        "packets_received": 4,
        "packets_sent": 5,
        "session_id": 42,
        "last_operation": "getData",
        "established": 1_795_407_281_855,
        "session_timeout": 10_000,
        "last_cxid": 3,
        "last_zxid": 31,
        "last_response_time": 1_795_407_282_000,
        "last_latency": 18,
        "min_latency": 0,
        "avg_latency": 12,
        "max_latency": 27,
    }
    assert second["remote_socket_address"] == "[::1]:47288" and second["last_cxid"] == -1
    assert content["secure_connections"] == []


async def test_with_tls_connections_are_secure(scene: Scene) -> None:
    scene.configure(tls_cert="cert.pem", tls_key="key.pem")
    for name in ("connections", "stats"):
        content = ask(scene, name)
        assert len(content["secure_connections"]) == 2 and content["connections"] == []


async def test_without_a_port_for_zookeeper_s_clients_the_rest_is_told(scene: Scene) -> None:
    scene.door = None
    assert ask(scene, "connections") == {"connections": [], "secure_connections": []}
    assert ask(scene, "configuration")["client_port"] == -1
    monitor = ask(scene, "monitor")
    assert monitor["num_alive_connections"] == monitor["packets_received"] == 0
    assert monitor["znode_count"] == 4


async def test_a_port_that_does_not_listen_yet_has_no_number(scene: Scene) -> None:
    assert scene.door is not None
    scene.door.address = None
    assert ask(scene, "configuration")["client_port"] == -1


async def test_monitor_has_the_keys_of_mntr_with_numbers(scene: Scene) -> None:
    content = ask(scene, "monitor")
    assert content["version"] == full_version() and content["server_state"] == "standalone"
    assert content["avg_latency"] == 12.0001 and content["znode_count"] == 4
    assert content["packets_sent"] == 21 and not any(key.startswith("zk_") for key in content)


async def test_monitor_at_the_leader() -> None:
    async with monitored(peers=PEERS) as scene:
        scene.hear(2, cluster_pb2.REPLICA_ROLE_FOLLOWER)
        content = ask(scene, "monitor")
        assert content["server_state"] == "leader" and content["quorum_size"] == 3
        assert content["learners"] == content["synced_followers"] == 1


async def test_configuration_has_what_zookeeper_has_and_no_secret(scene: Scene) -> None:
    scene.configure(data_dir="/data", superuser_digest="super:c2VjcmV0")
    assert ask(scene, "configuration") == {
        "client_port": 2181,
        "data_dir": "/data",
        "data_log_dir": "/data",
        "tick_time": 500,
        "max_client_cnxns": 10_000,
        "min_session_timeout": 1_000,
        "max_session_timeout": 120_000,
        "server_id": 1,
    }
    for name in NAMES:
        assert b"c2VjcmV0" not in page(name, scene.about).body


async def test_dump_tells_of_sessions_with_ephemerals(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts = [await scene.harness.open_session() for _ in range(3)]
    for i, context in enumerate((contexts[0], contexts[1], contexts[1])):
        path, mode = f"/e{i}", "CREATE_MODE_EPHEMERAL"
        await scene.harness.call("Create", path=path, context=context, mode=mode)
    first, second, _ = map(str, scene.harness.replica.machine.state.sessions)
    assert ask(scene, "dump") == {
        "expiry_time_to_session_ids": {},
        "session_id_to_ephemeral_paths": {first: ["/e0"], second: ["/e1", "/e2"]},
    }
    monkeypatch.setattr(monitoring, "LISTED_MAX", 2)
    assert ask(scene, "dump") == {
        "expiry_time_to_session_ids": {},
        "session_id_to_ephemeral_paths": {first: ["/e0"], second: ["/e1"]},
        "note": "1 more ephemerals are not listed",
    }


async def test_watch_summary(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.watch("/a", watcher="one", watch_id=1)
    scene.watch("/a", watcher="two", watch_id=1)
    expected: dict[str, Any] = {"num_connections": 2, "num_paths": 1, "num_total_watches": 2}
    assert ask(scene, "watch_summary") == expected
    monkeypatch.setattr(monitoring, "WATCHES_LOOKED_AT_MAX", 1)
    note = "connections and paths are those of 1 watches; there are more"
    assert ask(scene, "watch_summary") == {**expected, "num_connections": 1, "note": note}


async def test_is_read_only_and_ruok(scene: Scene) -> None:
    assert ask(scene, "is_read_only") == {"read_only": False}
    assert ask(scene, "ruok") == {}


async def test_no_command_walks_the_tree(scene: Scene) -> None:
    """There may be millions of znodes, and one turn of the loop for an answer."""
    scene.forbid_walks()
    for name in ("", *NAMES):
        ask(scene, name)
