"""How etcd is started, and what is taken from what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.etcd_server import FSYNCS, IS_LEADER, Server, arguments, environment, metric_in
from coordsvc.testing.cluster import ClusterError

METRICS = f"""\
# HELP {FSYNCS} is not that line
{FSYNCS.removesuffix("count")}bucket{{le="0.001"}} 7
{FSYNCS} 1.234e+06
{FSYNCS}_other 9
{IS_LEADER} 1
"""


def servers(directory: Path) -> list[Server]:
    return [Server(each, 100 + each, 200 + each, directory / str(each)) for each in (1, 2, 3)]


def test_a_metric_is_found_by_its_whole_name() -> None:
    assert metric_in(METRICS, FSYNCS) == 1_234_000
    assert metric_in(METRICS, IS_LEADER) == 1


def test_a_metric_that_is_missing_is_an_error() -> None:
    """An etcd that calls it otherwise would pass for one that never syncs."""
    with pytest.raises(ClusterError, match="has no metric etcd_server_is"):
        metric_in(METRICS, "etcd_server_is")


def test_a_server_is_told_its_addresses_and_nothing_else(tmp_path: Path) -> None:
    """No setting differs from what is shipped: syncing, batching, snapshots."""
    all_of_them = servers(tmp_path)
    told = dict(each.split("=", 1) for each in arguments(all_of_them[1], all_of_them))
    cluster = "etcd1=http://127.0.0.1:201,etcd2=http://127.0.0.1:202,etcd3=http://127.0.0.1:203"
    assert told == {
        "--name": "etcd2",
        "--data-dir": str(tmp_path / "2" / "data"),
        "--listen-client-urls": "http://127.0.0.1:102",
        "--advertise-client-urls": "http://127.0.0.1:102",
        "--listen-peer-urls": "http://127.0.0.1:202",
        "--initial-advertise-peer-urls": "http://127.0.0.1:202",
        "--initial-cluster": cluster,
    }


def test_settings_do_not_leak_in_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCD_UNSAFE_NO_FSYNC", "true")
    monkeypatch.setenv("HOME_OF_ETCD", "/x")
    found = environment()
    assert "ETCD_UNSAFE_NO_FSYNC" not in found
    assert found["HOME_OF_ETCD"] == "/x"
