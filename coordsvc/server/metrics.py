"""Prometheus metrics: read from the parts' statistics when somebody asks, counted nowhere else.

The registry is this replica's own, so that several in one process do not mix. No znode's path is
ever a label.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from coordsvc import __version__
from coordsvc.server.server import Server
from coordsvc.storage.wal import WalStatistics

CONTENT_TYPE = CONTENT_TYPE_LATEST


class ReplicaMetrics(Collector):
    """`wal()` are the log's statistics. Before `attach` there is only what is known then."""

    def __init__(self) -> None:
        self._server: Server | None = None
        self._wal: Callable[[], WalStatistics] | None = None
        self._started_at = time.time()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def attach(self, server: Server, wal: Callable[[], WalStatistics]) -> None:
        self._server, self._wal = server, wal

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        yield _build_info()
        yield _gauge("start_time_seconds", "When this process started, Unix time", self._started_at)
        if self._server is None or self._wal is None:
            return
        yield from _replica(self._server)
        yield from _state(self._server)
        yield from _requests(self._server)
        yield from _sessions(self._server)
        yield from _wal(self._wal())


def _build_info() -> Metric:
    info = GaugeMetricFamily(
        "coordsvc_build_info", "Always 1; the labels tell what runs", labels=["version", "python"]
    )
    info.add_metric([__version__, platform.python_version()], 1)
    return info


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"coordsvc_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"coordsvc_{name}", text, value=value)


def _replica(server: Server) -> Iterator[Metric]:
    replica = server.replica
    yield _gauge("is_leader", "1 while this replica leads", replica.is_leader)
    yield _gauge(
        "has_quorum",
        "1 while a leader confirmed by a majority is in reach",
        server.pipeline.has_quorum,
    )
    yield _gauge("is_ready", "1 while this replica answers requests", server.pipeline.is_ready)
    yield _gauge("term", "The Raft term this replica is in", replica.term)
    yield _gauge("commit_index", "The last log entry known to be committed", replica.commit_index)
    yield _gauge("applied_index", "The last log entry applied", replica.applied_index)


def _state(server: Server) -> Iterator[Metric]:
    state = server.replica.machine.state
    yield _gauge("applied_zxid", "The last zxid applied", state.zxid)
    yield _gauge("znodes", "Znodes in the tree", len(state.znodes))
    yield _gauge("sessions", "Sessions in the replicated state", len(state.sessions))
    yield _gauge(
        "ephemerals", "Ephemeral znodes", sum(len(paths) for paths in state.ephemerals.values())
    )


def _requests(server: Server) -> Iterator[Metric]:
    pipeline = server.pipeline.statistics()
    yield _gauge("proposals_pending", "Writes submitted and not answered", pipeline.writes_pending)
    yield _gauge("rpcs_active", "Calls under way", server.door.active)
    calls = CounterMetricFamily(
        "coordsvc_rpcs", "Calls ended, by method and error code", labels=["method", "code"]
    )
    for (method, code), count in sorted(server.door.calls_total.items()):
        calls.add_metric([method, code], count)
    yield calls


def _sessions(server: Server) -> Iterator[Metric]:
    clock, reports = server.clock.statistics(), server.reports.statistics()
    yield _gauge("sessions_heard", "Sessions last heard of at this replica", reports.sessions_heard)
    yield _gauge(
        "heartbeats_waiting",
        "Heartbeats the leader has not acknowledged",
        reports.heartbeats_waiting,
    )
    yield _counter(
        "session_expiries_proposed", "Sessions this leader expired", clock.expiries_proposed_total
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


def _wal(wal: WalStatistics) -> Iterator[Metric]:
    yield _counter("wal_fsync", "Syncs of the write-ahead log", wal.fsyncs_total)
    yield _gauge(
        "wal_fsync_seconds", "How long the last sync of the log took", wal.last_fsync_seconds
    )
    yield _counter("wal_written_bytes", "Bytes written to the log", wal.bytes_written_total)
    yield _gauge("wal_segments", "Segment files of the log", wal.segments)
    yield _gauge("wal_is_space_low", "1 when the disk has no room to go on", wal.is_space_low)
