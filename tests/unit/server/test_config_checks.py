"""Which values, and which of them together, a configuration may have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from coordsvc.core.auth import digest_id
from coordsvc.raft.settings import ENTRY_OVERHEAD_BYTES, ReplicaSettings
from coordsvc.server.config import ConfigError, load_config
from coordsvc.server.config_checks import MESSAGE_OVERHEAD_BYTES, RANGES, validate
from coordsvc.server.config_keys import GROUPS, KEYS
from coordsvc.server.config_model import ServerConfig

MIB, GIB = 1024**2, 1024**3


def faults_of(flags: Mapping[str, object]) -> dict[str, str]:
    """Key, as people call it -> the whole fault."""
    with pytest.raises(ConfigError) as caught:
        load_config(flags, {})
    return {fault.key: str(fault) for fault in caught.value.faults}


def test_the_defaults_go_together() -> None:
    assert validate(ServerConfig(), {}) == ()


@pytest.mark.parametrize("name", RANGES)
def test_every_number_has_a_least_and_a_most(name: str) -> None:
    key = KEYS[name]
    low, high = RANGES[name]
    assert low <= key.value_in(ServerConfig()) <= high
    for value in (low - 1, high + 1):
        fault = faults_of({name: value})[key.label]
        assert f"{value} is not between {low} and {high}" in fault
    for value in (low, high):
        faults = validate(load_unchecked(name, value), {})
        assert not [fault for fault in faults if "not between" in fault.message]


def load_unchecked(name: str, value: int) -> ServerConfig:
    key = KEYS[name]
    if not key.group:
        return ServerConfig(**{name: value})  # type: ignore[arg-type]
    group = GROUPS[key.group](**{name: value})
    return ServerConfig(**{key.group: group})


def test_no_number_is_without_a_range() -> None:
    numbers = {name for name, key in KEYS.items() if key.group in GROUPS}
    assert numbers <= set(RANGES)


@pytest.mark.parametrize(
    ("flags", "key", "expected"),
    [
        ({"session_timeout_ms_min": 999}, "cluster.session_timeout_ms_min", "two ticks (1000)"),
        ({"session_timeout_ms_max": 999}, "cluster.session_timeout_ms_max",
         "is less than cluster.session_timeout_ms_min (1000)"),
        ({"message_size_bytes_max": MIB}, "cluster.message_size_bytes_max",
         "no room for cluster.data_size_bytes_max"),
        ({"watch_buffer_bytes_max": MIB}, "limits.watch_buffer_bytes_max",
         "no room for cluster.data_size_bytes_max"),
        ({"write_bytes_waiting_max": MIB}, "limits.write_bytes_waiting_max",
         "is less than cluster.message_size_bytes_max"),
        ({"watches_max": 9999}, "limits.watches_max",
         "is less than limits.watches_per_stream_max (10000)"),
        ({"openings_burst_max": 99}, "limits.openings_burst_max",
         "less than a tenth of limits.openings_per_s_max"),
        ({"log_keep_bytes": GIB + 1}, "storage.log_bytes_max",
         "is less than storage.log_keep_bytes"),
        ({"checkpoint_log_bytes": GIB + 1}, "storage.log_bytes_max",
         "is less than storage.checkpoint_log_bytes"),
        ({"log_format": "xml"}, "logging.format", "none of auto, console, json"),
        ({"log_level": "loud"}, "logging.level", "none of debug"),
        ({"data_dir": ""}, "replica.data_dir", "must not be empty"),
        ({"replica_id": "3", "peers": "1=a:1,2=b:1"}, "peers", "own id 3"),
        ({"listen": "127.0.0.1:7401", "admin_listen": "127.0.0.1:7401"}, "replica.admin_listen",
         "is the port of replica.listen too"),
        ({"listen": "0.0.0.0:1", "admin_listen": "127.0.0.1:1", "insecure": "1"},
         "replica.admin_listen",
         "is the port of replica.listen too"),
        ({"advertise": "0.0.0.0:7401"}, "replica.advertise", "nobody can dial"),
        ({"zookeeper_advertise": "[::]:2181"}, "zookeeper.advertise", "nobody can dial"),
        ({"zookeeper_advertise": "front:0"}, "zookeeper.advertise", "nobody can dial"),
        ({"zookeeper_listen": "127.0.0.1:7401"}, "zookeeper.listen",
         "is the port of replica.listen too"),
        ({"zookeeper_listen": "127.0.0.1:7701"}, "zookeeper.listen",
         "is the port of replica.admin_listen too"),
        ({"zookeeper_listen": "0.0.0.0:9", "peers": "1=127.0.0.1:9,2=127.0.0.1:8", "insecure": "1"},
         "zookeeper.listen", "is the port of replica.peer_listen too"),
        ({"zookeeper_four_letter_words": "ruok, wchx"}, "zookeeper.four_letter_words",
         "'wchx' is none of"),
        ({"zookeeper_listen": "127.0.0.1:2181", "zookeeper_packet_bytes_max": 2 * MIB + 1,
          "message_size_bytes_max": 2 * MIB}, "cluster.message_size_bytes_max",
         "is less than zookeeper.packet_bytes_max (2097153)"),
    ],
)  # fmt: skip
def test_relations(flags: Mapping[str, object], key: str, expected: str) -> None:
    faults = faults_of(flags)
    assert set(faults) == {key}
    assert expected in faults[key]


@pytest.mark.parametrize("words", ["*", "", "srvr", "ruok,mntr, conf ,"])
def test_four_letter_words_are_a_list_as_zookeepers(words: str) -> None:
    assert load_config({"zookeeper_four_letter_words": words}, {}).zookeeper_four_letter_words == (
        words
    )


def test_what_zookeepers_clients_are_given_is_compared_only_where_they_are_served() -> None:
    """So that a configuration from before they could be goes on."""
    small = {"data_size_bytes_max": 1024, "message_size_bytes_max": 256 * 1024}
    load_config(small, {})
    assert "cluster.message_size_bytes_max" in faults_of(
        {**small, "zookeeper_listen": "127.0.0.1:2181"}
    )


def test_a_relation_is_kept_at_its_bound() -> None:
    load_config(
        {
            "data_size_bytes_max": MIB - MESSAGE_OVERHEAD_BYTES,
            "message_size_bytes_max": MIB,
            "watch_buffer_bytes_max": MIB,
            "write_bytes_waiting_max": MIB,
            "watches_max": 10_000,
            "openings_burst_max": 100,
            "log_bytes_max": 64 * MIB,
            "session_timeout_ms_min": 1000,
            "session_timeout_ms_max": 1000,
            "zookeeper_listen": "127.0.0.1:2181",
            "zookeeper_packet_bytes_max": MIB,
        },
        {},
    )


def test_the_largest_request_fits_into_an_entry_and_that_into_a_frame() -> None:
    """What the API promises, whatever is configured, goes through the log and between replicas:
    the most of each size here against what consensus takes."""
    settings = ReplicaSettings(1)
    largest_request = RANGES["message_size_bytes_max"][1] + MESSAGE_OVERHEAD_BYTES
    assert largest_request <= settings.entry_bytes_max
    assert settings.append_bytes_max >= 2 * settings.entry_bytes_max
    assert settings.frame_bytes_max >= (
        settings.append_bytes_max + settings.entry_bytes_max + ENTRY_OVERHEAD_BYTES
    )
    # A leader takes on what two replicas may send it at once, and more.
    most_waiting = RANGES["write_bytes_waiting_max"][1]
    assert 2 * most_waiting <= settings.merge_bytes_max
    assert 2 * most_waiting <= settings.uncommitted_bytes_max


def test_a_frame_to_a_client_stays_below_what_clients_take_by_default() -> None:
    largest = RANGES["frame_size_bytes_max"][1] + RANGES["data_size_bytes_max"][1]
    assert largest + MESSAGE_OVERHEAD_BYTES < 3 * MIB


@pytest.mark.parametrize(
    ("flags", "key", "remedy"),
    [
        ({"listen": "0.0.0.0:7401"}, "replica.listen", "tls.cert and tls.key"),
        ({"listen": "example.org:7401"}, "replica.listen", "tls.cert and tls.key"),
        ({"zookeeper_listen": "0.0.0.0:2181"}, "zookeeper.listen", "tls.cert and tls.key"),
        ({"admin_listen": "[::]:7701"}, "replica.admin_listen", "this needs access.insecure"),
        ({"peers": "1=10.0.0.1:1,2=10.0.0.2:1"}, "replica.peer_listen",
         "peer_tls.cert, peer_tls.key and peer_tls.ca"),
    ],
)  # fmt: skip
def test_beyond_loopback_without_tls_needs_a_second_word(
    flags: Mapping[str, object], key: str, remedy: str
) -> None:
    fault = faults_of(flags)[key]
    assert remedy in fault and "--insecure" in fault
    load_config({**flags, "insecure": True}, {})


@pytest.fixture
def pem(tmp_path: Path) -> str:
    file_path = tmp_path / "pem"
    file_path.write_text("")
    return str(file_path)


def test_tls_is_that_second_word_each_for_its_own_door(pem: str) -> None:
    peer_tls = dict.fromkeys(("peer_tls_cert", "peer_tls_key", "peer_tls_ca"), pem)
    tls = dict.fromkeys(("tls_cert", "tls_key"), pem)
    far = {
        "listen": "10.0.0.1:7401",
        "zookeeper_listen": "10.0.0.1:2181",
        "peers": "1=10.0.0.1:1,2=10.0.0.2:1",
    }
    config = load_config({**far, **tls, **peer_tls}, {})
    assert config.has_tls and config.has_peer_tls
    assert set(faults_of({**far, **tls})) == {"replica.peer_listen"}
    assert set(faults_of({**far, **peer_tls})) == {"replica.listen", "zookeeper.listen"}
    assert set(faults_of({**far, **tls, **peer_tls, "admin_listen": "10.0.0.1:1"})) == {
        "replica.admin_listen"
    }


def test_tls_files_come_together_and_are_there(tmp_path: Path, pem: str) -> None:
    faults = faults_of({"peer_tls_cert": str(tmp_path / "none")})
    assert set(faults) == {"peer_tls.cert", "peer_tls.key", "peer_tls.ca"}
    assert "cannot read the file" in faults["peer_tls.cert"]
    assert set(faults_of({"tls_cert": pem})) == {"tls.key"}
    assert set(faults_of({"tls_client_ca": pem})) == {"tls.cert", "tls.key"}
    load_config({"tls_cert": pem, "tls_key": pem, "tls_client_ca": pem}, {})


def test_a_superusers_digest_is_one_and_is_not_repeated() -> None:
    load_config({"superuser_digest": digest_id("super:secret")}, {})
    for wrong in ("super:secret", "super:D/InIHSb", ":D/InIHSb7yEEbrWz8b9l71RjZJU=", "a b:x"):
        fault = faults_of({"superuser_digest": wrong})["access.superuser_digest"]
        assert wrong not in fault and "SHA-1" in fault
