"""Configuration: sources and their order, faults, and the sample file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from coordsvc.server.addresses import Address
from coordsvc.server.config import KEYS, ClusterConfig, ConfigError, ServerConfig, load_config

SAMPLE = Path(__file__).parents[3] / "deploy" / "coordsvc.sample.toml"


def faults_of(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    toml_path: Path | None = None,
) -> dict[str, str]:
    """Key -> the whole fault."""
    with pytest.raises(ConfigError) as caught:
        load_config(flags or {}, environ or {}, toml_path)
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


def test_flags_outrank_the_environment_and_that_the_file(tmp_path: Path) -> None:
    file_path = toml(tmp_path, 'data_dir = "file"\nreplica_id = 5\ntick_ms = 400\n')
    environ = {"COORDSVC_DATA_DIR": "environment", "COORDSVC_REPLICA_ID": "6"}
    config = load_config({"data_dir": "flag", "replica_id": None}, environ, file_path)
    assert config.data_dir == "flag"
    assert config.replica_id == 6
    assert config.cluster.tick_ms == 400
    assert config.cluster.session_timeout_ms_min == 1000


def test_the_file_can_be_named_in_the_environment(tmp_path: Path) -> None:
    file_path = toml(tmp_path, "replica_id = 5\n")
    assert load_config({}, {"COORDSVC_CONFIG": str(file_path)}).replica_id == 5


def test_all_faults_are_reported_at_once_with_key_and_origin(tmp_path: Path) -> None:
    file_path = toml(tmp_path, 'replica_id = "x"\nlisten = 7401\n')
    faults = faults_of(
        {"admin_listen": "nowhere", "peers": "2=a:1"},
        {"COORDSVC_TICK_MS": "1", "COORDSVC_INSECURE": "perhaps"},
        file_path,
    )
    assert set(faults) == {"replica_id", "listen", "admin_listen", "peers", "tick_ms", "insecure"}
    assert str(file_path) in faults["replica_id"]
    assert "--admin-listen" in faults["admin_listen"]
    assert "COORDSVC_TICK_MS" in faults["tick_ms"]


def test_an_unknown_toml_key_is_an_error_and_the_nearest_is_suggested(tmp_path: Path) -> None:
    faults = faults_of(toml_path=toml(tmp_path, 'lissten = "a:1"\n[server]\nx = 1\n'))
    assert "did you mean listen?" in faults["lissten"]
    assert "unknown key" in faults["server"]


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
    assert load_config({}, {"COORDSVC_ENDPOINTS": "127.0.0.1:7401", "OTHER": "1"}) == ServerConfig()


def test_peers_must_contain_this_replica() -> None:
    assert "own id 3" in faults_of({"replica_id": "3", "peers": "1=a:1,2=b:1"})["peers"]


def test_the_peer_address_is_its_own_entry_unless_given() -> None:
    flags = {"peers": "1=127.0.0.1:1,2=127.0.0.1:2"}
    assert load_config(flags, {}).peer_address == Address("127.0.0.1", 1)
    config = load_config({**flags, "peer_listen": "127.0.0.1:9"}, {})
    assert config.peer_address == Address("127.0.0.1", 9)


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ({"listen": "0.0.0.0:7401"}, "listen"),
        ({"listen": "example.org:7401"}, "listen"),
        ({"admin_listen": "[::]:7701"}, "admin_listen"),
        ({"peers": "1=10.0.0.1:1,2=10.0.0.2:1"}, "peer_listen"),
    ],
)
def test_beyond_loopback_without_tls_needs_a_second_word(
    flags: Mapping[str, object], key: str
) -> None:
    assert "insecure" in faults_of(flags)[key]
    load_config({**flags, "insecure": True}, {})


def test_peer_tls_is_that_second_word_for_the_peers(tmp_path: Path) -> None:
    file_path = tmp_path / "pem"
    file_path.write_text("")
    tls = dict.fromkeys(("peer_tls_cert", "peer_tls_key", "peer_tls_ca"), str(file_path))
    config = load_config({"peers": "1=10.0.0.1:1,2=10.0.0.2:1", **tls}, {})
    assert config.has_peer_tls


def test_peer_tls_is_all_or_none_and_its_files_are_there(tmp_path: Path) -> None:
    faults = faults_of({"peer_tls_cert": str(tmp_path / "none")})
    assert set(faults) == {"peer_tls_cert", "peer_tls_key", "peer_tls_ca"}
    assert "cannot read" in faults["peer_tls_cert"]


@pytest.mark.parametrize(
    ("flags", "key"),
    [
        ({"listen": "127.0.0.1:7401", "admin_listen": "127.0.0.1:7401"}, "admin_listen"),
        ({"listen": "0.0.0.0:1", "admin_listen": "127.0.0.1:1", "insecure": "1"}, "admin_listen"),
        ({"advertise": "0.0.0.0:7401"}, "advertise"),
        ({"session_timeout_ms_min": 999, "tick_ms": 500}, "session_timeout_ms_min"),
        ({"session_timeout_ms_max": 500}, "session_timeout_ms_max"),
        ({"data_size_bytes_max": 1024 * 1024 + 1}, "data_size_bytes_max"),
        ({"multi_operations_max": 0}, "multi_operations_max"),
        ({"message_size_bytes_max": 1024 * 1024}, "message_size_bytes_max"),
        ({"log_format": "xml"}, "log_format"),
        ({"log_level": "loud"}, "log_level"),
        ({"replica_id": 0}, "replica_id"),
        ({"data_dir": ""}, "data_dir"),
    ],
)
def test_relations_and_ranges(flags: Mapping[str, object], key: str) -> None:
    assert key in faults_of(flags)


def test_a_truth_is_not_a_number() -> None:
    assert "replica_id" in faults_of({"replica_id": True})


def test_what_clients_are_told_to_dial() -> None:
    peers = {1: Address("10.0.0.1", 9), 2: Address("10.0.0.2", 9)}
    any_host = ServerConfig(listen=Address("0.0.0.0", 7401))
    assert ServerConfig().client_address == "127.0.0.1:7401"
    assert ServerConfig(advertise=Address("front", 1)).client_address == "front:1"
    assert any_host.client_address == ""
    assert replace(any_host, peers=peers).client_address == "10.0.0.1:7401"


def test_the_fingerprint_tells_clusters_with_other_values_apart() -> None:
    assert ClusterConfig().fingerprint() == ClusterConfig().fingerprint() != ""
    assert ClusterConfig(tick_ms=400).fingerprint() != ClusterConfig().fingerprint()


def test_the_sample_shows_every_key_at_its_default(tmp_path: Path) -> None:
    """Goal: the sample can be trusted. Method: take the comment signs off the keys, load it."""
    line = re.compile(r"^# ([a-z_]+) = (.*)$", re.MULTILINE)
    sample = SAMPLE.read_text()
    shown = [match[1] for match in line.finditer(sample)]
    assert sorted(shown) == sorted(KEYS)
    text = line.sub(r"\1 = \2", sample)
    assert load_config({}, {}, toml(tmp_path, text)) == ServerConfig()
    assert not [text for text in sample.splitlines() if text and not text.startswith("#")]
