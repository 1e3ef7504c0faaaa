"""HTTP for machines: metrics, alive, ready."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from coordsvc.server.addresses import Address
from coordsvc.server.admin import Admin, bind
from coordsvc.server.metrics import ReplicaMetrics
from coordsvc.storage.wal import WalStatistics
from tests.unit.server.harness import Harness, local_server

WAL = WalStatistics(
    fsyncs_total=7,
    bytes_written_total=4096,
    last_fsync_seconds=0.002,
    pending_since=None,
    segments=2,
    is_space_low=False,
)


class Page:
    def __init__(self, metrics: ReplicaMetrics, admin: Admin, port: int) -> None:
        self.metrics = metrics
        self.admin = admin
        self.url = f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as client, client.get(self.url + path) as answer:
            return answer.status, await answer.text()

    async def values(self) -> dict[str, float]:
        """Metric -> value, summed over its labels."""
        _, text = await self.get("/metrics")
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
        return values


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    ready: list[bool] = []
    metrics = ReplicaMetrics()
    listener = bind(Address("127.0.0.1", 0))
    page = Page(metrics, Admin(metrics, lambda: bool(ready)), listener.getsockname()[1])
    page.ready = ready  # type: ignore[attr-defined]
    await page.admin.start(listener)
    try:
        yield page
    finally:
        await page.admin.stop()


@pytest.fixture
async def server() -> AsyncIterator[Harness]:
    async with local_server() as harness:
        yield harness


async def test_while_loading_it_is_alive_and_not_ready(page: Page) -> None:
    assert await page.get("/livez") == (200, "ok\n")
    assert (await page.get("/readyz"))[0] == 503
    assert set(await page.values()) == {"coordsvc_build_info", "coordsvc_start_time_seconds"}
    page.ready.append(True)  # type: ignore[attr-defined]
    assert await page.get("/readyz") == (200, "ok\n")
    assert (await page.get("/"))[0] == 404


async def test_the_metrics_tell_what_the_replica_does(page: Page, server: Harness) -> None:
    page.metrics.attach(server.server, lambda: WAL)
    await server.open_session()
    await server.call("Create", path="/a")
    await server.refusal("Create", path="/a")
    values = await page.values()
    state = server.replica.machine.state
    expected = {
        "coordsvc_build_info": 1,
        "coordsvc_is_leader": 1,
        "coordsvc_has_quorum": 1,
        "coordsvc_term": 1,
        "coordsvc_applied_zxid": state.zxid,
        "coordsvc_commit_index": server.replica.commit_index,
        "coordsvc_sessions": 1,
        "coordsvc_znodes": len(state.znodes),
        "coordsvc_wal_fsync_total": 7,
        "coordsvc_wal_fsync_seconds": 0.002,
        "coordsvc_proposals_pending": 0,
        "coordsvc_rpcs_total": 3,
    }
    assert {name: values[name] for name in expected} == expected
    server.replica.has_quorum = False
    assert (await page.values())["coordsvc_has_quorum"] == 0


async def test_no_path_of_a_znode_is_in_the_metrics(page: Page, server: Harness) -> None:
    page.metrics.attach(server.server, lambda: WAL)
    await server.call("Create", path="/a-name-to-look-for")
    assert "a-name-to-look-for" not in (await page.get("/metrics"))[1]


def test_two_cannot_listen_on_one_port() -> None:
    first = bind(Address("127.0.0.1", 0))
    try:
        with pytest.raises(OSError) as caught:
            bind(Address("127.0.0.1", first.getsockname()[1]))
        assert caught.value.errno == errno.EADDRINUSE
    finally:
        first.close()
