"""Every test of this folder runs against every driver listed here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from tests.semantics.core_driver import CoreDriver
from tests.semantics.drivers import Client, Driver
from tests.semantics.stream_driver import StreamDriver
from tests.semantics.unary_driver import UnaryDriver
from tests.semantics.zookeeper_driver import ZooKeeperDriver

DRIVERS: dict[str, Callable[[], Driver]] = {
    "core": CoreDriver,
    "unary": UnaryDriver,
    "stream": StreamDriver,
    "zookeeper": ZooKeeperDriver,
}


@pytest.fixture(params=list(DRIVERS))
async def driver(request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    async with DRIVERS[request.param]() as driver:
        yield driver


@pytest.fixture
async def client(driver: Driver) -> Client:
    return await driver.open_session()


@pytest.fixture
async def other(driver: Driver) -> Client:
    """Another client with a session of its own."""
    return await driver.open_session()
