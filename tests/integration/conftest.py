"""Tests with real processes. They run one at a time, and each is bounded in time.

Those marked `slow` are the long forms of others here; they run only when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordsvc.testing.cluster import LocalCluster

HERE = Path(__file__).parent
CLUSTERS = pytest.StashKey[list[LocalCluster]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.processes)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Shows what the replicas logged, should the test fail."""
    report: pytest.TestReport = yield
    if report.failed:
        for cluster in item.stash.get(CLUSTERS, []):
            report.sections.append(("replicas' logs", cluster.log_tails()))
    return report


@pytest.fixture
def make_cluster(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., LocalCluster]]:
    """Makes a cluster, not started; what still runs at the test's end is killed."""
    clusters: list[LocalCluster] = []
    request.node.stash[CLUSTERS] = clusters

    def make(size: int = 3, **options: Any) -> LocalCluster:
        cluster = LocalCluster(tmp_path / f"cluster-{len(clusters)}", size, **options)
        clusters.append(cluster)
        return cluster

    yield make
    for cluster in clusters:
        cluster.kill_all()


@pytest.fixture
def cluster(make_cluster: Callable[..., LocalCluster]) -> LocalCluster:
    """Three replicas that serve."""
    cluster = make_cluster(3)
    cluster.start()
    return cluster
