"""What a replica must be told to take part in consensus. Times in seconds, sizes in bytes."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

ENTRY_OVERHEAD_BYTES = 64 * 1024


@dataclass(frozen=True)
class ReplicaSettings:
    """`peers` maps every member's id, this replica's included, to the (host, port) it is dialled
    at; empty means a cluster of one. Relations are checked by `validate`."""

    replica_id: int
    peers: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    peer_listen: tuple[str, int] | None = None
    peer_ssl_server: ssl.SSLContext | None = None
    peer_ssl_client: ssl.SSLContext | None = None

    heartbeat_s: float = 0.1
    election_timeout_s_min: float = 1.0
    """Below one second a garbage collection or a slow disk elects."""
    election_timeout_s_max: float = 1.6
    leader_fallback_s: float = 1.2
    """A leader that hears no majority for so long steps down."""
    tick_s: float = 0.5
    unknown_outcome_after_s: float = 4.5
    """A proposed write that is not decided by then is answered as unknown."""
    disk_silent_hand_over_s: float = 5.0
    """A leader whose own disk completes nothing for so long hands over; commits need only a
    majority of disks, so a shorter hiccup is not worth an election."""
    disk_silent_exit_s: float = 30.0

    entry_bytes_max: int = 6 * 1024 * 1024
    """One command is at most one gRPC message (4 MiB) and its framing."""
    entry_commands_max: int = 512
    """Keeps one entry's apply within a few milliseconds."""
    append_bytes_soft: int = 1024 * 1024
    append_entries_max: int = 1024
    """Small entries cost by number: a follower takes these in a few milliseconds."""
    send_slice_s: float = 0.004
    append_bytes_max: int = 12 * 1024 * 1024
    append_window_bytes: int = 16 * 1024 * 1024
    append_window_messages: int = 64
    origin_bytes_max: int = 64 * 1024 * 1024
    origin_commands_max: int = 50_000
    merge_bytes_max: int = 128 * 1024 * 1024
    uncommitted_bytes_max: int = 128 * 1024 * 1024
    link_buffer_bytes_max: int = 64 * 1024 * 1024
    apply_slice_s: float = 0.004

    log_keep_bytes: int = 64 * 1024 * 1024
    """Of the log in memory, kept below a checkpoint too, so that a follower that was away for a
    moment needs no snapshot."""
    log_bytes_max: int = 1024 * 1024 * 1024
    """Of the log in memory, kept for a follower that is being sent a snapshot; beyond it the
    transfer starts over with a newer one."""
    snapshot_bytes_per_s: int = 64 * 1024 * 1024
    """To all peers together."""
    snapshot_chunk_bytes: int = 256 * 1024
    """At most `append_bytes_max`, so that it fits into a frame."""
    snapshot_window_bytes: int = 2 * 1024 * 1024
    """Sent to one peer and not acknowledged."""
    snapshot_resend_s: float = 1.0
    """After so long without an acknowledgement the sender asks where to go on."""
    snapshot_keep_s: float = 120.0
    """How long a snapshot, and the log after it, is kept for a peer that is not connected: it may
    be starting from what it received."""

    @property
    def frame_bytes_max(self) -> int:
        return self.append_bytes_max + self.entry_bytes_max + ENTRY_OVERHEAD_BYTES

    @property
    def member_ids(self) -> tuple[int, ...]:
        return tuple(sorted({self.replica_id, *self.peers}))

    @property
    def peer_ids(self) -> tuple[int, ...]:
        return tuple(i for i in self.member_ids if i != self.replica_id)

    def validate(self) -> None:
        """Raises ValueError naming the first relation that does not hold."""
        if self.replica_id < 1:
            raise ValueError(f"replica id {self.replica_id} is not positive")
        if self.peers and self.replica_id not in self.peers:
            raise ValueError(f"replica id {self.replica_id} is not among the peers")
        if self.append_bytes_max < 2 * self.entry_bytes_max:
            raise ValueError("append_bytes_max must be at least twice entry_bytes_max")
        if (
            self.election_timeout_s_min < 1.0
            and self.election_timeout_s_min < 10 * self.heartbeat_s
        ):
            raise ValueError("election_timeout_s_min must be at least ten heartbeats")
        if self.election_timeout_s_max <= self.election_timeout_s_min:
            raise ValueError("election_timeout_s_max must be above election_timeout_s_min")
        if self.log_bytes_max < self.log_keep_bytes:
            raise ValueError("log_bytes_max must be at least log_keep_bytes")
        if not 0 < self.snapshot_chunk_bytes <= self.append_bytes_max:
            raise ValueError("snapshot_chunk_bytes must be at most append_bytes_max")
        if self.snapshot_window_bytes < self.snapshot_chunk_bytes:
            raise ValueError("snapshot_window_bytes must be at least snapshot_chunk_bytes")
        if self.snapshot_bytes_per_s < 1:
            raise ValueError("snapshot_bytes_per_s must be positive")
        if self.leader_fallback_s < 3 * self.heartbeat_s:
            raise ValueError("leader_fallback_s must be at least three heartbeats")
