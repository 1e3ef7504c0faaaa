"""Configuration: sources and their order, and what each of them does not take."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordsvc.server.addresses import Address
from coordsvc.server.config import ClusterConfig, ConfigError, ServerConfig, load, load_config
from coordsvc.server.config_keys import KEYS, Key


def faults_of(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    toml_path: Path | None = None,
    settings: Sequence[str] = (),
) -> dict[str, str]:
    """Key, as people call it -> the whole fault."""
    with pytest.raises(ConfigError) as caught:
        load_config(flags or {}, environ or {}, toml_path, settings)
    return {fault.key: str(fault) for fault in caught.value.faults}


def toml(tmp_path: Path, text: str) -> Path:
    file_path = tmp_path / "coordsvc.toml"
    file_path.write_text(text)
    return file_path


def test_without_any_source_there_are_the_defaults() -> None:
    config = load_config({}, {})
    assert config == ServerConfig()
    assert config.listen == Address("127.0.0.1", 7401)
    assert config.peer_address is None


def test_settings_and_flags_outrank_the_environment_and_that_the_file(tmp_path: Path) -> None:
    text = '[replica]\ndata_dir = "file"\nid = 5\n[cluster]\ntick_ms = 400\n[limits]\n'
    text += "watches_max = 1\nwatches_per_stream_max = 1\nreads_waiting_max = 7\n"
    environ = {
        "COORDSVC_DATA_DIR": "environment",
        "COORDSVC_REPLICA_ID": "6",
        "COORDSVC_WATCHES_MAX": "2",
    }
    flags = {"data_dir": "flag", "replica_id": None}
    config = load_config(flags, environ, toml(tmp_path, text), ["limits.watches_max=3"])
    assert config.data_dir == "flag"
    assert config.replica_id == 6
    assert config.cluster.tick_ms == 400
    assert config.cluster.session_timeout_ms_min == 1000
    assert (config.limits.watches_max, config.limits.reads_waiting_max) == (3, 7)


def test_where_each_value_is_from_is_kept(tmp_path: Path) -> None:
    file_path = toml(tmp_path, "[replica]\nid = 5\n")
    loaded = load(
        {"listen": "127.0.0.1:1"}, {"COORDSVC_TICK_MS": "400"}, file_path, ["logging.level=debug"]
    )
    assert loaded.origins == {
        "replica_id": str(file_path),
        "tick_ms": "environment COORDSVC_TICK_MS",
        "listen": "--listen",
        "log_level": "--set logging.level",
    }


@pytest.mark.parametrize("key", KEYS.values(), ids=lambda key: key.label)
def test_every_key_can_be_given_in_every_source(key: Key, tmp_path: Path) -> None:
    """Goal: no key is forgotten in one of them. Method: a value that is not the default, by TOML,
    environment, option and --set, read back; whether it goes with the others is not asked."""
    value, text = other_value(key, tmp_path)
    line = f"[{key.table}]\n{key.toml_name} = {value}\n" if key.toml_name else f"[peers]\n{value}\n"
    base = {"listen": "127.0.0.1:7401", "insecure": True}
    for name in ("tls_cert", "tls_key", "peer_tls_cert", "peer_tls_key", "peer_tls_ca"):
        if key.table in name:
            base[name] = str(tmp_path / "pem")
    base.pop(key.name, None)
    by_toml = load(base, {}, toml(tmp_path, line))
    sources = {
        str(tmp_path / "coordsvc.toml"): by_toml,
        f"environment {key.environment_name}": load(base, {key.environment_name: text}),
        "--" + key.name.replace("_", "-"): load({**base, key.name: text}, {}),
        f"--set {key.label}": load(base, {}, None, [f"{key.label}={text}"]),
    }
    for origin, loaded in sources.items():
        assert key.value_in(loaded.config) == key.value_in(by_toml.config), origin
        assert key.value_in(loaded.config) != key.value_in(ServerConfig()), origin
        assert loaded.origins[key.name] == origin


OTHER_VALUES = {
    "replica_id": "3",
    "listen": '"127.0.0.1:1"',
    "peer_listen": '"127.0.0.1:2"',
    "advertise": '"front:7401"',
    "admin_listen": '"none"',
    "zookeeper_listen": '"127.0.0.1:2181"',
    "zookeeper_advertise": '"front:2181"',
    "zookeeper_four_letter_words": '"srvr, ruok"',
    "insecure": "true",
    "superuser_digest": '"super:D/InIHSb7yEEbrWz8b9l71RjZJU="',
    "log_format": '"json"',
    "log_level": '"debug"',
    "session_timeout_ms_min": "1001",
    "session_timeout_ms_max": "60000",
    "watch_buffer_bytes_max": "4194305",
}
"""Where the default and one less or one more will not do."""


def other_value(key: Key, tmp_path: Path) -> tuple[str, str]:
    """(as TOML, as text)."""
    if key.name == "peers":
        return '1 = "127.0.0.1:7501"', "1=127.0.0.1:7501"
    if key.name in OTHER_VALUES:
        value = OTHER_VALUES[key.name]
    elif key.name.startswith(("tls_", "peer_tls_", "data_dir")):
        (tmp_path / "pem").write_text("")
        value = f'"{tmp_path / "pem"}"'
    else:
        value = str(key.value_in(ServerConfig()) - 1)
    return value, value.strip('"')


def test_the_file_can_be_named_in_the_environment(tmp_path: Path) -> None:
    file_path = toml(tmp_path, "[replica]\nid = 5\n")
    assert load_config({}, {"COORDSVC_CONFIG": str(file_path)}).replica_id == 5


def test_all_faults_are_reported_at_once_with_key_and_origin(tmp_path: Path) -> None:
    file_path = toml(tmp_path, '[replica]\nid = "x"\nlisten = 7401\n')
    faults = faults_of(
        {"admin_listen": "nowhere", "peers": "2=a:1"},
        {"COORDSVC_TICK_MS": "1", "COORDSVC_INSECURE": "perhaps"},
        file_path,
        ["limits.watches_max=many"],
    )
    assert set(faults) == {
        "replica.id",
        "replica.listen",
        "replica.admin_listen",
        "peers",
        "cluster.tick_ms",
        "access.insecure",
        "limits.watches_max",
    }
    assert str(file_path) in faults["replica.id"]
    assert "--admin-listen" in faults["replica.admin_listen"]
    assert "COORDSVC_TICK_MS" in faults["cluster.tick_ms"]
    assert "--set limits.watches_max" in faults["limits.watches_max"]


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        # The flat form, and what is not in a table, or not in its own.
        (
            'listen = "a:1"',
            "listen",
            "a key must stand in a table; this one is listen, in [replica]",
        ),
        ("replica_id = 1", "replica_id", "this one is id, in [replica]"),
        ('peer_tls_ca = "x"', "peer_tls_ca", "this one is ca, in [peer_tls]"),
        ('lissten = "a:1"', "lissten", "did you mean listen, in [replica]?"),
        (
            "[limits]\nsessions_max = 1",
            "limits.sessions_max",
            "this one is sessions_max, in [cluster]",
        ),
        ("[limits]\nwatchs_max = 1", "limits.watchs_max", "did you mean watches_max?"),
        ("[replica]\nreplica_id = 1", "replica.replica_id", "this one is id, in [replica]"),
        ("[replica]\nqqqq = 1", "replica.qqqq", "unknown key"),
        # Tables.
        ("[limit]\nx = 1", "limit", "did you mean limits?"),
        ("[qqqq]\nx = 1", "qqqq", "the tables are [replica] [peers]"),
        ("limits = 5", "limits", "is a table: write [limits]"),
        ('peers = "1=a:1"', "peers", "is a table: write [peers]"),
        ('[peers]\none = "a:1"', "peers", "'one=a:1' is not ID=HOST:PORT"),
        ("[peers]\n1 = 2", "peers", "2 is not a text"),
    ],
)
def test_what_does_not_belong_into_the_file(
    tmp_path: Path, text: str, key: str, expected: str
) -> None:
    faults = faults_of(toml_path=toml(tmp_path, text + "\n"))
    assert set(faults) == {key}
    assert expected in faults[key]


@pytest.mark.parametrize(
    ("settings", "key", "expected"),
    [
        (["limits.watches_max"], "limits.watches_max", "is not TABLE.KEY=VALUE"),
        (["watches_max=3"], "watches_max", "did you mean limits.watches_max?"),
        (
            ["limits.watches_max=20000", "limits.watches_max=20001"],
            "limits.watches_max",
            "given twice",
        ),
        (["replica.listen=127.0.0.1:2"], "replica.listen", "the first is --listen"),
    ],
)
def test_what_set_does_not_take(settings: list[str], key: str, expected: str) -> None:
    faults = faults_of({"listen": "127.0.0.1:1"}, settings=settings)
    assert set(faults) == {key}
    assert expected in faults[key]


def test_a_file_that_is_not_there_or_no_toml_is_an_error(tmp_path: Path) -> None:
    assert "No such file" in faults_of(toml_path=tmp_path / "none")["config"]
    assert "config" in faults_of(toml_path=toml(tmp_path, "listen = "))


KUBERNETES = {
    "COORDSVC_SERVICE_HOST": "10.0.0.5",
    "COORDSVC_SERVICE_PORT": "7401",
    "COORDSVC_SERVICE_PORT_GRPC": "7401",
    "COORDSVC_SERVICE_PORT_HTTP_METRICS": "7701",
    "COORDSVC_PORT": "tcp://10.0.0.5:7401",
    "COORDSVC_PORT_7401_TCP": "tcp://10.0.0.5:7401",
    "COORDSVC_PORT_7401_TCP_ADDR": "10.0.0.5",
    "COORDSVC_PORT_7401_TCP_PORT": "7401",
    "COORDSVC_PORT_7401_TCP_PROTO": "tcp",
    "COORDSVC_CLIENT_SERVICE_HOST": "10.0.0.6",
    "COORDSVC_CLIENT_PORT": "tcp://10.0.0.6:7401",
    "COORDSVC_CLIENT_PORT_7401_TCP_PORT": "7401",
}


def test_names_that_kubernetes_injects_are_ignored() -> None:
    assert load_config({}, KUBERNETES) == ServerConfig()


def test_other_unknown_environment_names_are_errors_and_the_nearest_is_suggested() -> None:
    environ = {"COORDSVC_LISTN": "a:1", "COORDSVC_LISTEN_PORT": "7401", "COORDSVC_X": "1"}
    faults = faults_of(environ=environ)
    assert set(faults) == set(environ)
    assert "did you mean COORDSVC_LISTEN?" in faults["COORDSVC_LISTN"]


def test_what_the_client_commands_read_is_not_the_replicas_to_refuse() -> None:
    sources = (Path(__file__).parents[3] / "coordsvc" / "cli").glob("*.py")
    text = "\n".join(path.read_text() for path in sources)
    names = re.findall(r'envvar="(COORDSVC_[A-Z_]+)"', text)
    assert "COORDSVC_ENDPOINTS" in names
    assert load_config({}, {**dict.fromkeys(names, "x"), "OTHER": "1"}) == ServerConfig()


def test_what_was_not_understood_is_not_judged_a_second_time() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"watches_max": "many", "watches_per_stream_max": 600_000}, {})
    (fault,) = caught.value.faults
    assert (fault.key, fault.message) == ("limits.watches_max", "'many' is not a whole number")


def test_a_truth_is_not_a_number() -> None:
    assert "replica.id" in faults_of({"replica_id": True})


def test_the_peer_address_is_its_own_entry_unless_given() -> None:
    flags = {"peers": "1=127.0.0.1:1,2=127.0.0.1:2"}
    assert load_config(flags, {}).peer_address == Address("127.0.0.1", 1)
    config = load_config({**flags, "peer_listen": "127.0.0.1:9"}, {})
    assert config.peer_address == Address("127.0.0.1", 9)


def test_what_clients_are_told_to_dial() -> None:
    peers = {1: Address("10.0.0.1", 9), 2: Address("10.0.0.2", 9)}
    any_host = ServerConfig(listen=Address("0.0.0.0", 7401))
    assert ServerConfig().client_address == "127.0.0.1:7401"
    assert ServerConfig(advertise=Address("front", 1)).client_address == "front:1"
    assert any_host.client_address == ""
    assert replace(any_host, peers=peers).client_address == "10.0.0.1:7401"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"zookeeper_advertise": Address("front", 1)}, ""),
        ({"zookeeper_listen": Address("10.0.0.9", 2181)}, "10.0.0.9:2181"),
        ({"zookeeper_listen": Address("::1", 2181)}, "[::1]:2181"),
        ({"zookeeper_listen": Address("0.0.0.0", 2181),
          "zookeeper_advertise": Address("front", 1)}, "front:1"),
        # The host is the one that other clients are told: given, own, or among the peers.
        ({"zookeeper_listen": Address("0.0.0.0", 2181),
          "advertise": Address("front", 1)}, "front:2181"),
        ({"zookeeper_listen": Address("0.0.0.0", 2181),
          "listen": Address("10.0.0.9", 7401)}, "10.0.0.9:2181"),
        ({"zookeeper_listen": Address("::", 2181),
          "listen": Address("2001:db8::9", 7401)}, "[2001:db8::9]:2181"),
        ({"zookeeper_listen": Address("0.0.0.0", 2181), "listen": Address("0.0.0.0", 7401),
          "peers": {1: Address("10.0.0.1", 9), 2: Address("10.0.0.2", 9)}}, "10.0.0.1:2181"),
        ({"zookeeper_listen": Address("0.0.0.0", 2181), "listen": Address("0.0.0.0", 7401)}, ""),
    ],
)  # fmt: skip
def test_what_zookeepers_clients_are_told_to_dial(changes: Any, expected: str) -> None:
    assert ServerConfig(**changes).zookeeper_client_address == expected


def test_zookeepers_clients_are_served_only_when_asked_for() -> None:
    assert load_config({}, {}).zookeeper_listen is None
    config = load_config({"zookeeper_listen": "127.0.0.1:2181"}, {})
    assert config.zookeeper_listen == Address("127.0.0.1", 2181)


def test_the_fingerprint_tells_clusters_with_other_values_apart() -> None:
    assert ClusterConfig().fingerprint() == ClusterConfig().fingerprint() != ""
    assert ClusterConfig(tick_ms=400).fingerprint() != ClusterConfig().fingerprint()
