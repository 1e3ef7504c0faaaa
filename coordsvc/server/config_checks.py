"""What is wrong with a configuration: each value by itself, and values that do not go together.

Every fault is found at once, so that nobody has to mend a configuration one start at a time. Reads
no file but to see that those named can be read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coordsvc.core.records import OUTSTANDING_REQUESTS_MAX
from coordsvc.server.addresses import REPLICA_ID_MAX, Address
from coordsvc.server.config_keys import GROUPS, KEYS, label_of
from coordsvc.server.config_model import ClusterConfig, ServerConfig
from coordsvc.server.zookeeper.words import parse_allowed

KIB, MIB, GIB = 1024, 1024**2, 1024**3
DAY_MS = 24 * 3_600_000

MESSAGE_OVERHEAD_BYTES = 64 * KIB
"""What a request may hold around its data: path, ACL, context."""

LOG_FORMATS = ("auto", "console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

RANGES: Mapping[str, tuple[int, int]] = {
    "replica_id": (1, REPLICA_ID_MAX),
    "session_timeout_ms_min": (1, DAY_MS),
    "session_timeout_ms_max": (1, DAY_MS),
    # Below, timers would do little else; above, "about a tick late" means nothing any more.
    "tick_ms": (100, 10_000),
    # Promises of the API, and what a log entry and a frame between replicas are made for.
    "data_size_bytes_max": (1, ClusterConfig.data_size_bytes_max),
    "path_size_bytes_max": (1, ClusterConfig.path_size_bytes_max),
    "multi_operations_max": (1, ClusterConfig.multi_operations_max),
    "message_size_bytes_max": (MESSAGE_OVERHEAD_BYTES, ClusterConfig.message_size_bytes_max),
    # Of so many requests a session's results are kept.
    "outstanding_requests_max": (1, OUTSTANDING_REQUESTS_MAX),
    "sessions_max": (1, 1_000_000),
    # At most, so that with one item more it stays below the 4 MiB that clients take by default.
    "frame_size_bytes_max": (4 * KIB, MIB),
    "watches_per_stream_max": (1, 1_000_000),
    "watches_max": (1, 10_000_000),
    "connections_per_address_max": (1, 1_000_000),
    "openings_per_s_max": (1, 1_000_000),
    "openings_burst_max": (1, 1_000_000),
    "reads_waiting_max": (1, 1_000_000),
    # At most half of what a leader takes on from all replicas together.
    "write_bytes_waiting_max": (MIB, 64 * MIB),
    "watch_buffer_bytes_max": (64 * KIB, GIB),
    "watch_buffer_events_max": (1, 1_000_000),
    "watch_history_bytes_max": (0, 16 * GIB),
    "checkpoint_interval_s": (1, 86_400),
    "checkpoint_entries": (1, 1_000_000_000),
    "checkpoint_log_bytes": (MIB, 1024 * GIB),
    "log_keep_bytes": (0, 1024 * GIB),
    "log_bytes_max": (64 * MIB, 1024 * GIB),
    "snapshot_bytes_per_s": (MIB, 100 * GIB),
    "disk_free_bytes_min": (0, 1024 * GIB),
    "zookeeper_packet_bytes_max": (KIB, ClusterConfig.message_size_bytes_max),
    "zookeeper_connections_max": (1, 1_000_000),
}
"""Least and most of every number, both allowed."""

_IS_DIGEST = re.compile(r"[^:\s]+:[A-Za-z0-9+/]{27}=")
"""A user and base64 of a SHA-1, as core.auth.digest_id makes it."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `key` is what people call the key, or whatever else they wrote;
    `origin` says where its value is from."""

    key: str
    origin: str
    message: str

    def __str__(self) -> str:
        return f"{self.key} ({self.origin}): {self.message}"


def validate(config: ServerConfig, origins: Mapping[str, str]) -> tuple[Fault, ...]:
    """Every fault. `origins` are by flat name; what is not in it has its default. A value that is
    wrong by itself is not compared with others."""
    out_of_range = dict(_check_ranges(config))
    relations = [
        *_check_identity(config),
        *_check_addresses(config),
        *_check_exposure(config),
        *_check_files(config),
        *_check_choices(config),
        *_check_times(config),
        *_check_sizes(config),
        *_check_storage(config),
    ]
    pairs = [*out_of_range.items(), *((k, text) for k, text in relations if k not in out_of_range)]
    return tuple(Fault(label_of(key), origins.get(key, "default"), text) for key, text in pairs)


_Pairs = Iterator[tuple[str, str]]
"""Flat name of the key, what is wrong with it."""


def _check_ranges(config: ServerConfig) -> _Pairs:
    for name, (low, high) in RANGES.items():
        value = KEYS[name].value_in(config)
        if not low <= value <= high:
            yield name, f"{value} is not between {low} and {high}"


def _check_identity(config: ServerConfig) -> _Pairs:
    if not config.data_dir:
        yield "data_dir", "must not be empty"
    if config.peers and config.replica_id not in config.peers:
        yield (
            "peers",
            f"must contain this replica's own id {config.replica_id}; it has "
            f"{', '.join(map(str, config.peers))}",
        )
    if config.superuser_digest and not _IS_DIGEST.fullmatch(config.superuser_digest):
        yield (
            "superuser_digest",
            "it is not USER:BASE64, the base64 being of the SHA-1 of USER:PASSWORD",
        )


def _check_addresses(config: ServerConfig) -> _Pairs:
    for key, told in (
        ("advertise", config.advertise),
        ("zookeeper_advertise", config.zookeeper_advertise),
    ):
        if told is not None and (told.is_wildcard or told.port == 0):
            yield key, f"nobody can dial {told}"
    taken: dict[tuple[str, int], str] = {}
    for key, address in _listeners(config):
        if address.port == 0:
            continue
        for (host, port), other in taken.items():
            same_host = host == address.host or "any" in (host, _host_key(address))
            if port == address.port and same_host:
                yield key, f"{address} is the port of {label_of(other)} too"
        taken[_host_key(address), address.port] = key


def _host_key(address: Address) -> str:
    return "any" if address.is_wildcard else address.host


def _listeners(config: ServerConfig) -> Iterator[tuple[str, Address]]:
    yield "listen", config.listen
    if config.peer_address is not None:
        yield "peer_listen", config.peer_address
    if config.admin_address is not None:
        yield "admin_listen", config.admin_address
    if config.zookeeper_listen is not None:
        yield "zookeeper_listen", config.zookeeper_listen


_TLS_KEYS = {
    "listen": ("tls_cert", "tls_key"),
    "peer_listen": ("peer_tls_cert", "peer_tls_key", "peer_tls_ca"),
    "zookeeper_listen": ("tls_cert", "tls_key"),
}
"""What makes it safe to listen there beyond this machine."""


def _check_exposure(config: ServerConfig) -> _Pairs:
    """Whoever reaches an open port may read and write everything, so it takes a second word."""
    if config.insecure:
        return
    is_safe = {
        "listen": config.has_tls,
        "peer_listen": config.has_peer_tls,
        "zookeeper_listen": config.has_tls,
    }
    for key, address in _listeners(config):
        if address.is_loopback or is_safe.get(key):
            continue
        names = _joined(label_of(name) for name in _TLS_KEYS.get(key, ()))
        remedy = f"{names}, or " if names else ""
        yield (
            key,
            f"{address} can be reached from other machines, without TLS; this needs {remedy}"
            "access.insecure (--insecure) to say that it is meant",
        )


def _joined(names: Iterator[str]) -> str:
    *first, last = [*names] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _check_files(config: ServerConfig) -> _Pairs:
    yield from _all_or_none(config, ("tls_cert", "tls_key"), because=("tls_client_ca",))
    yield from _all_or_none(config, ("peer_tls_cert", "peer_tls_key", "peer_tls_ca"))
    for name in ("tls_cert", "tls_key", "tls_client_ca", "peer_tls_cert", "peer_tls_key",
                 "peer_tls_ca"):  # fmt: skip
        file_path = getattr(config, name)
        if file_path and not (os.path.isfile(file_path) and os.access(file_path, os.R_OK)):
            yield name, f"cannot read the file {file_path}"


def _all_or_none(
    config: ServerConfig, names: tuple[str, ...], because: tuple[str, ...] = ()
) -> _Pairs:
    """Each of `names` is needed when any of them, or of `because`, is given."""
    given = [label_of(name) for name in (*names, *because) if getattr(config, name)]
    for name in names:
        if given and not getattr(config, name):
            yield name, f"is needed too, because {', '.join(given)} is given"


def _check_choices(config: ServerConfig) -> _Pairs:
    if config.log_format not in LOG_FORMATS:
        yield "log_format", f"{config.log_format!r} is none of {', '.join(LOG_FORMATS)}"
    if config.log_level not in LOG_LEVELS:
        yield "log_level", f"{config.log_level!r} is none of {', '.join(LOG_LEVELS)}"
    try:
        parse_allowed(config.zookeeper_four_letter_words)
    except ValueError as error:
        yield "zookeeper_four_letter_words", str(error)


def _check_times(config: ServerConfig) -> _Pairs:
    cluster = config.cluster
    if cluster.session_timeout_ms_min < 2 * cluster.tick_ms:
        yield (
            "session_timeout_ms_min",
            f"{cluster.session_timeout_ms_min} is less than two ticks ({2 * cluster.tick_ms})",
        )
    if cluster.session_timeout_ms_max < cluster.session_timeout_ms_min:
        yield _less_than(config, "session_timeout_ms_max", "session_timeout_ms_min")


def _check_sizes(config: ServerConfig) -> _Pairs:
    data = config.cluster.data_size_bytes_max + MESSAGE_OVERHEAD_BYTES
    for name in ("message_size_bytes_max", "watch_buffer_bytes_max"):
        value = KEYS[name].value_in(config)
        if value < data:
            yield (
                name,
                f"{value} leaves no room for cluster.data_size_bytes_max "
                f"({config.cluster.data_size_bytes_max}) and 64 KiB around it",
            )
    if config.limits.write_bytes_waiting_max < config.cluster.message_size_bytes_max:
        yield _less_than(config, "write_bytes_waiting_max", "message_size_bytes_max")
    if config.zookeeper_listen is not None and (
        config.cluster.message_size_bytes_max < config.zookeeper_packet_bytes_max
    ):
        yield _less_than(config, "message_size_bytes_max", "zookeeper_packet_bytes_max")
    if config.limits.watches_max < config.limits.watches_per_stream_max:
        yield _less_than(config, "watches_max", "watches_per_stream_max")
    if config.limits.openings_burst_max < config.limits.openings_per_s_max // 10:
        yield (
            "openings_burst_max",
            f"{config.limits.openings_burst_max} is less than a tenth of limits.openings_per_s_max "
            f"({config.limits.openings_per_s_max}), which could then never be reached",
        )


def _check_storage(config: ServerConfig) -> _Pairs:
    storage = config.storage
    if storage.log_bytes_max < storage.log_keep_bytes:
        yield _less_than(config, "log_bytes_max", "log_keep_bytes")
    if storage.log_bytes_max < storage.checkpoint_log_bytes:
        yield _less_than(config, "log_bytes_max", "checkpoint_log_bytes")


def _less_than(config: ServerConfig, name: str, other: str) -> tuple[str, str]:
    """The fault that `name` must not be below `other`."""
    value, least = KEYS[name].value_in(config), KEYS[other].value_in(config)
    return name, f"{value} is less than {label_of(other)} ({least})"


assert all(name in RANGES for name, key in KEYS.items() if key.group in GROUPS), (
    "a number without a range"
)
