"""Prometheus metrics: read from the parts' statistics when somebody asks.

Their names, labels and units are promises: tests/unit/server/metrics_golden.txt lists them, and
docs/metrics.md says what to make of them. The registry is this replica's own, so that several in
one process do not mix. What would have no bound, such as a path or a session, is never a label.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from coordsvc import __version__
from coordsvc.raft.replica_types import ReplicaStatistics
from coordsvc.server.checkpoints import CheckpointStatistics
from coordsvc.server.histogram import Histogram, cumulative
from coordsvc.server.measurements import Measurements
from coordsvc.server.server import Server
from coordsvc.storage.wal import FSYNC_SECONDS_BOUNDS, WalStatistics


class Parts(Protocol):
    """A replica that is put together (`assembly.py`)."""

    @property
    def server(self) -> Server: ...
    def replica_statistics(self) -> ReplicaStatistics: ...
    def wal_statistics(self) -> WalStatistics: ...
    def checkpoint_statistics(self) -> CheckpointStatistics: ...


class ReplicaMetrics(Collector):
    """`parts()` is None while the data is read from disk; then there is only what is known of the
    process."""

    def __init__(
        self,
        measurements: Measurements,
        loop_lag_seconds: Histogram,
        parts: Callable[[], Parts | None],
        *,
        digest_mismatches: Callable[[], int] = lambda: 0,
    ) -> None:
        self._measurements = measurements
        self._loop_lag_seconds = loop_lag_seconds
        self._parts = parts
        self._digest_mismatches = digest_mismatches
        self._started_at = time.time()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        yield _build_info()
        yield _gauge("start_time_seconds", "When this process started, Unix time", self._started_at)
        yield _histogram(
            "loop_lag_seconds",
            "By how much a timer of the event loop came late",
            self._loop_lag_seconds,
        )
        yield _counter(
            "digest_mismatch",
            "Times this replica's state differed from its leader's; it ends then",
            self._digest_mismatches(),
        )
        yield from _measured(self._measurements)
        parts = self._parts()
        if parts is None:
            return
        server = parts.server
        yield from _replica(server, parts.replica_statistics())
        yield from _state(server)
        yield from _requests(server)
        yield from _sessions(server)
        yield from _streams(server)
        yield from _zookeeper(server)
        yield from _disk(parts)
        yield from _limits(server)


def _build_info() -> Metric:
    info = GaugeMetricFamily(
        "coordsvc_build_info", "Always 1; the labels tell what runs", labels=["version", "python"]
    )
    info.add_metric([__version__, platform.python_version()], 1)
    return info


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"coordsvc_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    """Prometheus adds `_total` to the name."""
    return CounterMetricFamily(f"coordsvc_{name}", text, value=value)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(
        f"coordsvc_{name}", text, buckets=histogram.buckets(), sum_value=histogram.sum
    )


def _measured(measurements: Measurements) -> Iterator[Metric]:
    rpc = HistogramMetricFamily(
        "coordsvc_rpc_seconds",
        "Requests ended, by method, error code (OK: none) and the door they came in by; a stream "
        "counts when it ends",
        labels=["method", "code", "door"],
    )
    for (door, method, code), histogram in sorted(measurements.rpc_seconds.items()):
        rpc.add_metric([method, code, door], histogram.buckets(), histogram.sum)
    yield rpc
    yield _histogram(
        "commit_seconds",
        "Writes taken by this replica: from sending them to the leader to applying them here",
        measurements.commit_seconds,
    )
    yield _histogram("checkpoint_seconds", "Checkpoints written", measurements.checkpoint_seconds)
    yield _counter(
        "leader_changes",
        "Elections won, by any replica, as seen by this one",
        measurements.leader_changes_total,
    )
    yield _counter(
        "sessions_expired",
        "Sessions that ended without being closed, applied by this replica",
        measurements.sessions_expired_total,
    )
    yield _counter(
        "snapshots_installed",
        "Snapshots that took the place of this replica's state",
        measurements.snapshots_installed_total,
    )


def _replica(server: Server, statistics: ReplicaStatistics) -> Iterator[Metric]:
    replica = server.replica
    yield _gauge("is_leader", "1 while this replica leads", replica.is_leader)
    yield _gauge(
        "has_quorum",
        "1 while a leader confirmed by a majority is in reach",
        server.pipeline.has_quorum,
    )
    yield _gauge("is_ready", "1 while this replica answers requests", server.is_ready)
    yield _gauge("term", "The Raft term this replica is in", replica.term)
    yield _gauge("commit_index", "The last log entry known to be committed", replica.commit_index)
    yield _gauge("applied_index", "The last log entry applied", replica.applied_index)
    yield _gauge("log_bytes", "The log kept in memory", statistics.log_bytes)
    lag = GaugeMetricFamily(
        "coordsvc_peer_lag_entries",
        "On the leader: log entries a peer is not known to hold",
        labels=["peer"],
    )
    for peer, index in statistics.match_indexes:
        lag.add_metric([str(peer)], max(0, statistics.last_index - index))
    yield lag
    yield _gauge(
        "snapshots_sending",
        "Peers that a snapshot is being sent to",
        len(statistics.snapshots_sending),
    )
    yield _counter(
        "snapshots_sent", "Snapshots that peers came back with", statistics.snapshots_sent
    )
    yield _counter(
        "snapshot_sent_bytes", "Bytes of snapshots sent to peers", statistics.snapshot_bytes_sent
    )
    yield _counter(
        "snapshots_rejected",
        "Snapshots received and found damaged",
        statistics.snapshots_rejected,
    )
    yield _counter(
        "clock_jumps", "Times the wall clock jumped while this replica led", statistics.clock_jumps
    )


def _state(server: Server) -> Iterator[Metric]:
    state = server.replica.machine.state
    yield _gauge("applied_zxid", "The last zxid applied", state.zxid)
    yield _gauge("znodes", "Znodes in the tree", len(state.znodes))
    yield _gauge("data_bytes", "Data of all znodes together", state.data_bytes)
    yield _gauge("sessions", "Sessions in the replicated state", len(state.sessions))
    yield _gauge(
        "ephemerals", "Ephemeral znodes", sum(len(paths) for paths in state.ephemerals.values())
    )


def _requests(server: Server) -> Iterator[Metric]:
    pipeline = server.pipeline.statistics()
    yield _gauge("proposals_pending", "Writes submitted and not answered", pipeline.writes_pending)
    yield _gauge("rpcs_active", "Calls under way, open streams included", server.door.active)


def _sessions(server: Server) -> Iterator[Metric]:
    clock, reports = server.clock.statistics(), server.reports.statistics()
    yield _gauge("sessions_heard", "Sessions last heard of at this replica", reports.sessions_heard)
    yield _gauge(
        "heartbeats_waiting",
        "Heartbeats the leader has not acknowledged",
        reports.heartbeats_waiting,
    )
    yield _counter(
        "session_expiries_proposed", "Expiries this leader proposed", clock.expiries_proposed_total
    )
    yield _counter("loop_stalls", "Times the loop stood still", clock.stalls_total)
    yield _counter(
        "loop_stalled_seconds", "Seconds the loop stood still", clock.stalled_seconds_total
    )
    yield _counter(
        "collections_proposed",
        "Containers and TTL znodes this leader collected",
        server.collection.proposed_total,
    )


def _streams(server: Server) -> Iterator[Metric]:
    sessions, hub = server.sessions.statistics(), server.hub.statistics()
    yield _gauge("session_streams", "Open Session streams", sessions.streams)
    yield _gauge("watch_streams", "Open Watch streams", server.watches.open_streams)
    yield _gauge("watches", "Watches at this replica", hub.watches)
    yield _counter(
        "watch_gaps", "Times events were not kept, and a gap was told instead", hub.gaps_total
    )
    yield _gauge(
        "watch_history_bytes", "Past events kept to resume watches from", hub.history_bytes
    )
    yield _gauge(
        "watch_history_from_zxid",
        "From here on a watch can be resumed without a gap",
        hub.history_from_zxid,
    )


def _zookeeper(server: Server) -> Iterator[Metric]:
    """Without a value where there is no such door."""
    connections = GaugeMetricFamily(
        "coordsvc_zookeeper_connections", "Connections of ZooKeeper's clients"
    )
    outstanding = GaugeMetricFamily(
        "coordsvc_zookeeper_outstanding_requests", "Requests of theirs that wait for their reply"
    )
    received = CounterMetricFamily(
        "coordsvc_zookeeper_packets_received", "Packets that came from them"
    )
    sent = CounterMetricFamily(
        "coordsvc_zookeeper_packets_sent", "Replies and watch events sent to them"
    )
    latency = SummaryMetricFamily(
        "coordsvc_zookeeper_request_seconds", "Their requests, from arrival to reply"
    )
    if server.zookeeper is not None:
        facts = server.zookeeper.facts()
        traffic = facts.traffic
        connections.add_metric([], len(facts.connections))
        outstanding.add_metric([], facts.outstanding)
        received.add_metric([], traffic.received)
        sent.add_metric([], traffic.sent)
        latency.add_metric([], traffic.answered, traffic.latency_ms_total / 1000)
    yield from (connections, outstanding, received, sent, latency)


def _disk(parts: Parts) -> Iterator[Metric]:
    wal = parts.wal_statistics()
    yield _counter("wal_fsync", "Syncs of the write-ahead log", wal.fsyncs_total)
    yield HistogramMetricFamily(
        "coordsvc_wal_fsync_seconds",
        "How long a sync of the write-ahead log took",
        buckets=cumulative(FSYNC_SECONDS_BOUNDS, wal.fsync_counts),
        sum_value=wal.fsync_seconds_total,
    )
    yield _counter("wal_written_bytes", "Bytes written to the log", wal.bytes_written_total)
    yield _gauge("wal_segments", "Segment files of the log", wal.segments)
    yield _gauge("wal_is_space_low", "1 when the disk has no room to go on", wal.is_space_low)
    free = GaugeMetricFamily("coordsvc_disk_free_bytes", "Free for this process below data_dir")
    if (free_bytes := parts.server.disk_space.free_bytes) is not None:
        free.add_metric([], free_bytes)
    yield free
    checkpoint = parts.checkpoint_statistics()
    yield _gauge("checkpoint_index", "The last log entry the checkpoint covers", checkpoint.index)
    yield _gauge("checkpoint_bytes", "Written by the last checkpoint", checkpoint.last_bytes)
    yield _counter(
        "checkpoint_written_bytes", "Written by all checkpoints", checkpoint.bytes_written_total
    )
    age = GaugeMetricFamily(
        "coordsvc_checkpoint_age_seconds", "Since this process wrote its last checkpoint"
    )
    if checkpoint.age_seconds is not None:
        age.add_metric([], checkpoint.age_seconds)
    yield age


def _limits(server: Server) -> Iterator[Metric]:
    """Of every limit its value, how near it is, and how often it refused."""
    limit = GaugeMetricFamily("coordsvc_limit", "The value of a limit", labels=["limit"])
    current = GaugeMetricFamily(
        "coordsvc_limit_current",
        "What counts towards a limit now, where that lasts; disk_free is a least, not a most",
        labels=["limit"],
    )
    refusals = CounterMetricFamily(
        "coordsvc_refusals", "Requests that a limit refused", labels=["limit"]
    )
    refuses = server.admission.limits.refusals_total
    for each in server.admission.limits.statistics():
        limit.add_metric([each.name], each.maximum)
        if each.current is not None:
            current.add_metric([each.name], each.current)
        if each.name in refuses:
            refusals.add_metric([each.name], each.refusals_total)
    yield limit
    yield current
    yield refusals
