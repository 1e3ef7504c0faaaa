"""Fetches and builds everything that `side_by_side` needs, where that is not done yet.

.venv/bin/python -m bench.peers
"""

from __future__ import annotations

import sys

from bench import etcd_server, zookeeper_server
from bench.go_programs import GRPC_LOAD
from coordsvc.testing.cluster import ClusterError


def main() -> None:
    reasons = [zookeeper_server.why_not(), etcd_server.why_not(), GRPC_LOAD.why_not()]
    if any(reasons):
        sys.exit("; ".join(reason for reason in reasons if reason))
    try:
        zookeeper_server.prepare()
        etcd_server.prepare()
        GRPC_LOAD.prepare()
    except ClusterError as error:
        sys.exit(str(error))
    print(f"ZooKeeper {zookeeper_server.version()}, etcd {etcd_server.version()}")


if __name__ == "__main__":
    main()
