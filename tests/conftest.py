"""What holds for every test: the caller's environment does not leak in, and Hypothesis prints what
is needed to repeat a failure."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

for _name in list(os.environ):
    # Settings of a replica, and proxies, which would swallow connections to 127.0.0.1.
    if _name.startswith("COORDSVC_") or _name.lower().endswith("_proxy"):
        del os.environ[_name]

settings.register_profile(
    "default",
    # A shared machine of two cores stops for longer than any deadline per example.
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")
