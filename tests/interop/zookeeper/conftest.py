"""Three servers for all tests of this folder, and kazoo clients of them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from kazoo.client import KazooClient

from tests.interop.zookeeper.ensembles import Ensemble, Given, serving
from tests.interop.zookeeper.forwarding import Forwarder

START_SECONDS = 30.0
SESSION_SECONDS = 10.0


@pytest.fixture(scope="session")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    with serving(tmp_path_factory.mktemp("ensemble"), os.environ.get("INTEROP_HOSTS", "")) as found:
        yield found


@pytest.fixture
def mortal_ensemble(ensemble: Ensemble) -> Iterator[Ensemble]:
    """Servers that may be killed. All serve again when the test ends."""
    if isinstance(ensemble, Given):
        pytest.skip("INTEROP_HOSTS names servers of somebody else's")
    yield ensemble
    ensemble.wait_ready()


@pytest.fixture
def hosts(ensemble: Ensemble) -> Sequence[str]:
    return ensemble.hosts


@pytest.fixture
def root() -> str:
    """A path that is this test's alone; nothing is there yet."""
    return f"/interop-{uuid.uuid4().hex}"


Connect = Callable[..., KazooClient]


@pytest.fixture
def connect(hosts: Sequence[str]) -> Iterator[Connect]:
    """`connect(replica, chroot="", **options)`: a client with a session on that replica, the first
    is 0. Options are KazooClient's; `hosts` among them overrides the replica."""
    with ExitStack() as stack:

        def connected(replica: int = 0, chroot: str = "", **options: Any) -> KazooClient:
            defaults = {"hosts": hosts[replica % len(hosts)] + chroot, "timeout": SESSION_SECONDS}
            client = KazooClient(**(defaults | options))
            stack.callback(client.close)
            stack.callback(client.stop)
            client.start(START_SECONDS)
            return client

        yield connected


@pytest.fixture
def client(connect: Connect, root: str) -> KazooClient:
    """A client of the first replica, and `root` exists."""
    connected = connect()
    connected.create(root)
    return connected


@pytest.fixture
def doors(hosts: Sequence[str]) -> Iterator[list[Forwarder]]:
    """A port before each server that a test can cut."""
    with ExitStack() as stack:
        yield [stack.enter_context(Forwarder(each)) for each in hosts]
