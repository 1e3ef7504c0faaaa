"""What can be configured, and its defaults. `config.py` fills these records in, `config_checks.py`
says which values go together, `config_keys.py` how each is written down.

Units are the last words of a name. deploy/coordsvc.sample.toml shows every key with its reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from coordsvc.server.addresses import Address

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ClusterConfig:
    """What should be equal at every replica. A difference is reported, not refused: limits change
    by restarting one replica after the other.

    Most limits here are promises of the API, so they can be lowered, never raised.
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
    openings_per_s_max: int = 1_000
    openings_burst_max: int = 2_000
    reads_waiting_max: int = 20_000
    write_bytes_waiting_max: int = 64 * 1024 * 1024
    watch_buffer_bytes_max: int = 4 * 1024 * 1024
    watch_buffer_events_max: int = 10_000
    watch_history_bytes_max: int = 64 * 1024 * 1024


@dataclass(frozen=True)
class StorageConfig:
    """When this replica writes checkpoints, and how much of the log it keeps. A checkpoint is
    written when any of the three is reached since the last one. `disk_free_bytes_min` 0: writes
    are refused only when the log itself finds no room for its next file."""

    checkpoint_interval_s: int = 60
    checkpoint_entries: int = 100_000
    checkpoint_log_bytes: int = 32 * 1024 * 1024
    log_keep_bytes: int = 64 * 1024 * 1024
    log_bytes_max: int = 1024 * 1024 * 1024
    snapshot_bytes_per_s: int = 64 * 1024 * 1024
    disk_free_bytes_min: int = 256 * 1024 * 1024


NOWHERE = Address("none", 0)
"""As `admin_listen`: no such port."""

ADMIN_PORT_OFFSET = 300


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
    zookeeper_listen: Address | None = None
    zookeeper_advertise: Address | None = None
    zookeeper_four_letter_words: str = "srvr"
    zookeeper_packet_bytes_max: int = 0xFFFFF
    zookeeper_connections_max: int = 10_000
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
    def admin_address(self) -> Address | None:
        """Where to serve HTTP for machines; None: nowhere. When not given, on loopback, and beside
        the clients' port, so that replicas on one machine do not meet."""
        if self.admin_listen is not None:
            return None if self.admin_listen == NOWHERE else self.admin_listen
        port = self.listen.port
        if port:
            is_room = port + ADMIN_PORT_OFFSET <= 65_535
            port += ADMIN_PORT_OFFSET if is_room else -ADMIN_PORT_OFFSET
        return Address("127.0.0.1", port)

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
    def zookeeper_client_address(self) -> str:
        """What this replica tells ZooKeeper's clients to dial; empty when it does not serve them,
        or cannot know."""
        if self.zookeeper_listen is None:
            return ""
        if self.zookeeper_advertise is not None:
            return str(self.zookeeper_advertise)
        if not self.zookeeper_listen.is_wildcard:
            return str(self.zookeeper_listen)
        host, _, _ = self.client_address.rpartition(":")
        return f"{host}:{self.zookeeper_listen.port}" if host else ""

    @property
    def has_tls(self) -> bool:
        return bool(self.tls_cert and self.tls_key)

    @property
    def has_peer_tls(self) -> bool:
        return bool(self.peer_tls_cert and self.peer_tls_key and self.peer_tls_ca)
