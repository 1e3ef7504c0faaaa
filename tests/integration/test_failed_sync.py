"""A sync that fails: the replica ends, nothing it acknowledged is lost, the others go on."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from coordsvc.exit_status import ExitStatus
from coordsvc.testing.cluster import LocalCluster, wait_for
from tests.integration.load_run import LoadRun
from tests.integration.test_leader_kill import check_digests

pytestmark = pytest.mark.timeout(120)

SCRIPT = Path(__file__).parent / "failing_sync.py"
ACKED_MIN = 100
"""Before the fault, and after it."""


class FailingCluster(LocalCluster):
    """Every replica's syncs can be made to fail."""

    def trigger(self, replica_id: int) -> Path:
        return self.log_path(replica_id).with_suffix(".fail")

    def launcher(self, replica_id: int) -> list[str]:
        return [sys.executable, str(SCRIPT), str(self.trigger(replica_id))]


@pytest.mark.parametrize("size", [1, 3])
def test_of_the_leader_under_load(tmp_path: Path, size: int) -> None:
    with FailingCluster(tmp_path / "cluster", size) as cluster:
        cluster.start()
        leader = cluster.wait_leader()
        with LoadRun(tmp_path, cluster.endpoints) as load:
            load.wait_rate(50.0)
            wait_for(lambda: load.acked >= ACKED_MIN, "the load")
            cluster.trigger(leader).touch()
            assert cluster.wait_end(leader, 30) == ExitStatus.DISK, cluster.log_tails()
            (event,) = cluster.events(leader, "process.failed")
            assert "Input/output error" in event["error"], event
            acked = load.acked
            if size == 1:
                cluster.trigger(leader).unlink()
                cluster.start_replica(leader)
            wait_for(lambda: load.acked >= acked + ACKED_MIN, "the load to go on", 30)
            if size > 1:
                cluster.trigger(leader).unlink()
                cluster.start_replica(leader)
            cluster.wait_ready(40)
            load.stop()
            asyncio.run(load.check_tree(cluster.endpoints))
        check_digests(cluster)
