"""proto/service_config.json, which other languages' clients load, fits the services."""

from __future__ import annotations

import json
from pathlib import Path

import grpc

from coordsvc.v1 import cluster_pb2, coordination_pb2

FILE = Path(__file__).resolve().parents[2] / "proto" / "service_config.json"
RETRIED = {
    "coordsvc.v1.Coordination": {
        "Heartbeat", "Exists", "GetData", "GetChildren", "Sync", "GetAcl",
    },
    "coordsvc.v1.Cluster": {"Status", "Members", "Digest"},
}  # fmt: skip
"""Calls that change nothing, and the one that may be repeated at will. A write never is: the
channel cannot know whether the first attempt was applied."""


def test_only_reads_and_heartbeats_are_retried() -> None:
    config = json.loads(FILE.read_text())
    retried: dict[str, set[str]] = {}
    for method_config in config["methodConfig"]:
        assert method_config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
        for name in method_config["name"]:
            retried.setdefault(name["service"], set()).add(name["method"])
    assert retried == RETRIED


def test_every_method_named_exists() -> None:
    services = {
        service.full_name: {method.name for method in service.methods}
        for file in (coordination_pb2.DESCRIPTOR, cluster_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
    }
    for service, methods in RETRIED.items():
        assert methods <= services[service]


def test_grpc_takes_it() -> None:
    """A service config that gRPC cannot parse is ignored or fails every call; it must do neither:
    the call below gets as far as finding nobody at the address."""
    options = [("grpc.service_config", FILE.read_text()), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel("ipv4:127.0.0.1:1", options=options) as channel:
        call = channel.unary_unary("/coordsvc.v1.Coordination/Exists")
        try:
            call(b"", timeout=5)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
            assert "service config" not in str(error.details()).lower()  # type: ignore[attr-defined]
        else:
            raise AssertionError("somebody answered at port 1")
