"""What can be configured, its defaults, and which values go together. Reads no files but to see
that those named are there, and no environment; `config.py` fills these records in.

Units are the last word of a name. deploy/coordsvc.sample.toml shows every key with its reason.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

from coordsvc.server.addresses import REPLICA_ID_MAX, Address

FORMAT_VERSION = 1

LOG_FORMATS = ("auto", "console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

TICK_MS_RANGE = (100, 10_000)
"""Below, timers would do little else; above, "about a tick late" means nothing any more."""


@dataclass(frozen=True)
class ClusterConfig:
    """What should be equal at every replica. A difference is reported, not refused: limits change
    by restarting one replica after the other.

    The defaults of the limits are promises of the API, so they can be lowered, never raised.
    """

    session_timeout_ms_min: int = 1_000
    session_timeout_ms_max: int = 120_000
    tick_ms: int = 500
    data_size_bytes_max: int = 1024 * 1024
    path_size_bytes_max: int = 4096
    multi_operations_max: int = 128
    message_size_bytes_max: int = 4 * 1024 * 1024
    outstanding_requests_max: int = 1_000
    sessions_max: int = 100_000
    format_version: int = FORMAT_VERSION

    def fingerprint(self) -> str:
        """The same text for the same values, at any replica and in any process."""
        text = ",".join(f"{name}={value}" for name, value in sorted(vars(self).items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class LimitsConfig:
    """What this replica takes on at most. Sizes in bytes."""

    frame_size_bytes_max: int = 1024 * 1024
    watches_per_stream_max: int = 10_000
    watches_max: int = 500_000
    connections_per_address_max: int = 10_000
    reads_waiting_max: int = 20_000
    write_bytes_waiting_max: int = 64 * 1024 * 1024
    watch_buffer_bytes_max: int = 4 * 1024 * 1024
    watch_buffer_events_max: int = 10_000
    watch_history_bytes_max: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class StorageConfig:
    """When this replica writes checkpoints, and how much of the log it keeps. A checkpoint is
    written when any of the three is reached since the last one."""

    checkpoint_interval_s: int = 60
    checkpoint_entries: int = 100_000
    checkpoint_log_bytes: int = 64 * 1024 * 1024
    log_keep_bytes: int = 64 * 1024 * 1024
    log_bytes_max: int = 1024 * 1024 * 1024
    snapshot_bytes_per_s: int = 64 * 1024 * 1024
    disk_free_bytes_min: int = 256 * 1024 * 1024


LIMITS = (
    "data_size_bytes_max",
    "path_size_bytes_max",
    "multi_operations_max",
    "message_size_bytes_max",
)


@dataclass(frozen=True)
class ServerConfig:
    """This process. `peers` empty: a cluster of one. An address of None: not given."""

    replica_id: int = 1
    data_dir: str = "./coordsvc-data"
    listen: Address = Address("127.0.0.1", 7401)
    peer_listen: Address | None = None
    peers: Mapping[int, Address] = field(default_factory=dict)
    advertise: Address | None = None
    admin_listen: Address | None = None
    insecure: bool = False
    peer_tls_cert: str = ""
    peer_tls_key: str = ""
    peer_tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    superuser_digest: str = ""
    log_format: str = "auto"
    log_level: str = "info"
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)

    @property
    def peer_address(self) -> Address | None:
        """Where to listen for the other replicas; None in a cluster of one."""
        if len(self.peers) < 2:
            return None
        return self.peer_listen or self.peers.get(self.replica_id)

    @property
    def client_address(self) -> str:
        """What this replica tells others to dial; empty when it cannot know."""
        if self.advertise is not None:
            return str(self.advertise)
        if not self.listen.is_wildcard:
            return str(self.listen)
        own = self.peers.get(self.replica_id)
        return str(Address(own.host, self.listen.port)) if own is not None else ""

    @property
    def has_peer_tls(self) -> bool:
        return bool(self.peer_tls_cert and self.peer_tls_key and self.peer_tls_ca)


CLUSTER_KEYS = frozenset(f.name for f in fields(ClusterConfig)) - {"format_version"}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `key` is the configuration key, `origin` where its value is from."""

    key: str
    origin: str
    message: str

    def __str__(self) -> str:
        return f"{self.key} ({self.origin}): {self.message}"


def validate(config: ServerConfig, origins: Mapping[str, str]) -> tuple[Fault, ...]:
    """Every fault at once, so that nobody has to mend a configuration one start at a time."""
    pairs = [
        *_check_identity(config),
        *_check_addresses(config),
        *_check_exposure(config),
        *_check_peer_tls(config),
        *_check_choices(config),
        *_check_times(config.cluster),
        *_check_limits(config.cluster),
    ]
    return tuple(Fault(key, origins.get(key, "default"), message) for key, message in pairs)


_Pairs = Iterator[tuple[str, str]]


def _check_identity(config: ServerConfig) -> _Pairs:
    if not 1 <= config.replica_id <= REPLICA_ID_MAX:
        yield "replica_id", f"{config.replica_id} is not between 1 and {REPLICA_ID_MAX}"
    if not config.data_dir:
        yield "data_dir", "must not be empty"
    if config.peers and config.replica_id not in config.peers:
        yield (
            "peers",
            f"must contain this replica's own id {config.replica_id}; it has "
            f"{', '.join(map(str, config.peers))}",
        )


def _check_addresses(config: ServerConfig) -> _Pairs:
    if config.advertise is not None and (
        config.advertise.is_wildcard or config.advertise.port == 0
    ):
        yield "advertise", f"nobody can dial {config.advertise}"
    taken: dict[tuple[str, int], str] = {}
    for key, address in _listeners(config):
        if address.port == 0:
            continue
        for (host, port), other in taken.items():
            same_host = host == address.host or "any" in (host, _host_key(address))
            if port == address.port and same_host:
                yield key, f"{address} is the port of {other} too"
        taken[_host_key(address), address.port] = key


def _host_key(address: Address) -> str:
    return "any" if address.is_wildcard else address.host


def _listeners(config: ServerConfig) -> Iterator[tuple[str, Address]]:
    yield "listen", config.listen
    if config.peer_address is not None:
        yield "peer_listen", config.peer_address
    if config.admin_listen is not None:
        yield "admin_listen", config.admin_listen


def _check_exposure(config: ServerConfig) -> _Pairs:
    """Whoever reaches an open port may read and write everything, so it takes a second word."""
    if config.insecure:
        return
    for key, address in _listeners(config):
        if address.is_loopback or (key == "peer_listen" and config.has_peer_tls):
            continue
        remedy = "peer_tls_cert, peer_tls_key and peer_tls_ca, or " if key == "peer_listen" else ""
        yield (
            key,
            f"{address} can be reached from other machines, without TLS; this needs {remedy}"
            "insecure (--insecure) to say that it is meant",
        )


def _check_peer_tls(config: ServerConfig) -> _Pairs:
    names = ("peer_tls_cert", "peer_tls_key", "peer_tls_ca")
    given = {name: getattr(config, name) for name in names if getattr(config, name)}
    if given:
        for name in names:
            if name not in given:
                yield name, f"is needed too, because {', '.join(given)} is given"
    for name, file_path in given.items():
        if not os.access(file_path, os.R_OK) or not os.path.isfile(file_path):
            yield name, f"cannot read the file {file_path}"


def _check_choices(config: ServerConfig) -> _Pairs:
    if config.log_format not in LOG_FORMATS:
        yield "log_format", f"{config.log_format!r} is none of {', '.join(LOG_FORMATS)}"
    if config.log_level not in LOG_LEVELS:
        yield "log_level", f"{config.log_level!r} is none of {', '.join(LOG_LEVELS)}"


def _check_times(cluster: ClusterConfig) -> _Pairs:
    low, high = TICK_MS_RANGE
    if not low <= cluster.tick_ms <= high:
        yield "tick_ms", f"{cluster.tick_ms} is not between {low} and {high}"
    if cluster.session_timeout_ms_min < 2 * cluster.tick_ms:
        yield (
            "session_timeout_ms_min",
            f"{cluster.session_timeout_ms_min} is less than two ticks ({2 * cluster.tick_ms})",
        )
    if cluster.session_timeout_ms_max < cluster.session_timeout_ms_min:
        yield (
            "session_timeout_ms_max",
            f"{cluster.session_timeout_ms_max} is less than session_timeout_ms_min "
            f"({cluster.session_timeout_ms_min})",
        )
    if cluster.session_timeout_ms_max > 24 * 3_600_000:
        yield "session_timeout_ms_max", f"{cluster.session_timeout_ms_max} is more than a day"


def _check_limits(cluster: ClusterConfig) -> _Pairs:
    for name in LIMITS:
        value, most = getattr(cluster, name), getattr(ClusterConfig, name)
        if not 1 <= value <= most:
            yield name, f"{value} is not between 1 and {most}"
    if cluster.data_size_bytes_max + 64 * 1024 > cluster.message_size_bytes_max:
        yield (
            "message_size_bytes_max",
            f"{cluster.message_size_bytes_max} leaves no room for data_size_bytes_max "
            f"({cluster.data_size_bytes_max}) and 64 KiB around it",
        )
