"""What holds for every test: the caller's environment does not leak in, Hypothesis prints what is
needed to repeat a failure, and long forms run only when asked for by `pytest -m slow`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

for _name in list(os.environ):
    # Settings of a replica, and proxies, which would swallow connections to 127.0.0.1.
    if _name.startswith("COORDSVC_") or _name.lower().endswith("_proxy"):
        del os.environ[_name]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell has it for what it runs in the background; programs that tests start inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "default",
    # A shared machine of two cores stops for longer than any deadline per example.
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")

ALWAYS = Path(__file__).parent / "property"
"""Simulations without which the others prove little."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in (config.getoption("-m") or ""):
        return
    skip = pytest.mark.skip(reason="the long form: pytest -m slow")
    for item in items:
        if item.get_closest_marker("slow") and not item.path.is_relative_to(ALWAYS):
            item.add_marker(skip)
