"""Metrics: what they are called, and that they tell what happens."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from coordsvc.core.commands import ExpireSession
from coordsvc.raft.replica_types import ReplicaStatistics
from coordsvc.server.checkpoints import CheckpointStatistics
from coordsvc.server.histogram import Histogram
from coordsvc.server.measurements import Measurements
from coordsvc.server.metrics import ReplicaMetrics
from coordsvc.server.server import Server
from coordsvc.storage.wal import WalStatistics
from coordsvc.v1 import coordination_pb2
from coordsvc.v1.coordination_pb2_grpc import CoordinationStub
from tests.unit.server.harness import Harness, eventually, local_server
from tests.unit.server.zookeeper.monitoring_harness import Door

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).with_name("metrics_golden.txt")

WAL = WalStatistics(
    fsyncs_total=7,
    bytes_written_total=4096,
    last_fsync_seconds=0.002,
    pending_since=None,
    segments=2,
    is_space_low=False,
)
CHECKPOINT = CheckpointStatistics(
    index=900,
    zxid=800,
    age_seconds=5.0,
    checkpoints_total=2,
    bytes_written_total=3000,
    last_bytes=1000,
    last_records=10,
    last_seconds=0.1,
    is_writing=False,
)
REPLICA = ReplicaStatistics(
    term=1,
    role=2,
    leader_id=1,
    commit_index=100,
    applied_index=100,
    last_index=120,
    durable_index=120,
    log_bytes=5000,
    writes_waiting=0,
    writes_undecided=0,
    elections_started=1,
    leader_changes=1,
    truncated_entries=0,
    memoryless=False,
    ready=True,
    linked=(2, 3),
    match_indexes=((2, 120), (3, 50)),
)


class FakeParts:
    """A real server; of what is below it, statistics alone."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def replica_statistics(self) -> ReplicaStatistics:
        return REPLICA

    def wal_statistics(self) -> WalStatistics:
        return WAL

    def checkpoint_statistics(self) -> CheckpointStatistics:
        return CHECKPOINT


class Scene:
    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.parts: FakeParts | None = FakeParts(harness.server)
        self.lag = Histogram()
        self.metrics = ReplicaMetrics(
            harness.server.measurements, self.lag, lambda: self.parts, digest_mismatches=lambda: 0
        )

    def families(self) -> list[Metric]:
        return list(self.metrics.registry.collect())

    def values(self) -> dict[str, float]:
        """Sample -> value, summed over its labels."""
        values: dict[str, float] = {}
        for family in self.families():
            for sample in family.samples:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
        return values

    def labelled(self, name: str, label: str) -> dict[str, float]:
        return {
            sample.labels[label]: sample.value
            for family in self.families()
            for sample in family.samples
            if sample.name == name
        }


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with local_server() as harness:
        yield Scene(harness)


def golden_lines(families: list[Metric], known: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """`name type labels help` of each, as they are served."""
    for family in sorted(families, key=lambda family: family.name):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        shown = ",".join(sorted(labels | set(known.get(name, ())))) or "-"
        yield f"{name} {family.type} {shown}\n    {family.documentation}"


LABELS = {
    "coordsvc_rpc_seconds": ("method", "code", "door"),
    "coordsvc_peer_lag_entries": ("peer",),
}
"""Of those that have no sample until something happens."""


async def test_the_metrics_are_those_promised(scene: Scene) -> None:
    """They are an API: dashboards and alerts break when one changes. To accept a change, run with
    GOLDEN_UPDATE=1, and say so in the changelog."""
    loaded = list(golden_lines(scene.families(), LABELS))
    scene.parts = None
    loading = list(golden_lines(scene.families(), LABELS))
    text = "\n".join(
        ["# While the data is read from disk.", *loading, "", "# Afterwards.", *loaded, ""]
    )
    if os.environ.get("GOLDEN_UPDATE"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_each_of_them_is_in_the_documentation() -> None:
    lines = GOLDEN.read_text().splitlines()
    names = {line.split()[0] for line in lines if line.startswith("coordsvc_")}
    known = set(re.findall(r"`(coordsvc_\w+)", (ROOT / "docs" / "metrics.md").read_text()))
    assert len(names) > 50 and names == known, names ^ known


async def test_they_tell_what_the_replica_does(scene: Scene) -> None:
    server = scene.harness
    await server.open_session()
    await server.call("Create", path="/a", data=b"12345")
    await server.refusal("Create", path="/a")
    values = scene.values()
    state = server.replica.machine.state
    expected = {
        "coordsvc_build_info": 1,
        "coordsvc_is_leader": 1,
        "coordsvc_has_quorum": 1,
        "coordsvc_is_ready": 1,
        "coordsvc_term": 1,
        "coordsvc_leader_changes_total": 1,
        "coordsvc_applied_zxid": state.zxid,
        "coordsvc_commit_index": server.replica.commit_index,
        "coordsvc_sessions": 1,
        "coordsvc_znodes": len(state.znodes),
        "coordsvc_data_bytes": 5,
        "coordsvc_wal_fsync_total": 7,
        "coordsvc_checkpoint_index": 900,
        "coordsvc_proposals_pending": 0,
        "coordsvc_rpc_seconds_count": 3,
    }
    assert {name: values[name] for name in expected} == expected
    server.replica.has_quorum = False
    values = scene.values()
    assert values["coordsvc_has_quorum"] == values["coordsvc_is_ready"] == 0


async def test_requests_are_counted_by_method_code_and_door(scene: Scene) -> None:
    await scene.harness.refusal("Delete", path="/none")
    codes = scene.labelled("coordsvc_rpc_seconds_count", "code")
    assert codes == {"NO_NODE": 1}
    assert scene.labelled("coordsvc_rpc_seconds_count", "method") == {"Delete": 1}
    assert scene.labelled("coordsvc_rpc_seconds_count", "door") == {"grpc": 1}


async def test_a_session_that_is_closed_has_not_expired(scene: Scene) -> None:
    server = scene.harness
    context = await server.open_session()
    await server.call("CloseSession", context=context)
    assert scene.values()["coordsvc_sessions_expired_total"] == 0
    await server.open_session(timeout_ms=1_000)
    (session,) = server.replica.machine.state.sessions.values()
    server.replica.propose(ExpireSession(1, session.session_id, session.attach_epoch))
    await eventually(lambda: not server.replica.machine.state.sessions)
    assert scene.values()["coordsvc_sessions_expired_total"] == 1


async def test_a_peer_s_lag_is_what_it_is_not_known_to_hold(scene: Scene) -> None:
    assert scene.labelled("coordsvc_peer_lag_entries", "peer") == {"2": 0, "3": 70}


async def test_each_limit_shows_its_value_and_those_that_refuse_their_refusals(
    scene: Scene,
) -> None:
    await scene.harness.refusal("Create", path="/a", data=bytes(1024 * 1024 + 1))
    limits = scene.labelled("coordsvc_limit", "limit")
    assert limits["data"] == 1024 * 1024 and limits["disk_free"] == 256 * 1024 * 1024
    refusals = scene.labelled("coordsvc_refusals_total", "limit")
    assert refusals["data"] == 1 and refusals["message"] == 0
    assert "sessions" in scene.labelled("coordsvc_limit_current", "limit")


async def test_of_zookeeper_s_clients_there_is_nothing_without_their_port(scene: Scene) -> None:
    values = scene.values()
    assert not [name for name in values if name.startswith("coordsvc_zookeeper_")]
    server: Any = scene.harness.server
    server.zookeeper = Door()
    values = scene.values()
    assert {name: values[name] for name in values if name.startswith("coordsvc_zookeeper_")} == {
        "coordsvc_zookeeper_connections": 2,
        "coordsvc_zookeeper_outstanding_requests": 2,
        "coordsvc_zookeeper_packets_received_total": 19,
        "coordsvc_zookeeper_packets_sent_total": 21,
        "coordsvc_zookeeper_request_seconds_count": 3,
        "coordsvc_zookeeper_request_seconds_sum": pytest.approx(0.03600025),
    }
    server.zookeeper = None


async def test_no_path_of_a_znode_and_no_session_is_in_the_metrics(scene: Scene) -> None:
    context = await scene.harness.open_session()
    await scene.harness.call("Create", path="/a-name-to-look-for")
    text = scene.metrics.text().decode()
    assert "a-name-to-look-for" not in text
    labels = {
        value
        for family in scene.families()
        for sample in family.samples
        for value in sample.labels.values()
    }
    session_id = context.session.session_id
    assert not {str(session_id), hex(session_id)} & labels - {str(peer) for peer in (1, 2, 3)}


def test_before_anything_is_loaded_there_is_what_is_known_of_the_process() -> None:
    lag = Histogram()
    lag.observe(0.004)
    metrics = ReplicaMetrics(Measurements(), lag, lambda: None)
    text = metrics.text().decode()
    assert "coordsvc_build_info{" in text and "coordsvc_loop_lag_seconds_count 1.0" in text
    assert "coordsvc_digest_mismatch_total 0.0" in text
    assert "coordsvc_is_leader" not in text
    assert isinstance(metrics.registry, CollectorRegistry)


# ------------------------------------------------------------------------------------ histograms


def test_a_value_counts_in_the_least_bucket_that_it_does_not_exceed() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.100001, 1.0, 7.0):
        histogram.observe(value)
    assert histogram.buckets() == [("0.1", 2.0), ("1.0", 4.0), ("+Inf", 5.0)]
    assert histogram.sum == pytest.approx(8.250001) and histogram.count == 5


def test_many_of_one_value_count_as_many() -> None:
    histogram = Histogram((0.1,))
    histogram.observe(0.5, 300)
    assert histogram.buckets() == [("0.1", 0.0), ("+Inf", 300.0)] and histogram.sum == 150.0


def test_a_clock_that_ran_back_makes_nothing_negative() -> None:
    histogram = Histogram((0.1,))
    histogram.observe(-3.0)
    assert histogram.sum == 0.0 and histogram.buckets()[0] == ("0.1", 1.0)


async def test_requests_on_a_session_stream_are_counted_by_their_own_door(scene: Scene) -> None:
    """Under the names they have as calls; what is refused with its code."""
    stub: Any = CoordinationStub(scene.harness.channel)
    stream = stub.Session()
    hello = coordination_pb2.SessionHello(timeout_ms=10_000)
    create = coordination_pb2.CreateRequest(path="/a")
    operations = [
        coordination_pb2.SessionOperation(request_id=1, create=create),
        coordination_pb2.SessionOperation(request_id=2, create=create),
        coordination_pb2.SessionOperation(
            request_id=3, get_data=coordination_pb2.GetDataRequest(path="/a")
        ),
    ]
    await stream.write(coordination_pb2.SessionRequest(hello=hello, operations=operations))
    replies = 0
    while replies < 3:
        replies += sum(item.HasField("reply") for item in (await stream.read()).items)
    counted = {
        tuple(sample.labels[label] for label in ("method", "code", "door")): sample.value
        for family in scene.families()
        for sample in family.samples
        if sample.name == "coordsvc_rpc_seconds_count"
    }
    stream.cancel()
    assert counted == {
        ("Create", "OK", "session"): 1,
        ("Create", "NODE_EXISTS", "session"): 1,
        ("GetData", "OK", "session"): 1,
    }
