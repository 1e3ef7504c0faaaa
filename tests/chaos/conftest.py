"""Real replicas in a real network, and what can happen to both. They run one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordsvc.testing.namespaces import why_not

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.processes)


@pytest.fixture(scope="session", autouse=True)
def network_is_permitted() -> None:
    if reason := why_not():
        pytest.skip(reason)
