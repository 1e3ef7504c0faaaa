"""What is measured while it happens, because nobody could tell afterwards: how long things took.

One for the process: it outlives a replica that is built again from disk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from coordsvc.server.histogram import Histogram

GRPC = "grpc"
SESSION_STREAM = "session"
"""Doors: where a request came in."""


class _Methods(dict[str, str]):
    """The method's name for an operation's: `SetData` for `set_data`."""

    def __missing__(self, name: str) -> str:
        self[name] = method = name.title().replace("_", "")
        return method


_METHODS = _Methods()


class Measurements:
    """`rpc(door, method, code, seconds)` for each request that ended."""

    def __init__(self) -> None:
        self.commit_seconds = Histogram()
        self.checkpoint_seconds = Histogram()
        self._rpc_seconds: defaultdict[tuple[str, str, str], Histogram] = defaultdict(Histogram)
        self.leader_changes_total = 0
        self.sessions_expired_total = 0
        self.snapshots_installed_total = 0

    def rpc(self, door: str, method: str, code: str, seconds: float) -> None:
        self._rpc_seconds[door, method, code].observe(seconds)

    def operation(self, name: str, code: str, seconds: float) -> None:
        """One of a Session stream; `name` as in the protocol, such as `set_data`."""
        self._rpc_seconds[SESSION_STREAM, _METHODS[name], code].observe(seconds)

    @property
    def rpc_seconds(self) -> Mapping[tuple[str, str, str], Histogram]:
        """By (door, method, code)."""
        return self._rpc_seconds
